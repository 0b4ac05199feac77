# Time limits for many connections at the price of one task.
#
# A cancel scope per wait costs too much (docs/speed.md). So each connection has a Timer whose deadline is an attribute,
# and one task per server or pool sleeps until the earliest of them. Deadlines mostly move later, so the heap is lazy:
# an entry is looked at when its time has come, and put back if the deadline is later by then. So a timer is looked at
# about once per limit, not once per command. To set a deadline that is later than the entry is a comparison; only an
# earlier one touches the heap.
#
# Rule: a timer's callback is synchronous, quick and does not raise. This file does not know what it ends.
from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from itertools import count
from typing import Final, NoReturn

import trio

_SLACK: Final = 64  # dead entries that are never worth a clean-up


class Timer:
    """One connection's moving deadline, in Trio's clock; made by :meth:`Timekeeper.timer`."""

    __slots__ = ("_entry", "_keeper", "_on_expiry", "deadline")

    def __init__(self, keeper: Timekeeper, on_expiry: Callable[[], None] | None) -> None:
        self._keeper = keeper
        self._on_expiry: Callable[[], None] | None = on_expiry
        self._entry: float = math.inf  # when the keeper will next look at this timer
        self.deadline: float = math.inf

    def __repr__(self) -> str:
        return f"<Timer: {'closed' if self._on_expiry is None else self.deadline}>"

    def bind(self, on_expiry: Callable[[], None]) -> None:
        """Let this be called when the deadline passes."""
        self._on_expiry = on_expiry

    def set(self, deadline: float) -> None:
        """Let the timer expire at `deadline`; ``math.inf`` stops it."""
        self.deadline = deadline
        if deadline < self._entry:
            self._keeper._push(self, deadline)

    def close(self) -> None:
        """Never expire again, and drop the callback."""
        if self._on_expiry is not None:
            self._on_expiry = None
            self.deadline = math.inf
            if self._entry < math.inf:
                self._keeper._forget()


class Timekeeper:
    """Expires timers on time; :meth:`run` is its task."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._serial: count[int] = count()  # makes entries of the same time comparable
        self._dead: int = 0  # entries whose timer is closed or has an earlier entry
        self._sleep = trio.CancelScope()

    def timer(self, on_expiry: Callable[[], None] | None = None) -> Timer:
        """Make a stopped timer that calls `on_expiry()`, which `bind` may give later, when its deadline passes."""
        return Timer(self, on_expiry)

    async def run(self) -> NoReturn:
        """Expire timers until cancelled."""
        while True:
            with trio.CancelScope() as self._sleep:
                self._sleep.deadline = self._heap[0][0] if self._heap else math.inf
                await trio.sleep_forever()
            self._expire(trio.current_time())

    def _push(self, timer: Timer, when: float) -> None:
        if timer._entry < math.inf:
            self._forget()
        timer._entry = when
        heapq.heappush(self._heap, (when, next(self._serial), timer))
        if when < self._sleep.deadline:
            self._sleep.deadline = when

    def _forget(self) -> None:
        self._dead += 1
        # Else closed timers would stay until their limit has passed: 5 minutes of connections, at 3000 a second.
        if self._dead > _SLACK and self._dead * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if self._is_current(entry)]
            heapq.heapify(self._heap)
            self._dead = 0

    def _is_current(self, entry: tuple[float, int, Timer]) -> bool:
        when, _, timer = entry
        return timer._on_expiry is not None and timer._entry == when

    def _expire(self, now: float) -> None:
        while self._heap and self._heap[0][0] <= now:
            entry = heapq.heappop(self._heap)
            if not self._is_current(entry):
                self._dead -= 1
                continue
            timer = entry[2]
            timer._entry = math.inf
            if timer.deadline > now:
                if timer.deadline < math.inf:
                    self._push(timer, timer.deadline)
                continue
            timer.deadline = math.inf
            if timer._on_expiry is not None:
                timer._on_expiry()
