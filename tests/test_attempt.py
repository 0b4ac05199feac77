"""One try of a message: its outcome, and the ways in which a cancelled caller ends it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_smtp._client.message import Message
from trio_smtp._client.report import DeliveryReport
from trio_smtp._pool.attempt import Attempt, AttemptState, Cancellation, lent_scope
from trio_smtp._protocol.client.transaction import Transaction
from trio_smtp._wire.waits import Interrupted

GRACE = 10


class Exchange:
    """A connection that remembers what was done to it, and fails the attempt when it is interrupted."""

    def __init__(self, attempt: Attempt, *, answers: bool = True) -> None:
        self._attempt = attempt
        self._answers = answers
        self.done: list[str] = []

    def abandon(self) -> None:
        self.done.append("abandon")
        if self._answers:
            self._attempt.finish(Interrupted())

    def abort(self) -> None:
        self.done.append("abort")


def new() -> Attempt:
    return Attempt(DeliveryReport(Message("a@x.test", ["b@y.test"], b"x\r\n")))


def let_leave(attempt: Attempt) -> None:
    """The end of the message is on its way."""
    transaction = Transaction(["b@y.test"])
    transaction.begun = transaction.ended = True
    attempt.report.track(transaction)


# -- the outcome


def test_states_and_repr() -> None:
    attempt = new()
    states: list[AttemptState] = [attempt.state]
    assert repr(attempt) == "<Attempt waiting>"
    attempt.attach(None)
    states.append(attempt.state)
    attempt.finish(ValueError("x"))
    states.append(attempt.state)
    assert states == [AttemptState.WAITING, AttemptState.BEGUN, AttemptState.DONE]
    assert repr(attempt) == "<Attempt done, ValueError('x')>"


def test_the_first_outcome_stays() -> None:
    attempt = new()
    attempt.finish()
    attempt.finish(ValueError("too late"))
    assert attempt.error is None


async def test_a_caller_waits_for_the_outcome() -> None:
    attempt = new()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(attempt.wait)
        await wait_all_tasks_blocked()
        attempt.finish()


async def test_no_wait_for_an_outcome_that_is_set() -> None:
    attempt = new()
    attempt.finish()
    with trio.testing.assert_no_checkpoints():
        await attempt.wait()


async def test_a_caller_may_be_cancelled_while_it_waits() -> None:
    attempt = new()
    with trio.move_on_after(0) as scope:
        await attempt.wait()
    assert scope.cancelled_caught
    attempt.finish()  # wakes no task


# -- the order of worker and caller


@pytest.mark.parametrize("turn", range(20))
async def test_the_caller_runs_before_the_worker_that_lets_it(turn: int) -> None:
    order: list[str] = []

    async def call() -> None:
        await attempt.wait()
        order.append("caller")

    async def work() -> None:
        attempt.finish()
        await attempt.let_caller_run()
        order.append("worker")

    attempt = new()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        await wait_all_tasks_blocked()
        nursery.start_soon(work)
    assert order == ["caller", "worker"]


async def test_without_a_caller_the_worker_waits_a_turn() -> None:
    attempt = new()
    attempt.finish()
    with trio.testing.assert_checkpoints():
        await attempt.let_caller_run()


async def test_a_worker_may_be_cancelled_while_it_lets_the_caller_run() -> None:
    attempt = new()
    heard = False

    async def call() -> None:
        nonlocal heard
        await attempt.wait()
        heard = True

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        await wait_all_tasks_blocked()
        attempt.finish()
        with trio.CancelScope() as scope:
            scope.cancel()
            await attempt.let_caller_run()
        assert scope.cancelled_caught
    assert heard


# -- cancellation


async def test_cancelled_before_a_worker_has_begun() -> None:
    attempt = new()
    assert not await attempt.cancel(GRACE)
    assert attempt.state is AttemptState.WAITING
    with pytest.raises(Interrupted):
        await attempt.run_cancellable(trio.sleep_forever)


async def test_cancelled_before_the_end_has_left_is_interrupted_at_once(autojump_clock: MockClock) -> None:
    attempt = new()
    exchange = Exchange(attempt)
    attempt.attach(exchange)
    assert not await attempt.cancel(GRACE)
    assert exchange.done == ["abandon"]
    assert isinstance(attempt.error, Interrupted)
    assert trio.current_time() == 0


async def test_cancelled_after_the_end_waits_for_the_reply(autojump_clock: MockClock) -> None:
    attempt = new()
    exchange = Exchange(attempt)
    attempt.attach(exchange)
    let_leave(attempt)
    transaction = attempt.report.transaction
    assert transaction is not None

    async def answer() -> None:
        await trio.sleep(GRACE - 1)
        attempt.report.remaining.clear()
        attempt.finish()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        assert await attempt.cancel(GRACE)
    assert exchange.done == []
    assert attempt.cancellation is Cancellation.ASKED


async def test_cancelled_after_the_end_gives_up_after_the_grace(autojump_clock: MockClock) -> None:
    attempt = new()
    exchange = Exchange(attempt)
    attempt.attach(exchange)
    let_leave(attempt)
    assert not await attempt.cancel(GRACE)
    assert exchange.done == ["abort", "abandon"]
    assert trio.current_time() == pytest.approx(GRACE)


async def test_cancelled_with_others_in_flight_goes_at_once_unless_it_has_left(autojump_clock: MockClock) -> None:
    attempt = new()
    attempt.attach(None)
    assert not await attempt.cancel(GRACE)
    assert trio.current_time() == 0
    assert attempt.cancellation is Cancellation.OVERDUE
    # When it is the last one in flight, the wait for it is ended.
    exchange = Exchange(attempt)
    attempt.attach(exchange)
    assert exchange.done == ["abandon"]


async def test_cancelled_between_two_exchanges_goes_at_once() -> None:
    attempt = new()
    exchange = Exchange(attempt)
    attempt.attach(exchange)
    attempt.detach()
    assert not await attempt.cancel(GRACE)
    assert exchange.done == []


async def test_what_only_a_scope_can_end_is_ended_by_it() -> None:
    attempt = new()
    ended: list[str] = []

    async def work() -> None:
        try:
            await attempt.run_cancellable(trio.sleep_forever)
        except Interrupted as exc:
            ended.append("interrupted")
            attempt.finish(exc)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(work)
        await wait_all_tasks_blocked()
        assert not await attempt.cancel(GRACE)
        assert ended == ["interrupted"]


async def test_a_scope_around_an_exchange_is_cancelled_in_its_place() -> None:
    attempt = new()
    exchange, scope = Exchange(attempt), trio.CancelScope()
    attempt.attach(exchange, scope)
    assert attempt.end_wait()
    assert scope.cancel_called
    assert exchange.done == []


async def test_a_scope_is_left_alone_when_the_attempt_has_gone() -> None:
    scope = trio.CancelScope()
    detached, done = new(), new()
    for attempt in (detached, done):
        attempt.attach(Exchange(attempt), scope)
    detached.detach()
    done.finish()
    assert not detached.end_wait()
    assert not done.end_wait()
    assert not scope.cancel_called


async def test_a_scope_lent_to_attempts_keeps_no_error_but_those_of_its_cancellation() -> None:
    async def fail(wait: Callable[[], Awaitable[None]]) -> None:
        try:
            await wait()
        finally:
            raise KeyError("mine")

    with pytest.raises(KeyError), lent_scope():
        await fail(trio.lowlevel.checkpoint)
    with lent_scope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail, trio.sleep_forever)
            nursery.start_soon(trio.sleep_forever)
            scope.cancel()
    assert scope.cancelled_caught


async def test_work_that_is_not_cancelled_ends_as_it_does() -> None:
    async def fail() -> None:
        await trio.lowlevel.checkpoint()
        raise KeyError("mine")

    attempt = new()
    await attempt.run_cancellable(trio.lowlevel.checkpoint)
    with pytest.raises(KeyError):
        await attempt.run_cancellable(fail)
    assert not attempt.end_wait()
