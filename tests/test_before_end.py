"""`before_end=`: awaited right before the end of a message leaves; if it raises, the message is not sent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from email.message import EmailMessage
from functools import partial

import pytest
import trio
import trio.testing
from client_peer import Peer, client_and
from pool_server import Network, network, pool_of

import trio_smtp
from trio_smtp import ClientConfig, ContentLike, Delivery, PoolConfig, open_pool
from trio_smtp.testing import open_sink

Clock = trio.testing.MockClock
EARLY = ClientConfig(early_text=True)
SMALL = b"one\r\n"
LARGE = b"a line of seventy octets, as there are many in a message of some size..\r\n" * 10_000


class Taker:
    """A server that takes every message, on any number of connections.

    Attributes:
        peers: its ends of the connections.
        texts: of the messages whose end has come.
        rcpt: the reply to each RCPT.
    """

    def __init__(self, *offers: str, tls: bool = False) -> None:
        self.peers: list[Peer] = []
        self.texts: list[bytes] = []
        self.resets = 0
        self.answers = ["250 taken"]  # to the ends of messages, the last one to all that follow
        self._offers = offers
        self._tls = tls

    @property
    def has_end(self) -> bool:
        """The end of a message has come, on the latest connection, whether or not its text is complete."""
        heard = bytes(self.peers[-1].heard)
        return b" LAST\r\n" in heard or heard.endswith(b"\r\n.\r\n")

    async def __call__(self, peer: Peer, number: int = 1) -> None:
        self.peers.append(peer)
        with suppress(EOFError, trio.BrokenResourceError):
            if self._tls:
                await peer.greet("STARTTLS")
                await peer.hear("STARTTLS")
                await peer.say("220 go")
                await peer.start_tls()
                await peer.hear("EHLO…")
                await peer.offer(*self._offers)
            else:
                await peer.greet(*self._offers)
            text = b""
            while (line := await peer.line()) != "QUIT":
                verb, _, rest = line.partition(" ")
                if verb == "DATA":
                    await peer.say("354 go")
                    await self._take(peer, await peer.text())
                    continue
                if verb == "BDAT":
                    text += await peer.octets(int(rest.split(" ")[0]))
                    if rest.endswith("LAST"):
                        await self._take(peer, text)
                        text = b""
                        continue
                if verb == "RSET":
                    self.resets += 1
                    text = b""
                await peer.say("250 ok")
            await peer.say("221 bye")
            await peer.closed()

    async def _take(self, peer: Peer, text: bytes) -> None:
        self.texts.append(text)
        await peer.say(self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])


async def pieces(text: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(text), 1000):
        yield text[at : at + 1000]


def streamed(text: bytes) -> AsyncIterator[bytes]:
    return pieces(text)


def whole(text: bytes) -> bytes:
    return text


class Chosen(Exception):
    """What a test's `before_end` raises."""


FORMS = [
    pytest.param(
        offers, config, content, text, id=f"{'-'.join(offers) or 'plain'}-{name}-{content.__name__}-{len(text)}"
    )
    for offers in [("PIPELINING",), ("PIPELINING", "CHUNKING"), ()]
    for name, config in [("default", ClientConfig()), ("early", EARLY)]
    for content in (whole, streamed)
    for text in (SMALL, LARGE)
]
Form = Callable[[bytes], ContentLike]


@pytest.mark.parametrize(("offers", "config", "content", "text"), FORMS)
async def test_it_runs_once_before_the_end_leaves(
    offers: tuple[str, ...], config: ClientConfig, content: Form, text: bytes
) -> None:
    server = Taker(*offers)
    seen: list[bool] = []

    async def before_end() -> None:
        await trio.testing.wait_all_tasks_blocked()  # the server has read all that was sent
        seen.append(server.has_end)

    async with client_and(server, config=config) as client:
        result = await client.send("a@x.test", ["b@y.test"], content(text), before_end=before_end)
        assert result.reply.text == "taken"
        assert seen == [False]
        await client.send("a@x.test", ["b@y.test"], content(text))
    assert seen == [False]
    assert server.texts == [text, text]


@pytest.mark.parametrize(("offers", "config", "content", "text"), FORMS)
async def test_what_it_raises_is_raised_and_the_message_is_not_sent(
    offers: tuple[str, ...], config: ClientConfig, content: Form, text: bytes
) -> None:
    server = Taker(*offers)
    error = Chosen()

    async def before_end() -> None:
        await trio.lowlevel.checkpoint()
        raise error

    async with client_and(server, config=config) as client:
        with pytest.raises(Chosen) as caught:
            await client.send("a@x.test", ["b@y.test"], content(text), before_end=before_end)
        assert caught.value is error
        await trio.testing.wait_all_tasks_blocked()
        assert not server.has_end
        if "CHUNKING" in offers:  # the connection lives on, and nothing of the message is left there
            await client.send("a@x.test", ["b@y.test"], SMALL)
            assert server.texts == [SMALL]
        else:  # after 354 there is no other way to end it
            with pytest.raises(trio_smtp.ConnectionLostError, match="closed"):
                await client.noop()
            assert server.texts == []


async def test_a_message_that_it_gives_up_before_mail_does_not_count_towards_the_server_s_limit() -> None:
    server = Taker("PIPELINING", "CHUNKING", "LIMITS MAILMAX=1")

    async def before_end() -> None:
        raise Chosen

    async with client_and(server, config=EARLY) as client:
        with pytest.raises(Chosen):
            await client.send("a@x.test", ["b@y.test"], SMALL, before_end=before_end)
        await client.send("a@x.test", ["b@y.test"], SMALL)
    assert server.texts == [SMALL]


async def test_an_smtp_error_of_its_own_comes_out_as_it_was() -> None:
    error = trio_smtp.ConnectionLostError("the store is gone", delivery=None)

    async def before_end() -> None:
        raise error

    async with client_and(Taker("PIPELINING", "CHUNKING")) as client:
        with pytest.raises(trio_smtp.ConnectionLostError) as caught:
            await client.send("a@x.test", ["b@y.test"], SMALL, before_end=before_end)
        assert caught.value is error
        assert (error.delivery, error.stage, error.refused, str(error)) == (None, None, {}, "the store is gone")


@pytest.mark.parametrize("config", [ClientConfig(), EARLY])
@pytest.mark.parametrize("offers", [("PIPELINING",), ("PIPELINING", "CHUNKING")])
async def test_cancelled_in_it_nothing_ends_the_message(offers: tuple[str, ...], config: ClientConfig) -> None:
    server = Taker(*offers)
    async with client_and(server, config=config) as client:
        with trio.CancelScope() as scope:

            async def before_end() -> None:
                scope.cancel()
                await trio.sleep_forever()

            await client.send("a@x.test", ["b@y.test"], SMALL, before_end=before_end)
        assert scope.cancelled_caught
        await trio.testing.wait_all_tasks_blocked()
        assert not server.has_end
    assert server.texts == []


@pytest.mark.parametrize("raises", [False, True])
@pytest.mark.parametrize("offers", [("PIPELINING",), ("PIPELINING", "CHUNKING")])
async def test_it_runs_under_tls_too(offers: tuple[str, ...], raises: bool) -> None:
    server = Taker(*offers, tls=True)
    seen: list[bool] = []

    async def before_end() -> None:
        await trio.testing.wait_all_tasks_blocked()
        seen.append(server.has_end)
        if raises:
            raise Chosen

    async with client_and(server, tls="opportunistic") as client:
        with suppress(Chosen):
            await client.send("a@x.test", ["b@y.test"], SMALL, before_end=before_end)
            assert not raises
    assert seen == [False]
    assert server.texts == ([] if raises else [SMALL])


async def test_it_does_not_run_where_nobody_is_accepted() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING", "CHUNKING")
        await peer.hear("MAIL FROM:<a@x.test>", "RCPT TO:<b@y.test>")
        await peer.say("250 ok", "550 no")
        await peer.goodbye()

    async def before_end() -> None:
        raise AssertionError

    async with client_and(script) as client:
        with pytest.raises(trio_smtp.RecipientsRefusedError):
            await client.send("a@x.test", ["b@y.test"], SMALL, before_end=before_end)


@pytest.mark.parametrize("offers", [("PIPELINING",), ("PIPELINING", "CHUNKING")])
async def test_a_server_that_goes_meanwhile_gets_no_end(offers: tuple[str, ...]) -> None:
    server = Taker(*offers)

    async def before_end() -> None:
        await server.peers[0].say("421 4.3.2 going")

    async with client_and(server) as client:
        with pytest.raises(trio_smtp.ConnectionLostError) as caught:
            await client.send("a@x.test", ["b@y.test"], SMALL, before_end=before_end)
    assert caught.value.delivery is Delivery.NOT_SENT
    assert server.texts == []


async def test_an_idle_spell_in_it_is_no_reason_to_send_all_in_one_write(autojump_clock: Clock) -> None:
    server = Taker("PIPELINING", "CHUNKING")
    ran = 0

    async def before_end() -> None:
        nonlocal ran
        ran += 1
        await trio.sleep(30)  # the connection may be dead by now: MAIL goes first

    async with client_and(server, config=EARLY) as client:
        await client.send("a@x.test", ["b@y.test"], SMALL, before_end=before_end)
    assert ran == 1
    assert b"RCPT TO:<b@y.test>\r\nBDAT" in server.peers[0].heard
    assert server.texts == [SMALL]


async def test_a_list_that_is_split_is_announced_once() -> None:
    server = Taker("PIPELINING", "LIMITS RCPTMAX=1")
    ran = 0

    async def before_end() -> None:
        nonlocal ran
        ran += 1
        assert not server.texts

    async with client_and(server) as client:
        result = await client.send("a@x.test", ["b@y.test", "c@y.test"], SMALL, before_end=before_end)
    assert result.accepted == ["b@y.test", "c@y.test"]
    assert ran == 1


@pytest.mark.parametrize("wrong", ["mark", 1])
async def test_what_cannot_be_called_costs_nothing(wrong: object) -> None:
    server = Taker("PIPELINING")
    async with client_and(server) as client:
        with pytest.raises(TypeError, match="before_end is an async function"):
            await client.send("a@x.test", ["b@y.test"], SMALL, before_end=wrong)  # type: ignore[arg-type]
        await client.send("a@x.test", ["b@y.test"], SMALL)
    assert server.texts == [SMALL]


async def test_one_that_is_not_async_is_an_error_and_nothing_is_sent() -> None:
    server = Taker("PIPELINING")
    async with client_and(server) as client:
        with pytest.raises(TypeError, match="before_end must be async"):
            await client.send("a@x.test", ["b@y.test"], SMALL, before_end=lambda: None)  # type: ignore[arg-type, return-value]
    assert server.texts == []


async def test_send_message_takes_it() -> None:
    server = Taker("PIPELINING")
    message = EmailMessage()
    message["From"], message["To"] = "a@x.test", "b@y.test"
    ran: list[int] = []

    async def before_end() -> None:
        ran.append(len(server.texts))

    async with client_and(server) as client:
        await client.send_message(message, before_end=before_end)
    assert ran == [0]
    assert len(server.texts) == 1


# -- the pool


@pytest.fixture
async def net(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Network]:
    async with network(monkeypatch) as net:
        yield net


OFFERS = [("PIPELINING",), ("PIPELINING", "CHUNKING")]
CONFIGS = [ClientConfig(), EARLY]
at_depths = pytest.mark.parametrize("depth", [1, 4])
with_offers = pytest.mark.parametrize("offers", OFFERS)
with_configs = pytest.mark.parametrize("config", CONFIGS)


def one_connection(depth: int, **options: object) -> PoolConfig:
    return PoolConfig(pipeline_depth=depth, max_connections=1, **options)  # type: ignore[arg-type]


@at_depths
@with_offers
@with_configs
async def test_in_a_pool_it_runs_before_each_message_end(
    net: Network, autojump_clock: Clock, offers: tuple[str, ...], config: ClientConfig, depth: int
) -> None:
    net.script = server = Taker(*offers)
    texts = [b"%d\r\n" % i for i in range(8)]
    ran: list[bytes] = []

    async def before_end(text: bytes) -> None:
        await trio.testing.wait_all_tasks_blocked(0.001)
        assert text not in server.texts
        assert text not in ran
        ran.append(text)

    async with pool_of(one_connection(depth), client_config=config) as pool, trio.open_nursery() as nursery:
        for text in texts:
            nursery.start_soon(partial(pool.send, "a@x.test", ["b@y.test"], text, before_end=partial(before_end, text)))
    assert sorted(ran) == texts
    assert sorted(server.texts) == texts
    assert net.connections == 1


@at_depths
@with_offers
@with_configs
async def test_in_a_pool_what_it_raises_ends_its_own_message_alone(
    net: Network, autojump_clock: Clock, offers: tuple[str, ...], config: ClientConfig, depth: int
) -> None:
    net.script = server = Taker(*offers)
    wrong = [b"%d\r\n" % i for i in range(0, 12, 3)]
    right = [b"%d\r\n" % i for i in range(12) if i % 3]
    raised: list[Exception] = []
    caught: list[Exception] = []

    async def before_end(error: Exception | None) -> None:
        await trio.lowlevel.checkpoint()
        if error is not None:
            raised.append(error)
            raise error

    async def send(text: bytes) -> None:
        error = None
        if text in wrong:  # one that would be tried again, did the wire raise it
            error = trio_smtp.ConnectionLostError("mine", delivery=Delivery.NOT_SENT) if len(text) > 3 else Chosen()
        try:
            await pool.send("a@x.test", ["b@y.test"], text, before_end=partial(before_end, error))
        except (Chosen, trio_smtp.ConnectionLostError) as exc:
            caught.append(exc)

    async with pool_of(one_connection(depth), client_config=config) as pool, trio.open_nursery() as nursery:
        for text in sorted(wrong + right):
            nursery.start_soon(send, text)
            await trio.testing.wait_all_tasks_blocked()
        await pool.drain()
        assert pool.statistics().failed == len(wrong)
    assert sorted(server.texts) == sorted(right)
    assert sorted(map(id, raised)) == sorted(map(id, caught))
    assert len(raised) == len(wrong)


@at_depths
@with_offers
@with_configs
async def test_in_a_pool_an_error_like_the_wires_is_not_tried_again(
    net: Network, autojump_clock: Clock, offers: tuple[str, ...], config: ClientConfig, depth: int
) -> None:
    net.script = server = Taker(*offers)
    error = trio_smtp.ConnectionLostError("the store is gone", delivery=Delivery.NOT_SENT)
    ran = 0

    async def before_end() -> None:
        nonlocal ran
        ran += 1
        raise error

    async with pool_of(one_connection(depth), client_config=config) as pool:
        await pool.send("a@x.test", ["b@y.test"], SMALL)  # from now on the connection may be stale
        with pytest.raises(trio_smtp.ConnectionLostError) as caught:
            await pool.send("a@x.test", ["b@y.test"], SMALL, before_end=before_end)
    assert caught.value is error
    assert ran == 1
    assert server.texts == [SMALL]


@at_depths
@with_offers
@with_configs
async def test_in_a_pool_each_try_runs_it_once(
    net: Network, autojump_clock: Clock, offers: tuple[str, ...], config: ClientConfig, depth: int
) -> None:
    server = Taker(*offers)
    server.answers = ["451 later", "250 taken"]
    net.script = server
    ran: list[int] = []

    async def before_end() -> None:
        ran.append(len(server.texts))

    async with pool_of(one_connection(depth, retry_temporary=1), client_config=config) as pool:
        result = await pool.send("a@x.test", ["b@y.test"], SMALL, before_end=before_end)
    assert result.attempts == 2
    assert ran == [0, 1]


@at_depths
@with_offers
async def test_in_a_pool_a_try_that_fails_before_does_not_run_it(
    net: Network, autojump_clock: Clock, offers: tuple[str, ...], depth: int
) -> None:
    server = Taker(*offers)
    ran: list[int] = []

    async def script(peer: Peer, number: int) -> None:
        if number == 1:
            await peer.greet(*offers)
            await peer.hear("MAIL…")
            await peer.aclose()
        else:
            await server(peer, number)

    async def before_end() -> None:
        ran.append(net.connections)

    net.script = script
    async with pool_of(one_connection(depth)) as pool:
        result = await pool.send("a@x.test", ["b@y.test"], SMALL, before_end=before_end)
    assert result.attempts == 2
    assert ran == [2]


@at_depths
@with_offers
@with_configs
async def test_in_a_pool_a_caller_cancelled_in_it_goes_at_once_and_others_are_served(
    net: Network, autojump_clock: Clock, offers: tuple[str, ...], config: ClientConfig, depth: int
) -> None:
    net.script = server = Taker(*offers)
    others = [b"%d\r\n" % i for i in range(4)]

    async def forever() -> None:
        await trio.sleep_forever()

    async with pool_of(one_connection(depth), client_config=config) as pool:
        await pool.send("a@x.test", ["b@y.test"], b"first\r\n")
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                for text in others:
                    nursery.start_soon(pool.send, "a@x.test", ["b@y.test"], text)
                scope.deadline = trio.current_time() + 1
                await pool.send("a@x.test", ["b@y.test"], SMALL, before_end=forever)
            assert scope.cancelled_caught
            assert trio.current_time() < scope.deadline + 1
    assert sorted(server.texts) == sorted([b"first\r\n", *others])


@at_depths
@with_configs
async def test_in_a_pool_one_that_does_not_heed_its_cancellation_harms_no_other(
    config: ClientConfig, depth: int
) -> None:
    others = [b"%d\r\n" % i for i in range(4)]
    entered, go_on = trio.Event(), trio.Event()
    results: list[trio_smtp.SendResult] = []

    async def shielded() -> None:
        entered.set()
        with trio.CancelScope(shield=True):
            await go_on.wait()

    async with (
        open_sink() as sink,
        open_pool(
            sink.host, sink.port, config=one_connection(depth), client_config=config, **sink.client_options
        ) as pool,
    ):

        async def send(text: bytes, before_end: Callable[[], Awaitable[object]] | None) -> None:
            results.append(await pool.send("a@x.test", ["b@y.test"], text, before_end=before_end))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, b"first\r\n", shielded)
            await entered.wait()
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await trio.testing.wait_all_tasks_blocked()
                go_on.set()  # up to the end nothing waits any more
        assert len(results) == 1
        async with trio.open_nursery() as nursery:
            for text, before_end in zip(others, [None, trio.lowlevel.checkpoint] * 2, strict=True):
                nursery.start_soon(send, text, before_end)
        assert pool.statistics().opened == 1
    assert len(results) == len(sink.messages) == 5


@at_depths
@with_offers
@with_configs
async def test_in_a_pool_errors_that_come_with_its_cancellation_are_its_own(
    net: Network, autojump_clock: Clock, offers: tuple[str, ...], config: ClientConfig, depth: int
) -> None:
    net.script = server = Taker(*offers)

    async def before_end() -> None:
        async with trio.open_nursery() as nursery:  # a group of the error and of a cancellation comes out of it
            nursery.start_soon(trio.sleep_forever)
            try:
                await trio.sleep_forever()
            finally:
                raise Chosen

    async with pool_of(one_connection(depth), client_config=config) as pool:
        for text in (b"first\r\n", b"second\r\n"):
            with trio.move_on_after(1) as scope:
                await pool.send("a@x.test", ["b@y.test"], SMALL, before_end=before_end)
            assert scope.cancelled_caught
            await pool.send("a@x.test", ["b@y.test"], text)
    assert server.texts == [b"first\r\n", b"second\r\n"]


@at_depths
@with_offers
async def test_a_pool_that_is_cancelled_meanwhile_sends_no_end(
    net: Network, autojump_clock: Clock, offers: tuple[str, ...], depth: int
) -> None:
    net.script = server = Taker(*offers)

    async def forever() -> None:
        await trio.sleep_forever()

    with trio.move_on_after(5) as scope:
        async with pool_of(one_connection(depth)) as pool:
            await pool.send("a@x.test", ["b@y.test"], b"first\r\n")
            await pool.send("a@x.test", ["b@y.test"], SMALL, before_end=forever)
    assert scope.cancelled_caught
    assert server.texts == [b"first\r\n"]


async def test_in_a_pool_the_next_envelope_still_rides_behind_the_end(net: Network, autojump_clock: Clock) -> None:
    ran: list[int] = []
    texts: list[bytes] = []

    async def script(peer: Peer, number: int) -> None:
        await peer.greet("PIPELINING")
        await net.message(peer)
        texts.append(await peer.take_message("MAIL FROM:<a@x.test>"))
        await peer.hear("MAIL FROM:<a@x.test>", "RCPT TO:<b@y.test>", "DATA")  # before the reply
        await peer.say("250 one", "250 ok", "250 ok", "354 go")
        texts.append(await peer.text())
        await peer.say("250 two")
        await peer.goodbye()

    async def before_end(i: int) -> None:
        await trio.testing.wait_all_tasks_blocked(0.001)
        assert len(texts) == i
        ran.append(i)

    net.script = script
    net.delay = 0.5
    async with pool_of(one_connection(4)) as pool, trio.open_nursery() as nursery:
        nursery.start_soon(pool.send, "a@x.test", ["b@y.test"], SMALL)
        for i in range(2):
            await trio.testing.wait_all_tasks_blocked(0.001)
            nursery.start_soon(
                partial(pool.send, "a@x.test", ["b@y.test"], b"%d\r\n" % i, before_end=partial(before_end, i))
            )
    assert ran == [0, 1]
    assert texts == [b"0\r\n", b"1\r\n"]


async def test_a_split_over_connections_is_one_try(net: Network, autojump_clock: Clock) -> None:
    net.script = server = Taker("PIPELINING", "LIMITS RCPTMAX=1 MAILMAX=1")
    ran = 0

    async def before_end() -> None:
        nonlocal ran
        ran += 1

    async with pool_of(one_connection(1)) as pool:
        result = await pool.send("a@x.test", ["b@y.test", "c@y.test"], SMALL, before_end=before_end)
    assert result.attempts == 1
    assert net.connections == 2
    assert len(server.texts) == 2
    assert ran == 1
