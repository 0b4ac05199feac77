"""A connection that is being opened belongs to the pool: whom it serves when callers are cancelled, and who hears when
it fails.

The figures of docs/pool.md, "Callers that do not wait long", are measured here:
``pytest tests/test_pool_opening.py -k callers -rP``.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from functools import partial

import pytest
import trio
import trio.testing
from client_peer import Peer
from pool_server import Network, network, pool_of

import trio_smtp
from trio_smtp import Delivery, PoolConfig

Clock = trio.testing.MockClock
GREETING = 0.3  # seconds before the server's 220
PATIENCE = 0.25  # seconds for which a caller waits
ANSWER = 0.01  # seconds before the reply to the end of a message


@pytest.fixture
async def net(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Network]:
    async with network(monkeypatch) as net:
        net.delay = ANSWER
        net.script = partial(slow_greeting, net)
        yield net


async def slow_greeting(net: Network, peer: Peer, number: int) -> None:
    await trio.sleep(GREETING)
    try:
        await net.sink(peer, number)
    except trio.BrokenResourceError:
        pass


async def dying(net: Network, peer: Peer, number: int) -> None:
    """The first connection takes one message and hears of another; those after it greet slowly."""
    if number > 1:
        await slow_greeting(net, peer, number)
        return
    await peer.greet("PIPELINING")
    await net.message(peer)
    await peer.line()


async def send(pool: trio_smtp.Pool, text: bytes = b"x\r\n") -> trio_smtp.SendResult:
    return await pool.send("a@x.test", ["b@y.test"], text)


# -- whom it serves


async def test_a_connection_being_opened_goes_to_the_next_caller(net: Network, autojump_clock: Clock) -> None:
    async with pool_of(max_connections=5) as pool:
        started = trio.current_time()
        with trio.move_on_after(PATIENCE) as scope:
            await send(pool)
        assert scope.cancelled_caught
        await send(pool)
        assert trio.current_time() - started == pytest.approx(GREETING + ANSWER)
    assert net.connections == 1


async def test_a_connection_being_opened_becomes_idle_if_its_caller_is_cancelled(
    net: Network, autojump_clock: Clock
) -> None:
    async with pool_of(max_connections=5) as pool:
        with trio.move_on_after(PATIENCE):
            await send(pool)
        await trio.sleep(GREETING)
        assert (pool.statistics().connections, pool.statistics().idle) == (1, 1)
        started = trio.current_time()
        await send(pool)
        assert trio.current_time() - started == pytest.approx(ANSWER)
    assert net.connections == 1


async def test_a_caller_is_served_by_whichever_connection_is_ready_first(net: Network, autojump_clock: Clock) -> None:
    """It does not wait for the one that was opened because of it."""
    async with pool_of(max_connections=5) as pool:
        await send(pool)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, pool)
            await trio.testing.wait_all_tasks_blocked()
            started = trio.current_time()
            await send(pool)
            assert trio.current_time() - started == pytest.approx(2 * ANSWER)
        await trio.sleep(GREETING)
        assert pool.statistics().idle == 2


async def test_callers_that_wait_for_connections_being_opened_are_waiting(net: Network, autojump_clock: Clock) -> None:
    async with pool_of(max_connections=2) as pool, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(send, pool)
        await trio.testing.wait_all_tasks_blocked()
        assert (pool.statistics().waiting, pool.statistics().in_flight) == (3, 0)
        assert ", 0 in flight, 3 waiting>" in repr(pool)
        await trio.sleep(GREETING + ANSWER / 2)
        assert (pool.statistics().waiting, pool.statistics().in_flight) == (1, 2)
    assert (pool.statistics().waiting, pool.statistics().in_flight) == (0, 0)


async def test_a_caller_in_line_has_the_connection_that_another_did_not_wait_for(
    net: Network, autojump_clock: Clock
) -> None:
    async with pool_of(max_connections=1) as pool, trio.open_nursery() as nursery:
        started = trio.current_time()
        with trio.move_on_after(PATIENCE):
            nursery.start_soon(send, pool)  # waits on
            await trio.testing.wait_all_tasks_blocked()
            assert (pool.statistics().waiting, pool.statistics().in_flight) == (1, 0)
            await send(pool)
        with trio.move_on_after(PATIENCE):
            await send(pool)
        assert trio.current_time() - started == pytest.approx(GREETING + 2 * ANSWER)
    assert net.connections == 1


async def test_a_message_that_needs_another_connection_does_not_hold_its_caller(
    net: Network, autojump_clock: Clock
) -> None:
    """Its connection was dead; the caller is cancelled while another is opened, and the next caller has that one."""
    net.script = partial(dying, net)
    async with pool_of(max_connections=1) as pool:
        await send(pool)
        with trio.move_on_after(PATIENCE) as scope:
            await send(pool)
        assert scope.cancelled_caught
        assert pool.statistics().in_flight == 0
        await send(pool)
    assert net.connections == 2
    assert len(net.accepted) == 2


async def test_a_cancelled_caller_does_not_wait_for_a_connection_that_its_message_would_need(
    net: Network, autojump_clock: Clock
) -> None:
    """The reply to a part of the list comes while its caller waits for that alone."""
    net.offers = ("PIPELINING", "LIMITS MAILMAX=1 RCPTMAX=1")
    net.delay = 1
    async with pool_of(max_connections=1) as pool:
        started = trio.current_time()
        with trio.move_on_after(GREETING + 0.5) as scope:
            await pool.send("a@x.test", ["b@y.test", "c@y.test"], b"x\r\n")
        assert scope.cancelled_caught
        assert trio.current_time() - started == pytest.approx(GREETING + 1)
        assert pool.statistics().in_flight == 0
    assert len(net.accepted) == 1


# -- who hears when it fails


async def test_an_error_of_opening_reaches_the_caller_that_waits_for_it(net: Network, autojump_clock: Clock) -> None:
    """Even though it is not the one for which it was opened."""

    async def script(peer: Peer, number: int) -> None:
        await trio.sleep(GREETING)
        await peer.say("554 no")

    net.script = script
    async with pool_of(PoolConfig(connect_retries=0)) as pool:
        with trio.move_on_after(PATIENCE):
            await send(pool)
        started = trio.current_time()
        with pytest.raises(trio_smtp.ConnectError) as caught:
            await send(pool)
        assert caught.value.delivery is Delivery.NOT_SENT
        assert trio.current_time() - started == pytest.approx(GREETING - PATIENCE)
    assert net.connections == 1


async def test_each_error_of_opening_reaches_one_caller(net: Network, autojump_clock: Clock) -> None:
    async def script(peer: Peer, number: int) -> None:
        await trio.sleep(GREETING)
        await peer.say(f"554 no {number}")

    errors: list[str] = []

    async def one() -> None:
        with pytest.raises(trio_smtp.ConnectError) as caught:
            await send(pool)
        errors.append(str(caught.value.reply))

    net.script = script
    async with pool_of(PoolConfig(connect_retries=0, max_connections=3)) as pool, trio.open_nursery() as nursery:
        for _ in range(9):
            nursery.start_soon(one)
    assert len(errors) == len(set(errors)) == 9
    assert net.connections == 9


async def test_an_error_of_opening_that_no_caller_waits_for_is_logged(
    net: Network, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async def hosts() -> str:
        await trio.sleep(GREETING)
        raise KeyError("no such service")

    async with pool_of(host=hosts) as pool:
        with trio.move_on_after(PATIENCE):
            await send(pool)
        await trio.sleep(GREETING)
        assert pool.statistics().connections == 0
        with pytest.raises(KeyError):
            await send(pool)
    assert [record.message for record in caplog.records if record.exc_info] == ["pool: no connection to keep"]


# -- the end


async def test_a_pool_left_while_a_connection_is_opened_ends_at_once(net: Network, autojump_clock: Clock) -> None:
    errors: list[trio_smtp.PoolClosedError] = []

    async def one() -> None:
        with pytest.raises(trio_smtp.PoolClosedError) as caught:
            await send(pool)
        errors.append(caught.value)

    async with trio.open_nursery() as nursery:
        async with pool_of(max_connections=2) as pool:
            for _ in range(3):
                nursery.start_soon(one)
            await trio.sleep(GREETING / 2)
            left = trio.current_time()
        assert trio.current_time() == left
    assert [error.delivery for error in errors] == [Delivery.NOT_SENT] * 3


async def test_a_message_that_was_begun_has_another_connection_though_the_pool_is_left(
    net: Network, autojump_clock: Clock
) -> None:
    async def script(peer: Peer, number: int) -> None:
        await dying(net, peer, number)
        if number == 1:
            await trio.sleep(1)
            await peer.say("421 enough")

    results: list[trio_smtp.SendResult] = []

    async def one() -> None:
        results.append(await send(pools[0]))

    net.script = script
    pools: list[trio_smtp.Pool] = []
    async with trio.open_nursery() as nursery, pool_of(max_connections=1) as pool:
        pools.append(pool)
        await send(pool)
        nursery.start_soon(one)
        await trio.sleep(0.5)
    assert len(results) == 1
    assert len(net.accepted) == 2


async def test_a_pool_cancelled_while_connections_are_opened_leaves_no_caller_waiting(
    net: Network, autojump_clock: Clock
) -> None:
    errors: list[trio_smtp.PoolClosedError] = []

    async def one() -> None:
        with pytest.raises(trio_smtp.PoolClosedError) as caught:
            await send(pool)
        errors.append(caught.value)

    async with trio.open_nursery() as nursery:
        with trio.move_on_after(GREETING / 2):
            async with pool_of(max_connections=2) as pool:
                for _ in range(5):
                    nursery.start_soon(one)
                await trio.sleep_forever()
    assert [error.delivery for error in errors] == [Delivery.NOT_SENT] * 5


# -- a rate limit


async def test_a_place_under_the_rate_limit_that_no_message_has_used_is_free_again(
    net: Network, autojump_clock: Clock
) -> None:
    async with pool_of(PoolConfig(rate_limit=(1, 60))) as pool:
        with trio.move_on_after(PATIENCE):
            await send(pool)
        await trio.sleep(GREETING)
        assert pool.statistics().idle == 1
        started = trio.current_time()
        await send(pool)
        assert trio.current_time() - started == pytest.approx(ANSWER)


async def test_no_connection_is_opened_under_a_rate_limit_for_a_caller_that_has_gone(
    net: Network, autojump_clock: Clock
) -> None:
    async with pool_of(PoolConfig(rate_limit=(1, 60), max_messages=1)) as pool:
        await send(pool)
        with trio.move_on_after(PATIENCE):
            await send(pool)
        await trio.sleep(100)
        assert net.connections == 1
        assert pool.statistics().connections == 0


# -- measured


def show(figures: str) -> None:
    print(figures)  # noqa: T201 - with -rP


async def test_callers_that_wait_for_less_than_the_greeting_takes(net: Network, autojump_clock: Clock) -> None:
    """8 callers with 40 messages each, one after the other."""
    sent = 0

    async def caller(pool: trio_smtp.Pool) -> None:
        nonlocal sent
        for _ in range(40):
            with trio.move_on_after(PATIENCE) as scope:
                await send(pool)
            sent += not scope.cancelled_caught

    config = PoolConfig(max_connections=10, max_messages=None)
    async with pool_of(config) as pool, trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(caller, pool)
    show(f"greeting {GREETING} s, patience {PATIENCE} s: {sent} of 320 sent, {net.connections} connections opened")
    assert sent >= 0.95 * 320
    assert net.connections <= 10 + 3


async def test_storm_of_callers_that_are_cancelled_at_random_moments(net: Network, autojump_clock: Clock) -> None:
    """500 tasks that call now and then for a minute, each call cancelled at a random moment, mostly too early.

    One that is cancelled before the end of its message costs a connection.
    """

    async def script(peer: Peer, number: int) -> None:
        await trio.sleep(GREETING)
        try:
            await peer.greet("PIPELINING")
            while (line := await peer.line()) != "QUIT":
                await trio.sleep(ANSWER)
                if line == "DATA":
                    await peer.say("354 go")
                    net.accepted.append(await peer.text())
                await peer.say("250 ok")
        except (EOFError, trio.BrokenResourceError):
            pass

    chance = random.Random(5)
    calls = sent = 0

    async def caller(pool: trio_smtp.Pool) -> None:
        nonlocal calls, sent
        while True:
            await trio.sleep(chance.uniform(0, 20))
            calls += 1
            with trio.move_on_after(chance.uniform(0, 1.1 * GREETING)) as scope:
                await send(pool)
            sent += not scope.cancelled_caught

    net.script = script
    async with pool_of(PoolConfig(max_messages=None)) as pool, trio.open_nursery() as nursery:
        nursery.cancel_scope.deadline = trio.current_time() + 60
        for _ in range(500):
            nursery.start_soon(caller, pool)
    show(f"storm of 500 callers: {sent} of {calls} sent in 60 s, {net.connections} connections opened")
    assert sent >= 0.5 * calls
