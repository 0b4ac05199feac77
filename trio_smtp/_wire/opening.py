# Which wire a stream becomes.
from __future__ import annotations

import trio

from . import descriptor
from .socket_wire import SocketWire
from .stream_wire import StreamWire
from .timekeeper import Timer
from .wire import Wire


def open_wire(stream: trio.abc.Stream, timer: Timer | None = None) -> Wire:
    """The wire for a connected stream.

    Args:
        stream: owned by the wire from now on.
        timer: expires the waits, if the stream ends in a socket: its callback must call :meth:`.wire.Wire.expire`, of
            this wire or of one that replaces it. Without a timer each wait has a cancel scope.
    """
    if descriptor.AVAILABLE and isinstance(stream, trio.SocketStream):
        return SocketWire(stream, timer)
    return StreamWire.on(stream, timer)
