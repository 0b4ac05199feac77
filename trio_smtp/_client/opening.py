# From a host's name to a connection that is ready for mail: connect, greeting, EHLO, STARTTLS, EHLO again, AUTH.
#
# The five modes of TLS differ in three questions: does TLS start before the greeting, must it start at all, and must
# the certificate be valid. They do not differ in this: what was said in clear is forgotten after the handshake, and
# octets in clear behind the 220 to STARTTLS are an attack (CVE-2011-0411 and its kin).
#
# Guarantee: what open_connection() raises says `delivery == "not_sent"` and a stage, and nothing is left open.
from __future__ import annotations

import math
import re
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

import trio

from .._observer import Observer
from .._protocol.checks import check_choice, check_count, check_flag, check_function, check_kind, check_text
from .._protocol.client.commands import STARTTLS, Verb, hello
from .._protocol.errors import (
    ConnectError,
    ConnectionLostError,
    Delivery,
    RemoteProtocolError,
    SMTPError,
    SMTPTimeoutError,
    Stage,
    TLSError,
)
from .._protocol.extensions import Extensions
from .._protocol.proxy import ProxyHeader
from .._protocol.replies import Reply
from .._protocol.sasl import Auth, as_auth
from .._wire.opening import open_wire
from .._wire.tls import is_in_clear
from .._wire.wire import Wire
from .auth import Login, log_in
from .config import ClientConfig
from .connection import ClientConnection
from .reaching import Connect, address_name, reach, tls_name
from .trace import ClientEvent, ClientWitness, tell_unreached

TLSMode: TypeAlias = Literal["auto", "implicit", "starttls", "opportunistic", "none"]
"""Whether a client uses TLS; :func:`open_client` says what each word means."""
TLS_MODES: Final = ("auto", "implicit", "starttls", "opportunistic", "none")
IMPLICIT_TLS_PORT: Final = 465  # RFC 8314 §3.3
SMTP_PORT: Final = 25
LMTP_PORT: Final = 24  # "any private mail system": what Postfix takes; RFC 2033 §5 forbids 25
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
# RFC 5321 §4.1.2, Domain; the last label is not all digits (RFC 3696 §2), so that an address is none.
_DOMAIN = re.compile(rf"(?=.{{1,255}}\Z){_LABEL}(?:\.{_LABEL})*\.(?![0-9]+\Z){_LABEL}").fullmatch
_WITH_PORT = re.compile(r"(?!unix:)\[?([^\[\]:/]+|(?<=\[)[^\[\]/]+)\]?:(\d+)").fullmatch
_SUBMISSION: Final = frozenset({465, 587})  # RFC 8314 §3.3; RFC 6409
_WRONG_NAME: Final = 62  # OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH
_LOOKUP: Final = 5.0  # seconds for our own full name


@dataclass(kw_only=True, eq=False)
class Opening:
    """How connections are opened: the arguments of ``open_client`` and ``open_pool`` that are not the host's.

    Attributes:
        config_name: what the caller knows the configuration as, for messages.
        login: what `auth` stands for, ``None`` without it.
        observer: calls the configuration's ``trace``, ``None`` without one.
    """

    tls: TLSMode = "auto"
    ssl_context: ssl.SSLContext | None = None
    auth: Auth | tuple[str, str] | None = field(default=None, repr=False)  # the pair has a password
    local_hostname: str | None = None
    allow_insecure_auth: bool = False
    lmtp: bool = False
    proxy_header: ProxyHeader | None = None
    connect: Connect | None = None
    config: ClientConfig = field(default_factory=ClientConfig)
    config_name: str = "config"
    login: Login | None = field(init=False, default=None)
    observer: Observer[ClientEvent] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        check_choice("tls", self.tls, TLS_MODES)
        check_kind("ssl_context", self.ssl_context, ssl.SSLContext, optional=True)
        if self.local_hostname is not None:
            check_text("local_hostname", self.local_hostname, word=True)
        check_flag("allow_insecure_auth", self.allow_insecure_auth)
        check_flag("lmtp", self.lmtp)
        check_kind("proxy_header", self.proxy_header, ProxyHeader, optional=True)
        check_function("connect", self.connect, "an async callable")
        check_kind(self.config_name, self.config, ClientConfig)
        if self.auth is not None:
            self.login = Login(as_auth(self.auth))
        if self.config.trace is not None:
            self.observer = Observer(self.config.trace, "client")

    def port(self, port: int | None) -> int:
        """The port to connect to: by default 24 with LMTP, 465 with implicit TLS, else 25.

        Raises:
            ValueError, TypeError: it is not a port, or 25 with LMTP.
        """
        if port is None:
            if self.lmtp:
                return LMTP_PORT
            return IMPLICIT_TLS_PORT if self.tls == "implicit" else SMTP_PORT
        check_count("port", port, most=65535, optional=False)
        if self.lmtp and port == SMTP_PORT:
            raise ValueError("LMTP must not be spoken on port 25 (RFC 2033 section 5)")
        return port

    def context(self) -> ssl.SSLContext:
        """The context for handshakes. It is made once: reading the system's certificates takes a while."""
        if self.ssl_context is None:
            self.ssl_context = ssl.create_default_context()
            if self.tls == "opportunistic":  # RFC 7435: encryption that may fail is not refused for its certificate
                self.ssl_context.check_hostname = False
                self.ssl_context.verify_mode = ssl.CERT_NONE
        return self.ssl_context


Wrap: TypeAlias = Callable[[trio.abc.Stream], Wire]
Tell: TypeAlias = Callable[[Literal["tls", "auth"], float], None]


class _HandshakeFailed(Exception):
    """STARTTLS was accepted and the handshake failed; the error is the cause."""

    def __init__(self, error: SMTPError) -> None:
        self.error = error


async def open_connection(
    opening: Opening,
    host: str,
    port: int | None = None,
    *,
    stream: trio.abc.Stream | None = None,
    wrap: Wrap = open_wire,
    tell: Tell = lambda what, started: None,
    number: int = 1,
) -> ClientConnection:
    """Open a connection that is ready for MAIL.

    Args:
        opening: how.
        host: to connect to; the name that a certificate must have. Or ``unix:`` and a path.
        port: see :meth:`Opening.port`.
        stream: a connected stream to use instead; owned from now on.
        wrap: makes a wire of the stream.
        tell: called after a handshake and after logging in, with the time at which that began.
        number: which connection of the pool it is.

    Raises:
        ConnectError, ConnectionLostError, SMTPTimeoutError, RemoteProtocolError, TLSError, AuthenticationError:
            with ``stage`` and ``delivery == "not_sent"``; nothing is left open.
    """
    port = opening.port(port)
    if not isinstance(host, str) or not host:
        raise TypeError(f"host is a name or an address, not {host!r}")
    check_host(host)
    check_kind("stream", stream, trio.abc.Stream, optional=True)
    given = stream is not None
    try:
        try:
            return await _connect_and_open(opening, host, port, stream, wrap, tell, number)
        except _HandshakeFailed as exc:
            if opening.tls != "opportunistic" or given:
                raise exc.error from exc.error.__cause__
        return await _connect_and_open(opening, host, port, None, wrap, tell, number, clear=True)
    except SMTPError as exc:
        exc.delivery = Delivery.NOT_SENT
        raise


async def _connect_and_open(
    opening: Opening,
    host: str,
    port: int,
    stream: trio.abc.Stream | None,
    wrap: Wrap,
    tell: Tell,
    number: int,
    *,
    clear: bool = False,
) -> ClientConnection:
    observer, began = opening.observer, trio.current_time()
    if stream is None:
        try:
            stream = await _connect(opening, host, port)
        except BaseException as exc:
            if observer is not None:
                tell_unreached(observer, began, exc)
            raise
    witness = None if observer is None else ClientWitness(observer, began)
    return await _open(opening, host, port, stream, wrap, tell, number, witness, clear=clear)


def check_host(host: str) -> None:
    """Refuse what is a host and something else.

    Raises:
        ValueError: saying what to leave out.
    """
    if "://" in host:
        raise ValueError(f"host is a name or an address, not the URL {host!r}")
    if match := _WITH_PORT(host):
        raise ValueError(f"host has a port in it, {host!r}: give host {match[1]!r} and port {match[2]}")
    if host.startswith("["):
        raise ValueError(f"host is an address without brackets, not {host!r}")


async def _connect(opening: Opening, host: str, port: int) -> trio.abc.Stream:
    return await reach(host, port, opening.config, opening.connect)


async def _open(
    opening: Opening,
    host: str,
    port: int,
    stream: trio.abc.Stream,
    wrap: Wrap,
    tell: Tell,
    number: int,
    witness: ClientWitness | None,
    *,
    clear: bool = False,
) -> ClientConnection:
    connection = ClientConnection(
        wrap(stream),
        opening.config,
        lmtp=opening.lmtp,
        name=address_name(host, port),
        number=number,
        witness=witness,
    )
    try:
        if opening.proxy_header is not None:  # before anything else, TLS included
            await _send_proxy_header(connection, opening.proxy_header)
        if isinstance(stream, trio.SSLStream):
            await _adopt_tls(connection)
        elif opening.tls == "implicit" or (opening.tls == "auto" and port == IMPLICIT_TLS_PORT):
            started = trio.current_time()
            await _start_implicit_tls(opening, connection, host)
            tell("tls", started)
        await _hear_greeting(connection, port)
        await say_hello(opening, connection)
        if opening.tls != "none" and not clear and connection.wire.tls is None:
            await _start_tls(opening, connection, host, tell)
        if opening.login is not None:
            started = trio.current_time()
            tls = connection.wire.tls
            await log_in(
                connection,
                opening.login,
                # A caller's own context may verify nothing, and that is the caller's choice; with "opportunistic" it
                # is not.
                secure=tls is not None and (tls.verified or opening.tls != "opportunistic"),
                allow_insecure=opening.allow_insecure_auth,
                host=host,
                port=port,
            )
            tell("auth", started)
    except (SMTPError, _HandshakeFailed) as exc:
        connection.dialogue.note_reason(exc.error if isinstance(exc, _HandshakeFailed) else exc)
        await connection.aclose()
        raise
    except BaseException as exc:
        connection.dialogue.note_reason(exc)
        connection.abort()
        await connection.aclose()
        raise
    return connection


async def _send_proxy_header(connection: ClientConnection, header: ProxyHeader) -> None:
    try:
        await connection.write(header.to_bytes(), connection.config.connect_timeout)
    except (ConnectionLostError, SMTPTimeoutError) as exc:
        exc._place(Stage.CONNECT)
        raise


async def _adopt_tls(connection: ClientConnection) -> None:
    """The stream that was given is under TLS: shake hands, if that was not done, and go by what TLS says of it."""
    try:
        await connection.adopt_tls()
    except (TLSError, ConnectionLostError, SMTPTimeoutError) as exc:
        exc._place(Stage.CONNECT)
        raise


async def _start_implicit_tls(opening: Opening, connection: ClientConnection, host: str) -> None:
    try:
        await connection.start_tls(opening.context(), tls_name(host))
    except (TLSError, ConnectionLostError, SMTPTimeoutError) as exc:
        exc._place(Stage.CONNECT)
        _explain_certificate(exc, connection, host)
        if is_in_clear(exc.__cause__):
            raise TLSError(
                f"{connection.name} does not speak TLS from the start; it may want tls='starttls'", stage=Stage.CONNECT
            ) from exc.__cause__
        raise


def _explain_certificate(error: SMTPError, connection: ClientConnection, host: str) -> None:
    """Say whose certificate is refused, and how one says what to trust."""
    cause = error.__cause__
    if not isinstance(cause, ssl.SSLCertVerificationError):
        return
    words = f"the certificate of {connection.name} is not valid for {host!r}: {cause.verify_message}"
    if cause.verify_code != _WRONG_NAME:
        words += "; ssl_context=ssl.create_default_context(cafile=...) says which certificates to trust"
    error.args = (words,)


async def _hear_greeting(connection: ClientConnection, port: int) -> None:
    hint, timeout = "", connection.config.greeting_timeout
    if port in _SUBMISSION:  # no server greets late here to keep spammers off
        timeout = min(timeout or math.inf, connection.config.submission_greeting_timeout or math.inf)
        timeout = None if timeout == math.inf else timeout
    if connection.wire.tls is None:
        hint = f"; if port {port} speaks TLS from the start, it wants tls='implicit'"
    try:
        reply = await connection.hear_greeting(timeout)
    except SMTPTimeoutError as exc:
        text = f"no greeting from {connection.name} within {timeout:g} seconds{hint}"
        raise SMTPTimeoutError(text, stage=Stage.GREETING) from exc
    except RemoteProtocolError as exc:
        raise RemoteProtocolError(f"{connection.name} does not greet: {exc}{hint}", stage=Stage.GREETING) from exc
    except ConnectionLostError as exc:
        exc._place(Stage.GREETING)
        raise
    if reply.code != 220:
        raise ConnectError(f"{connection.name} refuses the connection: {reply}", reply=reply, stage=Stage.GREETING)


async def say_hello(opening: Opening, connection: ClientConnection) -> None:
    """Say EHLO (LHLO), or HELO to a server that does not know it, and note what is offered.

    Raises:
        ConnectError: refused.
    """
    name = opening.local_hostname or await _own_name(connection.wire)
    timeout = opening.config.command_timeout
    connection.learn(Extensions())
    reply = await connection.exchange(hello(Verb.LHLO if opening.lmtp else Verb.EHLO, name), timeout)
    if reply.is_success:
        connection.learn(Extensions.from_lines(reply.lines))
        return
    if reply.code != 421 and not opening.lmtp:
        reply = await connection.exchange(hello(Verb.HELO, name), timeout)  # RFC 5321 §3.2
    if not reply.is_success:
        hint = ""
        if reply.code in (501, 504):  # about the argument
            hint = f"; we said {name!r}: local_hostname is for another name"
        raise ConnectError(f"{connection.name} does not take our hello: {reply}{hint}", reply=reply, stage=Stage.HELLO)


async def _start_tls(opening: Opening, connection: ClientConnection, host: str, tell: Tell) -> None:
    if "STARTTLS" not in connection.extensions:
        if opening.tls == "starttls":
            raise TLSError(f"{connection.name} does not offer STARTTLS", stage=Stage.STARTTLS)
        return
    reply = await connection.exchange(STARTTLS, opening.config.command_timeout)
    if not reply.is_success:
        if opening.tls != "opportunistic":
            raise TLSError(f"{connection.name} refuses STARTTLS: {reply}", reply=reply, stage=Stage.STARTTLS)
        _check_alive(connection, reply)
        return
    if not connection.protocol.is_silent:
        connection.abort()
        raise TLSError(f"{connection.name} spoke before the TLS handshake", stage=Stage.STARTTLS)
    started = trio.current_time()
    try:
        await connection.start_tls(opening.context(), tls_name(host))
    except SMTPTimeoutError as exc:
        limit = opening.config.tls_handshake_timeout
        late = SMTPTimeoutError(
            f"no TLS handshake with {connection.name} within {limit:g} seconds", stage=Stage.STARTTLS
        )
        raise _HandshakeFailed(late) from exc
    except (TLSError, ConnectionLostError) as exc:
        exc._place(Stage.STARTTLS)
        _explain_certificate(exc, connection, host)
        raise _HandshakeFailed(exc) from exc
    tell("tls", started)
    await say_hello(opening, connection)  # RFC 3207 §4.2


def _check_alive(connection: ClientConnection, reply: Reply) -> None:
    if connection.is_broken:
        raise ConnectError(f"{connection.name} closed the session: {reply}", reply=reply, stage=Stage.STARTTLS)


async def _own_name(wire: Wire) -> str:
    """Our name for EHLO: the host's full name, else the address literal of this end (RFC 5321 section 4.1.4)."""
    name = socket.gethostname()
    local = wire.local
    if "." not in name and local is not None:
        # This may ask the DNS, so it happens in a thread; a full name is taken from there once.
        name = await _full_name()
    if "." in name and _DOMAIN(name.rstrip(".")):
        return name.rstrip(".")
    address = local[0].partition("%")[0] if local is not None else "127.0.0.1"
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"


_full_names: dict[str, str] = {}


async def _full_name() -> str:
    """The host's full name, or the short one where the resolver does not know a longer one in time; looked up once."""
    short = socket.gethostname()
    if short not in _full_names:
        with trio.move_on_after(_LOOKUP):
            await trio.to_thread.run_sync(_look_up, short, abandon_on_cancel=True)
        _full_names.setdefault(short, short)  # the next connection does not wait again
    return _full_names[short]


def _look_up(short: str) -> None:
    _full_names[short] = socket.getfqdn()  # kept even if it comes too late for the connection that asked
