# Everything about a server that is a number, a word or a switch: plain data, checked when it is made.
from __future__ import annotations

import ipaddress
import platform
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, TypeAlias

from ..addresses import own_name
from ..checks import check_choice, check_count, check_flag, check_function, check_names, check_seconds, check_text
from ..extensions import KNOWN_EXTENSIONS, MAX_INTERVAL, MAX_SIZE, OPT_IN_EXTENSIONS
from ..nul import SERVER_NUL_POLICIES
from ..sasl import MAX_ITERATIONS, MIN_ITERATIONS, MIN_SECRET, SERVER_MECHANISMS
from .extension import ServerExtension, check_extensions
from .observation import ServerEvent

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """What a server offers, and its limits. Every field is checked when the object is made.

    ``None`` lifts a limit. Times are in seconds, lengths in octets, those of lines with their CR LF.

    Attributes:
        hostname: the name in the greeting and in replies; by default the host's own, in its ASCII form if it has
            another, or ``localhost`` if it is no name at all.
        banner: text after ``220 hostname ESMTP``.
        command_timeout: wait for the next command, and for the peer to read our replies (RFC 5321 section 4.5.3.2.7).
        data_timeout: wait for message data. Each read that brings n octets adds ``n / min_data_rate`` seconds to
            what is left, up to this value, so that a peer that only trickles comes to an end.
        min_data_rate: octets per second; ``None``: each read may take `data_timeout`.
        session_timeout: the longest a connection may last.
        handler_timeout: the longest a hook may take, its waiting for message data not counted; then 451.
        tls_handshake_timeout: for a handshake, of either kind.
        proxy_timeout: for the PROXY header of a peer in `proxy_protocol_from`.
        auth: ``"required"`` refuses MAIL until the client has authenticated itself.
        auth_mechanisms: SASL mechanisms to offer, in the order of the EHLO line.
        allow_insecure_auth: offer AUTH in clear too, unless `require_tls`.
        max_message_size: octets of a message, dots and the end of data not counted (RFC 1870).
        enable_ehlo: ``False`` speaks plain SMTP: HELO only.
        require_tls: refuse AUTH, MAIL, RCPT, DATA, BDAT, VRFY, EXPN and the commands of `extensions` before TLS.
        disabled_extensions: EHLO keywords not to offer; their commands and parameters are then unknown.
        enabled_extensions: EHLO keywords to offer that oblige the application: DSN, REQUIRETLS, DELIVERBY,
            FUTURERELEASE, MT-PRIORITY.
        max_hold: seconds that ``HOLDFOR=`` may ask for, where FUTURERELEASE is offered (RFC 4865).
        max_hold_until: the latest time that ``HOLDUNTIL=`` may ask for, with a time zone.
        min_deliver_by: the least seconds that ``BY=`` with mode R may ask for, where DELIVERBY is offered (RFC 2852).
        extensions: extensions of your own, each a :class:`ServerExtension`.
        max_connections: connections at one time. From three quarters on, waits become shorter; when all are open, the
            one that has been of no use for the longest time makes room for the next, or, if all are of use, the next
            gets 421 4.3.2. docs/supported.md has the rules.
        max_connections_per_host: the same for one IPv4 address or IPv6 /64 network; the next gets 421 4.7.0.
        max_recipients: accepted recipients of one message; the next gets 452 4.5.3 (RFC 5321 section 4.5.3.1.10).
        max_messages: transactions on one connection; the next MAIL gets 421.
        max_errors: 5xx replies on one connection since the last accepted message; the next gets 421.
        max_junk_commands: NOOP, RSET, VRFY, EXPN, HELP, repeated EHLO, and BDAT of less than 16 octets without LAST,
            since the last accepted message; further ones count as errors.
        soft_errors: errors on one connection that cost nothing; from the next on each one costs a delay, unless
            `max_errors` is ``None``.
        error_delay: seconds that the reply to an error waits beyond `soft_errors`. The reply to a failed AUTH command
            waits so long for each one that failed before it, on the connection or from its host, whichever is more;
            at most 10 in one go. ``None``: no delays.
        max_auth_failures: failed AUTH commands on one connection; the next gets 421.
        max_auth_failures_per_host: how many refused credentials in how many seconds from one IPv4 address or IPv6 /64
            network, over all its connections; then AUTH gets 454 4.7.0 and the application is not asked. A success
            resets it.
        max_command_line: length of a command.
        max_auth_line: length of an AUTH command and of each line of its exchange (RFC 4954 section 4).
        max_reply_buffer: octets of replies to a group of commands that gather at most before they are sent, but for
            the reply that reaches it.
        bare_newlines: a message with a bare CR or LF is refused (``"reject"``), or they are made CR LF
            (``"normalize"``).
        nul: a message with a NUL is refused (``"reject"``), or passed on as it is (``"keep"``); one that is BINARYMIME
            may have any. Some servers drop a NUL and take the line ``NUL .`` for the end of the message.
        lenient_addresses: take addresses without angle brackets, without a domain, with a final dot after it, or after
            several spaces; and commands that end with LF alone. docs/supported.md has the list.
        reject_early_talkers: a client that speaks before the greeting gets 554, and so does one that does not wait for
            the answer to each command without having been offered PIPELINING; costs every connection 0.1 s.
        lmtp: speak LMTP (RFC 2033) instead of SMTP.
        proxy_protocol_from: networks whose connections begin with a PROXY header, version 1 or 2.
        xclient_from: networks that may use XCLIENT and XFORWARD.
        scram_secret: makes the SCRAM salt of each user name; give every process of one service the same.
        scram_iterations: rounds of the SCRAM key derivation.
        trace: called with a :class:`ServerEvent` for each thing that happens; must be synchronous and quick. What it
            raises is logged once, and has no other effect. Without it no events are made.
        transcript: a function that is called with the session, ``"C"`` or ``"S"``, and each line of a command or reply
            of it, secrets masked; content is left out. Must be quick; what it raises is logged.

    Raises:
        ValueError, TypeError: naming the field.
        LocalProtocolError: `hostname` or `banner` cannot be sent.
    """

    hostname: str = field(default_factory=lambda: own_name(platform.node()))
    banner: str = "trio_smtp"
    command_timeout: float | None = 300
    data_timeout: float | None = 300
    min_data_rate: float | None = 500
    session_timeout: float | None = 3600
    handler_timeout: float | None = 300
    tls_handshake_timeout: float | None = 60
    proxy_timeout: float | None = 5
    auth: Literal["optional", "required"] = "optional"
    auth_mechanisms: Sequence[str] = ("PLAIN", "LOGIN")
    allow_insecure_auth: bool = False
    max_message_size: int | None = 32 * 1024 * 1024
    enable_ehlo: bool = True
    require_tls: bool = False
    disabled_extensions: Sequence[str] = ()
    enabled_extensions: Sequence[str] = ()
    max_hold: int | None = None
    max_hold_until: datetime | None = None
    min_deliver_by: int | None = None
    extensions: Sequence[ServerExtension] = ()
    max_connections: int | None = 1000
    max_connections_per_host: int | None = 50
    max_recipients: int | None = 1000
    max_messages: int | None = 1000
    max_errors: int | None = 20
    max_junk_commands: int | None = 100
    soft_errors: int | None = 10
    error_delay: float | None = 1
    max_auth_failures: int | None = 3
    max_auth_failures_per_host: tuple[int, float] | None = (10, 60)
    max_command_line: int = 2048
    max_auth_line: int = 12288
    max_reply_buffer: int = 65536
    bare_newlines: Literal["reject", "normalize"] = "reject"
    nul: Literal["reject", "keep"] = "reject"
    lenient_addresses: bool = False
    reject_early_talkers: bool = False
    lmtp: bool = False
    proxy_protocol_from: Sequence[str | ipaddress.IPv4Network | ipaddress.IPv6Network] = ()
    xclient_from: Sequence[str | ipaddress.IPv4Network | ipaddress.IPv6Network] = ()
    scram_secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)
    scram_iterations: int = 4096
    trace: Callable[[ServerEvent], None] | None = None
    transcript: Callable[[Any, str, str], None] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_text("hostname", self.hostname, word=True)
        check_text("banner", self.banner)
        for name in ("command", "data", "session", "handler", "tls_handshake", "proxy"):
            check_seconds(f"{name}_timeout", getattr(self, f"{name}_timeout"))
        check_seconds("min_data_rate", self.min_data_rate)
        check_count("max_message_size", self.max_message_size, most=MAX_SIZE)
        for name in (
            "max_connections",
            "max_connections_per_host",
            "max_recipients",
            "max_messages",
            "max_errors",
            "max_auth_failures",
        ):
            check_count(name, getattr(self, name))
        check_count("max_junk_commands", self.max_junk_commands, least=0)
        check_count("soft_errors", self.soft_errors, least=0)
        check_seconds("error_delay", self.error_delay)
        if self.max_auth_failures_per_host is not None:
            self._check_failures_per_host(self.max_auth_failures_per_host)
        for name in ("max_hold", "min_deliver_by"):
            check_count(name, getattr(self, name), most=MAX_INTERVAL)  # the most that EHLO can say
        if self.max_hold_until is not None:
            _check_moment("max_hold_until", self.max_hold_until)
        check_count("max_command_line", self.max_command_line, least=512, optional=False)  # RFC 5321 §4.5.3.1.4
        check_count("max_auth_line", self.max_auth_line, least=self.max_command_line, optional=False)
        check_count("max_reply_buffer", self.max_reply_buffer, optional=False)
        # At least what RFC 7677 §4 asks; no client would take more than the most, and each AUTH would cost us as much.
        check_count(
            "scram_iterations", self.scram_iterations, least=MIN_ITERATIONS, most=MAX_ITERATIONS, optional=False
        )
        check_choice("auth", self.auth, ("optional", "required"))
        check_choice("bare_newlines", self.bare_newlines, ("reject", "normalize"))
        check_choice("nul", self.nul, SERVER_NUL_POLICIES)
        for name in (
            "allow_insecure_auth",
            "enable_ehlo",
            "require_tls",
            "lenient_addresses",
            "reject_early_talkers",
            "lmtp",
        ):
            check_flag(name, getattr(self, name))
        if self.lmtp and not self.enable_ehlo:
            raise ValueError("enable_ehlo: LMTP has no HELO to fall back on")
        self._store("extensions", check_extensions(self.extensions))
        own = {extension.keyword for extension in self.extensions}
        self._store("auth_mechanisms", check_names("auth_mechanisms", self.auth_mechanisms, SERVER_MECHANISMS))
        self._store(
            "disabled_extensions",
            check_names("disabled_extensions", self.disabled_extensions, KNOWN_EXTENSIONS | own),
        )
        self._store("enabled_extensions", check_names("enabled_extensions", self.enabled_extensions, OPT_IN_EXTENSIONS))
        self._store("proxy_protocol_from", networks("proxy_protocol_from", self.proxy_protocol_from))
        self._store("xclient_from", networks("xclient_from", self.xclient_from))
        check_function("trace", self.trace)
        check_function("transcript", self.transcript)
        if not isinstance(self.scram_secret, bytes):
            raise TypeError("scram_secret must be bytes")
        if len(self.scram_secret) < MIN_SECRET:
            raise ValueError(f"scram_secret must have at least {MIN_SECRET} octets")

    def _check_failures_per_host(self, limit: object) -> None:
        name = "max_auth_failures_per_host"
        if not isinstance(limit, tuple) or len(limit) != 2 or limit[1] is None:
            raise TypeError(f"{name} must be (failures, seconds) or None, not {limit!r}")
        check_count(name, limit[0], optional=False)
        check_seconds(name, limit[1])

    def _store(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)


def _check_moment(name: str, value: object) -> None:
    if not isinstance(value, datetime):
        raise TypeError(f"{name} must be a datetime or None, not {value!r}")
    if value.utcoffset() is None:
        raise ValueError(f"{name} needs a time zone")


def networks(name: str, values: object) -> tuple[Network, ...]:
    """Networks as objects, whatever they are given as.

    Raises:
        TypeError, ValueError: naming the field.
    """
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise TypeError(f"{name} must be a sequence of networks, not {values!r}")
    networks = tuple(values)
    for value in networks:  # ip_network() takes 10 for 0.0.0.10
        if not isinstance(value, str | ipaddress.IPv4Network | ipaddress.IPv6Network):
            raise TypeError(f"{name}: a network must be a str or of ipaddress, not {value!r}")
    try:
        return tuple(map(ipaddress.ip_network, networks))
    except ValueError as exc:
        raise ValueError(f"{name}: {exc}") from exc
