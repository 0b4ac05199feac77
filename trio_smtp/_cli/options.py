# Parsers of option values, with errors that name the option; and the options that `send` and `load` share.
from __future__ import annotations

import ipaddress
import logging
import os
import re
import ssl
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import click

import trio_smtp

from .errors import CommandError, Status

PASSWORD_VARIABLE = "TRIO_SMTP_PASSWORD"
MECHANISMS: Final = ("SCRAM-SHA-256", "SCRAM-SHA-1", "CRAM-MD5", "PLAIN", "LOGIN")
TLS_MODES: Final = ("auto", "implicit", "starttls", "opportunistic", "none")

_Command = TypeVar("_Command", bound=Callable[..., Any])
_SIZE = re.compile(r"(\d+)\s*([kmg]?)(?:i?b)?", re.IGNORECASE)
_UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}


def host_port(value: str) -> tuple[str, int | None]:
    """``HOST``, ``HOST:PORT``, ``[IPV6]``, ``[IPV6]:PORT`` or ``unix:PATH``; the port is ``None`` if it is missing."""
    if value.startswith("unix:") and len(value) > len("unix:"):
        return value, None
    if _is_address(value):  # an IPv6 address without a port needs no brackets
        return value, None
    host, colon, port = value.rpartition(":") if not value.endswith("]") else (value, "", "")
    if not colon:
        host = value
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    if not host or (colon and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536)):
        raise click.BadParameter(f"{value!r} is not HOST:PORT.")
    return host, int(port) if colon else None


def size(value: str) -> int:
    """Octets, with an optional unit: ``500000``, ``64K``, ``10M``."""
    match = _SIZE.fullmatch(value.strip())
    if match is None or int(match[1]) == 0:
        raise click.BadParameter(f"{value!r} is not a size such as 500000, 64K or 10M.")
    return int(match[1]) * _UNITS[match[2].lower()]


def octal(value: str) -> int:
    """A file's permissions: ``600``."""
    try:
        mode = int(value, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o777:
        raise click.BadParameter(f"{value!r} is not a mode such as 600 or 666.")
    return mode


def hostname(value: str) -> str:
    """A name for EHLO."""
    if not (value.isascii() and value.isprintable() and value and " " not in value):
        raise click.BadParameter(f"{value!r} is not a name: it must be printable ASCII without spaces.")
    return value


def network(value: str) -> str:
    """An IP network, or an address."""
    try:
        return str(ipaddress.ip_network(value))
    except ValueError as exc:
        raise click.BadParameter(f"{value!r} is not a network such as 10.0.0.0/8 or ::1.") from exc


def _is_address(value: str) -> bool:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True


def verbose_option(command: _Command) -> _Command:
    """``-v``: log the connections to standard error."""

    def switch_on(ctx: click.Context, param: click.Parameter, value: bool) -> None:
        logging.basicConfig(format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")
        logging.getLogger("trio_smtp").setLevel(logging.DEBUG if value else logging.WARNING)

    return click.option(
        "-v",
        "--verbose",
        is_flag=True,
        expose_value=False,
        callback=switch_on,
        help="Log every command and reply to standard error, without passwords and message content.",
    )(command)


def auth_options(purpose: str) -> Callable[[_Command], _Command]:
    """``--auth`` and ``--password-file``.

    Args:
        purpose: the start of the help text.
    """

    def decorate(command: _Command) -> _Command:
        command = click.option(
            "--password-file",
            metavar="FILE",
            type=click.Path(dir_okay=False),
            help="Read the password from the first line of FILE.",
        )(command)
        return click.option(
            "--auth",
            metavar="USER[:PASSWORD]",
            help=f"{purpose} Other users of this machine can see a password on the command line. To avoid that, use"
            f" --password-file or the variable {PASSWORD_VARIABLE}, or type it when asked.",
        )(command)

    return decorate


def credentials(auth: str | None, password_file: str | None) -> tuple[str, str] | None:
    """User name and password; the password from the option, the file, the variable or the terminal.

    Raises:
        click.UsageError: there is no password, or more than one.
        CommandError: the file cannot be read.
    """
    if auth is None:
        if password_file is not None:
            raise click.UsageError("--password-file needs --auth USER.")
        return None
    user, colon, password = auth.partition(":")
    if not user:
        raise click.UsageError("--auth must be USER or USER:PASSWORD.")
    if colon and password_file is not None:
        raise click.UsageError("The password is given twice: by --auth and by --password-file.")
    if colon:
        return user, password
    if password_file is not None:
        return user, _first_line(password_file)
    if PASSWORD_VARIABLE in os.environ:
        return user, os.environ[PASSWORD_VARIABLE]
    if sys.stdin.isatty():
        return user, str(click.prompt(f"Password for {user}", hide_input=True, err=True))
    raise click.UsageError(
        f"No password for {user!r}: give --password-file FILE, the variable {PASSWORD_VARIABLE},"
        " or --auth USER:PASSWORD."
    )


@dataclass(frozen=True, kw_only=True)
class Target:
    """The server to connect to, from ``--server`` and the options of :func:`client_options`.

    Attributes:
        words: the server, as the user wrote it.
        host: its name or address.
        port: ``None`` for the default.
        config: of the client.
        options: further arguments of ``open_client`` and ``open_pool``.
    """

    words: str
    host: str
    port: int | None
    config: trio_smtp.ClientConfig
    options: dict[str, Any]


server_option = click.option(
    "--server",
    required=True,
    metavar="HOST:PORT",
    type=host_port,
    help="The server; [ADDRESS]:PORT for IPv6, unix:PATH for a UNIX socket.",
)


def client_options(command: _Command) -> _Command:
    """The options of a connection; :func:`target` takes their values and that of ``--server``."""
    for decorate in reversed(_CLIENT_OPTIONS):
        command = decorate(command)
    return command


_CLIENT_OPTIONS: Final[tuple[Callable[[Any], Any], ...]] = (
    click.option(
        "--tls",
        type=click.Choice(TLS_MODES),
        default="auto",
        show_default=True,
        help="implicit: TLS at once. starttls: required. auto: implicit on port 465, else STARTTLS if offered."
        " opportunistic: STARTTLS if it works, certificate not checked. none: no TLS.",
    ),
    click.option("--ca", metavar="FILE", help="Trust the certificates in FILE (PEM) instead of the system's."),
    auth_options("Log in as this user."),
    click.option("--allow-insecure-auth", is_flag=True, help="Allow the password without TLS, in clear."),
    click.option("--hostname", metavar="NAME", type=hostname, help="Name for EHLO; by default this machine's."),
    click.option("--lmtp", is_flag=True, help="Speak LMTP (RFC 2033), with a result for each recipient."),
    click.option(
        "--mechanism",
        type=click.Choice(MECHANISMS, case_sensitive=False),
        help="Log in by this SASL mechanism; by default the strongest that the server offers.",
    ),
    click.option("--no-chunking", is_flag=True, help="Send messages by DATA where the server offers BDAT too."),
    click.option("--no-pipelining", is_flag=True, help="Wait for the reply to each command."),
)


def target(
    *,
    server: tuple[str, int | None],
    tls: str,
    ca: str | None,
    auth: str | None,
    password_file: str | None,
    allow_insecure_auth: bool,
    hostname: str | None,
    lmtp: bool,
    mechanism: str | None,
    no_chunking: bool,
    no_pipelining: bool,
) -> Target:
    """Check the values of ``--server`` and of :func:`client_options`.

    Raises:
        click.UsageError: there is no password, or more than one; or LMTP on port 25.
        CommandError: a file cannot be read.
    """
    host, port = server
    if lmtp and port == 25:
        raise click.UsageError("LMTP must not be used on port 25 (RFC 2033).")
    login = credentials(auth, password_file)
    if mechanism is not None and login is None:
        raise click.UsageError("--mechanism needs --auth.")
    return Target(
        words=host_words(host, port),
        host=host,
        port=port,
        config=trio_smtp.ClientConfig(chunking=not no_chunking, pipelining=not no_pipelining),
        options={
            "tls": tls,
            "ssl_context": None if ca is None else _trusting(ca),
            "auth": _password(login, mechanism),
            "allow_insecure_auth": allow_insecure_auth,
            "local_hostname": hostname,
            "lmtp": lmtp,
        },
    )


def _password(login: tuple[str, str] | None, mechanism: str | None) -> trio_smtp.Password | None:
    if login is None:
        return None
    try:
        return trio_smtp.Password(*login, mechanisms=None if mechanism is None else [mechanism])
    except trio_smtp.LocalProtocolError as exc:
        raise click.UsageError(f"--auth: {exc}.") from exc


def host_words(host: str, port: int | None) -> str:
    """Host and port as on the command line."""
    if host.startswith("unix:"):
        return host
    shown = f"[{host}]" if ":" in host else host
    return shown if port is None else f"{shown}:{port}"


def _trusting(ca: str) -> ssl.SSLContext:
    """A context that trusts the certificates in a file, and no others."""
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as exc:  # ssl.SSLError is one
        why = "it holds no certificate in PEM form" if isinstance(exc, ssl.SSLError) else exc.strerror
        raise CommandError(f"cannot read certificates from {ca}: {why}", Status.NO_INPUT) from exc


def _first_line(path: str) -> str:
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else "not UTF-8"
        raise CommandError(f"cannot read the password from {path}: {why}", Status.NO_INPUT) from exc
    if not lines or not lines[0]:
        raise CommandError(f"the first line of {path} is empty: no password", Status.NO_INPUT)
    return lines[0]
