# One message on one connection, as facts: what was sent, what was answered, and so what became of it.
#
# Facts are written by the methods here, which ClientProtocol calls. `delivery` and fates() are read from them, never
# guessed, so they are right at any moment. The end of the message counts as handed over once its octets were made for
# sending, which is before the first of them can have left (RFC 5321 §6.1, RFC 1047).
from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Final

from ..errors import Delivery, RemoteProtocolError, Stage
from ..replies import Reply


class Left(Enum):
    """What refusals leave open of a transaction at the server."""

    NOTHING = "no transaction"
    ANOTHER = "one that we do not know of"
    SENDER = "a sender, and no recipient"
    RECIPIENTS = "recipients"


# Looked up once, and not for every message: see protocol.py.
_MAIL: Final = Stage.MAIL
_RCPT: Final = Stage.RCPT
_DATA: Final = Stage.DATA
_BODY: Final = Stage.BODY
_END: Final = Stage.END


class Transaction:
    """What is known of one message for one list of recipients.

    Attributes:
        recipients: the addresses of this transaction, as the caller wrote them, none twice.
        lmtp: after its end there is a reply for each accepted recipient (RFC 2033 section 4.2).
        begun: MAIL was made for sending.
        answered: a reply to MAIL has come, so that the connection was alive.
        accepted: recipients the server took so far.
        refused: recipients it refused, with the replies.
        go_ahead: 354 has come.
        ended: the end of the message was made for sending: from here on the server may have it.
        reply: the reply that decided the message: to its end, or the one that refused MAIL, DATA or a chunk.
        farewell: the 421 that ended the session before the message was decided: it was refused by no reply.
        stage: where `reply` or `farewell` belongs.
        replies: LMTP: recipient to the reply for the message.
        listener: called with ``"C"`` and each command when it is made for sending, with ``"S"`` and each reply.
    """

    __slots__ = (
        "accepted",
        "answered",
        "begun",
        "ended",
        "farewell",
        "go_ahead",
        "listener",
        "lmtp",
        "recipients",
        "refused",
        "replies",
        "reply",
        "stage",
    )

    def __init__(self, recipients: Sequence[str], *, lmtp: bool = False) -> None:
        self.recipients = recipients
        self.lmtp = lmtp
        self.begun = False
        self.answered = False
        self.accepted: list[str] = []
        self.refused: dict[str, Reply] = {}
        self.go_ahead = False
        self.ended = False
        self.reply: Reply | None = None
        self.farewell: Reply | None = None
        self.stage: Stage | None = None
        self.replies: dict[str, Reply] = {}
        self.listener: Callable[[str, object], None] | None = None

    def __repr__(self) -> str:
        return f"<Transaction to {len(self.recipients)}: {self.delivery or 'accepted'}>"

    # -- what is sent

    def note_mail(self) -> None:
        """MAIL is made for sending."""
        self.begun = True

    def note_end(self) -> None:
        """The end of the message is."""
        self.ended = True

    # -- what is answered: each returns whether the command has all its replies

    def answer_mail(self, recipient: str, reply: Reply) -> bool:
        """The reply to MAIL."""
        self.answered = True
        if reply.code >= 400:
            self._refuse(_MAIL, reply)
        return True

    def answer_rcpt(self, recipient: str, reply: Reply) -> bool:
        """The reply to this recipient's RCPT."""
        if reply.code < 400:
            self.accepted.append(recipient)
        elif reply.code == 421:  # the session ended, and the recipient was not refused
            self.lose(_RCPT, reply)
        else:
            self.refused[recipient] = reply.abridged()
        return True

    def answer_data(self, recipient: str, reply: Reply) -> bool:
        """The reply to DATA.

        Raises:
            RemoteProtocolError: it accepts what was refused; the text is not sent.
        """
        if reply.code >= 400:
            self._refuse(_DATA, reply)
        elif self.reply is not None:
            raise self._contradiction_error(f"{reply} to DATA, after MAIL was refused", reply, _DATA)
        else:
            self.go_ahead = True
        return True

    def answer_chunk(self, recipient: str, reply: Reply) -> bool:
        """The reply to a BDAT that was not the last."""
        if reply.code >= 400:
            self._refuse(_BODY, reply)
        return True

    def answer_end(self, recipient: str, reply: Reply) -> bool:
        """A reply to the end of the message.

        Raises:
            RemoteProtocolError: it accepts what was refused; which of the two is meant is not known.
        """
        if reply.code < 400 and not self.go_ahead and (self.reply is not None or not self.accepted):
            # Not after DATA: there the text was sent only if a recipient was accepted.
            self.forget_answers()
            raise self._contradiction_error(f"{reply} to the end of a message that was refused", reply, _END)
        if self.reply is not None:
            return True
        if self.lmtp and self.accepted:
            # RFC 2033 §4.2: one reply for each accepted recipient, in the order of their RCPT commands.
            replies = self.replies
            replies[self.accepted[len(replies)]] = reply.abridged()
            if len(replies) < len(self.accepted):
                return False
            reply = next((each for each in replies.values() if each.is_success), reply)
        self.stage, self.reply = _END, reply
        return True

    def _refuse(self, stage: Stage, reply: Reply) -> None:
        if reply.code == 421:
            self.lose(stage, reply)
        else:
            self.decide(stage, reply)

    def _contradiction_error(self, text: str, reply: Reply, stage: Stage) -> RemoteProtocolError:
        return RemoteProtocolError(text, reply=reply, stage=stage, delivery=self.delivery)

    # -- what is known besides

    def decide(self, stage: Stage, reply: Reply) -> None:
        """Note the reply that decides the message; the first one counts."""
        if self.reply is None:
            self.stage = stage
            self.reply = reply

    def lose(self, stage: Stage, farewell: Reply) -> None:
        """The session ended with this 421, and nothing after it was accepted (RFC 5321 section 3.8)."""
        if self.reply is None and self.farewell is None:
            self.stage = stage
            self.farewell = farewell

    def forget_answers(self) -> None:
        """Forget every answer: the server accepted the text of a message that it had refused, or said 421 to."""
        self.accepted.clear()
        self.refused.clear()
        self.reply = self.farewell = self.stage = None

    def forget_reply(self) -> None:
        """Forget the reply that decided the message: the server has given another."""
        self.reply = None

    def disagrees_with(self, reply: Reply) -> bool:
        """Whether the reply that decided the message says otherwise than this one."""
        return self.reply is not None and self.reply.is_success != reply.is_success

    # -- what follows from it

    @property
    def is_decided(self) -> bool:
        """A reply or a 421 has said what becomes of it."""
        return self.reply is not None or self.farewell is not None

    @property
    def left(self) -> Left:
        """What its refusals leave open at the server."""
        if self.stage is _MAIL:
            # 503 to MAIL: a transaction that we do not know of is open already (RFC 5321 §4.1.4).
            return Left.ANOTHER if self.reply is not None and self.reply.code == 503 else Left.NOTHING
        return Left.SENDER if self.all_refused else Left.RECIPIENTS

    @property
    def all_refused(self) -> bool:
        """Every recipient was refused."""
        return len(self.refused) == len(self.recipients)

    @property
    def delivery(self) -> Delivery | None:
        """What became of the message so far; ``None`` if the server has accepted it for a recipient."""
        reply = self.reply
        if reply is not None and not reply.is_success:
            return Delivery.REFUSED
        if self.all_refused:
            return Delivery.REFUSED
        if self.farewell is not None:
            return Delivery.NOT_SENT
        if self.lmtp and self.ended:
            # Not counted by `accepted`: in one write with the end, RCPT may be unanswered itself.
            if len(self.recipients) > len(self.refused) + len(self.replies):
                return Delivery.UNKNOWN
            delivered = any(answer.is_success for answer in self.replies.values())
            return None if delivered else Delivery.REFUSED
        if reply is not None:
            return None
        return Delivery.UNKNOWN if self.ended else Delivery.NOT_SENT

    def fates(self) -> tuple[list[str], dict[str, Reply], list[str]]:
        """Recipients who have the message, those who certainly have not (with the reply), and those in doubt."""
        if self.ended and not self.lmtp and not self.refused and self.reply is not None and self.reply.is_success:
            return list(self.recipients), {}, []  # as for nearly every message
        refused = dict(self.refused)
        if self.reply is not None and not self.reply.is_success:
            return [], refused | self.replies, []
        if not self.ended or self.all_refused or self.farewell is not None:
            return [], refused, []
        if not self.lmtp:
            rest = [recipient for recipient in self.recipients if recipient not in refused]
            return (rest, refused, []) if self.reply is not None else ([], refused, rest)
        delivered: list[str] = []
        unknown: list[str] = []
        for recipient in self.recipients:
            if recipient in refused:
                continue
            answer = self.replies.get(recipient)
            if answer is None:
                unknown.append(recipient)
            elif answer.is_success:
                delivered.append(recipient)
            else:
                refused[recipient] = answer
        return delivered, refused, unknown
