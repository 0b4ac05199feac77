"""send_many by itself, with a pool of the test's own: so many at a time, in bounded memory, an outcome for each job."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_smtp import SendResult
from trio_smtp._client.message import Message
from trio_smtp._pool.bulk import Outcome, send_many

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
        with trio.move_on_after(0):
            await anext(outcomes)
    assert pool.now == 0
    assert closed == [True]
    with pytest.raises(trio.ClosedResourceError):
        await anext(outcomes)


# -- outcomes that are not read


async def test_leaving_without_having_asked_for_an_outcome_sends_all_jobs() -> None:
    taken: list[int] = []
    async with send_many(Pool().deliver, jobs(50, taken), 3):
        pass
    assert len(taken) == 50


async def test_leaving_without_having_asked_for_an_outcome_raises_the_errors() -> None:
    wrong: list[Any] = [("a@a.test", ["b@b.test"], b""), ("bad@a.test", ["b@b.test"], b""), None]
    with pytest.raises(ExceptionGroup, match="2 messages of send_many have failed") as caught:
        async with send_many(Pool().deliver, wrong, 2):
            pass
    assert {type(error) for error in caught.value.exceptions} == {ZeroDivisionError, TypeError}
    [error] = [error for error in caught.value.exceptions if isinstance(error, ZeroDivisionError)]
    assert "bad@a.test" in error.__notes__[0]


async def test_what_the_jobs_raise_is_among_the_errors_of_a_block_that_asked_for_none() -> None:
    def broken() -> Iterator[tuple[str, list[str], bytes]]:
        yield ("bad@a.test", ["b@b.test"], b"")
        raise OSError("no more")

    with pytest.raises(ExceptionGroup) as caught:
        async with send_many(Pool().deliver, broken(), 2):
            pass
    assert [type(error) for error in caught.value.exceptions] == [ZeroDivisionError, OSError]


async def test_no_more_errors_are_kept_than_can_be_of_use() -> None:
    with pytest.raises(ExceptionGroup, match="1500 messages") as caught:
        async with send_many(Pool().deliver, [("bad@a.test", ["b@b.test"], b"")] * 1500, 2):
            pass
    assert len(caught.value.exceptions) == 1000


async def test_the_block_s_own_exception_ends_it_without_sending_the_rest() -> None:
    taken: list[int] = []
    with pytest.raises(KeyError):
        async with send_many(Pool(is_open=False).deliver, jobs(50, taken), 3):
            raise KeyError("mine")
    assert len(taken) <= 3


# -- consumers


async def test_several_consumers_share_the_outcomes() -> None:
    seen: list[str] = []

    async def consume() -> None:
        async for outcome in outcomes:
            seen.append(outcome.job[0])
            await trio.lowlevel.checkpoint()

    async with send_many(Pool().deliver, jobs(20), 4) as outcomes, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(consume)
    assert sorted(seen) == sorted(job[0] for job in jobs(20))


async def test_no_outcome_is_lost_to_a_cancelled_consumer() -> None:
    seen: list[str] = []
    pool = Pool(is_open=False)
    async with send_many(pool.deliver, jobs(9), 2) as outcomes:
        for _ in range(3):
            with trio.move_on_after(0):
                await anext(outcomes)
        pool.gate.set()
        while len(seen) < 9:
            with trio.CancelScope() as scope:
                scope.cancel()
                seen.append((await anext(outcomes)).job[0])
            seen.append((await anext(outcomes)).job[0])
    assert sorted(seen) == sorted(job[0] for job in jobs(9))


async def test_each_step_is_a_checkpoint() -> None:
    async with send_many(Pool().deliver, jobs(3), 2) as outcomes:
        await wait_all_tasks_blocked()
        with trio.CancelScope() as scope:
            scope.cancel()
            await anext(outcomes)
        assert scope.cancelled_caught
        assert len([outcome async for outcome in outcomes]) == 3
        with trio.CancelScope() as scope:
            scope.cancel()
            await anext(outcomes)
        assert scope.cancelled_caught


async def test_after_an_error_of_the_jobs_there_are_none() -> None:
    class Broken:
        """An iterator that would go on after its error, as no generator does."""

        taken = 0

        def __iter__(self) -> Broken:
            return self

        def __next__(self) -> tuple[str, list[str], bytes]:
            self.taken += 1
            if self.taken == 3:
                raise OSError("no more")
            return ("a@a.test", ["b@b.test"], b"")

    broken = Broken()
    with pytest.raises(ExceptionGroup):
        async with send_many(Pool().deliver, broken, 4):
            pass
    assert broken.taken == 3


def test_a_long_job_is_short_in_a_repr() -> None:
    outcome = Outcome(("a@x.test", ["b@y.test"], b"x" * 100_000), error=ValueError("no"))
    assert len(repr(outcome)) < 400
