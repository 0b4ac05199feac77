# Accepting connections: as trio.serve_listeners, without its wrapper around each handler, which closes the stream a
# second time.
from __future__ import annotations

import errno
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, NoReturn

import trio

from .._protocol.checks import check_kind
from .._wire.entrance import check_trio
from .log import logger
from .refusals import PERIOD

# The host is short of something for a while; every other error of accept() is a bug or a closed listener.
_SHORTAGES: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS))
_PAUSE: Final = 0.1  # seconds before the next try


def check_stream(stream: object) -> None:
    """Check what is to be served.

    Raises:
        RuntimeError: this is no task of Trio's.
        TypeError: it is no stream.
    """
    check_trio("a Server")
    check_kind("stream", stream, trio.abc.Stream)


def check_listeners(listeners: object) -> None:
    """Check that there are listeners.

    Raises:
        RuntimeError: this is no task of Trio's.
        TypeError, ValueError: one of them is none, or there is none.
    """
    check_trio("a Server")
    if not isinstance(listeners, Sequence):
        raise TypeError(f"listeners must be a sequence of listeners, not {listeners!r:.80}")
    for listener in listeners:
        check_kind("each of listeners", listener, trio.abc.Listener)
    if not listeners:
        raise ValueError("listeners is empty: there is nothing to listen on")


async def accept_all(
    listeners: Sequence[trio.abc.Listener[Any]],
    serve: Callable[[trio.abc.Stream], Awaitable[None]],
    connections: trio.Nursery,
    started: Callable[[], None],
) -> NoReturn:
    """Give each connection of some listeners a task, until cancelled; closes the listeners in the end.

    Args:
        listeners: owned from now on.
        serve: called with each stream, which it owns; returns the task's coroutine.
        connections: where its tasks run.
        started: called once connections are accepted.

    Raises:
        Exception: what a listener's ``accept`` raised, unless the host is short of descriptors or memory.
    """
    async with trio.open_nursery() as nursery:
        for listener in listeners:
            nursery.start_soon(_accept, listener, serve, connections)
        started()
    raise AssertionError("accepting never ends by itself")  # pragma: no cover


async def _accept(
    listener: trio.abc.Listener[Any], serve: Callable[[trio.abc.Stream], Awaitable[None]], connections: trio.Nursery
) -> NoReturn:
    told_at = -math.inf
    async with listener:
        while True:
            try:
                stream = await listener.accept()
            except OSError as exc:
                if exc.errno not in _SHORTAGES:
                    raise
                if trio.current_time() - told_at >= PERIOD:
                    told_at = trio.current_time()
                    logger.error("accept failed, trying again every %s s: %s", _PAUSE, exc)
                await trio.sleep(_PAUSE)
            else:
                connections.start_soon(serve, stream)
