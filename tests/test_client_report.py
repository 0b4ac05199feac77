"""The fate of a message over several transactions and attempts, told from the facts of each."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from trio_smtp import (
    ConnectionLostError,
    Delivery,
    MessageRefusedError,
    RecipientsRefusedError,
    Reply,
    SenderRefusedError,
    SMTPError,
)
from trio_smtp._client.message import Message
from trio_smtp._client.report import DeliveryReport
from trio_smtp._protocol.client.transaction import Transaction
from trio_smtp._protocol.errors import Stage

OK, LATER, NO = Reply(250, "ok"), Reply(450, "later"), Reply(550, "no")


def begun(report: DeliveryReport, *, lmtp: bool = False, refused: dict[str, Reply] | None = None) -> Transaction:
    """A transaction for those who remain, whose end has left."""
    transaction = Transaction(report.remaining, lmtp=lmtp)
    transaction.begun = transaction.answered = transaction.ended = True
    transaction.refused = dict(refused or {})
    transaction.accepted = [written for written in transaction.recipients if written not in transaction.refused]
    report.track(transaction)
    return transaction


def report_for(*recipients: str) -> DeliveryReport:
    return DeliveryReport(Message("a@x.test", recipients, b"hi\r\n"))


def lost() -> ConnectionLostError:
    return ConnectionLostError("gone")


def test_accepted_for_all() -> None:
    report = report_for("b@y.test", "c@y.test")
    report.count_attempt()
    transaction = begun(report)
    assert report.has_left
    transaction.decide(Stage.END, OK)
    report.settle(transaction)
    assert (report.remaining, report.transaction, report.has_left) == ([], None, False)
    result = report.result()
    assert (result.reply, result.accepted, result.refused, result.attempts) == (OK, ["b@y.test", "c@y.test"], {}, 1)
    assert repr(report) == "<DeliveryReport: 2 accepted, 0 refused, 0 remaining, 1 attempts>"


def test_some_refused() -> None:
    report = report_for("b@y.test", "c@y.test")
    transaction = begun(report, refused={"c@y.test": NO})
    transaction.decide(Stage.END, OK)
    report.settle(transaction)
    result = report.outcome(None)
    assert (result.accepted, result.refused) == (["b@y.test"], {"c@y.test": NO})


@pytest.mark.parametrize(
    ("stage", "kind"),
    [(Stage.MAIL, SenderRefusedError), (Stage.RCPT, RecipientsRefusedError), (Stage.END, MessageRefusedError)],
)
def test_refused_for_all(stage: Stage, kind: type[SMTPError]) -> None:
    report = report_for("b@y.test")
    transaction = begun(report, refused={"b@y.test": NO} if stage is Stage.RCPT else None)
    transaction.decide(stage, NO)
    report.settle(transaction)
    with pytest.raises(kind) as caught:
        report.result()
    assert (caught.value.delivery, caught.value.refused) == (Delivery.REFUSED, {"b@y.test": NO})


def test_a_lost_connection_after_the_end_leaves_everybody_in_doubt() -> None:
    report = report_for("b@y.test", "c@y.test")
    begun(report, refused={"c@y.test": NO})
    error = lost()
    report.explain(error)
    assert (error.delivery, error.unknown, error.refused) == (Delivery.UNKNOWN, ["b@y.test"], {"c@y.test": NO})


def test_an_error_without_a_transaction_is_not_sent() -> None:
    report = report_for("b@y.test")
    error = lost()
    with pytest.raises(ConnectionLostError):
        report.outcome(error)
    assert (error.delivery, error.unknown) == (Delivery.NOT_SENT, [])


def test_the_callers_own_error_is_left_alone() -> None:
    report = report_for("b@y.test")
    begun(report)
    error = lost()
    report.blame_caller(error)
    assert report.is_caller_error(error)
    report.explain(error)
    assert (error.delivery, error.unknown) == (None, [])


def in_doubt(*recipients: str) -> DeliveryReport:
    """A report whose first attempt ended in doubt, and is to be repeated."""
    report = report_for(*recipients)
    report.count_attempt()
    begun(report)
    error = lost()
    report.explain(error)
    report.begin_again(error)
    report.count_attempt()
    return report


def test_a_doubt_ends_when_the_message_is_accepted() -> None:
    report = in_doubt("b@y.test")
    assert report.remaining == ["b@y.test"]
    transaction = begun(report)
    transaction.decide(Stage.END, OK)
    report.settle(transaction)
    result = report.result()
    assert (result.accepted, result.attempts, result.maybe_duplicate) == (["b@y.test"], 2, True)


def test_a_later_refusal_does_not_end_a_doubt() -> None:
    report = in_doubt("b@y.test")
    transaction = begun(report)
    transaction.decide(Stage.END, NO)
    report.settle(transaction)
    with pytest.raises(MessageRefusedError) as caught:
        report.result()
    assert (caught.value.delivery, caught.value.unknown, caught.value.refused) == (Delivery.UNKNOWN, ["b@y.test"], {})


@pytest.mark.parametrize("error", [OSError("no file"), lost()])
def test_a_later_error_does_not_end_a_doubt(error: Exception) -> None:
    report = in_doubt("b@y.test")
    with pytest.raises(ConnectionLostError) as caught:
        report.outcome(error)
    assert (caught.value.delivery, caught.value.unknown) == (Delivery.UNKNOWN, ["b@y.test"])


def test_lmtp_keeps_the_fates_that_are_known_when_the_rest_is_tried_again() -> None:
    report = report_for("b@y.test", "c@y.test", "d@y.test")
    transaction = begun(report, lmtp=True)
    transaction.replies = {"b@y.test": OK, "c@y.test": NO}
    error = lost()
    report.explain(error)
    assert (error.accepted, error.refused, error.unknown) == (["b@y.test"], {"c@y.test": NO}, ["d@y.test"])
    report.begin_again(error)
    assert (report.remaining, report.accepted, report.reply) == (["d@y.test"], ["b@y.test"], OK)


def refused_for_now(*also: str) -> DeliveryReport:
    report = report_for("b@y.test", "c@y.test", *also)
    transaction = begun(report, refused={"c@y.test": LATER})
    transaction.decide(Stage.END, OK)
    report.settle(transaction)
    assert report.has_temporary
    report.readmit_temporary()
    assert (report.remaining, report.has_temporary) == (["c@y.test"], False)
    return report


def test_a_failed_retry_of_a_temporary_refusal_keeps_the_result() -> None:
    result = refused_for_now().outcome(lost())
    assert (result.accepted, result.refused) == (["b@y.test"], {"c@y.test": LATER})


def test_a_doubtful_retry_of_a_temporary_refusal_is_an_error() -> None:
    report = refused_for_now()
    begun(report)
    error = lost()
    report.explain(error)
    with pytest.raises(ConnectionLostError):
        report.outcome(error)
    assert (error.accepted, error.unknown) == (["b@y.test"], ["c@y.test"])


@pytest.mark.parametrize(("preferred", "order"), [(["c@y.test"], "cbd"), (["d@y.test", "b@y.test"], "dbc")])
def test_prefer(preferred: Sequence[str], order: str) -> None:
    report = report_for("b@y.test", "c@y.test", "d@y.test")
    report.prefer(preferred)
    assert [written[0] for written in report.remaining] == list(order)


def test_attempts_and_transactions_are_counted_and_forgotten() -> None:
    report = report_for("b@y.test")
    report.count_attempt()
    report.count_attempt()
    report.uncount_attempt()
    begun(report)
    report.forget_transaction()
    assert (report.attempts, report.transaction) == (1, None)
    assert not report.is_spent
    report.stream()
    assert not report.is_spent  # octets can be produced again


async def test_the_end_is_announced_once_in_each_attempt() -> None:
    announced: list[int] = []

    async def before_end() -> None:
        announced.append(report.attempts)

    report = DeliveryReport(Message("a@x.test", ["b@y.test", "c@y.test"], b"hi\r\n", before_end=before_end))
    report.count_attempt()
    for _ in range(2):  # the list was split
        await report.announce_end()
    report.uncount_attempt()  # it goes on, on another connection
    report.count_attempt()
    await report.announce_end()
    assert announced == [1]
    report.count_attempt()
    await report.announce_end()
    assert announced == [1, 2]


async def test_what_before_end_raises_is_the_callers_error() -> None:
    error = lost()

    async def before_end() -> None:
        raise error

    report = DeliveryReport(Message("a@x.test", ["b@y.test"], b"hi\r\n", before_end=before_end), attempts=1)
    with pytest.raises(ConnectionLostError):
        await report.announce_end()
    assert report.is_caller_error(error)
    report.explain(error)
    with pytest.raises(ConnectionLostError) as caught:
        report.outcome(error)
    assert caught.value is error
    assert (error.delivery, error.unknown) == (None, [])
