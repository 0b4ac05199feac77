# What a worker has room for: so many entries at a time in the pool, and those that it has taken ahead of them.
#
# An entry is taken ahead for each that waits for the reply to its end, while such replies come soon. It is sent when
# that reply is there, on the connection that is free then, and its claim shares a commit with the mark of the other. A
# server that is slow ends this: entries that only wait here could be sent by another worker.
from __future__ import annotations

import math
from collections import deque
from collections.abc import Hashable
from typing import Final, Generic, TypeVar

import trio

_SOON: Final = 0.25  # seconds from the mark to the reply

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


class Room(Generic[K, T]):
    """The places of a worker.

    Args:
        places: entries at a time in the pool.
    """

    def __init__(self, places: int) -> None:
        self._places: Final = places
        self._taken = 0  # places
        self._leased = 0  # in all: those whose fate is being written down have no place
        self._ahead: deque[T] = deque()
        self._ending: dict[K, float] = {}  # those that wait for their last reply, and since when
        self._is_quick = False  # the latest such reply came soon
        self._changed = trio.Event()

    def free(self) -> int:
        """How many more may be taken.

        There is a limit, too, of what has no place any more, should writing be what does not work.
        """
        ahead = len(self._ending) if self._is_quick else 0
        free = min(self._places + ahead - self._taken - len(self._ahead), 3 * self._places - self._leased)
        return max(0, free)  # a slow reply takes away room that is in use already

    async def wait(self) -> None:
        """Until something has changed."""
        self._changed = trio.Event()
        await self._changed.wait()

    # -- one entry

    def take(self, entry: T) -> bool:
        """An entry was leased. Whether there is a place for it; if not, it is kept ahead."""
        self._leased += 1
        has_place = self._taken < self._places
        if has_place:
            self._taken += 1
        else:
            self._ahead.append(entry)
        return has_place

    def mark(self, key: K) -> None:
        """The entry that has this key is being marked: its end is about to leave."""
        self._ending[key] = -math.inf
        self._changed.set()

    def end(self, key: K) -> None:
        """Its end leaves now."""
        self._ending[key] = trio.current_time()

    def answer(self, key: K, now: float) -> None:
        """There is no more to wait for."""
        self._is_quick = now - self._ending.pop(key, -math.inf) < _SOON

    def next(self) -> T | None:
        """The entry for the place that is free now; ``None``: nobody has it from now on."""
        if self._ahead:
            return self._ahead.popleft()
        self._taken -= 1
        self._changed.set()
        return None

    def release(self) -> None:
        """An entry is leased no more."""
        self._leased -= 1
        self._changed.set()

    # -- those ahead

    def first_ahead(self) -> T | None:
        """The one that has waited longest."""
        return self._ahead[0] if self._ahead else None

    def clear_ahead(self) -> list[T]:
        """All of them, to be given back; no more are taken ahead until a reply comes soon."""
        self._is_quick = False
        ahead = list(self._ahead)
        self._ahead.clear()
        return ahead
