# Any stream of Trio's as a wire, and trio.SSLStream with what it needs beyond that.
#
# Inside a stream a task waits for more than a socket: for locks and for turns of the scheduler. So each wait has a
# scope, which the timer, an interruption or the deadline cancels.
from __future__ import annotations

import math
import ssl
from typing import Any, Final

import trio

from .._protocol.errors import ConnectionLostError, TLSError
from .descriptor import DescriptorStream
from .timekeeper import Timer
from .tls import ServerName, TLSInfo, describe, handshake_error
from .waits import RECEIVE, SEND, Waits
from .wire import Octets, Wire

_LOOKING_TURNS: Final = 8  # of the scheduler; TLS over a memory stream takes four to give what is there


class StreamWire(Wire):
    """Any stream.

    Args:
        stream: owned from now on.
        waits: the connection's.
        tls: what a handshake on the stream has told.
    """

    __slots__ = ("_stream", "broken")

    def __init__(self, stream: trio.abc.Stream, waits: Waits, tls: TLSInfo | None = None) -> None:
        super().__init__(waits, tls)
        self._stream = stream
        self.broken: bool = False

    @classmethod
    def on(cls, stream: trio.abc.Stream, timer: Timer | None) -> StreamWire:
        """A new connection's; the timer is of use only where the stream ends in a socket."""
        return cls(stream, Waits(_socket_below(stream), timer))

    # -- octets

    async def receive(self, deadline: float = math.inf) -> bytes | bytearray:
        """Wait for octets."""
        waits = self._waits
        if waits.reason is not None:
            waits.heed_reason()
        waits.waiting = RECEIVE
        try:
            with waits.scope_until(deadline):
                return await self._stream.receive_some()
            raise waits.woken()
        except trio.BrokenResourceError as exc:
            if isinstance(exc.__cause__, ssl.SSLEOFError):
                return b""  # AWS SES and others close TLS without close_notify; SMTP's own framing shows truncation
            raise self._lost() from exc
        except trio.ClosedResourceError as exc:
            raise waits.take_reason() or self._lost("the connection was closed") from exc
        except OSError as exc:
            raise self._lost() from exc
        finally:
            waits.end()

    async def receive_pending(self, deadline: float = math.inf) -> bytes | bytearray | None:
        """What the peer has said already, found by a receive that does not wait, or not for long."""
        waits, stream = self._waits, self._stream
        if self.broken:
            return None
        if isinstance(stream, trio.SSLStream) and isinstance(below := stream.transport_stream, DescriptorStream):
            if below.is_quiet and not stream.pending() and waits.reason is None:
                return None
            below.waits = False  # so that SSLStream takes what is there, maybe only a ticket, and comes back
            try:
                return await self.receive(deadline)
            except trio.WouldBlock:
                return None
            finally:
                below.waits = True
        # A deadline that has passed would end it before it has looked, and a clock may stand still: count turns.
        with trio.CancelScope() as scope:
            _cancel_after(_LOOKING_TURNS, scope)
            return await self.receive(deadline)
        return None

    async def send(self, data: Octets, deadline: float = math.inf) -> None:
        """Send everything."""
        waits = self._waits
        if self.broken:
            raise self._lost()
        waits.waiting = SEND
        try:
            with waits.scope_until(deadline):
                await self._stream.send_all(data)
                return
            raise waits.woken()
        except trio.ClosedResourceError as exc:
            self.broken = True
            raise waits.take_reason() or self._lost("the connection was closed") from exc
        except (trio.BrokenResourceError, OSError) as exc:
            raise self._lost() from exc
        except BaseException:
            self.broken = True
            raise
        finally:
            waits.end()

    # -- TLS

    async def start_tls(
        self,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        server_hostname: str | None = None,
        deadline: float = math.inf,
    ) -> Wire:
        """Shake hands, by a :class:`trio.SSLStream` on this stream."""
        try:
            wire = await wrap_in_tls(
                self._stream,
                self._waits,
                context,
                server_side=server_side,
                server_hostname=server_hostname,
                deadline=deadline,
            )
        except BaseException:
            self.broken = True
            raise
        if self.broken:  # aborted by another task meanwhile
            wire.abort()
        return wire

    async def adopt_tls(self, *, server_side: bool, deadline: float = math.inf) -> Wire:
        """Shake hands on the stream that was given."""
        stream = self._stream
        if not isinstance(stream, trio.SSLStream):
            return await super().adopt_tls(server_side=server_side, deadline=deadline)
        try:
            tls = await _do_handshake(stream, self._waits, server_side=server_side, deadline=deadline)
        except BaseException:
            self.broken = True
            raise
        return StreamWire(stream, self._waits, tls)

    # -- the end

    def abort(self) -> None:
        """Mark the connection broken."""
        self.broken = True

    def _lost(self, text: str = "the connection was lost") -> ConnectionLostError:
        self.broken = True
        return ConnectionLostError(text)

    async def aclose(self, within: float = 2.0) -> None:
        """Close the stream; under TLS with close_notify."""
        waits = self._waits
        if not self.broken and isinstance(self._stream, trio.SSLStream):
            with trio.move_on_after(within, shield=True):
                try:
                    await self._stream.aclose()
                except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
                    pass
        self.broken = True
        waits.close()
        if waits.socket is None:
            await trio.aclose_forcefully(self._stream)

    async def aclose_lingering(self, within: float = 2.0, drop: int = 1 << 20) -> None:
        """On a socket: say that no more will come, drop what comes, and close. Else only close."""
        waits, stream = self._waits, self._stream
        if self.broken or waits.socket is None:
            await self.aclose(within)
            return
        clear = StreamWire(stream.transport_stream, waits) if isinstance(stream, trio.SSLStream) else self
        with trio.move_on_after(within, shield=True):
            if isinstance(stream, trio.SSLStream):
                await _close_notify(stream)
            await clear._drop_input(drop)
        self.broken = True
        await clear.aclose()


async def wrap_in_tls(
    below: trio.abc.Stream,
    waits: Waits,
    context: ssl.SSLContext,
    *,
    server_side: bool,
    server_hostname: str | None,
    deadline: float,
) -> StreamWire:
    """Shake hands by a :class:`trio.SSLStream` on `below`; errors as :meth:`.wire.Wire.start_tls`."""
    try:
        stream = trio.SSLStream(below, context, server_hostname=server_hostname, server_side=server_side)
    except ValueError as exc:  # a name that begins with a dot, or that IDNA cannot encode
        raise TLSError(f"{server_hostname!r} is no name for a certificate: {exc}") from exc
    tls = await _do_handshake(stream, waits, server_side=server_side, deadline=deadline)
    return StreamWire(stream, waits, tls)


async def _do_handshake(stream: trio.SSLStream[Any], waits: Waits, *, server_side: bool, deadline: float) -> TLSInfo:
    waits.waiting = RECEIVE
    try:
        with ServerName() as asked, waits.scope_until(deadline) as scope:
            await stream.do_handshake()
        if scope.cancelled_caught:
            raise waits.woken()
    except trio.BrokenResourceError as exc:
        raise handshake_error(exc.__cause__) from (exc.__cause__ or exc)
    except trio.ClosedResourceError as exc:
        raise waits.take_reason() or ConnectionLostError("the connection was closed") from exc
    finally:
        waits.end()
    name = asked.name if server_side else stream.server_hostname
    return describe(stream, stream.context, name, server_side=server_side)


async def _close_notify(stream: trio.SSLStream[Any]) -> None:
    """Say that no more will come, and leave the stream below open."""
    stream.transport_stream = _KeptOpen(stream.transport_stream)
    try:
        await stream.aclose()
    except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
        pass


class _KeptOpen(trio.abc.Stream):
    """What is below TLS, not closed with it."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream

    async def send_all(self, data: Octets) -> None:
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
