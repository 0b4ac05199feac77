"""Which hosts bear envelopes behind an unanswered end, as they have shown."""

from __future__ import annotations

import pytest

from trio_smtp import TraceEvent
from trio_smtp._pool.riding import Riding, Sign
from trio_smtp._pool.trace import Tracer

ONE, TWO = ("one.test", 25), ("two.test", None)


def test_a_host_bears_it_until_it_has_shown_that_it_does_not() -> None:
    riding = Riding(Tracer(None))
    assert riding.is_borne_by(ONE)
    riding.saw(Sign.REFUSED, ONE, 1)
    assert not riding.is_borne_by(ONE)
    assert riding.is_borne_by(TWO)
    riding.saw(Sign.TAKEN, ONE, 1)
    assert not riding.is_borne_by(ONE)
    assert repr(riding) == "<Riding: 0 hosts bear it, 1 do not>"


@pytest.mark.parametrize("sign", [Sign.REFUSED, Sign.FORGOTTEN])
def test_a_clear_sign_counts_though_the_host_has_taken_one(sign: Sign) -> None:
    riding = Riding(Tracer(None))
    riding.saw(Sign.TAKEN, ONE, 1)
    riding.saw(sign, ONE, 1)
    assert not riding.is_borne_by(ONE)


def test_a_loss_counts_only_if_the_host_has_taken_none() -> None:
    riding = Riding(Tracer(None))
    riding.saw(Sign.TAKEN, ONE, 1)
    riding.saw(Sign.LOST, ONE, 1)
    riding.saw(Sign.LOST, TWO, 2)
    assert riding.is_borne_by(ONE)
    assert not riding.is_borne_by(TWO)


def test_a_host_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "trio_smtp")
    events: list[TraceEvent] = []
    riding = Riding(Tracer(events.append))
    for sign in (Sign.TAKEN, Sign.FORGOTTEN, Sign.REFUSED, Sign.LOST):
        riding.saw(sign, ONE, 7)
    riding.saw(Sign.REFUSED, TWO, 8)
    assert [(event.name, event.connection, event.detail) for event in events] == [
        ("alone", 7, "one.test:25"),
        ("alone", 8, "two.test"),
    ]
    assert [record.levelname for record in caplog.records] == ["INFO", "INFO"]
    assert "answered the end, and never the envelope" in caplog.records[0].getMessage()


def test_a_thousand_hosts_are_remembered_and_the_oldest_is_forgotten() -> None:
    riding = Riding(Tracer(None))
    for number in range(1001):
        riding.saw(Sign.REFUSED, (f"h{number}.test", 25), number)
    assert riding.is_borne_by(("h0.test", 25))
    assert not riding.is_borne_by(("h1.test", 25))


def test_hosts_that_bear_it_are_forgotten_before_those_that_do_not() -> None:
    riding = Riding(Tracer(None))
    riding.saw(Sign.REFUSED, ONE, 1)
    for number in range(1500):
        riding.saw(Sign.TAKEN, (f"h{number}.test", 25), number)
    assert not riding.is_borne_by(ONE)
    assert repr(riding) == "<Riding: 999 hosts bear it, 1 do not>"
