# TLS as a transform of octets, without a stream and without waiting, and what a connection tells of its TLS.
#
# trio.SSLStream serves any stream, and clients use it. A server's plain sockets use a Seal instead: SSLStream's locks,
# its tries before each wait and its turns of the scheduler cost more than the ciphers (a 1 KiB message: 60 µs; 1 MiB,
# record by record: 1 ms), and a wait inside it cannot be ended but by a cancel scope. Nothing here is cryptography:
# OpenSSL does all of it, between two buffers in memory, as it does inside SSLStream.
from __future__ import annotations

import contextvars
import ssl
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, Self

from .._protocol.errors import TLSError

_RECORD: Final = 16384  # octets of content that a record has at most (RFC 8446 section 5.1)
_HELD_LIMIT: Final = 16384  # octets of TLS's own (tickets, alerts) that wait for the next thing we say

# Set around a handshake, so that the context's SNI callback, which OpenSSL calls inside it, finds its connection.
_handshake: contextvars.ContextVar[ServerName | None] = contextvars.ContextVar("trio_smtp_handshake", default=None)


@dataclass(frozen=True, kw_only=True)
class TLSInfo:
    """What TLS says of a connection.

    Attributes:
        version: the protocol ("TLSv1.3").
        cipher: the cipher suite's OpenSSL name.
        server_name: the name the client asked for (SNI), or the one we asked for; ``None`` if none.
        peer_certificate: as :meth:`ssl.SSLSocket.getpeercert` gives it; ``None`` where there is none or it was
            not verified.
        verified: the peer's certificate was checked against trusted roots (and, by a client, the host name).
    """

    version: str
    cipher: str
    server_name: str | None = None
    peer_certificate: dict[str, Any] | None = field(default=None, repr=False)
    verified: bool = False


class ServerName:
    """The name that a client asks for in a handshake; to be entered around it."""

    __slots__ = ("_token", "name")

    def __init__(self) -> None:
        self.name: str | None = None

    def __enter__(self) -> Self:
        self._token = _handshake.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        _handshake.reset(self._token)


def watch_server_name(context: ssl.SSLContext) -> None:
    """Let handshakes with `context` tell the name the client asked for; a callback that is set already is chained."""
    previous = context.sni_callback
    if getattr(previous, "tells_trio_smtp", False):
        return

    def callback(connection: ssl.SSLObject, name: str | None, ctx: ssl.SSLContext) -> int | None:
        seen = _handshake.get()
        if seen is not None:
            seen.name = name
        return previous(connection, name, ctx) if previous is not None else None  # type: ignore[arg-type]

    callback.tells_trio_smtp = True  # type: ignore[attr-defined]
    context.sni_callback = callback


class _Secured(Protocol):
    """A :class:`ssl.SSLObject`, or a :class:`trio.SSLStream`, which has its methods."""

    def version(self) -> str | None: ...
    def cipher(self) -> tuple[str, str, int] | None: ...
    def getpeercert(self) -> dict[str, Any] | None: ...


def describe(secured: _Secured, context: ssl.SSLContext, server_name: str | None, *, server_side: bool) -> TLSInfo:
    """What a connection tells after its handshake."""
    certificate = secured.getpeercert() or None
    if server_side:
        verified = certificate is not None and context.verify_mode != ssl.CERT_NONE
    else:
        verified = context.verify_mode == ssl.CERT_REQUIRED and context.check_hostname
    cipher = secured.cipher()
    return TLSInfo(
        version=secured.version() or "",
        cipher=cipher[0] if cipher is not None else "",
        server_name=server_name,
        peer_certificate=certificate,
        verified=verified,
    )


def is_in_clear(cause: BaseException | None) -> bool:
    """Whether a handshake failed because the peer does not speak TLS."""
    return isinstance(cause, ssl.SSLError) and cause.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST")


def handshake_error(cause: BaseException | None) -> TLSError:
    """What a failed handshake's `cause` means to the user of the connection."""
    if isinstance(cause, ssl.SSLCertVerificationError):
        return TLSError(f"the certificate is not valid: {cause.verify_message}")
    if is_in_clear(cause):
        return TLSError("the peer does not speak TLS here")
    if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
        return TLSError(f"the TLS handshake failed: {cause.reason or cause}")
    return TLSError("the peer closed the connection during the TLS handshake")


class Seal:
    """The server's end of a TLS connection: octets of the wire in, octets of the session out, and the other way.

    Attributes:
        ended: the peer has said that nothing more comes (close_notify).
        has_input: octets of the wire are there that came with the end of the handshake.
    """

    __slots__ = ("_incoming", "_object", "_outgoing", "_read", "ended", "has_input")

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._read = self._object.read
        self.ended = False
        self.has_input = False

    def shake_hands(self, data: bytes | bytearray) -> bool:
        """Go on with the handshake; whether it is complete. What :meth:`take` returns must be sent then.

        Raises:
            ssl.SSLError: it has failed; :meth:`take` has the alert that tells the peer.
        """
        self._incoming.write(data)
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        self.has_input = self._incoming.pending > 0
        return True

    def describe(self, context: ssl.SSLContext, server_name: str | None) -> TLSInfo:
        """What the connection tells after its handshake."""
        return describe(self._object, context, server_name, server_side=True)

    @property
    def last_flight_can_wait(self) -> bool:
        """Whether all that is left to send after the handshake are session tickets, and not too many to wait.

        Sent by themselves, to a client that says one thing and leaves, they would be answered with a reset.
        """
        return self._object.version() == "TLSv1.3" and not self.held_too_much

    def take(self) -> bytes:
        """What is to be sent on the wire."""
        return self._outgoing.read()

    @property
    def held_too_much(self) -> bool:
        """Whether the peer has made TLS itself say more than may wait for our next words."""
        return self._outgoing.pending > _HELD_LIMIT

    def decipher(self, data: bytes | bytearray) -> bytes:
        """What the records say that are complete with `data`; maybe nothing.

        Raises:
            ssl.SSLError: a record is damaged, or a message has no business here.
        """
        incoming, read = self._incoming, self._read
        incoming.write(data)
        self.has_input = False
        texts: list[bytes] = []
        try:
            while text := read(_RECORD):
                texts.append(text)
                if not incoming.pending:  # costs less than to be told so by an exception
                    break
            else:  # SSLZeroReturnError comes only where we have said goodbye, too
                self.ended = True
        except ssl.SSLWantReadError:
            pass
        return texts[0] if len(texts) == 1 else b"".join(texts)

    def encipher(self, data: bytes | bytearray | memoryview) -> bytes:
        """Octets of the wire that say `data`, and whatever TLS itself has to say before."""
        self._object.write(data)
        return self._outgoing.read()

    def say_goodbye(self) -> bytes:
        """Octets of the wire that say that nothing more will come (close_notify)."""
        try:
            self._object.unwrap()
        except ssl.SSLError:  # the peer has not said so yet, or the connection is damaged
            pass
        return self._outgoing.read()
