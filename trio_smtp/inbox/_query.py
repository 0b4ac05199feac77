# The search language, Mailpit's: words, "phrases", to: from: subject: is:unread has:attachment before: after: and some
# more, each of which `-` or `!` turns round.
#
# A query becomes conditions of SQL with parameters; no text of it becomes SQL.
from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Final
from zoneinfo import ZoneInfo

MAX_QUERY: Final = 2000  # characters
MAX_TERMS: Final = 50

_TERM: Final = re.compile(r"""([-!]?)((?:[a-zA-Z-]+:)?)(?:"([^"]*)"|'([^']*)'|(\S*))""")
_SIZE: Final = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)\s?([km]?)b?", re.IGNORECASE)
_UNITS: Final = {"": 1, "k": 1024, "m": 1024**2}
# Scripts that write no blanks between words: their words are no tokens of the index.
_WITHOUT_BLANKS: Final = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uac00-\ud7af\uf900-\uffdc]")


class QueryError(ValueError):
    """A query that cannot be understood; the text says why."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition of SQL on the table ``message``, with its parameters."""

    sql: str
    values: tuple[object, ...] = ()

    def negated(self) -> Condition:
        """The opposite."""
        return Condition(f"NOT ({self.sql})", self.values)


def parse_query(query: str, zone: str = "") -> list[Condition]:
    """The conditions that a message has to meet, all of them.

    Args:
        query: what was typed.
        zone: the time zone of ``before:`` and ``after:``, by its name in the IANA database; by default UTC.

    Raises:
        QueryError: it is too long, or has a date or a size that is none.
    """
    if len(query) > MAX_QUERY:
        raise QueryError(f"a query has at most {MAX_QUERY} characters")
    conditions: list[Condition] = []
    for match in _TERM.finditer(query):
        word = next(each for each in (*match.groups()[2:], "") if each is not None)
        condition = _condition(match[2][:-1].lower(), word, zone)
        if condition is not None:
            conditions.append(condition.negated() if match[1] else condition)
    if len(conditions) > MAX_TERMS:
        raise QueryError(f"a query has at most {MAX_TERMS} terms")
    return conditions


def _condition(field: str, word: str, zone: str) -> Condition | None:
    """Of one term; ``None`` for a field without a word."""
    if field in _COLUMNS:
        return _like(_COLUMNS[field], word) if word else None
    if field in _SWITCHES:
        return _SWITCHES[field].get(word.lower()) or _words(f"{field}:{word}")
    if field in _COMPARED:
        return _COMPARED[field](word, zone)
    text = f"{field}:{word}" if field else word  # http://…
    return _words(text) if text.strip() else None


def _like(column: str, word: str) -> Condition:
    escaped = re.sub(r"([\\%_])", r"\\\1", word.lower())
    return Condition(f"{column} LIKE ? ESCAPE '\\'", (f"%{escaped}%",))


def _words(word: str) -> Condition:
    """A word or a phrase of the text; the last word may go on."""
    if _WITHOUT_BLANKS.search(word) or not any(char.isalnum() for char in word):
        inner = _like("text", word)
        return Condition(f"number IN (SELECT rowid FROM words WHERE {inner.sql})", inner.values)
    phrase = word.replace('"', '""').replace("\0", " ")
    return Condition("number IN (SELECT rowid FROM words WHERE words MATCH ?)", (f'"{phrase}"*',))


def _before(word: str, zone: str) -> Condition:
    return Condition("created <= ?", (_moment(word, zone),))


def _after(word: str, zone: str) -> Condition:
    return Condition("created >= ?", (_moment(word, zone),))


def _larger(word: str, zone: str) -> Condition:
    return Condition("size > ?", (_size(word),))


def _smaller(word: str, zone: str) -> Condition:
    return Condition("size < ?", (_size(word),))


def _moment(word: str, zone: str) -> int:
    """A date, or a date and a time, in milliseconds since 1970."""
    try:
        moment = datetime.fromisoformat(word.strip().replace("/", "-").upper())
        moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=_zone(zone))
        return int(moment.timestamp() * 1000)
    except QueryError:
        raise
    except (ValueError, OverflowError) as exc:
        raise QueryError(f"{word!r} is not a date such as 2026-11-30 or 2026-11-30T15:00") from exc


def _zone(name: str) -> tzinfo:
    if not name:
        return UTC
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError) as exc:  # a name that is a directory, or leads out of the database
        raise QueryError(f"{name!r} is not a time zone such as Europe/Vienna") from exc


def _size(word: str) -> int:
    match = _SIZE.fullmatch(word.strip())
    if match is None:
        raise QueryError(f"{word!r} is not a size such as 500, 20k or 1.5m")
    return int(float(match[1]) * _UNITS[match[2].lower()])


_COLUMNS: Final = {
    "to": "to_words",
    "from": "from_words",
    "cc": "cc_words",
    "bcc": "bcc_words",
    "reply-to": "reply_to_words",
    "subject": "subject_words",
    "message-id": "message_id",
}
_SWITCHES: Final[Mapping[str, Mapping[str, Condition]]] = {
    "is": {"read": Condition("read = 1"), "unread": Condition("read = 0"), "tagged": Condition("0")},
    "has": {
        "attachment": Condition("attachments > 0"),
        "attachments": Condition("attachments > 0"),
        "inline": Condition("inline > 0"),
        "inlines": Condition("inline > 0"),
    },
}
_COMPARED: Final[Mapping[str, Callable[[str, str], Condition]]] = {
    "before": _before,
    "after": _after,
    "larger": _larger,
    "smaller": _smaller,
    "tag": lambda word, zone: Condition("0"),  # messages have no tags here
}
