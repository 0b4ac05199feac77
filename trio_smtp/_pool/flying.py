# One message of several in flight on a connection: what is kept of it, and what can be told of its fate.
from __future__ import annotations

from typing import NamedTuple

from .._client.encoder import TransactionEncoder
from .._protocol.client.commands import Command
from .._protocol.client.transaction import Transaction
from .._protocol.errors import PoolClosedError, SMTPError
from .._wire.waits import Interrupted
from .attempt import Attempt


class Flying(NamedTuple):
    """A message in flight.

    Attributes:
        attempt: the message's.
        since: in Trio's clock; 0 where no function wants to know.
        is_rider: its envelope was sent behind an unanswered end.
    """

    attempt: Attempt
    since: float
    is_rider: bool


class Parts(NamedTuple):
    """What is sent of a message.

    Attributes:
        encoder: makes its end.
        commands: its envelope, and DATA or BDAT.
        text: fit for the wire.
        tail: what comes behind the text.
    """

    encoder: TransactionEncoder
    commands: list[Command]
    text: bytes
    tail: bytes


def is_answered(flying: Flying) -> bool:
    """A reply to the message's MAIL has come."""
    transaction = flying.attempt.report.transaction
    return transaction is not None and transaction.answered


def refused_for_order(transaction: Transaction) -> bool:
    """The server has refused commands for the order they came in, and not the message: 503 (RFC 5321 section 4.3.2)."""
    answers = [*transaction.refused.values(), transaction.reply]
    return not transaction.accepted and any(answer is not None and answer.code == 503 for answer in answers)


def was_not_tried(flying: Flying) -> bool:
    """A message whose connection is lost is wanted, and was ended by a 421, or rode and was never answered."""
    transaction = flying.attempt.report.transaction
    if transaction is None or not flying.attempt.is_wanted:
        return False
    return transaction.farewell is not None or (flying.is_rider and not transaction.answered and not transaction.ended)


def own_error(exc: BaseException, attempt: Attempt) -> Exception:
    """What ended the connection, as this message's own error."""
    if isinstance(exc, Interrupted) and not attempt.is_wanted:
        return exc
    if isinstance(exc, SMTPError):
        error: SMTPError = type(exc)(str(exc), reply=exc.reply, stage=exc.stage)
        error.__cause__ = exc.__cause__
    else:
        error = PoolClosedError("the pool was cancelled")
    attempt.report.explain(error)
    return error
