# What a store found due, and what a worker makes of it: where an entry shows that it is damaged.
#
# A damaged entry must cost itself only. Both stores set it aside when they find it: it keeps its state and its record,
# stands on no shelf where it would be found again, and is told of once, by a StoreError.
from __future__ import annotations

from ._kept import from_json
from ._states import Record, Transition


class DamageError(Exception):
    """An entry cannot be taken, in words."""


def claimed(
    text: bytes,
    version: int | bytes,
    begun: bytes | None = None,
    marked: bytes | None = None,
    *,
    content: bytes | None,
    transition: Transition,
    now: float,
) -> tuple[Record, Record]:
    """The record that is kept, and what the transition makes of it.

    Raises:
        DamageError: it is none, or what is to be sent is not there.
    """
    try:
        known = from_json(text, int(version), begun, marked)
        record = transition(known, now)
    except (ValueError, TypeError, ArithmeticError, LookupError, AttributeError) as exc:
        raise DamageError(f"its record cannot be read: {exc}") from exc
    if content is None and record.is_sending:
        raise DamageError("it has no content")
    return known, record
