# The file of an outbox in SQLite: how it is opened, its tables, and every statement that is made on them.
#
# Durability: WAL with synchronous=FULL, which syncs the log at each commit. What was committed survives a crash of the
# process and of the machine, as far as the disk keeps what it was told to.
#
# Waiting records are "later" or "ready"; what is due moves from one to the other. Each shelf has its own partial index,
# so that no statement looks at more rows than it is about: what one costs does not depend on how many others wait.
# tests/test_outbox_schema.py asks SQLite for the plan of each.
from __future__ import annotations

import os
import sqlite3
from typing import Final

from ._errors import StoreError
from ._rows import RowsStatement

VERSION: Final = "3"  # 1 and 2: before the first release
_BUSY: Final = 10.0  # seconds to wait for other processes
_CHECKPOINT: Final = 4000  # pages of the log, 16 MiB, before they are copied into the file, which costs two more syncs
_OLDEST: Final = (3, 33)  # SQLite: UPDATE FROM
_CHECKED: Final = 64 << 20  # octets: a file up to this size is checked for damage when it is opened

# `patience` is how long a row was meant to stay where it is; NULL if that was up to the one who put it. `begun` and
# `marked` are the steps since the record was written.
SCHEMA: Final = f"""
CREATE TABLE IF NOT EXISTS outbox_meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS outbox_entries (
    place INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    key TEXT,
    state TEXT NOT NULL,
    shelf TEXT NOT NULL,
    at REAL NOT NULL,
    patience REAL,
    priority INTEGER NOT NULL,
    claim INTEGER NOT NULL,
    version INTEGER NOT NULL,
    record TEXT NOT NULL,
    begun TEXT,
    marked TEXT
);
CREATE TABLE IF NOT EXISTS outbox_contents (place INTEGER PRIMARY KEY, content BLOB NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS outbox_keys ON outbox_entries (key) WHERE key IS NOT NULL;
CREATE INDEX IF NOT EXISTS outbox_ready ON outbox_entries (priority DESC, place) WHERE shelf = 'ready';
CREATE INDEX IF NOT EXISTS outbox_later ON outbox_entries (at) WHERE shelf = 'later';
CREATE INDEX IF NOT EXISTS outbox_delayed ON outbox_entries (at - patience)
    WHERE shelf = 'later' AND patience IS NOT NULL;
CREATE INDEX IF NOT EXISTS outbox_leased ON outbox_entries (at) WHERE shelf = 'leased';
CREATE INDEX IF NOT EXISTS outbox_done ON outbox_entries (at) WHERE shelf = 'done';
CREATE INDEX IF NOT EXISTS outbox_states ON outbox_entries (state, place);
INSERT OR IGNORE INTO outbox_meta VALUES ('version', '{VERSION}');
"""

FIND_KEY: Final = "SELECT id FROM outbox_entries WHERE key = ?"
# Nothing is inserted where the key is known.
INSERT: Final = RowsStatement(
    """
    INSERT INTO outbox_entries (id, key, state, shelf, at, priority, claim, version, record) VALUES {rows}
    ON CONFLICT (key) WHERE key IS NOT NULL DO NOTHING
    """,
    "(?, ?, ?, ?, ?, ?, ?, 1, ?)",
)
INSERT_CONTENT: Final = RowsStatement(
    """
    INSERT INTO outbox_contents (place, content) SELECT place, new.column2
    FROM (VALUES {rows}) AS new CROSS JOIN outbox_entries ON id = new.column1
    """,
    "(?, ?)",
)
RIPEN: Final = "UPDATE outbox_entries SET shelf = 'ready' WHERE shelf = 'later' AND at <= ?"
# Records are read as octets: what is no UTF-8 any more is an error of that record, not of the statement.
_KEPT: Final = "CAST(record AS BLOB), version, CAST(begun AS BLOB), CAST(marked AS BLOB)"
# Of an entry that is set aside, whether its content is there.
_ASIDE: Final = """
    CASE shelf WHEN 'damaged' THEN EXISTS (SELECT 1 FROM outbox_contents WHERE place = outbox_entries.place) END
"""
FIND_LAPSED: Final = f"""
    SELECT id, {_KEPT}, content FROM outbox_entries LEFT JOIN outbox_contents USING (place)
    WHERE shelf = 'leased' AND at <= ? ORDER BY at LIMIT ?
"""
FIND_READY: Final = f"""
    SELECT id, {_KEPT}, content FROM outbox_entries LEFT JOIN outbox_contents USING (place)
    WHERE shelf = 'ready' ORDER BY priority DESC, place LIMIT ?
"""
FIND_CONTENT: Final = """
    SELECT version, content FROM outbox_entries LEFT JOIN outbox_contents USING (place) WHERE id = ?
"""
LOAD: Final = f"SELECT {_KEPT}, {_ASIDE} FROM outbox_entries WHERE id = ?"
FIND_SIZE: Final = "SELECT length(content) FROM outbox_contents JOIN outbox_entries USING (place) WHERE id = ?"
# A record is replaced only if it is the one that was read: its version is compared.
MOVE: Final = RowsStatement(
    """
    UPDATE outbox_entries SET state = new.column1, shelf = new.column2, at = new.column3, patience = new.column4,
    claim = new.column5, version = version + 1, record = new.column6, begun = NULL, marked = NULL
    FROM (VALUES {rows}) AS new WHERE id = new.column7 AND version = new.column8
    """,
    "(?, ?, ?, ?, ?, ?, ?, ?)",
)
CLAIM: Final = RowsStatement(
    """
    UPDATE outbox_entries SET state = 'sending', shelf = 'leased', at = new.column1, patience = new.column2,
    claim = new.column3, version = version + 1, begun = new.column4
    FROM (VALUES {rows}) AS new WHERE id = new.column5 AND version = new.column6
    """,
    "(?, ?, ?, ?, ?, ?)",
)
MARK: Final = RowsStatement(
    """
    UPDATE outbox_entries SET version = version + 1, marked = new.column1
    FROM (VALUES {rows}) AS new WHERE id = new.column2 AND version = new.column3
    """,
    "(?, ?, ?)",
)
DELETE_CONTENT: Final = RowsStatement(
    "DELETE FROM outbox_contents WHERE place IN (SELECT place FROM outbox_entries WHERE id IN (VALUES {rows}))", "(?)"
)
SET_ASIDE: Final = "UPDATE outbox_entries SET shelf = 'damaged' WHERE id = ?"
# One that is leased stays so, since a worker's word about it may still come.
PUT_OFF: Final = """
    UPDATE outbox_entries SET at = ?, patience = ?, shelf = CASE shelf WHEN 'ready' THEN 'later' ELSE shelf END
    WHERE id = ?
"""
RENEW: Final = "UPDATE outbox_entries SET at = ?, patience = ? WHERE id = ? AND claim = ? AND shelf = 'leased'"
PAGE: Final = f"SELECT place, id, {_KEPT}, {_ASIDE} FROM outbox_entries WHERE place > ? ORDER BY place LIMIT ?"
PAGE_OF_STATE: Final = f"""
    SELECT place, id, {_KEPT}, {_ASIDE} FROM outbox_entries WHERE place > ? AND state = ? ORDER BY place LIMIT ?
"""
COUNT: Final = "SELECT state, count(*) FROM outbox_entries GROUP BY state"
STARTS: Final = "SELECT value FROM outbox_meta WHERE name = 'starts'"
SET_STARTS: Final = "INSERT OR REPLACE INTO outbox_meta (name, value) VALUES ('starts', ?)"
FORGET: Final = "DELETE FROM outbox_entries WHERE shelf = 'done' AND at <= ?"
FORGET_ONE: Final = "DELETE FROM outbox_entries WHERE id = ?"
# A row that is to stay longer than its patience from now was written before the clock was set back: its wait begins
# anew. The second only looks at what is being sent.
DELAY_ANEW: Final = """
    UPDATE outbox_entries SET at = :now + patience
    WHERE shelf = 'later' AND patience IS NOT NULL AND at - patience > :now + 1
"""
LEASE_ANEW: Final = """
    UPDATE outbox_entries SET at = :now + patience
    WHERE shelf = 'leased' AND at > :now + 1 AND at - patience > :now + 1
"""


def open_connection(path: str) -> sqlite3.Connection:
    """A connection to the outbox in this file; blocks.

    Raises:
        StoreError: the file is of another version, or damaged.
        sqlite3.Error: it cannot be used.
    """
    if sqlite3.sqlite_version_info < _OLDEST:
        oldest = ".".join(map(str, _OLDEST))
        raise StoreError(f"an outbox needs SQLite {oldest} or later, and this Python has {sqlite3.sqlite_version}")
    connection = sqlite3.connect(path, timeout=_BUSY, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL").fetchone()
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA temp_store = MEMORY")  # what a group may have to take back is kept there
        connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT}")
        _prepare(connection)
        size = os.path.getsize(path) if os.path.exists(path) else 0
        if size <= _CHECKED:
            (words,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if words != "ok":
                raise StoreError(f"the outbox {path} is damaged: {words}")
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection) -> None:
    """Make the tables if they are missing, and check their version."""
    known = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'outbox_meta'").fetchone()
    if known is None:
        connection.executescript(f"BEGIN IMMEDIATE; {SCHEMA} COMMIT;")
    check_version(connection)


def check_version(connection: sqlite3.Connection) -> None:
    """Raise StoreError if the tables are missing, or of another version."""
    try:
        found = connection.execute("SELECT value FROM outbox_meta WHERE name = 'version'").fetchone()
    except sqlite3.OperationalError as exc:
        if "no such table" not in str(exc):
            raise
        raise StoreError("this file has no outbox yet: open_outbox() makes one") from exc
    if found is None or found[0] != VERSION:
        words = "none" if found is None else found[0]
        raise StoreError(f"the outbox is of version {words}, and this trio_smtp has version {VERSION}")


def data_version(connection: sqlite3.Connection) -> int:
    """SQLite's number of the latest change by others."""
    (number,) = connection.execute("PRAGMA data_version").fetchone()
    return int(number)
