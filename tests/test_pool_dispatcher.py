"""Attempts and workers brought together, without a connection: who gets what, who waits, how many workers there are."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_smtp import PoolClosedError, PoolFullError
from trio_smtp._client.message import Message
from trio_smtp._client.report import DeliveryReport
from trio_smtp._pool.attempt import Attempt
from trio_smtp._pool.dispatcher import Dispatcher


class Worker:
    """A worker that does nothing but note what it was told."""

    def __init__(self, attempt: Attempt | None) -> None:
        self.attempt = attempt
        self.woken = 0

    def wake(self) -> None:
        self.woken += 1


class Office:
    """A dispatcher and those that it has hired."""

    def __init__(self, connections: int = 1, **options: Any) -> None:
        self.hired: list[Worker] = []
        self.dispatcher = Dispatcher(self._hire, max_connections=connections, **options)

    def _hire(self, attempt: Attempt | None) -> Worker:
        self.hired.append(Worker(attempt))
        return self.hired[-1]


def attempt(*, fresh: bool = False) -> Attempt:
    return Attempt(DeliveryReport(Message("a@a.test", ["b@b.test"], b"x\r\n", None, None)), fresh=fresh)


def test_a_new_worker_while_there_may_be_one_and_the_idle_one_used_last_otherwise() -> None:
    office = Office(2)
    dispatcher = office.dispatcher
    first, second, third = attempt(), attempt(), attempt()
    assert dispatcher.submit(first)
    assert dispatcher.submit(second)
    assert [worker.attempt for worker in office.hired] == [first, second]
    assert not dispatcher.submit(third)
    for worker in office.hired:
        dispatcher.park(worker)
    assert dispatcher.submit(third)
    assert [worker.woken for worker in office.hired] == [0, 1]
    assert dispatcher.unpark(office.hired[1]) is third
    assert dispatcher.unpark(office.hired[0]) is None
    assert (dispatcher.connections, dispatcher.idle) == (2, 0)


def test_an_attempt_that_met_a_dead_connection_gets_a_new_one_if_there_may_be_one() -> None:
    office = Office(2)
    dispatcher = office.dispatcher
    dispatcher.submit(attempt())
    dispatcher.park(office.hired[0])
    fresh = attempt(fresh=True)
    assert dispatcher.submit(fresh)
    assert [worker.woken for worker in office.hired] == [0, 0]
    assert office.hired[1].attempt is fresh
    assert dispatcher.submit(attempt(fresh=True))
    assert office.hired[0].woken == 1


async def test_callers_wait_in_order_and_a_cancelled_one_leaves_no_trace() -> None:
    office = Office()
    dispatcher = office.dispatcher
    dispatcher.submit(attempt())
    waiting = [attempt() for _ in range(3)]
    scopes = [trio.CancelScope() for _ in waiting]

    async def wait(number: int) -> None:
        with scopes[number]:
            await dispatcher.queue(waiting[number])

    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(wait, number)
            await wait_all_tasks_blocked()
        assert dispatcher.waiting == 3
        scopes[1].cancel()
        await wait_all_tasks_blocked()
        assert dispatcher.waiting == 2
        assert dispatcher.take() is waiting[0]
        assert dispatcher.take() is waiting[2]
        assert dispatcher.take() is None
        assert dispatcher.waiting == 0


async def test_a_worker_s_end_starts_another_for_the_caller_that_waits() -> None:
    office = Office()
    dispatcher = office.dispatcher
    dispatcher.submit(attempt())
    late = attempt()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dispatcher.queue, late)
        await wait_all_tasks_blocked()
        dispatcher.ended(office.hired[0])
    assert office.hired[1].attempt is late
    assert dispatcher.connections == 1


async def test_no_more_callers_wait_than_max_waiting_but_a_patient_one() -> None:
    office = Office(max_waiting=1)
    dispatcher = office.dispatcher
    dispatcher.submit(attempt())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dispatcher.queue, attempt())
        await wait_all_tasks_blocked()
        with pytest.raises(PoolFullError) as caught:
            await dispatcher.queue(attempt())
        assert caught.value.delivery == "not_sent"

        async def wait_patiently() -> None:
            await dispatcher.queue(attempt(), patient=True)

        nursery.start_soon(wait_patiently)
        await wait_all_tasks_blocked()
        assert dispatcher.waiting == 2
        nursery.cancel_scope.cancel()


def test_with_too_many_workers_none_takes_and_a_higher_limit_lets_more_in() -> None:
    office = Office(2)
    dispatcher = office.dispatcher
    dispatcher.submit(attempt())
    dispatcher.submit(attempt())
    dispatcher.set_limit(1)
    assert dispatcher.has_too_many
    assert dispatcher.take() is None
    dispatcher.ended(office.hired[0])
    assert not dispatcher.has_too_many
    assert not dispatcher.submit(attempt())
    dispatcher.set_limit(2)
    assert dispatcher.submit(attempt())


async def test_workers_to_keep_are_started_and_missed_when_they_end() -> None:
    office = Office(3, min_idle=2)
    dispatcher = office.dispatcher
    dispatcher.fill()
    assert [worker.attempt for worker in office.hired] == [None, None]
    assert not dispatcher.can_spare
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dispatcher.shortage)
        await wait_all_tasks_blocked()
        dispatcher.ended(office.hired[0])
    dispatcher.fill()
    assert dispatcher.connections == 2


async def test_closing_sends_callers_away_and_wakes_every_worker() -> None:
    office = Office(min_idle=1)
    dispatcher = office.dispatcher
    dispatcher.submit(attempt())
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(PoolClosedError):
                await dispatcher.queue(attempt())

        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        dispatcher.close()
    assert dispatcher.closed.is_set()
    assert office.hired[0].woken == 1
    assert dispatcher.waiting == 0
    with pytest.raises(PoolClosedError):
        dispatcher.submit(attempt())
    dispatcher.ended(office.hired[0])
    dispatcher.fill()
    assert len(office.hired) == 1
    assert "closing" in repr(dispatcher)
