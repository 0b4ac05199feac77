# Errors, junk and failed logins of one session, held against the limits.
from __future__ import annotations

from typing import Any

from trio_smtp import ServerConfig
from trio_smtp._protocol.server.offences import Offences


def make_offences(**limits: Any) -> Offences:
    return Offences(ServerConfig(hostname="mx.test", **limits))


def test_errors():
    offences = make_offences(max_errors=3, soft_errors=1)
    offences.count_error()
    assert offences.penalty == 0
    offences.count_error()
    assert offences.take_penalty() == 1
    assert offences.penalty == 0
    offences.count_error()
    assert not offences.too_many
    offences.count_error()
    assert offences.too_many


def test_without_a_limit_errors_cost_nothing():
    offences = make_offences(max_errors=None, soft_errors=0)
    for _ in range(1000):
        offences.count_error()
    assert not offences.too_many
    assert offences.penalty == 0


def test_without_soft_errors_none_waits():
    offences = make_offences(max_errors=9, soft_errors=None)
    for _ in range(9):
        offences.count_error()
    assert offences.penalty == 0


def test_junk_becomes_errors():
    offences = make_offences(max_errors=1, max_junk_commands=2)
    for _ in range(3):
        offences.count_junk()
    assert not offences.too_many
    offences.count_junk()
    assert offences.too_many


def test_a_message_makes_up_for_errors_and_junk():
    offences = make_offences(max_errors=1, max_junk_commands=1)
    for _ in range(3):
        offences.count_junk()
    assert offences.too_many
    offences.forgive()
    assert not offences.too_many
    offences.count_junk()
    offences.count_error()
    assert not offences.too_many


def test_failed_logins_wait_longer_each_time_and_are_never_forgiven():
    offences = make_offences(max_auth_failures=2)
    assert not offences.count_auth_failure()
    assert offences.take_penalty() == 0
    assert not offences.count_auth_failure()
    assert offences.take_penalty() == 1
    offences.forgive()
    assert offences.count_auth_failure()
    assert offences.take_penalty() == 2


def test_failed_logins_without_a_limit():
    offences = make_offences(max_auth_failures=None)
    assert not any(offences.count_auth_failure() for _ in range(100))


def test_the_largest_penalty_counts():
    offences = make_offences()
    offences.penalize(3)
    offences.penalize(2)
    assert offences.penalty == 3
    assert repr(offences) == "<Offences: 0 errors, 0 junk commands, 0 failed logins>"
