"""NUL in what a client sends: some hops drop it, and what is left of CR LF NUL . CR LF ends a message there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from client_peer import Peer, client_and
from pool_server import network, pool_of

import trio_smtp
from trio_smtp import ClientConfig, Delivery, LocalProtocolError, PoolConfig
from trio_smtp._client.content import SMALL_FILE
from trio_smtp._protocol.dotstuff import DotEncoder, encode_message
from trio_smtp._protocol.newlines import NewlineEncoder, encode_newlines
from trio_smtp._protocol.nul import treat_nul

SMUGGLED = b"one\r\n\0.\r\nMAIL FROM:<evil@x.test>\r\n"
CLEAN = SMUGGLED.replace(b"\0", b"")
STUFFED = CLEAN.replace(b"\r\n.", b"\r\n..")
OFFERS = [("PIPELINING",), ("PIPELINING", "CHUNKING", "BINARYMIME"), ("CHUNKING",)]
with_offers = pytest.mark.parametrize("offers", OFFERS)


class Taker:
    """A server that takes every message; its commands and the texts on the wire."""

    def __init__(self, *offers: str) -> None:
        self._offers = offers
        self.commands: list[str] = []
        self.texts: list[bytes] = []

    async def __call__(self, peer: Peer, number: int = 1) -> None:
        with suppress(EOFError, trio.BrokenResourceError):
            await peer.greet(*self._offers)
            text = b""
            while (line := await peer.line()) != "QUIT":
                self.commands.append(line)
                if line == "RSET":
                    text = b""
                if line == "DATA":
                    await peer.say("354 go")
                    self.texts.append(await peer.text())
                if line.startswith("BDAT"):
                    text += await peer.octets(int(line.split(" ")[1]))
                    if line.endswith("LAST"):
                        self.texts.append(text)
                        text = b""
                await peer.say("250 ok")
            await peer.say("221 bye")


async def pieces(*given: bytes) -> AsyncIterator[bytes]:
    for piece in given:
        yield piece


def one_at_a_time(text: bytes) -> AsyncIterator[bytes]:
    return pieces(*(text[at : at + 1] for at in range(len(text))))


@pytest.mark.parametrize("text", [b"", b"\0", b"a\0b", SMUGGLED])
def test_a_piece_of_text(text: bytes) -> None:
    assert treat_nul(text, "keep") is text
    assert treat_nul(text, "drop") == text.replace(b"\0", b"")
    if text:
        with pytest.raises(LocalProtocolError, match="NUL"):
            treat_nul(text, "reject")
    assert treat_nul(b"none", "reject") == b"none"


def test_encoders_alone_keep_it() -> None:
    assert encode_message(SMUGGLED)[0] == SMUGGLED
    assert encode_newlines(SMUGGLED)[0] == SMUGGLED
    assert DotEncoder().encode(SMUGGLED) == SMUGGLED
    assert NewlineEncoder().encode(SMUGGLED) == SMUGGLED


@with_offers
@pytest.mark.parametrize("early", [False, True])
async def test_a_message_with_it_is_refused_before_an_octet_is_sent(offers: tuple[str, ...], early: bool) -> None:
    server = Taker(*offers)
    async with client_and(server, config=ClientConfig(early_text=early)) as client:
        for content in (SMUGGLED, SMUGGLED.decode()):
            with pytest.raises(LocalProtocolError, match="NUL") as caught:
                await client.send("a@x.test", ["b@y.test"], content)
            assert caught.value.delivery is Delivery.NOT_SENT
        assert server.commands == []
        await client.send("a@x.test", ["b@y.test"], b"clean\r\n")
    assert server.texts == [b"clean\r\n"]


@with_offers
async def test_dropped_before_dots_are_doubled(offers: tuple[str, ...]) -> None:
    server = Taker(*offers)
    async with client_and(server, config=ClientConfig(nul="drop")) as client:
        await client.send("a@x.test", ["b@y.test"], SMUGGLED)
        await client.send("a@x.test", ["b@y.test"], one_at_a_time(SMUGGLED))
        async with client.transaction("a@x.test", ["b@y.test"]) as message:
            await message.send_all(SMUGGLED[:6])
            await message.send_all(bytearray(SMUGGLED[6:]))
    assert server.texts == [CLEAN if "CHUNKING" in offers else STUFFED] * 3


@with_offers
async def test_dropped_before_line_ends_are_made(offers: tuple[str, ...]) -> None:
    server = Taker(*offers)
    async with client_and(server, config=ClientConfig(nul="drop", newlines="reject")) as client:
        await client.send("a@x.test", ["b@y.test"], b"one\r\0\ntwo\0\r\n")
        await client.send("a@x.test", ["b@y.test"], one_at_a_time(b"one\r\0\ntwo\0\r\n"))
    assert server.texts == [b"one\r\ntwo\r\n"] * 2


@with_offers
async def test_kept_where_that_is_asked_for(offers: tuple[str, ...]) -> None:
    server = Taker(*offers)
    async with client_and(server, config=ClientConfig(nul="keep")) as client:
        await client.send("a@x.test", ["b@y.test"], SMUGGLED)
        await client.send("a@x.test", ["b@y.test"], one_at_a_time(SMUGGLED))
    assert server.texts == [SMUGGLED] * 2


async def test_kept_in_binarymime() -> None:
    server = Taker(*OFFERS[1], "8BITMIME")
    params: dict[str, Any] = {"mail_params": {"BODY": "BINARYMIME"}}
    async with client_and(server, config=ClientConfig(nul="drop")) as client:
        await client.send("a@x.test", ["b@y.test"], SMUGGLED, **params)
        await client.send("a@x.test", ["b@y.test"], one_at_a_time(SMUGGLED), **params)
    async with client_and(server) as client:
        await client.send("a@x.test", ["b@y.test"], SMUGGLED, **params)
    assert server.texts == [SMUGGLED] * 3


@with_offers
async def test_a_stream_with_it_is_given_up(offers: tuple[str, ...]) -> None:
    server = Taker(*offers)
    async with client_and(server) as client:
        with pytest.raises(LocalProtocolError, match="NUL") as caught:
            await client.send("a@x.test", ["b@y.test"], pieces(b"x" * 600_000, b"\r\n\0", b".\r\n"))
        assert caught.value.delivery is Delivery.NOT_SENT
    assert server.texts == []


async def push_on(client: trio_smtp.Client, wrong: bytes) -> None:
    """Go on after a piece that was refused, as if nothing had happened."""
    async with client.transaction("a@x.test", ["b@y.test"]) as message:
        await message.send_all(b"one\r\n")
        with suppress(trio_smtp.SMTPError):
            await message.send_all(wrong)
        with suppress(trio_smtp.SMTPError):
            await message.send_all(b"two\r\n")


@with_offers
@pytest.mark.parametrize("wrong", [b"\0", "ü".encode()])
async def test_a_piece_that_was_refused_is_not_left_out_in_silence(offers: tuple[str, ...], wrong: bytes) -> None:
    server = Taker(*offers)
    async with client_and(server) as client:
        with pytest.raises(trio_smtp.SMTPError) as caught:
            await push_on(client, wrong)
        assert caught.value.delivery is Delivery.NOT_SENT
    assert server.texts == []


@with_offers
@pytest.mark.parametrize("octets", [1000, 2 * SMALL_FILE])
async def test_a_file_with_it_is_refused_before_mail(tmp_path: Path, offers: tuple[str, ...], octets: int) -> None:
    path = tmp_path / "message"
    path.write_bytes(b"x" * octets + b"\r\n\0.\r\n")
    server = Taker(*offers)
    async with client_and(server) as client:
        with pytest.raises(LocalProtocolError, match="NUL"):
            await client.send("a@x.test", ["b@y.test"], path)
    assert server.commands == []
    async with client_and(server, config=ClientConfig(nul="drop")) as client:
        await client.send("a@x.test", ["b@y.test"], path)
    assert server.texts == [b"x" * octets + (b"\r\n.\r\n" if "CHUNKING" in offers else b"\r\n..\r\n")]


@pytest.mark.parametrize("depth", [1, 4])
async def test_in_a_pool_it_costs_its_own_message_alone(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock, depth: int
) -> None:
    refused = 0

    async def send(i: int) -> None:
        nonlocal refused
        try:
            await pool.send("a@x.test", ["b@y.test"], SMUGGLED if i % 2 else b"%d\r\n" % i)
        except LocalProtocolError:
            refused += 1

    async with network(monkeypatch) as net:
        config = PoolConfig(pipeline_depth=depth, max_connections=1)
        async with pool_of(config) as pool, trio.open_nursery() as nursery:
            for i in range(8):
                nursery.start_soon(send, i)
        assert sorted(net.accepted) == [b"0\r\n", b"2\r\n", b"4\r\n", b"6\r\n"]
        assert net.connections == 1
    assert refused == 4


def test_the_policy_is_checked() -> None:
    with pytest.raises(ValueError, match="nul"):
        ClientConfig(nul="maybe")  # type: ignore[arg-type]
