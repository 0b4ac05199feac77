"""The store in Redis: streams, leases, fencing, a server that dies, that would forget, or is of another kind."""

from __future__ import annotations

import signal
import warnings

import pytest
import trio
import trio.testing
from outbox_stores import one_redis, redis_server  # noqa: F401 - a fixture
from test_outbox import FAST, TEXT, A, B, opened, working

from trio_smtp.outbox import OutboxConfig, State, StoreError, open_outbox
from trio_smtp.outbox._states import Outcome, Turn, begin, mark, settle

coredis = pytest.importorskip("coredis")


def claim(record, now):
    return begin(record, now, "w")


@pytest.fixture
def redis(one_redis):  # noqa: F811
    import socket

    with socket.socket(socket.AF_UNIX) as client:
        client.connect(one_redis.socket)
        client.sendall(b"FLUSHALL\r\n")
        client.recv(64)
    return one_redis


async def test_a_lease_is_a_pending_entry_of_the_group_and_ends_with_it(redis):
    async with open_outbox(redis.url, config=OutboxConfig(lease=0.3)) as outbox:
        store = outbox._store
        await outbox.put(A, [B], TEXT)
        ((taken, _),) = await store.take("one", 5, claim)
        assert await store.take("two", 5, claim) == []
        with trio.fail_after(10):
            while not (again := await store.take("two", 5, claim)):
                await trio.sleep(0.05)  # of the server's clock
        assert (taken.claim, again[0][0].claim) == (1, 2)
        async with coredis.Redis.from_url(redis.url) as client:
            pending = await client.xpending("trio-smtp:outbox:q:0", "workers")
            assert pending.pending == 1
            await outbox.resolve(taken.id, "discard")  # it is being sent: nothing changes
            assert (await outbox.get(taken.id)).state is State.SENDING


async def test_a_longer_lease_of_another_worker_is_respected(redis):
    async with (
        open_outbox(redis.url, config=OutboxConfig(lease=60)) as patient,
        open_outbox(redis.url, config=OutboxConfig(lease=0.05)) as hasty,
    ):
        await patient.put(A, [B], TEXT)
        assert len(await patient._store.take("one", 5, claim)) == 1
        await trio.sleep(0.2)
        assert await hasty._store.take("two", 5, claim) == []


async def test_everything_of_a_settled_entry_is_removed_in_the_end(redis):
    config = OutboxConfig(lease=2, keep_done=0.1)
    async with opened(redis.url, config) as (outbox, sink, pool):
        async with working(outbox, pool):
            for number in range(5):
                ticket = await outbox.put(A, [B], TEXT, key=str(number))
                await outbox.wait(ticket.id)
        await trio.sleep(0.15)
        await outbox._store.prune()
        async with coredis.Redis.from_url(redis.url) as client:
            left = {key.decode().removeprefix("trio-smtp:outbox:") for key in await client.keys("*")}
            assert left == {"version", "place", "priorities", "q:0", "bell", "lease"}
            assert await client.xlen("trio-smtp:outbox:q:0") == 0
    assert len(sink.messages) == 5


async def test_who_is_cancelled_does_not_wait_for_a_server_that_hangs():
    with redis_server() as redis:
        assert redis.process is not None
        async with open_outbox(redis.url, config=FAST) as outbox:
            ticket = await outbox.put(A, [B], TEXT)
            redis.process.send_signal(signal.SIGSTOP)
            try:
                started = trio.current_time()
                async with trio.open_nursery() as nursery:
                    for _ in range(5):
                        nursery.start_soon(outbox.put, A, [B], TEXT)
                    await trio.testing.wait_all_tasks_blocked()
                    nursery.start_soon(outbox.resolve, ticket.id, "discard")
                    await trio.testing.wait_all_tasks_blocked()
                    nursery.cancel_scope.cancel()
                assert trio.current_time() - started < 3  # of processes; the client's patience is longer
            finally:
                redis.process.send_signal(signal.SIGCONT)
            await outbox.put(A, [B], TEXT)


async def test_a_worker_goes_on_when_redis_is_back():
    with redis_server() as redis:
        events: list = []
        config = OutboxConfig(lease=2, retry_delays=(0.05,), trace=events.append)
        async with opened(redis.url, config) as (outbox, sink, pool), working(outbox, pool):
            redis.kill()
            with pytest.raises(StoreError):
                await outbox.put(A, [B], TEXT, key="k")
            with trio.fail_after(10):
                while not any(event.name == "store" for event in events):
                    await trio.sleep(0.01)  # of processes
            await trio.to_thread.run_sync(redis.start)
            ticket = await outbox.put(A, [B], TEXT, key="k")
            assert (await outbox.wait(ticket.id)).state is State.SENT
        assert len(sink.messages) == 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (("--appendonly", "no"), "no append-only file"),
        (("--appendonly", "yes", "--appendfsync", "everysec"), "synced everysec"),
        (
            (
                "--appendonly",
                "yes",
                "--appendfsync",
                "always",
                "--maxmemory",
                "100mb",
                "--maxmemory-policy",
                "allkeys-lru",
            ),
            "evicts",
        ),
    ],
)
async def test_a_redis_that_would_forget_is_warned_of(settings, words):
    with redis_server(0, *settings) as redis:
        with pytest.warns(RuntimeWarning, match=words) as caught:
            async with open_outbox(redis.url) as outbox:
                await outbox.put(A, [B], TEXT)
        assert len(caught) == 1


async def test_a_redis_that_keeps_its_promises_is_not(redis):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        async with open_outbox(redis.url):
            pass


@pytest.mark.parametrize(("key", "value"), [("version", "99"), ("done", "no set"), ("priorities", "no set")])
async def test_a_store_that_is_damaged_or_of_another_version(redis, key, value):
    async with coredis.Redis.from_url(redis.url) as client:
        await client.set(f"trio-smtp:outbox:{key}", value)
    with pytest.raises(StoreError, match=r"version 99|wrong kind"):
        async with open_outbox(redis.url):
            pass


async def test_a_record_that_is_none(redis):
    async with open_outbox(redis.url, config=FAST) as outbox:
        ticket = await outbox.put(A, [B], TEXT)
        async with coredis.Redis.from_url(redis.url) as client:
            await client.hset(f"trio-smtp:outbox:e:{ticket.id}", {"record": "{}"})
        with pytest.raises(StoreError, match="damaged"):
            await outbox.get(ticket.id)


async def test_a_password_is_in_no_message():
    with pytest.raises(StoreError) as caught:
        async with open_outbox("redis://me:sesame@127.0.0.1:1/0"):
            pass
    assert "sesame" not in str(caught.value)


async def test_one_that_cannot_be_written_does_not_hurt_those_that_are_written_with_it(redis):
    async with open_outbox(redis.url) as outbox:
        store = outbox._store
        tickets = [await outbox.put(A, [B], TEXT) for _ in range(3)]
        taken = {each.id: each for each, _ in await store.take("w", 5, claim)}
        async with coredis.Redis.from_url(redis.url) as client:
            await client.delete(["trio-smtp:outbox:s:sent"])
            await client.delete([f"trio-smtp:outbox:e:{tickets[1].id}"])
            await client.set(f"trio-smtp:outbox:e:{tickets[1].id}", "no hash")

        def settled(record, now):
            return settle(record, 1, {B: Outcome(Turn.ACCEPT)}, now)

        answers = await store.change_all([(taken[ticket.id], settled) for ticket in tickets])
        assert [type(answer).__name__ for answer in answers] == ["Record", "StoreError", "Record"]
        assert "WRONGTYPE" in str(answers[1])
        for ticket in (tickets[0], tickets[2]):
            assert (await outbox.get(ticket.id)).state is State.SENT


async def test_a_worker_s_steps_are_kept_beside_the_record(redis):
    async with open_outbox(redis.url) as outbox, coredis.Redis.from_url(redis.url) as client:
        store = outbox._store
        ticket = await outbox.put(A, [B], TEXT)
        name = f"trio-smtp:outbox:e:{ticket.id}"
        written = await client.hget(name, "record")
        ((taken, _),) = await store.take("w", 5, claim)
        marked = await store.change(taken, lambda record, now: mark(record, 1, ["S: 250"]))
        assert await client.hget(name, "record") == written
        assert await store.load(ticket.id) == marked
        assert marked.marked
        await store.change(marked, lambda record, now: settle(record, 1, {B: Outcome(Turn.ACCEPT)}, now))
        assert await client.hmget(name, ["begun", "marked"]) == (None, None)


async def test_what_is_put_together_is_one_call(redis):
    async with open_outbox(redis.url) as outbox, coredis.Redis.from_url(redis.url) as client:
        await outbox.put(A, [B], TEXT)
        before = (await client.info("commandstats"))["cmdstat_evalsha"]["calls"]
        async with trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(lambda number: outbox.put(A, [B], TEXT, key=f"k{number % 30}"), number)
        calls = (await client.info("commandstats"))["cmdstat_evalsha"]["calls"] - before
        assert (await outbox.statistics()).queued == 31
    assert calls <= 14  # and one look for each key that was known
