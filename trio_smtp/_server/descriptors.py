# File descriptors, kept for messages: a new connection is refused before an upload fails that cannot open its file.
#
# A new descriptor is the lowest that is free: its number says how many there are, without counting them. Each session
# that is open may want one more, for the message that it is to store.
from __future__ import annotations

import math
from typing import Final

import trio

try:
    import resource
except ImportError:  # Windows, where sockets and files have no common limit
    resource = None  # type: ignore[assignment]

SPARE: Final = 32  # for what else the process opens
MAX_KEPT: Final = 1000  # for messages: of more sessions than that, not all store one at the same time


def are_short(stream: trio.abc.Stream, sessions: int) -> bool:
    """Whether a connection that was just accepted leaves too few descriptors for what `sessions` may have to store."""
    number = _number_of(stream)
    return number is not None and number + 1 + min(sessions, MAX_KEPT) + SPARE > _limit()


def _number_of(stream: trio.abc.Stream) -> int | None:
    while isinstance(stream, trio.SSLStream):
        stream = stream.transport_stream
    return stream.socket.fileno() if isinstance(stream, trio.SocketStream) else None


def _limit() -> float:
    if resource is None:
        return math.inf
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return math.inf if soft == resource.RLIM_INFINITY else soft
