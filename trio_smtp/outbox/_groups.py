# Groups of operations on one SQLite connection: those that wait share one transaction, and one sync (group commit).
#
# The connection is used in a worker thread, one group at a time. The first who asks leads: its task has the group run,
# wakes the others of the group with their answers, and hands the lead to the first of those that have come meanwhile.
# No answer is given before the commit.
#
# An operation writes after it has decided, so that one that fails leaves nothing behind. A group whose writing fails is
# rolled back and done again one by one, so that a message that is too large for the disk, or for the memory, does not
# keep others from being settled.
from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Any, Final, Generic, TypeVar

import trio

from ._errors import StoreError

_MOST: Final = 200  # operations in one transaction
_SIZE: Final = 1 << 20  # octets of content in one transaction: a large message does not delay those that came before it
_GATHER: Final = 2  # scheduler passes before a group is closed: what is about to ask as well shares it

T = TypeVar("T")


class Writes(Enum):
    """Whether an operation needs a transaction."""

    NOTHING = "it only reads"
    ROWS = "it writes"


class _Phase(Enum):
    WAITING = "it may be withdrawn"
    BEGUN = "it is being done"
    DONE = "there is an answer"


class _Operation(Generic[T]):
    """Something to do with the connection, and what came of it."""

    __slots__ = ("_error", "_value", "function", "phase", "size", "task", "writes")

    def __init__(self, function: Callable[[sqlite3.Connection], T], writes: Writes, size: int) -> None:
        self.function: Final = function
        self.writes: Final = writes
        self.size: Final = size
        self.phase = _Phase.WAITING
        self.task: trio.lowlevel.Task | None = None  # who waits for it
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

    @property
    def has_failed(self) -> bool:
        """Whether what came of it is an error."""
        return self._error is not None

    def wake(self) -> None:
        """Let the task that waits go on."""
        if self.task is not None:
            trio.lowlevel.reschedule(self.task)
            self.task = None

    def result(self) -> T:
        """What came of it."""
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]


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
        self._waiting: deque[_Operation[Any]] = deque()
        self._is_led = False  # a task has a group run, or is about to
        self._is_closed = False

    async def do(self, function: Callable[[sqlite3.Connection], T], writes: Writes, size: int = 0) -> T:
        """Call the function in the thread, with all that wait by then; if it writes, in a transaction.

        Args:
            function: what it raises is raised here; an error of SQLite as StoreError.
            writes: whether it does.
            size: about how many octets.

        Raises:
            StoreError: it was closed, or the file could not be used.

        Cancellation: before it is begun, it is withdrawn. Once it is begun, its answer is waited for.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._is_closed:
            raise StoreError(f"the outbox {self._path} is closed")
        return await self._do(_Operation(function, writes, size))

    async def aclose(self) -> None:
        """Do what was asked for, and close the connection. What is asked later is a StoreError."""
        self._is_closed = True
        await self._do(_Operation(lambda connection: None, Writes.NOTHING, 0))
        await trio.to_thread.run_sync(self._connection.close)

    @trio.lowlevel.enable_ki_protection  # an interrupt while it leads would leave the others without a leader
    async def _do(self, operation: _Operation[T]) -> T:
        self._waiting.append(operation)
        if self._is_led:
            await self._wait(operation)
        if operation.phase is _Phase.WAITING:
            self._is_led = True
            await self._lead()
        return operation.result()

    async def _wait(self, operation: _Operation[Any]) -> None:
        """Until there is an answer, or the lead is this task's."""

        def abort(_: object) -> trio.lowlevel.Abort:
            if operation.phase is not _Phase.WAITING:
                return trio.lowlevel.Abort.FAILED
            self._waiting.remove(operation)
            return trio.lowlevel.Abort.SUCCEEDED

        operation.task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(abort)

    async def _lead(self) -> None:
        """Have a group run, of which this task's operation is the first."""
        is_changed = False
        for _ in range(_GATHER):
            await trio.lowlevel.cancel_shielded_checkpoint()
        group = self._next_group()
        try:
            with trio.CancelScope(shield=True):  # a thread cannot be stopped, and its answers are true
                is_changed = await trio.to_thread.run_sync(self._run, group, limiter=self._limiter)
        except Exception as exc:  # none that an operation raises: there is no thread, or no way back
            self._fail(group, exc)
        except BaseException as exc:
            self._fail(group, exc)
            raise
        finally:
            for operation in group:
                operation.phase = _Phase.DONE
                operation.wake()
            if self._waiting:
                self._waiting[0].wake()
            else:
                self._is_led = False
        if is_changed:
            self._on_change()

    def _fail(self, group: list[_Operation[Any]], error: BaseException) -> None:
        for operation in group:
            operation.fail(StoreError(f"cannot use the outbox {self._path}: {error!r}"))

    def _next_group(self) -> list[_Operation[Any]]:
        group: list[_Operation[Any]] = []
        size = 0
        while self._waiting and len(group) < _MOST:
            size += self._waiting[0].size
            if group and size > _SIZE:
                break
            operation = self._waiting.popleft()
            operation.phase = _Phase.BEGUN
            group.append(operation)
        return group

    # -- in the thread

    def _run(self, group: list[_Operation[Any]]) -> bool:
        """Whether anything was changed."""
        before = self._connection.total_changes
        writes = []
        for operation in group:
            if operation.writes is Writes.ROWS:
                writes.append(operation)
            else:
                self._run_alone(operation)
        if writes:
            self._write(writes)
        return self._connection.total_changes != before

    def _run_alone(self, operation: _Operation[Any]) -> None:
        try:
            operation.run(self._connection)
        except sqlite3.Error as exc:
            operation.fail(store_error(self._path, exc))

    def _write(self, group: list[_Operation[Any]]) -> None:
        connection = self._connection
        try:
            self._roll_back()  # what could not be, the last time
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as exc:  # another process has not ended its transaction, for example
            for operation in group:
                operation.fail(store_error(self._path, exc))
            return
        try:
            is_whole = self._are_whole(group)
            if is_whole:
                connection.execute("COMMIT")
            else:
                self._roll_back()
        except sqlite3.Error as exc:
            self._roll_back()
            is_whole = False
            if len(group) == 1:
                group[0].fail(store_error(self._path, exc))
        except BaseException:
            self._roll_back()
            raise
        if not is_whole and len(group) > 1:
            for operation in group:
                self._write([operation])

    def _are_whole(self, group: list[_Operation[Any]]) -> bool:
        """Do them. Whether none has failed halfway: it may have been short of memory, for example."""
        for operation in group:
            before = self._connection.total_changes
            operation.run(self._connection)
            if operation.has_failed and self._connection.total_changes != before:
                return False
        return True

    def _roll_back(self) -> None:
        if self._connection.in_transaction:  # SQLite has done it by itself after some errors
            self._connection.execute("ROLLBACK")


def store_error(path: str, error: sqlite3.Error) -> StoreError:
    """What the outbox raises for an error of SQLite."""
    words = str(error)
    if isinstance(error, sqlite3.DatabaseError) and ("malformed" in words or "not a database" in words):
        words = f"it is damaged, or no outbox: {words}"
    wrapped = StoreError(f"cannot use the outbox {path}: {words}")
    wrapped.__cause__ = error
    return wrapped
