# One message on its way: who, to whom, what, and what has become of it so far.
#
# An Outgoing outlives connections: a recipient list that a server takes only in parts (LIMITS, RFC 9422), or a message
# whose connection was lost before anything could have been accepted, goes on with `remaining` on the next transaction
# or the next connection, and the results of all of them are merged here. It is checked when made, so that a caller's
# mistake costs no connection and no byte.
from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from .._protocol.addresses import check_address, needs_smtputf8
from .._protocol.client.transaction import Transaction
from .._protocol.errors import (
    Delivery,
    LocalProtocolError,
    MessageRefusedError,
    RecipientsRefusedError,
    SenderRefusedError,
    SMTPError,
    Stage,
)
from .._protocol.parameter_text import format_params
from .._protocol.replies import Reply
from .content import Content, ContentLike, as_content

Params: TypeAlias = Mapping[str, str | int | None]
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


class Outgoing:
    """A message, its envelope and its fate.

    Raises:
        TypeError: `recipients` is a str, or something in it is no str; `content` is nothing that can be sent.
        LocalProtocolError: an address or a parameter that cannot be sent, or no recipient at all.
    """

    __slots__ = (
        "accepted",
        "attempts",
        "content",
        "crowd",
        "doubt",
        "doubtful",
        "error",
        "foreign",
        "is_binary",
        "mail_params",
        "maybe_duplicate",
        "needs_utf8",
        "rcpt_params",
        "readmitted",
        "recipients",
        "refused",
        "remaining",
        "replies",
        "reply",
        "sender",
        "streamed",
        "transaction",
    )

    def __init__(
        self,
        sender: str,
        recipients: Iterable[str],
        content: ContentLike | Content,
        mail_params: Params | None = None,
        rcpt_params: Mapping[str, Params] | None = None,
    ) -> None:
        if isinstance(recipients, str | bytes):
            raise TypeError("recipients is an iterable of addresses, not one address")
        self.sender = check_address(sender, null=True)
        # The same recipient twice is sent once; the caller's spelling is the key of every result.
        self.recipients = {written: check_address(written, postmaster=True) for written in recipients}
        if not self.recipients:
            raise LocalProtocolError("there are no recipients", delivery=Delivery.NOT_SENT)
        self.mail_params = {name.upper(): value for name, value in mail_params.items()} if mail_params else None
        self.rcpt_params = _checked_params(self.recipients, rcpt_params)
        # as_content() looks at bytes first; to ask an abstract class is what takes long.
        self.content = (
            as_content(content) if isinstance(content, bytes) or not isinstance(content, Content) else content
        )
        self.needs_utf8 = (
            self.content.needs_utf8
            or needs_smtputf8(self.sender)
            or any(map(needs_smtputf8, self.recipients.values()))
            or (self.mail_params is not None and "SMTPUTF8" in self.mail_params)
        )
        self.is_binary = False
        if mail_params:
            format_params(mail_params, smtputf8=self.needs_utf8)
            self.is_binary = str(self.mail_params and self.mail_params.get("BODY")).upper() == "BINARYMIME"
        self.remaining = list(self.recipients)
        self.accepted: list[str] = []
        self.refused: dict[str, Reply] = {}
        self.replies: dict[str, Reply] = {}
        self.reply: Reply | None = None
        self.error: SMTPError | None = None  # the refusal to raise if nobody is accepted in the end
        self.crowd: int | None = None  # accepted in the latest transaction, if others were too many for it
        self.foreign: SMTPError | None = None  # raised by the caller's own iterable: about some other message
        self.attempts = 0
        self.maybe_duplicate = False
        self.doubt: SMTPError | None = None  # left unknown who has it, and was not the last try
        self.doubtful: set[str] = set()  # they may have it from such a try
        self.readmitted: dict[str, Reply] = {}  # the 4xx replies of those who are being tried again
        self.streamed = False  # reading the caller's iterable has begun
        self.transaction: Transaction | None = None  # the latest

    @property
    def is_spent(self) -> bool:
        """The content cannot be produced again."""
        return self.streamed and not self.content.replayable

    @property
    def has_temporary(self) -> bool:
        """Somebody was refused with a 4xx."""
        return any(reply.is_temporary for reply in self.refused.values())

    def readmit_temporary(self) -> None:
        """Let those who were refused with a 4xx remain again."""
        again = {written: reply for written, reply in self.refused.items() if reply.is_temporary}
        self.refused = {written: reply for written, reply in self.refused.items() if written not in again}
        self.remaining += again
        self.readmitted |= again
        self.error = None

    def begin_again(self, error: SMTPError) -> None:
        """Get ready for another try after this error, with those who may still be without the message.

        Where the error left in doubt who has it, fates that are known all the same (LMTP) are kept, and the doubt stays
        until the server has accepted the message for whom it concerns: a later refusal does not take back what an
        earlier try may have achieved.
        """
        transaction, self.transaction = self.transaction, None
        if transaction is None or error.delivery is not Delivery.UNKNOWN:
            return
        delivered, refused, unknown = transaction.fates()
        self.maybe_duplicate = True
        self.doubt = error
        self.doubtful.update(unknown)
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
            too_many: those of its recipients who remain all the same, for another transaction.
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
                others = {} if transaction.stage is Stage.MAIL else refused  # 503 to RCPT says nothing new
                refused = dict.fromkeys(batch, reply) | others
        if refused:
            self.refused.update(refused)

    def result(self) -> SendResult:
        """The result, once nobody remains.

        Raises:
            SenderRefusedError, RecipientsRefusedError, MessageRefusedError: nobody was accepted.
        """
        unknown = self._unknown(self.accepted)
        if self.reply is None or unknown:
            error = self.error if self.reply is None else self.doubt
            assert error is not None
            error.accepted = self.accepted
            error.refused = self.refused
            self._cast_doubt(error, unknown)
            raise error
        return SendResult(self.reply, self.accepted, self.refused, self.replies, self.attempts, self.maybe_duplicate)

    def outcome(self, error: Exception | None) -> SendResult:
        """The result of all tries, when the last one came to its end or to this error.

        Raises:
            Exception: the error, which now says what became of each recipient in all of them.
        """
        if error is None:
            return self.result()
        if self.transaction is None and isinstance(error, SMTPError):
            self.explain(error)  # it is not from a transaction: there was no connection, say
        if (
            self.reply is not None
            and not (isinstance(error, SMTPError) and error.delivery is Delivery.UNKNOWN)
            and all(written in self.readmitted for written in self.remaining)
        ):
            self.refused.update({written: self.readmitted[written] for written in self.remaining})
            return self.result()  # the others have it: trying these again was our own idea
        if not isinstance(error, SMTPError):
            if self.doubt is None:
                raise error
            self.doubt.__cause__ = error
            error = self.doubt
            self.transaction = None
            self.explain(error)
        self._cast_doubt(error, self._unknown(error.accepted))
        raise error

    def _unknown(self, accepted: Sequence[str]) -> list[str]:
        """Those who may have the message from an earlier try."""
        if not self.doubtful:
            return []
        return [written for written in self.recipients if written in self.doubtful and written not in accepted]

    def _cast_doubt(self, error: SMTPError, unknown: list[str]) -> None:
        if unknown:
            error.delivery = Delivery.UNKNOWN
            error.unknown = list(dict.fromkeys([*error.unknown, *unknown]))
            error.refused = {written: reply for written, reply in error.refused.items() if written not in unknown}

    def explain(self, error: SMTPError) -> None:
        """Let an error that ended the sending say what became of each recipient."""
        if error is self.foreign:
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


def one_too_many(transaction: Transaction) -> list[str]:
    """Recipients whom a server that took the message refused because there were too many, and not for good.

    RFC 5321 §4.5.3.1.10: 452 says so, and 552 is to be read as if it did. Both also say that a mailbox is full; then
    the enhanced code, if there is one, is another.
    """
    if not transaction.accepted or transaction.reply is None or not transaction.reply.is_success:
        return []
    found: list[str] = []
    is_said = False
    for written in transaction.recipients:
        reply = transaction.refused.get(written)
        if reply is None:
            if found and not is_said:
                return []  # somebody after them was accepted, so it was their own mailbox
        elif reply.code in _TOO_MANY and (reply.enhanced is None or reply.enhanced.endswith(".5.3")):
            is_said = is_said or reply.enhanced is not None
            found.append(written)
    return found


def refusal(transaction: Transaction) -> SMTPError:
    """The error for a transaction that the server refused to everybody."""
    reply, stage = transaction.reply, transaction.stage
    if stage is Stage.MAIL and reply is not None:
        return SenderRefusedError(
            f"the server refused the sender: {reply}", reply=reply, stage=stage, delivery=Delivery.REFUSED
        )
    if transaction.nobody_left or stage is Stage.RCPT:
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
    if transaction.replies:  # LMTP: as for RCPT, whoever may try again for somebody should
        answers = list(transaction.replies.values())
        reply = next((answer for answer in answers if answer.is_temporary), answers[0])
    return MessageRefusedError(
        f"the server refused the message: {reply}", reply=reply, stage=stage, delivery=Delivery.REFUSED
    )


def _checked_params(
    recipients: Mapping[str, str], params: Mapping[str, Params] | None
) -> dict[str, dict[str, str | int | None]] | None:
    if not params:
        return None
    strangers = [written for written in params if written not in recipients]
    if strangers:
        raise LocalProtocolError(f"rcpt_params names {strangers[0]!r}, who is no recipient", delivery=Delivery.NOT_SENT)
    for written in params:
        format_params(params[written], smtputf8=True)
    return {written: dict(params[written]) for written in params}
