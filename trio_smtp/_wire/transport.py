# The one owner of a trio.abc.Stream: receive, send, upgrade to TLS, close, and the truth about being broken.
#
# Theory of operation.
#
# * A failed or cancelled send leaves an unknown number of bytes on the wire: `broken` is set and stays set.
# * Every wait for the peer has a deadline. Where a Timekeeper's timer was given and the stream ends in a socket, the
#   timer ends the wait from outside. With nothing between us and the socket, in clear or with a Seal (TLS as a mere
#   transform), that is done by `trio.lowlevel.notify_closing`, which wakes whoever waits for the socket and does
#   nothing else to it: no cancel scope per wait (5 µs), and the connection can still say why it ends. A wake-up that
#   comes together with the socket's own is lost, so whoever would wait again looks whether he was woken before.
# * All other streams get a scope per wait: inside them, a task may be waiting for its turn instead of for the socket.
# * A plain socket is read and written through a DescriptorStream, under TLS too: see there for what that saves.
#
# This module does not know what SMTP is. Errors of the wire become ConnectionLostError, TLSError or SMTPTimeoutError.
from __future__ import annotations

import contextlib
import math
import os
import ssl
from typing import Any, Final

import trio

from .._protocol.errors import ConnectionLostError, SMTPTimeoutError, TLSError
from . import descriptor as _descriptor
from .descriptor import BULK_SIZE, RECEIVE_SIZE, DescriptorStream, RecordStream
from .timekeeper import Timer
from .tls import Seal, ServerName, TLSInfo, describe, handshake_error

_LOOKING_TURNS: Final = 8  # of the scheduler; TLS over a memory stream takes four to give what is there


class Interrupted(Exception):
    """A wait for the peer was ended by :meth:`Transport.interrupt`; the connection is intact."""


class Transport:
    """A stream, its deadlines and its state.

    Args:
        stream: any connected stream; owned from now on.
        timer: expires the waits, if the stream ends in a socket: its callback must call :meth:`expire`.

    Attributes:
        broken: an unknown number of bytes is on the wire, or the connection is lost: nothing more can be sent.
        direct: the socket, where it is a plain one in clear, so that :meth:`send_nowait` may send something.
        tls: what TLS says of the connection, ``None`` in clear.
    """

    __slots__ = (
        "_descriptor",
        "_interruption",
        "_receiving",
        "_scope",
        "_seal",
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
        self._descriptor: DescriptorStream | None = None  # the socket, with nothing but a seal between it and us
        if _descriptor.AVAILABLE and isinstance(stream, trio.SocketStream):
            stream = self._descriptor = DescriptorStream(stream)
        self.direct = self._descriptor
        self._seal: Seal | None = None
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
            if self._seal is not None:
                return await self._receive_sealed(self._seal, deadline)
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

    async def _receive_sealed(self, seal: Seal, deadline: float) -> bytes:
        assert self._timer is not None
        assert self._descriptor is not None
        self._timer.set(deadline)
        descriptor = self._descriptor
        data = b""
        while not seal.ended:
            if not seal.has_input:
                await trio.lowlevel.wait_readable(descriptor.fd)
                data = os.read(descriptor.fd, BULK_SIZE if descriptor.more else RECEIVE_SIZE)
                descriptor.more = len(data) >= RECEIVE_SIZE
                if not data:
                    break
            try:
                text = seal.decipher(data)
            except ssl.SSLError:
                descriptor.send_nowait(seal.take())  # the alert
                raise
            if seal.held_too_much:
                raise trio.BrokenResourceError("the peer asks much of TLS and says nothing")
            if text:
                return text
            if not self._receiving:  # woken together with the socket, by less than a record
                raise trio.ClosedResourceError
        return b""

    async def receive_pending(self, deadline: float = math.inf) -> bytes | bytearray | None:
        """What the peer has said already, on any stream but a sealed one; ``None`` if nothing, ``b""`` at the end.

        Does not wait for the peer, unless TLS has to say something that he does not take: until `deadline`.

        Raises: as :meth:`receive`.
        """
        if self.direct is not None or self.broken:
            return self.receive_nowait()
        assert self._seal is None
        stream = self._stream
        if isinstance(stream, trio.SSLStream) and isinstance(below := stream.transport_stream, RecordStream):
            if below.is_quiet and not stream.pending() and self._interruption is None:
                return None
            below.waits = False  # so that SSLStream takes what is there, be it only a ticket, and comes back
            try:
                return await self.receive(deadline)
            except trio.WouldBlock:
                return None
            finally:
                below.waits = True
        # A deadline that is over would end it before it has looked, a clock may stand still: count its turns.
        with trio.CancelScope() as scope:
            _cancel_after(_LOOKING_TURNS, scope)
            return await self.receive(deadline)
        return None

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
        try:
            sent = 0
            if self._seal is not None:
                data = self._seal.encipher(data)
            if self._descriptor is not None:
                sent = self._descriptor.send_nowait(data)
                if sent == len(data):
                    return
            self._sending = True
            if self._descriptor is not None and self._timer is not None:
                await self._send_rest(self._descriptor, memoryview(data)[sent:], self._timer, deadline)
                return
            with self._scope_until(deadline):
                await self._stream.send_all(memoryview(data)[sent:] if sent else data)
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

    async def _send_rest(self, descriptor: DescriptorStream, rest: memoryview, timer: Timer, deadline: float) -> None:
        timer.set(deadline)
        while rest:
            await trio.lowlevel.wait_writable(descriptor.fd)
            if not self._sending:  # woken together with the socket
                raise trio.ClosedResourceError
            rest = rest[descriptor.send_nowait(rest) :]

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
        self._receiving = self._sending = False
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
        if server_side and self._descriptor is not None and self._timer is not None:
            return await self._apply_seal(context, deadline)
        below = RecordStream(self._stream) if isinstance(self._stream, DescriptorStream) else self._stream
        try:
            stream = trio.SSLStream(below, context, server_hostname=server_hostname, server_side=server_side)
        except ValueError as exc:  # a name that begins with a dot, or that IDNA cannot encode
            self.broken = True
            raise TLSError(f"{server_hostname!r} is no name for a certificate: {exc}") from exc
        self._stream = stream
        self._descriptor = self.direct = None
        return await self.adopt_tls(server_side=server_side, deadline=deadline)

    async def adopt_tls(self, *, server_side: bool, deadline: float = math.inf) -> TLSInfo:
        """Shake hands, if that was not done, on a ``trio.SSLStream``; errors as :meth:`start_tls`."""
        stream = self._stream
        assert isinstance(stream, trio.SSLStream)
        self._receiving = True
        try:
            with ServerName() as asked, self._scope_until(deadline) as scope:
                await stream.do_handshake()
            if scope.cancelled_caught:
                raise trio.ClosedResourceError
        except trio.BrokenResourceError as exc:
            self.broken = True
            raise handshake_error(exc.__cause__) from (exc.__cause__ or exc)
        except trio.ClosedResourceError as exc:
            self.broken = True
            raise self._why(by_scope=True) from exc
        except BaseException:
            self.broken = True
            raise
        finally:
            self._receiving = False
            self._scope = None
        name = asked.name if server_side else stream.server_hostname
        self.tls = describe(stream, stream.context, name, server_side=server_side)
        return self.tls

    async def _apply_seal(self, context: ssl.SSLContext, deadline: float) -> TLSInfo:
        seal = Seal(context)
        try:
            with ServerName() as asked:
                data: bytes | bytearray = b""
                while not seal.shake_hands(data):
                    await self.send(seal.take(), deadline)
                    data = await self.receive(deadline)
                    if not data:
                        raise handshake_error(None)
            if not seal.last_flight_can_wait:
                await self.send(seal.take(), deadline)
        except ssl.SSLError as exc:
            with contextlib.suppress(ConnectionLostError):
                self.send_nowait(seal.take())  # the alert
            self.broken = True
            raise handshake_error(exc) from exc
        except BaseException:
            self.broken = True
            raise
        self._seal = seal
        self.direct = None
        self.tls = seal.describe(context, asked.name)
        return self.tls

    # -- the end

    async def aclose(self, within: float = 2.0) -> None:
        """Close; over TLS say so first, for at most `within` seconds, shielded. Never raises."""
        if not self.broken:
            if self._seal is not None:
                self._break_seal(self._seal)
            elif isinstance(self._stream, trio.SSLStream):
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
                    if self._seal is not None:
                        self._break_seal(self._seal)
                    elif isinstance(self._stream, trio.SSLStream):
                        await self._end_tls(self._stream)
                    self._socket.shutdown(trio.socket.SHUT_WR)
                    while drop > 0 and (data := await self.receive()):
                        drop -= len(data)
                except (ConnectionLostError, SMTPTimeoutError, Interrupted, OSError):
                    pass
        await self.aclose(within)

    def _break_seal(self, seal: Seal) -> None:
        """Say that nothing more will come, if the socket takes it, and go on in clear."""
        self._seal = None
        self.direct = self._descriptor
        with contextlib.suppress(ConnectionLostError):
            self.send_nowait(seal.say_goodbye())

    async def _end_tls(self, stream: trio.SSLStream[Any]) -> None:
        below = stream.transport_stream
        stream.transport_stream = _KeptOpen(below)
        try:
            await stream.aclose()
        finally:
            self._stream = below
            self._descriptor = self.direct = below if isinstance(below, DescriptorStream) else None


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


def _cancel_after(turns: int, scope: trio.CancelScope) -> None:
    if turns:
        trio.lowlevel.current_trio_token().run_sync_soon(_cancel_after, turns - 1, scope)
    else:
        scope.cancel(reason="nothing was there")


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
