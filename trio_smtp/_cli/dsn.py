# The options that ask other servers for delivery reports (DSN, RFC 3461), as parameters of MAIL and RCPT.
from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final, TypedDict

import click

_NOTIFY: Final = ("success", "failure", "delay")
_LONGEST: Final = 100  # characters of an envelope identifier, RFC 3461 §4.4
_NO_XCHAR: Final = re.compile(r"[^!-*,-<>-~]")  # RFC 3461 §4


class Parameters(TypedDict):
    """What `Outbox.put` takes."""

    mail_params: dict[str, str]
    rcpt_params: dict[str, dict[str, str]]


def _notify(ctx: click.Context, option: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    words = value.lower().split(",")
    # RFC 3461 §4.1: never only by itself, the others at most once each.
    if words != ["never"] and (not set(words) <= set(_NOTIFY) or len(set(words)) < len(words)):
        raise click.BadParameter(f"{value!r} is neither never nor some of {','.join(_NOTIFY)}.")
    return ",".join(words).upper()


def _envid(ctx: click.Context, option: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    # RFC 3461 §4.4: before it is encoded, printable US-ASCII.
    if not 1 <= len(value) <= _LONGEST or not (value.isascii() and value.isprintable()):
        raise click.BadParameter(f"{value!r} is not 1 to {_LONGEST} printable characters of ASCII.")
    return _NO_XCHAR.sub(lambda found: f"+{ord(found[0]):02X}", value)


def dsn_options(command: Any) -> Any:
    """The options of a command; their values go to :func:`dsn_parameters`."""
    for option in reversed(
        (
            click.option(
                "--notify",
                metavar="WORDS",
                callback=_notify,
                help="When the sender is to get a delivery report: never, or some of success,failure,delay.",
            ),
            click.option(
                "--ret",
                type=click.Choice(["full", "hdrs"], case_sensitive=False),
                help="What a report of a failure returns: the message in full, or its header.",
            ),
            click.option(
                "--envid", metavar="ID", callback=_envid, help="What reports are to call this message to its sender."
            ),
        )
    ):
        command = option(command)
    return command


def dsn_parameters(notify: str | None, ret: str | None, envid: str | None, recipients: Iterable[str]) -> Parameters:
    """The parameters that the values of the options stand for."""
    mail = {"RET": None if ret is None else ret.upper(), "ENVID": envid}
    return {
        "mail_params": {name: value for name, value in mail.items() if value is not None},
        "rcpt_params": {} if notify is None else {address: {"NOTIFY": notify} for address in recipients},
    }
