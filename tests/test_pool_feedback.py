"""How many connections a server bears: numbers alone."""

from __future__ import annotations

from trio_smtp._pool.feedback import Feedback


def test_it_starts_at_the_maximum_and_success_changes_nothing_there() -> None:
    feedback = Feedback(5)
    assert not any(feedback.succeeded() for _ in range(20))
    assert (feedback.limit, feedback.is_reduced) == (5, False)


def test_a_failure_leaves_one_less_than_there_were_and_never_less_than_one() -> None:
    feedback = Feedback(5)
    assert feedback.failed(3)
    assert (feedback.limit, feedback.is_reduced) == (2, True)
    assert feedback.failed(9)  # others were opened while it failed: the limit goes down by one all the same
    assert feedback.limit == 1
    assert not feedback.failed(1)
    assert feedback.limit == 1


def test_as_many_messages_as_the_limit_give_one_connection_back() -> None:
    feedback = Feedback(4)
    feedback.failed(3)
    assert [feedback.succeeded() for _ in range(5)] == [False, True, False, False, True]
    assert (feedback.limit, feedback.is_reduced) == (4, False)
    assert repr(feedback) == "<Feedback 4 of 4 connections>"


def test_a_failure_takes_the_credit_away() -> None:
    feedback = Feedback(4)
    feedback.failed(3)
    feedback.succeeded()
    feedback.failed(3)
    assert feedback.limit == 1
    feedback.failed(1)
    assert feedback.succeeded()
    assert feedback.limit == 2


def test_a_maximum_of_one_is_never_reduced() -> None:
    feedback = Feedback(1)
    assert not feedback.failed(1)
    assert (feedback.limit, feedback.is_reduced) == (1, False)
