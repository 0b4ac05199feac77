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
    failures = [record for record in caplog.records if "trace function failed" in record.getMessage()]
    assert len(failures) == 1
    assert failures[0].exc_info is not None
