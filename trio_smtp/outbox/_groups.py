# Groups of operations on one SQLite connection: those that wait share one transaction, and one sync (group commit).
#
# The connection is used in a worker thread, one group at a time (_combine.py). No answer is given before the commit.
#
# An operation writes after it has decided, so that one that fails leaves nothing behind. A group whose writing fails is
# rolled back and done again one by one, so that a message that is too large for the disk, or for the memory, does not
# keep others from being settled.
from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Final, Generic, NamedTuple, NoReturn, TypeVar

import trio

from ._combine import Combiner, Request
from ._errors import StoreError
from ._rows import Row, RowsStatement, write_all

_MOST: Final = 200  # operations in one transaction
_SIZE: Final = 1 << 20  # octets of content in one transaction
FAILURES: Final = (sqlite3.Error, MemoryError)  # of SQLite, which raises the second where it is short of memory

T = TypeVar("T")


class Writes(Enum):
    """Whether an operation needs a transaction."""

    NOTHING = "it only reads"
    ROWS = "it writes"


class Bulk(NamedTuple, Generic[T]):
    """What an operation comes to if all is as expected: rows that are written together with those of others.

    Attributes:
        rows: each of them, with its statement.
        answer: then.
    """

    rows: tuple[tuple[RowsStatement, Row], ...]
    answer: T


class Operation(Generic[T]):
    """Something to do with the connection, and what came of it: a value or an error.

    Args:
        function: does it.
        bulk: does it too, if every one of its rows can be written.
    """

    __slots__ = ("answer", "bulk", "function")

    answer: T | Exception

    def __init__(self, function: Callable[[sqlite3.Connection], T], bulk: Bulk[T] | None = None) -> None:
        self.function: Final = function
        self.bulk: Final = bulk

    def run(self, connection: sqlite3.Connection) -> None:
        """Do it. An error of SQLite is raised, since it is the group's; any other is this operation's own."""
        try:
            self.answer = self.function(connection)
        except FAILURES:
            raise
        except Exception as exc:
            self.answer = exc


class _Operations(Request):
    """Operations that one task waits for."""

    __slots__ = ("operations", "writes")

    def __init__(self, operations: Sequence[Operation[Any]], writes: Writes, size: int) -> None:
        super().__init__(len(operations), size)
        self.operations: Final = operations
        self.writes: Final = writes


class Groups:
    """The operations on one connection.

    Args:
        connection: in autocommit mode.
        path: for messages.
        on_change: called in the loop after a group that has changed something.
    """

    def __init__(self, connection: sqlite3.Connection, path: str, on_change: Callable[[], None]) -> None:
        self._connection: Final = connection
        self._path: Final = path
        self._on_change: Final = on_change
        self._limiter: Final = trio.CapacityLimiter(1)  # its own: the program's threads do not delay it
        self._combiner: Final[Combiner[_Operations]] = Combiner(self._run_in_thread, _MOST, _SIZE)
        self._is_closed = False

    async def do(self, function: Callable[[sqlite3.Connection], T], writes: Writes, size: int = 0) -> T:
        """:meth:`run` an operation that is no more than this function."""
        return await self.run(Operation(function), writes, size)

    async def run(self, operation: Operation[T], writes: Writes, size: int = 0) -> T:
        """Do an operation in the thread, with all that wait by then; if it writes, in a transaction.

        Args:
            operation: what it raises is raised here; an error of SQLite, or a lack of memory, as StoreError.
            writes: whether it does.
            size: about how many octets.

        Raises:
            StoreError: it was closed, or the file could not be used.

        Cancellation: before it is begun, it is withdrawn. Once it is begun, its answer is waited for.
        """
        if self._is_closed:
            await self._refuse()
        await self._combiner.ask(_Operations((operation,), writes, size))
        answer = operation.answer
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def do_all(self, operations: Sequence[Operation[T]]) -> list[T | Exception]:
        """The same of several that write: what each returns, or raises, which hurts no other."""
        if self._is_closed:
            await self._refuse()
        await self._combiner.ask(_Operations(operations, Writes.ROWS, 0))
        return [operation.answer for operation in operations]

    async def _refuse(self) -> NoReturn:
        await trio.lowlevel.checkpoint()
        raise StoreError(f"the outbox {self._path} is closed")

    async def aclose(self) -> None:
        """Do what was asked for, and close the connection. What is asked later is a StoreError."""
        self._is_closed = True
        await self._combiner.ask(_Operations((), Writes.NOTHING, 0))
        await trio.to_thread.run_sync(self._connection.close)

    async def _run_in_thread(self, group: list[_Operations]) -> None:
        """Do a group: a thread cannot be stopped, and its answers are true."""
        try:
            is_changed = await trio.to_thread.run_sync(self._run, group, limiter=self._limiter)
        except Exception as exc:  # none that an operation raises: there is no thread, or no way back
            self._fail(group, exc)
            return
        except BaseException as exc:
            self._fail(group, exc)
            raise
        if is_changed:
            self._on_change()

    def _fail(self, group: list[_Operations], error: BaseException) -> None:
        for request in group:
            for operation in request.operations:
                operation.answer = StoreError(f"cannot use the outbox {self._path}: {error!r}")

    # -- in the thread

    def _run(self, group: list[_Operations]) -> bool:
        """Whether anything was changed."""
        before = self._connection.total_changes
        writes: list[Operation[Any]] = []
        for request in group:
            if request.writes is Writes.ROWS:
                writes += request.operations
            else:
                for operation in request.operations:
                    self._run_alone(operation)
        if writes:
            self._write(writes)
        return self._connection.total_changes != before

    def _run_alone(self, operation: Operation[Any]) -> None:
        try:
            operation.run(self._connection)
        except FAILURES as exc:
            operation.answer = store_error(self._path, exc)

    def _write(self, group: list[Operation[Any]]) -> None:
        """Do them in one transaction, or, if that fails, each in its own."""
        if not self._begin(group) or self._do_together(group) or len(group) == 1:
            return
        for number, operation in enumerate(group):
            if not self._begin(group[number:]):  # to wait for each of them again could take very long
                return
            self._do_together([operation])

    def _begin(self, group: Sequence[Operation[Any]]) -> bool:
        """Begin a transaction; if there is none to be had, that is the answer of all of them."""
        try:
            self._roll_back()  # what could not be, the last time
            self._connection.execute("BEGIN IMMEDIATE")
        except FAILURES as exc:  # another process has not ended its transaction, for example
            for operation in group:
                operation.answer = store_error(self._path, exc)
            return False
        return True

    def _do_together(self, group: Sequence[Operation[Any]]) -> bool:
        """Do them in the transaction that was begun, and end it. Whether they were done: all of them, or none."""
        try:
            if self._are_whole(group):
                self._connection.execute("COMMIT")
                return True
        except FAILURES as exc:
            if len(group) == 1:
                group[0].answer = store_error(self._path, exc)
        except BaseException:
            self._roll_back()
            raise
        self._roll_back()
        return False

    def _are_whole(self, group: Sequence[Operation[Any]]) -> bool:
        """Do them. Whether none has failed halfway: what it calls may have raised, for example."""
        for operation in self._write_in_bulk(group):
            before = self._connection.total_changes
            operation.run(self._connection)
            if isinstance(operation.answer, Exception) and self._connection.total_changes != before:
                return False
        return True

    def _write_in_bulk(self, group: Sequence[Operation[Any]]) -> Sequence[Operation[Any]]:
        """Do what can be done in bulk; the others, all of them if something is not as expected."""
        bulk = [(operation, operation.bulk) for operation in group if operation.bulk is not None]
        if len(bulk) < 2:
            return group
        self._connection.execute("SAVEPOINT bulk")
        if not write_all(self._connection, (row for _, each in bulk for row in each.rows)):
            self._connection.execute("ROLLBACK TO bulk")
            return group
        for operation, each in bulk:
            operation.answer = each.answer
        return [operation for operation in group if operation.bulk is None]

    def _roll_back(self) -> None:
        if self._connection.in_transaction:  # SQLite has done it by itself after some errors
            self._connection.execute("ROLLBACK")


def store_error(path: str, error: Exception, about: str = "") -> StoreError:
    """What the outbox raises for an error of SQLite, or another; `about` comes before what that says."""
    words = str(error) or type(error).__name__
    if isinstance(error, sqlite3.DatabaseError) and ("malformed" in words or "not a database" in words):
        words = f"it is damaged, or no outbox: {words}"
    wrapped = StoreError(f"cannot use the outbox {path}: {about}{words}")
    wrapped.__cause__ = error
    return wrapped
