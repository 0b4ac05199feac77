# The one owner of a trio.abc.Stream: receive, send, upgrade to TLS, close, and the truth about being broken.
#
# Theory of operation.
#
# * A failed or cancelled send leaves an unknown number of bytes on the wire: `broken` is set and stays set.
# * Every wait for the peer has a deadline. Where a Timekeeper's timer was given and the stream is a plain socket, the
#   timer ends the wait from outside by `trio.lowlevel.notify_closing`, which wakes whoever waits for the socket and
#   does nothing else to it: no cancel scope per wait (5 µs), and the connection can still say why it ends. All
#   other streams get a scope per wait: under TLS, a task may be waiting for its turn instead of for the socket.
# * A plain socket is read and written through a DescriptorStream, under TLS too: see there for what that saves.
#
# This module does not know what SMTP is. Errors of the wire become ConnectionLostError, TLSError or SMTPTimeoutError.
from __future__ import annotations

import contextvars
import math
import os
import ssl
from dataclasses import dataclass, field
from typing import Any

import trio

from . import _descriptor
from ._descriptor import BULK_SIZE, RECEIVE_SIZE, DescriptorStream
from ._protocol.errors import ConnectionLostError, SMTPTimeoutError, TLSError
from ._timekeeper import Timer

# Set around a handshake, so that the context's SNI callback, which OpenSSL calls inside it, finds its connection.
_handshake: contextvars.ContextVar[_ServerName | None] = contextvars.ContextVar("trio_smtp_handshake", default=None)


class Interrupted(Exception):
    """A wait for the peer was ended by :meth:`Transport.interrupt`; the connection is intact."""


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


class _ServerName:
    __slots__ = ("name",)

    def __init__(self) -> None:
        self.name: str | None = None


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


class Transport:
    """A stream, its deadlines and its state.

    Args:
        stream: any connected stream; owned from now on.
        timer: expires the waits, if the stream ends in a socket: its callback must call :meth:`expire`.

    Attributes:
        broken: an unknown number of bytes is on the wire, or the connection is lost: nothing more can be sent.
        direct: the socket, where it is a plain one, so that :meth:`send_nowait` may send something.
        tls: what TLS says of the connection, ``None`` in clear.
    """

    __slots__ = (
        "_interruption",
        "_receiving",
        "_scope",
        "_sending",
        "_socket",
        "_stream",
        "_timer",
        "broken",
        "direct",
        "tls",
    )

    def __init__(self, stream: trio.abc.Stream, timer: Timer | None = None) -> None:
        self._socket = _socket_below(stream)
        self._timer = timer if self._socket is not None else None
        self.direct: DescriptorStream | None = None
        if _descriptor.AVAILABLE and isinstance(stream, trio.SocketStream):
            stream = self.direct = DescriptorStream(stream)
        self._stream = stream
        self._scope: trio.CancelScope | None = None
        self._interruption: Exception | None = None
        self._receiving = False
        self._sending = False
        self.broken = False
        self.tls: TLSInfo | None = None

    @property
    def peer(self) -> tuple[str, int] | None:
        """Host and port of the other end, or ``None`` where there is none (memory and UNIX streams)."""
        return _host_and_port(self._socket.getpeername) if self._socket is not None else None

    @property
    def local(self) -> tuple[str, int] | None:
        """Host and port of this end."""
        return _host_and_port(self._socket.getsockname) if self._socket is not None else None

    @property
    def is_receiving(self) -> bool:
        """Whether a task waits for the peer in :meth:`receive`."""
        return self._receiving

    # -- bytes

    async def receive(self, deadline: float = math.inf) -> bytes | bytearray:
        """Wait for bytes; ``b""`` means that the peer has closed its side.

        Raises:
            SMTPTimeoutError: `deadline` (Trio's clock) has passed.
            Interrupted: :meth:`interrupt` was called.
            ConnectionLostError: the connection was reset.
        """
        if self._interruption is not None:
            reason = self._why()
            if isinstance(reason, Interrupted):  # a time-out that came together with the last bytes is void
                raise reason
        self._receiving = True
        try:
            timer, direct = self._timer, self.direct
            if timer is not None and direct is not None:
                # What DescriptorStream.receive_some() does, without its frame: a session spends its life here. And
                # with no turn of the scheduler but in the wait itself, where a wake-up cannot get lost.
                timer.set(deadline)
                size = RECEIVE_SIZE
                if direct.more:
                    size = BULK_SIZE
                    await trio.lowlevel.checkpoint()
                else:
                    await trio.lowlevel.wait_readable(direct.fd)
                data = os.read(direct.fd, size)
                direct.more = len(data) == size
                return data
            with self._scope_until(deadline):
                return await self._stream.receive_some()
        except BlockingIOError:  # woken for nothing
            if direct is not None:
                direct.more = False
            return await self.receive(deadline)
        except trio.BrokenResourceError as exc:
            if isinstance(exc.__cause__, ssl.SSLEOFError):
                return b""  # AWS SES and others close TLS without close_notify; SMTP's own framing shows truncation
            self.broken = True
            raise ConnectionLostError("the connection was lost") from exc
        except trio.ClosedResourceError as exc:
            raise self._why() from exc
        except OSError as exc:
            self.broken = True
            raise ConnectionLostError("the connection was lost") from exc
        finally:
            self._receiving = False
            self._scope = None
        raise self._why(by_scope=True)

    def receive_nowait(self) -> bytes | None:
        """What is there already; ``None`` if nothing is, or on a stream that cannot tell, and ``b""`` at the end.

        Raises:
            ConnectionLostError: the connection was lost.
        """
        direct = self.direct
        if direct is None or self.broken:
            return None
        try:
            return os.read(direct.fd, RECEIVE_SIZE)
        except BlockingIOError:
            return None
        except OSError as exc:
            self.broken = True
            raise ConnectionLostError("the connection was lost") from exc

    def send_nowait(self, data: bytes | bytearray | memoryview) -> int:
        """Give the socket what it takes without waiting; the number of octets, 0 on other streams.

        Raises:
            ConnectionLostError: the connection was lost.
        """
        direct = self.direct
        if direct is None or self.broken:
            return 0
        try:
            return os.write(direct.fd, data)
        except BlockingIOError:
            return 0
        except OSError as exc:
            self.broken = True
            raise ConnectionLostError("the connection was lost") from exc

    async def send(self, data: bytes | bytearray | memoryview, deadline: float = math.inf) -> None:
        """Send everything. Not always a checkpoint.

        Raises:
            SMTPTimeoutError: `deadline` has passed; the connection is broken.
            ConnectionLostError: the connection was lost.
        """
        if self.broken:
            raise ConnectionLostError("the connection was lost")
        sent = self.send_nowait(data)
        if sent == len(data):
            return
        if sent:
            data = memoryview(data)[sent:]
        self._sending = True
        try:
            with self._scope_until(deadline):  # a plain socket too: it may take some and be waited for again
                await self._stream.send_all(data)
                return
        except (trio.BrokenResourceError, OSError) as exc:
            self.broken = True
            raise ConnectionLostError("the connection was lost") from exc
        except trio.ClosedResourceError as exc:
            self.broken = True
            raise self._why() from exc
        except BaseException:  # cancelled: nobody knows how much was sent
            self.broken = True
            raise
        finally:
            self._sending = False
            self._scope = None
        self.broken = True
        raise self._why(by_scope=True)

    # -- ending a wait from outside

    def _scope_until(self, deadline: float) -> trio.CancelScope:
        """A scope for a wait that is not simply one for a socket: TLS takes turns of the scheduler in between."""
        self._scope = scope = trio.CancelScope()
        if self._timer is not None:
            self._timer.set(deadline)
        else:
            scope.deadline = deadline
        return scope

    def expire(self) -> None:
        """End the wait in progress, if any, with :class:`SMTPTimeoutError` (the timer's callback)."""
        if self._timer is not None and (self._receiving or self._sending):
            self._wake(SMTPTimeoutError("the peer took too long"))

    def interrupt(self) -> None:
        """End the wait for bytes in progress, or the next one, with :class:`Interrupted`. A send is left alone."""
        if self._receiving:
            self._wake(Interrupted())
        else:
            self._interruption = Interrupted()

    def abandon(self) -> None:
        """End the wait in progress, or the next one for bytes, with :class:`Interrupted`; a send is broken by it."""
        if self._receiving or self._sending:
            self._wake(Interrupted())
        else:
            self._interruption = Interrupted()

    def forget_interruption(self) -> None:
        """Let an :meth:`interrupt` or :meth:`abandon` that came together with the last bytes not end the next wait."""
        self._interruption = None

    def _wake(self, reason: Exception) -> None:
        self._interruption = reason
        if self._scope is not None:
            self._scope.cancel(reason=str(reason))
        elif self._socket is not None:
            trio.lowlevel.notify_closing(self._socket)

    def _why(self, *, by_scope: bool = False) -> Exception:
        """Take the reason for which a wait was ended."""
        reason, self._interruption = self._interruption, None
        if reason is not None:
            return reason
        if by_scope:
            return SMTPTimeoutError("the peer took too long")
        self.broken = True  # somebody else closed the stream
        return ConnectionLostError("the connection was closed")

    # -- TLS

    async def start_tls(
        self,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        server_hostname: str | None = None,
        deadline: float = math.inf,
    ) -> TLSInfo:
        """Wrap the stream in TLS and shake hands. What goes wrong leaves the connection broken.

        Raises:
            TLSError: the handshake failed; ``__cause__`` says why.
            SMTPTimeoutError: `deadline` has passed.
            ConnectionLostError: the peer went away in mid-handshake.
        """
        seen = _ServerName()
        seen.name = server_hostname
        try:
            stream = trio.SSLStream(self._stream, context, server_hostname=server_hostname, server_side=server_side)
        except ValueError as exc:  # a name that begins with a dot, or that IDNA cannot encode
            self.broken = True
            raise TLSError(f"{server_hostname!r} is no name for a certificate: {exc}") from exc
        self._stream = stream
        self.direct = None
        token = _handshake.set(seen) if server_side else None
        self._receiving = True
        try:
            with self._scope_until(deadline) as scope:
                await stream.do_handshake()
            if scope.cancelled_caught:
                raise trio.ClosedResourceError
        except trio.BrokenResourceError as exc:
            self.broken = True
            raise _tls_error(exc) from (exc.__cause__ or exc)
        except trio.ClosedResourceError as exc:
            self.broken = True
            raise self._why(by_scope=True) from exc
        except BaseException:
            self.broken = True
            raise
        finally:
            self._receiving = False
            self._scope = None
            if token is not None:
                _handshake.reset(token)
        self.tls = _tls_info(stream, seen.name, server_side)
        return self.tls

    # -- the end

    async def aclose(self, within: float = 2.0) -> None:
        """Close; over TLS say so first, for at most `within` seconds, shielded. Never raises."""
        if not self.broken and isinstance(self._stream, trio.SSLStream):
            with trio.move_on_after(within, shield=True):
                try:
                    await self._stream.aclose()
                except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
                    pass
        self.broken = True
        self.direct = None
        if self._timer is not None:
            self._timer.close()
        if self._socket is not None:
            self._socket.close()  # what aclose() comes down to; aclose_forcefully() costs 30 µs more
        else:
            await trio.aclose_forcefully(self._stream)

    async def aclose_lingering(self, within: float = 2.0, drop: int = 1 << 20) -> None:
        """Close so that a peer in mid-sentence still gets our last words.

        A socket closed with unread input sends RST, and the peer's kernel throws away what it has not read. So
        say that no more will come, and drop what comes, for at most `within` seconds and `drop` octets; under TLS,
        that is after close_notify, and what comes is dropped undeciphered.
        """
        if not self.broken and self._socket is not None:
            with trio.move_on_after(within, shield=True):
                try:
                    if isinstance(self._stream, trio.SSLStream):
                        await self._end_tls(self._stream)
                    self._socket.shutdown(trio.socket.SHUT_WR)
                    while drop > 0 and (data := await self.receive()):
                        drop -= len(data)
                except (ConnectionLostError, SMTPTimeoutError, Interrupted, OSError):
                    pass
        await self.aclose(within)

    async def _end_tls(self, stream: trio.SSLStream[Any]) -> None:
        below = stream.transport_stream
        stream.transport_stream = _KeptOpen(below)
        try:
            await stream.aclose()
        finally:
            self._stream = below
            self.direct = below if isinstance(below, DescriptorStream) else None


class _KeptOpen(trio.abc.Stream):
    """What is below TLS, not closed with it."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


def _socket_below(stream: object) -> trio.socket.SocketType | None:
    if isinstance(stream, trio.SSLStream):
        stream = stream.transport_stream
    return stream.socket if isinstance(stream, trio.SocketStream) else None


def _host_and_port(name: Any) -> tuple[str, int] | None:
    try:
        address = name()
    except OSError:  # the peer is already gone
        return None
    return (address[0], address[1]) if isinstance(address, tuple) else None


def _tls_error(exc: trio.BrokenResourceError) -> TLSError | ConnectionLostError:
    cause = exc.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return TLSError(f"the certificate is not valid: {cause.verify_message}")
    if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
        if cause.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST"):
            return TLSError("the peer does not speak TLS here")
        return TLSError(f"the TLS handshake failed: {cause.reason or cause}")
    return TLSError("the peer closed the connection during the TLS handshake")


def _tls_info(stream: trio.SSLStream[Any], server_name: str | None, server_side: bool) -> TLSInfo:
    context: ssl.SSLContext = stream.context
    certificate: dict[str, Any] | None = stream.getpeercert() or None
    if server_side:
        verified = certificate is not None and context.verify_mode != ssl.CERT_NONE
    else:
        verified = context.verify_mode == ssl.CERT_REQUIRED and context.check_hostname
    return TLSInfo(
        version=stream.version(),
        cipher=stream.cipher()[0],
        server_name=server_name,
        peer_certificate=certificate,
        verified=verified,
    )
