"""The pool and what peers do to it: bad addresses, bad servers, servers that stop halfway; and watching it all."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from dataclasses import fields
from functools import partial

import pytest
import trio
import trio.testing
from client_peer import Peer
from pool_server import Network, network, pool_of

import trio_smtp
from trio_smtp import ClientConfig, Delivery, PoolConfig

Clock = trio.testing.MockClock


@pytest.fixture
async def net(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Network]:
    async with network(monkeypatch) as net:
        yield net


async def send(pool: trio_smtp.Pool, text: bytes = b"x\r\n") -> trio_smtp.SendResult:
    return await pool.send("a@x.test", ["b@y.test"], text)


# -- one bad address never costs a connection


@pytest.mark.parametrize("depth", [1, 4])
@pytest.mark.parametrize("offers", [(), ("PIPELINING",), ("PIPELINING", "CHUNKING")])
async def test_bad_address_never_costs_a_connection(
    net: Network, autojump_clock: Clock, offers: tuple[str, ...], depth: int
) -> None:
    async def script(peer: Peer, number: int) -> None:
        await peer.greet(*offers, "8BITMIME")
        is_open = rcpt = False
        while (line := await peer.line()) != "QUIT":
            verb, _, rest = line.partition(" ")
            answer = "250 ok"
            if verb == "RSET":
                is_open = rcpt = False
            elif verb == "MAIL":
                is_open, rcpt = "bad" not in rest, False
                answer = answer if is_open else "550 5.7.1 not from you"
            elif verb == "RCPT":
                code = rest.partition("<")[2][:3]
                answer = f"{code} no" if code.isdigit() else answer if is_open else "503 5.5.1 MAIL first"
                rcpt = rcpt or answer.startswith("250")
            else:
                if verb == "DATA":
                    await peer.say("354 go" if rcpt else "554 5.5.1 nobody")
                    if not rcpt:
                        continue
                    text = await peer.text()
                else:
                    text = await peer.octets(int(rest.split(" ")[0]))
                answer = "554 5.6.0 spam" if b"spam" in text else "250 taken" if rcpt else "503 5.5.1 nobody"
                is_open = rcpt = False
            await peer.say(answer)
        await peer.say("221 bye")

    async def one(i: int) -> None:
        recipients = [["550@y.test"], ["450@y.test", "552@y.test"], ["b@y.test", "551@y.test"], ["b@y.test"]][i % 4]
        try:
            await pool.send("bad@x.test" if i % 5 == 4 else "a@x.test", recipients, b"spam" if i % 3 else b"ham")
        except (trio_smtp.SenderRefusedError, trio_smtp.RecipientsRefusedError, trio_smtp.MessageRefusedError):
            return
        good.append(i)

    net.script = script
    good: list[int] = []
    async with pool_of(PoolConfig(max_connections=2, pipeline_depth=depth)) as pool:
        async with trio.open_nursery() as nursery:
            for i in range(60):
                nursery.start_soon(one, i)
        assert sorted(good) == [i for i in range(60) if i % 4 > 1 and i % 5 != 4 and i % 3 == 0]
        assert (pool.statistics().connections, pool.statistics().limit) == (2, 2)
    assert net.connections == 2


# -- one bad server never spins


async def _closes(peer: Peer) -> None:
    pass


async def _refuses(peer: Peer) -> None:
    await peer.say("554 5.3.2 no")


async def _is_full(peer: Peer) -> None:
    await peer.say("421 4.3.2 too many")


async def _talks_nonsense(peer: Peer) -> None:
    await peer.say("HTTP/1.1 400 Bad Request")


async def _refuses_hello(peer: Peer) -> None:
    await peer.say("220 hi")
    await peer.hear("EHLO me.test")
    await peer.say("421 4.3.2 busy")


async def _closes_after_hello(peer: Peer) -> None:
    await peer.greet("PIPELINING")


async def _closes_at_mail(peer: Peer) -> None:
    await peer.greet("PIPELINING")
    await peer.line()


async def _goes_at_mail(peer: Peer) -> None:
    await peer.greet("PIPELINING")
    await peer.line()
    await peer.say("421 4.3.2 going down")


BAD_SERVERS = [
    _closes,
    _refuses,
    _is_full,
    _talks_nonsense,
    _refuses_hello,
    _closes_after_hello,
    _closes_at_mail,
    _goes_at_mail,
]


@pytest.mark.parametrize("min_idle", [0, 2])
@pytest.mark.parametrize("bad", BAD_SERVERS)
async def test_bad_server_never_spins(net: Network, autojump_clock: Clock, bad: object, min_idle: int) -> None:
    async def script(peer: Peer, number: int) -> None:
        try:
            await bad(peer)  # type: ignore[operator]
        except EOFError:
            pass

    async def one() -> None:
        with pytest.raises(trio_smtp.SMTPError) as caught:
            await send(pool)
        assert caught.value.delivery in (Delivery.NOT_SENT, Delivery.REFUSED)

    net.script = script
    config = PoolConfig(min_idle=min_idle, connect_retries=2)
    async with pool_of(config) as pool:
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(one)
        assert net.connections <= 10 * (1 + 2) + 10 * min_idle
        before, started = net.connections, trio.current_time()
        await trio.sleep(3600)
        assert trio.current_time() - started == 3600
        assert net.connections - before <= (80 * min_idle if min_idle else 0)


async def test_connections_kept_for_nobody_that_the_server_ends_after_a_while_are_opened_again(
    net: Network, autojump_clock: Clock
) -> None:
    async def script(peer: Peer, number: int) -> None:
        await peer.greet("PIPELINING")
        with trio.move_on_after(300) as scope:
            await peer.drain()
        if scope.cancelled_caught:
            await peer.say("421 4.4.2 idle too long")

    net.script = script
    async with pool_of(PoolConfig(min_idle=1)) as pool:
        for _ in range(20):
            await trio.sleep(300)
            await trio.sleep(5)
            assert pool.statistics().idle == 1
    assert net.connections <= 25


# -- tries


async def test_next_try_is_on_a_new_connection_where_there_may_be_one(net: Network, autojump_clock: Clock) -> None:
    async def script(peer: Peer, number: int) -> None:
        if number == 3:
            return await net.sink(peer, number)
        await peer.greet("PIPELINING")
        await net.message(peer)
        if await peer.line() == "QUIT":
            return await peer.say("221 bye")
        await peer.say("250 ok")
        return await peer.aclose()

    net.script = script
    net.delay = 1
    async with pool_of(max_connections=3) as pool:
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(send, pool)
        assert pool.statistics().idle == 2
        assert (await send(pool)).attempts == 2
    assert net.connections == 3


# -- the end is bounded


STOPS = ["greeting", "hello", "mail", "data", "end", "quit"]


@pytest.mark.parametrize("waits", ["leaving", "draining"])
@pytest.mark.parametrize("stop", STOPS)
async def test_leaving_and_draining_are_bounded_and_nothing_is_lost_in_silence(
    net: Network, autojump_clock: Clock, stop: str, waits: str
) -> None:
    async def script(peer: Peer, number: int) -> None:
        for step in ("greeting", "hello", "mail", "data", "end"):
            if step == stop:
                break
            if step == "greeting":
                await peer.say("220 hi")
            elif step == "hello":
                await peer.hear("EHLO me.test")
                await peer.offer("PIPELINING")
            elif step == "mail":
                await peer.hear("MAIL FROM:<a@x.test>", "RCPT TO:<b@y.test>", "DATA")
                await peer.say("250 ok", "250 ok")
            elif step == "data":
                await peer.say("354 go")
            else:
                await peer.text()
                await peer.say("250 taken")
        await peer.drain()

    async def one(opened: list[trio_smtp.Pool]) -> None:
        try:
            outcomes.append(await send(opened[0]))
        except trio_smtp.SMTPError as exc:
            outcomes.append(exc.delivery)

    net.script = script
    outcomes: list[object] = []
    limits = {
        field.name: 10
        for field in fields(ClientConfig)
        if field.name.endswith("_timeout") and field.name != "quit_timeout"
    }
    started = ended = 0.0
    async with trio.open_nursery() as nursery:
        async with pool_of(client_config=ClientConfig(**limits), max_connections=1) as pool:  # type: ignore[arg-type]
            opened = [pool]
            for _ in range(3):
                nursery.start_soon(one, opened)
            await trio.sleep(1)
            started = trio.current_time()
            if waits == "draining":
                await pool.drain()
                ended = trio.current_time()
        ended = ended or trio.current_time()
    assert len(outcomes) == 3
    tries = 4 if waits == "draining" else 1
    assert ended - started <= 3 * (tries * 10 + 7 + 5)
    if waits == "leaving":
        assert ended - started <= 10 + 5
    if stop == "end":
        assert Delivery.UNKNOWN in outcomes
    elif stop != "quit":
        assert outcomes == [Delivery.NOT_SENT] * 3


# -- watching


def calls_of(work: object) -> int:
    """Functions that are called, in Python or in C."""
    count = 0

    def profile(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    previous = sys.getprofile()
    sys.setprofile(profile)
    try:
        work()  # type: ignore[operator]
    finally:
        sys.setprofile(previous)
    return count - 1  # setprofile itself


async def test_statistics_and_repr_cost_the_same_however_large_the_pool(net: Network, autojump_clock: Clock) -> None:
    costs: list[tuple[int, int]] = []
    for connections in (1, 40):
        net.delay = 1
        async with pool_of(max_connections=connections) as pool:
            async with trio.open_nursery() as nursery:
                for _ in range(connections):
                    nursery.start_soon(send, pool)
            costs.append((calls_of(pool.statistics), calls_of(pool.__repr__)))
    assert costs[0] == costs[1]
    assert max(costs[0]) <= 50


async def test_a_trace_costs_two_events_for_a_message_and_nothing_where_nobody_looks(
    net: Network, autojump_clock: Clock
) -> None:
    events: list[trio_smtp.TraceEvent] = []
    costs: list[int] = []
    for trace in (None, events.append):
        async with pool_of(PoolConfig(trace=trace, max_messages=None)) as pool:
            await send(pool)
            events.clear()
            for _ in range(50):
                await send(pool)
            assert [event.name for event in events] == ["send", "message"] * (50 if trace is not None else 0)
            costs.append(calls_of(lambda pool=pool: pool._tracer.tell("send", 0.0, 1)))
    assert costs[0] <= 2
    assert costs[1] <= 15


async def test_repr_tells_the_state(net: Network, autojump_clock: Clock) -> None:
    net.delay = 3
    async with trio.open_nursery() as nursery:
        async with pool_of(max_connections=1, host=["one.test", "two.test"]) as pool:
            begin = partial(send, pool)
            nursery.start_soon(begin)
            await trio.sleep(1)
            assert repr(pool) == (
                "<trio_smtp.Pool one.test, two.test: 1 of 1 connections (0 idle), 1 in flight, 0 waiting>"
            )
        closed = "<trio_smtp.Pool one.test, two.test: 0 of 1 connections (0 idle), 0 in flight, 0 waiting, closed>"
        await trio.lowlevel.checkpoint()
        assert repr(pool) == closed
