"""What the server says unasked is no answer to what comes next, on every kind of stream.

Looked for before MAIL, before the end of a message and after it: a reply too many shifts all that
follow, and a message that was refused would count as sent.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
from client_peer import Peer, client_and
from tls_support import NAME, client_context, server_context
from trio.testing import memory_stream_pair

import trio_smtp
from trio_smtp import Delivery, PoolConfig, open_client, open_pool

KINDS = ["memory", "memory under TLS", "socket", "TLS", "given TLS"]
SOCKETS = ["socket", "TLS"]
UNASKED = [
    (b"250 one more\r\n", trio_smtp.RemoteProtocolError),
    (b"550 no\r\n", trio_smtp.RemoteProtocolError),
    (b"250-half a", trio_smtp.RemoteProtocolError),
    (b"421 4.3.2 going down\r\n", trio_smtp.ConnectionLostError),
    (b"", trio_smtp.ConnectionLostError),
]


class Server:
    """The server's end of one connection."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self.heard = bytearray()

    async def say(self, data: bytes) -> None:
        await self._stream.send_all(data)

    async def hear(self, end: bytes) -> None:
        """Read until what was read ends so."""
        while not self.heard.endswith(end):
            data = await self._stream.receive_some()
            assert data, bytes(self.heard)
            self.heard += data
        self.heard.clear()

    async def greet(self, *offers: bytes) -> None:
        await self.say(b"220 mx.test\r\n")
        await self.hear(b"EHLO me.test\r\n")
        await self.say(b"".join(b"250-%b\r\n" % line for line in (b"mx.test", *offers)) + b"250 HELP\r\n")

    async def close(self) -> None:
        await self._stream.aclose()

    async def listen(self) -> None:
        """Read on to the end of the connection."""
        try:
            while data := await self._stream.receive_some():
                self.heard += data
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass


@asynccontextmanager
async def connected(kind: str, script: Callable[[Server], Awaitable[None]]) -> AsyncIterator[trio_smtp.Client]:
    """A client over that kind of stream, whose server follows a script."""

    async def play(stream: trio.abc.Stream) -> None:
        if "TLS" in kind:
            stream = trio.SSLStream(stream, server_context(), server_side=True)
        try:
            await script(Server(stream))
        finally:
            await trio.aclose_forcefully(stream)

    near: trio.abc.Stream
    async with trio.open_nursery() as nursery:
        if kind.startswith("memory"):
            near, far = memory_stream_pair()
            nursery.start_soon(play, far)
        else:
            [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
            near = await trio.testing.open_stream_to_socket_listener(listener)
            nursery.start_soon(play, await listener.accept())
            await listener.aclose()
        if kind == "given TLS":
            near = trio.SSLStream(near, client_context(), server_hostname=NAME)
        async with open_client(
            NAME,
            465,
            stream=near,
            tls="implicit" if "TLS" in kind else "none",
            ssl_context=client_context(),
            local_hostname="me.test",
            config=trio_smtp.ClientConfig(early_text=True),
        ) as client:
            yield client


async def in_sight() -> None:
    """Wait until what was said is where the client can see it."""
    await trio.sleep(0.02)


@pytest.mark.parametrize(("said", "error"), UNASKED)
@pytest.mark.parametrize("kind", KINDS)
async def test_unasked_words_before_mail(kind: str, said: bytes, error: type[trio_smtp.SMTPError]) -> None:
    spoken = trio.Event()
    heard: list[Any] = []

    async def script(server: Server) -> None:
        await server.greet(b"PIPELINING", b"CHUNKING")
        await server.hear(b"BDAT 4 LAST\r\nhi\r\n")
        await server.say(b"250 a\r\n250 b\r\n250 done\r\n")
        await asked.wait()
        await (server.say(said) if said else server.close())
        spoken.set()
        if said:
            await server.listen()
        heard.append(bytes(server.heard))

    asked = trio.Event()
    with trio.fail_after(5):
        async with connected(kind, script) as client:
            result = await client.send("a@x.test", ["b@y.test"], b"hi\r\n")
            assert result.reply.text == "done"
            asked.set()
            await spoken.wait()
            await in_sight()
            with pytest.raises(error) as caught:
                await client.send("a@x.test", ["b@y.test"], b"hi\r\n")
            with pytest.raises(trio_smtp.ConnectionLostError):
                await client.noop()
    assert (caught.value.delivery, caught.value.stage) == (Delivery.NOT_SENT, "mail")
    assert heard == [b""]


@pytest.mark.parametrize("kind", KINDS)
async def test_quiet_servers_are_not_suspected(kind: str) -> None:
    async def script(server: Server) -> None:
        await server.greet(b"PIPELINING")
        for _ in range(3):
            await server.hear(b"DATA\r\n")
            await server.say(b"250 a\r\n250 b\r\n354 go\r\n")
            await server.hear(b"\r\n.\r\n")
            await server.say(b"250-do")
            await in_sight()
            await server.say(b"ne\r\n250 done\r\n")
        await server.hear(b"QUIT\r\n")
        await server.say(b"221 bye\r\n")
        await server.listen()

    with trio.fail_after(5):
        async with connected(kind, script) as client:
            for _ in range(3):
                await client.send("a@x.test", ["b@y.test"], b"hi\r\n")
                await in_sight()


@pytest.mark.parametrize("push", [False, True], ids=["send", "transaction"])
@pytest.mark.parametrize(
    ("said", "error", "delivery"),
    [
        (b"250 queued early\r\n", trio_smtp.RemoteProtocolError, Delivery.NOT_SENT),
        (b"550 no, thanks\r\n", trio_smtp.MessageRefusedError, Delivery.REFUSED),
        (b"550-no,\r\n550 thanks\r\n", trio_smtp.MessageRefusedError, Delivery.REFUSED),
        (b"421 going down\r\n", trio_smtp.ConnectionLostError, Delivery.NOT_SENT),
        (b"", trio_smtp.ConnectionLostError, Delivery.NOT_SENT),
    ],
)
@pytest.mark.parametrize("offers", [(b"PIPELINING",), (b"PIPELINING", b"CHUNKING")], ids=["data", "bdat"])
@pytest.mark.parametrize("kind", KINDS)
async def test_unasked_words_before_the_end_of_a_message(
    kind: str,
    offers: tuple[bytes, ...],
    said: bytes,
    error: type[trio_smtp.SMTPError],
    delivery: Delivery,
    push: bool,
) -> None:
    """A 250 in the middle was taken for the answer to the end, and the 550 behind it was never read."""
    if len(offers) == 2 and said.startswith(b"550"):
        error, delivery = trio_smtp.RemoteProtocolError, Delivery.NOT_SENT  # between chunks nothing is refused unasked
    spoken = trio.Event()
    heard = bytearray()

    async def script(server: Server) -> None:
        await server.greet(*offers)
        if len(offers) == 1:
            await server.hear(b"DATA\r\n")
            await server.say(b"250 a\r\n250 b\r\n354 go\r\n")
        else:
            await server.hear(b"RCPT TO:<b@y.test>\r\n")
            await server.say(b"250 a\r\n250 b\r\n")
        await asked.wait()
        await (server.say(said) if said else server.close())
        spoken.set()
        if said:
            await server.listen()
        heard.extend(server.heard)

    asked = trio.Event()

    async def chunks() -> AsyncIterator[bytes]:
        yield b"hi\r\n"
        asked.set()
        await spoken.wait()
        await in_sight()

    async def send(client: trio_smtp.Client) -> None:
        await client.send("a@x.test", ["b@y.test"], chunks())

    async def send_pieces(client: trio_smtp.Client) -> None:
        async with client.transaction("a@x.test", ["b@y.test"]) as message:
            async for chunk in chunks():
                await message.send_all(chunk)

    with trio.fail_after(10):
        async with connected(kind, script) as client:
            with pytest.raises(error) as caught:
                await (send_pieces if push else send)(client)
    assert caught.value.delivery is delivery
    assert heard == b""  # a short text leaves with its end, so neither has
    if delivery is Delivery.REFUSED:
        assert caught.value.reply is not None
        assert caught.value.reply.code == int(said[:3])


async def test_half_a_refusal_in_the_middle_is_waited_for_a_while(autojump_clock: trio.testing.MockClock) -> None:
    for rest, error in ((b"50 no\r\n", trio_smtp.MessageRefusedError), (b"", trio_smtp.RemoteProtocolError)):

        async def script(peer: Peer, rest: bytes = rest) -> None:
            await peer.greet("PIPELINING")
            await peer.hear("MAIL FROM:<a@x.test>", "RCPT TO:<b@y.test>", "DATA")
            await peer.send(b"250 ok\r\n250 ok\r\n354 go\r\n5")
            await trio.sleep(0.5)
            await peer.send(rest)
            await peer.closed()

        async with client_and(script) as client:
            with pytest.raises(error) as caught:
                await client.send("a@x.test", ["b@y.test"], b"hi\r\n")
        assert caught.value.delivery is (Delivery.REFUSED if rest else Delivery.NOT_SENT)


async def test_a_short_message_looks_before_its_end_too() -> None:
    """Its text and the end are one send: no time passes on our side, but the 250 came with the 354."""

    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING")
        await peer.hear("MAIL FROM:<a@x.test>", "RCPT TO:<b@y.test>", "DATA")
        await peer.say("250 ok", "250 ok", "354 go", "250 queued already")
        await peer.closed()

    async with client_and(script) as client:
        with pytest.raises(trio_smtp.RemoteProtocolError) as caught:
            await client.send("a@x.test", ["b@y.test"], b"hi\r\n")
    assert caught.value.delivery is Delivery.NOT_SENT


async def test_a_refusal_is_noticed_between_blocks() -> None:
    blocks = 0

    async def script(server: Server) -> None:
        await server.greet(b"PIPELINING")
        await server.hear(b"DATA\r\n")
        await server.say(b"250 a\r\n250 b\r\n354 go\r\n552 5.3.4 too much\r\n")
        await server.listen()

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal blocks
        while True:
            blocks += 1
            yield b"x" * 70 + b"\r\n"

    with trio.fail_after(10):
        async with connected("socket", script) as client:
            with pytest.raises(trio_smtp.MessageRefusedError) as caught:
                await client.send("a@x.test", ["b@y.test"], chunks())
    assert caught.value.stage == "body"
    assert blocks < 10_000


@pytest.mark.parametrize("chunking", [False, True])
@pytest.mark.parametrize(
    ("answers", "error", "delivery"),
    [
        (("250 done", "250 done twice"), None, None),
        (("250 done", "550 refused"), trio_smtp.RemoteProtocolError, Delivery.UNKNOWN),
        (("550 refused", "250 done"), trio_smtp.RemoteProtocolError, Delivery.UNKNOWN),
        (("550 refused", "550 refused"), trio_smtp.MessageRefusedError, Delivery.REFUSED),
        (("250 done", "421 bye"), None, None),
    ],
)
async def test_two_answers_to_one_message(
    answers: tuple[str, ...], error: type[trio_smtp.SMTPError] | None, delivery: Delivery | None, chunking: bool
) -> None:
    """Where they disagree, it is not known which is the right one, nor what has become of the message."""

    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING", *(["CHUNKING"] if chunking else []))
        await peer.hear("MAIL FROM:<a@x.test>", "RCPT TO:<b@y.test>")
        if chunking:
            await peer.hear("BDAT 4 LAST", "hi")
            await peer.say("250 ok", "250 ok", *answers)
        else:
            await peer.hear("DATA")
            await peer.say("250 ok", "250 ok", "354 go")
            await peer.text()
            await peer.say(*answers)
        await peer.closed()

    async with client_and(script, config=trio_smtp.ClientConfig(early_text=True)) as client:
        if error is None:
            assert (await client.send("a@x.test", ["b@y.test"], b"hi\r\n")).reply.code == 250
        else:
            with pytest.raises(error) as caught:
                await client.send("a@x.test", ["b@y.test"], b"hi\r\n")
            assert caught.value.delivery is delivery
            if delivery is Delivery.UNKNOWN:
                assert caught.value.unknown == ["b@y.test"]
                assert caught.value.stage == "end"
        with pytest.raises(trio_smtp.SMTPError):
            await client.noop()


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("kind", SOCKETS)
async def test_a_busy_pool_uses_another_connection(kind: str, depth: int) -> None:
    """The next message is waiting, so the connection never idles, and only it looks."""
    connections = 0
    messages = 3

    async def serve(stream: trio.abc.Stream) -> None:
        nonlocal connections
        connections += 1
        if kind == "TLS":
            stream = trio.SSLStream(stream, server_context(), server_side=True)
        server = Server(stream)
        await server.greet(b"PIPELINING", b"CHUNKING")
        try:
            await server.hear(b"hi\r\n")
        except (AssertionError, trio.BrokenResourceError):
            return
        await server.say(b"250 a\r\n250 b\r\n250 done\r\n250 extra\r\n")
        await server.listen()
        assert b"MAIL" not in server.heard

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            [listener] = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
            async with open_pool(
                "localhost",
                listener.socket.getsockname()[1],
                tls="implicit" if kind == "TLS" else "none",
                ssl_context=client_context() if kind == "TLS" else None,
                local_hostname="me.test",
                config=PoolConfig(max_connections=1, pipeline_depth=depth),
                client_config=trio_smtp.ClientConfig(early_text=True),
            ) as pool:
                results = []

                async def send() -> None:
                    results.append((await pool.send("a@x.test", ["b@y.test"], b"hi\r\n")).reply.text)

                async with trio.open_nursery() as callers:
                    for _ in range(messages):
                        callers.start_soon(send)
            nursery.cancel_scope.cancel()
    assert results == ["done"] * messages
    assert connections == messages
