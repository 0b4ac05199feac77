"""Which worker sends what: all of it but the queue is synchronous, so no task is needed here."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_smtp import Delivery, PoolClosedError, PoolFullError
from trio_smtp._client.message import Message
from trio_smtp._client.report import DeliveryReport
from trio_smtp._pool.attempt import Attempt
from trio_smtp._pool.dispatcher import Dispatcher


class Worker:
    """A worker that does nothing but remember."""

    def __init__(self, attempt: Attempt | None) -> None:
        self.attempt = attempt
        self.wakes = 0

    def wake(self) -> None:
        self.wakes += 1


class Office:
    """A dispatcher and the workers it has hired."""

    def __init__(self, max_connections: int = 2, *, min_idle: int = 0, max_waiting: int | None = None) -> None:
        self.workers: list[Worker] = []
        self.dispatcher = Dispatcher(
            self._hire, max_connections=max_connections, min_idle=min_idle, max_waiting=max_waiting
        )

    def _hire(self, attempt: Attempt | None) -> Worker:
        self.workers.append(Worker(attempt))
        return self.workers[-1]

    def park_all(self) -> None:
        for worker in self.workers:
            self.dispatcher.park(worker)


def new(*, fresh: bool = False) -> Attempt:
    return Attempt(DeliveryReport(Message("a@x.test", ["b@y.test"], b"x\r\n")), fresh=fresh)


# -- a worker for an attempt


def test_a_new_worker_for_each_attempt_until_there_are_enough() -> None:
    office = Office(2)
    attempts = [new(), new(), new()]
    assert [office.dispatcher.submit(attempt) for attempt in attempts] == [True, True, False]
    assert [worker.attempt for worker in office.workers] == attempts[:2]
    assert office.dispatcher.connections == 2
    assert not office.dispatcher.has_too_many


def test_an_idle_worker_is_woken_and_finds_its_attempt() -> None:
    office = Office()
    office.dispatcher.submit(new())
    [worker] = office.workers
    office.dispatcher.park(worker)
    assert office.dispatcher.idle == 1
    attempt = new()
    assert office.dispatcher.submit(attempt)
    assert (worker.wakes, office.dispatcher.idle, len(office.workers)) == (1, 0, 1)
    assert office.dispatcher.unpark(worker) is attempt
    assert office.dispatcher.unpark(worker) is None


def test_the_worker_used_last_is_used_next() -> None:
    office = Office(3)
    for _ in range(3):
        office.dispatcher.submit(new())
    office.park_all()
    office.dispatcher.submit(new())
    assert [worker.wakes for worker in office.workers] == [0, 0, 1]


def test_a_worker_that_leaves_by_itself_is_not_idle() -> None:
    office = Office(1)
    office.dispatcher.submit(new())
    [worker] = office.workers
    office.dispatcher.park(worker)
    assert office.dispatcher.unpark(worker) is None
    assert office.dispatcher.idle == 0
    assert not office.dispatcher.submit(new())
    assert worker.wakes == 0


def test_a_fresh_attempt_gets_a_new_worker_where_there_may_be_one_and_an_idle_one_else() -> None:
    office = Office(2)
    office.dispatcher.submit(new())
    office.park_all()
    assert office.dispatcher.submit(new(fresh=True))
    assert (len(office.workers), office.dispatcher.idle) == (2, 1)
    assert office.dispatcher.submit(new(fresh=True))
    assert (len(office.workers), office.dispatcher.idle) == (2, 0)


def test_the_end_of_a_worker_makes_room() -> None:
    office = Office(1)
    office.dispatcher.submit(new())
    assert not office.dispatcher.submit(new())
    office.dispatcher.ended(office.workers[0])
    assert office.dispatcher.connections == 0
    assert office.dispatcher.submit(new())


def test_the_end_of_a_worker_that_was_never_counted_changes_nothing() -> None:
    office = Office(1)
    office.dispatcher.ended(Worker(None))
    assert office.dispatcher.submit(new())
    assert not office.dispatcher.submit(new())


# -- the number of workers


def test_a_lower_limit_leaves_too_many_until_some_have_ended() -> None:
    office = Office(3)
    for _ in range(3):
        office.dispatcher.submit(new())
    office.dispatcher.set_limit(1)
    assert office.dispatcher.has_too_many
    office.dispatcher.ended(office.workers[0])
    assert office.dispatcher.has_too_many
    office.dispatcher.ended(office.workers[1])
    assert not office.dispatcher.has_too_many
    assert not office.dispatcher.submit(new())
    office.dispatcher.set_limit(2)
    assert office.dispatcher.submit(new())


def test_min_idle_is_filled_and_can_not_be_spared() -> None:
    office = Office(3, min_idle=2)
    office.dispatcher.fill()
    assert [worker.attempt for worker in office.workers] == [None, None]
    assert not office.dispatcher.can_spare
    office.dispatcher.submit(new())
    assert office.dispatcher.can_spare


def test_no_worker_is_hired_beyond_the_limit_to_fill() -> None:
    office = Office(3, min_idle=3)
    office.dispatcher.set_limit(1)
    office.dispatcher.fill()
    assert len(office.workers) == 1


# -- the end


def test_close_wakes_every_worker_and_takes_no_more() -> None:
    office = Office(2)
    office.dispatcher.submit(new())
    office.dispatcher.submit(new())
    office.dispatcher.park(office.workers[0])
    office.dispatcher.close()
    assert [worker.wakes for worker in office.workers] == [1, 1]
    assert office.dispatcher.idle == 0
    assert office.dispatcher.closed.is_set()
    with pytest.raises(PoolClosedError) as caught:
        office.dispatcher.submit(new())
    assert caught.value.delivery is Delivery.NOT_SENT
    office.dispatcher.fill()
    assert len(office.workers) == 2


def test_an_attempt_given_before_the_close_is_still_found() -> None:
    office = Office(1)
    office.dispatcher.submit(new())
    office.park_all()
    attempt = new()
    office.dispatcher.submit(attempt)
    office.dispatcher.close()
    assert office.dispatcher.unpark(office.workers[0]) is attempt


def test_repr() -> None:
    office = Office(2)
    office.dispatcher.submit(new())
    office.park_all()
    assert repr(office.dispatcher) == "<Dispatcher 1 of 2 workers (1 idle), 0 waiting>"
    office.dispatcher.close()
    assert repr(office.dispatcher) == "<Dispatcher 1 of 2 workers (0 idle), 0 waiting, closing>"


# -- the queue


async def queueing(office: Office, act: Callable[[list[Attempt]], None], number: int = 2) -> list[Attempt | str]:
    """Let callers wait, then `act` with their attempts; those whose wait ended, and how."""
    ended: list[Attempt | str] = []

    async def call(attempt: Attempt) -> None:
        try:
            await office.dispatcher.queue(attempt)
        except PoolClosedError:
            ended.append("closed")
        else:
            ended.append(attempt)

    attempts = [new() for _ in range(number)]
    async with trio.open_nursery() as nursery:
        for attempt in attempts:
            assert not office.dispatcher.submit(attempt)
            nursery.start_soon(call, attempt)
            await wait_all_tasks_blocked()
        act(attempts)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert office.dispatcher.waiting == 0
    return ended


async def test_the_first_to_wait_is_the_first_to_be_taken() -> None:
    office = Office(1)
    office.dispatcher.submit(new())

    def act(attempts: list[Attempt]) -> None:
        assert office.dispatcher.waiting == 2
        assert office.dispatcher.take() is attempts[0]
        assert office.dispatcher.waiting == 1
        assert office.dispatcher.take() is attempts[1]
        assert office.dispatcher.take() is None

    assert len(await queueing(office, act)) == 2


async def test_nothing_is_taken_while_there_are_too_many_workers() -> None:
    office = Office(2)
    office.dispatcher.submit(new())
    office.dispatcher.submit(new())

    def act(attempts: list[Attempt]) -> None:
        office.dispatcher.set_limit(1)
        assert office.dispatcher.take() is None
        office.dispatcher.ended(office.workers[0])
        assert office.dispatcher.take() is attempts[0]

    assert len(await queueing(office, act)) == 1


async def test_waiting_callers_get_new_workers_when_there_may_be_more() -> None:
    office = Office(1)
    office.dispatcher.submit(new())

    def act(attempts: list[Attempt]) -> None:
        office.dispatcher.ended(office.workers[0])
        assert [worker.attempt for worker in office.workers[1:]] == attempts[:1]
        office.dispatcher.set_limit(2)
        assert [worker.attempt for worker in office.workers[1:]] == attempts

    assert len(await queueing(office, act)) == 2


async def test_waiting_callers_are_sent_away_by_the_close() -> None:
    office = Office(1)
    office.dispatcher.submit(new())
    assert await queueing(office, lambda attempts: office.dispatcher.close()) == ["closed", "closed"]


async def test_callers_sent_away_by_the_close_count_as_waiting_until_they_have_run() -> None:
    office = Office(1)
    office.dispatcher.submit(new())

    def act(attempts: list[Attempt]) -> None:
        assert office.dispatcher.take() is attempts[0]
        office.dispatcher.close()
        assert office.dispatcher.waiting == 1
        assert office.dispatcher.take() is None

    assert sorted(map(str, await queueing(office, act)))[-1:] == ["closed"]


async def test_a_cancelled_caller_is_not_taken() -> None:
    office = Office(1)
    office.dispatcher.submit(new())
    attempt = new()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(office.dispatcher.queue, attempt)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        assert office.dispatcher.take() is None  # it has not run since
    assert office.dispatcher.waiting == 0
    assert office.dispatcher.take() is None


async def test_max_waiting() -> None:
    office = Office(1, max_waiting=1)
    office.dispatcher.submit(new())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(office.dispatcher.queue, new())
        await wait_all_tasks_blocked()
        with pytest.raises(PoolFullError) as caught:
            await office.dispatcher.queue(new())
        assert caught.value.delivery is Delivery.NOT_SENT
        with trio.move_on_after(0) as scope:
            await office.dispatcher.queue(new(), patient=True)
        assert scope.cancelled_caught
        nursery.cancel_scope.cancel()


async def test_a_shortage_is_told_when_a_worker_ends() -> None:
    office = Office(2, min_idle=1)
    office.dispatcher.fill()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(office.dispatcher.shortage)
        await wait_all_tasks_blocked()
        office.dispatcher.ended(office.workers[0])
