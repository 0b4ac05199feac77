"""What a pool learns of its servers: told of facts, it sets the number of connections, hosts to avoid, and delays."""

from __future__ import annotations

from typing import Any

from trio.testing import MockClock

from trio_smtp import AuthenticationError, ConnectError, PoolConfig, Reply
from trio_smtp._pool.health import ServerHealth
from trio_smtp._pool.hosts import Hosts, Route

A: Route = ("a.test", None)
B: Route = ("b.test", None)


class Workers:
    """So many connections, and the limits that were set."""

    def __init__(self, connections: int) -> None:
        self.connections = connections
        self.limits: list[int] = []

    def set_limit(self, limit: int) -> None:
        self.limits.append(limit)


def health_of(workers: Workers, **options: Any) -> ServerHealth:
    return ServerHealth(Hosts(["a.test", "b.test"], None, 60), PoolConfig(max_connections=3, **options), workers)


def test_the_limit_is_told_when_it_changes() -> None:
    workers = Workers(3)
    health = health_of(workers)
    health.message_done()
    health.connection_failed()
    assert workers.limits == [2]
    health.message_done()
    health.message_done()
    assert workers.limits == [2, 3]
    assert str(health) == "a.test, b.test"


async def test_a_refused_login_lowers_no_limit() -> None:
    workers = Workers(3)
    health = health_of(workers)
    health.connection_failed(None, AuthenticationError("wrong", reply=Reply(535, "wrong")))
    assert workers.limits == []
    health.connection_failed(A, ConnectError("refused"))
    assert workers.limits == [2]


async def test_a_host_with_another_connection_is_not_to_blame(autojump_clock: MockClock) -> None:
    health = health_of(Workers(1))
    health.connected(A)
    health.connection_failed(A, ConnectError("refused"))
    assert await health.routes() == [A, B]
    health.disconnected(A)
    health.connection_failed(A, ConnectError("refused"))
    assert await health.routes() == [B, A]
    health.connected(A)
    assert await health.routes() == [A, B]


def test_delays_of_warming_grow_to_a_minute_and_start_again_after_a_message() -> None:
    health = health_of(Workers(0), retry_delay=1)
    delays = []
    for _ in range(9):
        health.warming_failed()
        delays.append(health.warming_delay)
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    health.warming_failed(lived=10)
    assert health.warming_delay == 60
    health.warming_failed(lived=61)
    assert health.warming_delay == 0
    health.warming_failed()
    health.message_done()
    assert health.warming_delay == 0
    no_delay = health_of(Workers(0), retry_delay=0)
    no_delay.warming_failed()
    assert no_delay.warming_delay == 0.1
