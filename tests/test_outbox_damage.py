"""One entry that is damaged: it is set aside and told of once, and all the others are sent."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
import trio
from outbox_stores import one_redis, store_url  # noqa: F401 - fixtures
from test_outbox import TEXT, A, B, C, opened, working

import trio_smtp
from trio_smtp.outbox import OutboxConfig, State, StoreError, open_outbox
from trio_smtp.outbox._records import new_record
from trio_smtp.outbox._reports import with_reports
from trio_smtp.outbox._states import Outcome, Record, Turn, begin, mark, settle

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
                connection.execute("DELETE FROM outbox_contents WHERE place = 2")
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


@pytest.mark.parametrize("what", [*RECORDS, "no content", "no version"])
async def test_it_costs_itself_only(store_url, what):  # noqa: F811
    events: list = []
    config = OutboxConfig(lease=2, trace=events.append)
    async with opened(store_url, config) as (outbox, sink, pool):
        before, damaged, after = [await outbox.put(A, [B], TEXT) for _ in range(3)]
        await damage(store_url, damaged.id, what)
        async with working(outbox, pool):
            for ticket in (before, after):
                assert (await outbox.wait(ticket.id)).state is State.SENT
            later = await outbox.put(A, [C], TEXT)
            assert (await outbox.wait(later.id)).state is State.SENT
            await trio.sleep(2.2)  # of the store's clock: a lease, after which it would be found again
    errors = [event.error for event in events if event.name == "store"]
    assert len(errors) == 1
    assert isinstance(errors[0], StoreError)
    assert f"entry {damaged.id} is set aside" in str(errors[0])
    assert len(sink.messages) == 3


async def test_one_whose_content_is_gone_can_be_given_up(store_url):  # noqa: F811
    async with open_outbox(store_url) as outbox:
        await outbox.put(A, [B], TEXT, not_before=datetime.now(UTC) + timedelta(days=1))
        damaged = await outbox.put(A, [B], TEXT)
        await damage(store_url, damaged.id, "no content")
        with pytest.raises(StoreError, match="no content"):
            await outbox._store.take("w", 5, lambda record, now: begin(record, now, "w"))
        assert (await outbox.get(damaged.id)).state is State.QUEUED
        assert (await outbox.resolve(damaged.id, "discard")).state is State.DISCARDED


async def test_content_that_is_gone_does_not_keep_an_entry_from_being_settled(store_url):  # noqa: F811
    config = OutboxConfig(report_from="postmaster@mx.test")
    async with open_outbox(store_url, config=config) as outbox:
        store = outbox._store
        await outbox.put("", [C], TEXT)
        refused = await outbox.put(A, [B], TEXT)
        taken = {each.id: each for each, _ in await store.take("w", 5, lambda record, now: begin(record, now, "w"))}
        await damage(store_url, refused.id, "no content")

        def end(record, now):
            settled = settle(record, 1, {B: Outcome(Turn.REFUSE, error="no")}, now)
            return with_reports(record, settled, now, config)

        done = await store.change(taken[refused.id], end)
        assert done.state is State.REFUSED
        assert (await outbox.statistics()).queued == 1  # the report


def claim(record, now):
    return begin(record, now, "w")


class Companions:
    """Messages that come into the outbox by a change, or, negative, an error instead."""

    def __init__(self, number):
        self._number = number
        self.made: list = []

    def __call__(self, content):
        if self._number < 0:
            raise MemoryError
        message = trio_smtp.prepare_message("", [A], TEXT)
        self.made = [new_record(message, 1.0, due=1.0, patience=1e12) for _ in range(self._number)]
        return [(each, TEXT) for each in self.made]


def end(record, now):
    return settle(record, 1, {B: Outcome(Turn.ACCEPT)}, now)


async def three_taken(outbox):
    for _ in range(3):
        await outbox.put(A, [B], TEXT)
    return [record for record, _ in await outbox._store.take("w", 3, claim)]


async def test_one_that_was_changed_and_damaged_meanwhile_fails_no_other_of_its_group(store_url):  # noqa: F811
    async with open_outbox(store_url) as outbox:
        taken = await three_taken(outbox)
        for record in taken:
            await outbox._store.change(record, lambda record, now: mark(record, 1))
        await damage(store_url, taken[1].id, "no JSON")
        answers = await outbox._store.change_all([(record, end) for record in taken])
        assert [type(answer) for answer in answers] == [Record, StoreError, Record]
        assert (await outbox.get(taken[2].id)).state is State.SENT


async def test_one_whose_reports_cannot_be_made_fails_no_other_of_its_group(store_url):  # noqa: F811
    async with open_outbox(store_url) as outbox:
        taken = await three_taken(outbox)

        def wrong(record, now):
            return end(record, now)._replace(companions=Companions(-1))

        answers = await outbox._store.change_all([(taken[0], end), (taken[1], wrong), (taken[2], end)])
        assert [type(answer) for answer in answers] == [Record, StoreError, Record]
        assert [(await outbox.get(record.id)).state for record in taken] == ["sent", "sending", "sent"]


async def test_any_number_of_messages_may_come_by_one_change(store_url):  # noqa: F811
    async with open_outbox(store_url) as outbox:
        taken = await three_taken(outbox)

        def many(record, now):
            return end(record, now)._replace(companions=Companions(2100))

        answers = await outbox._store.change_all([(taken[0], end), (taken[1], many), (taken[2], end)])
        assert [isinstance(answer, Record) and answer.state for answer in answers] == ["sent"] * 3
        assert (await outbox.statistics()).queued == 2100


async def test_one_that_cannot_be_taken_keeps_no_other_from_it(store_url):  # noqa: F811
    async with open_outbox(store_url, config=OutboxConfig(lease=0.2)) as outbox:
        tickets = [await outbox.put(A, [B], TEXT) for _ in range(3)]
        wrong = [tickets[0].id]

        def expire(record, now):
            companions = Companions(-1 if record.id in wrong else 0)
            return begin(record._replace(expires=now), now, "w")._replace(companions=companions)

        taken: list[str] = []
        errors: list[str] = []

        async def take_until(number):
            with trio.fail_after(10):
                while len(taken) < number:
                    try:
                        taken.extend([record.id for record, _ in await outbox._store.take("w", 1, expire)])
                    except StoreError as exc:
                        errors.append(str(exc))
                    await trio.sleep(0.02)  # of the store's clock: the lease

        await take_until(2)
        assert taken == [tickets[1].id, tickets[2].id]
        assert f"entry {tickets[0].id}" in errors[0]
        assert (await outbox.get(tickets[0].id)).state is State.QUEUED
        wrong.clear()
        await take_until(3)
        assert [(await outbox.get(ticket.id)).state for ticket in tickets] == ["expired"] * 3
