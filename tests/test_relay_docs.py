"""docs/relay.md, held against the code: its examples run, and its replies are those of the relay."""

from __future__ import annotations

import re
from functools import partial

import pytest
import trio
from pages import blocks, read_page, run, started_by

import trio_smtp
from trio_smtp._relay import forward as module
from trio_smtp.testing import open_server, open_sink

TEXT = read_page("relay.md")
RELAY, SUBMISSION = blocks(TEXT)
MESSAGE = b"Subject: hi\r\n\r\nhello\r\n"


async def test_the_relay_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    config = trio_smtp.ServerConfig(enabled_extensions=("DSN",))
    async with open_sink(config=config) as sink, trio.open_nursery() as nursery:
        code = RELAY.replace('"localhost", 10026', f'"{sink.host}", {sink.port}')
        assert code != RELAY
        main, _ = started_by(code, monkeypatch)
        [listener] = await nursery.start(partial(main, 0))
        async with trio_smtp.open_client("127.0.0.1", listener.socket.getsockname()[1]) as client:
            await client.send("me@x.test", ["a@y.test"], MESSAGE, rcpt_params={"a@y.test": {"NOTIFY": "NEVER"}})
        nursery.cancel_scope.cancel()
    assert sink.messages[0].envelope.recipients[0].params == {"NOTIFY": "NEVER"}


async def test_the_submission_server_runs() -> None:
    names = run(SUBMISSION)
    config = trio_smtp.ServerConfig(auth="required", allow_insecure_auth=True)
    async with (
        open_sink() as sink,
        trio_smtp.open_pool(sink.host, sink.port, **sink.client_options) as pool,
        open_server(names["Submission"](pool, {"me@x.test": "secret"}), config=config) as server,
    ):
        options = {**server.client_options, "auth": ("me@x.test", "secret"), "allow_insecure_auth": True}
        async with trio_smtp.open_client(server.host, server.port, **options) as client:
            await client.send("me@x.test", ["a@y.test"], MESSAGE)
            with pytest.raises(trio_smtp.SenderRefusedError):
                await client.send("you@x.test", ["a@y.test"], MESSAGE)
    assert len(sink.messages) == 1


def test_replies() -> None:
    """Each reply of its own that the relay gives is on the page."""
    replies = [reply for reply in vars(module).values() if isinstance(reply, trio_smtp.Reply)]
    assert len(replies) >= 8
    named = set(re.findall(r"`(\d{3} \d\.\d\.\d)`", TEXT))
    own = {f"{reply.code} {reply.enhanced}" for reply in replies if not reply.is_success}
    assert own - named == {"553 5.1.3"}  # only a lenient server meets it
