# The store in SQLite: for any number of tasks and processes on one machine. It needs nothing but Python.
#
# One connection, used in a worker thread, one group of operations at a time. What comes in while a group is being
# written waits for the next: so operations that wait share one transaction, and one fsync (group commit). An operation
# writes after it has decided, so that one that fails leaves nothing behind; a group whose writing fails is done again
# one by one, so that a message that is too large for the disk does not keep others from being settled.
#
# Durability: WAL with synchronous=FULL, which syncs the log at each commit. What was answered survives a crash of the
# process and of the machine, as far as the disk keeps what it was told to.
#
# Waiting records are "later" or "ready"; what is due moves from one to the other. Each shelf has its own partial index,
# so that the cost of taking one does not depend on how many wait.
#
# The clock is the system's. `patience` is how long a row was meant to stay where it is; a row that is to stay longer
# than that from now was written before the clock was set back, and begins its wait anew.
from __future__ import annotations

import os
import sqlite3
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, Generic, TypeVar

import trio

from ._config import OutboxConfig
from ._errors import StoreError
from ._rates import Limit, admit
from ._rates import from_json as starts_from_json
from ._rates import to_json as starts_to_json
from ._states import Record, Shelf, State, Transition, from_json, next_version, to_json

VERSION: Final = "1"
_BUSY: Final = 10.0  # seconds to wait for other processes
_POLL: Final = 0.1  # seconds between looks for what other processes have changed
_CHECKPOINT: Final = 4000  # pages of the log, 16 MiB, before they are copied into the file, which costs two more syncs
_GROUP: Final = 200  # operations in one transaction
_CHECKED: Final = 64 << 20  # octets: a file up to this size is checked for damage when it is opened

SCHEMA: Final = f"""
CREATE TABLE IF NOT EXISTS outbox_meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS outbox_entries (
    place INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    key TEXT UNIQUE,
    state TEXT NOT NULL,
    shelf TEXT NOT NULL,
    at REAL NOT NULL,
    patience REAL,
    priority INTEGER NOT NULL,
    claim INTEGER NOT NULL,
    version INTEGER NOT NULL,
    record TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS outbox_contents (id TEXT PRIMARY KEY, content BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS outbox_ready ON outbox_entries (priority DESC, place) WHERE shelf = 'ready';
CREATE INDEX IF NOT EXISTS outbox_later ON outbox_entries (at) WHERE shelf = 'later';
CREATE INDEX IF NOT EXISTS outbox_leased ON outbox_entries (at) WHERE shelf = 'leased';
CREATE INDEX IF NOT EXISTS outbox_done ON outbox_entries (at) WHERE shelf = 'done';
CREATE INDEX IF NOT EXISTS outbox_states ON outbox_entries (state, place);
INSERT OR IGNORE INTO outbox_meta VALUES ('version', '{VERSION}');
"""

T = TypeVar("T")


@asynccontextmanager
async def open_sqlite(path: str, config: OutboxConfig) -> AsyncIterator[SQLiteStore]:
    """Open the file, and make it an outbox if it is none yet.

    Raises:
        StoreError: it cannot be opened, is damaged, or is of another version.
    """
    with _as_store_error(path):
        connection = await trio.to_thread.run_sync(open_connection, path)
    store = SQLiteStore(connection, path, config)
    try:
        yield store
    finally:
        with trio.CancelScope(shield=True):
            await store.aclose()


def open_connection(path: str) -> sqlite3.Connection:
    """A connection to the outbox in this file; blocks.

    Raises:
        StoreError: the file is of another version, or damaged.
        sqlite3.Error: it cannot be used.
    """
    connection = sqlite3.connect(path, timeout=_BUSY, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL").fetchone()
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT}")
        prepare(connection)
        size = os.path.getsize(path) if os.path.exists(path) else 0
        if size <= _CHECKED:
            (words,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if words != "ok":
                raise StoreError(f"the outbox {path} is damaged: {words}")
    except BaseException:
        connection.close()
        raise
    return connection


def prepare(connection: sqlite3.Connection) -> None:
    """Make the tables if they are missing, and check their version.

    Raises:
        StoreError: they are of another version.
    """
    known = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'outbox_meta'").fetchone()
    if known is None:
        connection.execute("BEGIN IMMEDIATE")
        for statement in SCHEMA.split(";"):
            connection.execute(statement)
        connection.execute("COMMIT")
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


class _Operation(Generic[T]):
    """Something to do with the connection, and what came of it."""

    __slots__ = ("_error", "_value", "function", "is_done", "writes")

    def __init__(self, function: Callable[[sqlite3.Connection], T], writes: bool) -> None:
        self.function: Final = function
        self.writes: Final = writes
        self.is_done = False
        self._value: T | None = None
        self._error: Exception | None = None

    def run(self, connection: sqlite3.Connection) -> None:
        """Do it. An error of SQLite is raised, since it is the group's; any other is this operation's own."""
        self._value = self._error = None
        try:
            self._value = self.function(connection)
        except sqlite3.Error:
            raise
        except Exception as exc:
            self._error = exc

    def fail(self, error: Exception) -> None:
        """Let this be what came of it."""
        self._error = error

    def result(self) -> T:
        """What came of it."""
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]


class SQLiteStore:
    """An outbox in a file; see :class:`Store`."""

    def __init__(
        self, connection: sqlite3.Connection, path: str, config: OutboxConfig, clock: Callable[[], float] = time.time
    ) -> None:
        self._connection: Final = connection
        self._path: Final = path
        self._config: Final = config
        self._clock: Final = clock
        self._waiting: deque[_Operation[Any]] = deque()
        self._turn: Final = trio.Lock()
        self._is_closed = False
        self._changed = trio.Event()
        self._seen = _data_version(connection)  # SQLite's number of the latest change by others

    def __repr__(self) -> str:
        return f"<SQLiteStore {self._path}>"

    # -- the thread

    async def _write(self, function: Callable[[sqlite3.Connection], T]) -> T:
        return await self._do(_Operation(function, writes=True))

    async def _read(self, function: Callable[[sqlite3.Connection], T]) -> T:
        return await self._do(_Operation(function, writes=False))

    async def _do(self, operation: _Operation[T]) -> T:
        """Have it done, with all that wait by then. Cancelled before it is begun, it is not done."""
        self._waiting.append(operation)
        try:
            async with self._turn:
                if self._is_closed:
                    raise StoreError(f"the outbox {self._path} is closed")
                if not operation.is_done:
                    await self._run_next_group()
        except trio.Cancelled:
            if operation in self._waiting:
                self._waiting.remove(operation)
            raise
        return operation.result()

    async def _run_next_group(self) -> None:
        await trio.lowlevel.cancel_shielded_checkpoint()  # what is about to ask as well shares the group
        group = [self._waiting.popleft() for _ in range(min(_GROUP, len(self._waiting)))]
        with trio.CancelScope(shield=True):  # a thread cannot be stopped, and its answers are true
            is_changed = await trio.to_thread.run_sync(self._run_group, group)
        for operation in group:
            operation.is_done = True
        if is_changed:
            self._ring()

    def _run_group(self, group: list[_Operation[Any]]) -> bool:
        before = self._connection.total_changes
        for operation in group:
            if not operation.writes:
                self._run_alone(operation)
        writes = [operation for operation in group if operation.writes]
        try:
            if writes:
                self._run_transaction(writes)
        except sqlite3.Error:
            for operation in writes:
                self._run_alone(operation)
        return self._connection.total_changes != before

    def _run_alone(self, operation: _Operation[Any]) -> None:
        try:
            if operation.writes:
                self._run_transaction([operation])
            else:
                operation.run(self._connection)
        except sqlite3.Error as exc:
            operation.fail(_store_error(self._path, exc))

    def _run_transaction(self, group: list[_Operation[Any]]) -> None:
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            for operation in group:
                operation.run(connection)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    async def aclose(self) -> None:
        """Wait for what is being done, and close the file. What is asked of the store later is a StoreError."""
        async with self._turn:
            self._is_closed = True
            await trio.to_thread.run_sync(self._connection.close)

    # -- changes

    def bell(self) -> trio.Event:
        return self._changed

    async def wait(self, bell: trio.Event, seconds: float) -> None:
        await trio.lowlevel.checkpoint()
        with trio.move_on_after(seconds):
            while not bell.is_set():
                number = await self._read(_data_version)  # it counts what others have changed
                if number != self._seen:
                    self._seen = number
                    self._ring()
                with trio.move_on_after(_POLL):
                    await bell.wait()

    def _ring(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    # -- records

    async def add(self, record: Record, content: bytes) -> tuple[str, bool]:
        return await self._write(lambda connection: add(connection, record, content, self._clock()))

    async def take(self, worker: str, limit: int, transition: Transition) -> list[tuple[Record, bytes]]:
        return await self._write(lambda connection: self._take(connection, limit, transition))

    def _take(self, connection: sqlite3.Connection, limit: int, transition: Transition) -> list[tuple[Record, bytes]]:
        now = self._clock()
        connection.execute("UPDATE outbox_entries SET shelf = 'ready' WHERE shelf = 'later' AND at <= ?", (now,))
        rows = connection.execute(
            "SELECT record, version FROM outbox_entries WHERE shelf = 'leased' AND at <= ? ORDER BY at LIMIT ?",
            (now, limit),
        ).fetchall()
        rows += connection.execute(
            "SELECT record, version FROM outbox_entries WHERE shelf = 'ready' ORDER BY priority DESC, place LIMIT ?",
            (limit - len(rows),),
        ).fetchall()
        changed = [transition(from_json(*row), now) for row in rows]
        taken = [self._replace(connection, record, now) for record in changed]
        return [(record, _content(connection, record) if record.sending else b"") for record in taken]

    async def change(self, record: Record, transition: Transition) -> Record:
        return await self._write(lambda connection: self._change(connection, record, transition))

    def _change(self, connection: sqlite3.Connection, known: Record, transition: Transition) -> Record:
        now = self._clock()
        row = connection.execute("SELECT version FROM outbox_entries WHERE id = ?", (known.id,)).fetchone()
        record = known if row == (known.version,) else _load(connection, known.id)
        changed = transition(record, now)
        return record if changed == record else self._replace(connection, changed, now)

    def _replace(self, connection: sqlite3.Connection, record: Record, now: float) -> Record:
        """Write a record whose version was looked at in this transaction, and its companions."""
        companions = [] if record.companions is None else record.companions(_content(connection, record))
        shelf, at, patience = _placed(record, now, self._config.lease)
        connection.execute(
            "UPDATE outbox_entries SET state = ?, shelf = ?, at = ?, patience = ?, claim = ?, version = version + 1,"
            " record = ? WHERE id = ?",
            (record.state, shelf, at, patience, record.claim, to_json(record), record.id),
        )
        for companion, content in companions:
            add(connection, companion, content, now)
        if shelf == Shelf.DONE:
            connection.execute("DELETE FROM outbox_contents WHERE id = ?", (record.id,))
        return next_version(record)

    async def renew(self, records: Sequence[Record], worker: str) -> None:
        claims = [(record.id, record.claim) for record in records]
        lease = self._config.lease

        def renew(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "UPDATE outbox_entries SET at = ?, patience = ? WHERE id = ? AND claim = ? AND shelf = 'leased'",
                [(self._clock() + lease, lease, *claim) for claim in claims],
            )

        await self._write(renew)

    async def load(self, entry_id: str) -> Record:
        return await self._read(lambda connection: _load(connection, entry_id))

    async def page(self, state: State | None, after: int, limit: int) -> list[tuple[int, Record]]:
        which, values = ("state = ? AND ", (state,)) if state is not None else ("", ())

        def page(connection: sqlite3.Connection) -> list[tuple[int, Record]]:
            rows = connection.execute(
                f"SELECT place, record, version FROM outbox_entries WHERE {which}place > ? ORDER BY place LIMIT ?",
                (*values, after, limit),
            )
            return [(place, from_json(text, version)) for place, text, version in rows]

        return await self._read(page)

    async def counts(self) -> Mapping[State, int]:
        def counts(connection: sqlite3.Connection) -> dict[State, int]:
            rows = connection.execute("SELECT state, count(*) FROM outbox_entries GROUP BY state")
            return {State(state): number for state, number in rows}

        return await self._read(counts)

    async def admit(self, limits: Mapping[str, Limit]) -> float:
        def ask(connection: sqlite3.Connection) -> float:
            row = connection.execute("SELECT value FROM outbox_meta WHERE name = 'starts'").fetchone()
            starts, delay = admit(starts_from_json(None if row is None else row[0]), limits, self._clock())
            connection.execute(
                "INSERT OR REPLACE INTO outbox_meta (name, value) VALUES ('starts', ?)", (starts_to_json(starts),)
            )
            return delay

        return await self._write(ask)

    async def prune(self) -> None:
        def prune(connection: sqlite3.Connection) -> None:
            now = self._clock()
            connection.execute(
                "DELETE FROM outbox_entries WHERE shelf = 'done' AND at <= ?", (now - self._config.keep_done,)
            )
            for shelf in ("leased", "later"):
                connection.execute(
                    "UPDATE outbox_entries SET at = ? + patience WHERE shelf = ? AND at > ? + patience + 1",
                    (now, shelf, now),
                )

        await self._write(prune)

    async def time(self) -> float:
        await trio.lowlevel.checkpoint()
        return self._clock()


def add(connection: sqlite3.Connection, record: Record, content: bytes, now: float) -> tuple[str, bool]:
    """Insert a record and its content, in the transaction that is open; if its key is known, nothing."""
    if record.key is not None:
        row = connection.execute("SELECT id FROM outbox_entries WHERE key = ?", (record.key,)).fetchone()
        if row is not None:
            return row[0], False
    _, at, _ = _placed(record, now, 0.0)
    shelf = "ready" if at <= now else "later"
    connection.execute(
        "INSERT INTO outbox_entries (id, key, state, shelf, at, priority, claim, version, record)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, 1, ?)",
        (record.id, record.key, record.state, shelf, at, record.priority, record.claim, to_json(record)),
    )
    connection.execute("INSERT INTO outbox_contents VALUES (?, ?)", (record.id, content))
    return record.id, True


def _placed(record: Record, now: float, lease: float) -> tuple[str, float, float | None]:
    """The row's shelf, its time, and how long it is meant to stay."""
    shelf, at = record.shelf()
    if shelf is Shelf.LEASED:
        return shelf, now + lease, lease
    if shelf is Shelf.WAITING:
        return "later", at, max(0.0, at - now)
    return shelf, at, None


def _content(connection: sqlite3.Connection, record: Record) -> bytes:
    row = connection.execute("SELECT content FROM outbox_contents WHERE id = ?", (record.id,)).fetchone()
    if row is None:
        raise StoreError(f"the outbox is damaged: it has no content of {record.id!r}")
    return bytes(row[0])


def _load(connection: sqlite3.Connection, entry_id: str) -> Record:
    row = connection.execute("SELECT record, version FROM outbox_entries WHERE id = ?", (entry_id,)).fetchone()
    if row is None:
        raise LookupError(f"the outbox has no entry {entry_id!r}")
    return from_json(*row)


def _data_version(connection: sqlite3.Connection) -> int:
    (number,) = connection.execute("PRAGMA data_version").fetchone()
    return int(number)


@contextmanager
def _as_store_error(path: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as exc:
        raise _store_error(path, exc) from exc


def _store_error(path: str, error: sqlite3.Error) -> StoreError:
    words = str(error)
    if isinstance(error, sqlite3.DatabaseError) and ("malformed" in words or "not a database" in words):
        words = f"it is damaged, or no outbox: {words}"
    wrapped = StoreError(f"cannot use the outbox {path}: {words}")
    wrapped.__cause__ = error
    return wrapped
