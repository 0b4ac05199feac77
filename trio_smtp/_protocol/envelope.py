# The envelope: sender, recipients and their parameters. Plain values, cheap to make, one per command.
#
# Parameters that most messages do not have are class defaults, so an ordinary Sender has four attributes. An
# application's own parameter may set further attributes (parameters.py).
from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import ClassVar, NamedTuple

from .addresses import split_address


class DeliverBy(NamedTuple):
    """``BY=``: deliver within ``seconds``, or else return the message or notify the sender (RFC 2852 section 4).

    Attributes:
        seconds: the time limit; may be negative with mode ``"N"``.
        mode: ``"R"`` (return) or ``"N"`` (notify).
        trace: the client asked for tracing (``T``).
    """

    seconds: int
    mode: str
    trace: bool


class _Party:
    address: str
    local_part: str
    domain: str
    params: dict[str, str | None]
    unreadable: Mapping[str, str] = MappingProxyType({})

    def __init__(
        self,
        address: str,
        local_part: str | None = None,
        domain: str | None = None,
        params: dict[str, str | None] | None = None,
    ) -> None:
        if local_part is None or domain is None:
            local_part, domain = split_address(address)
        self.address = address
        self.local_part = local_part
        self.domain = domain
        self.params = {} if params is None else params

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(self.address)

    def __str__(self) -> str:
        return self.address

    def __repr__(self) -> str:
        params = f", {self.params!r}" if self.params else ""
        return f"{type(self).__name__}({self.address!r}{params})"


class Sender(_Party):
    """The reverse path of MAIL, with its parameters.

    Attributes:
        address: as received; ``""`` is the null sender of bounces (RFC 5321 section 4.5.5).
        local_part: the part before the ``@``, without quotes.
        domain: the part after it, as A-labels in lower case, however it was written: ``xn--mller-kva.test`` for
            ``MÜLLER.test``. ``""`` without a domain. An address literal keeps its brackets.
        params: upper-case keyword to the value as received; ``None`` for a keyword without one.
        unreadable: advisory parameters (``AUTH``, ``ENVID``) whose values could not be read; they are not in `params`.
        size: ``SIZE=``, octets (RFC 1870).
        body: ``"7BIT"``, ``"8BITMIME"`` or ``"BINARYMIME"`` (RFC 6152, RFC 3030).
        smtputf8: addresses and header fields may be UTF-8 (RFC 6531).
        ret: ``"FULL"`` or ``"HDRS"`` (RFC 3461 section 4.3).
        envid: the envelope identifier, decoded (RFC 3461 section 4.4).
        requiretls: every hop must use TLS (RFC 8689).
        auth: the identity that submitted the message, decoded; ``""`` for ``AUTH=<>``, unknown (RFC 4954 section 5).
        mt_priority: -9 to 9 (RFC 6710).
        deliver_by: a :class:`DeliverBy` (RFC 2852).
        hold_for: seconds to hold the message (RFC 4865).
        hold_until: when to release it (RFC 4865).
    """

    size: int | None = None
    body: str | None = None
    smtputf8: bool = False
    ret: str | None = None
    envid: str | None = None
    requiretls: bool = False
    auth: str | None = None
    mt_priority: int | None = None
    deliver_by: DeliverBy | None = None
    hold_for: int | None = None
    hold_until: datetime | None = None


class Recipient(_Party):
    """The forward path of RCPT, with its parameters.

    Attributes:
        address: as received.
        local_part: the part before the ``@``, without quotes.
        domain: the part after it, as A-labels in lower case, as in :class:`Sender`; ``""`` for postmaster alone. An
            address literal keeps its brackets.
        params: upper-case keyword to the value as received; ``None`` for a keyword without one.
        unreadable: as in :class:`Sender`; ``ORCPT``.
        notify: ``{"NEVER"}``, or some of ``"SUCCESS"``, ``"FAILURE"``, ``"DELAY"`` (RFC 3461 section 4.1).
        orcpt: address type (in lower case) and original recipient, decoded (RFC 3461 section 4.2, RFC 6533).
    """

    notify: frozenset[str] | None = None
    orcpt: tuple[str, str] | None = None


class Envelope:
    """The sender and the accepted recipients of one transaction.

    Attributes:
        sender: from MAIL.
        recipients: from RCPT, in order; an address that was given twice is there twice. A server's hooks may change
            them; what is no list is made one for the next RCPT, which is 451 if it cannot be.
    """

    __slots__ = ("recipients", "sender")

    sender: Sender
    recipients: list[Recipient]

    def __init__(self, sender: Sender, recipients: list[Recipient] | None = None) -> None:
        self.sender = sender
        self.recipients = [] if recipients is None else recipients

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Envelope):
            return NotImplemented
        return self.sender == other.sender and self.recipients == other.recipients

    __hash__: ClassVar[None] = None  # type: ignore[assignment]  # mutable: each RCPT adds a recipient

    def __repr__(self) -> str:
        return f"Envelope({self.sender!r}, {self.recipients!r})"
