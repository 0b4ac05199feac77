# What a server and its workers have accepted in all: counts in memory that the processes share, so that those of a
# worker that was killed are not lost.
from __future__ import annotations

import mmap
import struct
import time

_COUNTS = struct.Struct("=QQ")  # messages, octets


class Totals:
    """Messages and octets, of all processes together. Each process writes to a place of its own.

    Args:
        processes: how many will count.
    """

    def __init__(self, processes: int = 1) -> None:
        self._memory = mmap.mmap(-1, _COUNTS.size * processes)  # anonymous: a fork shares it
        self._processes = processes
        self._place = 0
        self._started = time.monotonic()

    def count_as(self, number: int) -> None:
        """In a worker: count at its place, the first being 1. A successor goes on where the one before it ended."""
        self._place = _COUNTS.size * (number - 1)

    def add(self, octets: int) -> None:
        """Count a message."""
        messages, before = _COUNTS.unpack_from(self._memory, self._place)
        _COUNTS.pack_into(self._memory, self._place, messages + 1, before + octets)

    @property
    def messages(self) -> int:
        """Messages accepted."""
        return self._sum(0)

    @property
    def octets(self) -> int:
        """Octets of their content."""
        return self._sum(1)

    @property
    def seconds(self) -> float:
        """Since this was made."""
        return time.monotonic() - self._started

    def _sum(self, which: int) -> int:
        return sum(_COUNTS.unpack_from(self._memory, _COUNTS.size * at)[which] for at in range(self._processes))

    def __str__(self) -> str:
        messages = f"{self.messages:,} message{'s' * (self.messages != 1)}"
        return f"{messages}, {self.octets:,} octets in {duration(self.seconds)}"


def duration(seconds: float) -> str:
    """A time in words: ``2 h 5 min``, ``3 min 20 s``, ``7 s``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
