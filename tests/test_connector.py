"""A pool's connection: its age, its use, and what is seen while it is idle."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from trio_smtp import PoolConfig, SMTPTimeoutError
from trio_smtp._client.config import ClientConfig
from trio_smtp._client.connection import ClientConnection
from trio_smtp._pool.connector import PooledConnection
from trio_smtp._pool.hosts import name_of
from trio_smtp._protocol.extensions import Extensions, Limits
from trio_smtp._wire.opening import open_wire


@asynccontextmanager
async def connection_of(
    config: PoolConfig | None = None, extensions: Extensions | None = None
) -> AsyncIterator[tuple[PooledConnection, trio.abc.Stream]]:
    ours, theirs = memory_stream_pair()
    client = ClientConnection(open_wire(ours, None), ClientConfig(), name="#1")
    if extensions is not None:
        client.learn(extensions)
    async with ours, theirs:
        yield PooledConnection(client, ("mail.test", 25), 1, config or PoolConfig()), theirs


async def test_it_has_its_messages(autojump_clock: MockClock) -> None:
    async with connection_of(PoolConfig(max_messages=2)) as (connection, _):
        assert connection.why_close() == ""
        assert connection.count_message() is False  # new
        assert connection.why_close() == ""
        assert connection.count_message() is True  # it may have died since
        assert connection.why_close() == "it has had its messages"


async def test_it_becomes_old_a_little_earlier_than_max_age(autojump_clock: MockClock) -> None:
    async with connection_of(PoolConfig(max_age=100, idle_timeout=None)) as (connection, _):
        await trio.sleep(89)
        assert (connection.why_close(), connection.is_old) == ("", False)
        with pytest.raises(SMTPTimeoutError):
            await connection.watch()
        assert 90 <= trio.current_time() <= 100
        assert (connection.why_close(), connection.is_old) == ("it is old", True)


async def test_it_is_lost(autojump_clock: MockClock) -> None:
    async with connection_of() as (connection, _):
        connection.abort()
        assert connection.why_close() == "it was lost"


async def test_the_first_reason_why_it_is_retired_stays(autojump_clock: MockClock) -> None:
    async with connection_of() as (connection, _):
        connection.retire("it is used up")
        connection.retire("another")
        connection.abort()
        assert connection.why_close() == "it is used up"


@pytest.mark.parametrize(("limits", "has_limits"), [("", False), ("MAILMAX=5", True), ("RCPTDOMAINMAX=2", True)])
async def test_limits_of_the_server(limits: str, has_limits: bool, autojump_clock: MockClock) -> None:
    extensions = Extensions({"LIMITS": limits} if limits else {})
    assert (extensions.limits == Limits()) is not has_limits
    async with connection_of(extensions=extensions) as (connection, _):
        assert connection.has_limits is has_limits


@pytest.mark.parametrize(("octets", "reason"), [(b"421 bye\r\n", "the server spoke"), (b"", "the server closed it")])
async def test_what_the_server_does_while_it_is_idle(octets: bytes, reason: str, autojump_clock: MockClock) -> None:
    async with connection_of() as (connection, theirs), trio.open_nursery() as nursery:

        async def act() -> None:
            await wait_all_tasks_blocked()
            await (theirs.send_all(octets) if octets else theirs.aclose())

        nursery.start_soon(act)
        assert await connection.watch() == reason
        assert connection.client.is_broken


async def test_waking_it_leaves_it_good(autojump_clock: MockClock) -> None:
    async with connection_of() as (connection, _), trio.open_nursery() as nursery:

        async def act() -> None:
            await wait_all_tasks_blocked()
            connection.wake()

        nursery.start_soon(act)
        assert await connection.watch() == ""
        assert not connection.client.is_broken
        assert connection.may_be_stale


async def test_idle_timeout(autojump_clock: MockClock) -> None:
    async with connection_of(PoolConfig(idle_timeout=7)) as (connection, _):
        with pytest.raises(SMTPTimeoutError):
            await connection.watch()
        assert trio.current_time() == pytest.approx(7)
        assert not connection.client.is_broken


async def test_repr_and_names(autojump_clock: MockClock) -> None:
    async with connection_of() as (connection, _):
        connection.count_message()
        assert repr(connection).startswith("<PooledConnection 1 to mail.test:25, 1 messages: <ClientConnection #1")
    assert name_of(("mail.test", None)) == "mail.test"
