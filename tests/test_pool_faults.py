"""Fail anywhere, cancel anywhere: each scenario once for every octet and once for every turn of the scheduler.

What the server has accepted is counted by the server. After each run: the call returned or raised once, its error tells
the truth about delivery, nothing was accepted twice, nothing is left open, and the next message gets through.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Literal

import pytest
import trio
import trio.testing
from pool_server import Network, network, pool_of

import trio_smtp
from trio_smtp import Delivery, PoolConfig

Fault = Literal["cut", "reset", "stall"]
TEXT = b"first\r\n"
OFFERS = {"lock-step": ("SIZE",), "pipelining": ("PIPELINING",), "chunking": ("PIPELINING", "CHUNKING")}


class Flaw(trio.abc.Stream):
    """The client's end of a stream that fails once so many octets have passed in one direction."""

    def __init__(self, stream: trio.abc.Stream, *, sends: float, receives: float, fault: Fault) -> None:
        self._stream = stream
        self._left = {"send": sends, "receive": receives}
        self._fault = fault
        self._failed = False

    def mend(self) -> None:
        """Let everything pass, if it has not failed yet."""
        self._left = {"send": float("inf"), "receive": float("inf")}

    async def _fail(self) -> None:
        if not self._failed:
            self._failed = True
            if self._fault != "stall":
                await self._stream.aclose()
        if self._fault == "stall":
            await trio.sleep_forever()
        if self._fault == "reset":
            raise trio.BrokenResourceError

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        room = self._left["send"]
        if len(data) > room or self._failed:
            if room and not self._failed:
                await self._stream.send_all(data[: int(room)])
            await self._fail()
            raise trio.BrokenResourceError
        self._left["send"] = room - len(data)
        await self._stream.send_all(data)

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        room = self._left["receive"]
        if self._failed or not room:
            await self._fail()
            return b""
        data = await self._stream.receive_some(None if room == float("inf") else int(room))
        self._left["receive"] = room - len(data)
        return data

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


@pytest.fixture
async def net(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Network]:
    async with network(monkeypatch) as net:
        yield net


class Run:
    """One run of a scenario over a network of which the n-th connection has a flaw."""

    def __init__(self, net: Network, monkeypatch: pytest.MonkeyPatch, offers: str, config: PoolConfig) -> None:
        self.net = net
        self.config = config
        self.flaw: dict[str, Any] | None = None
        self.flawed: Flaw | None = None
        net.offers = OFFERS[offers]

        async def connect(host: str, port: int, **options: Any) -> trio.abc.Stream:
            stream = await net.connect(host, port, **options)
            if self.flaw is None:
                return stream
            self.flawed, self.flaw = Flaw(stream, **self.flaw), None
            return self.flawed

        monkeypatch.setattr(trio, "open_tcp_stream", connect)

    async def once(self, *, warm: bool, turns: int | None = None) -> bool:
        """Send a message through a new pool, with the flaw or a cancellation; whether that was met."""
        net = self.net
        net.accepted.clear()
        cancelled = False
        async with pool_of(self.config, max_connections=1) as pool:
            if warm:
                try:
                    await pool.send("a@x.test", ["b@y.test"], b"warm\r\n")
                except trio_smtp.SMTPError:
                    pass  # the flaw has met this message: that is the case without it
                net.accepted.clear()
            outcome: object = None
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    if turns is not None:
                        nursery.start_soon(cancel_after, turns, scope)
                    try:
                        outcome = await pool.send("a@x.test", ["b@y.test"], TEXT)
                    except trio_smtp.SMTPError as exc:
                        outcome = exc
                    nursery.cancel_scope.cancel()
            cancelled = scope.cancel_called
            self.check(outcome, cancelled)
            if self.flawed is not None:
                self.flawed.mend()
                await trio.sleep(2)  # on a connection that has just answered, a message may end in doubt
            before = len(net.accepted)
            await pool.send("a@x.test", ["b@y.test"], b"next\r\n")
            assert net.accepted[before:] == [b"next\r\n"]
        return cancelled

    def check(self, outcome: object, cancelled: bool) -> None:
        accepted = self.net.accepted.count(TEXT)
        assert len(self.net.accepted) == accepted <= 1, "corrupted, or sent twice"
        if isinstance(outcome, trio_smtp.SendResult):
            assert accepted == 1, "lost"
        elif isinstance(outcome, trio_smtp.SMTPError):
            assert outcome.delivery is not None
            if outcome.delivery is not Delivery.UNKNOWN:
                assert accepted == 0, f"{outcome!r} says {outcome.delivery}"
        else:
            assert outcome is None
            assert cancelled


async def cancel_after(turns: int, scope: trio.CancelScope) -> None:
    for _ in range(turns):
        await trio.lowlevel.checkpoint()
    scope.cancel()


@pytest.mark.parametrize(("retries", "depth"), [(0, 1), (2, 1), (0, 3)])
@pytest.mark.parametrize("fault", ["cut", "reset", "stall"])
@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("offers", OFFERS)
async def test_fault_at_every_octet(
    net: Network,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: trio.testing.MockClock,
    offers: str,
    warm: bool,
    fault: Fault,
    retries: int,
    depth: int,
) -> None:
    config = PoolConfig(connect_retries=retries, idle_timeout=None, pipeline_depth=depth)
    run = Run(net, monkeypatch, offers, config)
    for direction in ("sends", "receives"):
        octets = 0
        while True:
            run.flaw = {"sends": float("inf"), "receives": float("inf"), "fault": fault, direction: octets}
            await run.once(warm=warm)
            assert run.flawed is not None
            if not run.flawed._failed:
                break
            octets += 1
        assert octets > 60


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("offers", OFFERS)
async def test_cancelled_at_every_turn(
    net: Network,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: trio.testing.MockClock,
    offers: str,
    warm: bool,
    depth: int,
) -> None:
    run = Run(net, monkeypatch, offers, PoolConfig(idle_timeout=None, pipeline_depth=depth))
    turns = 0
    while await run.once(warm=warm, turns=turns):
        turns += 1
    assert turns > 8
