"""Statements that write many rows at once."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from trio_smtp.outbox._rows import RowsStatement, write_all

INSERT = RowsStatement("INSERT INTO t (number, word) VALUES {rows} ON CONFLICT DO NOTHING", "(?, ?)")
CHANGE = RowsStatement(
    "UPDATE t SET word = new.column2 FROM (VALUES {rows}) AS new WHERE number = new.column1", "(?, ?)"
)


@pytest.fixture
def connection():
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute("CREATE TABLE t (number INTEGER PRIMARY KEY, word TEXT)")
        yield connection


def table(connection):
    return connection.execute("SELECT * FROM t ORDER BY number").fetchall()


@pytest.mark.parametrize("number", [0, 1, 2, 3, 31, 32, 33, 64, 100, 200])
def test_any_number_of_rows_takes_few_statements(number, connection):
    rows = [(each, f"w{each}") for each in range(number)]
    said: list[str] = []
    connection.set_trace_callback(said.append)
    assert INSERT.write(connection, rows) == number
    connection.set_trace_callback(None)
    assert table(connection) == rows
    assert len(said) == number // 32 + bin(number % 32).count("1")


def test_it_says_how_many_were_written(connection):
    connection.execute("INSERT INTO t VALUES (1, 'one')")
    assert INSERT.write(connection, [(1, "x"), (2, "two"), (2, "again"), (3, "three")]) == 2
    assert CHANGE.write(connection, [(1, "a"), (3, "c"), (9, "none")]) == 2
    assert table(connection) == [(1, "a"), (2, "two"), (3, "c")]


def test_two_changes_of_one_row_are_seen_to_be_too_many(connection):
    connection.execute("INSERT INTO t VALUES (1, 'one')")
    assert CHANGE.write(connection, [(1, "a"), (1, "b")]) == 1


def test_rows_of_several_statements(connection):
    rows = [(INSERT, (1, "a")), (CHANGE, (1, "b")), (INSERT, (2, "c")), (CHANGE, (2, "d"))]
    assert write_all(connection, rows)
    assert table(connection) == [(1, "b"), (2, "d")]
    assert not write_all(connection, [(CHANGE, (3, "e"))])
    assert write_all(connection, [])
