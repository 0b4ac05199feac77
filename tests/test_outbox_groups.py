"""Groups of operations: one transaction for those that wait, answers after the commit, cancellation, and the end."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing

import pytest
import trio
import trio.testing

from trio_smtp.outbox import StoreError
from trio_smtp.outbox._groups import Groups, Operation, Writes


@pytest.fixture
def connection(tmp_path):
    connection = sqlite3.connect(tmp_path / "g.db", timeout=0.05, isolation_level=None, check_same_thread=False)
    with closing(connection):
        connection.execute("PRAGMA journal_mode = WAL").fetchone()
        connection.execute("CREATE TABLE t (name TEXT UNIQUE, room BLOB)")
        yield connection


@pytest.fixture
def changes():
    return []


@pytest.fixture
def groups(connection, changes):
    return Groups(connection, "g.db", lambda: changes.append(1))


def insert(name, size=0):
    return lambda connection: connection.execute("INSERT INTO t VALUES (?, ?)", (name, bytes(size))).rowcount


def names(connection):
    return {name for (name,) in connection.execute("SELECT name FROM t")}


@pytest.fixture
def words(connection):
    """The statements, as they are made."""
    said: list[str] = []
    connection.set_trace_callback(said.append)
    return said


def transactions(words):
    """The number of inserts in each."""
    found = []
    for each in words:
        if each.startswith("BEGIN"):
            found.append(0)
        elif each.startswith("INSERT"):
            found[-1] += 1
    return found


async def hold(groups, began, released):
    """Keep the thread busy."""

    def wait(connection):
        trio.from_thread.run_sync(began.set)
        released.wait()

    await groups.do(wait, Writes.NOTHING)


class Held:
    """The thread is busy until the block is left."""

    def __init__(self, groups, nursery):
        self._groups, self._nursery = groups, nursery
        self._began, self._released = trio.Event(), threading.Event()

    async def __aenter__(self):
        self._nursery.start_soon(hold, self._groups, self._began, self._released)
        await self._began.wait()

    async def __aexit__(self, *args):
        self._released.set()


async def test_those_that_ask_at_once_share_a_transaction(groups, words, changes):
    async with trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(groups.do, insert(f"n{number}"), Writes.ROWS)
    assert transactions(words) == [50]
    assert len(changes) == 1


async def test_those_that_come_while_a_group_is_written_share_the_next(groups, words):
    async with trio.open_nursery() as nursery, Held(groups, nursery):
        for number in range(30):
            nursery.start_soon(groups.do, insert(f"n{number}"), Writes.ROWS)
            await trio.testing.wait_all_tasks_blocked()
    assert transactions(words) == [30]


async def test_who_asks_again_at_once_shares_the_next_group_too(groups, words):
    async def ask(name):
        for step in range(4):
            await groups.do(insert(f"{name}-{step}"), Writes.ROWS)

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(ask, number)
    assert transactions(words) == [20] * 4


async def test_an_answer_comes_after_the_commit(groups, connection, tmp_path):
    with closing(sqlite3.connect(tmp_path / "g.db")) as other:
        seen = []

        async def ask(name):
            await groups.do(insert(name), Writes.ROWS)
            seen.append(name in names(other))

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(ask, f"n{number}")
    assert seen == [True] * 20


async def test_a_group_has_no_more_octets_than_one_large_message_needs(groups, words):
    async with trio.open_nursery() as nursery, Held(groups, nursery):
        for name, size in (("a", 10), ("b", 10), ("large", 2 << 20), ("c", 10), ("d", 2 << 20)):
            nursery.start_soon(groups.do, insert(name), Writes.ROWS, size)
            await trio.testing.wait_all_tasks_blocked()
    assert transactions(words) == [2, 1, 1, 1]


async def test_a_group_has_a_limit(groups, words):
    async with trio.open_nursery() as nursery:
        for number in range(450):
            nursery.start_soon(groups.do, insert(f"n{number}"), Writes.ROWS)
    assert transactions(words) == [200, 200, 50]


async def test_an_error_of_an_operation_is_its_own(groups, connection):
    def wrong(connection):
        raise LookupError("no")

    async def ask():
        with pytest.raises(LookupError, match="no"):
            await groups.do(wrong, Writes.ROWS)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(groups.do, insert("a"), Writes.ROWS)
        nursery.start_soon(ask)
        nursery.start_soon(groups.do, insert("b"), Writes.ROWS)
    assert names(connection) == {"a", "b"}


async def test_an_error_of_sqlite_is_that_of_the_one_who_made_it(groups, connection):
    async def ask():
        with pytest.raises(StoreError, match=r"g\.db.*UNIQUE"):
            await groups.do(insert("twice"), Writes.ROWS)

    await groups.do(insert("twice"), Writes.ROWS)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(groups.do, insert("a"), Writes.ROWS)
        nursery.start_soon(ask)
        nursery.start_soon(groups.do, insert("b"), Writes.ROWS)
    assert names(connection) == {"twice", "a", "b"}
    with pytest.raises(StoreError, match="no such table"):
        await groups.do(lambda connection: connection.execute("SELECT * FROM other"), Writes.NOTHING)


async def test_another_process_in_a_transaction_is_waited_for_once_by_the_whole_group(
    groups, connection, words, tmp_path
):
    errors = []

    async def ask(name):
        try:
            await groups.do(insert(name), Writes.ROWS)
        except StoreError as exc:
            errors.append(str(exc))

    with closing(sqlite3.connect(tmp_path / "g.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(ask, f"n{number}")
        other.execute("ROLLBACK")
    assert len(errors) == 20
    assert "locked" in errors[0]
    assert transactions(words) == [0]
    await groups.do(insert("later"), Writes.ROWS)
    assert names(connection) == {"later"}


async def test_cancelled_before_it_is_begun_it_is_not_done(groups, connection):
    async with trio.open_nursery() as nursery, Held(groups, nursery):
        with trio.CancelScope() as scope:
            nursery.start_soon(groups.do, insert("a"), Writes.ROWS)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(trio.testing.wait_all_tasks_blocked)
            scope.cancel()
            await groups.do(insert("cancelled at once"), Writes.ROWS)
        async with trio.open_nursery() as inner:
            inner.start_soon(groups.do, insert("withdrawn"), Writes.ROWS)
            await trio.testing.wait_all_tasks_blocked()
            inner.cancel_scope.cancel()
    assert scope.cancelled_caught
    assert names(connection) == {"a"}


async def test_cancelled_once_it_is_begun_it_has_its_answer(groups, connection):
    began, released = trio.Event(), threading.Event()

    def slow(connection):
        trio.from_thread.run_sync(began.set)
        released.wait()
        return insert("slow")(connection)

    answers = []

    async def ask(function):
        answers.append(await groups.do(function, Writes.ROWS))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, slow)
        nursery.start_soon(ask, insert("beside"))
        await began.wait()
        nursery.cancel_scope.cancel()
        await trio.lowlevel.cancel_shielded_checkpoint()
        released.set()
    assert answers == [1, 1]
    assert names(connection) == {"slow", "beside"}


async def test_a_failure_that_is_none_of_sqlite_leaves_nothing_behind_and_nobody_waiting(groups, connection):
    def broken(connection):
        insert("half")(connection)
        raise KeyboardInterrupt

    async def lead():
        with pytest.raises(KeyboardInterrupt):
            await groups.do(broken, Writes.ROWS)

    async def follow():
        with pytest.raises(StoreError, match="KeyboardInterrupt"):
            await groups.do(insert("beside"), Writes.ROWS)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lead)
        await trio.lowlevel.cancel_shielded_checkpoint()
        nursery.start_soon(follow)
    assert names(connection) == set()
    assert await groups.do(insert("a"), Writes.ROWS) == 1


async def test_one_that_fails_halfway_leaves_nothing_behind(groups, connection, words):
    def half(connection):
        insert("half")(connection)
        raise ZeroDivisionError

    errors = []

    async def ask():
        with pytest.raises(ZeroDivisionError) as caught:
            await groups.do(half, Writes.ROWS)
        errors.append(caught.value)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(groups.do, insert("before"), Writes.ROWS)
        nursery.start_soon(ask)
        nursery.start_soon(groups.do, insert("behind"), Writes.ROWS)
    assert len(errors) == 1
    assert names(connection) == {"before", "behind"}
    await ask()
    assert names(connection) == {"before", "behind"}


async def test_too_little_memory_is_an_error_of_the_one_who_needs_it(groups, connection):
    def short(_):
        raise MemoryError

    async def ask(writes):
        with pytest.raises(StoreError, match="MemoryError") as caught:
            await groups.do(short, writes)
        assert isinstance(caught.value.__cause__, MemoryError)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(groups.do, insert("before"), Writes.ROWS)
        nursery.start_soon(ask, Writes.ROWS)
        nursery.start_soon(ask, Writes.NOTHING)
        nursery.start_soon(groups.do, insert("behind"), Writes.ROWS)
    assert names(connection) == {"before", "behind"}


async def test_a_process_that_comes_between_is_waited_for_once_by_all_that_are_left(groups, connection, tmp_path):
    with closing(sqlite3.connect(tmp_path / "g.db", isolation_level=None, check_same_thread=False)) as other:
        tries = []

        def wrong(connection):
            tries.append(1)
            insert("half")(connection)
            if len(tries) == 2:  # alone
                connection.execute("ROLLBACK")
                other.execute("BEGIN IMMEDIATE")
            raise ZeroDivisionError

        begins: list[str] = []
        connection.set_trace_callback(lambda words: begins.append(words) if words.startswith("BEGIN") else None)
        functions = insert("a"), wrong, *map(insert, "bcdefgh")
        first, second, *others = await groups.do_all([Operation(function) for function in functions])
        other.execute("ROLLBACK")
    assert first == 1
    assert isinstance(second, ZeroDivisionError)
    assert ["locked" in str(error) for error in others] == [True] * 7
    assert len(begins) == 4  # for all, for each of the first two, and once for the others
    assert names(connection) == {"a"}


async def test_a_transaction_that_could_not_be_rolled_back_does_not_stay(groups, connection):
    connection.execute("BEGIN")
    insert("left")(connection)
    await groups.do(insert("a"), Writes.ROWS)
    assert names(connection) == {"a"}


async def test_who_leads_gets_a_store_error_too(groups, connection):
    connection.close()
    errors = []

    async def ask():
        with pytest.raises(StoreError, match="closed database") as caught:
            await groups.do(insert("a"), Writes.ROWS)
        errors.append(caught.value)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        nursery.start_soon(ask)
    assert len(errors) == 2


async def test_closing_does_what_was_asked_for_and_takes_no_more(groups, connection, tmp_path):
    async with trio.open_nursery() as nursery, Held(groups, nursery):
        nursery.start_soon(groups.do, insert("before"), Writes.ROWS)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(groups.aclose)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(StoreError, match="is closed"):
            await groups.do(insert("after"), Writes.ROWS)
    with pytest.raises(sqlite3.ProgrammingError):
        connection.execute("SELECT 1")
    with closing(sqlite3.connect(tmp_path / "g.db")) as other:
        assert names(other) == {"before"}
