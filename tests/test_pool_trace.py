"""What a trace function is told, and what becomes of one that raises."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import get_args

import pytest
import trio
import trio.testing
from client_peer import Peer
from pool_server import Network, network, pool_of

import trio_smtp
from trio_smtp import Delivery, PoolConfig, TraceEvent
from trio_smtp._pool.trace import TraceName, Tracer

Clock = trio.testing.MockClock
NAMES = [name for name in get_args(TraceName) if name not in ("tls", "auth", "alone")]


@pytest.fixture
async def net(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Network]:
    async with network(monkeypatch) as net:
        yield net


async def test_the_seconds_are_those_since_the_start(autojump_clock: Clock) -> None:
    events: list[TraceEvent] = []
    tracer = Tracer(events.append)
    started = trio.current_time()
    await trio.sleep(3)
    tracer.tell("connect", started, 7, detail="mail.test")
    assert events == [TraceEvent(name="connect", seconds=3, connection=7, detail="mail.test")]
    assert tracer.is_on


def test_an_event_may_take_no_time_or_a_known_time() -> None:
    events: list[TraceEvent] = []
    tracer = Tracer(events.append)
    tracer.note("alone", connection=2, detail="mail.test")
    tracer.note("retry", 1.5)
    assert [(event.name, event.seconds, event.connection) for event in events] == [("alone", 0, 2), ("retry", 1.5, 0)]


async def test_without_a_function_nothing_is_made() -> None:
    tracer = Tracer(None)
    tracer.tell("send", 0)
    tracer.note("retry", 1.0)
    assert not tracer.is_on


@pytest.mark.parametrize("depth", [1, 4])
@pytest.mark.parametrize("name", NAMES)
async def test_a_function_that_raises_changes_no_messages_fate(
    net: Network, autojump_clock: Clock, caplog: pytest.LogCaptureFixture, name: str, depth: int
) -> None:
    told: list[str] = []

    def trace(event: TraceEvent) -> None:
        told.append(event.name)
        if event.name == name:
            raise trio_smtp.ConnectionLostError("of the trace function", delivery=Delivery.NOT_SENT)

    async def script(peer: Peer, number: int) -> None:
        await peer.greet(*net.offers)
        if number == 1:  # so that there is a "retry"
            await peer.hear("MAIL…")
            await peer.aclose()
            return
        while await net.message(peer, "250 ok" if len(net.accepted) < 3 else "550 no"):
            pass

    results: list[trio_smtp.SendResult] = []
    refused: list[trio_smtp.MessageRefusedError] = []

    async def send(i: int) -> None:
        try:
            results.append(await pool.send("a@x.test", ["b@y.test"], b"%d\r\n" % i))
        except trio_smtp.MessageRefusedError as exc:
            refused.append(exc)

    net.script = script
    net.delay = 0.1
    config = PoolConfig(max_connections=1, pipeline_depth=depth, trace=trace)
    async with pool_of(config) as pool:
        async with trio.open_nursery() as nursery:
            for i in range(5):
                nursery.start_soon(send, i)
        assert pool.statistics().sent == len(results)
    assert name in told
    assert len(net.accepted) == len(results) == 3
    assert [error.delivery for error in refused] == [Delivery.REFUSED] * 2
    failures = [record for record in caplog.records if "pool: the trace function failed" in record.getMessage()]
    assert len(failures) == 1
    assert failures[0].exc_info is not None


async def test_what_became_of_each_try_and_of_each_message(net: Network, autojump_clock: Clock) -> None:
    events: list[TraceEvent] = []

    async def script(peer: Peer, number: int) -> None:
        await peer.greet(*net.offers)
        if number == 1:
            await peer.hear("MAIL…", "RCPT…", "DATA")
            await peer.aclose()
            return
        for answer in ("250 ok", "450 4.2.0 later", "550 no"):
            if not await net.message(peer, answer):
                return
        await peer.hear("MAIL…", "RCPT…", "DATA")
        await peer.say("250 ok", "250 ok", "354 go")
        await peer.text()
        await peer.aclose()

    net.script = script
    async with pool_of(PoolConfig(max_connections=1, trace=events.append)) as pool:
        await pool.send("a@x.test", ["b@y.test"], b"1")
        for _ in range(3):
            with pytest.raises(trio_smtp.SMTPError):
                await pool.send("a@x.test", ["b@y.test"], b"1")
    fates = [(event.name, event.message, event.delivery, event.code) for event in events if event.message]
    assert fates == [
        ("send", 1, "not_sent", 0),
        ("retry", 1, None, 0),
        ("send", 1, None, 250),
        ("message", 1, None, 250),
        ("send", 2, "refused", 450),
        ("message", 2, "refused", 450),
        ("send", 3, "refused", 550),
        ("message", 3, "refused", 550),
        ("send", 4, "unknown", 0),
        ("message", 4, "unknown", 0),
    ]
    errors = [type(event.error) for event in events if event.name == "message"]
    assert errors == [type(None)] * 3 + [trio_smtp.ConnectionLostError]
    assert {event.pool for event in events} == {pool}


async def test_a_message_whose_caller_is_cancelled_is_told_of(net: Network, autojump_clock: Clock) -> None:
    events: list[TraceEvent] = []

    async def script(peer: Peer, number: int) -> None:
        await peer.greet(*net.offers)
        await peer.drain()

    net.script = script
    async with pool_of(PoolConfig(trace=events.append)) as pool:
        with trio.move_on_after(5):
            await pool.send("a@x.test", ["b@y.test"], b"1")
    [event] = [event for event in events if event.name == "message"]
    assert event.seconds == pytest.approx(5)
    assert event.delivery == "not_sent"
    assert isinstance(event.error, trio.Cancelled)


@pytest.mark.parametrize("depth", [1, 4])
async def test_the_clients_own_events_of_a_pools_messages(net: Network, autojump_clock: Clock, depth: int) -> None:
    events: list[trio_smtp.ClientEvent] = []
    client_config = trio_smtp.ClientConfig(trace=events.append)
    config = PoolConfig(max_connections=1, pipeline_depth=depth)
    async with pool_of(config, client_config=client_config) as pool, trio.open_nursery() as nursery:
        for i in range(5):
            nursery.start_soon(pool.send, "a@x.test", ["b@y.test"], b"%d\r\n" % i)
    messages = [(event.code, event.octets, event.error) for event in events if event.name == "message"]
    assert messages == [(250, 3, None)] * 5
    assert [event.detail for event in events if event.name == "close"] == ["quit"]
    assert [event.octets for event in events if event.name == "close"] == [15]


async def test_a_message_in_steps(net: Network, autojump_clock: Clock) -> None:
    async def script(peer: Peer, number: int) -> None:
        await peer.greet(*net.offers)
        while await net.message(peer, "250 ok"):
            pass

    async def text() -> AsyncIterator[bytes]:
        yield b"text\r\n"

    events: list[TraceEvent] = []
    below: list[trio_smtp.ClientEvent] = []
    net.script = script
    client_config = trio_smtp.ClientConfig(trace=below.append)
    async with pool_of(PoolConfig(trace=events.append), client_config=client_config) as pool:
        await pool.send("a@x.test", ["b@y.test"], b"text\r\n")
        message = await pool._begin("a@x.test", {})
        await message.rcpt("b@y.test", {})
        await message.send(text())
        message.close()
        abandoned = await pool._begin("a@x.test", {})
        abandoned.close()
    fates = [(event.name, event.message, event.delivery, event.code) for event in events if event.message]
    assert fates == [
        ("send", 1, None, 250),
        ("message", 1, None, 250),
        ("send", 2, None, 250),
        ("message", 2, None, 250),
    ]
    told = [(event.code, event.octets, event.detail) for event in below if event.name == "message"]
    assert told == [(250, 6, "ok"), (250, 6, "ok"), (0, 0, "given up")]
