# The mail transactions of one session (RFC 5321 section 3.3): who sends, to whom, and what became of the last one.
#
# A transaction begins when MAIL is accepted. It ends with its message, whatever became of that, and with whatever gives
# it up. Its message is transfer.py's. This file does not know states: ServerProtocol moves.
from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..envelope import Envelope, Recipient, Sender
from ..replies import Reply
from .events import Mail, Rcpt

if TYPE_CHECKING:
    from .protocol import ServerProtocol

_NO_ADDRESSEES: Final[list[str]] = []  # of all sessions before their first transaction, which begins a list of its own


class Transactions:
    """The transaction in progress, and the count of all.

    Attributes:
        envelope: of the one in progress; ``None`` outside one. The application may change it, so what the dialogue
            goes by is noted beside it as it was accepted:
        addressees: addresses of its recipients.
        utf8: MAIL had SMTPUTF8, so replies may be UTF-8.
        binary: MAIL had ``BODY=BINARYMIME``.
        accepted: whether the one that ended last ended with its message accepted.
        count: how many have begun.
    """

    __slots__ = ("accepted", "addressees", "binary", "count", "envelope", "utf8")

    def __init__(self) -> None:
        self.envelope: Envelope | None = None
        self.addressees: list[str] = _NO_ADDRESSEES
        self.utf8: bool = False
        self.binary: bool = False
        self.accepted: bool = False
        self.count: int = 0

    def __repr__(self) -> str:
        return f"<Transactions: {self.envelope or 'none in progress'}, {self.count} begun>"

    def begin(self, sender: Sender) -> None:
        """MAIL was accepted."""
        self.envelope = Envelope(sender)
        self.addressees = []
        self.utf8 = sender.smtputf8
        self.binary = sender.body == "BINARYMIME"
        self.count += 1

    def add(self, recipient: Recipient) -> None:
        """RCPT was accepted."""
        assert self.envelope is not None
        try:
            self.envelope.recipients.append(recipient)
        except (AttributeError, TypeError):  # the application has made something else of it
            self.envelope.recipients = [recipient]
        self.addressees.append(recipient.address)

    def end(self, *, accepted: bool) -> None:
        """The transaction in progress is over."""
        self.envelope = None
        self.utf8 = False
        self.accepted = accepted


def begin_transaction(protocol: ServerProtocol, event: Mail, reply: Reply) -> Reply:
    """MAIL was accepted."""
    protocol.transactions.begin(event.sender)
    return reply


def add_recipient(protocol: ServerProtocol, event: Rcpt, reply: Reply) -> Reply:
    """RCPT was accepted."""
    protocol.transactions.add(event.recipient)
    return reply
