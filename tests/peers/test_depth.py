# What servers do to messages that follow each other on a connection without waiting for replies (pipeline_depth).
#
# The messages of these tests are healthy and the servers are too: every message has to be accepted, once. What is not
# so today is marked; the mark of a test that passes is an error.
from __future__ import annotations

import collections
from collections.abc import Iterator
from typing import Any

import pytest
import trio
from peer_exim import open_exim
from peer_mail import Letter, make_letter
from peer_routes import Route, open_route
from peer_servers import Peer, TLSFiles
from trio.testing import MockClock

import trio_smtp
from trio_smtp import ClientConfig, Outcome, PoolConfig
from trio_smtp.testing import virtual_network

LIMIT = 60
COUNT = 60
DATA = ClientConfig(chunking=False)
BDAT = ClientConfig()
DEEP = PoolConfig(pipeline_depth=4, max_connections=2, retry_delay=0)


async def send(route: Route, client_config: ClientConfig) -> tuple[list[Letter], list[Outcome[Any]]]:
    """Send many letters; what became of each."""
    letters = [make_letter(route.domain) for _ in range(COUNT)]
    return letters, await route.send(letters, DEEP, client_config)


def fates(outcomes: list[Outcome[Any]]) -> dict[str, int]:
    """How many were accepted, and how many ended otherwise."""
    return dict(
        collections.Counter(
            "accepted" if outcome.error is None else f"{type(outcome.error).__name__}: {delivery(outcome)}"
            for outcome in outcomes
        )
    )


def delivery(outcome: Outcome[Any]) -> str:
    """What the error says of the message."""
    assert isinstance(outcome.error, trio_smtp.SMTPError), outcome.error
    return str(outcome.error.delivery)


async def check_all_arrive(route: Route, client_config: ClientConfig) -> None:
    letters, outcomes = await send(route, client_config)
    assert fates(outcomes) == {"accepted": COUNT}
    for letter in letters:
        assert await route.arrived(letter) == [(letter.recipients[0], letter.content)]


# ---- a limit of messages on a connection, which no extension announces


@pytest.fixture(scope="module")
def limited_exim(tls_files: TLSFiles) -> Iterator[Peer]:
    """An Exim that answers 421 to the eleventh MAIL of a connection."""
    with open_exim(tls_files, max_messages=10) as peer:
        yield peer


async def test_limit_of_messages_with_data(limited_exim: Peer, tls_files: TLSFiles) -> None:
    async with open_route(limited_exim, tls_files) as route:
        await check_all_arrive(route, DATA)


async def test_limit_of_messages_with_bdat(limited_exim: Peer, tls_files: TLSFiles) -> None:
    async with open_route(limited_exim, tls_files) as route:
        await check_all_arrive(route, BDAT)


@pytest.mark.parametrize("client_config", [DATA, BDAT], ids=["DATA", "BDAT"])
async def test_what_is_said_of_messages_beyond_a_limit(
    limited_exim: Peer, tls_files: TLSFiles, client_config: ClientConfig
) -> None:
    """Accepted messages are there, and refused ones are not."""
    async with open_route(limited_exim, tls_files) as route:
        letters, outcomes = await send(route, client_config)
        refused = {outcome.job[2] for outcome in outcomes if outcome.error and delivery(outcome) == "refused"}
        accepted = {outcome.job[2] for outcome in outcomes if outcome.error is None}
        for letter in letters:
            if letter.content in accepted:
                assert await route.arrived(letter) == [(letter.recipients[0], letter.content)]
        for letter in letters:
            if letter.content in refused:
                assert await route.arrived(letter, 0) == []


# ---- commands that share a packet with the end of a message are refused


async def test_refusal_of_what_follows_an_end(haraka: Peer, tls_files: TLSFiles) -> None:
    """Haraka since GHSA-rp4q-8m6x-c43c."""
    async with open_route(haraka, tls_files) as route:
        await check_all_arrive(route, DATA)


# ---- commands that share a packet with the end of a message are thrown away


class Forgetful:
    """A server that offers PIPELINING and reads each message with a buffer that it throws away at its end."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.thrown_away = 0

    async def serve(self, stream: trio.abc.Stream) -> None:
        buffer = b""
        await stream.send_all(b"220 forgetful.test ESMTP\r\n")
        while True:
            while b"\r\n" not in buffer:
                data = await stream.receive_some()
                if not data:
                    return
                buffer += data
            line, buffer = buffer.split(b"\r\n", 1)
            verb = line[:4].upper()
            if verb == b"DATA":
                await stream.send_all(b"354 go on\r\n")
                buffer = await self._read_message(stream, buffer)
                await stream.send_all(b"250 accepted\r\n")
            elif verb == b"QUIT":
                await stream.send_all(b"221 bye\r\n")
                return
            else:
                await stream.send_all(b"250-hello\r\n250 PIPELINING\r\n" if verb == b"EHLO" else b"250 fine\r\n")

    async def _read_message(self, stream: trio.abc.Stream, buffer: bytes) -> bytes:
        while b"\r\n.\r\n" not in buffer:
            data = await stream.receive_some()
            if not data:
                return b""
            buffer += data
        message, rest = buffer.split(b"\r\n.\r\n", 1)
        self.messages.append(message + b"\r\n")
        self.thrown_away += len(rest)
        return b""


async def through_forgetful(depth: int) -> tuple[Forgetful, list[Letter], list[Outcome[Any]]]:
    server = Forgetful()
    letters = [make_letter("here.test") for _ in range(COUNT)]
    with virtual_network():
        async with trio.open_nursery() as nursery:
            listeners = await trio.open_tcp_listeners(25, host="forgetful.test")
            nursery.start_soon(trio.serve_listeners, server.serve, listeners)
            async with (
                trio_smtp.open_pool(
                    "forgetful.test",
                    25,
                    tls="none",
                    local_hostname="client.test",
                    # Each connection that stalls costs its messages a try.
                    config=PoolConfig(pipeline_depth=depth, max_connections=2, connect_retries=30),
                ) as pool,
                pool.send_many([(each.sender, each.recipients, each.content) for each in letters]) as outcomes,
            ):
                done = [outcome async for outcome in outcomes]
            nursery.cancel_scope.cancel()
    return server, letters, done


async def test_what_waits_is_not_thrown_away(autojump_clock: MockClock) -> None:
    server, letters, outcomes = await through_forgetful(1)
    assert fates(outcomes) == {"accepted": COUNT}
    assert sorted(server.messages) == sorted(letter.content for letter in letters)
    assert server.thrown_away == 0


async def test_what_is_thrown_away_is_sent_again(autojump_clock: MockClock) -> None:
    """chasquid 1.11, and any server that puts a second buffer around its connection."""
    server, letters, outcomes = await through_forgetful(4)
    assert server.thrown_away
    assert fates(outcomes) == {"accepted": COUNT}
    assert sorted(server.messages) == sorted(letter.content for letter in letters)


async def test_a_server_that_throws_away_is_found_out(autojump_clock: MockClock) -> None:
    """One time limit may pass until it is noticed, but not one for every few messages."""
    start = trio.current_time()
    await through_forgetful(4)
    timeout = ClientConfig().command_timeout
    assert timeout is not None
    assert trio.current_time() - start < 2 * timeout
