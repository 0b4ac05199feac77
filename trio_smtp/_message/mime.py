# Content-Type and Content-Disposition: a value and parameters (RFC 2045 §5.1, RFC 2183, RFC 2231).
#
# A parameter that is not ASCII, or too long for a line, is written as RFC 2231 says; an encoded word would be wrong in
# it, and in the value it would hide the type.
from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from .mailboxes import quoted, unquoted

_TOKEN: Final = re.compile(r"[!#$&+.^_`{|}~0-9A-Za-z-]+").fullmatch  # not those by which RFC 2231 marks an encoding
_PARAMETER: Final = re.compile(r';[ \t]*+([^\s=;"]++)[ \t]*+=[ \t]*+("(?:[^"\\]|\\.)*+"?|[^;]*+)|;')
_HEAD: Final = re.compile(r"[^;]*")
_TYPE: Final = re.compile(r"\s*([^\s/;()<>@,\"]+)\s*/\s*([^\s/;()<>@,\"]+)").match
_UNENCODED: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#$&+-.^_`{|}~")
_ENCODED: Final = tuple(chr(octet) if octet in _UNENCODED else f"%{octet:02X}" for octet in range(256))
_LONGEST: Final = 900  # octets of a parameter on one line
_SECTION: Final = 50  # octets of one section of a longer one

Parameter = tuple[str, str]
"""A name and its text in the source."""


def content_type_of(source: str | None) -> tuple[str, str] | None:
    """Type and subtype in lower case, ``None`` where the field is missing or wrong (RFC 2045 section 5.2)."""
    match = _TYPE(source) if source is not None else None
    return (match[1].lower(), match[2].lower()) if match is not None else None


def parameters_of(source: str) -> tuple[str, list[Parameter]]:
    """The value of an unfolded field, and its parameters as they are written."""
    head = _HEAD.match(source)
    assert head is not None
    found = _PARAMETER.finditer(source, head.end())
    return head[0].strip(), [(match[1], match[2].strip()) for match in found if match[1]]


def meaning(text: str) -> str:
    """What a parameter's text says."""
    return unquoted(text) if text.startswith('"') else text


def parameter_words(head: str, parameters: Iterable[tuple[str, str]], *, utf8: bool) -> list[bytes]:
    """The words of a value in ASCII and of parameters by their meaning."""
    words = [head.encode("ascii")]
    for name, value in parameters:
        _append(words, _composed(name, value, utf8))
    return words


def rewritten_parameters(source: str) -> list[bytes] | None:
    """The words of a source in which parameters that are not ASCII are encoded; ``None`` if more than those is not."""
    head, parameters = parameters_of(source)
    if not head.isascii() or not all(name.isascii() for name, _ in parameters):
        return None
    words = [head.encode("ascii")]
    for name, text in parameters:
        _append(words, [f"{name}={text}"] if text.isascii() else _composed(name.rstrip("*"), meaning(text), False))
    return words


def _append(words: list[bytes], texts: Iterable[str]) -> None:
    for text in texts:
        words[-1] += b";"
        words.append(b" " + text.encode())


def _composed(name: str, value: str, utf8: bool) -> list[str]:
    plain = value.isprintable() and (utf8 or value.isascii())
    if plain and len(value.encode()) <= _LONGEST:
        return [f"{name}={value if _TOKEN(value) else quoted(value)}"]
    octets = value.encode("utf-8", "surrogateescape")
    try:
        characters, charset = [character.encode() for character in octets.decode()], "utf-8"
    except UnicodeDecodeError:
        characters, charset = [octets[at : at + 1] for at in range(len(octets))], "unknown-8bit"
    sections = list(_sections(characters))
    if len(sections) == 1:
        return [f"{name}*={charset}''{sections[0]}"]
    return [f"{name}*{at}*={'' if at else charset + chr(39) * 2}{text}" for at, text in enumerate(sections)]


def _sections(characters: list[bytes]) -> Iterator[str]:
    section = ""
    for character in characters:
        encoded = "".join(map(_ENCODED.__getitem__, character))
        if section and len(section) + len(encoded) > _SECTION:
            yield section
            section = ""
        section += encoded
    yield section
