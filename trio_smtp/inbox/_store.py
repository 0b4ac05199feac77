# Where messages are kept: a SQLite database, in memory or in a file, with an index of their words (FTS5).
#
# Guarantees: never more messages than `keep`, nor more octets of content than `max_octets`, but for the newest message:
# the oldest go first. What a file holds after a crash is whole. It does not know SMTP, HTTP, or what a message says
# beyond what it is given; `_box.py` uses it, from one thread.
from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ._query import Condition

MAX_OCTETS: Final = 1024 * 1024 * 1024  # of content, of all messages together
MAX_WORDS: Final = 128 * 1024  # characters of a message that can be found
APPLICATION: Final = 0x74736D69  # "tsmi", in the file's header
VERSION: Final = 1
_BATCH: Final = 500  # parameters of one statement

_SCHEMA: Final = """
CREATE TABLE message (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    created INTEGER NOT NULL,
    read INTEGER NOT NULL DEFAULT 0,
    size INTEGER NOT NULL,
    attachments INTEGER NOT NULL,
    inline INTEGER NOT NULL,
    message_id TEXT NOT NULL,
    subject_words TEXT NOT NULL,
    to_words TEXT NOT NULL,
    from_words TEXT NOT NULL,
    cc_words TEXT NOT NULL,
    bcc_words TEXT NOT NULL,
    reply_to_words TEXT NOT NULL,
    summary TEXT NOT NULL,
    facts TEXT NOT NULL
);
CREATE INDEX message_read ON message (read);
CREATE TABLE content (number INTEGER PRIMARY KEY, octets BLOB NOT NULL);
CREATE TABLE transcript (number INTEGER PRIMARY KEY, text TEXT NOT NULL);
CREATE VIRTUAL TABLE words USING fts5 (text, tokenize = "unicode61 remove_diacritics 2");
"""
_COLUMNS: Final = (
    "id, created, size, attachments, inline, message_id, subject_words, to_words, from_words, cc_words, bcc_words,"
    " reply_to_words, summary, facts"
)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A message, as it is put into the store.

    Attributes:
        id: its name.
        created: when it arrived, in milliseconds since 1970.
        attachments, inline: how many parts of each kind it has.
        message_id, subject, to, author, cc, bcc, reply_to: what the search's prefixes look at.
        text: what the words of a search look at.
        summary: what a list shows; kept as it is.
        facts: what else is known; kept as it is.
        content: its octets.
        transcript: the dialogue so far.
    """

    id: str
    created: int
    attachments: int
    inline: int
    message_id: str
    subject: str
    to: str
    author: str
    cc: str
    bcc: str
    reply_to: str
    text: str = field(repr=False)
    summary: dict[str, Any] = field(repr=False)
    facts: dict[str, Any] = field(repr=False)
    content: bytes = field(repr=False)
    transcript: str = field(repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """A message in the store, without its content.

    Attributes:
        number: counts messages in the order of their arrival, over all times.
        id: its name.
        summary: as put in, with ``Read``.
        facts: as put in.
    """

    number: int
    id: str
    summary: dict[str, Any]
    facts: dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """Some of the messages that meet conditions.

    Attributes:
        summaries: newest first.
        count: how many meet the conditions, in all.
        unread: how many of these were not read.
    """

    summaries: list[dict[str, Any]]
    count: int
    unread: int


class Store:
    """Messages, newest last.

    Args:
        path: the file; ``None`` for memory.
        keep: how many messages.
        max_octets: how many octets of content.

    Raises:
        OSError: the file cannot be opened, belongs to another program, or is in use.
    """

    def __init__(self, path: str | None, *, keep: int, max_octets: int = MAX_OCTETS) -> None:
        self.path: str | None = path
        self._keep: int = keep
        self._max_octets: int = max_octets
        try:
            # Used from whichever thread runs the loop, one at a time.
            self._db: sqlite3.Connection = sqlite3.connect(
                ":memory:" if path is None else path, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as exc:
            raise OSError(f"cannot use {path} as a store: {exc}") from exc
        try:
            self._open(path)
            row = self._db.execute("SELECT COUNT(*), COALESCE(SUM(size), 0) FROM message").fetchone()
        except (sqlite3.Error, OSError) as exc:
            self._db.close()
            raise OSError(f"cannot use {path} as a store: {exc}") from exc
        self._total, self._octets = int(row[0]), int(row[1])
        self.deleted: int = 0  # since it was opened
        self._prune()

    def _open(self, path: str | None) -> None:
        if path is not None:
            # One process only; a crash of it loses nothing, one of the machine at most the last moments.
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
        application = self._db.execute("PRAGMA application_id").fetchone()[0]
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if (application, version) == (APPLICATION, VERSION):
            return
        if application or version or self._db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]:
            raise OSError("it is not a store of this version")
        self._db.executescript(
            f"BEGIN; {_SCHEMA} PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION}; COMMIT;"
        )

    def __len__(self) -> int:
        return self._total

    def __repr__(self) -> str:
        return f"<Store {self.path or 'in memory'}: {self._total} messages, {self._octets} octets>"

    def close(self) -> None:
        """Close the database; a store in memory is gone."""
        self._db.close()

    @property
    def octets(self) -> int:
        """Of content, of all messages."""
        return self._octets

    @property
    def unread(self) -> int:
        """How many messages were not read."""
        return int(self._db.execute("SELECT COUNT(*) FROM message WHERE read = 0").fetchone()[0])

    # ---- in

    def add(self, entry: Entry) -> tuple[int, list[str]]:
        """Keep a message, and remove the oldest as far as there are too many; returns its number, and their ids."""
        values = (
            *(entry.id, entry.created, len(entry.content), entry.attachments, entry.inline, entry.message_id.lower()),
            *(each.lower() for each in (entry.subject, entry.to, entry.author, entry.cc, entry.bcc, entry.reply_to)),
            *(json.dumps(each, ensure_ascii=False) for each in (entry.summary, entry.facts)),
        )
        with self._transaction() as db:
            marks = ", ".join("?" * len(values))
            number = db.execute(f"INSERT INTO message ({_COLUMNS}) VALUES ({marks})", values).lastrowid
            db.execute("INSERT INTO content VALUES (?, ?)", (number, entry.content))
            db.execute("INSERT INTO transcript VALUES (?, ?)", (number, entry.transcript))
            db.execute("INSERT INTO words (rowid, text) VALUES (?, ?)", (number, entry.text[:MAX_WORDS]))
        self._total += 1
        self._octets += len(entry.content)
        return int(number or 0), self._prune()

    def set_transcript(self, number: int, text: str) -> None:
        """Replace the dialogue of a message, if it is still there."""
        self._db.execute("UPDATE transcript SET text = ? WHERE number = ?", (text, number))

    def _prune(self) -> list[str]:
        removed: list[str] = []
        while self._total > 1 and (self._total > self._keep or self._octets > self._max_octets):
            surplus = max(1, min(_BATCH, self._total - self._keep))
            rows = self._db.execute("SELECT number, id FROM message ORDER BY number LIMIT ?", (surplus,)).fetchall()
            self._delete([row[0] for row in rows])
            removed += (row[1] for row in rows)
        return removed

    # ---- out

    def find(self, name: str) -> Kept | None:
        """A message by its id."""
        row = self._db.execute("SELECT number, id, read, summary, facts FROM message WHERE id = ?", (name,)).fetchone()
        return None if row is None else _kept(row)

    def newest(self, conditions: Sequence[Condition] = ()) -> str | None:
        """The id of the newest message that meets conditions."""
        where, values = _where(conditions)
        row = self._db.execute(f"SELECT id FROM message{where} ORDER BY number DESC LIMIT 1", values).fetchone()
        return None if row is None else str(row[0])

    def newest_that(self, matches: Callable[[Kept], bool], *, after: int = 0) -> Kept | None:
        """The newest message that a function accepts, of those behind a number."""
        rows = self._db.execute(
            "SELECT number, id, read, summary, facts FROM message WHERE number > ? ORDER BY number DESC", (after,)
        )
        return next((kept for kept in map(_kept, rows) if matches(kept)), None)

    def all(self) -> Iterator[Kept]:
        """All messages, oldest first."""
        return map(_kept, self._db.execute("SELECT number, id, read, summary, facts FROM message ORDER BY number"))

    def content(self, number: int) -> bytes:
        """The octets of a message.

        Raises:
            LookupError: it is not there any more.
        """
        row = self._db.execute("SELECT octets FROM content WHERE number = ?", (number,)).fetchone()
        if row is None:
            raise LookupError(number)
        return bytes(row[0])

    def transcript(self, number: int) -> str:
        """The dialogue in which a message came; ``""`` if it is not there any more."""
        row = self._db.execute("SELECT text FROM transcript WHERE number = ?", (number,)).fetchone()
        return "" if row is None else str(row[0])

    def page(self, conditions: Sequence[Condition], *, start: int, limit: int) -> Page:
        """Some of the messages that meet conditions, newest first."""
        where, values = _where(conditions)
        rows = self._db.execute(
            f"SELECT summary, read FROM message{where} ORDER BY number DESC LIMIT ? OFFSET ?", (*values, limit, start)
        )
        summaries = [json.loads(summary) | {"Read": bool(read)} for summary, read in rows]
        if not conditions:
            return Page(summaries=summaries, count=self._total, unread=self.unread)
        count, unread = self._db.execute(
            f"SELECT COUNT(*), COALESCE(SUM(read = 0), 0) FROM message{where}", values
        ).fetchone()
        return Page(summaries=summaries, count=count, unread=unread)

    # ---- changes

    def ids(self, conditions: Sequence[Condition] = ()) -> list[str]:
        """The ids of the messages that meet conditions."""
        where, values = _where(conditions)
        return [row[0] for row in self._db.execute(f"SELECT id FROM message{where} ORDER BY number", values)]

    def mark(self, ids: Iterable[str], *, read: bool) -> list[str]:
        """Mark messages as read or unread; returns the ids of those that were not so before."""
        changed: list[str] = []
        for batch in _batches(ids):
            marks = ", ".join("?" * len(batch))
            rows = self._db.execute(
                f"UPDATE message SET read = ? WHERE read <> ? AND id IN ({marks}) RETURNING id", (read, read, *batch)
            )
            changed += (row[0] for row in rows.fetchall())
        return changed

    def delete(self, ids: Iterable[str]) -> list[str]:
        """Remove messages; returns the ids of those that were there."""
        removed: list[str] = []
        for batch in _batches(ids):
            marks = ", ".join("?" * len(batch))
            rows = self._db.execute(f"SELECT number, id FROM message WHERE id IN ({marks})", batch).fetchall()
            self._delete([row[0] for row in rows])
            removed += (row[1] for row in rows)
        self.deleted += len(removed)
        return removed

    def _delete(self, numbers: list[int]) -> None:
        marks = ", ".join("?" * len(numbers))
        with self._transaction() as db:
            octets = db.execute(f"SELECT SUM(size) FROM message WHERE number IN ({marks})", numbers).fetchone()[0]
            for table, key in (
                ("message", "number"),
                ("content", "number"),
                ("transcript", "number"),
                ("words", "rowid"),
            ):
                db.execute(f"DELETE FROM {table} WHERE {key} IN ({marks})", numbers)
        self._total -= len(numbers)
        self._octets -= int(octets or 0)

    def _transaction(self) -> _Transaction:
        return _Transaction(self._db)


class _Transaction:
    """Begins one, and ends it: by COMMIT, or, after an exception, by ROLLBACK."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> sqlite3.Connection:
        self._db.execute("BEGIN IMMEDIATE")
        return self._db

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._db.execute("COMMIT" if kind is None else "ROLLBACK")


def _kept(row: tuple[Any, ...]) -> Kept:
    number, name, read, summary, facts = row
    return Kept(
        number=number,
        id=name,
        summary=json.loads(summary) | {"Read": bool(read)},
        facts=json.loads(facts),
    )


def _where(conditions: Sequence[Condition]) -> tuple[str, list[object]]:
    if not conditions:
        return "", []
    return (
        " WHERE " + " AND ".join(f"({condition.sql})" for condition in conditions),
        [value for condition in conditions for value in condition.values],
    )


def _batches(ids: Iterable[str]) -> Iterator[list[str]]:
    every = list(ids)
    for at in range(0, len(every), _BATCH):
        yield every[at : at + _BATCH]
