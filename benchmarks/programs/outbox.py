# Under test: the outbox; and what it is measured beside: the same pool alone, and the store's bare commits.
#
# Variants: "put" puts messages; "work" sends as many as that, in all processes; "pool" sends as many through the pool
# alone; "floor-put" and "floor-work" make the same number of commits or round trips and nothing else; "fill" and "wait"
# only put, the latter messages that wait until tomorrow. It prints "ready", and at the next line of its input begins;
# then it prints seconds and CPU seconds.
from __future__ import annotations

import json
import sqlite3
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from functools import partial

import trio

import trio_smtp
from trio_smtp.outbox import OutboxConfig, open_outbox

from .load import message

SENDER, RECIPIENTS = "a@test.example", ["b@test.example"]
SIZE = 1024
RECORD = "x" * 330  # octets of a record of one recipient
STEPS = 3  # commits of work for each message: claim, mark, settle

Job = Callable[[], Awaitable[object]]


async def each(messages: int, tasks: int, job: Job) -> None:
    """Do the job so many times, so many at once."""
    left = iter(range(messages))

    async def work() -> None:
        for _ in left:
            await job()

    async with trio.open_nursery() as nursery:
        for _ in range(tasks):
            nursery.start_soon(work)


async def floor_sqlite(path: str, messages: int, tasks: int, steps: int) -> None:
    """Commits that hold as many rows as there are tasks: what a perfect group would be."""
    connection = sqlite3.connect(path + "-floor", isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL").fetchone()
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, record TEXT, content BLOB)")
    content = message(SIZE)

    def commit(first: int, step: int) -> None:
        rows = range(first, min(first + tasks, messages))
        connection.execute("BEGIN IMMEDIATE")
        if step == 0:
            connection.executemany("INSERT OR REPLACE INTO t VALUES (?, ?, ?)", [(i, RECORD, content) for i in rows])
        else:
            connection.executemany("UPDATE t SET record = ? WHERE id = ?", [(f"{RECORD}{step}", i) for i in rows])
        connection.execute("COMMIT")

    for first in range(0, messages, tasks):
        for step in range(steps):
            await trio.to_thread.run_sync(commit, first, step)
    connection.close()


async def floor_redis(url: str, messages: int, tasks: int, steps: int) -> None:
    """The round trips, each a script that writes one record."""
    import coredis

    async with coredis.Redis.from_url(url) as client:
        script = client.register_script("return redis.call('SET', KEYS[1], ARGV[1])")
        content = message(SIZE)

        async def job() -> None:
            for _ in range(steps):
                await script(["floor"], [content])

        await each(messages, tasks, job)


async def prepare(stack: AsyncExitStack, variant: str, url: str, port: int, messages: int, tasks: int) -> Job:
    """What is to be measured."""
    content = message(SIZE)
    if variant.startswith("floor"):
        steps = 1 if variant == "floor-put" else STEPS
        if url.startswith("sqlite:"):
            return partial(floor_sqlite, url.removeprefix("sqlite:"), messages, tasks, steps)
        return partial(floor_redis, url, messages, tasks, steps)
    pool_config = trio_smtp.PoolConfig(max_connections=tasks, max_messages=None)
    pool = await stack.enter_async_context(trio_smtp.open_pool("127.0.0.1", port, config=pool_config, tls="none"))
    if variant == "pool":
        return partial(each, messages, tasks, partial(pool.send, SENDER, RECIPIENTS, content))
    outbox = await stack.enter_async_context(open_outbox(url, config=OutboxConfig(lease=60)))
    if variant in ("put", "fill", "wait"):
        later = datetime.now(UTC) + timedelta(days=1) if variant == "wait" else None
        return partial(each, messages, tasks, partial(outbox.put, SENDER, RECIPIENTS, content, not_before=later))

    until = (await outbox.statistics()).sent + messages

    async def work() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outbox.work, pool)
            while (await outbox.statistics()).sent < until:  # noqa: ASYNC110 - other processes send too
                await trio.sleep(0.2)
            nursery.cancel_scope.cancel()

    return work


async def main(variant: str, url: str, port: int, messages: int, tasks: int) -> None:
    """Prepare, wait for the word, do it, and tell."""
    async with AsyncExitStack() as stack:
        job = await prepare(stack, variant, url, port, messages, tasks)
        print("ready", flush=True)
        await trio.to_thread.run_sync(sys.stdin.readline)
        wall, cpu = time.perf_counter(), time.process_time()
        await job()
        took = {"seconds": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        print(json.dumps(took), flush=True)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
