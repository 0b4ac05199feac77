"""Servers that read nothing, or answer octet by octet: each wait of the client ends in time, with flat memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
import trio.testing
from client_peer import OFFERS, Peer, client_and, error_of
from tls_support import client_context

import trio_smtp
from trio_smtp import ClientConfig, Delivery

RCPT = "RCPT TO:<b@y.test>"


class Reluctant(trio.abc.Stream):
    """The client's end of a connection whose server stops reading after so many octets, or reads that slowly.

    Args:
        stream: the connection.
        room: octets the server's window still has.
        rate: octets that it reads in each second from then on.
    """

    def __init__(self, stream: trio.abc.Stream, room: int, rate: int = 0) -> None:
        self.stream = stream
        self.room = room
        self.rate = rate

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        view = memoryview(data)
        while len(view) > self.room:
            await self.stream.send_all(view[: self.room])
            view = view[self.room :]
            if not self.rate:
                await trio.sleep_forever()
            await trio.sleep(1)
            self.room = self.rate
        self.room -= len(view)
        await self.stream.send_all(view)

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self.stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self.stream.aclose()


class Endless:
    """A message without an end; remembers how much of it was asked for."""

    def __init__(self) -> None:
        self.taken = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            self.taken += 65536
            yield b"x" * 65534 + b"\r\n"


def reading_nothing(peer: Peer, room: int, rate: int = 0, **config: Any) -> Any:
    return trio_smtp.open_client(
        "mail.test",
        stream=Reluctant(peer.far, room, rate),
        local_hostname="me.test",
        config=ClientConfig(**config),
    )


@pytest.mark.parametrize("chunking", [False, True])
@pytest.mark.parametrize("rate", [0, 1000])
async def test_server_that_does_not_read_the_text_gets_data_timeout_for_each_block(
    chunking: bool, rate: int, autojump_clock: trio.testing.MockClock
) -> None:
    peer, content = Peer(), Endless()

    async def script() -> None:
        await peer.greet("PIPELINING", *(["CHUNKING"] if chunking else []))
        await peer.hear("MAIL FROM:<a@x.test>", RCPT, *([] if chunking else ["DATA"]))
        await peer.say("250 ok", "250 ok", *([] if chunking else ["354 go"]))
        await peer.drain()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(script)
        async with reading_nothing(peer, 10_000, rate, data_timeout=20, command_timeout=1000) as client:
            began = trio.current_time()
            with pytest.raises(trio_smtp.SMTPTimeoutError) as caught:
                await client.send("a@x.test", ["b@y.test"], content)
            assert trio.current_time() - began == pytest.approx(21)  # a second for the server's last words
            with pytest.raises(trio_smtp.ConnectionLostError):
                await client.noop()
    assert (caught.value.delivery, caught.value.stage) == (Delivery.NOT_SENT, "body")
    assert content.taken < 1_000_000  # nothing piles up for a server that takes nothing


async def test_server_that_reads_each_block_in_time_may_take_long_for_all(
    autojump_clock: trio.testing.MockClock,
) -> None:
    peer = Peer()

    async def script() -> None:
        await peer.greet("PIPELINING", "SIZE")
        await peer.hear("MAIL FROM:<a@x.test> SIZE=2000000", RCPT, "DATA")
        await peer.say("250 ok", "250 ok", "354 go")
        assert len(await peer.text()) == 2_000_000
        await peer.say("250 ok")
        await peer.goodbye()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(script)
        async with reading_nothing(peer, 10_000, 20_000, data_timeout=20) as client:
            began = trio.current_time()
            await client.send("a@x.test", ["b@y.test"], b"0123456\r\n" * 222_222 + b"\r\n")
            assert trio.current_time() - began == pytest.approx(100, abs=3)


async def test_server_that_does_not_read_the_commands_gets_command_timeout(
    autojump_clock: trio.testing.MockClock,
) -> None:
    peer = Peer()

    async def script() -> None:
        await peer.greet("PIPELINING")
        await peer.drain()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(script)
        async with reading_nothing(peer, 1000, command_timeout=20) as client:
            began = trio.current_time()
            with pytest.raises(trio_smtp.SMTPTimeoutError) as caught:
                await client.send("a@x.test", [f"b{n}@y.test" for n in range(1000)], b"hi\r\n")
            assert trio.current_time() - began == pytest.approx(20, abs=1)
    assert caught.value.delivery is Delivery.NOT_SENT


async def test_server_that_does_not_read_the_proxy_header_gets_connect_timeout(
    autojump_clock: trio.testing.MockClock,
) -> None:
    peer = Peer()
    began = trio.current_time()
    error = await error_of(
        trio_smtp.open_client(
            "mail.test",
            stream=Reluctant(peer.far, 5),
            proxy_header=trio_smtp.ProxyHeader(("192.0.2.1", 1), ("192.0.2.2", 25)),
            config=ClientConfig(connect_timeout=20),
        )
    )
    assert isinstance(error, trio_smtp.SMTPTimeoutError)
    assert (error.stage, error.delivery) == ("connect", Delivery.NOT_SENT)
    assert trio.current_time() - began == pytest.approx(20, abs=1)


async def drip(peer: Peer, octets: bytes, pause: float = 0.9) -> None:
    """Say something in single octets, until the client has gone."""
    try:
        for octet in octets:
            await trio.sleep(pause)
            await peer.send(bytes([octet]))
    except trio.BrokenResourceError:
        pass


@pytest.mark.parametrize("drops", [b"220-" + b"x" * 1000, b"220-x\r\n" * 1000, b"2"], ids=["line", "lines", "octet"])
async def test_greeting_that_drips_ends(drops: bytes, autojump_clock: trio.testing.MockClock) -> None:
    async def script(peer: Peer) -> None:
        await drip(peer, drops)
        await peer.drain()

    began = trio.current_time()
    error = await error_of(client_and(script, config=ClientConfig(greeting_timeout=20)))
    assert isinstance(error, trio_smtp.SMTPTimeoutError)
    assert (error.stage, error.delivery) == ("greeting", Delivery.NOT_SENT)
    assert trio.current_time() - began == pytest.approx(20, abs=1)


async def test_answer_to_hello_that_drips_ends(autojump_clock: trio.testing.MockClock) -> None:
    async def script(peer: Peer) -> None:
        await peer.say("220 mail.test")
        await peer.hear("EHLO me.test")
        await drip(peer, b"250-PIPELINING\r\n" * 100)
        await peer.drain()

    began = trio.current_time()
    error = await error_of(client_and(script, config=ClientConfig(command_timeout=20)))
    assert isinstance(error, trio_smtp.SMTPTimeoutError)
    assert error.stage == "hello"
    assert trio.current_time() - began == pytest.approx(20, abs=1)


async def test_replies_to_a_group_have_a_time_limit_each(autojump_clock: trio.testing.MockClock) -> None:
    """RFC 5321 section 4.5.3.2 wants limits per command: a slow server is not a dead one. A reply that drips is."""

    async def script(peer: Peer) -> None:
        await peer.greet(*OFFERS)
        await peer.hear("MAIL FROM:<a@x.test> SIZE=4", RCPT, "DATA")
        for line in ("250 ok", "250 ok", "354 go"):
            await trio.sleep(15)
            await peer.say(line)
        await peer.text()
        await drip(peer, b"250 accepted at long last\r\n")
        await peer.drain()

    async with client_and(script, config=ClientConfig(command_timeout=20, end_timeout=10)) as client:
        began = trio.current_time()
        with pytest.raises(trio_smtp.SMTPTimeoutError) as caught:
            await client.send("a@x.test", ["b@y.test"], b"hi\r\n")
        assert trio.current_time() - began == pytest.approx(55, abs=1)
    assert (caught.value.delivery, caught.value.stage) == (Delivery.UNKNOWN, "end")


@pytest.mark.parametrize("tls", ["implicit", "starttls"])
async def test_handshake_that_drips_ends(tls: Any, autojump_clock: trio.testing.MockClock) -> None:
    async def script(peer: Peer) -> None:
        if tls == "starttls":
            await peer.greet("STARTTLS")
            await peer.hear("STARTTLS")
            await peer.say("220 go")
        await drip(peer, b"\x16\x03\x03\x40\x00" + bytes(1000))
        await peer.drain()

    peer = Peer()
    config = ClientConfig(tls_handshake_timeout=20, greeting_timeout=1000)
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(script, peer)
        error = await error_of(
            trio_smtp.open_client(
                "mx.test",
                stream=peer.far,
                tls=tls,
                local_hostname="me.test",
                ssl_context=client_context(),
                config=config,
            )
        )
        assert trio.current_time() - began == pytest.approx(20, abs=1)
    assert isinstance(error, trio_smtp.SMTPTimeoutError)
    assert error.delivery is Delivery.NOT_SENT


async def test_good_bye_that_drips_ends(autojump_clock: trio.testing.MockClock) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING")
        await peer.hear("QUIT")
        await drip(peer, b"221-" + b"x" * 100)
        await peer.drain()

    async with client_and(script, config=ClientConfig(quit_timeout=7)):
        began = trio.current_time()
    assert trio.current_time() - began == pytest.approx(7, abs=1)


async def test_each_reply_to_one_write_has_the_limit_of_its_command(autojump_clock: trio.testing.MockClock) -> None:
    """The limit for the end of a message is longer, and is not that of the envelope that leaves with it."""

    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING", "CHUNKING")
        await peer.hear("MAIL…", RCPT, "BDAT 4 LAST", "hi")
        await trio.sleep(50)
        await peer.say("250 ok", "250 ok")
        await trio.sleep(500)
        await peer.say("250 taken")
        await peer.hear("MAIL…", RCPT, "BDAT 4 LAST", "hi")
        await peer.drain()

    config = ClientConfig(early_text=True, command_timeout=60, end_timeout=600)
    async with client_and(script, config=config) as client:
        result = await client.send("a@x.test", ["b@y.test"], b"hi\r\n")
        assert result.reply.text == "taken"
        started = trio.current_time()
        with pytest.raises(trio_smtp.SMTPTimeoutError, match="no reply to MAIL within 60") as caught:
            await client.send("a@x.test", ["b@y.test"], b"hi\r\n")
        assert trio.current_time() - started == 60
    assert caught.value.delivery is Delivery.UNKNOWN  # its end has left


@pytest.mark.parametrize("logged", [False, True])
async def test_replies_to_a_group_that_come_one_by_one_have_their_own_limits(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture, logged: bool
) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING")
        await peer.hear("MAIL…", RCPT, "DATA")
        for reply in ("250 ok", "250 ok"):
            await trio.sleep(50)
            await peer.say(reply)
        await peer.drain()

    caplog.set_level("DEBUG" if logged else "INFO", "trio_smtp")
    async with client_and(script, config=ClientConfig(command_timeout=60)) as client:
        started = trio.current_time()
        with pytest.raises(trio_smtp.SMTPTimeoutError, match="no reply to DATA within 60") as caught:
            await client.send("a@x.test", ["b@y.test"], b"hi\r\n")
        assert trio.current_time() - started == 160
    assert (caught.value.stage, caught.value.delivery) == ("data", Delivery.NOT_SENT)
