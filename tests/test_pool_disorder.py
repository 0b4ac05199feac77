"""Servers that fail in every way, callers that give up at any moment, a pool that is left: what holds all the same.

Each run has its own servers, configuration and callers, drawn by its number.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing
from client_peer import Peer
from pool_server import Network, network, pool_of

import trio_smtp
from trio_smtp import ClientConfig, Delivery, PoolConfig

CALLERS = 40


@pytest.fixture
async def net(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Network]:
    async with network(monkeypatch) as net:
        yield net


class Disorder:
    """Servers and callers of one run."""

    def __init__(self, net: Network, seed: int) -> None:
        self.chance = random.Random(seed)
        self.outcomes: dict[bytes, trio_smtp.SendResult | trio_smtp.SMTPError | None] = {}
        self._net = net
        net.script = self._serve
        net.delay = self.chance.choice([0, 0.05, 0.5])

    async def _serve(self, peer: Peer, number: int) -> None:
        chance = self.chance
        await trio.sleep(chance.choice([0, 0, 0.1, 0.3, 1]))
        fate = chance.random()
        try:
            if fate < 0.15:
                return
            if fate < 0.25:
                await peer.say("421 busy")
                return
            await peer.greet("PIPELINING", *chance.choice([[], ["CHUNKING"], ["LIMITS MAILMAX=2"]]))
            for _ in range(chance.choice([1, 2, 5, 50])):
                if not await self._net.message(peer, chance.choice(["250 ok"] * 6 + ["451 later"])):
                    return
            if chance.random() < 0.5:
                await peer.line()
                await peer.say("421 enough")
        except (EOFError, trio.BrokenResourceError):
            pass

    def config(self) -> PoolConfig:
        choice = self.chance.choice
        return PoolConfig(
            max_connections=choice([1, 2, 5]),
            min_idle=choice([0, 0, 1]),
            max_messages=choice([None, 3]),
            max_waiting=choice([None, None, 3]),
            idle_timeout=choice([1, 60]),
            rate_limit=choice([None, None, (5, 1)]),
            pipeline_depth=choice([1, 4]),
            connect_retries=choice([0, 2]),
            retry_delay=0.1,
            retry_temporary=choice([0, 1]),
        )

    async def call(self, pools: list[trio_smtp.Pool], text: bytes) -> None:
        await trio.sleep(self.chance.uniform(0, 3))
        self.outcomes[text] = None
        with trio.move_on_after(self.chance.choice([0.05, 0.2, 0.5, 3, 1000])):
            try:
                self.outcomes[text] = await pools[0].send("a@x.test", ["b@y.test"], text)
            except trio_smtp.SMTPError as exc:
                self.outcomes[text] = exc


@pytest.mark.parametrize("seed", range(40))
async def test_every_caller_hears_the_truth_and_nothing_is_left(
    net: Network, autojump_clock: object, seed: int
) -> None:
    disorder = Disorder(net, seed)
    chance = disorder.chance
    pools: list[trio_smtp.Pool] = []
    texts = [b"%d\r\n" % number for number in range(CALLERS)]
    client_config = ClientConfig(early_text=chance.random() < 0.3)
    with trio.fail_after(3000):
        async with trio.open_nursery() as callers:
            with trio.move_on_after(chance.choice([1, 2, 1000, 1000])):
                async with pool_of(disorder.config(), client_config=client_config) as pool:
                    pools.append(pool)
                    for text in texts:
                        callers.start_soon(disorder.call, pools, text)
                    await trio.sleep(chance.choice([0.5, 1, 5, 50]))
                    if chance.random() < 0.5:
                        await pool.drain()
    statistics = pool.statistics()
    assert (statistics.connections, statistics.idle, statistics.waiting, statistics.in_flight) == (0, 0, 0, 0)
    assert not pool._dispatcher.is_awaited
    assert len(set(net.accepted)) == len(net.accepted), "sent twice"
    assert sorted(disorder.outcomes) == sorted(texts)
    for text, outcome in disorder.outcomes.items():
        if isinstance(outcome, trio_smtp.SendResult):
            assert text in net.accepted, "lost"
        elif outcome is not None and outcome.delivery is not Delivery.UNKNOWN:
            assert text not in net.accepted, outcome
