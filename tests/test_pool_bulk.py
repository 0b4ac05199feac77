"""send_many by itself, with a pool of the test's own: so many at a time, in bounded memory, an outcome for each job."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_smtp import SendResult
from trio_smtp._client.message import Message
from trio_smtp._pool.bulk import send_many

RESULT = cast("SendResult", object())


class Pool:
    """Delivers when it is allowed to."""

    def __init__(self, *, is_open: bool = True) -> None:
        self.gate = trio.Event()
        self.now = self.most = 0
        if is_open:
            self.gate.set()

    async def deliver(self, message: Message, *, patient: bool = False) -> SendResult:
        assert patient
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await self.gate.wait()
        finally:
            self.now -= 1
        if message.sender.startswith("bad"):
            raise ZeroDivisionError(message.sender)
        return RESULT


def jobs(count: int, taken: list[int] | None = None) -> Iterator[tuple[str, list[str], bytes]]:
    for number in range(count):
        if taken is not None:
            taken.append(number)
        yield (f"a{number}@a.test", ["b@b.test"], b"x\r\n")


async def test_each_job_has_one_outcome_and_no_more_are_sent_at_a_time_than_asked_for() -> None:
    pool = Pool()
    async with send_many(pool.deliver, jobs(50), 4) as outcomes:
        seen = [outcome.job[0] async for outcome in outcomes]
    assert sorted(seen) == sorted(job[0] for job in jobs(50))
    assert pool.most == 4


async def test_an_outcome_that_is_not_taken_holds_the_jobs_back() -> None:
    taken: list[int] = []
    async with send_many(Pool().deliver, jobs(100, taken), 3) as outcomes:
        await wait_all_tasks_blocked()
        assert len(taken) == 6
        await anext(outcomes)
        await wait_all_tasks_blocked()
        assert len(taken) == 7
        assert "6 ready, 0 being sent" in repr(outcomes)


async def test_errors_are_outcomes_and_so_is_what_is_no_job() -> None:
    wrong: list[Any] = [("bad@a.test", ["b@b.test"], b""), ("a@a.test",), None, ("a@a.test", [], b"")]
    async with send_many(Pool().deliver, wrong, 1) as outcomes:
        errors = [type(outcome.error).__name__ async for outcome in outcomes]
    assert errors == ["ZeroDivisionError", "TypeError", "TypeError", "LocalProtocolError"]


async def test_what_the_jobs_raise_comes_after_the_outcomes_before_it() -> None:
    async def broken() -> AsyncIterator[tuple[str, list[str], bytes]]:
        for job in jobs(3):
            yield job
        raise OSError("no more")

    async with send_many(Pool().deliver, broken(), 2) as outcomes:
        seen = [await anext(outcomes) for _ in range(3)]
        with pytest.raises(OSError, match="no more"):
            await anext(outcomes)
        with pytest.raises(StopAsyncIteration):
            await anext(outcomes)
    assert len(seen) == 3


async def test_leaving_the_block_gives_up_what_is_being_sent_and_closes_the_jobs() -> None:
    pool, closed = Pool(is_open=False), []

    async def endless() -> AsyncIterator[tuple[str, list[str], bytes]]:
        try:
            for job in jobs(10**9):
                yield job
        finally:
            closed.append(True)

    async with send_many(pool.deliver, endless(), 2) as outcomes:
        await wait_all_tasks_blocked()
        assert pool.now == 2
    assert pool.now == 0
    assert closed == [True]
    with pytest.raises(trio.ClosedResourceError):
        await anext(outcomes)
