"""`transcript=`: what is said about one message, and nothing else, line by line."""

from __future__ import annotations

import logging

import pytest
import trio
from client_peer import client_and
from test_before_end import FORMS, Taker

import trio_smtp
from trio_smtp import PoolConfig, ServerConfig, Stage, open_client, open_pool
from trio_smtp.testing import open_sink

TEXT = b"Subject: hi\r\n\r\nsecret text\r\n"


@pytest.mark.parametrize(("offers", "config", "content", "text"), FORMS)
async def test_each_command_and_each_reply_in_every_form(offers, config, content, text):
    lines: list[str] = []
    async with client_and(Taker(*offers), config=config) as client:
        await client.send("a@x.test", ["b@y.test"], content(text), transcript=lines.append)
        said = list(lines)
        await client.send("a@x.test", ["b@y.test"], content(text))  # is nobody's
    assert lines == said
    first, *rest = lines
    assert first.startswith("-- ")
    assert first.endswith(", no TLS")
    commands = [line for line in rest if line.startswith("C: ")]
    assert commands[:2] == ["C: MAIL FROM:<a@x.test>", "C: RCPT TO:<b@y.test>"]
    assert "CHUNKING" in offers or commands[2:] == ["C: DATA", "C: ."]
    assert "CHUNKING" not in offers or (commands[-1].startswith("C: BDAT ") and commands[-1].endswith(" LAST"))
    assert len(rest) == 2 * len(commands)  # each has its reply
    assert rest[-1] == "S: 250 taken"
    assert not any("one" in line or "seventy" in line for line in rest)


@pytest.mark.parametrize("depth", [1, 4])
async def test_messages_that_share_a_connection_have_their_own(depth):
    async with (
        open_sink(tls="starttls", auth=("me", "password")) as sink,
        open_pool(
            sink.host,
            sink.port,
            config=PoolConfig(max_connections=1, pipeline_depth=depth),
            **sink.client_options,
        ) as pool,
    ):
        dialogues: dict[str, list[str]] = {f"{number}@y.test": [] for number in range(10)}

        async def send(address: str, lines: list[str]) -> None:
            await pool.send("a@x.test", [address], TEXT, transcript=lines.append)

        async with trio.open_nursery() as nursery:
            for address, lines in dialogues.items():
                nursery.start_soon(send, address, lines)
    for address, lines in dialogues.items():
        assert lines[0].startswith(f"-- {sink.host}:{sink.port}, TLSv1.3 ")
        assert [line for line in lines if "RCPT" in line] == [f"C: RCPT TO:<{address}>"]
        assert sum(line.startswith("S: ") for line in lines) == sum(line.startswith("C: ") for line in lines)
        words = "\n".join(lines)
        assert "AUTH" not in words
        assert "secret" not in words


async def test_what_was_refused_and_what_came_unasked():
    lines: list[str] = []
    async with open_sink(config=ServerConfig(disabled_extensions=("CHUNKING",))) as sink:
        sink.refuse(Stage.RCPT, 550, "no\nsuch user", "5.1.1", recipient="c@y.test")
        sink.refuse(Stage.END, 421, "going down", "4.3.2", times=1)
        async with open_client(sink.host, sink.port, **sink.client_options) as client:
            with pytest.raises(trio_smtp.SMTPError):
                await client.send("a@x.test", ["b@y.test", "c@y.test"], TEXT, transcript=lines.append)
    assert lines[1:] == [
        f"C: MAIL FROM:<a@x.test> SIZE={len(TEXT)}",
        "C: RCPT TO:<b@y.test>",
        "C: RCPT TO:<c@y.test>",
        "C: DATA",
        "S: 250 2.1.0 OK",
        "S: 250 2.1.5 OK",
        "S: 550 5.1.1 no / such user",
        "S: 354 end data with <CR><LF>.<CR><LF>",
        "C: .",
        "S: 421 4.3.2 going down",
    ]


async def test_every_try_of_a_pool_is_in_it():
    lines: list[str] = []
    async with open_sink() as sink:
        sink.cut(Stage.RCPT, times=1)
        config = PoolConfig(connect_retries=1, retry_delay=0)
        async with open_pool(sink.host, sink.port, config=config, **sink.client_options) as pool:
            await pool.send("a@x.test", ["b@y.test"], TEXT, transcript=lines.append)
    assert sum(line.startswith("-- ") for line in lines) == 2
    assert sum(line.startswith("C: MAIL") for line in lines) == 2
    assert lines[-1].startswith("S: 250 ")


async def test_a_function_that_fails_does_no_harm(caplog):
    def fail(line: str) -> None:
        raise ZeroDivisionError(line)

    async with open_sink() as sink, open_client(sink.host, sink.port, **sink.client_options) as client:
        with caplog.at_level(logging.ERROR, "trio_smtp"):
            await client.send("a@x.test", ["b@y.test"], TEXT, transcript=fail)
    assert [record.message for record in caplog.records] == [
        "client: the transcript function failed; further failures are not logged"
    ]
    assert len(sink.messages) == 1


async def test_it_is_a_function():
    async with open_sink() as sink, open_client(sink.host, sink.port, **sink.client_options) as client:
        with pytest.raises(TypeError, match="transcript is a function"):
            await client.send("a@x.test", ["b@y.test"], TEXT, transcript="x")  # type: ignore[arg-type]
