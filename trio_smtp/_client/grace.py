# What is still done when a wait is ended from outside: shielded, for so long and no longer.
from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType

import trio


class Grace:
    """Around a wait. Where it ends by an exception of certain kinds there is something left to be done.

    If that turns out well after all, the exception is swallowed here; a cancellation is then met again at the caller's
    next checkpoint.

    Args:
        seconds: for what is left, shielded.
        rest: does it, and says whether it turned out well.
        kinds: the exceptions.
    """

    __slots__ = ("_kinds", "_rest", "_seconds")

    def __init__(self, seconds: float, rest: Callable[[], Awaitable[bool]], *kinds: type[BaseException]) -> None:
        self._seconds = seconds
        self._rest = rest
        self._kinds = kinds

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if isinstance(exc, self._kinds):
            with trio.move_on_after(self._seconds, shield=True):
                return await self._rest()
        return False
