# The dialogue of a try, kept in bounds: its beginning and its end, since an entry has one for as long as it is kept.
from __future__ import annotations

from collections import deque
from typing import Final

_MOST: Final = 30  # lines at the beginning, and as many at the end
_LINE: Final = 300  # characters


class Dialogue:
    """Takes the lines of a dialogue, for :meth:`Pool.send`."""

    __slots__ = ("_first", "_last", "_left_out")

    def __init__(self) -> None:
        self._first: Final[list[str]] = []
        self._last: Final[deque[str]] = deque()
        self._left_out = 0

    def take(self, line: str) -> None:
        """The next line."""
        kept = line if len(line) <= _LINE else f"{line[:_LINE]}…"
        if len(self._first) < _MOST:
            self._first.append(kept)
            return
        self._last.append(kept)
        if len(self._last) > _MOST:
            self._last.popleft()
            self._left_out += 1

    def lines(self) -> list[str]:
        """What is kept of them, and how many are left out."""
        left_out = [f"({self._left_out} lines left out)"] if self._left_out else []
        return [*self._first, *left_out, *self._last]
