# A record as text, as both stores keep it: as JSON, and beside it the steps since then (_states.py).
from __future__ import annotations

import json
from functools import lru_cache
from operator import attrgetter
from typing import Any, Final

from trio_smtp import Reply

from ._errors import LeaseLostError
from ._states import Begun, Fate, Marked, Record, State, retrace

_NOT_PLAIN: Final = ("recipients", "aside", "version", "step", "companions")
_PLAIN: Final = tuple(name for name in Record._fields if name not in _NOT_PLAIN)
_plain_of: Final = attrgetter(*_PLAIN)
_write_json: Final = json.JSONEncoder(separators=(",", ":")).encode


def to_json(record: Record) -> str:
    """The record without its version, as text to keep."""
    document = dict(zip(_PLAIN, _plain_of(record), strict=True))
    document["recipients"] = {
        address: fate if fate.reply is None else _with_reply(fate) for address, fate in record.recipients.items()
    }
    return _write_json(document)


@lru_cache(maxsize=4)  # those that are claimed together are claimed alike
def begun_to_json(step: Begun) -> str:
    """The same of a claim."""
    return _write_json(step)


def marked_to_json(step: Marked) -> str:
    """The same of a mark."""
    return _write_json(step)


def from_json(
    text: str | bytes, version: int, begun: str | bytes | None = None, marked: str | bytes | None = None
) -> Record:
    """The record that was kept, and that steps have led on from.

    Args:
        text: of :func:`to_json`.
        version: the record's.
        begun: of :func:`begun_to_json`, or ``None``.
        marked: of :func:`marked_to_json`, or ``None``.

    Raises:
        ValueError: it is none.
    """
    try:
        document = json.loads(_decoded(text))
        recipients = {address: _fate(fields) for address, fields in document.pop("recipients").items()}
        if not recipients:
            raise ValueError("not a record of an outbox: it has no recipients")
        document["log"] = tuple(document["log"])
        record = Record(recipients=recipients, version=version, **document)
        if begun is None and marked is None:
            return record
        claim = None if begun is None else Begun(*json.loads(_decoded(begun)))
        mark = None if marked is None else Marked(tuple(*json.loads(_decoded(marked))))
        return retrace(record, claim, mark)
    except (TypeError, KeyError, AttributeError, ArithmeticError, LeaseLostError) as exc:
        raise ValueError(f"not a record of an outbox: {exc}") from exc


def _decoded(text: str | bytes) -> str:
    return text if isinstance(text, str) else text.decode()


def _with_reply(fate: Fate) -> tuple[Any, ...]:
    reply = fate.reply
    assert reply is not None
    return (*fate[:3], (reply.code, reply.lines, reply.enhanced), fate.error)


def _fate(fields: list[Any]) -> Fate:
    state, attempts, due, reply, error = fields
    if reply is not None:
        code, lines, enhanced = reply
        reply = Reply.received(code, tuple(lines), enhanced)  # a peer's, which need not be one that we would send
    return Fate(State(state), attempts, due, reply, error)
