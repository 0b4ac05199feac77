"""What a pool knows of its servers."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from trio_smtp import ConnectError, PoolConfig, TLSError
from trio_smtp._pool.health import ServerHealth
from trio_smtp._pool.hosts import Hosts

ONE, TWO = ("one.test", 25), ("two.test", 25)


class Crew:
    def __init__(self, connections: int) -> None:
        self.connections = connections
        self.limits: list[int] = []

    def set_limit(self, limit: int) -> None:
        self.limits.append(limit)


def health_of(crew: Crew, **config: float) -> ServerHealth:
    settings = PoolConfig(max_connections=4, **config)  # type: ignore[arg-type]
    return ServerHealth(Hosts([ONE, TWO], 25, settings.host_retry), settings, crew)


async def test_a_failed_connection_lowers_the_limit_and_puts_the_host_last(autojump_clock: MockClock) -> None:
    crew = Crew(3)
    health = health_of(crew)
    health.connection_failed(ONE, ConnectError("refused"))
    assert crew.limits == [2]
    assert await health.routes() == [TWO, ONE]
    health.connected(ONE)
    assert await health.routes() == [ONE, TWO]


async def test_a_host_with_another_connection_is_not_put_last(autojump_clock: MockClock) -> None:
    crew = Crew(3)
    health = health_of(crew)
    health.connected(ONE)
    health.connection_failed(ONE, ConnectError("refused"))
    assert await health.routes() == [ONE, TWO]
    health.disconnected(ONE)
    health.connection_failed(ONE, ConnectError("refused"))
    assert await health.routes() == [TWO, ONE]
    await trio.sleep(61)
    assert await health.routes() == [ONE, TWO]


def test_an_error_that_is_not_about_reaching_the_server_does_not_lower_the_limit() -> None:
    crew = Crew(3)
    health_of(crew).connection_failed(None, TLSError("no STARTTLS"))
    assert crew.limits == []


def test_a_421_in_the_dialogue_lowers_the_limit_and_messages_raise_it_again() -> None:
    crew = Crew(4)
    health = health_of(crew)
    health.message_done()
    assert crew.limits == []
    health.connection_failed()
    assert crew.limits == [3]
    for _ in range(4):
        health.message_done()
    assert crew.limits == [3, 4]


def test_delays_of_warming_grow_unless_a_connection_lived_longer() -> None:
    health = health_of(Crew(1), retry_delay=1)
    delays = []
    for _ in range(8):
        health.warming_failed()
        delays.append(health.warming_delay)
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60]
    health.warming_failed(lived=30)
    assert health.warming_delay == 60
    health.warming_failed(lived=60)
    assert health.warming_delay == 0
    health.warming_failed()
    health.message_done()
    assert health.warming_delay == 0


def test_the_least_delay_of_warming() -> None:
    health = health_of(Crew(1), retry_delay=0)
    health.warming_failed()
    assert health.warming_delay == pytest.approx(0.1)


def test_it_is_named_after_the_hosts() -> None:
    assert str(health_of(Crew(1))) == "one.test, two.test"
