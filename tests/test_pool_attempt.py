"""One try of a message between its caller and its worker: the outcome, and the one way to be cancelled."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_smtp._client.message import Message
from trio_smtp._client.report import DeliveryReport
from trio_smtp._pool.attempt import Attempt, AttemptState, Cancellation
from trio_smtp._wire.waits import Interrupted


class Exchange:
    """Notes what was done to it."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def abandon(self) -> None:
        self.calls.append("abandon")

    def abort(self) -> None:
        self.calls.append("abort")


@pytest.fixture
def attempt() -> Attempt:
    return Attempt(DeliveryReport(Message("a@a.test", ["b@b.test"], b"x\r\n", None, None)))


async def test_the_outcome_is_set_once_and_wakes_the_caller(attempt: Attempt) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(attempt.wait)
        await wait_all_tasks_blocked()
        attempt.begin(Exchange())
        assert attempt.state is AttemptState.RUNNING
        error = ValueError()
        attempt.finish(error)
        attempt.finish()
    assert (attempt.state, attempt.error) == (AttemptState.DONE, error)
    await attempt.wait()  # at once
    assert "done" in repr(attempt)


async def test_the_caller_runs_before_its_worker_goes_on(attempt: Attempt) -> None:
    order: list[str] = []

    async def call() -> None:
        await attempt.wait()
        order.append("caller")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        await wait_all_tasks_blocked()
        attempt.finish()
        await attempt.let_caller_run()
        order.append("worker")
    assert order == ["caller", "worker"]
    await attempt.let_caller_run()  # no caller: one turn


async def test_cancelled_before_a_worker_begins_it_is_over_at_once(attempt: Attempt) -> None:
    assert not await attempt.cancel(5)
    assert attempt.cancellation is Cancellation.OVERDUE
    with pytest.raises(Interrupted):
        await attempt.run_cancellable(trio.sleep_forever)


async def test_cancelled_while_its_connection_is_opened(attempt: Attempt) -> None:
    async def work() -> None:
        try:
            await attempt.run_cancellable(trio.sleep_forever)
        except Interrupted as exc:
            attempt.finish(exc)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(work)
        await wait_all_tasks_blocked()
        assert not await attempt.cancel(5)
    assert attempt.state is AttemptState.DONE


async def test_cancelled_in_an_exchange_it_is_interrupted_and_awaited(attempt: Attempt) -> None:
    exchange = Exchange()
    attempt.begin(exchange)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(attempt.cancel, 5)
        await wait_all_tasks_blocked()
        assert exchange.calls == ["abandon"]
        attempt.finish(Interrupted())


async def test_cancelled_among_others_the_caller_goes_and_the_last_one_left_is_interrupted(attempt: Attempt) -> None:
    attempt.begin(None)
    assert not await attempt.cancel(5)
    assert attempt.state is AttemptState.RUNNING
    exchange = Exchange()
    attempt.begin(exchange)
    assert exchange.calls == ["abandon"]


async def test_after_the_end_has_left_the_grace_comes_first(
    attempt: Attempt, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    monkeypatch.setattr(DeliveryReport, "has_left", True)
    exchange = Exchange()
    attempt.begin(exchange)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(attempt.cancel, 5)
        await wait_all_tasks_blocked()
        assert (attempt.cancellation, exchange.calls) == (Cancellation.ASKED, [])
        await trio.sleep(5.1)
        assert exchange.calls == ["abort", "abandon"]
        attempt.finish(Interrupted())
