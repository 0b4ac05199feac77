# What one connection still takes: the server's LIMITS (RFC 9422), and the number of recipients learnt on the way.
#
# Limits that a server names are law: a list is split along them, and a connection that has had its share is used up.
# The number of recipients at which a server answers 452 is experience: lists are split along it where they can be,
# and the limit is forgotten with the connection.
# Not known here: commands, tasks, the wire.
from __future__ import annotations

from collections.abc import Sequence

from .._protocol.client.transaction import Transaction
from .._protocol.errors import ConnectionLostError, Delivery, ExtensionNotSupportedError, Stage
from .._protocol.extensions import Limits
from .message import Message
from .report import DeliveryReport, one_too_many

_NONE = Limits()


class Allowance:
    """The limits of one connection, and how much of them is used.

    Attributes:
        most_recipients: of one transaction, by LIMITS or by experience; ``None`` if nothing is known.
    """

    __slots__ = (
        "_domains",
        "_is_limited",
        "_limits",
        "_suspected",
        "_suspects",
        "_transactions",
        "most_recipients",
    )

    def __init__(self) -> None:
        self._transactions = 0  # MAIL commands
        self._domains: set[str] = set()  # of the recipients so far, where the server counts them
        self._suspects: Sequence[str] = ()  # a 452 to them may have meant that the transaction had too many
        self._suspected = 0  # recipients that it was accepted for
        self.learn(_NONE)

    def __repr__(self) -> str:
        return f"<Allowance: {self._transactions} transactions of {self._limits}>"

    def learn(self, limits: Limits) -> None:
        """Go by these limits from now on."""
        self._limits = limits
        self._is_limited = limits != _NONE
        self.most_recipients = limits.rcptmax

    def count(self, message: Message, recipients: Sequence[str]) -> None:
        """A transaction of the message is begun, for these of its recipients."""
        self._transactions += 1
        if self._limits.rcptdomainmax is not None:
            self._domains.update(_domain(message.recipients[written]) for written in recipients)

    @property
    def is_exhausted(self) -> bool:
        """The server takes no further MAIL (RFC 9422 section 4.1)."""
        limit = self._limits.mailmax
        return limit is not None and self._transactions >= limit

    def is_used_up(self, report: DeliveryReport) -> bool:
        """Whether there is no room for the rest of this message, so that it needs another connection."""
        if not self._is_limited:
            return False
        if self.is_exhausted:
            return True
        most = self._limits.rcptdomainmax
        if most is None:
            return False
        admitted = self._admitted(report, most)
        if report.message.content.replayable or not self._domains:
            return not admitted
        return len(admitted) < len(report.remaining)  # a new connection may have room for all

    def _admitted(self, report: DeliveryReport, most: int) -> list[str]:
        """Those who remain and whose domains do not bring the connection beyond so many."""
        domains = set(self._domains)
        admitted: list[str] = []
        for written in report.remaining:
            domain = _domain(report.message.recipients[written])
            if domain in domains or len(domains) < most:
                domains.add(domain)
                admitted.append(written)
        return admitted

    def next_batch(self, report: DeliveryReport) -> Sequence[str]:
        """The recipients of the message's next transaction (RFC 9422 section 4.2).

        Raises:
            ConnectionLostError: the connection is used up.
            ExtensionNotSupportedError: the list must be split, and the content cannot be produced twice.
        """
        if not self._is_limited and self.most_recipients is None:
            return report.remaining
        if self.is_used_up(report):
            raise self._used_up()
        limit, law = self.most_recipients, self._limits.rcptmax
        most_domains = self._limits.rcptdomainmax
        if most_domains is not None:
            admitted = self._admitted(report, most_domains)
            if len(admitted) < len(report.remaining):
                report.prefer(admitted)
                limit = min(len(admitted), limit or len(admitted))
                law = min(len(admitted), law or len(admitted))
        remaining = report.remaining
        if limit is None or len(remaining) <= limit:
            return remaining
        if report.message.content.replayable:
            return remaining[:limit]
        if law is None or len(remaining) <= law:
            return remaining  # experience is no law
        raise ExtensionNotSupportedError(
            f"the server takes {law} of the recipients at a time, and this content cannot be produced twice",
            stage=Stage.MAIL,
            delivery=Delivery.NOT_SENT,
        )

    def _used_up(self) -> ConnectionLostError:
        limits = self._limits
        what = f"{limits.mailmax} messages" if self.is_exhausted else f"recipients of {limits.rcptdomainmax} domains"
        return ConnectionLostError(
            f"the connection is used up: the server takes {what} on one; open another",
            stage=Stage.MAIL,
            delivery=Delivery.NOT_SENT,
        )

    def record(self, report: DeliveryReport, transaction: Transaction) -> None:
        """Give a decided transaction's fates to the report, and learn from them.

        Recipients who were too many for it remain, if the message can be sent again.
        """
        suspects, self._suspects = self._suspects, ()
        too_many: Sequence[str] = ()
        if transaction.refused and report.message.content.replayable:
            too_many = one_too_many(transaction)
        report.settle(transaction, too_many)
        if not too_many and not suspects:
            return
        if any(transaction.refused[written].enhanced is not None for written in too_many):
            self.most_recipients = len(transaction.accepted)
            return
        if any(written in suspects for written in transaction.accepted):
            self.most_recipients = self._suspected  # 452 may be a full mailbox; it was not, since they are accepted now
        self._suspects, self._suspected = too_many, len(transaction.accepted)


def _domain(address: str) -> str:
    return address.rpartition("@")[2].lower()
