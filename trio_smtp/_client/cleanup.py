# What is still to be done when a wait ends by an exception: shielded from cancellation, for a limited time.
from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType

import trio


class ShieldedCleanup:
    """Around a wait. Exceptions of the given kinds start the cleanup.

    If the cleanup succeeds the exception is swallowed. A swallowed cancellation is met again at the caller's next
    checkpoint.

    Args:
        seconds: the cleanup's time.
        cleanup: returns whether it has succeeded.
        kinds: the exceptions.
    """

    __slots__ = ("_cleanup", "_kinds", "_seconds")

    def __init__(self, seconds: float, cleanup: Callable[[], Awaitable[bool]], *kinds: type[BaseException]) -> None:
        self._seconds = seconds
        self._cleanup = cleanup
        self._kinds = kinds

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if exc is not None and isinstance(exc, self._kinds):
            with trio.move_on_after(self._seconds, shield=True):
                return await self._cleanup()
        return False
