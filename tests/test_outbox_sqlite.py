"""The store in SQLite: durability, groups, disk full, damage, other versions, clocks, and cost."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest
import trio
from test_outbox import TEXT, A, B

from trio_smtp.outbox import OutboxConfig, State, StoreError, open_outbox
from trio_smtp.outbox._schema import open_connection
from trio_smtp.outbox._sqlite import SQLiteStore
from trio_smtp.outbox._states import Fate, Outcome, Record, Turn, begin, mark, settle


def record(name="m1", **changes):
    fields = {"key": None, "sender": A, "recipients": {B: Fate(due=0.0)}, "size": 1, "created": 0.0, "expires": 1e12}
    return Record(id=name, **{**fields, **changes})


def claim(record, now):
    return begin(record, now, "w")


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def connection(tmp_path):
    with closing(open_connection(f"{tmp_path}/o.db")) as connection:
        yield connection


@pytest.fixture
def store(connection, tmp_path, clock):
    return SQLiteStore(connection, f"{tmp_path}/o.db", OutboxConfig(lease=60), clock)


async def test_it_syncs_at_each_commit(connection):
    (synchronous,) = connection.execute("PRAGMA synchronous").fetchone()
    (journal,) = connection.execute("PRAGMA journal_mode").fetchone()
    assert (synchronous, journal) == (2, "wal")  # FULL


async def test_what_waits_shares_one_transaction(connection, store):
    begins = []
    connection.set_trace_callback(lambda words: begins.append(words) if words.startswith("BEGIN") else None)
    async with trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(store.add, record(f"m{number}"), b"x")
    assert sum((await store.counts()).values()) == 50
    assert len(begins) <= 3


async def test_one_that_fails_does_not_fail_its_group(store):
    await store.add(record("m0"), b"x")
    errors = []

    def wrong(record, now):
        raise LookupError("no")

    async def change():
        try:
            await store.change(record("m0"), wrong)
        except LookupError as exc:
            errors.append(exc)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.add, record("m1"), b"x")
        nursery.start_soon(change)
        nursery.start_soon(store.add, record("m2"), b"x")
    assert len(errors) == 1
    assert sum((await store.counts()).values()) == 3


async def test_a_full_disk_is_an_error_of_what_has_no_room_only(connection, store):
    await store.add(record("m0"), b"x")
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    errors = []

    async def large():
        try:
            await store.add(record("large", key="k"), bytes(1 << 20))
        except StoreError as exc:
            errors.append(exc)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(large)
        nursery.start_soon(store.take, "w", 1, claim)  # in the same group
    assert "full" in str(errors[0])
    assert (await store.load("m0")).state is State.SENDING
    with pytest.raises(LookupError):
        await store.load("large")
    connection.execute("PRAGMA max_page_count = 100000")
    assert await store.add(record("large", key="k"), bytes(1 << 20)) == ("large", True)


SHORT = "SELECT short_of_memory()"


@pytest.mark.parametrize("failure", ["SELECT RAISE(ABORT, 'no')", "SELECT RAISE(ROLLBACK, 'no')", SHORT])
@pytest.mark.parametrize("event", ["UPDATE", "DELETE"])
async def test_one_row_that_cannot_be_written_fails_none_that_are_written_with_it(failure, event, connection, store):
    def short_of_memory():
        raise MemoryError  # SQLite runs out of it by this, too

    for number in range(9):
        await store.add(record(f"m{number}"), b"x")
    taken = [each for each, _ in await store.take("w", 9, claim)]
    connection.create_function("short_of_memory", 0, short_of_memory)
    table, which = ("outbox_entries", "OLD.id = 'm4'") if event == "UPDATE" else ("outbox_contents", "OLD.place = 5")
    connection.execute(f"CREATE TEMP TRIGGER wrong BEFORE {event} ON {table} WHEN {which} BEGIN {failure}; END")

    def end(record, now):
        return settle(record, 1, {B: Outcome(Turn.ACCEPT)}, now)

    answers = await store.change_all([(each, end) for each in taken])
    wrong = [number for number, answer in enumerate(answers) if isinstance(answer, StoreError)]
    assert wrong == [4]
    assert [(await store.load(f"m{number}")).state for number in range(9)] == [
        State.SENDING if number in wrong else State.SENT for number in range(9)
    ]
    connection.execute("DROP TRIGGER wrong")
    assert [answer.state for answer in await store.change_all([(each, end) for each in taken])] == [State.SENT] * 9
    assert connection.execute("SELECT count(*) FROM outbox_contents").fetchone() == (0,)


async def test_the_state_of_one_that_is_tried_again_for_some_while_others_are_in_doubt(store):
    await store.add(record(recipients={A: Fate(), B: Fate()}), b"x")
    ((taken, _),) = await store.take("w", 1, claim)
    outcomes = {A: Outcome(Turn.DOUBT, error="who knows"), B: Outcome(Turn.AGAIN)}
    await store.change(taken, lambda record, now: settle(mark(record, 1), 1, outcomes, now))
    ((again, _),) = await store.take("w", 1, claim)
    assert again.state is State.IN_DOUBT
    assert {state: number for state, number in (await store.counts()).items() if number} == {State.IN_DOUBT: 1}
    assert (await store.page(State.IN_DOUBT, 0, 5)).records == [again]


async def test_leases_end_and_are_renewed(store, clock):
    await store.add(record(), b"x")
    ((taken, _),) = await store.take("w", 5, claim)
    assert (taken.claim, await store.take("w", 5, claim)) == (1, [])
    clock.now += 50
    await store.renew([taken], "w")
    clock.now += 50
    assert await store.take("w", 5, claim) == []
    clock.now += 11
    ((again, _),) = await store.take("w", 5, claim)
    assert again.claim == 2
    await store.renew([taken], "w")  # of a claim that is over: nothing
    clock.now += 61
    assert len(await store.take("w", 5, claim)) == 1


async def test_a_clock_that_is_set_back_delays_by_one_more_wait_at_most(store, clock):
    await store.add(record(), b"x")
    await store.take("w", 5, claim)
    clock.now -= 900
    await store.prune()
    clock.now += 61
    ((again, _),) = await store.take("w", 5, claim)
    assert again.claim == 2


async def test_a_not_before_outlives_a_clock_that_is_set_back(store, clock):
    await store.add(record(recipients={B: Fate(due=2000.0)}), b"x")
    clock.now = 500.0
    await store.prune()
    clock.now = 1999.0
    assert await store.take("w", 5, claim) == []
    clock.now = 2000.0
    assert len(await store.take("w", 5, claim)) == 1


async def steps_of_one_message(connection, store):
    """SQLite's virtual instructions from put to settled, with what a worker does besides."""
    steps = [0]
    connection.set_progress_handler(lambda: steps.__setitem__(0, steps[0] + 1), 1)
    await store.add(record("now", key="k"), b"x")
    ((taken, _),) = await store.take("w", 5, claim)
    assert taken.id == "now"
    marked = await store.change(taken, lambda record, now: mark(record, 1))
    await store.renew([marked], "w")
    await store.prune()
    done = await store.change(marked, lambda record, now: settle(record, 1, {B: Outcome(Turn.ACCEPT)}, now))
    await store.load("now")
    await store.page(State.SENT, 0, 5)
    connection.set_progress_handler(None, 0)
    assert done.state is State.SENT
    connection.execute("DELETE FROM outbox_entries WHERE id = 'now'")
    return steps[0]


async def test_what_waits_costs_those_who_work_nothing(connection, store, clock):
    alone = await steps_of_one_message(connection, store)
    connection.execute("BEGIN")
    await trio.to_thread.run_sync(
        connection.executemany,
        "INSERT INTO outbox_entries (id, state, shelf, at, patience, priority, claim, version, record)"
        " VALUES (?, 'queued', ?, 1e9, ?, 0, 0, 1, '{}')",
        [(f"w{number}", "later", None) for number in range(10_000)]  # not to be sent earlier
        + [(f"d{number}", "later", 1e9 - clock.now) for number in range(10_000)],  # tried, and refused for now
    )
    connection.execute("COMMIT")
    assert await steps_of_one_message(connection, store) <= alone + 50


async def test_other_processes_changes_are_noticed(tmp_path):
    url = f"sqlite:{tmp_path}/o.db"
    async with open_outbox(url) as one, open_outbox(url) as other, trio.open_nursery() as nursery:
        ticket = await one.put(A, [B], TEXT)
        done = []

        async def wait():
            done.append(await one.wait(ticket.id))

        nursery.start_soon(wait)
        with trio.fail_after(4):  # less than the longest wait
            await other.resolve(ticket.id, "discard")
            while not done:
                await trio.sleep(0.01)  # of two connections, which no clock of ours drives
    assert done[0].state is State.DISCARDED


@pytest.mark.parametrize("what", ["garbage", "version", "no version", "other table", "middle"])
async def test_a_store_that_is_damaged_or_of_another_version(what, tmp_path):
    path = tmp_path / "o.db"
    if what == "garbage":
        path.write_bytes(b"this is no database at all, and never was\n" * 50)
    else:
        async with open_outbox(f"sqlite:{path}") as outbox:
            for _ in range(20):
                await outbox.put(A, [B], bytes(5000))
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            if what == "version":
                connection.execute("UPDATE outbox_meta SET value = '99' WHERE name = 'version'")
            elif what == "no version":
                connection.execute("DELETE FROM outbox_meta")
            elif what == "other table":
                connection.execute("DROP TABLE outbox_meta")
                connection.execute("CREATE TABLE outbox_meta (x)")
            connection.commit()
        if what == "middle":
            octets = bytearray(path.read_bytes())
            octets[4096:40960] = b"\xff" * (40960 - 4096)
            path.write_bytes(octets)
    with pytest.raises(StoreError, match=r"version|damaged|cannot use"):
        async with open_outbox(f"sqlite:{path}"):
            pass


def statements(connection):
    """The statements that are made from now on, by their first words."""
    said: list[str] = []
    connection.set_trace_callback(lambda words: said.append(" ".join(words.split()[:3])))
    return said


async def put_together(store, records):
    answers = {}

    async def put(record):
        answers[record.id] = await store.add(record, b"x")

    async with trio.open_nursery() as nursery:
        for each in records:
            nursery.start_soon(put, each)
    return answers


async def test_what_is_put_together_is_few_statements(connection, store):
    said = statements(connection)
    answers = await put_together(store, [record(f"m{number}") for number in range(64)])
    assert answers == {f"m{number}": (f"m{number}", True) for number in range(64)}
    assert len([words for words in said if words.startswith("INSERT")]) == 4


async def test_a_known_key_among_others_that_are_put_together(store):
    await store.add(record("old", key="k"), b"x")
    records = [record("m0"), record("m1", key="k"), record("m2", key="new"), record("m3", key="new"), record("m4")]
    answers = await put_together(store, records)
    same = answers["m2"][0]
    assert same in ("m2", "m3")
    assert answers == {
        "m0": ("m0", True),
        "m1": ("old", False),
        "m2": (same, same == "m2"),
        "m3": (same, same == "m3"),
        "m4": ("m4", True),
    }
    assert sum((await store.counts()).values()) == 4


async def test_one_that_was_taken_over_does_not_hurt_those_that_are_settled_with_it(store, clock):
    names = [f"m{number}" for number in range(5)]
    for name in names:
        await store.add(record(name), b"x")
    taken = {each.id: each for each, _ in await store.take("w", 5, claim)}
    clock.now += 50
    await store.renew([taken[name] for name in names if name != "m2"], "w")
    clock.now += 11
    assert [each.id for each, _ in await store.take("other", 5, claim)] == ["m2"]
    await store.change(taken["m1"], lambda record, now: mark(record, 1))  # what is settled below does not know of it

    def settled(record, now):
        return settle(record, 1, {B: Outcome(Turn.ACCEPT)}, now)

    answers = await store.change_all([(taken[name], settled) for name in names])
    assert [type(answer).__name__ for answer in answers] == ["Record", "Record", "LeaseLostError", "Record", "Record"]
    assert dict(await store.counts()) == {State.SENT: 4, State.SENDING: 1}


async def test_one_entry_that_is_changed_twice_in_a_group_is_changed_twice(store):
    await store.add(record(recipients={A: Fate(due=0.0), B: Fate(due=0.0)}), b"x")
    ((taken, _),) = await store.take("w", 5, claim)
    answers = await store.change_all(
        [
            (taken, lambda record, now, each=each: settle(record, 1, {each: Outcome(Turn.ACCEPT)}, now))
            for each in (A, B)
        ]
    )
    assert [answer.state for answer in answers] == [State.SENDING, State.SENT]
    assert (await store.load("m1")).state is State.SENT


async def test_a_worker_s_steps_are_kept_beside_the_record(connection, store):
    await store.add(record(), b"x")
    (written,) = connection.execute("SELECT record FROM outbox_entries").fetchone()
    ((taken, _),) = await store.take("w", 5, claim)
    marked = await store.change(taken, lambda record, now: mark(record, 1, ["S: 250"]))
    assert connection.execute("SELECT record FROM outbox_entries").fetchone() == (written,)
    assert await store.load("m1") == marked
    assert marked.marked
    await store.change(marked, lambda record, now: settle(record, 1, {B: Outcome(Turn.ACCEPT)}, now))
    assert connection.execute("SELECT begun, marked FROM outbox_entries").fetchone() == (None, None)
    assert connection.execute("SELECT count(*) FROM outbox_contents").fetchone() == (0,)


async def test_an_older_sqlite_is_refused_in_words(monkeypatch, tmp_path):
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 32, 3))
    monkeypatch.setattr(sqlite3, "sqlite_version", "3.32.3")
    with pytest.raises(StoreError, match=r"needs SQLite 3\.33 or later, and this Python has 3\.32\.3"):
        async with open_outbox(f"sqlite:{tmp_path}/o.db"):
            pass
