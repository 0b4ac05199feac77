# What happens in an outbox, as values: for logs, metrics and tests.
from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

EventName: TypeAlias = Literal["put", "begin", "mark", "settle", "doubt", "resolve", "lost", "store"]
"""The names of an :class:`OutboxEvent`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxEvent:
    """Something that happened in an outbox.

    Attributes:
        name: ``"put"``: a message is durable. ``"begin"``: a worker has claimed it. ``"mark"``: its end is about to be
            handed over. ``"settle"``: a try is over. ``"doubt"``: a lease ended after the mark. ``"resolve"``: a person
            has decided. ``"lost"``: this worker was too slow, and another has the entry. ``"store"``: the store could
            not be used; it will be tried again.
        entry: the entry's id, ``""`` for ``"store"``.
        state: the entry's state afterwards, ``""`` where it is not known.
        recipients: how many it is about.
        seconds: how long the try took, for ``"settle"``.
        error: what went wrong, or ``None``.
    """

    name: EventName
    entry: str = ""
    state: str = ""
    recipients: int = 0
    seconds: float = 0.0
    error: Exception | None = None
