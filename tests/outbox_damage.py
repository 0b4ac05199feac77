"""Entries of an outbox, damaged and repaired behind its back, in both stores."""

from __future__ import annotations

import sqlite3
from contextlib import closing

P = "trio-smtp:outbox:"
RECORDS = {
    "no record": b"{}",
    "no JSON": b'{"id": "m1"',
    "no UTF-8": b'{"id": "\xff"}',
    "a word for a number": None,
}


async def damage(url, entry_id, what):
    """Damage an entry behind the outbox's back."""
    if url.startswith("sqlite:"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:"))) as connection, connection:
            if what == "no content":
                words = "DELETE FROM outbox_contents WHERE place = (SELECT place FROM outbox_entries WHERE id = ?)"
                connection.execute(words, (entry_id,))
            elif what == "no version":
                connection.execute("UPDATE outbox_entries SET version = 'none' WHERE id = ?", (entry_id,))
            elif what == "a word for a number":
                words = "UPDATE outbox_entries SET record = json_set(record, '$.expires', 'soon') WHERE id = ?"
                connection.execute(words, (entry_id,))
            else:
                words = "UPDATE outbox_entries SET record = CAST(? AS TEXT) WHERE id = ?"
                connection.execute(words, (RECORDS[what], entry_id))
        return
    import coredis

    async with coredis.Redis.from_url(url) as client:
        if what == "no content":
            await client.delete([f"{P}c:{entry_id}"])
        elif what == "no version":
            await client.hdel(f"{P}e:{entry_id}", ["version"])
        elif what == "a word for a number":
            text = await client.hget(f"{P}e:{entry_id}", "record")
            assert text is not None
            head, _, rest = text.partition(b'"expires":')
            damaged = head + b'"expires":"soon"' + rest[rest.index(b",") :]
            await client.hset(f"{P}e:{entry_id}", {"record": damaged})
        else:
            record = RECORDS[what]
            assert record is not None
            await client.hset(f"{P}e:{entry_id}", {"record": record})


async def snapshot(url, entry_id):
    """All that is kept of an entry and can be damaged."""
    if url.startswith("sqlite:"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:"))) as connection:
            words = "SELECT place, version, record, content FROM outbox_entries JOIN outbox_contents USING (place)"
            return connection.execute(f"{words} WHERE id = ?", (entry_id,)).fetchone()
    import coredis

    async with coredis.Redis.from_url(url) as client:
        kept = await client.hmget(f"{P}e:{entry_id}", ["version", "record"])
        return (None, *kept, await client.get(f"{P}c:{entry_id}"))


async def restore(url, entry_id, whole):
    """Repair an entry by hand."""
    place, version, record, content = whole
    if url.startswith("sqlite:"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:"))) as connection, connection:
            words = "UPDATE outbox_entries SET version = ?, record = ? WHERE id = ?"
            connection.execute(words, (version, record, entry_id))
            connection.execute("INSERT OR REPLACE INTO outbox_contents VALUES (?, ?)", (place, content))
        return
    import coredis

    async with coredis.Redis.from_url(url) as client:
        await client.hset(f"{P}e:{entry_id}", {"version": version, "record": record})
        await client.set(f"{P}c:{entry_id}", content)


async def record_of(url, entry_id):
    """The record of an entry, as it is kept."""
    if url.startswith("sqlite:"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:"))) as connection:
            words = "SELECT CAST(record AS BLOB) FROM outbox_entries WHERE id = ?"
            return connection.execute(words, (entry_id,)).fetchone()[0]
    import coredis

    async with coredis.Redis.from_url(url) as client:
        return await client.hget(f"{P}e:{entry_id}", "record")


async def set_record(url, entry_id, text):
    """Another record in its place."""
    if url.startswith("sqlite:"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:"))) as connection, connection:
            connection.execute("UPDATE outbox_entries SET record = ? WHERE id = ?", (text, entry_id))
        return
    import coredis

    async with coredis.Redis.from_url(url) as client:
        await client.hset(f"{P}e:{entry_id}", {"record": text})


async def contents(url):
    """How many contents the store has."""
    if url.startswith("sqlite:"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:"))) as connection:
            return connection.execute("SELECT count(*) FROM outbox_contents").fetchone()[0]
    import coredis

    async with coredis.Redis.from_url(url) as client:
        return len(await client.keys(f"{P}c:*"))
