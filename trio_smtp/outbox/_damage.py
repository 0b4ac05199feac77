# Entries that are damaged: how they are found, and what is said of them.
#
# A damaged entry must cost itself only. Both stores set it aside when they find it due: it keeps its state and its
# record, stands on no shelf where it would be found again, and is told of once, by a StoreError. Whoever reads records
# gets all that can be read, and beside them those that cannot.
from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from ._errors import DamagedEntry, StoreError
from ._kept import from_json
from ._states import Aside, Fate, Record, Transition

_NAMED: Final = 5  # damaged entries that an error names
_LENGTH: Final = 200  # characters of a reason
_UNREADABLE: Final = (ValueError, TypeError, ArithmeticError, LookupError, AttributeError, RecursionError)
_NUMBER: Final = (int, float)
_NONE: Final = type(None)
_TYPES: Final[Mapping[str, type | tuple[type, ...]]] = {
    "key": (str, _NONE),
    "sender": str,
    "size": int,
    "created": _NUMBER,
    "expires": _NUMBER,
    "priority": int,
    "mail_params": (dict, _NONE),
    "rcpt_params": (dict, _NONE),
    "settled": (int, float, _NONE),
    "claim": int,
    "marked": bool,
}
_TYPES_OF_FATE: Final[Mapping[str, type | tuple[type, ...]]] = {"attempts": int, "due": _NUMBER, "error": str}


class DamageError(Exception):
    """An entry cannot be taken, or read, in words."""


class Kept(NamedTuple):
    """What a store keeps in place of a record, as it is: ``None`` for what is not there."""

    record: bytes | None
    version: int | bytes | None
    begun: bytes | None = None
    marked: bytes | None = None


class Page(NamedTuple):
    """Some entries, in the order in which they were put.

    Attributes:
        records: those that can be read.
        damaged: those that cannot.
        after: the place of the last of all; ``None``: there is none more.
    """

    records: list[Record]
    damaged: list[DamagedEntry]
    after: int | None


def read(entry_id: str, kept: Kept, has_content: int | None) -> Record:
    """The record of an entry.

    Args:
        entry_id: the entry's.
        kept: in place of it.
        has_content: whether its content is there, if the entry is set aside; else ``None``.

    Raises:
        DamageError: it is none.
    """
    if kept.record is None or kept.version is None:
        raise DamageError(f"its {'record' if kept.record is None else 'version'} is gone")
    try:
        record = from_json(kept.record, int(kept.version), kept.begun, kept.marked)
        _check(record, entry_id)
        record.entry()  # its times
    except _UNREADABLE as exc:
        raise _unreadable(exc) from exc
    if has_content is None:
        return record
    return record._replace(aside=Aside.READABLE if has_content else Aside.NO_CONTENT)


def _check(record: Record, entry_id: str) -> None:
    """Raise TypeError or ValueError if a value is none of its kind: a record has as few checks as it can have."""
    if record.id != entry_id:
        raise ValueError(f"it is that of {record.id!r}")
    _check_types(record, _TYPES)
    for fate in record.recipients.values():
        _check_types(fate, _TYPES_OF_FATE)
    if not all(isinstance(line, str) for line in record.log):
        raise TypeError("log is no list of lines")


def _check_types(values: Record | Fate, types: Mapping[str, type | tuple[type, ...]]) -> None:
    for name, expected in types.items():
        value = getattr(values, name)
        if not isinstance(value, expected):
            raise TypeError(f"{name} is {value!r}")


def _unreadable(error: Exception) -> DamageError:
    return DamageError(f"its record cannot be read: {error}"[:_LENGTH])


def page_of(rows: Iterable[Sequence[Any]]) -> Page:
    """A page of these rows: place, id, the parts of what is kept, and whether content is there, as for :func:`read`."""
    page = Page([], [], None)
    place: int | None = None
    for place, entry_id, *kept, has_content in rows:  # noqa: B007 - the last
        try:
            page.records.append(read(entry_id, Kept(*kept), has_content))
        except DamageError as exc:
            page.damaged.append(DamagedEntry(entry_id, str(exc)))
    return page._replace(after=place)


def examined(entry_id: str, kept: Kept, size: int | None, damage: DamageError) -> StoreError:
    """The error for an entry that was asked for and is damaged, with all that is there."""
    parts = {name: _as_text(value) for name, value in kept._asdict().items() if value is not None}
    return damage_error([DamagedEntry(entry_id, str(damage), parts, size)])


def _as_text(value: int | bytes) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


class Damages:
    """The damaged entries among many: the first few, and how many."""

    def __init__(self) -> None:
        self._first: Final[list[DamagedEntry]] = []
        self._number = 0

    def add(self, damaged: Sequence[DamagedEntry]) -> None:
        """Note some."""
        self._first.extend(damaged[: _NAMED - len(self._first)])
        self._number += len(damaged)

    def error(self) -> StoreError | None:
        """What is to be said of them; ``None`` if there are none."""
        return damage_error(self._first, self._number) if self._number else None


def set_aside_error(store: str, damaged: Sequence[DamagedEntry]) -> StoreError:
    """The error for entries that a worker has found damaged."""
    named = "; ".join(f"entry {each.id} is set aside: {each.reason}" for each in damaged)
    return _error(f"the outbox {store} is damaged: {named}", damaged)


def not_damaged(entry_id: str) -> ValueError:
    """The error for an entry that is to be forgotten, and can be read."""
    return ValueError(f"entry {entry_id} can be read, and is not forgotten: resolve it, by discarding it for example")


def damage_error(first: Sequence[DamagedEntry], number: int = 1) -> StoreError:
    """The error for damaged entries, of which these are the first."""
    named = "; ".join(f"entry {each.id}: {each.reason}" for each in first)
    more = f"; and {number - len(first)} more" if number > len(first) else ""
    return _error(f"the outbox is damaged: {named}{more}", first)


def _error(words: str, damaged: Sequence[DamagedEntry]) -> StoreError:
    error = StoreError(words)
    error.damaged = tuple(damaged)
    return error


def claimed(
    text: bytes | None,
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
        known = from_json(text, int(version), begun, marked)  # type: ignore[arg-type]  # None is none, too
        record = transition(known, now)
    except _UNREADABLE as exc:
        raise (DamageError("its record is gone") if text is None else _unreadable(exc)) from exc
    if content is None and record.is_sending:
        raise DamageError("it has no content")
    return known, record
