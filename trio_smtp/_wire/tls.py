# TLS as a transform of octets, without a stream and without waiting, and what a connection tells of its TLS.
#
# trio.SSLStream works on any stream, and clients use it. A server's plain sockets use a TLSEngine: SSLStream's locks,
# its tries before each wait and its turns of the scheduler cost more than the ciphers (a 1 KiB message: 60 µs; 1 MiB,
# record by record: 1 ms), and only a cancel scope can end a wait inside it. Nothing here is cryptography: OpenSSL does
# all of it, between two buffers in memory, as it does inside SSLStream.
from __future__ import annotations

import contextvars
import ssl
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, Self

from .._protocol.errors import TLSError

_RECORD: Final = 16384  # octets of content that a record has at most (RFC 8446 section 5.1)
_HELD_LIMIT: Final = 16384  # octets of TLS's own (tickets, alerts) that may wait for our next send

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
    """The name that a client asks for in a handshake; a context manager around it."""

    __slots__ = ("_token", "name")

    def __init__(self) -> None:
        self.name: str | None = None

    def __enter__(self) -> Self:
        self._token = _handshake.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        _handshake.reset(self._token)


def watch_server_name(context: ssl.SSLContext) -> None:
    """Let handshakes with `context` tell the name the client asked for; an existing callback is called as well."""
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
    """The error for a handshake that failed for `cause`."""
    if isinstance(cause, ssl.SSLCertVerificationError):
        return TLSError(f"the certificate is not valid: {cause.verify_message}")
    if is_in_clear(cause):
        return TLSError("the peer does not speak TLS here")
    if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
        return TLSError(f"the TLS handshake failed: {cause.reason or cause}")
    return TLSError("the peer closed the connection during the TLS handshake")


class TLSEngine:
    """The server's end of a TLS connection: ciphertext in, plaintext out, and the other way.

    Args:
        context: the server's.

    Attributes:
        has_input: ciphertext is there that came with the end of the handshake.
        peer_has_closed: close_notify was received: nothing more comes.
    """

    __slots__ = ("_incoming", "_object", "_outgoing", "_read", "has_input", "peer_has_closed")

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._read = self._object.read
        self.has_input: bool = False
        self.peer_has_closed: bool = False

    def __repr__(self) -> str:
        return f"<TLSEngine: {self._object.version() or 'in handshake'}>"

    def do_handshake(self, data: bytes | bytearray) -> bool:
        """Go on with the handshake; whether it is complete. :meth:`data_to_send` must be sent then, either way.

        Raises:
            ssl.SSLError: it has failed; :meth:`data_to_send` has the alert for the peer.
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
        """All that is left to send after the handshake are session tickets, and not too many to wait.

        Sent by themselves, to a client that says one thing and leaves, they would be answered with a reset.
        """
        return self._object.version() == "TLSv1.3" and self._outgoing.pending <= _HELD_LIMIT

    def data_to_send(self) -> bytes:
        """Take the ciphertext for the peer."""
        return self._outgoing.read()

    def decrypt(self, data: bytes | bytearray) -> bytes:
        """The plaintext of the records that are complete with `data`; maybe nothing.

        Raises:
            ssl.SSLError: a record is damaged, a message is not allowed here, or the peer makes TLS answer without end.
        """
        incoming, read = self._incoming, self._read
        incoming.write(data)
        self.has_input = False
        try:
            text = read(_RECORD)
            if incoming.pending and text:  # looking costs less than to be told by an exception that there is no more
                text = self._decrypt_rest(text)
            elif not text:  # SSLZeroReturnError comes only where we have sent close_notify, too
                self.peer_has_closed = True
        except ssl.SSLWantReadError:
            text = b""
        if self._outgoing.pending > _HELD_LIMIT:
            raise ssl.SSLError("the peer makes TLS answer, and sends nothing")
        return text

    def _decrypt_rest(self, text: bytes) -> bytes:
        incoming, read = self._incoming, self._read
        texts = [text]
        try:
            while incoming.pending:
                text = read(_RECORD)
                if not text:
                    self.peer_has_closed = True
                    break
                texts.append(text)
        except ssl.SSLWantReadError:
            pass
        return b"".join(texts)

    def encrypt(self, data: bytes | bytearray | memoryview) -> bytes:
        """Records that say `data`, behind whatever TLS itself has to say."""
        self._object.write(data)
        return self._outgoing.read()

    def close_notify(self) -> bytes:
        """Ciphertext that says that nothing more will come."""
        try:
            self._object.unwrap()
        except ssl.SSLError:  # the peer has not said so yet, or the connection is damaged
            pass
        return self._outgoing.read()
