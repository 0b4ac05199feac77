# A nursery for async context managers that raises the body's exception bare, not in a group.
from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self, TypeAlias

import trio

Leave: TypeAlias = Callable[[trio.Nursery, BaseException | None], None]


class _Caught:
    """Catches the exception of its block and keeps it in `error`, for the caller to raise."""

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
    """Open a nursery. At the end of the block, call `leave` with it and the body's exception, then wait for its tasks.

    The body's exception is raised bare. An exception in a task, which is a bug, is raised in a group, as always.

    Args:
        leave: called with the nursery and the body's exception, or ``None``.
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
