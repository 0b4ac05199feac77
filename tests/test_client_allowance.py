"""What a connection still takes: by the server's LIMITS, and by what its refusals have taught."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from trio_smtp import ConnectionLostError, Delivery, ExtensionNotSupportedError, Reply
from trio_smtp._client.allowance import Allowance
from trio_smtp._client.message import Message
from trio_smtp._client.report import DeliveryReport
from trio_smtp._protocol.client.transaction import Transaction
from trio_smtp._protocol.errors import Stage
from trio_smtp._protocol.extensions import Limits


class Once:
    """Content that cannot be produced again."""

    def __aiter__(self) -> Once:
        return self

    async def __anext__(self) -> bytes:
        raise StopAsyncIteration


def report(*recipients: str, replayable: bool = True) -> DeliveryReport:
    return DeliveryReport(Message("a@x.test", recipients, b"hi\r\n" if replayable else Once()))


def allowance(limits: Limits) -> Allowance:
    made = Allowance()
    made.learn(limits)
    return made


def accepted(batch: Sequence[str], refused: dict[str, Reply] | None = None) -> Transaction:
    transaction = Transaction(batch)
    transaction.begun = transaction.ended = True
    transaction.refused = dict(refused or {})
    transaction.accepted = [written for written in batch if written not in transaction.refused]
    transaction.decide(Stage.END, Reply(250, "ok"))
    return transaction


def test_without_limits_all_go_at_once_any_number_of_times() -> None:
    without = Allowance()
    for _ in range(3):
        message = report("b@y.test", "c@z.test")
        assert without.next_batch(message) == ["b@y.test", "c@z.test"]
        without.count(message.message, message.remaining)
        assert not without.is_exhausted
        assert not without.is_used_up(message)


def test_mailmax_uses_a_connection_up() -> None:
    two = allowance(Limits(mailmax=2))
    message = report("b@y.test")
    for _ in range(2):
        assert not two.is_used_up(message)
        two.count(message.message, message.remaining)
    assert two.is_exhausted
    assert two.is_used_up(message)
    with pytest.raises(ConnectionLostError, match="2 messages") as caught:
        two.next_batch(message)
    assert (caught.value.delivery, caught.value.stage) == (Delivery.NOT_SENT, Stage.MAIL)


def test_rcptmax_splits_a_list_that_can_be_sent_twice() -> None:
    two = allowance(Limits(rcptmax=2))
    message = report("b@y.test", "c@y.test", "d@y.test")
    assert two.next_batch(message) == ["b@y.test", "c@y.test"]
    two.record(message, accepted(["b@y.test", "c@y.test"]))
    assert two.next_batch(message) == ["d@y.test"]
    with pytest.raises(ExtensionNotSupportedError, match="takes 2 of the recipients"):
        two.next_batch(report("b@y.test", "c@y.test", "d@y.test", replayable=False))


def test_rcptdomainmax_takes_the_domains_that_fit_first() -> None:
    one = allowance(Limits(rcptdomainmax=1))
    message = report("b@y.test", "c@z.test", "d@Y.test")
    assert one.next_batch(message) == ["b@y.test", "d@Y.test"]
    assert message.remaining == ["b@y.test", "d@Y.test", "c@z.test"]
    one.count(message.message, ["b@y.test", "d@Y.test"])
    one.record(message, accepted(["b@y.test", "d@Y.test"]))
    assert one.is_used_up(message)
    with pytest.raises(ConnectionLostError, match="recipients of 1 domains"):
        one.next_batch(message)
    assert not one.is_used_up(report("e@y.test"))
    assert one.is_used_up(report("e@y.test", "f@z.test", replayable=False))  # a new connection may have room for all


def test_a_452_that_says_too_many_is_remembered_at_once() -> None:
    learner = Allowance()
    message = report("b@y.test", "c@y.test", "d@y.test")
    learner.record(message, accepted(message.remaining, {"d@y.test": Reply(452, "too many", "4.5.3")}))
    assert message.remaining == ["d@y.test"]
    assert learner.most_recipients == 2
    assert learner.next_batch(report("b@y.test", "c@y.test", "d@y.test")) == ["b@y.test", "c@y.test"]
    once = report("b@y.test", "c@y.test", "d@y.test", replayable=False)
    assert learner.next_batch(once) == once.remaining  # experience is no law


def test_a_bare_452_is_remembered_once_the_rest_is_accepted() -> None:
    learner = Allowance()
    message = report("b@y.test", "c@y.test", "d@y.test")
    learner.record(message, accepted(message.remaining, {"d@y.test": Reply(452, "no")}))
    assert (message.remaining, learner.most_recipients) == (["d@y.test"], None)
    learner.record(message, accepted(["d@y.test"]))
    assert (message.remaining, learner.most_recipients) == ([], 2)
    assert message.result().accepted == ["b@y.test", "c@y.test", "d@y.test"]


def test_a_new_offer_replaces_what_was_learnt() -> None:
    learner = allowance(Limits(rcptmax=5))
    assert learner.most_recipients == 5
    learner.learn(Limits())
    assert learner.most_recipients is None
    assert "transactions" in repr(learner)
