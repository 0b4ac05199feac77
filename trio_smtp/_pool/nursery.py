# A nursery behind an async context manager, out of which the body's exception comes as it is and not in a group.
from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

import trio

Leave: TypeAlias = Callable[[trio.Nursery, BaseException | None], None]


@asynccontextmanager
async def open_bare_nursery(leave: Leave) -> AsyncIterator[trio.Nursery]:
    """Open a nursery; at the end of the block call `leave` with it and the body's exception, then wait for its tasks.

    The body's exception is raised bare. An exception of a task, which is a bug, comes in a group, as from any nursery.
    """
    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                yield nursery
            except BaseException as exc:  # raised again below
                failure = exc
            leave(nursery, failure)
    except BaseException as exc:
        if failure is None or not _is_cancellation(exc):
            raise
    if failure is not None:
        raise failure


def _is_cancellation(exc: BaseException) -> bool:
    if isinstance(exc, BaseExceptionGroup):
        return all(map(_is_cancellation, exc.exceptions))
    return isinstance(exc, trio.Cancelled)
