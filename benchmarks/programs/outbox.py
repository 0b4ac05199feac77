# Under test: the outbox; and what it is measured beside: the same pool alone, and the store's bare commits.
#
# Variants: "put" puts messages; "work" sends as many as that, and is ended; "pool" sends as many through the pool, and
# nothing else; "least" sends them with the steps of the outbox in SQLite, and nothing else; "floor-put" and
# "floor-work" write the same rows in the same steps, and nothing else; "fill" and "wait" only put, the latter messages
# that wait until tomorrow. It prints "ready", and at the next line of its input begins; then it prints seconds and CPU
# seconds.
#
# The floors count what cannot be left out. In SQLite: one process, WAL mode with synchronous=FULL and the outbox's size
# of the log, a table of records and one of contents, of the outbox's sizes, without any index; each commit is full: it
# serves as many messages as there are tasks. For put it inserts both rows. For work there are three: two rewrite the
# records (claimed, marked), the last also deletes the contents (settled). Nothing is read, decided or made into JSON.
# In Redis: one round trip for put, three for work, each a script that writes the records of as many messages.
from __future__ import annotations

import json
import sqlite3
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice

import trio

import trio_smtp
from trio_smtp.outbox import OutboxConfig, open_outbox

from .load import message

SENDER, RECIPIENTS = "a@test.example", ["b@test.example"]
SIZE = 1024
RECORD = "x" * 330  # octets of a record of one recipient
_LOOK = 0.01  # seconds between looks at whether it is done
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


class SQLiteFloor:
    """Commits that hold as many rows as there are tasks: what perfect groups would be."""

    def __init__(self, path: str, messages: int, tasks: int) -> None:
        self._messages, self._tasks = messages, tasks
        self._connection = connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL").fetchone()
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA wal_autocheckpoint = 4000")
        for name in ("records", "contents"):
            connection.execute(f"DROP TABLE IF EXISTS {name}")
            connection.execute(f"CREATE TABLE {name} (place INTEGER PRIMARY KEY, value BLOB)")

    async def put(self) -> None:
        """Insert all messages."""
        await self._commits(self._insert)

    async def work(self) -> None:
        """Claim, mark and settle them."""
        await self._commits(self._rewrite, self._rewrite, self._settle)

    async def _commits(self, *steps: Callable[[list[int]], None]) -> None:
        for first in range(0, self._messages, self._tasks):
            places = list(range(first, min(first + self._tasks, self._messages)))
            for step in steps:
                await trio.to_thread.run_sync(self._commit, step, places)

    def _commit(self, step: Callable[[list[int]], None], places: list[int]) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        step(places)
        self._connection.execute("COMMIT")

    def _insert(self, places: list[int]) -> None:
        content = message(SIZE)
        self._connection.executemany("INSERT INTO records VALUES (?, ?)", [(place, RECORD) for place in places])
        self._connection.executemany("INSERT INTO contents VALUES (?, ?)", [(place, content) for place in places])

    def _rewrite(self, places: list[int]) -> None:
        self._connection.executemany(
            "UPDATE records SET value = ? WHERE place = ?", [(RECORD, each) for each in places]
        )

    def _settle(self, places: list[int]) -> None:
        self._rewrite(places)
        self._connection.executemany("DELETE FROM contents WHERE place = ?", [(place,) for place in places])


class LeastOutbox(SQLiteFloor):
    """The least that an outbox of this kind does: the three steps of each message, durable, shared by those that wait.

    Claims of as many as there are tasks, a mark before each end, settled once it was sent. There is no record, no
    state, no second worker, no error, and nothing is made into text.
    """

    def __init__(self, path: str, messages: int, tasks: int, pool: trio_smtp.Pool) -> None:
        super().__init__(path, messages, tasks)
        self._pool = pool
        self._left = iter(range(messages))
        self._claimed: deque[tuple[int, bytes]] = deque()
        self._claiming = trio.Lock()
        self._asked: list[tuple[Callable[[list[int]], None], list[int], trio.Event]] = []
        self._came = trio.Event()

    async def work(self) -> None:
        """Send them all."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._commit_groups)
            async with trio.open_nursery() as senders:
                for _ in range(self._tasks):
                    senders.start_soon(self._send_each)
            await self._ask(self._rewrite, []).wait()  # what was asked for before is done
            nursery.cancel_scope.cancel()

    async def _send_each(self) -> None:
        while (found := await self._next()) is not None:
            place, content = found

            async def mark(place: int = place) -> None:
                await self._ask(self._rewrite, [place]).wait()

            await self._pool.send(SENDER, RECIPIENTS, content, before_end=mark)
            self._ask(self._settle, [place])

    async def _next(self) -> tuple[int, bytes] | None:
        async with self._claiming:
            if not self._claimed and (places := list(islice(self._left, self._tasks))):
                await self._ask(self._claim, places).wait()
            return self._claimed.popleft() if self._claimed else None

    def _claim(self, places: list[int]) -> None:
        self._rewrite(places)
        for place in places:
            self._claimed += self._connection.execute("SELECT place, value FROM contents WHERE place = ?", (place,))

    def _ask(self, step: Callable[[list[int]], None], places: list[int]) -> trio.Event:
        done = trio.Event()
        self._asked.append((step, places, done))
        self._came.set()
        return done

    async def _commit_groups(self) -> None:
        while True:
            await self._came.wait()
            for _ in range(2):
                await trio.lowlevel.checkpoint()
            group, self._asked, self._came = self._asked, [], trio.Event()
            await trio.to_thread.run_sync(self._commit_group, group)
            for _, _, done in group:
                done.set()

    def _commit_group(self, group: list[tuple[Callable[[list[int]], None], list[int], trio.Event]]) -> None:
        steps: dict[Callable[[list[int]], None], list[int]] = {}
        for step, places, _ in group:
            steps.setdefault(step, []).extend(places)
        self._connection.execute("BEGIN IMMEDIATE")
        for step, places in steps.items():
            step(places)
        self._connection.execute("COMMIT")


async def floor_redis(stack: AsyncExitStack, url: str, messages: int, tasks: int, steps: int) -> Job:
    """The round trips, each a script that writes a record for as many messages as there are tasks."""
    import coredis

    words: list[str | bytes] = [message(SIZE) if steps == 1 else RECORD] * tasks
    client = await stack.enter_async_context(coredis.Redis.from_url(url))
    script = client.register_script("for i, word in ipairs(ARGV) do redis.call('SET', KEYS[1] .. i, word) end")
    await script(["floor"], words)

    async def ask() -> None:
        for _ in range(0, messages, tasks):
            for _ in range(steps):
                await script(["floor"], words)

    return ask


async def prepare(stack: AsyncExitStack, variant: str, url: str, port: int, messages: int, tasks: int) -> Job:
    """What is to be measured."""
    content = message(SIZE)
    if variant.startswith("floor"):
        is_put = variant == "floor-put"
        if url.startswith("redis:"):
            return await floor_redis(stack, url, messages, tasks, 1 if is_put else STEPS)
        floor = SQLiteFloor(f"{url.removeprefix('sqlite:')}-floor", messages, tasks)
        if is_put:
            return floor.put
        await floor.put()
        return floor.work
    pool_config = trio_smtp.PoolConfig(max_connections=tasks, max_messages=None)
    pool = await stack.enter_async_context(trio_smtp.open_pool("127.0.0.1", port, config=pool_config, tls="none"))
    if variant == "least":
        least = LeastOutbox(f"{url.removeprefix('sqlite:')}-least", messages, tasks, pool)
        await least.put()
        return least.work
    if variant == "pool":
        return partial(each, messages, tasks, partial(pool.send, SENDER, RECIPIENTS, content))
    config = OutboxConfig(lease=60)
    outbox = await stack.enter_async_context(open_outbox(url, config=config))
    if variant in ("put", "fill", "wait"):
        later = datetime.now(UTC) + timedelta(days=1) if variant == "wait" else None
        return partial(each, messages, tasks, partial(outbox.put, SENDER, RECIPIENTS, content, not_before=later))

    async def work() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outbox.work, pool)
            while pool.statistics().sent < messages:  # noqa: ASYNC110 - an outbox that tells of each message costs more
                await trio.sleep(_LOOK)
            nursery.cancel_scope.cancel()  # what became of them is written down before it ends

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
