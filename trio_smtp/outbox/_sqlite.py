# The store in SQLite: for any number of tasks and processes on one machine. It needs nothing but Python.
#
# What a record is to be is decided in the task that asks, from the record that it knows; in the transaction stands only
# what writes it down, if its version is still the one that was known (compare and swap). If it is not, the record is
# read and the change decided again, in the transaction. So a change is atomic, and what keeps others from writing is
# short. The file is that of _schema.py, the transactions are those of _groups.py.
#
# The clock is the system's.
from __future__ import annotations

import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

import trio

from . import _schema
from ._config import OutboxConfig
from ._damage import DamageError, Kept, Page, claimed, examined, not_damaged, page_of, read, set_aside_error
from ._errors import DamagedEntry, StoreError
from ._groups import Bulk, Groups, Operation, Writes, store_error
from ._kept import begun_to_json, marked_to_json, to_json
from ._rates import Limit, admit
from ._rates import from_json as starts_from_json
from ._rates import to_json as starts_to_json
from ._rows import Row, RowsStatement, write_all
from ._schema import data_version, open_connection
from ._states import Begun, Companions, Marked, Record, Shelf, State, Transition, stored

_POLL: Final = 0.1  # seconds between looks for what other processes have changed


@asynccontextmanager
async def open_sqlite(path: str, config: OutboxConfig) -> AsyncIterator[SQLiteStore]:
    """Open the file, and make it an outbox if it is none yet.

    Raises:
        StoreError: it cannot be opened, is damaged, or is of another version.
    """
    try:
        connection = await trio.to_thread.run_sync(open_connection, path)
    except sqlite3.Error as exc:
        raise store_error(path, exc) from exc
    store = SQLiteStore(connection, path, config)
    try:
        yield store
    finally:
        with trio.CancelScope(shield=True):
            await store.aclose()


class SQLiteStore:
    """An outbox in a file; see :class:`Store`."""

    def __init__(
        self, connection: sqlite3.Connection, path: str, config: OutboxConfig, clock: Callable[[], float] = time.time
    ) -> None:
        self._path: Final = path
        self._config: Final = config
        self._clock: Final = clock
        self._groups: Final = Groups(connection, path, self._ring)
        self._changed = trio.Event()
        self._seen = data_version(connection)

    def __repr__(self) -> str:
        return f"<SQLiteStore {self._path}>"

    async def aclose(self) -> None:
        """Wait for what is being done, and close the file. What is asked of the store later is a StoreError."""
        await self._groups.aclose()

    # -- changes

    def bell(self) -> trio.Event:
        return self._changed

    async def wait(self, bell: trio.Event, seconds: float) -> None:
        await trio.lowlevel.checkpoint()
        with trio.move_on_after(seconds):
            while not bell.is_set():
                number = await self._groups.do(data_version, Writes.NOTHING)  # it counts what others have changed
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
        row = new_row(record, self._clock())
        rows = (_schema.INSERT, row), (_schema.INSERT_CONTENT, (record.id, content))
        operation = Operation(lambda connection: insert(connection, row, content), Bulk(rows, (record.id, True)))
        return await self._groups.run(operation, Writes.ROWS, len(content))

    async def take(self, worker: str, limit: int, transition: Transition) -> list[tuple[Record, bytes]]:
        taken, error = await self._groups.do(lambda connection: self._take(connection, limit, transition), Writes.ROWS)
        if error is not None:
            raise error
        return taken

    def _take(
        self, connection: sqlite3.Connection, limit: int, transition: Transition
    ) -> tuple[list[tuple[Record, bytes]], StoreError | None]:
        """What was taken; or what there is no taking of: that is put out of the way, and the rest not taken yet."""
        now = self._clock()
        connection.execute(_schema.RIPEN, (now,))
        rows = connection.execute(_schema.FIND_LAPSED, (now, limit)).fetchall()
        if len(rows) < limit:
            rows += connection.execute(_schema.FIND_READY, (limit - len(rows),)).fetchall()
        changes: list[tuple[_Change, bytes]] = []
        damage: list[DamagedEntry] = []
        for entry_id, *kept, content in rows:
            try:
                known, record = claimed(*kept, content=content, transition=transition, now=now)
                changes.append((_Change(known, record, now, self._config.lease), content or b""))
            except DamageError as exc:
                damage.append(DamagedEntry(entry_id, str(exc)))
        if damage:
            connection.executemany(_schema.SET_ASIDE, [(each.id,) for each in damage])
            return [], set_aside_error(self._path, damage)
        with_others = [change for change, _ in changes if not change.is_alone]
        if with_others and (error := self._write_taken(connection, with_others)):
            return [], error
        write_all(connection, (row for change, _ in changes if change.is_alone for row in change.rows))
        return [(change.record, content) for change, content in changes], None

    def _write_taken(self, connection: sqlite3.Connection, changes: list[_Change]) -> StoreError | None:
        """Write changes with what comes into the outbox by them; if one fails, none: that one waits as a lease does."""
        connection.execute("SAVEPOINT taken")
        for change in changes:
            try:
                change.write(connection)
            except Exception as exc:  # a report that there is no room for, for example
                connection.execute("ROLLBACK TO taken")
                until = self._clock() + self._config.lease
                connection.execute(_schema.PUT_OFF, (until, self._config.lease, change.record.id))
                return store_error(self._path, exc, f"entry {change.record.id} is put off: ")
        return None

    async def change(self, record: Record, transition: Transition) -> Record:
        return await self._groups.run(self._changing(record, transition), Writes.ROWS)

    async def change_all(self, changes: Sequence[tuple[Record, Transition]]) -> list[Record | Exception]:
        return await self._groups.do_all([self._changing(record, transition) for record, transition in changes])

    def _changing(self, record: Record, transition: Transition) -> Operation[Record]:
        """What makes a change, in a transaction; it is decided now, for the record as it is known."""
        try:
            expected = self._decide(record, transition)
        except Exception:  # of the record as it was known: what is there now may be another
            expected = None

        def change(connection: sqlite3.Connection) -> Record:
            if expected is not None and expected.write(connection):
                return expected.record
            current = _load(connection, record.id)
            changed = self._decide(current, transition)
            if changed is None:
                return current
            changed.write(connection)
            return changed.record

        bulk = Bulk(expected.rows, expected.record) if expected is not None and expected.is_alone else None
        return Operation(change, bulk)

    def _decide(self, known: Record, transition: Transition) -> _Change | None:
        """What a change makes of this record; ``None``: nothing."""
        now = self._clock()
        changed = transition(known, now)
        return None if changed == known else _Change(known, changed, now, self._config.lease)

    async def renew(self, records: Sequence[Record], worker: str) -> None:
        claims = [(record.id, record.claim) for record in records]
        lease = self._config.lease

        def renew(connection: sqlite3.Connection) -> None:
            until = self._clock() + lease
            connection.executemany(_schema.RENEW, [(until, lease, *claim) for claim in claims])

        await self._groups.do(renew, Writes.ROWS)

    async def load(self, entry_id: str) -> Record:
        return await self._groups.do(lambda connection: _load(connection, entry_id), Writes.NOTHING)

    async def page(self, state: State | None, after: int, limit: int) -> Page:
        statement = _schema.PAGE if state is None else _schema.PAGE_OF_STATE
        values = (after, limit) if state is None else (after, state, limit)
        return await self._groups.do(lambda connection: page_of(connection.execute(statement, values)), Writes.NOTHING)

    async def counts(self) -> Mapping[State, int]:
        def counts(connection: sqlite3.Connection) -> dict[State, int]:
            found = dict(connection.execute(_schema.COUNT))
            return {state: found[state] for state in State if state in found}  # a damaged one may be in none

        return await self._groups.do(counts, Writes.NOTHING)

    async def forget(self, entry_id: str) -> None:
        def forget(connection: sqlite3.Connection) -> None:
            try:
                read(entry_id, *_find(connection, entry_id))
            except DamageError:
                _schema.DELETE_CONTENT.write(connection, [(entry_id,)])
                connection.execute(_schema.FORGET_ONE, (entry_id,))
            else:
                raise not_damaged(entry_id)

        await self._groups.do(forget, Writes.ROWS)

    async def admit(self, limits: Mapping[str, Limit]) -> float:
        def ask(connection: sqlite3.Connection) -> float:
            row = connection.execute(_schema.STARTS).fetchone()
            starts, delay = admit(starts_from_json(None if row is None else row[0]), limits, self._clock())
            connection.execute(_schema.SET_STARTS, (starts_to_json(starts),))
            return delay

        return await self._groups.do(ask, Writes.ROWS)

    async def prune(self) -> None:
        def prune(connection: sqlite3.Connection) -> None:
            now = self._clock()
            connection.execute(_schema.FORGET, (now - self._config.keep_done,))
            connection.execute(_schema.DELAY_ANEW, {"now": now})
            connection.execute(_schema.LEASE_ANEW, {"now": now})

        await self._groups.do(prune, Writes.ROWS)

    async def time(self) -> float:
        await trio.lowlevel.checkpoint_if_cancelled()  # what is asked next waits
        return self._clock()


class _Change:
    """A record that takes the place of the one that was known, or the step that leads to it.

    Attributes:
        record: as it is once it is written.
        rows: what is written; the first, only if the record is still the known one.
    """

    __slots__ = ("_now", "_version", "record", "rows")

    rows: tuple[tuple[RowsStatement, Row], ...]

    def __init__(self, known: Record, record: Record, now: float, lease: float) -> None:
        self._now: Final = now
        self._version: Final = known.version
        self.record: Final = stored(record)
        which = record.id, known.version
        step = record.step
        if isinstance(step, Marked):
            self.rows = ((_schema.MARK, (marked_to_json(step), *which)),)
        elif isinstance(step, Begun):
            row: Row = (now + lease, lease, record.claim, begun_to_json(step), *which)
            self.rows = ((_schema.CLAIM, row),)
        else:
            shelf, at = record.shelf()
            patience: float | None = None
            row_shelf = str(shelf)
            if shelf is Shelf.LEASED:
                at, patience = now + lease, lease
            elif shelf is Shelf.WAITING:
                row_shelf, patience = "later", max(0.0, at - now)
            row = (record.state, row_shelf, at, patience, record.claim, to_json(record), *which)
            self.rows = ((_schema.MOVE, row),)
            if shelf is Shelf.DONE:
                self.rows += ((_schema.DELETE_CONTENT, (record.id,)),)

    @property
    def is_alone(self) -> bool:
        """Nothing comes into the outbox with it."""
        return self.record.companions is None

    def write(self, connection: sqlite3.Connection) -> bool:
        """Write it and its companions, in the transaction that is open; whether the record was still the known one."""
        companions = () if self.record.companions is None else self._companions(connection, self.record.companions)
        first, *others = self.rows
        is_current = write_all(connection, [first])
        if is_current:
            write_all(connection, others)
            for row, content in companions:
                insert(connection, row, content)
        return is_current

    def _companions(self, connection: sqlite3.Connection, companions: Companions) -> list[tuple[Row, bytes]]:
        """The rows of what comes into the outbox with the change, made before anything is written."""
        found = connection.execute(_schema.FIND_CONTENT, (self.record.id,)).fetchone()
        version, content = found or (None, None)
        if version != self._version:
            return []
        return [(new_row(record, self._now), each) for record, each in companions(content or b"")]


def new_row(record: Record, now: float) -> Row:
    """What :func:`insert` takes for a record that is put now."""
    _, at = record.shelf()
    shelf = "ready" if at <= now else "later"
    return (record.id, record.key, record.state, shelf, at, record.priority, record.claim, to_json(record))


def insert(connection: sqlite3.Connection, row: Row, content: bytes) -> tuple[str, bool]:
    """Insert a record and its content, in the transaction that is open; if its key is known, nothing.

    Returns:
        The id of the entry that is there now, and whether it is the new one.
    """
    entry_id, key = row[:2]
    if not _schema.INSERT.write(connection, [row]):
        (known,) = connection.execute(_schema.FIND_KEY, (key,)).fetchone()
        return known, False
    _schema.INSERT_CONTENT.write(connection, [(entry_id, content)])
    return str(entry_id), True


def _load(connection: sqlite3.Connection, entry_id: str) -> Record:
    kept, has_content = _find(connection, entry_id)
    try:
        return read(entry_id, kept, has_content)
    except DamageError as exc:
        (size,) = connection.execute(_schema.FIND_SIZE, (entry_id,)).fetchone() or (None,)
        raise examined(entry_id, kept, size, exc) from exc


def _find(connection: sqlite3.Connection, entry_id: str) -> tuple[Kept, int | None]:
    """What is kept of an entry, and, if it is set aside, whether its content is there."""
    row = connection.execute(_schema.LOAD, (entry_id,)).fetchone()
    if row is None:
        raise LookupError(f"the outbox has no entry {entry_id!r}")
    *kept, has_content = row
    return Kept(*kept), has_content
