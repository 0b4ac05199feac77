# Waits: which wait a reason ends, and what is left of a reason that came too late.
from __future__ import annotations

import math

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_smtp import SMTPTimeoutError
from trio_smtp._wire.timekeeper import Timekeeper
from trio_smtp._wire.waits import NOTHING, RECEIVE, SEND, Interrupted, Waits


def waits_for(what, *, timed: bool = False) -> Waits:
    ours, theirs = trio.socket.socketpair()
    theirs.close()
    waits = Waits(ours, Timekeeper().timer(lambda: None) if timed else None)
    waits.waiting = what
    return waits


@pytest.mark.parametrize(
    ("way", "waiting", "ended"),
    [
        ("interrupt", RECEIVE, True),
        ("interrupt", SEND, False),
        ("interrupt", NOTHING, False),
        ("abandon", RECEIVE, True),
        ("abandon", SEND, True),
        ("abandon", NOTHING, False),
    ],
)
async def test_an_interruption_ends_this_wait_or_the_next_receive(way, waiting, ended):
    waits = waits_for(waiting)
    getattr(waits, way)()
    assert waits.waiting is (NOTHING if ended else waiting)
    with pytest.raises(Interrupted):
        waits.heed_reason()
    waits.heed_reason()  # it ends one
    waits.close()


@pytest.mark.parametrize("waiting", [RECEIVE, SEND])
async def test_a_time_out_ends_only_the_wait_in_progress(waiting):
    waits = waits_for(waiting, timed=True)
    waits.expire()
    assert waits.waiting is NOTHING
    assert isinstance(waits.reason, SMTPTimeoutError)
    waits.heed_reason()  # it came with the last octets: void
    assert waits.reason is None
    waits.expire()  # nothing is waited for
    assert waits.reason is None
    waits.close()


async def test_without_a_timer_nothing_expires():
    waits = waits_for(RECEIVE)
    waits.expire()
    assert waits.waiting is RECEIVE
    waits.close()


async def test_a_timer_is_of_no_use_without_a_socket():
    assert Waits(None, Timekeeper().timer(lambda: None)).timer is None


@pytest.mark.parametrize("timed", [True, False])
async def test_a_scope_has_the_deadline_where_no_timer_has_it(timed: bool, mock_clock: MockClock):
    waits = waits_for(RECEIVE, timed=timed)
    scope = waits.scope_until(5)
    assert scope.deadline == (math.inf if timed else 5)
    if timed:
        assert waits.timer.deadline == 5  # type: ignore[union-attr]
    waits.interrupt()
    assert scope.cancel_called
    waits.end()
    assert waits.scope is None
    assert waits.waiting is NOTHING
    waits.close()


async def test_a_wait_for_the_socket_needs_no_scope():
    waits = waits_for(RECEIVE)
    ours, theirs = trio.socket.socketpair()
    waits.socket.close()  # type: ignore[union-attr]
    waits.socket = ours

    async def wait() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await trio.lowlevel.wait_readable(ours)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        waits.interrupt()
    assert isinstance(waits.take_reason(), Interrupted)
    assert waits.take_reason() is None
    theirs.close()
    waits.close()


async def test_a_scope_that_was_cancelled_for_no_reason_was_at_its_deadline():
    waits = waits_for(RECEIVE)
    assert isinstance(waits.woken(), trio.ClosedResourceError)
    assert isinstance(waits.take_reason(), SMTPTimeoutError)
    waits.abandon()
    waits.woken()
    assert isinstance(waits.take_reason(), Interrupted)
    waits.close()


async def test_how_it_shows():
    waits = waits_for(SEND)
    assert repr(waits) == "<Waits for room to send>"
    waits.close()
