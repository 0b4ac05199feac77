"""A server that puts what it receives into an outbox: 250 means durable."""

from __future__ import annotations

from functools import partial

import pytest
import trio
from test_outbox import FAST, TEXT, A, B, C, opened, working

import trio_smtp
from trio_smtp.outbox import OutboxConfig, State, StoreError, open_outbox
from trio_smtp.testing import open_server


async def test_what_is_answered_250_is_durable_and_the_answer_names_it(tmp_path):
    async with opened(f"sqlite:{tmp_path}/o.db") as (outbox, sink, pool), open_server(outbox.handler()) as server:
        async with trio_smtp.open_client(server.host, server.port, **server.client_options) as client:
            result = await client.send(A, [B, C], TEXT)
        entry_id = result.reply.text.removeprefix("OK: queued as ")
        async with open_outbox(f"sqlite:{tmp_path}/o.db") as other:
            entry = await other.get(entry_id)
        assert (entry.state, entry.sender, list(entry.recipients), entry.size) == ("queued", A, [B, C], len(TEXT))
        async with working(outbox, pool):
            assert (await outbox.wait(entry_id)).state is State.SENT
    assert sink.messages[0].content == TEXT


async def test_a_received_line_is_added_where_it_is_asked_for_and_a_loop_ends(tmp_path):
    async with (
        opened(f"sqlite:{tmp_path}/o.db") as (outbox, sink, pool),
        open_server(outbox.handler(received_by="mx.test")) as server,
        working(outbox, pool),
    ):
        async with trio_smtp.open_client(server.host, server.port, **server.client_options) as client:
            await client.send(A, [B], TEXT)
            with pytest.raises(trio_smtp.MessageRefusedError) as caught:
                await client.send(A, [B], b"Received: from a by b\r\n" * 100 + TEXT)
        (message,) = await sink.wait_for(1)
    assert "554 5.4.6" in str(caught.value.reply)
    assert message.content.endswith(TEXT)
    assert message.message["Received"].startswith("from ")
    assert "by mx.test (trio_smtp) with ESMTP" in message.message["Received"]


async def test_a_store_that_is_away_is_451_and_a_message_that_is_too_large_552(tmp_path):
    config = OutboxConfig(max_size=100)
    async with open_outbox(f"sqlite:{tmp_path}/o.db", config=config) as outbox:  # noqa: SIM117 - in this order
        async with open_server(outbox.handler()) as server:
            async with trio_smtp.open_client(server.host, server.port, **server.client_options) as client:
                with pytest.raises(trio_smtp.MessageRefusedError) as caught:
                    await client.send(A, [B], TEXT + b"x" * 100)
                assert str(caught.value.reply).startswith("552 5.3.4")

                async def away(record, content):
                    raise StoreError("away")

                outbox._store.add = away  # type: ignore[method-assign]
                with pytest.raises(trio_smtp.MessageRefusedError) as caught:
                    await client.send(A, [B], TEXT)
                assert str(caught.value.reply).startswith("451 4.3.0")


async def test_what_was_cut_off_is_not_in_the_outbox(tmp_path):
    async with open_outbox(f"sqlite:{tmp_path}/o.db", config=FAST) as outbox, trio.open_nursery() as nursery:
        serve = partial(trio_smtp.serve, outbox.handler(), 0, host="127.0.0.1")
        listeners = await nursery.start(serve)
        stream = await trio.open_tcp_stream(*listeners[0].socket.getsockname())
        await stream.send_all(b"EHLO x\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<b@y.test>\r\nDATA\r\n")
        while b"354" not in await stream.receive_some():
            pass
        await stream.send_all(b"half of")
        await stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert (await outbox.statistics()).queued == 0
        nursery.cancel_scope.cancel()
