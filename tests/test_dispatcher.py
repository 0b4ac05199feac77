"""Which worker sends what: all of it but the queue is synchronous, so no task is needed here."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_smtp import Delivery, PoolClosedError, PoolFullError
from trio_smtp._client.message import Message
from trio_smtp._client.report import DeliveryReport
from trio_smtp._pool.attempt import Attempt, AttemptState
from trio_smtp._pool.dispatcher import Dispatcher


class Worker:
    """A worker that does nothing but remember."""

    def __init__(self) -> None:
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

    def _hire(self) -> Worker:
        self.workers.append(Worker())
        return self.workers[-1]

    def open(self, number: int = 0) -> Attempt | None:
        """A worker has its connection; what it takes."""
        self.dispatcher.opened(self.workers[number])
        return self.dispatcher.take()

    def start(self, number: int = 1) -> list[Attempt]:
        """Let so many workers have attempts."""
        attempts = [new() for _ in range(number)]
        assert all(self.dispatcher.submit(attempt) for attempt in attempts)
        first = len(self.workers) - number
        assert [self.open(first + worker) for worker in range(number)] == attempts
        return attempts

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
    assert (len(office.workers), office.dispatcher.connections) == (2, 2)
    assert [office.open(0), office.open(1)] == attempts[:2]
    assert not office.dispatcher.has_too_many


def test_an_idle_worker_is_woken_and_finds_its_attempt() -> None:
    office = Office()
    office.start()
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
    office.start(3)
    office.park_all()
    office.dispatcher.submit(new())
    assert [worker.wakes for worker in office.workers] == [0, 0, 1]


def test_a_worker_that_leaves_by_itself_is_not_idle() -> None:
    office = Office(1)
    office.start()
    [worker] = office.workers
    office.dispatcher.park(worker)
    assert office.dispatcher.unpark(worker) is None
    assert office.dispatcher.idle == 0
    assert not office.dispatcher.submit(new())
    assert worker.wakes == 0


def test_a_fresh_attempt_gets_a_new_worker_where_there_may_be_one_and_an_idle_one_else() -> None:
    office = Office(2)
    office.start()
    office.park_all()
    assert office.dispatcher.submit(new(fresh=True))
    assert (len(office.workers), office.dispatcher.idle) == (2, 1)
    assert office.dispatcher.submit(new(fresh=True))
    assert (len(office.workers), office.dispatcher.idle) == (2, 0)


def test_the_end_of_a_worker_makes_room() -> None:
    office = Office(1)
    office.start()
    assert not office.dispatcher.submit(new())
    office.dispatcher.ended(office.workers[0])
    assert office.dispatcher.connections == 0
    assert office.dispatcher.submit(new())


def test_the_end_of_a_worker_that_was_never_counted_changes_nothing() -> None:
    office = Office(1)
    office.dispatcher.ended(Worker())
    assert office.dispatcher.submit(new())
    assert not office.dispatcher.submit(new())


# -- a connection that is being opened


def test_the_attempt_that_has_waited_longest_is_taken_by_the_worker_that_is_ready_first() -> None:
    office = Office(3)
    attempts = [new(), new(), new()]
    for attempt in attempts:
        office.dispatcher.submit(attempt)
    assert [office.open(2), office.open(0), office.dispatcher.take()] == attempts
    assert office.open(1) is None


def test_a_connection_being_opened_for_none_is_for_the_next() -> None:
    office = Office(3)
    gone, next_one = new(), new()
    office.dispatcher.submit(gone)
    assert office.dispatcher.is_awaited
    assert office.dispatcher.withdraw(gone)
    assert not office.dispatcher.is_awaited
    assert office.dispatcher.submit(next_one)
    assert len(office.workers) == 1
    assert office.open() is next_one


def test_an_attempt_that_was_taken_can_not_be_withdrawn() -> None:
    office = Office()
    [attempt] = office.start()
    assert not office.dispatcher.withdraw(attempt)


def test_the_error_of_an_opening_is_for_the_attempt_that_waits_for_it() -> None:
    office = Office(2)
    attempts = [new(), new()]
    for attempt in attempts:
        office.dispatcher.submit(attempt)
    assert office.dispatcher.opening_failed(office.workers[1]) is attempts[0]
    office.dispatcher.ended(office.workers[1])
    assert len(office.workers) == 2
    assert office.open(0) is attempts[1]


def test_the_error_of_an_opening_for_none_is_for_none() -> None:
    office = Office(2)
    attempt = new()
    office.dispatcher.submit(attempt)
    office.dispatcher.submit(new())
    assert office.open(0) is attempt
    assert office.dispatcher.take() is not None
    assert office.dispatcher.opening_failed(office.workers[1]) is None


def test_what_is_given_back_is_taken_first_and_in_its_order() -> None:
    office = Office(2)
    later = new()
    first, second = office.start(2)
    office.dispatcher.ended(office.workers[0])
    office.dispatcher.submit(later)
    office.dispatcher.give_back([first, second])
    assert [office.dispatcher.take() for _ in range(3)] == [first, second, later]


def test_what_is_given_back_has_a_new_worker_or_else_an_idle_one() -> None:
    office = Office(2)
    [first] = office.start()
    office.park_all()
    office.dispatcher.give_back([first])
    assert len(office.workers) == 2
    assert office.open(1) is first
    office.dispatcher.give_back([first])
    assert office.dispatcher.unpark(office.workers[0]) is first


def test_what_is_given_back_where_none_is_idle_and_none_may_be_started_waits() -> None:
    office = Office(1)
    [first] = office.start()
    office.dispatcher.give_back([first])
    assert office.dispatcher.is_awaited
    office.dispatcher.ended(office.workers[0])
    assert office.open(1) is first


# -- the number of workers


def test_a_lower_limit_leaves_too_many_until_some_have_ended() -> None:
    office = Office(3)
    office.start(3)
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
    assert [office.open(0), office.open(1)] == [None, None]
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
    office = Office(3)
    office.start(2)
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
    office.start()
    office.park_all()
    attempt = new()
    office.dispatcher.submit(attempt)
    office.dispatcher.close()
    assert office.dispatcher.unpark(office.workers[0]) is attempt


def test_close_ends_connections_being_opened_and_sends_away_what_waits_for_them() -> None:
    office = Office(2)
    attempt = new()
    office.dispatcher.submit(attempt)
    office.dispatcher.close()
    assert isinstance(attempt.error, PoolClosedError)
    assert [worker.wakes for worker in office.workers] == [1]


def test_close_leaves_a_connection_to_a_message_that_was_begun() -> None:
    office = Office(3)
    begun, _ = office.start(2)
    office.dispatcher.submit(new())
    begun.detach()
    office.dispatcher.give_back([begun])
    office.dispatcher.close()
    assert begun.state is AttemptState.BEGUN
    assert [worker.wakes for worker in office.workers] == [1, 1, 0]
    assert office.open(2) is begun


def test_a_closed_dispatcher_ends_connections_being_opened_for_messages_that_were_served() -> None:
    office = Office(3)
    begun, _ = office.start(2)
    office.dispatcher.close()
    begun.detach()
    office.dispatcher.give_back([begun])
    assert len(office.workers) == 3
    assert office.dispatcher.take() is begun
    assert office.workers[2].wakes == 1


def test_repr() -> None:
    office = Office(2)
    office.start()
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
    assert office.dispatcher.in_line == 0
    return ended


async def test_the_first_to_wait_is_the_first_to_be_taken() -> None:
    office = Office(1)
    office.start()

    def act(attempts: list[Attempt]) -> None:
        assert office.dispatcher.in_line == 2
        assert office.dispatcher.take() is attempts[0]
        assert office.dispatcher.in_line == 1
        assert office.dispatcher.take() is attempts[1]
        assert office.dispatcher.take() is None

    assert len(await queueing(office, act)) == 2


async def test_nothing_is_taken_while_there_are_too_many_workers() -> None:
    office = Office(2)
    office.start(2)

    def act(attempts: list[Attempt]) -> None:
        office.dispatcher.set_limit(1)
        assert office.dispatcher.take() is None
        office.dispatcher.ended(office.workers[0])
        assert office.dispatcher.take() is attempts[0]

    assert len(await queueing(office, act)) == 1


async def test_waiting_callers_get_new_workers_when_there_may_be_more() -> None:
    office = Office(1)
    office.start()

    def act(attempts: list[Attempt]) -> None:
        office.dispatcher.ended(office.workers[0])
        assert (len(office.workers), office.dispatcher.in_line) == (2, 1)
        office.dispatcher.set_limit(2)
        assert (len(office.workers), office.dispatcher.in_line) == (3, 0)
        assert [office.open(1), office.open(2)] == attempts

    assert len(await queueing(office, act)) == 2


async def test_a_waiting_caller_has_the_connection_that_another_does_not_wait_for_any_more() -> None:
    office = Office(1)
    gone = new()
    office.dispatcher.submit(gone)

    def act(attempts: list[Attempt]) -> None:
        office.dispatcher.withdraw(gone)
        assert office.dispatcher.in_line == 1
        assert office.open(0) is attempts[0]

    assert len(await queueing(office, act)) == 1


async def test_a_waiting_caller_has_the_connection_of_one_that_another_worker_serves() -> None:
    office = Office(2)
    office.start()
    ahead = new()
    office.dispatcher.submit(ahead)

    def act(attempts: list[Attempt]) -> None:
        assert office.dispatcher.take() is ahead
        assert office.dispatcher.in_line == 1
        assert office.dispatcher.opening_failed(office.workers[1]) is attempts[0]

    assert len(await queueing(office, act)) == 1


async def test_waiting_callers_are_sent_away_by_the_close() -> None:
    office = Office(1)
    office.start()
    assert await queueing(office, lambda attempts: office.dispatcher.close()) == ["closed", "closed"]


async def test_callers_sent_away_by_the_close_count_as_waiting_until_they_have_run() -> None:
    office = Office(1)
    office.start()

    def act(attempts: list[Attempt]) -> None:
        assert office.dispatcher.take() is attempts[0]
        office.dispatcher.close()
        assert office.dispatcher.in_line == 1
        assert office.dispatcher.take() is None

    assert sorted(map(str, await queueing(office, act)))[-1:] == ["closed"]


async def test_a_cancelled_caller_is_not_taken() -> None:
    office = Office(1)
    office.start()
    attempt = new()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(office.dispatcher.queue, attempt)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        assert office.dispatcher.take() is None  # it has not run since
    assert office.dispatcher.in_line == 0
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
