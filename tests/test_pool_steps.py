"""Messages in steps: what a pool lends comes back, whatever happens to the borrower, the server or the pool."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
import trio.testing
from client_peer import Peer
from pool_server import Network, network, pool_of

import trio_smtp
from trio_smtp import Delivery, PoolConfig
from trio_smtp._pool.loan import Loan, errand

Clock = trio.testing.MockClock


@pytest.fixture
async def net(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Network]:
    async with network(monkeypatch) as net:
        yield net


async def text(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        await trio.lowlevel.checkpoint()
        yield piece


async def steps(peer: Peer, *, number: int = 1) -> None:
    """A server that takes one message, command by command."""
    await peer.greet("PIPELINING", "8BITMIME")
    await peer.hear("MAIL FROM:<a@x.test> BODY=8BITMIME")
    await peer.say("250 ok")
    for name in "bc":
        await peer.hear(f"RCPT TO:<{name}@y.test>")
        await peer.say("250 ok" if name == "b" else "550 5.1.1 no")
    await peer.hear("DATA")
    await peer.say("354 go")


async def test_each_command_waits_for_its_answer(net: Network, autojump_clock: Clock) -> None:
    async def script(peer: Peer, number: int) -> None:
        await steps(peer)
        await peer.hear("one", "two", ".")
        await peer.say("250 2.0.0 taken")
        await peer.goodbye()

    net.script = script
    seen: list[trio_smtp.TraceEvent] = []
    async with pool_of(config=PoolConfig(trace=seen.append)) as pool:
        message = await pool._begin("a@x.test", {})
        assert message.reply is not None
        assert message.reply.code == 250
        assert pool.statistics().in_flight == 1
        assert (await message.rcpt("b@y.test", {})).code == 250
        assert (await message.rcpt("c@y.test", {})).code == 550
        assert message.accepted == ["b@y.test"]
        result = await message.send(text(b"one\r\n", b"two\r\n"))
        message.close()
        message.close()
        assert (result.accepted, list(result.refused)) == (["b@y.test"], ["c@y.test"])
        await pool.drain()
        assert (pool.statistics().in_flight, pool.statistics().sent) == (0, 1)
        await trio.testing.wait_all_tasks_blocked()
        assert pool.statistics().idle == 1
    assert [event.name for event in seen if event.detail == "steps"] == ["send"]


async def test_what_is_given_back_in_a_transaction_is_reset_and_used_again(net: Network, autojump_clock: Clock) -> None:
    async def script(peer: Peer, number: int) -> None:
        await peer.greet("PIPELINING", "8BITMIME")
        await peer.hear("MAIL FROM:<a@x.test> BODY=8BITMIME")
        await peer.say("250 ok")
        await peer.hear("RSET")
        await peer.say("250 ok")
        await peer.hear("MAIL FROM:<b@x.test> BODY=8BITMIME")
        await peer.say("550 no")
        await peer.goodbye()

    net.script = script
    async with pool_of(max_connections=1) as pool:
        (await pool._begin("a@x.test", {})).close()
        message = await pool._begin("b@x.test", {})
        assert message.reply is not None
        assert message.reply.code == 550
        message.close()
    assert net.connections == 1


async def test_others_wait_for_what_is_lent(net: Network, autojump_clock: Clock) -> None:
    async with pool_of(max_connections=1) as pool:
        message = await pool._begin("a@x.test", {})
        with trio.move_on_after(5) as scope:
            await pool.send("a@x.test", ["b@y.test"], b"x\r\n")
        assert scope.cancelled_caught
        message.close()
        await pool.send("a@x.test", ["b@y.test"], b"x\r\n")
    assert net.accepted == [b"x\r\n"]
    assert net.connections == 1


async def test_leaving_the_pools_block_waits_for_what_is_lent(net: Network, autojump_clock: Clock) -> None:
    async def finish(message: Any) -> None:
        await trio.sleep(10)
        assert (await message.rcpt("b@y.test", {})).code == 250
        await message.send(text(b"x\r\n"))
        message.close()

    async with trio.open_nursery() as nursery:
        async with pool_of() as pool:
            nursery.start_soon(finish, await pool._begin("a@x.test", {}))  # noqa: ASYNC111 - it uses what was lent
        assert trio.current_time() >= 10
    assert net.accepted == [b"x\r\n"]


async def test_a_cancelled_pool_takes_the_connection_from_the_borrower(net: Network, autojump_clock: Clock) -> None:
    with trio.CancelScope() as scope:
        async with pool_of() as pool:
            message = await pool._begin("a@x.test", {})
            scope.cancel()
    with pytest.raises(trio_smtp.ConnectionLostError) as lost:
        await message.rcpt("b@y.test", {})
    assert lost.value.delivery is Delivery.NOT_SENT
    message.close()
    with pytest.raises(trio_smtp.PoolClosedError):
        await pool._begin("a@x.test", {})


@pytest.mark.parametrize("where", ["waiting", "connecting", "mail"])
async def test_a_borrower_that_is_cancelled_leaves_nothing_behind(
    net: Network, autojump_clock: Clock, where: str
) -> None:
    async def script(peer: Peer, number: int) -> None:
        if number == 1 and where == "connecting":
            await peer.closed()
            return
        await peer.greet("PIPELINING")
        if number == 1 and where == "mail":
            await peer.hear("MAIL FROM:<a@x.test>")
            await peer.closed()
            return
        while await net.message(peer):
            pass

    net.script = script
    async with pool_of(max_connections=1) as pool:
        other = await pool._begin("a@x.test", {}) if where == "waiting" else None
        with trio.move_on_after(5) as scope:
            await pool._begin("a@x.test", {})
        assert scope.cancelled_caught
        if other is not None:
            other.close()
        await pool.drain()
        assert pool.statistics().in_flight == 0
        await pool.send("a@x.test", ["b@y.test"], b"x\r\n")
    assert net.accepted[-1] == b"x\r\n"


@pytest.mark.parametrize("death", ["closed", "421", "4.4.2"])
async def test_mail_is_said_again_where_a_used_connection_has_died(
    net: Network, autojump_clock: Clock, death: str
) -> None:
    async def script(peer: Peer, number: int) -> None:
        await peer.greet("PIPELINING")
        if number == 1:
            await net.message(peer)
            await peer.hear("MAIL FROM:<a@x.test>")
            if death != "closed":
                await peer.say("421 4.3.2 bye" if death == "421" else "451 4.4.2 timeout")
            return
        while await net.message(peer):
            pass

    net.script = script
    async with pool_of(max_connections=1) as pool:
        await pool.send("a@x.test", ["b@y.test"], b"x\r\n")
        message = await pool._begin("a@x.test", {})
        assert message.reply is not None
        assert message.reply.code == 250
        message.close()
    assert net.connections == 2


async def test_a_fresh_connection_that_dies_is_an_error(net: Network, autojump_clock: Clock) -> None:
    async def script(peer: Peer, number: int) -> None:
        await peer.greet("PIPELINING")
        await peer.hear("MAIL FROM:<a@x.test>")

    net.script = script
    async with pool_of() as pool:
        with pytest.raises(trio_smtp.ConnectionLostError) as lost:
            await pool._begin("a@x.test", {})
        assert lost.value.delivery is Delivery.NOT_SENT
        assert pool.statistics().in_flight == 0
    assert net.connections == 1


async def test_a_server_that_cannot_be_reached_is_tried_again(net: Network, autojump_clock: Clock) -> None:
    net.refused.add("*")
    async with pool_of(config=PoolConfig(connect_retries=2)) as pool:
        with pytest.raises(trio_smtp.ConnectError):
            await pool._begin("a@x.test", {})
        assert net.connections == 3
        net.refused.clear()
        (await pool._begin("a@x.test", {})).close()


async def test_what_cannot_be_sent_gives_the_connection_back(net: Network, autojump_clock: Clock) -> None:
    async with pool_of(max_connections=1) as pool:
        for sender, params, kind in (
            ("no address", {}, trio_smtp.LocalProtocolError),
            ("a@x.test", {"SMTPUTF8": None}, trio_smtp.ExtensionNotSupportedError),
        ):
            with pytest.raises(kind):
                await pool._begin(sender, params)
        message = await pool._begin("a@x.test", {})
        with pytest.raises(trio_smtp.LocalProtocolError):
            await message.rcpt("no address", {})
        assert (await message.rcpt("b@y.test", {})).code == 250
        message.close()
    assert net.connections == 1


async def test_a_text_that_cannot_be_had_is_given_up(net: Network, autojump_clock: Clock) -> None:
    async def broken() -> AsyncIterator[bytes]:
        await trio.lowlevel.checkpoint()
        yield b"x\r\n"
        raise ZeroDivisionError

    async with pool_of() as pool:
        message = await pool._begin("a@x.test", {})
        await message.rcpt("b@y.test", {})
        with pytest.raises(ZeroDivisionError):
            await message.send(broken())
        message.close()
        await pool.send("a@x.test", ["b@y.test"], b"y\r\n")
        assert pool.statistics().failed == 1
    assert net.accepted == [b"y\r\n"]


async def test_a_cancelled_text_is_given_up_and_an_end_that_has_left_is_not(
    net: Network, autojump_clock: Clock
) -> None:
    async def stuck() -> AsyncIterator[bytes]:
        yield b"x\r\n"
        await trio.sleep_forever()

    async with pool_of() as pool:
        message = await pool._begin("a@x.test", {})
        await message.rcpt("b@y.test", {})
        with trio.move_on_after(5):
            await message.send(stuck())
        message.close()
        assert net.accepted == []
        net.delay = 8
        message = await pool._begin("a@x.test", {})
        await message.rcpt("b@y.test", {})
        with trio.move_on_after(5):
            result = await message.send(text(b"y\r\n"))
        message.close()
        assert result.accepted == ["b@y.test"]  # it came within end_grace
    assert net.accepted == [b"y\r\n"]


async def test_the_rate_limit_counts_messages_in_steps(net: Network, autojump_clock: Clock) -> None:
    async with pool_of(config=PoolConfig(rate_limit=(1, 60))) as pool:
        for _ in range(3):
            (await pool._begin("a@x.test", {})).close()
    assert trio.current_time() >= 120


async def test_beside_messages_in_flight(net: Network, autojump_clock: Clock) -> None:
    """A connection with several messages in flight is lent when they are done."""
    net.delay = 1
    config = PoolConfig(pipeline_depth=4, max_connections=1)
    async with pool_of(config=config) as pool, trio.open_nursery() as nursery:
        for number in range(6):
            nursery.start_soon(pool.send, "a@x.test", ["b@y.test"], b"%d\r\n" % number)
        await trio.testing.wait_all_tasks_blocked()
        message = await pool._begin("a@x.test", {})
        await message.rcpt("b@y.test", {})
        await message.send(text(b"steps\r\n"))
        message.close()
    assert sorted(net.accepted) == sorted([*(b"%d\r\n" % number for number in range(6)), b"steps\r\n"])


def test_a_loan_is_given_back_once() -> None:
    ended: list[None] = []
    loan = Loan(lambda: ended.append(None))
    assert repr(loan) == "<Loan wanted: None>"
    loan.give_back()
    loan.give_back()
    assert len(ended) == 1
    assert repr(loan) == "<Loan given back: None>"
    assert not errand().message.at_hand
