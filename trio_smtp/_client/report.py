# What has become of a message so far: who has it, who was refused, who remains, and what is in doubt.
#
# A report outlives connections. A list that a server takes only in parts (LIMITS, RFC 9422), or a message whose
# connection was lost before anything could have been accepted, goes on with `remaining` on the next transaction or the
# next connection, and the results of all transactions are merged here.
#
# Rule: fates are written in this file only. A transaction's own fates are read from its facts (transaction.py), and
# whatever an error says about recipients was put there by explain() or outcome().
from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from types import CoroutineType
from typing import Final

from .._protocol.client.transaction import Transaction
from .._protocol.errors import (
    Delivery,
    MessageRefusedError,
    RecipientsRefusedError,
    SenderRefusedError,
    SMTPError,
    Stage,
)
from .._protocol.replies import Reply
from .message import Message

_TOO_MANY: Final = (452, 552)


@dataclass(slots=True)
class SendResult:
    """What became of a message that the server took for at least one recipient.

    Attributes:
        reply: the server's reply to the end of the message (with LMTP, that of the first recipient who got it).
        accepted: recipients for whom the server took the message, as the caller wrote them.
        refused: recipients it refused, with the replies.
        replies: LMTP: each recipient's reply to the end of the message.
        attempts: how often the message was begun; more than 1 after a retry. A list that is split over several
            transactions, or connections, is begun once.
        maybe_duplicate: an earlier attempt ended in doubt and was repeated because the caller had asked for it
            (``on_unknown="retry"``): the message may have been delivered twice.
    """

    reply: Reply
    accepted: list[str] = field(default_factory=list)
    refused: dict[str, Reply] = field(default_factory=dict)
    replies: dict[str, Reply] = field(default_factory=dict)
    attempts: int = 1
    maybe_duplicate: bool = False


class DeliveryReport:
    """The fate of one message, over all of its transactions.

    Args:
        message: the message.
        attempts: as :meth:`count_attempt`; a client counts its only one here.
        origin: the pool and the number of its message, for what looks.

    Attributes:
        origin: as given.
        remaining: recipients for whom it is still to be sent.
        accepted: recipients for whom a server has taken it.
        refused: recipients that a server has refused, with the replies.
        replies: LMTP: recipient to the reply for the message.
        reply: the reply to the end of the first transaction that was accepted.
        error: the refusal to raise if no recipient is accepted in the end.
        transaction: the latest that was begun and is not settled.
        attempts: how often the message was begun.
        maybe_duplicate: an attempt that ended in doubt was repeated.
    """

    __slots__ = (
        "_announced",
        "_caller_error",
        "_doubt",
        "_doubtful",
        "_retrying",
        "_streamed",
        "accepted",
        "attempts",
        "error",
        "maybe_duplicate",
        "message",
        "origin",
        "refused",
        "remaining",
        "replies",
        "reply",
        "transaction",
    )

    def __init__(self, message: Message, *, attempts: int = 0, origin: tuple[object, int] | None = None) -> None:
        self.message: Final = message
        self.origin: Final = origin
        self.remaining: list[str] = list(message.recipients)
        self.accepted: list[str] = []
        self.refused: dict[str, Reply] = {}
        self.replies: dict[str, Reply] = {}
        self.reply: Reply | None = None
        self.error: SMTPError | None = None
        self.transaction: Transaction | None = None
        self.attempts = attempts
        self.maybe_duplicate = False
        self._caller_error: SMTPError | None = None  # about something else; see blame_caller()
        self._announced = 0  # the attempt whose end was announced last
        self._streamed = False  # reading the caller's iterable has begun
        self._doubt: SMTPError | None = None  # ended an earlier attempt with recipients in doubt
        self._doubtful: set[str] = set()  # those recipients
        self._retrying: dict[str, Reply] = {}  # recipients that are tried again after a 4xx, with that reply

    def __repr__(self) -> str:
        return (
            f"<DeliveryReport: {len(self.accepted)} accepted, {len(self.refused)} refused, "
            f"{len(self.remaining)} remaining, {self.attempts} attempts>"
        )

    # -- read

    @property
    def is_spent(self) -> bool:
        """The content cannot be produced again."""
        return self._streamed and not self.message.content.replayable

    @property
    def has_temporary(self) -> bool:
        """A recipient was refused with a 4xx."""
        return any(reply.is_temporary for reply in self.refused.values())

    @property
    def has_left(self) -> bool:
        """The end of the message was made for sending, so that a reply may come."""
        return self.transaction is not None and self.transaction.ended

    def is_caller_error(self, error: BaseException) -> bool:
        """Whether this is the error of :meth:`blame_caller`."""
        return error is self._caller_error

    # -- write

    def count_attempt(self) -> None:
        """The message is begun, once more."""
        self.attempts += 1

    def uncount_attempt(self) -> None:
        """It goes on with the rest of its recipients, and that is no further attempt."""
        self.attempts -= 1

    def track(self, transaction: Transaction) -> None:
        """A transaction for the first of those who remain is to be sent."""
        self.transaction = transaction

    def forget_transaction(self) -> None:
        """The latest transaction came to nothing."""
        self.transaction = None

    async def announce_end(self) -> None:
        """Before the end of the message is sent: await the caller's ``before_end``, once per attempt.

        Raises:
            TypeError: it is not async.
            Exception: what it raises, which is the caller's own error.
        """
        before_end = self.message.before_end
        if before_end is None or self._announced == self.attempts:
            return
        self._announced = self.attempts
        try:
            answer = before_end()
            if type(answer) is not CoroutineType and not inspect.isawaitable(answer):
                raise TypeError(f"before_end must be async: it returned {answer!r}")
            await answer
        except SMTPError as exc:
            self.blame_caller(exc)
            raise

    def prefer(self, recipients: Sequence[str]) -> None:
        """Let these be the first of those who remain."""
        first = set(recipients)
        self.remaining = [*recipients, *(written for written in self.remaining if written not in first)]

    def stream(self) -> None:
        """Reading the caller's iterable begins; it may not be possible again."""
        self._streamed = True

    def blame_caller(self, error: SMTPError) -> None:
        """The error was raised by the caller's own code, about something else: what it says is left alone."""
        self._caller_error = error

    def readmit_temporary(self) -> None:
        """Let those who were refused with a 4xx remain again."""
        again = {written: reply for written, reply in self.refused.items() if reply.is_temporary}
        self.refused = {written: reply for written, reply in self.refused.items() if written not in again}
        self.remaining += again
        self._retrying |= again
        self.error = None

    def begin_again(self, error: SMTPError) -> None:
        """Get ready for another attempt after this error, for those who may be without the message.

        Where the error leaves recipients in doubt, fates that are known all the same (LMTP) are kept. The doubt about
        a recipient stays until a server has accepted the message for it: a later refusal does not take back what an
        earlier attempt may have achieved.
        """
        transaction, self.transaction = self.transaction, None
        if transaction is None or error.delivery is not Delivery.UNKNOWN:
            return
        delivered, refused, unknown = transaction.fates()
        self.maybe_duplicate = True
        self._doubt = error
        self._doubtful.update(unknown)
        self.remaining = [*unknown, *self.remaining[len(transaction.recipients) :]]
        self.accepted += delivered
        self.refused.update(refused)
        self.replies.update(transaction.replies)
        if delivered and self.reply is None:
            self.reply = transaction.replies[delivered[0]]

    def settle(self, transaction: Transaction, too_many: Sequence[str] = ()) -> None:
        """Take over the fates of a transaction that is decided.

        A refusal is kept for :meth:`result`: where a list was split, others may have been accepted.

        Args:
            transaction: the latest.
            too_many: those of its recipients who remain, for another transaction.
        """
        delivered, refused, _ = transaction.fates()
        batch = transaction.recipients
        reply = transaction.reply
        self.transaction = None
        self.remaining = [*too_many, *self.remaining[len(batch) :]]
        for written in too_many:
            refused.pop(written)
        self.accepted += delivered
        if transaction.replies:
            self.replies.update(transaction.replies)
        if delivered:
            if self.reply is None:
                self.reply = reply
        else:
            self.error = refusal(transaction)
            if reply is not None and not reply.is_success:
                own = {} if transaction.stage is Stage.MAIL else refused  # 503 to RCPT says nothing new
                refused = dict.fromkeys(batch, reply) | own
        if refused:
            self.refused.update(refused)

    # -- tell

    def result(self) -> SendResult:
        """The result, once no recipient remains.

        Raises:
            SenderRefusedError, RecipientsRefusedError, MessageRefusedError: none was accepted.
        """
        unknown = self._unknown(self.accepted) if self._doubtful else ()
        if self.reply is None or unknown:
            error = self.error if self.reply is None else self._doubt
            assert error is not None
            error.accepted = self.accepted
            error.refused = self.refused
            _cast_doubt(error, unknown)
            raise error
        return SendResult(self.reply, self.accepted, self.refused, self.replies, self.attempts, self.maybe_duplicate)

    def outcome(self, error: Exception | None) -> SendResult:
        """The result of all attempts, when the last one came to its end or to this error.

        Raises:
            Exception: the error, which then says what became of each recipient in all of them.
        """
        if error is None:
            return self.result()
        if self.transaction is None and isinstance(error, SMTPError):
            self.explain(error)  # it is not from a transaction: there was no connection, for example
        if self._only_retrying and not (isinstance(error, SMTPError) and error.delivery is Delivery.UNKNOWN):
            self.refused.update({written: self._retrying[written] for written in self.remaining})
            return self.result()  # the others have it, and to try these again was our own idea
        if not isinstance(error, SMTPError):
            if self._doubt is None:
                raise error
            self._doubt.__cause__ = error
            error = self._doubt
            self.transaction = None
            self.explain(error)
        _cast_doubt(error, self._unknown(error.accepted))
        raise error

    @property
    def _only_retrying(self) -> bool:
        """A server has the message, and those who remain were refused with a 4xx before."""
        return self.reply is not None and all(written in self._retrying for written in self.remaining)

    def _unknown(self, accepted: Sequence[str]) -> list[str]:
        """Recipients who may have the message from an earlier attempt."""
        if not self._doubtful:
            return []
        return [written for written in self.message.recipients if written in self._doubtful and written not in accepted]

    def explain(self, error: SMTPError) -> None:
        """Let an error that ended the sending say what became of each recipient."""
        if error is self._caller_error:
            return
        transaction = self.transaction
        if transaction is None or not transaction.begun:
            error.delivery = Delivery.NOT_SENT
            delivered: list[str] = []
            refused: dict[str, Reply] = {}
            unknown: list[str] = []
        else:
            delivered, refused, unknown = transaction.fates()
            error.delivery = transaction.delivery or error.delivery
        error.accepted = self.accepted + delivered
        error.refused = self.refused | refused
        error.unknown = unknown


def _cast_doubt(error: SMTPError, unknown: Iterable[str]) -> None:
    """Let an error say that these recipients may have the message."""
    if unknown:
        error.delivery = Delivery.UNKNOWN
        error.unknown = list(dict.fromkeys([*error.unknown, *unknown]))
        error.refused = {written: reply for written, reply in error.refused.items() if written not in unknown}


def one_too_many(transaction: Transaction) -> list[str]:
    """Recipients refused because there were too many, by a server that took the message for the others.

    RFC 5321 section 4.5.3.1.10: 452 says so, and 552 is to be read as 452. Both also mean a full mailbox; then the
    enhanced code, if there is one, differs.
    """
    if not transaction.accepted or transaction.reply is None or not transaction.reply.is_success:
        return []
    found: list[str] = []
    is_said = False
    for written in transaction.recipients:
        reply = transaction.refused.get(written)
        if reply is None:
            if found and not is_said:
                return []  # one after them was accepted, so it was their own mailbox
        elif reply.code in _TOO_MANY and (reply.enhanced is None or reply.enhanced.endswith(".5.3")):
            is_said = is_said or reply.enhanced is not None
            found.append(written)
    return found


def refusal(transaction: Transaction) -> SMTPError:
    """The error for a transaction that was refused for every recipient."""
    reply, stage = transaction.reply, transaction.stage
    if stage is Stage.MAIL and reply is not None:
        words = f"the server refused the sender: {reply}"
        if reply.code == 530:  # RFC 4954 §6; RFC 3207 §4
            words = f"the server takes no mail before a login, or TLS: {reply}; see the arguments auth and tls"
        return SenderRefusedError(words, reply=reply, stage=stage, delivery=Delivery.REFUSED)
    if transaction.all_refused or stage is Stage.RCPT:
        answers = list(transaction.refused.values())
        if stage is not Stage.RCPT or reply is None:
            reply = next((answer for answer in answers if answer.is_temporary), answers[0])
        return RecipientsRefusedError(
            f"the server refused every recipient: {reply}",
            reply=reply,
            stage=Stage.RCPT,
            delivery=Delivery.REFUSED,
            refused=transaction.refused,
        )
    assert reply is not None
    if transaction.replies:  # LMTP: as for RCPT, a temporary refusal says more than a permanent one
        answers = list(transaction.replies.values())
        reply = next((answer for answer in answers if answer.is_temporary), answers[0])
    return MessageRefusedError(
        f"the server refused the message: {reply}", reply=reply, stage=stage, delivery=Delivery.REFUSED
    )
