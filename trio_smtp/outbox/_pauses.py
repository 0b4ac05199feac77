# How long to wait before a store that could not be used is asked again.
from __future__ import annotations

_FIRST, _LONGEST = 0.1, 5.0  # seconds


class Pauses:
    """Pauses that double, up to the longest."""

    def __init__(self) -> None:
        self._seconds = _FIRST

    def next(self) -> float:
        """The seconds of this one."""
        seconds = self._seconds
        self._seconds = min(seconds * 2, _LONGEST)
        return seconds

    def reset(self) -> None:
        """The store could be used: the next one is the first again."""
        self._seconds = _FIRST
