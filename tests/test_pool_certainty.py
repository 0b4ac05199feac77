"""What the pool says of a message's fate after more than one try: no later try takes back what an earlier one may have
achieved."""

from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing
from client_peer import Peer
from pool_server import Network, network, pool_of

import trio_smtp
from trio_smtp import Delivery, PoolConfig

Clock = trio.testing.MockClock
AGAIN = PoolConfig(on_unknown="retry", connect_retries=1)


@pytest.fixture
async def net(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Network]:
    async with network(monkeypatch) as net:
        yield net


async def send(pool: trio_smtp.Pool, *recipients: str) -> trio_smtp.SendResult:
    return await pool.send("a@x.test", recipients or ["b@y.test"], b"x\r\n")


async def swallow(peer: Peer) -> None:
    """Take a message up to its end, and go away."""
    await peer.greet("PIPELINING")
    await peer.hear("MAIL FROM:<a@x.test>")
    while (line := await peer.line()) != "DATA":
        assert line.startswith("RCPT")
    await peer.say("250 ok", "250 ok", "354 go")
    await peer.text()


@pytest.mark.parametrize("second", ["no greeting", "MAIL refused", "no room", "MAIL refused for now"])
async def test_after_a_try_that_ended_in_doubt_the_doubt_stays(
    net: Network, autojump_clock: Clock, second: str
) -> None:
    async def script(peer: Peer, number: int) -> None:
        if number == 1:
            await swallow(peer)
        elif second.startswith("MAIL"):
            await peer.greet("PIPELINING")
            await peer.hear("MAIL FROM:<a@x.test>", "RCPT TO:<b@y.test>", "DATA")
            await peer.say(f"{450 if 'now' in second else 550} no", "503 no", "503 no")
            await peer.goodbye()
        elif second == "no room":
            await trio.sleep(10)
            await net.sink(peer, number)

    net.script = script
    config = PoolConfig(on_unknown="retry", connect_retries=1, max_waiting=0, max_connections=1)
    async with pool_of(config) as pool, trio.open_nursery() as nursery:

        async def take_the_place() -> None:
            await trio.sleep(0.1)
            await send(pool, "c@y.test")

        if second == "no room":
            nursery.start_soon(take_the_place)
        with pytest.raises(trio_smtp.SMTPError) as caught:
            await send(pool)
    assert caught.value.delivery is Delivery.UNKNOWN
    assert caught.value.unknown == ["b@y.test"]
    assert caught.value.refused == {}


async def test_doubt_ends_with_an_acceptance(net: Network, autojump_clock: Clock) -> None:
    async def script(peer: Peer, number: int) -> None:
        await (swallow(peer) if number == 1 else net.sink(peer, number))

    net.script = script
    async with pool_of(AGAIN) as pool:
        result = await send(pool)
    assert result.accepted == ["b@y.test"]
    assert result.maybe_duplicate


async def test_content_that_cannot_be_read_again_does_not_hide_the_doubt(
    net: Network, autojump_clock: Clock, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("content") / "m"
    path.write_bytes(b"x\r\n")

    async def script(peer: Peer, number: int) -> None:
        if number > 1:
            await net.sink(peer, number)
        else:
            await peer.greet("PIPELINING")
            await peer.hear("MAIL FROM:<a@x.test>")
            await peer.hear("RCPT TO:<b@y.test>", "DATA")
            await peer.say("250 ok", "250 ok", "354 go")
            await peer.text()
            path.unlink()

    net.script = script
    async with pool_of(AGAIN) as pool:
        with pytest.raises(trio_smtp.ConnectionLostError) as caught:
            await pool.send("a@x.test", ["b@y.test"], path)
    assert caught.value.delivery is Delivery.UNKNOWN
    assert caught.value.unknown == ["b@y.test"]
    assert isinstance(caught.value.__cause__, FileNotFoundError)


async def test_no_connection_for_the_rest_of_a_list_says_who_has_the_message(
    net: Network, autojump_clock: Clock
) -> None:
    net.offers = ("PIPELINING", "LIMITS MAILMAX=1 RCPTMAX=1")

    async def script(peer: Peer, number: int) -> None:
        net.refused.add("*")
        await net.sink(peer, number)

    net.script = script
    async with pool_of(PoolConfig(connect_retries=0)) as pool:
        with pytest.raises(trio_smtp.ConnectError) as caught:
            await send(pool, "a@y.test", "b@y.test")
    assert caught.value.delivery is Delivery.NOT_SENT
    assert caught.value.accepted == ["a@y.test"]
    assert net.accepted == [b"x\r\n"]


async def half(peer: Peer) -> None:
    await peer.greet("PIPELINING")
    await peer.hear("MAIL FROM:<a@x.test>", "RCPT TO:<a@y.test>", "RCPT TO:<b@y.test>", "DATA")
    await peer.say("250 ok", "250 ok", "450 later", "354 go")
    await peer.text()
    await peer.say("250 taken")


async def test_leaving_the_pool_while_some_wait_for_another_try_is_a_result(
    net: Network, autojump_clock: Clock
) -> None:
    async def script(peer: Peer, number: int) -> None:
        await half(peer)
        await peer.goodbye()

    net.script = script

    pools: list[trio_smtp.Pool] = []

    async def hold() -> None:
        async with pool_of(PoolConfig(retry_temporary=3, retry_delay=10)) as pool:
            pools.append(pool)
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold)
        await trio.testing.wait_all_tasks_blocked()
        result = await send(pools[0], "a@y.test", "b@y.test")
    assert result.accepted == ["a@y.test"]
    assert [reply.code for reply in result.refused.values()] == [450]


async def test_refusals_are_put_back_only_for_those_who_were_not_accepted_since(
    net: Network, autojump_clock: Clock
) -> None:
    async def script(peer: Peer, number: int) -> None:
        if number == 1:
            await peer.greet("PIPELINING", "LIMITS MAILMAX=1")
            await peer.hear("MAIL FROM:<a@x.test>", *(f"RCPT TO:<{name}@y.test>" for name in "abc"), "DATA")
            await peer.say("250 ok", "250 ok", "450 later", "450 later", "354 go")
            await peer.text()
            await peer.say("250 taken")
            await peer.goodbye()
        else:
            net.refused.add("*")
            net.offers = ("PIPELINING", "LIMITS MAILMAX=1 RCPTMAX=1")
            await net.sink(peer, number)

    net.script = script
    async with pool_of(PoolConfig(retry_temporary=1, connect_retries=0)) as pool:
        result = await send(pool, "a@y.test", "b@y.test", "c@y.test")
    assert result.accepted == ["a@y.test", "b@y.test"]
    assert list(result.refused) == ["c@y.test"]


async def test_lmtp_only_those_in_doubt_are_tried_again(net: Network, autojump_clock: Clock) -> None:
    again: list[str] = []

    async def script(peer: Peer, number: int) -> None:
        await peer.greet_lmtp("PIPELINING")
        await peer.hear("MAIL FROM:<a@x.test>")
        while (line := await peer.line()) != "DATA":
            again.append(f"{number} {line}")
        if number == 1:
            await peer.say("250 ok", "250 ok", "250 ok", "250 ok", "354 go")
            await peer.text()
            await peer.say("250 a has it", "550 b has not")
        else:
            await peer.say("250 ok", "250 ok", "354 go")
            await peer.text()
            await peer.say("250 c has it")
            await peer.goodbye()

    net.script = script
    async with pool_of(AGAIN, lmtp=True) as pool:
        result = await send(pool, "a@y.test", "b@y.test", "c@y.test")
    assert again[3:] == ["2 RCPT TO:<c@y.test>"]
    assert sorted(result.accepted) == ["a@y.test", "c@y.test"]
    assert list(result.refused) == ["b@y.test"]
    assert sorted(result.replies) == ["a@y.test", "b@y.test", "c@y.test"]
    assert result.maybe_duplicate


@pytest.mark.parametrize(("seconds", "is_heard"), [(0.1, True), (9, True), (11, False)])
async def test_pool_and_sender_cancelled_together_still_hear_the_reply(
    net: Network, autojump_clock: Clock, seconds: float, is_heard: bool
) -> None:
    net.delay = seconds
    results: list[trio_smtp.SendResult] = []
    ended = 0.0
    with trio.move_on_after(0.05) as scope:
        async with pool_of() as pool:
            try:
                results.append(await send(pool))
            finally:
                ended = trio.current_time()
            await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert bool(results) is is_heard
    assert ended - scope.deadline <= 10.5


async def test_sender_cancelled_by_himself_waits_no_longer_than_the_grace(net: Network, autojump_clock: Clock) -> None:
    net.delay = 60
    async with pool_of() as pool:
        started = trio.current_time()
        with trio.move_on_after(1) as scope:
            await send(pool)
        assert scope.cancelled_caught
        assert trio.current_time() - started < 11.5


@pytest.mark.parametrize("turns", range(6))
async def test_message_given_to_a_connection_in_the_turn_in_which_the_pool_is_cancelled_has_an_outcome(
    net: Network, autojump_clock: Clock, turns: int
) -> None:
    outcomes: list[object] = []

    async def one(opened: list[trio_smtp.Pool], wait: int) -> None:
        for _ in range(wait):
            await trio.lowlevel.checkpoint()
        try:
            outcomes.append(await opened[0].send("a@x.test", ["b@y.test"], b"x\r\n"))
        except trio_smtp.PoolClosedError as exc:
            outcomes.append(exc.delivery)

    for wait in range(2, 6):
        with trio.fail_after(100):
            async with trio.open_nursery() as nursery:
                with trio.CancelScope() as scope:
                    async with pool_of(max_connections=1) as pool:
                        opened = [pool]
                        await pool.send("a@x.test", ["b@y.test"], b"x\r\n")
                        if turns % 2:
                            await trio.testing.wait_all_tasks_blocked()
                        nursery.start_soon(one, opened, wait)
                        for _ in range(turns):
                            await trio.lowlevel.checkpoint()
                        scope.cancel()
                        await trio.sleep_forever()
    assert len(outcomes) == 4
