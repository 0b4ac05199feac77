# Never more than n starts in any window of s seconds.
#
# A token bucket of n would let 2n through around a full bucket, and a counter that is reset every s seconds does the
# same around the reset. So the last n starts are remembered, and a start waits until the oldest of them is s old.
# Waiting tasks queue at a trio.Lock: first come, first served, and a cancelled one is withdrawn.
from __future__ import annotations

from collections import deque
from typing import Final

import trio

_MARGIN: Final = 1e-6  # seconds; the sum of two times is rounded, and "never" means never


class RateLimit:
    """A sliding window over starts.

    Args:
        starts: how many
        seconds: in any window of this length.
    """

    __slots__ = ("_latest", "_seconds", "_turn")

    def __init__(self, starts: int, seconds: float) -> None:
        self._seconds: float = seconds
        self._latest: deque[float] = deque(maxlen=starts)
        self._turn: trio.Lock = trio.Lock()

    def __repr__(self) -> str:
        return f"<RateLimit {self._latest.maxlen} in {self._seconds:g} s>"

    async def start(self) -> float:
        """Wait until one more may start, and count it; the moment, for :meth:`take_back`."""
        async with self._turn:
            latest = self._latest
            if len(latest) == latest.maxlen:
                await trio.sleep_until(latest[0] + self._seconds + _MARGIN)
            now = trio.current_time()
            latest.append(now)
            return now

    def take_back(self, start: float) -> None:
        """Nothing has started at that moment after all."""
        if start in self._latest:
            self._latest.remove(start)
