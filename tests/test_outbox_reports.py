"""Delivery reports of an outbox: who is told what, once, and by the same change that settles it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio
from outbox_stores import one_redis, store_url  # noqa: F401 - fixtures
from test_outbox import A, B, C, working

import trio_smtp
from trio_smtp import Stage
from trio_smtp.outbox import OutboxConfig, OutboxEvent, State, open_outbox
from trio_smtp.outbox._reports import with_reports
from trio_smtp.outbox._states import Outcome, Record, Turn, begin, mark, settle
from trio_smtp.reports import Action, parse_report
from trio_smtp.testing import open_sink

TEXT = b"Message-ID: <1@x.test>\r\nSubject: hi\r\n\r\nhello\r\n"
REPORTING = OutboxConfig(retry_delays=(0.05,), lease=10, report_from="postmaster@mx.test")
DSN = trio_smtp.ServerConfig(enabled_extensions=("DSN",))


@asynccontextmanager
async def opened(url, config=REPORTING, next_server=DSN):
    async with (
        open_sink(config=next_server) as sink,
        open_outbox(url, config=config) as outbox,
        trio_smtp.open_pool(
            sink.host, sink.port, config=trio_smtp.PoolConfig(connect_retries=0), **sink.client_options
        ) as pool,
    ):
        yield outbox, sink, pool


async def everything(outbox):
    async with outbox.entries() as entries:
        return [entry async for entry in entries]


async def settled(outbox):
    """All entries, once none of them is on its way."""
    for entry in await everything(outbox):
        await outbox.wait(entry.id)
    entries = await everything(outbox)
    for entry in entries:
        await outbox.wait(entry.id)
    return await everything(outbox)


async def test_the_sender_is_told_of_those_who_were_refused(store_url):  # noqa: F811
    async with opened(store_url) as (outbox, sink, pool):
        sink.refuse(Stage.RCPT, 550, "no such user", "5.1.1", recipient=B)
        ticket = await outbox.put(
            A,
            [B, C],
            TEXT,
            mail_params={"RET": "HDRS", "ENVID": "order+2B4711"},
            rcpt_params={B: {"ORCPT": "rfc822;first+2Blist@y.test"}},
        )
        async with working(outbox, pool):
            entry, about = await settled(outbox)
    assert (entry.id, entry.recipients[C].state) == (ticket.id, "sent")
    assert (about.sender, list(about.recipients), about.state) == ("", [A], "sent")
    (message,) = [each for each in sink.messages if each.sender == ""]
    assert message.message["From"] == "Mail Delivery System <postmaster@mx.test>"
    report = parse_report(message.content)
    assert (report.envelope_id, report.reporting_mta, report.message_id) == ("order+4711", "mx.test", "<1@x.test>")
    assert b"hello" not in report.returned
    (told,) = report.recipients
    assert (told.address, told.action, told.status) == (B, Action.FAILED, "5.1.1")
    assert told.orcpt == ("rfc822", "first+list@y.test")
    assert told.reply is not None
    assert told.reply.code == 550


@pytest.mark.parametrize(
    ("sender", "rcpt_params", "report_from"),
    [
        ("", None, "postmaster@mx.test"),
        (A, {B: {"notify": "NEVER"}}, "postmaster@mx.test"),
        (A, {B: {"NOTIFY": "SUCCESS,DELAY"}}, "postmaster@mx.test"),
        (A, None, None),
    ],
)
async def test_who_is_not_told(store_url, sender, rcpt_params, report_from):  # noqa: F811
    config = OutboxConfig(retry_delays=(0.05,), report_from=report_from)
    async with opened(store_url, config) as (outbox, sink, pool), working(outbox, pool):
        sink.refuse(Stage.RCPT)
        ticket = await outbox.put(sender, [B], TEXT, rcpt_params=rcpt_params)
        assert (await outbox.wait(ticket.id)).state is State.REFUSED
        assert len(await everything(outbox)) == 1


async def test_what_has_expired_is_reported_with_the_last_word_about_it(store_url):  # noqa: F811
    async with opened(store_url) as (outbox, sink, pool):
        sink.refuse(Stage.RCPT, 451, "later", "4.3.0", recipient=B)
        await outbox.put(A, [B], TEXT, give_up_after=0.2)
        await outbox.put(A, [C], TEXT, give_up_after=0, rcpt_params={C: {"NOTIFY": "FAILURE"}})  # before its first try
        async with working(outbox, pool):
            entries = await settled(outbox)
    assert sorted(entry.state for entry in entries) == ["expired", "expired", "sent", "sent"]
    told = {
        recipient.address: (recipient.status, recipient.diagnostic)
        for message in sink.messages
        for recipient in parse_report(message.content).recipients
    }
    assert told == {B: ("4.3.0", "451 4.3.0 later"), C: ("4.4.7", "its time is over")}


async def test_what_no_server_can_take_is_reported_by_its_kind(store_url):  # noqa: F811
    async with opened(store_url) as (outbox, sink, pool), working(outbox, pool):
        ticket = await outbox.put(A, [B], TEXT, mail_params={"REQUIRETLS": None, "RET": "FULL"})
        assert (await outbox.wait(ticket.id)).state is State.REFUSED
        await sink.wait_for(1)  # RFC 8689 section 5: a report is not kept back for REQUIRETLS, and returns no text
    report = parse_report(sink.messages[0].content)
    assert b"hello" not in report.returned
    (told,) = report.recipients
    assert told.status == "5.3.3"
    assert told.diagnostic is not None
    assert "REQUIRETLS" in told.diagnostic


@pytest.mark.parametrize("offered", [("DSN",), ()])
async def test_a_server_without_dsn_makes_the_success_ours_to_report(store_url, offered):  # noqa: F811
    """RFC 3461 section 5.2.2: relayed, where the next server cannot say more."""
    next_server = trio_smtp.ServerConfig(enabled_extensions=offered)
    async with opened(store_url, next_server=next_server) as (outbox, sink, pool):
        await outbox.put(A, [B, C], TEXT, rcpt_params={B: {"NOTIFY": "SUCCESS"}, C: {"NOTIFY": "FAILURE"}})
        async with working(outbox, pool):
            entries = await settled(outbox)
    if offered:
        assert len(entries) == 1
        return
    (told,) = parse_report(sink.messages[1].content).recipients
    assert (told.address, told.action) == (B, Action.RELAYED)


async def test_it_is_there_by_the_same_change_or_not_at_all(store_url):  # noqa: F811
    """A worker that says the same again after a crash adds nothing, and one that came too late adds nothing."""
    async with open_outbox(store_url, config=REPORTING) as outbox:
        store = outbox._store
        await outbox.put(A, [B, C], TEXT)
        ((record, _),) = await store.take("one", 1, lambda record, now: begin(record, now, "one"))

        def end(record, now):
            outcomes = {B: Outcome(Turn.REFUSE, trio_smtp.Reply(550, "no")), C: Outcome(Turn.AGAIN, delay=0)}
            return with_reports(record, settle(record, 1, outcomes, now), now, REPORTING)

        def fail(record, now):
            end(record, now)
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await store.change(record, fail)
        assert len(await everything(outbox)) == 1
        marked = await store.change(record, lambda record, now: mark(record, 1))
        first = await store.change(record, end)  # it knows an older version
        again = await store.change(marked, end)
        assert first.version == again.version
        entry, report = await everything(outbox)
        assert (entry.recipients[B].state, report.state) == ("refused", "queued")
        # and what follows brings no other with it
        ((record, _),) = [
            taken
            for taken in await store.take("two", 2, lambda record, now: begin(record, now, "two"))
            if taken[0].id == entry.id
        ]
        await store.change(record, lambda record, now: settle(record, 2, {C: Outcome(Turn.ACCEPT)}, now))
        assert len(await everything(outbox)) == 2


async def test_a_large_message_is_not_returned_whole(tmp_path):
    config = OutboxConfig(report_from="postmaster@mx.test", max_size=300_000)
    async with opened(f"sqlite:{tmp_path}/o.db", config) as (outbox, sink, pool), working(outbox, pool):
        sink.refuse(Stage.RCPT, recipient=B)
        await outbox.put(A, [B], TEXT + b"x\r\n" * 90_000, mail_params={"RET": "FULL"})
        with trio.fail_after(20):
            await sink.wait_for(1)
    report = parse_report(sink.messages[0].content)
    assert report.returned.startswith(b"Message-ID: <1@x.test>")
    assert len(report.returned) < 1000


async def test_different_reasons_are_different_reports(tmp_path):
    async with open_outbox(f"sqlite:{tmp_path}/o.db", config=REPORTING) as outbox:
        await outbox.put(A, [B, C], TEXT)
        ((record, _),) = await outbox._store.take("w", 1, lambda record, now: begin(record, now, "w"))

        def end(record, now):
            outcomes = {B: Outcome(Turn.REFUSE, error="one"), C: Outcome(Turn.REFUSE, error="two")}
            return with_reports(record, settle(record, 1, outcomes, now), now, REPORTING)

        await outbox._store.change(record, end)
        assert len(await everything(outbox)) == 3


@pytest.mark.parametrize("address", ["", "postmaster", "a b@x.test", "a@", "a@b c", "<a@x.test>", "a@x.test\r\nTo: b"])
def test_what_no_report_can_come_from(address):
    with pytest.raises(ValueError, match="report_from"):
        OutboxConfig(report_from=address)


async def test_a_message_that_cannot_be_returned_is_reported_without(store_url):  # noqa: F811
    content = b"Subject: hi\r\n" + b"A" * 2000 + b": a field that no report can have\r\n"
    async with opened(store_url) as (outbox, sink, pool), working(outbox, pool):
        sink.refuse("rcpt", 550, "no such user", "5.1.1", address=B)
        ticket = await outbox.put(A, [B], content)
        assert (await outbox.wait(ticket.id)).state is State.REFUSED
        assert [entry.state for entry in await settled(outbox)] == [State.REFUSED, State.SENT]
    [message] = sink.messages
    [about] = parse_report(message.content).recipients
    assert about.address == B


async def test_a_crash_in_the_middle_leaves_neither(store_url):  # noqa: F811
    async with open_outbox(store_url, config=REPORTING) as outbox:
        ticket = await outbox.put(A, [B], TEXT)
        ((record, _),) = await outbox._store.take("w", 1, lambda record, now: begin(record, now, "w"))

        class Crash:
            made: list[Record] = []  # noqa: RUF012

            def __call__(self, content: bytes) -> list[tuple[Record, bytes]]:
                raise ZeroDivisionError

        def end(record, now):
            settled = settle(record, 1, {B: Outcome(Turn.REFUSE, error="no")}, now)
            return settled._replace(companions=Crash())

        with pytest.raises(ZeroDivisionError):
            await outbox._store.change(record, end)
        assert [(entry.id, entry.state) for entry in await everything(outbox)] == [(ticket.id, "sending")]


async def test_a_report_is_told_of_as_any_other_put(store_url):  # noqa: F811
    events: list[OutboxEvent] = []
    async with opened(store_url, replace(REPORTING, trace=events.append)) as (outbox, sink, pool):
        sink.refuse(Stage.RCPT, recipient=B)
        await outbox.put(A, [B], TEXT)
        await outbox.put(A, [C], TEXT, give_up_after=0)
        async with working(outbox, pool):
            entries = await settled(outbox)
    assert len(entries) == 4
    assert sorted(event.entry for event in events if event.name == "put") == sorted(entry.id for entry in entries)
    assert all(event.states == {"queued": 1} for event in events if event.name == "put")


async def test_a_report_on_a_message_that_requires_tls_does_so_too(tmp_path):
    config = trio_smtp.ServerConfig(enabled_extensions=("REQUIRETLS",))
    async with (
        open_sink(config=config, tls="starttls") as sink,
        open_outbox(f"sqlite:{tmp_path}/o.db", config=REPORTING) as outbox,
        trio_smtp.open_pool(sink.host, sink.port, **sink.client_options) as pool,
        working(outbox, pool),
    ):
        sink.refuse(Stage.RCPT, recipient=B)
        await outbox.put(A, [B], TEXT, mail_params={"REQUIRETLS": None})
        await sink.wait_for(1)
    assert sink.messages[0].envelope.sender.requiretls
