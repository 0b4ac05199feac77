# Never more than n starts in any window of s seconds.
#
# A token bucket of n would let 2n through around a full bucket, and a counter that is reset every s seconds does the
# same around the reset. So the last n starts are remembered, and a start waits until the oldest of them is s old.
# Callers that wait stand in a trio.Lock's queue: first come, first served, and a cancelled one leaves no trace.
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

    def __init__(self, starts: int, seconds: float) -> None:
        self._seconds = seconds
        self._latest: deque[float] = deque(maxlen=starts)
        self._turn = trio.Lock()

    async def start(self) -> None:
        """Wait until one more may start, and count it."""
        async with self._turn:
            latest = self._latest
            if len(latest) == latest.maxlen:
                await trio.sleep_until(latest[0] + self._seconds + _MARGIN)
            latest.append(trio.current_time())
