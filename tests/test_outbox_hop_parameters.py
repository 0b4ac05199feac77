"""The parameters of MAIL and RCPT on their way through an outbox: as `forward()` passes them, but later."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
import trio
from outbox_stores import one_redis, store_url  # noqa: F401 - fixtures
from test_outbox import FAST, TEXT, A, B, C, working

import trio_smtp
from trio_smtp.outbox import State, open_outbox
from trio_smtp.testing import open_server, open_sink

OF_MAIL = {"RET": "HDRS", "ENVID": "order+2B4711", "MT-PRIORITY": "3"}
OF_RCPT = {"NOTIFY": "SUCCESS,FAILURE", "ORCPT": "rfc822;first@y.test"}
EVERYTHING = trio_smtp.ServerConfig(
    enabled_extensions=("DSN", "REQUIRETLS", "MT-PRIORITY", "FUTURERELEASE", "DELIVERBY"),
    max_hold=86400,
)


@asynccontextmanager
async def queueing(url, next_server):
    """An outbox with a server before it that offers everything, and a sink behind it."""
    async with (
        open_outbox(url, config=FAST) as outbox,
        open_sink(config=next_server) as sink,
        trio_smtp.open_pool(sink.host, sink.port, **sink.client_options) as pool,
        open_server(outbox.handler(), config=EVERYTHING) as server,
        trio_smtp.open_client(server.host, server.port, **server.client_options) as client,
    ):
        yield outbox, sink, pool, client


async def only_entry(outbox):
    async with outbox.entries() as entries:
        (entry,) = [each async for each in entries]
    return entry


@pytest.mark.parametrize("offered", [("DSN", "MT-PRIORITY"), ()])
async def test_they_go_along_where_they_are_offered_and_are_left_out_elsewhere(store_url, offered):  # noqa: F811
    next_server = trio_smtp.ServerConfig(enabled_extensions=offered)
    async with queueing(store_url, next_server) as (outbox, sink, pool, client):
        await client.send(A, [B, C], TEXT, mail_params=OF_MAIL, rcpt_params={B: OF_RCPT})
        entry = await only_entry(outbox)
        assert entry.priority == 3
        async with working(outbox, pool):
            assert (await outbox.wait(entry.id)).state is State.SENT
    (message,) = sink.messages
    assert message.recipients == (B, C)
    sender, (first, second) = message.envelope.sender, message.envelope.recipients
    assert {key: sender.params[key] for key in sender.params if key != "SIZE"} == (OF_MAIL if offered else {})
    assert (first.params, second.params) == (OF_RCPT if offered else {}, {})


async def test_put_keeps_what_send_takes(store_url):  # noqa: F811
    """The entry of `put()` too goes without DSN where that is not offered; a word that must be kept is refused."""
    async with queueing(store_url, trio_smtp.ServerConfig()) as (outbox, sink, pool, _), working(outbox, pool):
        ticket = await outbox.put(A, [B], TEXT, mail_params={"ret": "FULL"}, rcpt_params={B: {"notify": "NEVER"}})
        assert (await outbox.wait(ticket.id)).state is State.SENT
        ticket = await outbox.put(A, [B], TEXT, mail_params={"RET": "FULL", "REQUIRETLS": None})
        entry = await outbox.wait(ticket.id)
    assert entry.state is State.REFUSED
    assert "REQUIRETLS" in entry.recipients[B].error
    assert len(sink.messages) == 1


async def test_binary_text_stays_as_it_is(tmp_path):
    text = b"Subject: hi\r\n\r\n\0one\ntwo\r"
    async with queueing(f"sqlite:{tmp_path}/o.db", None) as (outbox, sink, pool, client), working(outbox, pool):
        await client.send(A, [B], text, mail_params={"BODY": "BINARYMIME"})
        await sink.wait_for(1)
    assert sink.messages[0].content == text
    assert sink.messages[0].envelope.sender.body == "BINARYMIME"


async def test_a_hold_is_the_queues_to_observe_and_a_deadline_is_refused(tmp_path):
    async with queueing(f"sqlite:{tmp_path}/o.db", None) as (outbox, _, _, client):
        before = datetime.now(UTC)
        await client.send(A, [B], TEXT, mail_params={"HOLDFOR": 3600})
        entry = await only_entry(outbox)
        due = entry.recipients[B].next_attempt
        assert due is not None
        assert timedelta(minutes=59) < due - before < timedelta(minutes=61)
        with pytest.raises(trio_smtp.MessageRefusedError, match="BY"):
            await client.send(A, [B], TEXT, mail_params={"BY": "60;R"})
        await client.send(A, [B, C], TEXT)  # and the connection is as good as before
        assert (await outbox.statistics()).queued == 2


async def test_what_a_client_says_of_itself_stays_here(tmp_path):
    async with queueing(f"sqlite:{tmp_path}/o.db", None) as (outbox, sink, pool, client), working(outbox, pool):
        await client.send(A, [B], TEXT, mail_params={"BODY": "8BITMIME", "SIZE": 4711})
        with trio.fail_after(20):
            await sink.wait_for(1)
    sender = sink.messages[0].envelope.sender
    assert (sender.body, sender.size) == (None, len(TEXT))
