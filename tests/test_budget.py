# The time that a client has for a message: numbers alone.
from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_smtp._server.budget import ChunkBudgets
from trio_smtp._server.budget import DataBudget as Budget
from trio_smtp._server.stress import Stress


def budget_of(limit, rate, stress=None):
    return Budget(limit, rate, stress or Stress())


def test_the_time_is_the_limit_at_first():
    assert budget_of(60, 100).deadline(1000) == 1060


def test_waiting_takes_time_and_octets_give_some():
    budget = budget_of(60, 100)
    budget.spend(30, 1000)
    assert budget.left == 40
    budget.spend(30, 0)
    assert budget.left == 10
    assert budget.deadline(5) == 15


def test_there_is_never_more_than_the_limit():
    budget = budget_of(60, 100)
    budget.spend(1, 10**9)
    assert budget.left == 60


def test_without_a_rate_any_octet_earns_all():
    budget = budget_of(60, None)
    budget.spend(59, 0)
    assert budget.left == 1
    budget.spend(0.5, 1)
    assert budget.left == 60


def test_how_long_a_peer_has_kept_us_waiting():
    budget = budget_of(60, 100)
    assert budget.stalled(1000) == 0  # nothing has waited for it yet
    budget.deadline(1000)
    assert budget.stalled(1007) == 7
    budget.spend(7, 300)
    assert budget.stalled(1009) == 0
    budget.deadline(1010)
    assert budget.stalled(1012) == 4 + 2


def test_each_refused_chunk_has_a_budget_of_its_own():
    chunks = ChunkBudgets(lambda: budget_of(60, 100))
    chunks.of(1).spend(50, 0)
    assert chunks.of(1).left == 10
    assert chunks.of(2).left == 60
    assert repr(chunks) == "<ChunkBudgets: <DataBudget 60 of 60 s left> for chunk 2>"


@pytest.mark.parametrize("rate", [None, 100])
def test_no_limit(rate):
    budget = budget_of(math.inf, rate)
    for octets in (0, 1, 10**6):
        budget.spend(10**6, octets)
        assert budget.deadline(0) == math.inf


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(0, 200))))
def test_a_trickle_runs_out_of_time_however_it_is_cut(waits):
    """What is left is at most the limit, less the time taken, more the time earned."""
    budget = budget_of(60, 100)
    for seconds, octets in waits:
        budget.spend(seconds, octets)
    taken, earned = sum(seconds for seconds, _ in waits), sum(octets for _, octets in waits) / 100
    assert budget.left <= 60
    assert budget.left <= 60 - taken + earned + 1e-6


def test_repr():
    assert repr(budget_of(60, 100)) == "<DataBudget 60 of 60 s left>"
