"""How many connections a server accepts."""

from __future__ import annotations

import pytest

from trio_smtp._pool.feedback import Feedback


def test_a_failure_lowers_the_limit_to_one_less_than_there_were() -> None:
    feedback = Feedback(10)
    assert feedback.failed(4)
    assert feedback.limit == 3
    assert feedback.failed(7)  # there are still too many from before
    assert feedback.limit == 2


def test_the_limit_is_at_least_one() -> None:
    feedback = Feedback(2)
    assert feedback.failed(1)
    assert feedback.limit == 1
    assert not feedback.failed(1)
    assert feedback.limit == 1


@pytest.mark.parametrize("limit", [1, 2, 7])
def test_so_many_messages_as_the_limit_raise_it_by_one(limit: int) -> None:
    feedback = Feedback(10)
    feedback.failed(limit + 1)
    messages = 1
    while not feedback.succeeded():
        messages += 1
    assert limit <= messages <= limit + 1  # the sum of 7 sevenths is rounded
    assert feedback.limit == limit + 1


def test_a_failure_takes_the_credit_away() -> None:
    feedback = Feedback(3)
    feedback.failed(3)
    assert not feedback.succeeded()
    feedback.failed(3)
    assert feedback.limit == 1
    assert feedback.succeeded()
    assert not feedback.succeeded()


def test_the_limit_never_exceeds_the_maximum() -> None:
    feedback = Feedback(2)
    assert not feedback.is_reduced
    assert not any(feedback.succeeded() for _ in range(10))
    feedback.failed(2)
    assert feedback.is_reduced
    assert feedback.succeeded()
    assert not feedback.is_reduced
    assert not any(feedback.succeeded() for _ in range(10))
    assert repr(feedback) == "<Feedback 2 of 2 connections>"
