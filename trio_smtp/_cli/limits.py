# The limits and tolerances of `trio-smtp serve`: fields of ServerConfig as options of the same names.
from __future__ import annotations

import ipaddress
import math
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import click

import trio_smtp

from .options import size

_Command = TypeVar("_Command", bound=Callable[..., Any])

_TIMES: Final = {
    "command_timeout": "Longest wait for a command.",
    "data_timeout": "Longest wait for the octets of a message.",
    "session_timeout": "Longest duration of a connection.",
    "handler_timeout": "Longest time to store a message.",
    "tls_handshake_timeout": "Longest TLS handshake.",
    "proxy_timeout": "Longest wait for a PROXY header.",
}
_COUNTS: Final = {
    "max_connections": "Connections at one time, of each process.",
    "max_connections_per_host": "The same for one client's address; by default none where only this machine's"
    " programs can connect.",
    "max_recipients": "Recipients of a message.",
    "max_messages": "Messages on one connection.",
}


def seconds(value: str) -> float:
    """A time in seconds; infinite for ``none``."""
    return _limit(value, float, "a number of seconds such as 30, or none")


def count(value: str) -> float:
    """A whole number; infinite for ``none``."""
    return _limit(value, int, "a number such as 30, or none")


def _limit(value: str, kind: Callable[[str], float], words: str) -> float:
    if value.lower() == "none":
        return math.inf
    try:
        number = kind(value)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise click.BadParameter(f"{value!r} is not {words}.")
    return number


def limit_options(command: _Command) -> _Command:
    """The options; :func:`config_of` takes their values."""
    for decorate in reversed(_OPTIONS):
        command = decorate(command)
    return command


def _option(name: str, kind: Callable[[str], float], metavar: str, words: str) -> Callable[[_Command], _Command]:
    default = getattr(trio_smtp.ServerConfig, name)
    words = f"{words}  [default: {default}]"
    return click.option(f"--{name.replace('_', '-')}", type=kind, metavar=f"{metavar}|none", help=words)


_OPTIONS: Final[list[Callable[[Any], Any]]] = [
    click.option(
        "--max-size",
        "max_message_size",
        type=size,
        metavar="SIZE",
        default="32M",
        show_default=True,
        help="Largest message: 500000, 64K, 10M.",
    ),
    *(_option(name, count, "N", words) for name, words in _COUNTS.items()),
    *(_option(name, seconds, "SECONDS", words) for name, words in _TIMES.items()),
    click.option(
        "--bare-newlines",
        type=click.Choice(("reject", "normalize")),
        default="reject",
        show_default=True,
        help="A message with a CR or LF alone is refused, or they are made CR LF.",
    ),
    click.option(
        "--lenient",
        "lenient_addresses",
        is_flag=True,
        help="Take what some devices send: addresses without < > or a domain, bare line feeds after commands.",
    ),
]
_NAMES: Final = frozenset({"max_message_size", "bare_newlines", "lenient_addresses", *_COUNTS, *_TIMES})


def config_of(options: Mapping[str, Any], *, is_local: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields of ServerConfig that options of this module give, and all other options.

    Args:
        options: by name; ``None`` for what was not given.
        is_local: only programs of this machine can connect.
    """
    given = {name: value for name, value in options.items() if name in _NAMES and value is not None}
    if is_local:
        given.setdefault("max_connections_per_host", math.inf)
    fields = {name: None if value == math.inf else value for name, value in given.items()}
    return fields, {name: value for name, value in options.items() if name not in _NAMES}


def is_loopback(host: str) -> bool:
    """Whether a name or an address that one listens on can be reached from this machine only."""
    if host.lower().rstrip(".") == "localhost":  # RFC 6761 §6.3
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
