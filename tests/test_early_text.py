"""When a message's text may leave: after a recipient of its transaction was accepted, unless early_text allows more."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import pytest
import trio
import trio.lowlevel
import trio.testing
from client_peer import Peer, client_and
from pool_server import Network, network, pool_of

import trio_smtp
from trio_smtp import ClientConfig, PoolConfig

Clock = trio.testing.MockClock
SMUGGLED = b"MAIL FROM:<evil@x.test>\r\nRCPT TO:<victim@y.test>\r\nBDAT 4 LAST\r\nhi\r\n"
EARLY = ClientConfig(early_text=True)
DEEP = PoolConfig(pipeline_depth=4, max_connections=1, max_messages=None, connect_retries=0)


@pytest.fixture
async def net(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Network]:
    async with network(monkeypatch) as net:
        yield net


class DoesNotSwallow:
    """A server that answers BDAT without recipients with 502 and takes the chunk for commands (go-smtp issue 315).

    Attributes:
        senders: of the messages that it has accepted.
    """

    def __init__(self, *, sender: str = "250 ok") -> None:
        self.senders: list[str] = []
        self._sender = sender

    async def __call__(self, peer: Peer, number: int = 1) -> None:
        with suppress(EOFError, trio.BrokenResourceError):
            await peer.greet("PIPELINING", "CHUNKING")
            sender, recipients = "", 0
            while (line := await peer.line()) != "QUIT":
                answer = "250 ok"
                if line.startswith("MAIL"):
                    sender, recipients = line, 0
                    answer = self._sender if "bounce" in line else answer
                elif line.startswith("RCPT"):
                    is_taken = "nobody" not in line and not (self._sender.startswith("5") and "bounce" in sender)
                    recipients += is_taken
                    answer = answer if is_taken else "550 no such user"
                elif line.startswith("BDAT") and not recipients:
                    answer = "502 missing RCPT TO command"
                elif line.startswith("BDAT"):
                    await peer.octets(int(line.split(" ")[1]))
                    if line.endswith("LAST"):
                        self.senders.append(sender)
                        recipients = 0
                await peer.say(answer)
            await peer.say("221 bye")


async def pieces() -> AsyncIterator[bytes]:
    yield SMUGGLED


async def send_whole(client: trio_smtp.Client) -> None:
    await client.send("bounce@x.test", ["nobody@y.test"], SMUGGLED)


async def send_stream(client: trio_smtp.Client) -> None:
    await client.send("bounce@x.test", ["nobody@y.test"], pieces())


async def send_pieces(client: trio_smtp.Client) -> None:
    async with client.transaction("bounce@x.test", ["nobody@y.test"]) as message:
        await message.send_all(SMUGGLED)


REFUSED = (trio_smtp.RecipientsRefusedError, trio_smtp.SenderRefusedError)


@pytest.mark.parametrize("sender", ["250 ok", "550 no"])
@pytest.mark.parametrize("form", [send_whole, send_stream, send_pieces])
async def test_text_of_a_refused_message_is_never_taken_for_commands(
    form: Callable[[trio_smtp.Client], Awaitable[None]], sender: str
) -> None:
    server = DoesNotSwallow(sender=sender)
    async with client_and(server) as client:
        with pytest.raises(REFUSED):
            await form(client)
        await client.send("a@x.test", ["b@y.test"], b"hi\r\n")
    assert server.senders == ["MAIL FROM:<a@x.test>"]


@pytest.mark.parametrize("sender", ["250 ok", "550 no"])
@pytest.mark.parametrize("depth", [1, 4])
async def test_text_of_a_refused_message_in_a_pool_is_never_taken_for_commands(
    net: Network, autojump_clock: Clock, depth: int, sender: str
) -> None:
    net.script = server = DoesNotSwallow(sender=sender)
    refused = 0

    async def send(i: int) -> None:
        nonlocal refused
        try:
            if i % 2:
                await pool.send("bounce@x.test", ["nobody@y.test"], SMUGGLED)
            else:
                await pool.send("a@x.test", ["b@y.test"], b"hi\r\n")
        except REFUSED:
            refused += 1

    config = PoolConfig(pipeline_depth=depth, max_connections=1, connect_retries=0)
    async with pool_of(config) as pool, trio.open_nursery() as nursery:
        for i in range(9):
            nursery.start_soon(send, i)
    assert server.senders == ["MAIL FROM:<a@x.test>"] * 5
    assert refused == 4
    assert net.connections == 1


async def test_early_text_sends_to_such_a_server_what_it_takes_for_commands() -> None:
    """Why early_text is off by default."""
    server = DoesNotSwallow()
    async with client_and(server, config=EARLY) as client:
        with pytest.raises(trio_smtp.SMTPError):
            await client.send("a@x.test", ["nobody@y.test"], SMUGGLED)
    assert server.senders == ["MAIL FROM:<evil@x.test>"]


# -- round trips


async def far_away(peer: Peer, number: int = 1, *, offers: tuple[str, ...]) -> None:
    """A server a second away: it answers all that has come, one second later."""
    await peer.greet(*offers)
    with suppress(EOFError, trio.BrokenResourceError):
        text = False
        while True:
            line = await peer.line()
            answers: list[str] = []
            await trio.sleep(1)
            while True:
                if text:
                    if line == ".":
                        text = False
                        answers.append("250 taken")
                elif line.startswith("BDAT"):
                    await peer.octets(int(line.split(" ")[1]))
                    answers.append("250 taken")
                else:
                    text = line == "DATA"
                    answers.append("354 go" if text else "221 bye" if line == "QUIT" else "250 ok")
                with trio.move_on_after(0) as scope:
                    line = await peer.line()
                if scope.cancelled_caught:
                    break
            await peer.say(*answers)


@pytest.mark.parametrize(
    ("offers", "config", "trips"),
    [
        (("PIPELINING",), None, 2),
        (("PIPELINING", "CHUNKING"), None, 2),
        (("PIPELINING", "CHUNKING"), EARLY, 1),
        (("CHUNKING",), None, 3),
        (("CHUNKING",), EARLY, 3),
        ((), EARLY, 4),
    ],
)
async def test_round_trips_of_a_message(
    autojump_clock: Clock, offers: tuple[str, ...], config: ClientConfig | None, trips: int
) -> None:
    async with client_and(lambda peer: far_away(peer, offers=offers), config=config) as client:
        started = trio.current_time()
        for _ in range(4):
            await client.send("a@x.test", ["b@y.test"], b"hi\r\n")
        assert trio.current_time() - started <= 4 * trips + (config is EARLY and trips == 1)


@pytest.mark.parametrize("offers", [("PIPELINING",), ("PIPELINING", "CHUNKING")])
async def test_round_trips_with_several_messages_in_flight(
    net: Network, autojump_clock: Clock, offers: tuple[str, ...]
) -> None:
    net.script = lambda peer, number: far_away(peer, number, offers=offers)
    async with pool_of(DEEP) as pool:
        await pool.send("a@x.test", ["b@y.test"], b"hi\r\n")
        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(pool.send, "a@x.test", ["b@y.test"], b"hi\r\n")
        assert trio.current_time() - started <= 8 + 1  # the last end is not followed by an envelope


@pytest.mark.parametrize("value", [None, 1, "yes"])
def test_early_text_is_a_flag(value: object) -> None:
    with pytest.raises(TypeError, match="early_text"):
        ClientConfig(early_text=value)  # type: ignore[arg-type]
