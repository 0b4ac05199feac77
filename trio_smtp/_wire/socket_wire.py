# A plain socket in clear, read and written by os.read and os.write on its descriptor.
#
# trio.SocketStream tries to read before it waits, which in a lock-step protocol fails every time, gives way to the
# scheduler after every send, and its layers of context managers cost more than the system call: with it a message of
# four round trips costs a server 30 µs more, of some 80, and one under TLS 20 more. This wire waits first, unless the
# last read was full, and sends without giving way as long as the socket takes it. It looks for no conflicts.
from __future__ import annotations

import contextlib
import math
import os
import ssl
from typing import ClassVar

import trio

from .._protocol.errors import ConnectionLostError
from .descriptor import BULK_SIZE, RECEIVE_SIZE, DescriptorStream
from .stream_wire import wrap_in_tls
from .timekeeper import Timer
from .tls_socket_wire import serve_tls
from .waits import NOTHING, RECEIVE, SEND, Waits
from .wire import Octets, Wire


class SocketWire(Wire):
    """A socket with nothing between it and us.

    Args:
        stream: must not be used any more.
        timer: expires the waits; without one, each has a scope.
    """

    __slots__ = ("_fd", "_was_full", "broken")

    is_immediate: ClassVar[bool] = True

    def __init__(self, stream: trio.SocketStream, timer: Timer | None) -> None:
        super().__init__(Waits(stream.socket, timer))
        self.broken: bool = False
        self._fd = stream.socket.fileno()
        self._was_full: bool = False  # the last read: more is likely to be there already

    # -- octets

    async def receive(self, deadline: float = math.inf) -> bytes:
        """Wait for octets."""
        waits = self._waits
        if waits.reason is not None:
            waits.heed_reason()
        waits.waiting = RECEIVE
        try:
            size = BULK_SIZE if self._was_full else RECEIVE_SIZE
            timer = waits.timer
            if timer is None:
                with waits.scope_until(deadline) as scope:
                    await trio.lowlevel.wait_readable(self._fd)
                if scope.cancelled_caught:
                    raise waits.woken()
            else:
                # No turn of the scheduler but in the wait for the socket, so that only its own wake-up can win.
                timer.set(deadline)
                if self._was_full:
                    await trio.lowlevel.checkpoint()
                else:
                    await trio.lowlevel.wait_readable(self._fd)
            data = os.read(self._fd, size)
            self._was_full = len(data) == size
            return data
        except BlockingIOError:  # less was there than it seemed
            self._was_full = False
            return await self.receive(deadline)
        except trio.ClosedResourceError as exc:
            raise waits.take_reason() or self._lost("the connection was closed") from exc
        except OSError as exc:
            raise self._lost() from exc
        finally:
            waits.waiting = NOTHING
            waits.scope = None

    def receive_nowait(self) -> bytes | None:
        """What is there already."""
        if self.broken:
            return None
        try:
            return os.read(self._fd, RECEIVE_SIZE)
        except BlockingIOError:
            return None
        except OSError as exc:
            raise self._lost() from exc

    def send_nowait(self, data: Octets) -> int:
        """Give the socket what it takes."""
        if self.broken:
            return 0
        try:
            return os.write(self._fd, data)
        except BlockingIOError:
            return 0
        except OSError as exc:
            raise self._lost() from exc

    async def send(self, data: Octets, deadline: float = math.inf) -> None:
        """Send everything; a checkpoint only where the socket does not take it at once."""
        sent = self.send_nowait(data)
        if self.broken:
            raise self._lost()
        if sent < len(data):
            await self._send_rest(memoryview(data)[sent:], deadline)

    async def _send_rest(self, rest: memoryview, deadline: float) -> None:
        waits = self._waits
        waits.waiting = SEND
        try:
            with waits.scope_until(deadline) as scope:
                while rest:
                    await trio.lowlevel.wait_writable(self._fd)
                    with contextlib.suppress(BlockingIOError):
                        rest = rest[os.write(self._fd, rest) :]
            if scope.cancelled_caught:
                raise waits.woken()
        except trio.ClosedResourceError as exc:
            self.broken = True
            raise waits.take_reason() or self._lost("the connection was closed") from exc
        except OSError as exc:
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
        """Shake hands: a server by OpenSSL's memory buffers, a client by a :class:`trio.SSLStream`."""
        try:
            if server_side:
                return await serve_tls(self, self._waits, context, deadline)
            assert self._waits.socket is not None
            below = DescriptorStream(self._waits.socket)
            wire = await wrap_in_tls(
                below, self._waits, context, server_side=False, server_hostname=server_hostname, deadline=deadline
            )
        except BaseException:
            self.broken = True
            raise
        if self.broken:  # aborted by another task meanwhile
            wire.abort()
        return wire

    # -- the end

    def abort(self) -> None:
        """Mark the connection broken."""
        self.broken = True

    def _lost(self, text: str = "the connection was lost") -> ConnectionLostError:
        self.broken = True
        return ConnectionLostError(text)

    async def aclose(self, within: float = 2.0) -> None:
        """Close the socket."""
        self.broken = True
        self._waits.close()  # what SocketStream.aclose() comes down to; aclose_forcefully() costs 30 µs more

    async def aclose_lingering(self, within: float = 2.0, drop: int = 1 << 20) -> None:
        """Say that no more will come, drop what comes, and close."""
        if not self.broken:
            with trio.move_on_after(within, shield=True):
                await self._drop_input(drop)
        await self.aclose()
