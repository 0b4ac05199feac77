"""The file of an outbox in SQLite: what its statements look at, and how it is opened."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from trio_smtp.outbox import _schema
from trio_smtp.outbox._errors import StoreError
from trio_smtp.outbox._rows import RowsStatement
from trio_smtp.outbox._schema import SCHEMA, check_version, data_version, open_connection

STATEMENTS = {
    name: words
    for name, words in vars(_schema).items()
    if isinstance(words, str) and words.split()[:1] and words.split()[0] in ("SELECT", "INSERT", "UPDATE", "DELETE")
} | {
    f"{name} {number}": words.text(number)
    for name, words in vars(_schema).items()
    if isinstance(words, RowsStatement)
    for number in (1, 32)
}


@pytest.fixture
def connection(tmp_path):
    with closing(open_connection(f"{tmp_path}/o.db")) as connection:
        yield connection


def plan(connection, statement):
    values = {"now": 0} if ":now" in statement else [0] * statement.count("?")
    return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", values)]


def test_they_are_all_here():
    assert len(STATEMENTS) >= 18


@pytest.mark.parametrize("name", STATEMENTS)
def test_no_statement_looks_at_more_than_it_is_about(name, connection):
    """None reads a whole table or sorts; two walk along an index, and stop at their LIMIT; one counts all there are."""
    steps = [step for step in plan(connection, STATEMENTS[name]) if "SCAN" in step]
    walks = [step for step in steps if step != "SCAN new" and "CONSTANT ROW" not in step]  # the values that it is given
    expected = {
        "FIND_READY": ["SCAN outbox_entries USING INDEX outbox_ready"],
        "COUNT": ["SCAN outbox_entries USING COVERING INDEX outbox_states"],
    }
    assert [step.replace("SCAN TABLE", "SCAN") for step in walks] == expected.get(name, [])
    assert not [step for step in plan(connection, STATEMENTS[name]) if "TEMP B-TREE" in step]


def test_a_lease_and_what_is_due_are_found_by_their_index(connection):
    for name, index in {
        "RIPEN": "outbox_later (at<?)",
        "FIND_LAPSED": "outbox_leased (at<?)",
        "FORGET": "outbox_done (at<?)",
        "DELAY_ANEW": "outbox_delayed (<expr>>?)",
        "LEASE_ANEW": "outbox_leased (at>?)",
        "PAGE_OF_STATE": "outbox_states (state=? AND place>?)",
        "FIND_KEY": "outbox_keys (key=?)",
    }.items():
        assert any(step.endswith(f"INDEX {index}") for step in plan(connection, STATEMENTS[name])), name


def test_an_open_file_is_durable(connection):
    (synchronous,) = connection.execute("PRAGMA synchronous").fetchone()
    (journal,) = connection.execute("PRAGMA journal_mode").fetchone()
    assert (synchronous, journal) == (2, "wal")  # FULL


def test_opening_again_keeps_what_is_there(connection, tmp_path):
    connection.execute(_schema.SET_STARTS, ("x",))
    with closing(open_connection(f"{tmp_path}/o.db")) as again:
        assert again.execute(_schema.STARTS).fetchone() == ("x",)
        tables = again.execute("SELECT count(*) FROM sqlite_master WHERE sql IS NOT NULL").fetchone()
    assert tables == (SCHEMA.count("CREATE") + 1,)  # and sqlite_sequence


def test_a_file_of_another_version_is_refused(connection, tmp_path):
    connection.execute("UPDATE outbox_meta SET value = '99' WHERE name = 'version'")
    with pytest.raises(StoreError, match="version 99, and this trio_smtp has version 3"):
        open_connection(f"{tmp_path}/o.db")


def test_a_file_without_an_outbox_has_no_version(tmp_path):
    with closing(sqlite3.connect(tmp_path / "other.db")) as connection, pytest.raises(StoreError, match="no outbox"):
        check_version(connection)


def test_the_data_version_tells_of_the_changes_of_others(connection, tmp_path):
    with closing(open_connection(f"{tmp_path}/o.db")) as other:
        before = data_version(connection)
        connection.execute(_schema.SET_STARTS, ("x",))
        assert data_version(connection) == before
        other.execute(_schema.SET_STARTS, ("y",))
        assert data_version(connection) != before


def test_a_file_of_before_the_first_release_is_named_as_such(tmp_path):
    """Its contents were kept by id, which no statement of today finds."""
    with closing(sqlite3.connect(f"{tmp_path}/o.db")) as connection, connection:
        connection.execute("CREATE TABLE outbox_meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID")
        connection.execute("CREATE TABLE outbox_contents (id TEXT PRIMARY KEY, content BLOB NOT NULL)")
        connection.execute("INSERT INTO outbox_meta VALUES ('version', '1')")
    with pytest.raises(StoreError, match="of version 1, and this trio_smtp has version 3"):
        open_connection(f"{tmp_path}/o.db")
