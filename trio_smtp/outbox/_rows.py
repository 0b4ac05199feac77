# Statements of SQLite that write many rows at once.
#
# A statement that is run gives up Python's lock and takes it again, which costs more than the row: so those that are
# written together are one statement. Its text is that of a power of two, so that there are few, and SQLite keeps them.
from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Final, TypeAlias

Row: TypeAlias = tuple[object, ...]
_MOST: Final = 32  # rows at once


class RowsStatement:
    """A statement that writes a row of a table for each row of values.

    Args:
        words: with ``{rows}`` where the values stand.
        row: the place of one row's values.
    """

    def __init__(self, words: str, row: str) -> None:
        self._words: Final = words
        self._row: Final = row
        self._texts: dict[int, str] = {}

    def text(self, number: int) -> str:
        """The statement for so many rows."""
        if number not in self._texts:
            self._texts[number] = self._words.format(rows=", ".join([self._row] * number))
        return self._texts[number]

    def write(self, connection: sqlite3.Connection, rows: Sequence[Row]) -> int:
        """Run it; how many rows it has written."""
        written = first = 0
        while (left := len(rows) - first) > 0:
            number = min(_MOST, 1 << (left.bit_length() - 1))
            values = tuple(chain.from_iterable(rows[first : first + number]))
            written += connection.execute(self.text(number), values).rowcount
            first += number
        return written


def write_all(connection: sqlite3.Connection, rows: Iterable[tuple[RowsStatement, Row]]) -> bool:
    """Write rows, those of each statement at once, in the order in which the statements are first named.

    Returns:
        Whether each of them was written. If not, some may have been.
    """
    sorted_rows: dict[RowsStatement, list[Row]] = {}
    for statement, row in rows:
        sorted_rows.setdefault(statement, []).append(row)
    return all(statement.write(connection, each) == len(each) for statement, each in sorted_rows.items())
