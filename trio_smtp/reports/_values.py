# What a report says, as values.
from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from trio_smtp import Reply


class Action(StrEnum):
    """What was done for a recipient (RFC 3464 section 2.3.3)."""

    FAILED = "failed"
    DELAYED = "delayed"
    DELIVERED = "delivered"
    RELAYED = "relayed"
    EXPANDED = "expanded"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedRecipient:
    """What a report says of one recipient.

    Attributes:
        address: the recipient as the reporting server knows it (Final-Recipient), decoded; where that is missing, the
            original one, and ``""`` where both are.
        action: what was done; ``None`` if the report does not say it in a word that is defined.
        status: the enhanced status code (RFC 3463), such as ``"5.1.1"``; ``None`` if there is none.
        orcpt: the type, in lower case, and the address of the original recipient, as in :attr:`Recipient.orcpt`.
        diagnostic: the Diagnostic-Code without its type.
        reply: the SMTP reply in it, if its type is smtp.
        remote_mta: the server that said so.
        last_attempt: when that was.
        retry_until: until when the reporting server tries.
    """

    address: str
    action: Action | None = None
    status: str | None = None
    orcpt: tuple[str, str] | None = None
    diagnostic: str | None = None
    reply: Reply | None = None
    remote_mta: str | None = None
    last_attempt: datetime | None = None
    retry_until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A delivery report, as read by :func:`parse_report`.

    Attributes:
        recipients: what it says of each recipient.
        envelope_id: the ENVID of the message that is reported on, decoded; ``None`` if it had none.
        reporting_mta: the server that reports.
        received_from: the server that it had the message from.
        arrived: when that was.
        text: the part for people to read.
        returned: the returned header or message, as octets; ``b""`` if nothing was returned.
        message_id: the Message-ID of that, with its angle brackets.
    """

    recipients: tuple[ReportedRecipient, ...]
    envelope_id: str | None = None
    reporting_mta: str | None = None
    received_from: str | None = None
    arrived: datetime | None = None
    text: str = ""
    returned: bytes = b""
    message_id: str | None = None


class ReportError(ValueError):
    """What was to be read is no delivery report, or one beyond the limits of :mod:`trio_smtp.reports`."""
