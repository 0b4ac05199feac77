# A nursery behind an async context manager, out of which the body's exception comes as it is and not in a group.
from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self, TypeAlias

import trio

Leave: TypeAlias = Callable[[trio.Nursery, BaseException | None], None]


class _Caught:
    """Catches whatever its block raises, to be raised again by whoever looks at `error`."""

    error: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self.error = exc
        return True


@asynccontextmanager
async def open_bare_nursery(leave: Leave) -> AsyncIterator[trio.Nursery]:
    """Open a nursery; at the end of the block call `leave` with it and the body's exception, then wait for its tasks.

    The body's exception is raised bare. An exception of a task, which is a bug, comes in a group, as from any nursery.
    """
    body, whole = _Caught(), _Caught()
    with whole:
        async with trio.open_nursery() as nursery:
            with body:
                yield nursery
            leave(nursery, body.error)
    if whole.error is not None and (body.error is None or not _is_cancellation(whole.error)):
        raise whole.error
    if body.error is not None:
        raise body.error


def _is_cancellation(exc: BaseException) -> bool:
    if isinstance(exc, BaseExceptionGroup):
        return all(map(_is_cancellation, exc.exceptions))
    return isinstance(exc, trio.Cancelled)
