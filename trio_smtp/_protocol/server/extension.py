# An extension that an application brings: a keyword for EHLO, parameters, commands. Rows for tables, checked when made.
from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..checks import check_text
from ..errors import LocalProtocolError
from ..extensions import KNOWN_EXTENSIONS, Extension
from ..parameters import PARAMETERS, Parameter, ParameterContext
from .commands import FOREIGN, VERBS

_KEYWORD = re.compile(r"[A-Z0-9][A-Z0-9-]*").fullmatch  # RFC 5321 §4.1.1.1 and §4.1.2, ehlo-keyword and esmtp-keyword
_VERB = re.compile(r"[A-Z][A-Z0-9-]*").fullmatch
_KNOWN_VERBS = VERBS | {verb.decode() for verb in FOREIGN}


@dataclass(frozen=True)
class ServerExtension:
    """An extension of your own, for ``ServerConfig(extensions=...)``.

    Its parameters come to ``on_mail`` and ``on_rcpt`` in ``params`` of the sender or recipient, as received; its
    commands to ``on_command``. Names are in any case and kept in upper case; those that no RFC defines begin with X
    (RFC 5321 section 4.1.5).

    ``ServerExtension("XFOO", "bar", mail_parameters=["XTAG"], commands=["XDO"])``

    Attributes:
        keyword: what EHLO says.
        text: what stands behind it.
        mail_parameters: parameters of MAIL that come with it, each with or without a value.
        rcpt_parameters: the same for RCPT.
        commands: verbs that come with it.

    Raises:
        LocalProtocolError: a name or the text cannot be sent.
        ValueError: a name that trio_smtp knows itself, or one that is there twice.
        TypeError: a str where a sequence of names is wanted.
    """

    keyword: str
    text: str = ""
    mail_parameters: Sequence[str] = ()
    rcpt_parameters: Sequence[str] = ()
    commands: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_text("text", self.text)
        [keyword] = _names("keyword", [self.keyword], _KEYWORD, KNOWN_EXTENSIONS)
        object.__setattr__(self, "keyword", keyword)
        for command in ("mail", "rcpt"):
            field = f"{command}_parameters"
            known = {row.keyword for row in PARAMETERS if row.command == command.upper()}
            object.__setattr__(self, field, _names(field, getattr(self, field), _KEYWORD, known))
        object.__setattr__(self, "commands", _names("commands", self.commands, _VERB, _KNOWN_VERBS))


def extension_row(extension: ServerExtension) -> Extension:
    """Its row in the table of extensions."""
    return Extension(extension.keyword, lambda offer: extension.text)


def parameter_rows(extension: ServerExtension) -> list[Parameter]:
    """Its rows in the table of parameters."""
    return [
        *(Parameter(name, "MAIL", extension.keyword, _keep) for name in extension.mail_parameters),
        *(Parameter(name, "RCPT", extension.keyword, _keep) for name in extension.rcpt_parameters),
    ]


def _keep(value: str | None, party: Any, context: ParameterContext) -> None:
    """A parameter whose value is for the application: it is in ``params`` already."""


def _names(field: str, values: object, is_name: Any, known: Iterable[str]) -> tuple[str, ...]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise TypeError(f"{field} must be a sequence of names, not {values!r}")
    names = tuple(value.upper() if isinstance(value, str) and value.isascii() else value for value in values)
    for name in names:
        if not isinstance(name, str) or is_name(name) is None:
            raise LocalProtocolError(f"{field}: {name!r} is not a name (letters, digits and hyphens)")
        if name in known:
            raise ValueError(f"{field}: {name} is known to trio_smtp itself")
    if len(set(names)) != len(names):
        raise ValueError(f"{field}: a name is there twice")
    return names


def check_extensions(values: object) -> tuple[ServerExtension, ...]:
    """The extensions of one server: no name may stand in two of them.

    Raises:
        TypeError, ValueError: naming the field.
    """
    if not isinstance(values, Iterable):
        raise TypeError(f"extensions must be a sequence of ServerExtension, not {values!r}")
    extensions = tuple(values)
    for extension in extensions:
        if not isinstance(extension, ServerExtension):
            raise TypeError(f"extensions must be a sequence of ServerExtension, not of {extension!r}")
    for field in ("mail_parameters", "rcpt_parameters", "commands"):
        names = [name for extension in extensions for name in getattr(extension, field)]
        if len(set(names)) != len(names):
            raise ValueError(f"extensions: two of them have the same {field}")
    if len({extension.keyword for extension in extensions}) != len(extensions):
        raise ValueError("extensions: two of them have the same keyword")
    return extensions
