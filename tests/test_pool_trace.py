"""Events of a pool."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from trio_smtp import TraceEvent
from trio_smtp._pool.trace import Tracer


async def test_an_event_for_what_began_and_is_over(autojump_clock: MockClock) -> None:
    events: list[TraceEvent] = []
    tracer = Tracer(events.append)
    assert tracer.is_on
    error = ValueError("x")
    await trio.sleep(5)
    tracer.tell("connect", 2.0, 3, detail="mail.test", error=error)
    [event] = events
    assert (event.name, event.connection, event.detail, event.error) == ("connect", 3, "mail.test", error)
    assert event.seconds == pytest.approx(3)


def test_an_event_for_what_takes_no_time_or_a_known_time() -> None:
    events: list[TraceEvent] = []
    tracer = Tracer(events.append)
    tracer.note("alone", connection=2, detail="mail.test")
    tracer.note("retry", 1.5)
    assert [(event.name, event.seconds, event.connection) for event in events] == [("alone", 0, 2), ("retry", 1.5, 0)]


def test_without_a_function_nothing_is_made_and_no_clock_read() -> None:
    tracer = Tracer(None)
    assert not tracer.is_on
    tracer.tell("send", 0.0)  # outside of Trio, where there is no clock
    tracer.note("retry", 1.0)
