"""What a hook returned or raised, as the reply that the client gets."""

from __future__ import annotations

import pytest

from trio_smtp import Reject, Reply
from trio_smtp._server.outcomes import leaves_of, login_outcome, message_outcome, rejection_in, reply_or_none

LATER = Reply(450, "later")
NEVER = Reply(550, "never")


@pytest.mark.parametrize("result", [None, LATER, NEVER, Reply(250, "fine")])
def test_a_command_takes_a_reply_or_none(result: Reply | None) -> None:
    assert reply_or_none(result) is result


@pytest.mark.parametrize("result", [True, "250 OK", 250, Reply(354, "go"), Reply(334, "")])
def test_a_command_takes_nothing_else(result: object) -> None:
    with pytest.raises(TypeError):
        reply_or_none(result)


@pytest.mark.parametrize(
    ("result", "text"),
    [(None, "OK: queued"), ("", "OK: queued"), ("42", "OK: queued as 42"), ("a b", "OK: queued as a b")],
)
def test_a_message_takes_a_queue_id_too(result: str | None, text: str) -> None:
    reply = message_outcome(result)
    assert (reply.code, reply.text) == (250, text)
    assert message_outcome(NEVER) is NEVER


@pytest.mark.parametrize("result", [42, b"42", True, Reply(354, "go")])
def test_a_message_takes_nothing_else(result: object) -> None:
    with pytest.raises(TypeError):
        message_outcome(result)


def test_a_login_takes_what_says_whether_it_accepts() -> None:
    assert [login_outcome(result) for result in (True, 17, {"uid": 1}, "me")] == [True] * 4
    assert [login_outcome(result) for result in (False, None, "", 0)] == [False] * 4
    for result in (int, "535 no", (True, "x"), ValueError()):
        with pytest.raises(TypeError):
            login_outcome(result)


def test_a_reject_in_a_group_and_a_permanent_one_first() -> None:
    later, never = Reject(450, "later"), Reject(550, "never")
    assert rejection_in(later) is later.reply
    group = ExceptionGroup("", [later, ExceptionGroup("", [never])])
    assert rejection_in(group) is never.reply
    assert list(leaves_of(group)) == [later, never]
    assert rejection_in(ExceptionGroup("", [later, ValueError()])) is None
    assert rejection_in(ValueError()) is None
