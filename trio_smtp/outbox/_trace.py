# What happens in an outbox, as values: for logs, metrics and tests.
from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal, NamedTuple, TypeAlias

from ._states import Record

EventName: TypeAlias = Literal["put", "begin", "mark", "settle", "doubt", "resolve", "lost", "store"]
"""The names of an :class:`OutboxEvent`."""
_NOTHING: Final[Mapping[str, int]] = MappingProxyType({})


class OutboxEvent(NamedTuple):
    """Something that happened in an outbox.

    Attributes:
        name: ``"put"``: a message is durable. ``"begin"``: a worker has claimed it. ``"mark"``: its end is about to be
            handed over. ``"settle"``: a try is over, or the entry's time was over before another one. ``"doubt"``: a
            lease ended after the mark. ``"resolve"``: a person has decided. ``"lost"``: this worker was too slow, and
            another has the entry. ``"store"``: the store could not be used; it will be tried again.
        entry: the entry's id, ``""`` for ``"store"``.
        state: the entry's state afterwards, ``""`` where it is not known.
        recipients: how many it is about.
        seconds: how long the try took, for ``"settle"``; 0 if there was none.
        error: what went wrong, or ``None``.
        states: of the recipients whose state has changed by it, how many are in which :class:`State` now.
        age: seconds from ``put`` until now, if the entry is settled by it; else ``None``.
    """

    name: EventName
    entry: str = ""
    state: str = ""
    recipients: int = 0
    seconds: float = 0.0
    error: Exception | None = None
    states: Mapping[str, int] = _NOTHING
    age: float | None = None


def event_about(
    name: EventName,
    before: Record | None,
    after: Record,
    recipients: int,
    *,
    error: Exception | None = None,
    seconds: float = 0.0,
) -> OutboxEvent:
    """What has happened to an entry; `before` is ``None`` if it was put now."""
    states, age = changed_states(before, after), age_when_settled(before, after)
    return OutboxEvent(name, after.id, after.state, recipients, seconds, error, states, age)


def changed_states(before: Record | None, after: Record) -> Mapping[str, int]:
    """Of the recipients whose state has changed, how many are in which one now.

    Args:
        before: the entry; ``None`` if it was put now.
        after: the same, or what has become of it.
    """
    if before is not None and before.recipients is after.recipients:
        return _NOTHING
    states: dict[str, int] = {}
    for address, fate in after.recipients.items():
        was = None if before is None else before.recipients.get(address)
        if was is None or was.state is not fate.state:
            states[fate.state] = states.get(fate.state, 0) + 1
    return states


def age_when_settled(before: Record | None, after: Record) -> float | None:
    """Seconds from ``put`` to the end of an entry that is settled now, and was not before."""
    if after.settled is None or (before is not None and before.settled is not None):
        return None
    return max(0.0, after.settled - after.created)
