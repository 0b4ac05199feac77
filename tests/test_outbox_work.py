"""A worker: marks, fencing, limits over all workers, stores that go away, and what it leaves when it is ended."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest
import trio
from outbox_stores import one_redis, store_url  # noqa: F401 - fixtures
from test_outbox import IMPATIENT, TEXT, A, B, C, opened, working

import trio_smtp
from trio_smtp import Stage
from trio_smtp.outbox import OutboxConfig, State, StoreError, open_outbox
from trio_smtp.outbox._states import begin


def watched(**changes):
    """A configuration, and the events of the outbox that has it."""
    events: list = []
    return OutboxConfig(**{"retry_delays": (0.05,), "lease": 10, "trace": events.append, **changes}), events


async def test_it_tells_what_happens(store_url):  # noqa: F811
    config, events = watched()
    async with opened(store_url, config) as (outbox, _, pool), working(outbox, pool):
        ticket = await outbox.put(A, [B], TEXT)
        await outbox.wait(ticket.id)
    told = [(event.name, event.entry, event.state, event.recipients) for event in events]
    assert told == [
        ("put", ticket.id, "queued", 1),
        ("begin", ticket.id, "sending", 1),
        ("mark", ticket.id, "sending", 1),
        ("settle", ticket.id, "sent", 1),
    ]


async def test_it_tells_how_many_recipients_came_to_which_state(store_url):  # noqa: F811
    config, events = watched()
    async with opened(store_url, config) as (outbox, sink, pool), working(outbox, pool):
        sink.refuse("rcpt", 550, "no such user", "5.1.1", address=B)
        sink.refuse("rcpt", 451, "later", address=C, times=1)
        ticket = await outbox.put(A, [A, B, C], TEXT)
        entry = await outbox.wait(ticket.id)
        sink.accept_all()
        sink.cut(Stage.END, keep=True, times=1)
        doubtful = await outbox.put(A, [B, C], TEXT)
        await outbox.wait(doubtful.id)
        await outbox.resolve(doubtful.id, "sent", recipients=[B])
        for _ in range(2):
            await outbox.resolve(doubtful.id, "discard")
    told = [(event.name, dict(event.states), event.age is not None) for event in events if event.name != "mark"]
    assert told == [
        ("put", {"queued": 3}, False),
        ("begin", {"sending": 3}, False),
        ("settle", {"sent": 1, "refused": 1, "queued": 1}, False),
        ("begin", {"sending": 1}, False),
        ("settle", {"sent": 1}, True),
        ("put", {"queued": 2}, False),
        ("begin", {"sending": 2}, False),
        ("settle", {"in_doubt": 2}, False),
        ("resolve", {"sent": 1}, False),
        ("resolve", {"discarded": 1}, True),
        ("resolve", {}, False),
    ]
    [age, _] = [event.age for event in events if event.age is not None]
    assert entry.settled is not None
    assert age == pytest.approx((entry.settled - entry.created).total_seconds(), abs=0.001)


async def test_what_the_trace_function_raises_is_logged_once_and_hurts_nobody(store_url, caplog):  # noqa: F811
    told = []

    def trace(event):
        told.append(event.name)
        raise RuntimeError(event.name)

    async with opened(store_url, OutboxConfig(lease=10, trace=trace)) as (outbox, sink, pool):
        ticket = await outbox.put(A, [B], TEXT, key="once")
        assert ticket.is_new
        async with working(outbox, pool):
            assert (await outbox.wait(ticket.id)).state == State.SENT
        sink.cut(Stage.END, keep=True, times=1)
        async with working(outbox, pool):  # the same outbox: nothing is logged again
            doubtful = await outbox.put(A, [B], TEXT)
            await outbox.wait(doubtful.id)
        assert (await outbox.resolve(doubtful.id, "sent")).state == State.SENT
    assert told == ["put", "begin", "mark", "settle"] * 2 + ["resolve"]
    assert len(sink.messages) == 2
    failures = [record for record in caplog.records if "trace function" in record.getMessage()]
    assert [record.getMessage() for record in failures] == [
        "outbox: the trace function failed; further failures are not logged"
    ]


async def test_the_mark_is_durable_before_the_end_leaves(store_url):  # noqa: F811
    config, events = watched()
    async with opened(store_url, config, IMPATIENT) as (outbox, sink, pool):
        sink.stall(Stage.END, keep=True)
        ticket = await outbox.put(A, [B], TEXT)
        async with working(outbox, pool):
            await sink.wait_for(1)
            assert [event.name for event in events] == ["put", "begin", "mark"]
            record = await outbox._store.load(ticket.id)
            assert record.marked
            assert (await outbox.get(ticket.id)).state is State.SENDING


async def test_one_that_was_taken_over_before_its_mark_sends_nothing(store_url):  # noqa: F811
    """Fencing: this is what a worker finds that was stopped for longer than its lease."""
    config, events = watched(lease=0.2)
    async with opened(store_url, config) as (outbox, sink, pool):
        ticket = await outbox.put(A, [B], TEXT)
        sink.stall(Stage.MAIL, 1.0, times=1)
        renew = outbox._store.renew

        async def silence(*args):
            """It is not heard of."""

        outbox._store.renew = silence
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: outbox.work(pool, concurrency=1))
            while not any(event.name == "begin" for event in events):
                await trio.sleep(0.01)
            async with open_outbox(store_url, config=OutboxConfig(lease=30)) as other:
                with trio.fail_after(10):
                    while not (taken := await other._store.take("other", 1, lambda r, now: begin(r, now, "other"))):
                        await trio.sleep(0.02)
                assert taken[0][0].claim == 2
                with trio.fail_after(10):
                    while outbox_is_busy(pool):
                        await trio.sleep(0.02)
                entry = await other.get(ticket.id)
            nursery.cancel_scope.cancel()
        outbox._store.renew = renew
    assert sink.messages == []
    assert entry.state is State.SENDING  # the other's
    assert not any(event.name in ("mark", "settle") for event in events)


def outbox_is_busy(pool):
    now = pool.statistics()
    return now.waiting + now.in_flight > 0


async def test_a_lease_is_renewed_while_it_is_being_sent(store_url):  # noqa: F811
    config, events = watched(lease=1.5)
    async with opened(store_url, config) as (outbox, sink, pool):
        sink.stall(Stage.END, 2.5, times=1)
        ticket = await outbox.put(A, [B], TEXT)
        async with working(outbox, pool), open_outbox(store_url, config=config) as other, working(other, pool):
            assert (await outbox.wait(ticket.id)).state is State.SENT
    assert [event.name for event in events] == ["put", "begin", "mark", "settle"]
    assert len(sink.messages) == 1


async def test_a_lease_is_renewed_though_what_is_old_cannot_be_forgotten(tmp_path):
    url = f"sqlite:{tmp_path}/o.db"
    config, events = watched(lease=3, keep_done=2)
    async with opened(url, config) as (outbox, sink, pool):
        old = await outbox.put(A, [B], TEXT)
        await outbox.resolve(old.id, "discard")
        with closing(sqlite3.connect(f"{tmp_path}/o.db")) as connection:
            connection.execute(
                "CREATE TRIGGER t BEFORE DELETE ON outbox_entries BEGIN SELECT RAISE(ABORT, 'the disk is odd'); END"
            )
        sink.stall(Stage.END, 4.5, times=1)
        ticket = await outbox.put(A, [B], TEXT)
        async with working(outbox, pool), open_outbox(url, config=config) as other, working(other, pool):
            assert (await outbox.wait(ticket.id)).state is State.SENT
    assert [event.name for event in events if event.name not in ("store", "resolve")] == [
        "put", "put", "begin", "mark", "settle"
    ]  # fmt: skip
    assert any("the disk is odd" in str(event.error) for event in events)


async def has_taken_ahead(outbox, sink, pool, seconds):
    """A worker has one message at a server that says nothing for so long, and another ahead; gives both tickets."""
    first = await outbox.put(A, [B], TEXT)
    await outbox.wait(first.id)
    sink.stall(Stage.END, seconds, times=1, keep=True)
    tickets = [await outbox.put(A, [B], TEXT), await outbox.put(A, [C], TEXT)]
    await sink.wait_for(2)
    while (await outbox.statistics()).sending < 2:
        await trio.sleep(0.01)  # of a commit, in a thread
    return tickets


async def test_what_was_taken_ahead_is_given_back_by_a_worker_that_is_ended(store_url):  # noqa: F811
    config, events = watched(lease=60)
    async with opened(store_url, config) as (outbox, sink, pool):
        async with working(outbox, pool, concurrency=1):
            sent, ahead = await has_taken_ahead(outbox, sink, pool, 0.5)
        assert (await outbox.get(sent.id)).state is State.SENT
        entry = await outbox.get(ahead.id)
        assert (entry.state, entry.recipients[C].attempts) == (State.QUEUED, 0)
        assert not any(event.name == "mark" and event.entry == ahead.id for event in events)
        async with working(outbox, pool):
            entry = await outbox.wait(ahead.id)
    assert (entry.state, entry.recipients[C].attempts) == (State.SENT, 1)
    assert len(sink.messages) == 3


async def test_what_was_taken_ahead_and_gets_no_further_is_left_to_another_worker(store_url):  # noqa: F811
    config, _ = watched(lease=0.6)
    async with (
        opened(store_url, config) as (outbox, sink, pool),
        open_outbox(store_url, config=config) as other,
        working(outbox, pool, concurrency=1),
    ):
        slow, ahead = await has_taken_ahead(outbox, sink, pool, 3.0)
        async with working(other, pool):
            entry = await outbox.wait(ahead.id)
        assert (entry.state, entry.recipients[C].attempts) == (State.SENT, 1)
        assert (await outbox.get(slow.id)).state is State.SENDING
        await outbox.wait(slow.id)
    assert len(sink.messages) == 3


async def test_a_worker_that_is_ended_gives_back_what_it_had_not_sent(store_url):  # noqa: F811
    config, _ = watched(lease=60)
    async with opened(store_url, config) as (outbox, sink, pool):
        tickets = [await outbox.put(A, [B], TEXT) for _ in range(4)]
        sink.stall(Stage.MAIL)
        async with working(outbox, pool):
            with trio.fail_after(10):
                while (await outbox.statistics()).sending < 3:
                    await trio.sleep(0.01)
        statistics = await outbox.statistics()
        assert (statistics.sending, statistics.queued) == (0, 4)
        entries = [await outbox.get(ticket.id) for ticket in tickets]
        assert sorted(entry.recipients[B].attempts for entry in entries) == [0, 1, 1, 1]
        sink.accept_all()
        async with working(outbox, pool):  # at once, not when a lease ends
            for ticket in tickets:
                assert (await outbox.wait(ticket.id)).state is State.SENT


async def test_a_worker_that_is_ended_takes_no_more(store_url):  # noqa: F811
    """It went on taking entries and giving them back, as long as there were any."""
    async with opened(store_url) as (outbox, sink, pool):
        for _ in range(50):
            await outbox.put(A, [B], TEXT)
        async with working(outbox, pool):
            await sink.wait_for(1)
        statistics = await outbox.statistics()
    assert statistics.sending == 0
    assert statistics.queued > 30


async def test_a_worker_that_is_ended_while_a_reply_is_outstanding_leaves_doubt(store_url):  # noqa: F811
    config, _ = watched()
    async with open_outbox(store_url, config=config) as outbox, opened(store_url) as (_, sink, _):
        client_config = trio_smtp.ClientConfig(end_grace=0.1)
        sink.stall(Stage.END, keep=True)
        ticket = await outbox.put(A, [B], TEXT)
        async with trio_smtp.open_pool(sink.host, sink.port, client_config=client_config, tls="none") as pool:
            async with working(outbox, pool):
                await sink.wait_for(1)
            assert (await outbox.get(ticket.id)).state is State.IN_DOUBT


async def test_the_pool_s_end_ends_the_worker_and_nothing_stays_leased(store_url):  # noqa: F811
    async with opened(store_url) as (outbox, sink, _):
        ticket = await outbox.put(A, [B], TEXT)
        async with trio_smtp.open_pool(sink.host, sink.port, tls="none") as pool:
            pass
        with pytest.raises(trio_smtp.PoolClosedError):
            await outbox.work(pool)
        entry = await outbox.get(ticket.id)
        assert entry.state is State.QUEUED


@pytest.mark.parametrize("concurrency", [0, -1, True, 1.5])
async def test_concurrency_is_a_number_of_messages(concurrency, tmp_path):
    async with opened(f"sqlite:{tmp_path}/o.db") as (outbox, _, pool):
        with pytest.raises(ValueError, match="concurrency"):
            await outbox.work(pool, concurrency=concurrency)


async def test_a_store_that_goes_away_loses_no_outcome(tmp_path):
    config, events = watched()
    async with opened(f"sqlite:{tmp_path}/o.db", config) as (outbox, sink, pool), working(outbox, pool):
        store = outbox._store
        change_all, failures = store.change_all, [3]

        async def failing(changes):
            if failures[0]:
                failures[0] -= 1
                raise StoreError("away")
            return await change_all(changes)

        store.change_all = failing
        ticket = await outbox.put(A, [B], TEXT)
        assert (await outbox.wait(ticket.id)).state is State.SENT
    assert len(sink.messages) == 1
    assert [event.name for event in events].count("store") == 3


async def test_a_mark_that_fails_sends_nothing_and_is_tried_again(tmp_path):
    config, _ = watched()
    async with opened(f"sqlite:{tmp_path}/o.db", config) as (outbox, sink, pool), working(outbox, pool):
        store = outbox._store
        change, failures = store.change, [1]

        async def failing(record, transition):
            if failures[0]:
                failures[0] -= 1
                assert sink.messages == []
                raise StoreError("away")
            return await change(record, transition)

        store.change = failing
        ticket = await outbox.put(A, [B], TEXT)
        entry = await outbox.wait(ticket.id)
    assert (entry.state, entry.recipients[B].attempts, len(sink.messages)) == ("sent", 2, 1)


async def test_a_mark_that_fails_at_the_pool_s_second_try_leaves_in_doubt_what_the_first_may_have_sent(tmp_path):
    config, _ = watched(lease=60)
    pool_config = trio_smtp.PoolConfig(on_unknown="retry", retry_delay=0)
    async with (
        opened(f"sqlite:{tmp_path}/o.db", config) as (outbox, sink, _),
        trio_smtp.open_pool(sink.host, sink.port, config=pool_config, **sink.client_options) as pool,
    ):
        sink.cut("end", keep=True, times=1)
        store = outbox._store
        change, marks = store.change, []

        async def failing(record, transition):
            marks.append(record.id)
            if len(marks) == 2:
                raise StoreError("away")
            return await change(record, transition)

        store.change = failing
        async with working(outbox, pool):
            ticket = await outbox.put(A, [B], TEXT)
            entry = await outbox.wait(ticket.id)
    assert (entry.state, len(marks), len(sink.messages)) == ("in_doubt", 2, 1)


@pytest.mark.parametrize("scope", ["rate_limit", "domain_rate_limit"])
async def test_a_rate_limit_holds_over_all_workers(scope, store_url):  # noqa: F811
    config, _ = watched(**{scope: (3, 0.5)})
    async with opened(store_url, config) as (outbox, sink, pool), open_outbox(store_url, config=config) as other:
        for _ in range(9):
            await outbox.put(A, [B], TEXT)
        if scope == "domain_rate_limit":
            free = await outbox.put(A, [C], TEXT)
        started = trio.current_time()
        async with working(outbox, pool), working(other, pool):
            if scope == "domain_rate_limit":
                await outbox.wait(free.id)
                assert len(sink.messages) < 10  # it does not wait for those of the other domain
            await sink.wait_for(9 + (scope == "domain_rate_limit"))
        async with outbox.entries() as entries:
            async for entry in entries:
                assert [recipient.attempts for recipient in entry.recipients.values()] == [1]  # to wait is no try
    assert trio.current_time() - started > 0.9  # three windows
    assert len(sink.messages) == 9 + (scope == "domain_rate_limit")


async def test_entries_that_lapsed_into_doubt_are_told_and_not_sent(store_url):  # noqa: F811
    config, events = watched(lease=0.1)
    async with opened(store_url, config) as (outbox, sink, pool):
        ticket = await outbox.put(A, [B], TEXT)
        ((taken, _),) = await outbox._store.take("gone", 1, lambda record, now: begin(record, now, "gone"))
        from trio_smtp.outbox._states import mark

        await outbox._store.change(taken, lambda record, now: mark(record, taken.claim))
        async with working(outbox, pool):
            entry = await outbox.wait(ticket.id)
    assert entry.state is State.IN_DOUBT
    assert "before the server's reply was written down" in entry.recipients[B].error
    assert [event.name for event in events] == ["put", "doubt"]
    assert dict(events[1].states) == {"in_doubt": 1}
    assert sink.messages == []
