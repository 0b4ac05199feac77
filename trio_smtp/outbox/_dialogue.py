# The dialogue of a try, kept in bounds: its beginning and its end, since an entry has one for as long as it is kept.
from __future__ import annotations

from collections import deque
from typing import Final

_MOST: Final = 30  # lines at the beginning, and as many at the end
_LINE: Final = 300  # characters


class Dialogue:
    """Takes the lines of a dialogue, for :meth:`Pool.send`."""

    __slots__ = ("_first", "_last", "_taken")

    def __init__(self) -> None:
        self._first: Final[list[str]] = []
        self._last: Final[deque[str]] = deque(maxlen=_MOST)
        self._taken = 0

    def take(self, line: str) -> None:
        """The next line."""
        self._taken += 1
        kept = line if len(line) <= _LINE else f"{line[:_LINE]}…"
        if len(self._first) < _MOST:
            self._first.append(kept)
        else:
            self._last.append(kept)

    def lines(self) -> list[str]:
        """What is kept of them, and how many are left out."""
        left_out = self._taken - len(self._first) - len(self._last)
        return [*self._first, *([f"({left_out} lines left out)"] if left_out else []), *self._last]
