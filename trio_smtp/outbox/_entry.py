# What the public sees of a message in the outbox: an entry, its recipients and their states.
from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from trio_smtp import Reply


class State(StrEnum):
    """What has become of an entry, or of one of its recipients."""

    QUEUED = "queued"
    SENDING = "sending"
    SENT = "sent"
    REFUSED = "refused"
    IN_DOUBT = "in_doubt"
    EXPIRED = "expired"
    DISCARDED = "discarded"


@dataclass(frozen=True, slots=True)
class RecipientState:
    """One recipient of an entry.

    Attributes:
        state: what has become of the message for it.
        reply: the server's latest reply about it, or ``None``.
        attempts: tries that were begun, connections that failed included.
        next_attempt: when it is tried next, while it is queued.
        error: why the latest try failed, in words, where there was no reply; else ``""``.
    """

    state: State
    reply: Reply | None = None
    attempts: int = 0
    next_attempt: datetime | None = None
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A message in the outbox, as it was when you asked.

    Attributes:
        id: its name in the store.
        key: what makes its ``put`` idempotent, or ``None``.
        state: the least settled of its recipients' states.
        sender: the reverse path, ``""`` for none.
        recipients: address, as it was given, to its :class:`RecipientState`.
        size: octets of content.
        created: when it was put.
        settled: when the last recipient was; ``None`` before.
        priority: higher goes first.
        last_attempt: when and by which worker it was last begun, how that ended, and the dialogue, in lines of text.
        set_aside: why no worker takes it, in words, if it was damaged when one did; else ``""``.
    """

    id: str
    key: str | None
    state: State
    sender: str
    recipients: dict[str, RecipientState]
    size: int
    created: datetime
    settled: datetime | None
    priority: int = 0
    last_attempt: list[str] = field(default_factory=list)
    set_aside: str = ""
