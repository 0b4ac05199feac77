"""Rate limits over all workers: never more than n starts in any window of s seconds."""

from __future__ import annotations

import heapq

from hypothesis import given, settings
from hypothesis import strategies as st

from trio_smtp.outbox._rates import Limit, admit, from_json, to_json


def test_the_first_n_start_at_once_and_the_next_waits_for_the_window():
    known: dict = {}
    limits = {"": Limit(2, 10.0)}
    for at in (0.0, 1.0):
        known, delay = admit(known, limits, 100 + at)
        assert delay == 0
    known, delay = admit(known, limits, 102.0)
    assert 7.99 < delay < 8.02
    known, delay = admit(known, limits, 110.0)
    assert delay > 0  # exactly at its end is not after it
    known, delay = admit(known, limits, 110.01)
    assert delay == 0


def test_a_start_counts_in_all_its_scopes_or_in_none():
    limits = {"": Limit(10, 10.0), "y.test": Limit(1, 10.0)}
    known, delay = admit({}, limits, 100.0)
    assert delay == 0
    known, delay = admit(known, limits, 101.0)
    assert delay > 0
    assert len(known[""][0]) == 1
    _, delay = admit(known, {"": Limit(10, 10.0), "z.test": Limit(1, 10.0)}, 101.0)
    assert delay == 0


def test_a_clock_that_is_set_back_does_not_stop_everything():
    known, _ = admit({}, {"": Limit(1, 10.0)}, 1e6)
    _, delay = admit(known, {"": Limit(1, 10.0)}, 100.0)
    assert delay < 10.1


def test_domains_of_long_ago_are_forgotten():
    known: dict = {}
    for number in range(50):
        known, _ = admit(known, {f"d{number}.test": Limit(1, 1.0)}, 100.0 + 10 * number)
    assert len(known) < 4


def test_as_json_and_back():
    known, _ = admit({}, {"": Limit(2, 10.0)}, 100.0)
    assert from_json(to_json(known)) == known
    assert from_json(None) == {}


@given(st.integers(1, 5), st.floats(0.5, 20), st.integers(1, 60))
@settings(deadline=None)
def test_a_crowd_that_waits_its_turn_never_breaks_the_rule_and_is_not_sent_away_for_ever(number, seconds, crowd):
    known: dict = {}
    limits = {"": Limit(number, seconds)}
    starts, asked = [], 0
    waiting = [(100.0, who) for who in range(crowd)]
    while waiting:
        now, who = heapq.heappop(waiting)
        asked += 1
        known, delay = admit(known, limits, now)
        if delay:
            heapq.heappush(waiting, (now + delay, who))
        else:
            starts.append(now)
    assert all(later - earlier > seconds for earlier, later in zip(starts, starts[number:], strict=False))
    assert asked <= 4 * crowd  # each is deferred about once
    assert starts[-1] <= 100 + (crowd + number) * (seconds / number + 0.01) + seconds
