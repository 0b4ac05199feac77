"""The task of one connection: its states, and what it owes to callers. What it does to servers is in test_pool*.py."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio
from client_peer import Peer
from pool_server import Network, network, pool_of
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_smtp import ConnectError, Delivery, PoolClosedError, PoolConfig, TraceEvent
from trio_smtp._client.config import ClientConfig
from trio_smtp._client.message import Message
from trio_smtp._client.opening import Opening
from trio_smtp._client.report import DeliveryReport
from trio_smtp._pool.attempt import Attempt, AttemptState
from trio_smtp._pool.connector import Connector
from trio_smtp._pool.dispatcher import Dispatcher
from trio_smtp._pool.health import ServerHealth
from trio_smtp._pool.hosts import Hosts
from trio_smtp._pool.riding import Riding
from trio_smtp._pool.trace import Tracer
from trio_smtp._pool.worker import Worker
from trio_smtp._wire.timekeeper import Timekeeper


@pytest.fixture
async def net(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Network]:
    async with network(monkeypatch) as net:
        yield net


class Office:
    """A dispatcher whose workers are real ones."""

    def __init__(self, nursery: trio.Nursery, config: PoolConfig) -> None:
        self.workers: list[Worker] = []
        self._nursery = nursery
        self._config = config
        self._tracer = Tracer(None)
        self.dispatcher = Dispatcher(self._hire, max_connections=1, min_idle=config.min_idle)
        hosts = Hosts("mail.test", 25, 60)
        self.health = ServerHealth(hosts, config, self.dispatcher)
        self._riding = Riding(self._tracer)
        opening = Opening(
            tls="none",
            ssl_context=None,
            auth=None,
            local_hostname="me.test",
            allow_insecure_auth=False,
            lmtp=False,
            proxy_header=None,
            config=ClientConfig(),
        )
        timekeeper = Timekeeper()
        nursery.start_soon(timekeeper.run)
        self._connector = Connector(opening, self.health, config, self._tracer, timekeeper)

    def _hire(self) -> Worker:
        worker = Worker(self.dispatcher, self._connector, self.health, self._riding, self._config, None, self._tracer)
        self.workers.append(worker)
        self._nursery.start_soon(worker.run)
        return worker

    def submit(self) -> Attempt:
        attempt = Attempt(DeliveryReport(Message("a@x.test", ["b@y.test"], b"x\r\n")))
        assert self.dispatcher.submit(attempt)
        return attempt


@asynccontextmanager
async def office_of(config: PoolConfig | None = None) -> AsyncIterator[Office]:
    async with trio.open_nursery() as nursery:
        yield Office(nursery, config or PoolConfig())
        nursery.cancel_scope.cancel()


async def test_it_sends_rests_and_parks(net: Network, autojump_clock: MockClock) -> None:
    async with office_of() as office:
        attempt = office.submit()
        await attempt.wait()
        [worker] = office.workers
        assert repr(worker).startswith("<Worker resting: <PooledConnection 1 to mail.test:25, 1 messages")
        await wait_all_tasks_blocked()
        assert repr(worker).startswith("<Worker parked")
        assert office.dispatcher.idle == 1
        second = office.submit()
        assert repr(worker).startswith("<Worker busy")
        await second.wait()
        assert (attempt.error, second.error, net.connections) == (None, None, 1)


async def test_a_caller_that_sends_again_at_once_finds_it_resting(net: Network, autojump_clock: MockClock) -> None:
    states: list[str] = []
    async with office_of() as office:
        for _ in range(20):
            await office.submit().wait()
            states.append(repr(office.workers[0]).split(":")[0])
    assert set(states) == {"<Worker resting"}
    assert net.connections == 1


@pytest.mark.parametrize(
    ("limits", "reason"), [(PoolConfig(max_age=20), "it is old"), (PoolConfig(idle_timeout=20), "it was idle")]
)
async def test_an_idle_connection_is_retired_for_its_age_or_for_its_idleness(
    net: Network, autojump_clock: MockClock, limits: PoolConfig, reason: str
) -> None:
    events: list[TraceEvent] = []
    async with pool_of(replace(limits, trace=events.append)) as pool:
        await pool.send("a@x.test", ["b@y.test"], b"x\r\n")
        await trio.sleep(30)
        assert pool.statistics().connections == 0
    assert [event.detail for event in events if event.name == "retire"] == [reason]


async def test_being_woken_without_an_attempt_it_looks_around(net: Network, autojump_clock: MockClock) -> None:
    async with office_of() as office:
        await office.submit().wait()
        await wait_all_tasks_blocked()
        office.dispatcher.close()
        await wait_all_tasks_blocked()
        assert office.dispatcher.connections == 0
        assert repr(office.workers[0]) == "<Worker busy: None>"


async def test_an_error_is_the_attempt_s_and_the_worker_ends_without_a_connection(
    net: Network, autojump_clock: MockClock
) -> None:
    net.refused.add("*")
    async with office_of() as office:
        attempt = office.submit()
        await attempt.wait()
        assert isinstance(attempt.error, ConnectError)
        await wait_all_tasks_blocked()
        assert office.dispatcher.connections == 0


async def test_opening_for_no_message_ends_with_the_pool(
    net: Network, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def connect(host: str, port: int, **options: object) -> trio.SocketStream:
        await trio.sleep_forever()

    monkeypatch.setattr(trio, "open_tcp_stream", connect)
    async with office_of(PoolConfig(min_idle=1)) as office:
        office.dispatcher.fill()
        await wait_all_tasks_blocked()
        assert repr(office.workers[0]) == "<Worker opening: None>"
        office.dispatcher.close()
        await wait_all_tasks_blocked()
        assert office.dispatcher.connections == 0
        assert office.health.warming_delay == 0


async def test_a_worker_whose_pool_is_closed_before_it_begins_opens_nothing(
    net: Network, autojump_clock: MockClock
) -> None:
    async with office_of(PoolConfig(min_idle=1)) as office:
        office.dispatcher.fill()
        office.dispatcher.close()
        await wait_all_tasks_blocked()
        assert office.dispatcher.connections == 0
    assert net.connections == 0


async def test_a_message_that_meets_a_dead_connection_is_given_back_and_has_another(
    net: Network, autojump_clock: MockClock
) -> None:
    async def script(peer: Peer, number: int) -> None:
        if number > 1:
            await net.sink(peer, number)
            return
        await peer.greet("PIPELINING")
        await net.message(peer)
        await peer.line()

    net.script = script
    async with office_of() as office:
        await office.submit().wait()
        attempt = office.submit()
        await attempt.wait()
        assert attempt.error is None
        first, second = office.workers
        assert repr(first) == "<Worker busy: None>"
        assert repr(second).startswith("<Worker resting: <PooledConnection 2")


@pytest.mark.parametrize("parked", [False, True])
async def test_an_attempt_given_in_the_turn_in_which_all_is_cancelled_has_an_outcome(
    net: Network, autojump_clock: MockClock, parked: bool
) -> None:
    async with office_of() as office:
        await office.submit().wait()
        if parked:
            await wait_all_tasks_blocked()
        attempt = office.submit()
    assert attempt.state is AttemptState.DONE
    assert isinstance(attempt.error, PoolClosedError)
    assert attempt.error.delivery is Delivery.NOT_SENT
    assert office.dispatcher.connections == 0


async def test_an_idle_worker_holds_no_message(net: Network, autojump_clock: MockClock) -> None:
    import gc
    import weakref

    class Text(str):
        __slots__ = ("__weakref__",)

    async with pool_of() as pool:
        text = Text("Subject: x\n\nx\n")
        kept = weakref.ref(text)
        await pool.send("a@x.test", ["b@y.test"], text)
        del text
        await wait_all_tasks_blocked()
        gc.collect()
        assert kept() is None
