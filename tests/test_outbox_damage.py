"""Entries that are damaged: set aside and told of once, beside others that are sent; read, brought back, given up."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
import trio
from outbox_damage import RECORDS, P, contents, damage, record_of, restore, set_record, snapshot
from outbox_stores import one_redis, store_url  # noqa: F401 - fixtures
from test_outbox import TEXT, A, B, C, opened, working

from trio_smtp import Reply
from trio_smtp.outbox import LeaseLostError, OutboxConfig, State, StoreError, open_outbox
from trio_smtp.outbox._reports import with_reports
from trio_smtp.outbox._states import Outcome, Record, Turn, begin, mark, settle

SENT = {B: Outcome(Turn.ACCEPT, Reply(250, "OK"))}
WRONG = [
    {"created": "then"},
    {"expires": None},
    {"recipients": {}},
    {"recipients": {B: ["queued", 0, "soon", None, ""]}},
    {"recipients": {B: ["lost", 0, 0.0, None, ""]}},
    {"priority": "high"},
    {"log": [1]},
    {"id": "another"},
    {"settled": 1e300},
    {"rcpt_params": []},
]


async def take(store):
    return await store.take("w", 5, lambda record, now: begin(record, now, "w"))


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


async def test_several_are_all_told_of(store_url):  # noqa: F811
    async with open_outbox(store_url) as outbox:
        tickets = [await outbox.put(A, [B], TEXT) for _ in range(3)]
        for ticket in tickets:
            await damage(store_url, ticket.id, "no JSON")
        with pytest.raises(StoreError) as caught:
            await take(outbox._store)
        assert [each.id for each in caught.value.damaged] == [ticket.id for ticket in tickets]
        for ticket in tickets:
            assert f"entry {ticket.id} is set aside" in str(caught.value)
        assert await take(outbox._store) == []


@pytest.mark.parametrize("store_url", ["redis"], indirect=True)
async def test_one_whose_record_is_gone_is_set_aside_too(store_url):  # noqa: F811
    import coredis

    async with open_outbox(store_url) as outbox:
        ticket = await outbox.put(A, [B], TEXT)
        whole = await snapshot(store_url, ticket.id)
        async with coredis.Redis.from_url(store_url) as client:
            await client.hdel(f"{P}e:{ticket.id}", ["record"])
        with pytest.raises(StoreError, match=f"entry {ticket.id} is set aside: its record is gone"):
            await take(outbox._store)
        assert await take(outbox._store) == []
        await restore(store_url, ticket.id, whole)
        await outbox.resolve(ticket.id, "retry")
        assert [record.id for record, _ in await take(outbox._store)] == [ticket.id]


async def test_a_record_without_recipients_is_set_aside_too(store_url):  # noqa: F811
    async with open_outbox(store_url) as outbox:
        ticket = await outbox.put(A, [B], TEXT)
        document = json.loads(await record_of(store_url, ticket.id))
        await set_record(store_url, ticket.id, json.dumps(document | {"recipients": {}}))
        with pytest.raises(StoreError, match=f"entry {ticket.id} is set aside: .*it has no recipients"):
            await take(outbox._store)


async def test_the_key_of_a_damaged_one_is_not_put_again(store_url):  # noqa: F811
    async with open_outbox(store_url) as outbox:
        ticket = await outbox.put(A, [B], TEXT, key="order-1")
        await damage(store_url, ticket.id, "no version")
        with trio.fail_after(20), pytest.raises(StoreError, match=ticket.id):
            await outbox.put(A, [B], TEXT, key="order-1")
        assert (await outbox.statistics()).queued == 1


async def test_one_whose_content_is_gone_can_be_given_up(store_url):  # noqa: F811
    async with open_outbox(store_url) as outbox:
        await outbox.put(A, [B], TEXT, not_before=datetime.now(UTC) + timedelta(days=1))
        damaged = await outbox.put(A, [B], TEXT)
        await damage(store_url, damaged.id, "no content")
        with pytest.raises(StoreError, match="no content"):
            await take(outbox._store)
        assert (await outbox.get(damaged.id)).state is State.QUEUED
        assert (await outbox.resolve(damaged.id, "discard")).state is State.DISCARDED


async def test_content_that_is_gone_does_not_keep_an_entry_from_being_settled(store_url):  # noqa: F811
    config = OutboxConfig(report_from="postmaster@mx.test")
    async with open_outbox(store_url, config=config) as outbox:
        store = outbox._store
        await outbox.put("", [C], TEXT)
        refused = await outbox.put(A, [B], TEXT)
        taken = {each.id: each for each, _ in await take(store)}
        await damage(store_url, refused.id, "no content")

        def end(record, now):
            settled = settle(record, 1, {B: Outcome(Turn.REFUSE, error="no")}, now)
            return with_reports(record, settled, now, config)

        done = await store.change(taken[refused.id], end)
        assert done.state is State.REFUSED
        assert (await outbox.statistics()).queued == 1  # the report


# --- reading the others ---


async def read_all(outbox, state=None):
    """The ids of the entries that come, and the error at their end."""
    found = []
    error = None
    try:
        async with outbox.entries(state) as entries:
            async for entry in entries:
                found.append(entry.id)
                await trio.lowlevel.checkpoint()  # what goes wrong later does not come into this
    except StoreError as exc:
        error = exc
    return found, error


@pytest.mark.parametrize("what", [*RECORDS, "no version"])
async def test_the_entries_that_can_be_read_all_come(store_url, what):  # noqa: F811
    async with open_outbox(store_url) as outbox:
        tickets = [await outbox.put(A, [B], TEXT) for _ in range(103)]  # more than a page
        for number in (0, 50, 101, 102):
            await damage(store_url, tickets[number].id, what)
        damaged = {tickets[number].id for number in (0, 50, 101, 102)}
        for state in (None, State.QUEUED):
            found, error = await read_all(outbox, state)
            assert found == [ticket.id for ticket in tickets if ticket.id not in damaged]
            assert error is not None
            assert {each.id for each in error.damaged} == damaged
            for each in error.damaged:
                assert f"entry {each.id}: {each.reason}" in str(error)
        assert await read_all(outbox, State.SENT) == ([], None)
        assert (await outbox.statistics()).queued == 103


async def test_an_error_names_the_first_few(store_url):  # noqa: F811
    async with open_outbox(store_url) as outbox:
        tickets = [await outbox.put(A, [B], TEXT) for _ in range(12)]
        for ticket in tickets:
            await damage(store_url, ticket.id, "no record")
        found, error = await read_all(outbox)
    assert found == []
    assert [each.id for each in error.damaged] == [ticket.id for ticket in tickets[:5]]
    assert str(error).endswith("; and 7 more")


@pytest.mark.parametrize("change", WRONG, ids=str)
async def test_a_value_of_the_wrong_kind_is_damage(store_url, change):  # noqa: F811
    async with open_outbox(store_url) as outbox:
        damaged, well = [await outbox.put(A, [B], TEXT) for _ in range(2)]
        document = json.loads(await record_of(store_url, damaged.id))
        await set_record(store_url, damaged.id, json.dumps(document | change))
        found, error = await read_all(outbox)
        assert found == [well.id]
        assert [each.id for each in error.damaged] == [damaged.id]
        with pytest.raises(StoreError, match=f"entry {damaged.id}: its record cannot be read"):
            await outbox.get(damaged.id)


@pytest.mark.parametrize("what", [*RECORDS, "no version"])
async def test_what_is_there_of_it_is_told(store_url, what):  # noqa: F811
    async with open_outbox(store_url) as outbox:
        ticket = await outbox.put(A, [B], TEXT)
        whole = await record_of(store_url, ticket.id)
        await damage(store_url, ticket.id, what)
        for ask in (outbox.get, lambda entry_id: outbox.resolve(entry_id, "discard")):
            with pytest.raises(StoreError) as caught:
                await ask(ticket.id)
            (damaged,) = caught.value.damaged
            assert (damaged.id, damaged.size) == (ticket.id, len(TEXT))
            kept = (await record_of(store_url, ticket.id)).decode("utf-8", "backslashreplace")
            assert damaged.kept["record"] == kept
            assert (kept == whole.decode()) == (what == "no version")
        await damage(store_url, ticket.id, "no content")
        with pytest.raises(StoreError) as caught:
            await outbox.get(ticket.id)
        assert caught.value.damaged[0].size is None


async def test_a_state_that_is_none_is_not_counted(tmp_path):
    url = f"sqlite:{tmp_path}/o.db"
    async with open_outbox(url) as outbox:
        tickets = [await outbox.put(A, [B], TEXT) for _ in range(2)]
        with closing(sqlite3.connect(f"{tmp_path}/o.db")) as connection, connection:
            connection.execute("UPDATE outbox_entries SET state = 'lost' WHERE id = ?", (tickets[0].id,))
        assert (await outbox.statistics()).queued == 1


async def test_a_damaged_one_that_another_has_changed_costs_itself_only(store_url):  # noqa: F811
    """It is read again then, in the middle of a change of several."""
    async with open_outbox(store_url) as outbox:
        store = outbox._store
        tickets = [await outbox.put(A, [B], TEXT) for _ in range(2)]
        taken = {each.id: each for each, _ in await take(store)}
        old = taken[tickets[0].id]._replace(version=1)
        await damage(store_url, tickets[0].id, "no JSON")
        changes = [(record, lambda record, now: settle(record, 1, SENT, now)) for record in (old, taken[tickets[1].id])]
        lost, done = await store.change_all(changes)
        assert isinstance(lost, StoreError)
        assert isinstance(done, Record)
        assert done.state is State.SENT


# --- bringing them back ---


@pytest.mark.parametrize("what", [*RECORDS, "no content", "no version"])
async def test_one_that_was_repaired_comes_back_by_retry(store_url, what):  # noqa: F811
    async with opened(store_url, OutboxConfig(lease=30)) as (outbox, sink, pool):
        ticket = await outbox.put(A, [B], TEXT)
        whole = await snapshot(store_url, ticket.id)
        await damage(store_url, ticket.id, what)
        with pytest.raises(StoreError, match="set aside") as caught:
            await take(outbox._store)
        assert [each.id for each in caught.value.damaged] == [ticket.id]
        await restore(store_url, ticket.id, whole)
        entry = await outbox.get(ticket.id)
        assert (entry.state, entry.set_aside) == (State.QUEUED, "it was damaged, and can be read again")
        assert await outbox.resolve(ticket.id, "sent") == entry  # nothing to say that of: it stays
        assert await take(outbox._store) == []
        back = await outbox.resolve(ticket.id, "retry")
        assert (back.state, back.set_aside) == (State.QUEUED, "")
        assert await outbox.resolve(ticket.id, "retry") == await outbox.get(ticket.id)
        async with working(outbox, pool):
            assert (await outbox.wait(ticket.id)).state is State.SENT
        assert len(sink.messages) == 1


async def test_one_without_content_cannot_be_sent_again(store_url):  # noqa: F811
    async with open_outbox(store_url) as outbox:
        ticket = await outbox.put(A, [B], TEXT)
        await damage(store_url, ticket.id, "no content")
        with pytest.raises(StoreError, match="no content"):
            await take(outbox._store)
        async with outbox.entries() as entries:
            (entry,) = [each async for each in entries]
        assert entry == await outbox.get(ticket.id)
        assert entry.set_aside == "it has no content"
        with pytest.raises(StoreError, match=f"entry {ticket.id} has no content"):
            await outbox.resolve(ticket.id, "retry")
        assert await outbox.get(ticket.id) == entry
        given_up = await outbox.resolve(ticket.id, "discard")
        assert (given_up.state, given_up.set_aside) == (State.DISCARDED, "")


@pytest.mark.parametrize(
    ("is_marked", "action", "after"),
    [
        (False, "retry", State.QUEUED),
        (False, "discard", State.DISCARDED),
        (True, "retry", State.IN_DOUBT),
        (True, "discard", State.DISCARDED),
        (True, "sent", State.SENT),
    ],
)
async def test_one_that_was_being_sent(store_url, is_marked, action, after):  # noqa: F811
    """Its worker is gone: what it may have sent is in doubt, and not sent again before somebody says so once more."""
    async with open_outbox(store_url, config=OutboxConfig(lease=0.2)) as outbox:
        store = outbox._store
        ticket = await outbox.put(A, [B], TEXT)
        ((claimed, _),) = await take(store)
        if is_marked:
            claimed = await store.change(claimed, lambda record, now: mark(record, 1))
        whole = await snapshot(store_url, ticket.id)
        await damage(store_url, ticket.id, "no JSON")
        with pytest.raises(StoreError, match="set aside"):  # noqa: PT012
            while True:
                assert await take(store) == []
                await trio.sleep(0.05)  # of the store's clock: until the lease has ended
        await restore(store_url, ticket.id, whole)
        assert (await outbox.get(ticket.id)).state is State.SENDING
        assert (await outbox.resolve(ticket.id, action)).state is after
        if action == "retry":
            late = await store.change(claimed, lambda record, now: settle(record, 1, SENT, now))
            assert late.state is (State.SENT if is_marked else State.QUEUED)  # a late word settles a doubt
        else:
            with pytest.raises(LeaseLostError):
                await store.change(claimed, lambda record, now: settle(record, 1, SENT, now))
        assert [record.claim for record, _ in await take(store)] == ([2] if after is State.QUEUED else [])


async def test_one_that_is_not_due_any_more_waits(store_url):  # noqa: F811
    async with open_outbox(store_url) as outbox:
        ticket = await outbox.put(A, [B], TEXT)
        document = json.loads(await record_of(store_url, ticket.id))
        await damage(store_url, ticket.id, "no JSON")
        with pytest.raises(StoreError, match="set aside"):
            await take(outbox._store)
        document["recipients"][B][2] += 3600
        await set_record(store_url, ticket.id, json.dumps(document))
        await outbox.resolve(ticket.id, "retry")
        assert await take(outbox._store) == []
        assert (await outbox.get(ticket.id)).set_aside == ""


# --- giving them up ---


@pytest.mark.parametrize("is_set_aside", [False, True])
@pytest.mark.parametrize("what", [*RECORDS, "no version"])
async def test_one_that_cannot_be_read_can_be_forgotten(store_url, what, is_set_aside):  # noqa: F811
    async with open_outbox(store_url) as outbox:
        before = await contents(store_url)
        ticket = await outbox.put(A, [B], TEXT, key="order-1")
        other = await outbox.put(A, [B], TEXT, key="order-2", not_before=datetime.now(UTC) + timedelta(days=1))
        await damage(store_url, ticket.id, what)
        if is_set_aside:
            with pytest.raises(StoreError, match="set aside"):
                await take(outbox._store)
        await outbox.forget(ticket.id)
        assert await read_all(outbox) == ([other.id], None)
        assert (await outbox.statistics()).queued == 1
        assert await take(outbox._store) == []
        for ask in (outbox.get, outbox.forget):
            with pytest.raises(LookupError):
                await ask(ticket.id)
        assert not (await outbox.put(A, [B], TEXT, key="order-2")).is_new
        await outbox.resolve(other.id, "discard")
        assert await contents(store_url) == before
        assert (await outbox.put(A, [B], TEXT, key="order-1")).is_new


async def test_what_can_be_read_is_not_forgotten(store_url):  # noqa: F811
    async with open_outbox(store_url) as outbox:
        ticket = await outbox.put(A, [B], TEXT)
        with pytest.raises(ValueError, match=f"entry {ticket.id} can be read"):
            await outbox.forget(ticket.id)
        assert (await outbox.get(ticket.id)).state is State.QUEUED


@pytest.mark.parametrize("store_url", ["redis"], indirect=True)
async def test_of_one_that_is_gone_but_for_its_place_the_key_is_forgotten_too(store_url):  # noqa: F811
    import coredis

    async with open_outbox(store_url) as outbox:
        ticket = await outbox.put(A, [B], TEXT, key="order-1")
        async with coredis.Redis.from_url(store_url) as client:
            await client.delete([f"{P}e:{ticket.id}"])
            _, error = await read_all(outbox)
            assert f"entry {ticket.id}: its record is gone" in str(error)
            with pytest.raises(StoreError, match="its record is gone"):
                await outbox.get(ticket.id)
            await outbox.forget(ticket.id)
            assert await client.exists([f"{P}k:order-1", f"{P}c:{ticket.id}"]) == 0
        assert await read_all(outbox) == ([], None)
