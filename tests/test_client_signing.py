"""What is signed is what is sent, on every path that can touch the octets; and what cannot be signed is not sent."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
import trio
from dkim_keys import is_valid, make_signer

import trio_smtp
from trio_smtp import ClientConfig, Delivery, LocalProtocolError, PoolConfig, ServerConfig
from trio_smtp._client.content import SMALL_FILE
from trio_smtp._client.signing import IN_THREAD
from trio_smtp.testing import Sink, open_sink

HEADER = b"From: me@x.test\r\nTo: you@y.test\r\nSubject: hi\r\nMIME-Version: 1.0\r\n\r\n"
TEXTS = {
    "plain": HEADER + b"hello\r\n",
    "no last line end": HEADER + b"hello",
    "bare line ends": HEADER.replace(b"\r\n", b"\n") + b"one\ntwo\rthree\r\nfour",
    "dots": HEADER + b".\r\n..\r\n.one\r\n",
    "blanks at the end": HEADER + b"hello \t \r\n\r\n \r\n\r\n",
    "no text": HEADER[:-2],
    "eight bits": HEADER + "Grüße\r\n".encode(),
    "large": HEADER + b"0123456789 abcde\n" * 50_000,
}
SERVERS: dict[str, tuple[ServerConfig, ClientConfig]] = {
    "BDAT": (ServerConfig(), ClientConfig()),
    "BDAT early": (ServerConfig(), ClientConfig(early_text=True)),
    "DATA": (ServerConfig(), ClientConfig(chunking=False)),
    "DATA in lock-step": (ServerConfig(disabled_extensions=("PIPELINING", "CHUNKING")), ClientConfig()),
}


class Again:
    """A stream that can be read again."""

    replayable = True

    def __init__(self, octets: bytes, size: int = 1000) -> None:
        self.octets = octets
        self.size = size
        self.read = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self.read += 1
        for at in range(0, len(self.octets), self.size):
            await trio.lowlevel.checkpoint()
            yield self.octets[at : at + self.size]


class Once:
    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield TEXTS["plain"]


def as_kind(kind: str, octets: bytes, directory: Path) -> Any:
    if kind == "path":
        path = directory / "message"
        path.write_bytes(octets)
        return path
    return {"bytes": octets, "str": octets.decode(), "stream": Again(octets)}[kind]


def client_of(sink: Sink, **options: Any) -> Any:
    return trio_smtp.open_client(sink.host, sink.port, **{**sink.client_options, "sign": make_signer(), **options})


def pool_of(sink: Sink, **options: Any) -> Any:
    return trio_smtp.open_pool(sink.host, sink.port, **{**sink.client_options, "sign": make_signer(), **options})


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("kind", ["bytes", "str", "path", "stream"])
async def test_what_is_signed_is_what_is_sent(server: str, kind: str, tmp_path: Path) -> None:
    config, client_config = SERVERS[server]
    async with open_sink(config=config) as sink, client_of(sink, config=client_config) as client:
        for text in TEXTS.values():
            await client.send("me@x.test", ["you@y.test"], as_kind(kind, text, tmp_path))
    assert len(sink.messages) == len(TEXTS)
    for name, received in zip(TEXTS, sink.messages, strict=True):
        assert is_valid(received.content), name
        signature, _, rest = received.content.partition(b"\r\nFrom:")
        assert signature.startswith(b"DKIM-Signature:")
        wanted = TEXTS[name].replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")
        assert (b"From:" + rest).rstrip(b"\r\n") == wanted.rstrip(b"\r\n")


def composed() -> EmailMessage:
    message = EmailMessage()
    message["From"] = "Jürgen <me@x.test>"
    message["To"] = "you@y.test"
    message["Bcc"] = "hidden@y.test"
    message["Subject"] = "Grüße aus dem Wald, in einem Betreff, der länger ist als eine Zeile es sein sollte"
    message.set_content("Grüße\n.\nvom Bären \n" * 20, cte="8bit")
    message.add_attachment(bytes(range(256)), maintype="application", subtype="octet-stream", filename="übel.bin")
    return message


@pytest.mark.parametrize("without", [(), ("8BITMIME",), ("SMTPUTF8",), ("8BITMIME", "SMTPUTF8", "CHUNKING")])
async def test_a_message_object_is_signed_as_this_server_gets_it(without: tuple[str, ...]) -> None:
    """With 8-bit text or re-encoded, with UTF-8 in the header or encoded words."""
    config = ServerConfig(disabled_extensions=without)
    async with open_sink(config=config) as sink, client_of(sink) as client:
        await client.send_message(composed())
        if not without:
            await client.send("me@x.test", ["ü@y.test"], composed())
    for received in sink.messages:
        assert is_valid(received.content)
        assert b"hidden" not in received.content
        assert received.content.isascii() or "8BITMIME" not in without
        assert str(received.message["From"]) == "Jürgen <me@x.test>"


async def test_one_pool_signs_for_each_of_its_servers() -> None:
    """The same message object, first for a server that takes 8-bit text and then for one that does not."""
    message = composed()
    async with open_sink() as first, open_sink(config=ServerConfig(disabled_extensions=("8BITMIME",))) as second:
        hosts: list[tuple[str, int | None]] = [(first.host, first.port), (second.host, second.port)]

        async def host() -> list[tuple[str, int | None]]:
            return [hosts.pop(0)]

        options: dict[str, Any] = {"config": PoolConfig(max_messages=1, max_connections=1), "sign": make_signer("rsa")}
        async with trio_smtp.open_pool(host, **{**first.client_options, **options}) as pool:
            for _ in range(2):
                await pool.send_message(message)
        assert not first.messages[0].content.isascii()
        assert second.messages[0].content.isascii()
        assert is_valid(first.messages[0].content)
        assert is_valid(second.messages[0].content)


@pytest.mark.parametrize("depth", [1, 4])
@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("chunking", [False, True])
async def test_messages_in_flight_behind_each_other(depth: int, early: bool, chunking: bool) -> None:
    settings = PoolConfig(pipeline_depth=depth, max_connections=1)
    client_config = ClientConfig(early_text=early, chunking=chunking)
    texts = list(TEXTS.values()) * 3
    async with open_sink() as sink, pool_of(sink, config=settings, client_config=client_config) as pool:
        async with pool.send_many(("me@x.test", ["you@y.test"], text) for text in texts) as outcomes:
            errors = [outcome.error async for outcome in outcomes]
        async with pool.send_many([composed()]) as outcomes:
            errors += [outcome.error async for outcome in outcomes]
    assert errors == [None] * (len(texts) + 1)
    assert len(sink.messages) == len(texts) + 1
    assert all(is_valid(received.content) for received in sink.messages)


@pytest.mark.parametrize("kind", ["bytes", "path", "stream"])
async def test_a_list_that_is_split_has_one_signature(kind: str, tmp_path: Path) -> None:
    config = ServerConfig(max_recipients=2)
    content = as_kind(kind, TEXTS["bare line ends"], tmp_path)
    async with open_sink(config=config) as sink, client_of(sink) as client:
        result = await client.send("me@x.test", [f"you{n}@y.test" for n in range(5)], content)
    assert len(result.accepted) == 5
    assert len(sink.messages) == 3
    assert len({received.content for received in sink.messages}) == 1
    assert is_valid(sink.messages[0].content)
    if kind == "stream":
        assert content.read == 1


async def test_lmtp() -> None:
    async with open_sink(config=ServerConfig(lmtp=True)) as sink, client_of(sink, lmtp=True) as client:
        await client.send("me@x.test", ["a@y.test", "b@y.test"], TEXTS["dots"])
    assert is_valid(sink.messages[0].content)


async def test_a_file_larger_than_one_block(tmp_path: Path) -> None:
    text = HEADER + b"0123456789 abcde\n" * (2 * SMALL_FILE // 17)
    async with open_sink() as sink, client_of(sink) as client:
        await client.send("me@x.test", ["you@y.test"], as_kind("path", text, tmp_path))
    assert is_valid(sink.messages[0].content)


class Watching:
    """Notes in which thread it signs."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []

    def sign(self, message: bytes, /) -> bytes:
        self.threads.append(threading.current_thread())
        return b"X-Signed: %d\r\n" % len(message)


async def test_a_large_message_is_signed_in_a_thread() -> None:
    signer = Watching()
    async with open_sink() as sink, client_of(sink, sign=signer) as client:
        for size in (IN_THREAD - 1, IN_THREAD):
            text = HEADER + b"x" * (size - len(HEADER) - 2) + b"\r\n"
            assert len(text) == size
            await client.send("me@x.test", ["you@y.test"], text)
    here = threading.current_thread()
    assert [thread is here for thread in signer.threads] == [True, False]
    assert sink.messages[1].content.startswith(b"X-Signed: %d\r\nFrom:" % IN_THREAD)


async def test_a_stream_that_can_be_had_once_is_an_error_before_mail() -> None:
    async with open_sink() as sink:
        async with client_of(sink) as client:
            with pytest.raises(LocalProtocolError, match="replayable") as caught:
                await client.send("me@x.test", ["you@y.test"], Once())
            assert caught.value.delivery is Delivery.NOT_SENT
            await client.send("me@x.test", ["you@y.test"], TEXTS["plain"])
        async with pool_of(sink) as pool:
            with pytest.raises(LocalProtocolError, match="replayable"):
                await pool.send("me@x.test", ["you@y.test"], Once())
            assert pool.statistics().opened == 0
    assert len(sink.messages) == 1


async def test_a_transaction_is_an_error_before_mail() -> None:
    async with open_sink() as sink, client_of(sink) as client:
        with pytest.raises(LocalProtocolError, match="transaction cannot be signed") as caught:
            async with client.transaction("me@x.test", ["you@y.test"]):
                raise AssertionError("it began")
        assert caught.value.delivery is Delivery.NOT_SENT
        await client.send("me@x.test", ["you@y.test"], TEXTS["plain"])
    assert is_valid(sink.messages[0].content)


async def test_a_binary_message_is_an_error_before_mail() -> None:
    async with open_sink() as sink, client_of(sink) as client:
        with pytest.raises(LocalProtocolError, match="BINARYMIME"):
            await client.send("me@x.test", ["you@y.test"], TEXTS["plain"], mail_params={"body": "BinaryMIME"})


async def test_what_cannot_be_signed_is_not_sent_and_costs_no_connection() -> None:
    async with open_sink() as sink, client_of(sink) as client:
        with pytest.raises(LocalProtocolError, match="no From") as caught:
            await client.send("me@x.test", ["you@y.test"], b"Subject: hi\r\n\r\nhi\r\n")
        assert caught.value.delivery is Delivery.NOT_SENT
        await client.send("me@x.test", ["you@y.test"], TEXTS["plain"])
    assert len(sink.messages) == 1


async def test_newlines_that_are_refused_are_refused_before_the_signature() -> None:
    signer = Watching()
    async with open_sink() as sink, client_of(sink, sign=signer, config=ClientConfig(newlines="reject")) as client:
        with pytest.raises(LocalProtocolError, match="bare CR or LF"):
            await client.send("me@x.test", ["you@y.test"], TEXTS["bare line ends"])
    assert not signer.threads


class Broken:
    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def sign(self, message: bytes, /) -> bytes:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize("answer", [None, "X: 1\r\n", ValueError("no")])
@pytest.mark.parametrize("size", [10, IN_THREAD])
async def test_a_broken_signer_is_the_callers_error(answer: Any, size: int) -> None:
    text = HEADER + b"x" * size
    wanted = ValueError if isinstance(answer, Exception) else TypeError
    async with open_sink() as sink:
        async with client_of(sink, sign=Broken(answer)) as client:
            with pytest.raises(wanted):
                await client.send("me@x.test", ["you@y.test"], text)
            assert (await client.noop()).code == 250
        async with pool_of(sink, sign=Broken(answer)) as pool:
            with pytest.raises(wanted):
                await pool.send("me@x.test", ["you@y.test"], text)
    assert not sink.messages


@pytest.mark.parametrize(
    "fields",
    [
        b"X",
        b"X: 1",
        b"X: 1\n",
        b"X: 1\r\n\r\n",
        b"\r\n",
        b" X: 1\r\n",
        b"X: 1\r\n.\r\n",
        b"X: 1\r2\r\n",
        b"X: 1\r\n2\r\n",
    ],
)
async def test_what_are_no_fields_does_not_stand_above_a_message(fields: bytes) -> None:
    """``X: 1`` would swallow the message's first field, an empty line would make its header a part of its text."""
    async with open_sink() as sink, client_of(sink, sign=Broken(fields)) as client:
        with pytest.raises(LocalProtocolError, match="a signer returns whole header fields") as caught:
            await client.send("me@x.test", ["you@y.test"], TEXTS["plain"])
        assert caught.value.delivery is Delivery.NOT_SENT
    assert not sink.messages


@pytest.mark.parametrize("fields", [b"", b"X: 1\r\n", b"X: 1\r\n\t2\r\nY: \xff\r\n"])
async def test_fields_of_any_kind(fields: bytes) -> None:
    async with open_sink() as sink, client_of(sink, sign=Broken(fields)) as client:
        await client.send("me@x.test", ["you@y.test"], TEXTS["plain"])
    assert sink.messages[0].content == fields + TEXTS["plain"]


@pytest.mark.parametrize("sign", ["key", b"key", Broken, object()])
async def test_what_is_no_signer_is_an_error_before_connecting(sign: Any) -> None:
    with pytest.raises(TypeError, match=r"trio_smtp\.dkim\.Signer"):
        async with trio_smtp.open_client("127.0.0.1", 1, sign=sign):
            raise AssertionError("it opened")
    with pytest.raises(TypeError, match=r"trio_smtp\.dkim\.Signer"):
        async with trio_smtp.open_pool("127.0.0.1", sign=sign):
            raise AssertionError("it opened")


class Stuck:
    """Signs when it is allowed to."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.go_on = threading.Event()

    def sign(self, message: bytes, /) -> bytes:
        self.began.set()
        assert self.go_on.wait(30)
        return b"X-Signed: 1\r\n"


async def test_cancelled_while_signing_nothing_is_sent() -> None:
    signer = Stuck()
    text = HEADER + b"x" * IN_THREAD
    try:
        async with open_sink() as sink, client_of(sink, sign=signer) as client:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(client.send, "me@x.test", ["you@y.test"], text)
                    await trio.to_thread.run_sync(signer.began.wait)
                    scope.cancel()
            assert scope.cancelled_caught
            assert (await client.noop()).code == 250  # the connection is as it was
        async with open_sink() as other, pool_of(other, sign=signer) as pool:
            signer.began.clear()
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(pool.send, "me@x.test", ["you@y.test"], text)
                    await trio.to_thread.run_sync(signer.began.wait)
                    scope.cancel()
            assert scope.cancelled_caught
            await pool.drain()
    finally:
        signer.go_on.set()
    assert not sink.messages
    assert not other.messages


async def test_a_retry_sends_the_same_signature() -> None:
    again = Again(TEXTS["plain"])
    async with open_sink() as sink:
        sink.cut("rcpt", times=1)
        async with pool_of(sink, config=PoolConfig(retry_delay=0)) as pool:
            result = await pool.send("me@x.test", ["you@y.test"], again)
    assert result.attempts == 2
    assert again.read == 1
    assert is_valid(sink.messages[0].content)


async def test_a_nul_is_dropped_before_the_signature() -> None:
    text = HEADER + b"a\0b\r\n"
    async with open_sink() as sink, client_of(sink, config=ClientConfig(nul="drop")) as client:
        await client.send("me@x.test", ["you@y.test"], text)
        await client.send("me@x.test", ["you@y.test"], Again(text))
    assert [received.content[-4:] for received in sink.messages] == [b"ab\r\n"] * 2
    assert all(is_valid(received.content) for received in sink.messages)
