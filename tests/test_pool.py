"""The pool over a network of memory streams: hand-over, reuse, retries, limits, closing."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import trio
import trio.testing
from client_peer import Peer
from pool_server import Network, network, pool_of
from tls_support import NAME, client_context, server_context

import trio_smtp
from trio_smtp import Delivery, PoolConfig

Clock = trio.testing.MockClock


@pytest.fixture
async def net(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Network]:
    async with network(monkeypatch) as net:
        yield net


async def send(pool: trio_smtp.Pool, text: bytes = b"x\r\n", **options: object) -> trio_smtp.SendResult:
    return await pool.send("a@x.test", ["b@y.test"], text, **options)  # type: ignore[arg-type]


# -- whose it is


async def test_a_run_of_trio_in_another_thread_is_told_that_it_is_not_its_pool(net: Network) -> None:
    async with pool_of() as pool:

        async def elsewhere() -> None:
            with trio.fail_after(5):
                for call in (send, trio_smtp.Pool.drain):
                    with pytest.raises(RuntimeError, match="the pool was opened in another run of Trio"):
                        await call(pool)
                with pytest.raises(RuntimeError, match="the pool was opened in another run of Trio"):
                    await pool._begin("a@x.test", {})

        await send(pool)  # so that a connection is idle
        await trio.to_thread.run_sync(trio.run, elsewhere)
        await trio.to_thread.run_sync(
            lambda: trio.from_thread.run(send, pool)
        )  # a thread without a run is not another one
        assert pool.statistics().sent == 2
        await pool.drain()


# -- hand-over and reuse


async def test_messages_one_after_the_other_share_a_connection(net: Network, autojump_clock: Clock) -> None:
    async with pool_of() as pool:
        for i in range(5):
            result = await send(pool, b"%d\r\n" % i)
            assert result.attempts == 1
    assert net.connections == 1
    assert net.accepted == [b"%d\r\n" % i for i in range(5)]


async def test_no_more_connections_than_allowed_and_nothing_lost(net: Network, autojump_clock: Clock) -> None:
    net.delay = 1
    async with pool_of(max_connections=3) as pool, trio.open_nursery() as nursery:
        for i in range(50):
            nursery.start_soon(send, pool, b"%d\r\n" % i)
    assert net.most == 3
    assert sorted(net.accepted) == sorted(b"%d\r\n" % i for i in range(50))


async def test_waiting_callers_are_served_first_come_first_served(net: Network, autojump_clock: Clock) -> None:
    net.delay = 1
    async with pool_of(max_connections=1) as pool, trio.open_nursery() as nursery:
        for i in range(10):
            nursery.start_soon(send, pool, b"%d\r\n" % i)
            await trio.testing.wait_all_tasks_blocked()
    assert net.accepted == [b"%d\r\n" % i for i in range(10)]


async def test_connection_used_last_is_used_next_so_that_the_others_may_go(net: Network, autojump_clock: Clock) -> None:
    net.delay = 1
    async with pool_of(PoolConfig(idle_timeout=30)) as pool:
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(send, pool)
        assert pool.statistics().idle == 5
        for _ in range(10):
            await send(pool)
            await trio.sleep(5)
        assert pool.statistics().connections == 1


async def test_max_messages(net: Network, autojump_clock: Clock) -> None:
    async with pool_of(PoolConfig(max_messages=2)) as pool:
        for _ in range(5):
            await send(pool)
    assert net.connections == 3


@pytest.mark.parametrize("depth", [1, 4])
@pytest.mark.parametrize("limit", ["max_messages", "MAILMAX"])
async def test_connection_that_has_had_its_messages_says_quit_before_whoever_waits_gets_another(
    net: Network, autojump_clock: Clock, depth: int, limit: str
) -> None:
    heard: list[list[str]] = []

    async def script(peer: Peer, number: int) -> None:
        assert net.now == 1
        await net.sink(peer, number)
        heard.append([word for word in peer.heard.decode().split() if word in ("MAIL", "QUIT")])

    net.script = script
    net.delay = 1
    net.offers = ("PIPELINING", "CHUNKING", *["LIMITS MAILMAX=2"] * (limit == "MAILMAX"))
    config = PoolConfig(max_messages=2 if limit == "max_messages" else None, max_connections=1, pipeline_depth=depth)
    async with pool_of(config) as pool, trio.open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(send, pool)
    assert heard == [["MAIL", "MAIL", "QUIT"]] * 3


async def test_mailmax_of_the_server_is_obeyed(net: Network, autojump_clock: Clock) -> None:
    net.offers = ("PIPELINING", "LIMITS MAILMAX=2")
    async with pool_of() as pool:
        for _ in range(5):
            await send(pool)
    assert net.connections == 3


async def test_mailmax_in_the_middle_of_a_split_list_goes_on_with_a_new_connection(
    net: Network, autojump_clock: Clock
) -> None:
    net.offers = ("PIPELINING", "LIMITS MAILMAX=2 RCPTMAX=1")
    async with pool_of() as pool:
        result = await pool.send("a@x.test", [f"r{i}@y.test" for i in range(5)], b"x")
    assert result.accepted == [f"r{i}@y.test" for i in range(5)]
    assert result.attempts == 1
    assert net.connections == 3
    assert len(net.accepted) == 5


@pytest.mark.parametrize("depth", [1, 4])
async def test_rcptdomainmax_of_the_server_is_obeyed(net: Network, autojump_clock: Clock, depth: int) -> None:
    net.offers = ("PIPELINING", "CHUNKING", "LIMITS RCPTDOMAINMAX=2")
    named: list[set[str]] = []

    async def script(peer: Peer, number: int) -> None:
        await net.sink(peer, number)
        words = peer.heard.decode().split()
        named.append({word.partition("@")[2] for word in words if word.startswith("TO:")})

    async def chunks() -> AsyncIterator[bytes]:
        yield b"x"

    net.script = script
    async with pool_of(PoolConfig(pipeline_depth=depth), max_connections=1) as pool:
        everybody = [f"r{i}@{domain}.test" for i in range(3) for domain in "abcde"]
        result = await pool.send("a@x.test", everybody, b"x")
        assert sorted(result.accepted) == sorted(everybody)
        assert result.attempts == 1
        assert net.connections == 3
        await pool.send("a@x.test", ["b@e.test"], b"x")
        assert net.connections == 3
        await pool.send("a@x.test", ["b@f.test", "c@g.test"], chunks())
        assert net.connections == 4
        with pytest.raises(trio_smtp.ExtensionNotSupportedError, match="2 of the recipients"):
            await pool.send("a@x.test", ["b@f.test", "c@g.test", "d@h.test"], chunks())
    assert all(len(domains) <= 2 for domains in named)


async def test_idle_timeout(net: Network, autojump_clock: Clock) -> None:
    async with pool_of(PoolConfig(idle_timeout=60)) as pool:
        await send(pool)
        await trio.sleep(59)
        assert pool.statistics().connections == 1
        await trio.sleep(2)
        assert pool.statistics().connections == 0
        await send(pool)
    assert net.connections == 2


async def test_max_age_ends_a_connection_in_use_and_an_idle_one(net: Network, autojump_clock: Clock) -> None:
    async with pool_of(PoolConfig(max_age=100, idle_timeout=None)) as pool:
        for _ in range(30):
            await send(pool)
            await trio.sleep(10)
        assert 3 <= net.connections <= 5
        await trio.sleep(101)
        assert pool.statistics().connections == 0


async def test_max_age_has_jitter_so_that_connections_do_not_all_end_at_once(
    net: Network, autojump_clock: Clock
) -> None:
    ages: list[float] = []

    def trace(event: trio_smtp.TraceEvent) -> None:
        if event.name == "retire":
            ages.append(event.seconds)

    net.delay = 1
    config = PoolConfig(max_age=100, idle_timeout=None, trace=trace)
    async with pool_of(config, max_connections=20) as pool:
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(send, pool)
        await trio.sleep(101)
        assert pool.statistics().connections == 0
    assert len(set(ages)) == 20
    assert all(90 <= age <= 100 for age in ages)


async def test_min_idle_keeps_connections_open(net: Network, autojump_clock: Clock) -> None:
    async with pool_of(PoolConfig(min_idle=2, idle_timeout=10)) as pool:
        await trio.sleep(1)
        assert pool.statistics().idle == 2
        await trio.sleep(100)
        assert pool.statistics().idle == 2
        assert net.connections == 2
        await send(pool)
    assert net.connections == 2


async def test_min_idle_with_a_server_that_is_down_does_not_spin_and_callers_hear_of_it(
    net: Network, autojump_clock: Clock
) -> None:
    net.refused.add("*")
    async with pool_of(PoolConfig(min_idle=2, connect_retries=0)) as pool:
        await trio.sleep(600)
        assert net.connections < 50
        with pytest.raises(trio_smtp.ConnectError):
            await send(pool)
        net.refused.clear()
        await trio.sleep(100)
        assert pool.statistics().idle >= 1


# -- idle connections are watched


@pytest.mark.parametrize("farewell", [None, "421 4.4.2 idle too long", "250 what?"])
async def test_idle_connection_that_the_server_ends_is_retired_at_once(
    net: Network, autojump_clock: Clock, farewell: str | None
) -> None:
    async def script(peer: Peer, number: int) -> None:
        if number > 1:
            return await net.sink(peer, number)
        await peer.greet(*net.offers)
        await net.message(peer)
        await trio.sleep(5)
        if farewell is not None:
            await peer.say(farewell)
        return await peer.aclose()

    net.script = script
    async with pool_of() as pool:
        await send(pool)
        await trio.sleep(6)
        assert pool.statistics().connections == 0
        assert (await send(pool)).attempts == 1
    assert net.connections == 2


@pytest.mark.parametrize("together", [False, True], ids=["later", "in one record with the last reply"])
@pytest.mark.parametrize("farewell", ["", "421 4.4.2 idle too long", "250 what?"])
async def test_idle_connection_that_the_server_ends_is_retired_at_once_under_tls_too(
    net: Network, autojump_clock: Clock, farewell: str, together: bool
) -> None:
    """Nothing wakes a socket's reader for what TLS has decrypted already."""
    words = [farewell] if farewell else []

    async def script(peer: Peer, number: int) -> None:
        stream = trio.SSLStream(peer.stream, server_context(), server_side=True)
        peer.stream = stream
        if number > 1:
            await net.sink(peer, number)
            return
        await peer.greet("PIPELINING")
        await peer.hear("MAIL FROM:<a@x.test>", "RCPT TO:<b@y.test>", "DATA")
        await peer.say("250 ok", "250 ok", "354 go")
        await peer.text()
        await peer.say("250 taken", *(words if together else []))
        await trio.sleep(5)
        if words and not together:
            await peer.say(*words)
        if not words:
            await peer.aclose()
            return
        with pytest.raises(trio.BrokenResourceError):  # the client does not stop for a close_notify
            await peer.stream.receive_some()

    net.script = script
    async with pool_of(host=NAME, tls="implicit", ssl_context=client_context()) as pool:
        await send(pool)
        await trio.sleep(6)
        assert pool.statistics().connections == 0
        assert (await send(pool)).attempts == 1
    assert net.connections == 2


async def test_reuse_costs_no_extra_round_trip_even_after_a_refusal(net: Network, autojump_clock: Clock) -> None:
    heard: list[str] = []

    async def script(peer: Peer, number: int) -> None:
        await peer.greet("PIPELINING")
        while True:
            line = await peer.line()
            heard.append(line.partition(" ")[0])
            if line == "QUIT":
                return await peer.say("221 bye")
            if line == "RSET":
                assert b"MAIL" in peer._buffer
            if line == "DATA" and heard[-4:-1] == ["MAIL", "RCPT", "RCPT"]:
                await peer.say("503 5.5.1 nobody")
                continue
            if line == "DATA":
                await peer.say("354 go")
                await peer.text()
            await peer.say("550 5.1.1 who?" if "no@" in line else "250 ok")

    net.script = script
    async with pool_of() as pool:
        await send(pool)
        await trio.sleep(30)
        await send(pool)
        with pytest.raises(trio_smtp.RecipientsRefusedError):
            await pool.send("a@x.test", ["no@y.test", "no@z.test"], b"x\r\n")
        await trio.sleep(30)
        await send(pool)
    message = ["MAIL", "RCPT", "DATA"]
    assert heard == [*message, *message, "MAIL", "RCPT", "RCPT", "DATA", "RSET", *message, "QUIT"]
    assert net.connections == 1


async def test_idle_connection_that_dies_unanswered_costs_nothing(net: Network, autojump_clock: Clock) -> None:
    async def script(peer: Peer, number: int) -> None:
        if number > 1:
            return await net.sink(peer, number)
        await peer.greet(*net.offers)
        await net.message(peer)
        await peer.line()
        return await peer.aclose()

    net.script = script
    async with pool_of() as pool:
        await send(pool)
        started = trio.current_time()
        result = await send(pool)
        assert result.attempts == 2
        assert not result.maybe_duplicate
        assert trio.current_time() == started
    assert len(net.accepted) == 2


async def test_idle_connection_that_answers_mail_with_421_is_replaced(net: Network, autojump_clock: Clock) -> None:
    async def script(peer: Peer, number: int) -> None:
        if number > 1:
            return await net.sink(peer, number)
        await peer.greet(*net.offers)
        await net.message(peer)
        await peer.line()
        await peer.say("421 4.4.2 idle too long")
        return await peer.aclose()

    net.script = script
    async with pool_of() as pool:
        await send(pool)
        assert (await send(pool)).attempts == 2
    assert len(net.accepted) == 2
    assert pool.statistics().limit == 5


async def test_half_open_connection_mail_times_out_and_goes_again(net: Network, autojump_clock: Clock) -> None:
    async def script(peer: Peer, number: int) -> None:
        if number > 1:
            return await net.sink(peer, number)
        await peer.greet(*net.offers)
        await net.message(peer)
        return await peer.drain()

    net.script = script
    async with pool_of() as pool:
        await send(pool)
        started = trio.current_time()
        assert (await send(pool)).attempts == 2
        assert trio.current_time() - started == pytest.approx(300)


async def test_after_an_idle_spell_the_end_of_a_message_does_not_ride_with_mail(
    net: Network, autojump_clock: Clock
) -> None:
    net.offers = ("PIPELINING", "CHUNKING")

    async def script(peer: Peer, number: int) -> None:
        if number > 1:
            return await net.sink(peer, number)
        await peer.greet(*net.offers)
        await net.message(peer)
        await peer.line()
        await trio.testing.wait_all_tasks_blocked()
        assert peer.heard.count(b"BDAT") == 1
        return await peer.aclose()

    net.script = script
    async with pool_of(client_config=trio_smtp.ClientConfig(early_text=True)) as pool:
        await send(pool)
        await trio.sleep(5)
        assert (await send(pool)).attempts == 2
    assert len(net.accepted) == 2


# -- retries


async def test_connect_is_retried_with_growing_delays_and_then_the_error_reaches_the_caller(
    net: Network, autojump_clock: Clock
) -> None:
    net.refused.add("mail.test")
    async with pool_of(PoolConfig(connect_retries=3, retry_delay=1)) as pool:
        started = trio.current_time()
        with pytest.raises(trio_smtp.ConnectError, match="Connection refused") as caught:
            await send(pool)
        assert 3.5 <= trio.current_time() - started <= 7
    assert net.connections == 4
    assert caught.value.delivery is Delivery.NOT_SENT


async def test_server_that_comes_back_in_time_gets_the_message(net: Network, autojump_clock: Clock) -> None:
    net.refused.add("mail.test")
    async with pool_of() as pool, trio.open_nursery() as nursery:

        async def come_back() -> None:
            await trio.sleep(0.2)
            net.refused.clear()

        nursery.start_soon(come_back)
        await send(pool)
    assert len(net.accepted) == 1


async def test_refused_credentials_are_not_tried_again(net: Network, autojump_clock: Clock) -> None:
    async def script(peer: Peer, number: int) -> None:
        await peer.greet("AUTH PLAIN")
        await peer.line()
        await peer.say("535 5.7.8 no")
        await peer.goodbye()

    net.script = script
    async with pool_of(auth=("me", "secret"), allow_insecure_auth=True) as pool:
        with pytest.raises(trio_smtp.AuthenticationError):
            await send(pool)
    assert net.connections == 1


@pytest.mark.parametrize("stage", ["mail", "rcpt", "data", "body"])
async def test_connection_lost_before_the_end_is_tried_again(net: Network, autojump_clock: Clock, stage: str) -> None:
    async def script(peer: Peer, number: int) -> None:
        if number > 1:
            return await net.sink(peer, number)
        await peer.greet("PIPELINING")
        await peer.hear("MAIL FROM:<a@x.test>", "RCPT TO:<b@y.test>", "DATA")
        answers = ["250 ok", "250 ok", "354 go"]
        await peer.say(*answers[: ["mail", "rcpt", "data", "body"].index(stage)])
        if stage == "body":
            await peer.octets(1000)
        return await peer.aclose()

    net.script = script
    async with pool_of() as pool:
        result = await send(pool, b"x" * 998 + b"\r\n" if stage != "body" else b"x" * 5_000_000)
        assert result.attempts == 2
    assert len(net.accepted) == 1


async def test_connection_lost_after_the_end_is_never_tried_again(net: Network, autojump_clock: Clock) -> None:
    async def script(peer: Peer, number: int) -> None:
        await peer.greet("PIPELINING")
        await peer.take_message("MAIL FROM:<a@x.test>")
        await peer.aclose()

    net.script = script
    async with pool_of() as pool:
        with pytest.raises(trio_smtp.ConnectionLostError) as caught:
            await send(pool)
    assert caught.value.delivery is Delivery.UNKNOWN
    assert caught.value.unknown == ["b@y.test"]
    assert net.connections == 1


async def test_on_unknown_retry_says_that_it_may_be_a_duplicate(net: Network, autojump_clock: Clock) -> None:
    async def script(peer: Peer, number: int) -> None:
        if number > 1:
            return await net.sink(peer, number)
        await peer.greet("PIPELINING")
        await peer.take_message("MAIL FROM:<a@x.test>")
        return await peer.aclose()

    net.script = script
    async with pool_of(PoolConfig(on_unknown="retry")) as pool:
        result = await send(pool)
    assert result.maybe_duplicate
    assert result.attempts == 2


async def test_stream_that_was_begun_is_not_sent_again_and_a_replayable_one_is(
    net: Network, autojump_clock: Clock
) -> None:
    async def script(peer: Peer, number: int) -> None:
        if number % 2 == 0:
            return await net.sink(peer, number)
        await peer.greet("PIPELINING")
        await peer.take_envelope("MAIL FROM:<a@x.test>")
        return await peer.aclose()

    async def once() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 100_000

    class Again:
        replayable = True

        async def __aiter__(self) -> AsyncIterator[bytes]:
            for _ in range(10):
                yield b"y" * 100_000

    net.script = script
    async with pool_of() as pool:
        with pytest.raises(trio_smtp.ConnectionLostError) as caught:
            await pool.send("a@x.test", ["b@y.test"], once())
        assert caught.value.delivery is Delivery.NOT_SENT
        assert net.connections == 1
        net.connections = 0
        assert (await pool.send("a@x.test", ["b@y.test"], Again())).attempts == 2
    assert net.accepted == [b"y" * 1_000_000 + b"\r\n"]


async def test_refusals_are_not_tried_again_and_do_not_cost_a_connection(net: Network, autojump_clock: Clock) -> None:
    async def script(peer: Peer, number: int) -> None:
        await peer.greet("PIPELINING")
        await peer.hear("MAIL FROM:<a@x.test>", "RCPT TO:<b@y.test>", "DATA")
        await peer.say("450 later", "503 no", "503 no")
        while await net.message(peer):
            pass

    net.script = script
    async with pool_of() as pool:
        with pytest.raises(trio_smtp.SenderRefusedError):
            await send(pool)
        await send(pool)
    assert net.connections == 1


async def test_retry_temporary(net: Network, autojump_clock: Clock) -> None:
    async def script(peer: Peer, number: int) -> None:
        await peer.greet("PIPELINING")
        await peer.hear(
            "MAIL FROM:<a@x.test>", "RCPT TO:<b@y.test>", "RCPT TO:<c@y.test>", "RCPT TO:<d@y.test>", "DATA"
        )
        await peer.say("250 ok", "250 ok", "450 greylisted", "550 who?", "354 go")
        await peer.text()
        await peer.say("250 one")
        await peer.hear("MAIL FROM:<a@x.test>", "RCPT TO:<c@y.test>", "DATA")
        await peer.say("250 ok", "250 ok", "354 go")
        await peer.text()
        await peer.say("250 two")
        await peer.goodbye()

    net.script = script
    async with pool_of(PoolConfig(retry_temporary=2)) as pool:
        result = await pool.send("a@x.test", ["b@y.test", "c@y.test", "d@y.test"], b"x")
    assert result.accepted == ["b@y.test", "c@y.test"]
    assert list(result.refused) == ["d@y.test"]
    assert result.attempts == 2


# -- who hears of which error


async def test_each_error_reaches_the_caller_it_belongs_to(net: Network, autojump_clock: Clock) -> None:
    async def script(peer: Peer, number: int) -> None:
        await peer.greet("PIPELINING")
        try:
            while True:
                line = await peer.line()
                if line == "QUIT":
                    await peer.say("221 bye")
                    return
                await peer.hear("RCPT TO:<b@y.test>", "DATA")
                await peer.say("250 ok", "250 ok", "354 go")
                text = await peer.text()
                await peer.say("554 bad" if b"bad" in text else "250 good")
        except EOFError:
            pass

    net.script = script
    outcomes: dict[int, bool] = {}

    async def one(i: int) -> None:
        try:
            await send(pool, b"bad" if i % 3 else b"good")
            outcomes[i] = True
        except trio_smtp.MessageRefusedError:
            outcomes[i] = False

    async with pool_of() as pool, trio.open_nursery() as nursery:
        for i in range(60):
            nursery.start_soon(one, i)
    assert outcomes == {i: i % 3 == 0 for i in range(60)}
    assert net.connections <= 5


async def test_body_s_exception_comes_out_bare(net: Network, autojump_clock: Clock) -> None:
    with pytest.raises(KeyError, match="mine"):  # noqa: PT012
        async with pool_of() as pool:
            await send(pool)
            raise KeyError("mine")


async def test_wrong_arguments_cost_no_connection(net: Network, autojump_clock: Clock) -> None:
    async with pool_of() as pool:
        with pytest.raises(trio_smtp.LocalProtocolError):
            await pool.send("a b", ["b@y.test"], b"x")
        with pytest.raises(TypeError):
            await pool.send("a@x.test", "b@y.test", b"x")
    assert net.connections == 0


# -- cancellation


async def test_cancelled_while_waiting_leaves_no_trace(net: Network, autojump_clock: Clock) -> None:
    net.delay = 10
    async with pool_of(max_connections=1) as pool, trio.open_nursery() as nursery:
        nursery.start_soon(send, pool, b"first\r\n")
        await trio.testing.wait_all_tasks_blocked(0.01)
        with trio.move_on_after(1) as scope:
            await send(pool, b"second\r\n")
        assert scope.cancelled_caught
        assert pool.statistics().waiting == 0
        await send(pool, b"third\r\n")
    assert net.accepted == [b"first\r\n", b"third\r\n"]
    assert net.connections == 1


async def test_cancelled_while_connecting(net: Network, autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*args: object, **options: object) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(trio, "open_tcp_stream", never)
    async with pool_of() as pool:
        with trio.move_on_after(1) as scope:
            await send(pool)
        assert scope.cancelled_caught
        assert trio.current_time() - scope.deadline == pytest.approx(0)
        assert pool.statistics().in_flight == 0
        monkeypatch.setattr(trio, "open_tcp_stream", net.connect)
        await send(pool)


async def test_cancelled_in_the_middle_gives_the_connection_up(net: Network, autojump_clock: Clock) -> None:
    async def script(peer: Peer, number: int) -> None:
        if number > 1:
            return await net.sink(peer, number)
        await peer.greet("PIPELINING")
        await peer.hear("MAIL FROM:<a@x.test>", "RCPT TO:<b@y.test>", "DATA")
        await peer.say("250 ok")
        return await peer.closed()

    net.script = script
    async with pool_of(max_connections=1) as pool:
        with trio.move_on_after(1) as scope:
            await send(pool)
        assert scope.cancelled_caught
        await send(pool)
    assert net.connections == 2
    assert len(net.accepted) == 1


async def test_cancelled_after_the_end_returns_the_result_if_it_comes_in_time(
    net: Network, autojump_clock: Clock
) -> None:
    net.delay = 8
    async with pool_of() as pool:
        with trio.move_on_after(1) as scope:
            result = await send(pool)
        assert not scope.cancelled_caught
        assert result.accepted == ["b@y.test"]
        await send(pool)
    assert net.connections == 1


async def test_cancelled_after_the_end_gives_up_after_end_grace(net: Network, autojump_clock: Clock) -> None:
    net.delay = 50
    async with pool_of(client_config=trio_smtp.ClientConfig(end_grace=20)) as pool:
        started = trio.current_time()
        with trio.move_on_after(1) as scope:
            await send(pool)
        assert scope.cancelled_caught
        assert trio.current_time() - started == pytest.approx(21)
        await trio.sleep(1)
        assert pool.statistics().connections == 0


async def test_cancelled_in_the_caller_s_own_iterable(net: Network, autojump_clock: Clock) -> None:
    cleaned = False

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal cleaned
        try:
            yield b"x"
            await trio.sleep_forever()
        finally:
            cleaned = True

    async with pool_of() as pool:
        with trio.move_on_after(1) as scope:
            await pool.send("a@x.test", ["b@y.test"], chunks())
        assert scope.cancelled_caught
        assert cleaned
        await send(pool)
    assert len(net.accepted) == 1


async def test_many_callers_cancelled_at_random_moments_lose_and_double_nothing(
    net: Network, autojump_clock: Clock
) -> None:
    net.delay = 1
    sent: list[bytes] = []

    async def one(i: int) -> None:
        text = b"%d\r\n" % i
        with trio.move_on_after(i * 0.13):
            await send(pool, text)
            sent.append(text)

    async with pool_of(max_connections=3) as pool, trio.open_nursery() as nursery:
        for i in range(100):
            nursery.start_soon(one, i)
    assert sorted(sent) == sorted(net.accepted)
    assert len(set(net.accepted)) == len(net.accepted)


# -- limits


async def test_max_waiting_refuses_instead_of_queueing(net: Network, autojump_clock: Clock) -> None:
    net.delay = 10
    async with pool_of(PoolConfig(max_waiting=2, max_connections=1)) as pool, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(send, pool)
        await trio.testing.wait_all_tasks_blocked(0.01)
        with pytest.raises(trio_smtp.PoolFullError) as caught:
            await send(pool)
        assert caught.value.delivery is Delivery.NOT_SENT
    assert len(net.accepted) == 3


@pytest.mark.parametrize(("count", "window"), [(1, 1.0), (5, 2.0), (10, 0.1)])
async def test_rate_limit_holds_in_every_window(net: Network, autojump_clock: Clock, count: int, window: float) -> None:
    config = PoolConfig(rate_limit=(count, window), max_connections=7)
    async with pool_of(config) as pool, trio.open_nursery() as nursery:
        for i in range(4 * count + 3):
            nursery.start_soon(send, pool)
            if i % 3 == 0:
                await trio.sleep(window / 10)
    starts = sorted(net.started)
    assert len(starts) == 4 * count + 3
    assert all(later - earlier >= window for earlier, later in zip(starts, starts[count:], strict=False))
    assert starts[-1] - starts[0] < 6.5 * window


async def test_rate_limit_and_a_cancelled_caller_leaves_no_trace(net: Network, autojump_clock: Clock) -> None:
    async with pool_of(PoolConfig(rate_limit=(1, 10))) as pool:
        await send(pool)
        started = trio.current_time()
        with trio.move_on_after(1) as scope:
            await send(pool)
        assert scope.cancelled_caught
        await send(pool)
        assert trio.current_time() - started == pytest.approx(10, abs=0.01)


async def test_rate_limit_opens_no_connection_before_its_message_has_its_turn(
    net: Network, autojump_clock: Clock
) -> None:
    async with pool_of(PoolConfig(rate_limit=(1, 10), max_connections=2)) as pool, trio.open_nursery() as nursery:
        nursery.start_soon(send, pool)
        nursery.start_soon(send, pool)
        await trio.sleep(5)
        assert net.connections == 1  # a second one would have been left alone for all this time


# -- a server that bears less


async def test_fewer_connections_after_421_and_more_again_later(net: Network, autojump_clock: Clock) -> None:
    crowded = True

    async def script(peer: Peer, number: int) -> None:
        if crowded and net.now > 2:
            await peer.say("421 4.7.0 too many connections")
            return
        await net.sink(peer, number)

    net.script = script
    net.delay = 1
    async with pool_of(PoolConfig(max_connections=6, connect_retries=10)) as pool:
        async with trio.open_nursery() as nursery:
            for _ in range(40):
                nursery.start_soon(send, pool)
        refused = net.connections
        assert pool.statistics().limit <= 3
        crowded = False
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(send, pool)
        assert pool.statistics().limit == 6
        assert net.connections - refused < 10
    assert len(net.accepted) == 140
    assert refused < 40


async def test_421_in_a_transaction_is_tried_again_and_lowers_the_number(net: Network, autojump_clock: Clock) -> None:
    async def script(peer: Peer, number: int) -> None:
        await peer.greet("PIPELINING")
        await peer.line()
        await peer.say("421 4.3.2 going down")
        await peer.aclose()

    net.script = script
    async with pool_of(PoolConfig(connect_retries=2)) as pool:
        with pytest.raises(trio_smtp.ConnectionLostError) as caught:
            await send(pool)
        assert caught.value.reply is not None
        assert caught.value.reply.code == 421
        assert caught.value.delivery is Delivery.NOT_SENT
    assert net.connections == 3


@pytest.mark.parametrize("depth", [1, 4])
@pytest.mark.parametrize(
    ("step", "offers"),
    [
        *((step, offers) for step in ("MAIL", "RCPT", "DATA") for offers in ((), ("PIPELINING",))),
        *((step, ("PIPELINING", "CHUNKING")) for step in ("MAIL", "RCPT")),
    ],
)
async def test_421_on_a_used_connection_costs_no_try(
    net: Network, autojump_clock: Clock, step: str, depth: int, offers: tuple[str, ...]
) -> None:
    net.offers = offers

    async def script(peer: Peer, number: int) -> None:
        """Take two messages, and say 421 in the third."""
        await peer.greet(*offers)
        try:
            for _ in range(2):
                if not await net.message(peer):
                    return
            while not (line := await peer.line()).startswith(step):
                await peer.say("221 bye" if line == "QUIT" else "250 ok")
                if line == "QUIT":
                    return
            await peer.say("421 4.7.0 too many messages on this connection")
            await peer.drain()
        except (EOFError, trio.BrokenResourceError):
            pass

    net.script = script
    config = PoolConfig(max_connections=1, connect_retries=0, pipeline_depth=depth, max_messages=None)
    async with pool_of(config) as pool, trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(send, pool)
    assert len(net.accepted) == 20


async def test_everything_behind_a_421_was_not_sent_and_goes_to_another_connection(
    net: Network, autojump_clock: Clock
) -> None:
    async def script(peer: Peer, number: int) -> None:
        if number > 1:
            return await net.sink(peer, number)
        await peer.greet("PIPELINING", "CHUNKING")
        await net.message(peer)
        for i in range(4):
            await peer.hear(*["RSET"][:i], "MAIL FROM:<a@x.test>", "RCPT TO:<b@y.test>", "BDAT 4 LAST", "hi")
        await peer.say("421 4.7.0 too many messages")
        return await peer.drain()

    net.script = script
    net.offers = ("PIPELINING", "CHUNKING")
    config = PoolConfig(max_connections=1, connect_retries=0, pipeline_depth=4)
    early = trio_smtp.ClientConfig(early_text=True)
    async with pool_of(config, client_config=early) as pool:
        await send(pool)
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(pool.send, "a@x.test", ["b@y.test"], b"hi\r\n")
    assert len(net.accepted) == 5
    assert net.connections == 2


@pytest.mark.parametrize("depth", [1, 4])
@pytest.mark.parametrize(
    "answer",
    [
        "452 4.5.3 too many messages in this connection",
        "451 Too many mails",
        "450 4.7.1 limit exceeded: at most 2 messages per SMTP session",
        "454 4.7.0 Too many e-mails",
        "451 4.4.2 Timeout waiting for data from client.",
    ],
)
async def test_refusal_that_is_about_the_connection_sends_the_message_on_another(
    net: Network, autojump_clock: Clock, answer: str, depth: int
) -> None:
    async def script(peer: Peer, number: int) -> None:
        """Take two messages, and no MAIL after them."""
        await peer.greet("PIPELINING")
        taken = 0
        try:
            while (line := await peer.line()) != "QUIT":
                if line == "DATA" and taken < 2:
                    await peer.say("354 go")
                    net.accepted.append(await peer.text())
                    await peer.say("250 taken")
                    taken += 1
                elif line.startswith("MAIL") and taken == 2:
                    await peer.say(answer)
                else:
                    await peer.say("503 no" if taken == 2 and line != "RSET" else "250 ok")
            await peer.say("221 bye")
        except (EOFError, trio.BrokenResourceError):
            pass

    net.script = script
    config = PoolConfig(max_connections=1, connect_retries=0, pipeline_depth=depth)
    async with pool_of(config) as pool, trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(send, pool)
    assert len(net.accepted) == 10
    assert net.connections == 5


@pytest.mark.parametrize(
    "answer",
    [
        "451 4.7.1 greylisted, try later",
        "450 4.2.1 too many connections",
        "452 4.2.2 mailbox full",
        "550 too many messages",
    ],
)
async def test_refusal_that_is_about_the_message_is_not_tried_on_another(
    net: Network, autojump_clock: Clock, answer: str
) -> None:
    async def script(peer: Peer, number: int) -> None:
        await peer.greet()
        await net.message(peer)
        await peer.line()
        await peer.say(answer)
        await peer.goodbye()

    net.script = script
    async with pool_of() as pool:
        await send(pool)
        with pytest.raises(trio_smtp.SenderRefusedError):
            await send(pool)
    assert net.connections == 1


async def test_refusal_about_the_connection_on_a_new_one_is_the_message_s(net: Network, autojump_clock: Clock) -> None:
    async def script(peer: Peer, number: int) -> None:
        await peer.greet()
        await peer.line()
        await peer.say("452 4.5.3 too many messages")
        await peer.goodbye()

    net.script = script
    async with pool_of() as pool:
        with pytest.raises(trio_smtp.SenderRefusedError):
            await send(pool)
    assert net.connections == 1


# -- several hosts


async def test_hosts_are_tried_in_order_and_a_dead_one_is_left_alone_for_a_while(
    net: Network, autojump_clock: Clock
) -> None:
    net.refused.add("one.test")
    async with pool_of(PoolConfig(max_messages=1), host=["one.test", ("two.test", 2525)]) as pool:
        await send(pool)
        await send(pool)
        assert net.hosts == [("one.test", 25), ("two.test", 2525), ("two.test", 2525)]
        net.refused.clear()
        await trio.sleep(61)
        await send(pool)
        assert net.hosts[3:] == [("one.test", 25)]


async def test_hosts_may_be_asked_for(net: Network, autojump_clock: Clock) -> None:
    async def resolve() -> list[tuple[str, int]]:
        await trio.lowlevel.checkpoint()
        return [("mx.test", 26)]

    async with pool_of(host=resolve) as pool:
        await send(pool)
    assert net.hosts == [("mx.test", 26)]


# -- tokens


async def test_token_provider_is_asked_once_however_many_connections_need_it(
    net: Network, autojump_clock: Clock
) -> None:
    asked = 0

    async def provider() -> str:
        nonlocal asked
        asked += 1
        await trio.sleep(1)
        return f"token{asked}"

    async def script(peer: Peer, number: int) -> None:
        await peer.greet("PIPELINING", "AUTH XOAUTH2")
        while True:
            await peer.line()
            if asked > 1:
                break
            await peer.say("535 5.7.8 no")
        await peer.say("235 ok")
        while await net.message(peer):
            pass

    net.script = script
    net.delay = 1
    options: dict[str, Any] = {"auth": trio_smtp.OAuth("me@x.test", provider), "allow_insecure_auth": True}
    async with pool_of(**options) as pool, trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(send, pool)
    assert asked == 2


# -- closing


async def test_leaving_waits_for_messages_in_flight_and_sends_the_others_away(
    net: Network, autojump_clock: Clock
) -> None:
    net.delay = 10
    outcomes: list[object] = []

    async def one(opened: list[trio_smtp.Pool]) -> None:
        try:
            outcomes.append(await send(opened[0]))
        except trio_smtp.PoolClosedError as exc:
            outcomes.append(exc.delivery)

    async with trio.open_nursery() as nursery, pool_of(max_connections=1) as pool:
        opened = [pool]
        for _ in range(3):
            nursery.start_soon(one, opened)
        await trio.testing.wait_all_tasks_blocked(0.01)
    assert [outcome for outcome in outcomes if isinstance(outcome, Delivery)] == [Delivery.NOT_SENT] * 2
    assert len(net.accepted) == 1
    assert net.connections == 1
    with pytest.raises(trio_smtp.PoolClosedError):
        await send(pool)


async def test_pool_cancelled_while_callers_are_elsewhere(net: Network, autojump_clock: Clock) -> None:
    net.delay = 50
    errors: list[trio_smtp.SMTPError] = []

    async def one(opened: list[trio_smtp.Pool]) -> None:
        try:
            await send(opened[0])
        except trio_smtp.SMTPError as exc:
            errors.append(exc)

    async with trio.open_nursery() as nursery:
        with trio.move_on_after(5) as scope:
            async with pool_of(max_connections=1) as pool:
                opened = [pool]
                nursery.start_soon(one, opened)
                nursery.start_soon(one, opened)
                await trio.sleep_forever()
        assert scope.cancelled_caught
    assert sorted(str(error.delivery) for error in errors) == ["not_sent", "unknown"]
    assert all(isinstance(error, trio_smtp.PoolClosedError) for error in errors)


async def test_drain(net: Network, autojump_clock: Clock) -> None:
    net.delay = 3
    async with pool_of(max_connections=2) as pool, trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(send, pool)
        await trio.testing.wait_all_tasks_blocked(0.01)
        await pool.drain()
        assert len(net.accepted) == 4
        await pool.drain()
        await send(pool)


async def test_statistics_and_repr(net: Network, autojump_clock: Clock) -> None:
    net.delay = 3
    async with pool_of(max_connections=1) as pool, trio.open_nursery() as nursery:
        assert repr(pool) == "<trio_smtp.Pool mail.test: 0 of 1 connections (0 idle), 0 in flight, 0 waiting>"
        for _ in range(3):
            nursery.start_soon(send, pool)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert repr(pool) == "<trio_smtp.Pool mail.test: 1 of 1 connections (0 idle), 1 in flight, 2 waiting>"
        await pool.drain()
        statistics = pool.statistics()
        assert (statistics.sent, statistics.failed, statistics.opened) == (3, 0, 1)
        assert repr(pool) == "<trio_smtp.Pool mail.test: 1 of 1 connections (1 idle), 0 in flight, 0 waiting>"


async def test_trace_tells_what_happened(net: Network, autojump_clock: Clock) -> None:
    events: list[trio_smtp.TraceEvent] = []
    net.refused.add("*")
    async with pool_of(PoolConfig(trace=events.append, max_messages=1)) as pool, trio.open_nursery() as nursery:
        nursery.start_soon(send, pool)
        await trio.testing.wait_all_tasks_blocked(0.01)
        net.refused.clear()
    assert [event.name for event in events] == ["connect", "retry", "connect", "send", "retire", "message"]
    assert isinstance(events[0].error, trio_smtp.ConnectError)
    assert events[2].connection == 2
    assert events[4].detail == "it has had its messages"
    assert [event.message for event in events] == [0, 1, 0, 1, 0, 1]


@pytest.mark.parametrize(
    "options",
    [
        {"max_connections": 0},
        {"min_idle": 9},
        {"max_messages": 0},
        {"idle_timeout": 0},
        {"rate_limit": 5},
        {"rate_limit": (0, 1)},
        {"rate_limit": (1, 0)},
        {"connect_retries": -1},
        {"on_unknown": "maybe"},
        {"retry_delay": None},
        {"pipeline_depth": 0},
        {"max_waiting": -1},
        {"trace": 1},
    ],
)
def test_wrong_configuration_names_the_field(options: dict[str, object]) -> None:
    [name] = options
    with pytest.raises((TypeError, ValueError), match=name):
        PoolConfig(**options)  # type: ignore[arg-type]


# -- send_many


async def test_send_many_in_bounded_memory_with_errors_as_outcomes(net: Network, autojump_clock: Clock) -> None:
    taken = 0
    done = 0
    worst = 0

    def jobs() -> Iterator[trio_smtp.Job]:
        nonlocal taken, worst
        for i in range(500):
            taken += 1
            worst = max(worst, taken - done)
            yield ("a b" if i % 7 == 0 else "a@x.test", ["b@y.test"], b"%d" % i)

    async with pool_of(PoolConfig(max_waiting=0), max_connections=3) as pool, pool.send_many(jobs()) as outcomes:
        good = bad = 0
        async for outcome in outcomes:
            done += 1
            if outcome.error is None:
                assert outcome.result is not None
                good += 1
            else:
                assert isinstance(outcome.error, trio_smtp.LocalProtocolError)
                assert outcome.job[0] == "a b"
                bad += 1
    assert (good, bad) == (500 - 72, 72)
    assert worst <= 10
    assert len(net.accepted) == good


async def test_send_many_takes_an_async_iterable_whose_error_comes_out_after_the_outcomes(
    net: Network, autojump_clock: Clock
) -> None:
    closed = False

    async def jobs() -> AsyncIterator[trio_smtp.Job]:
        nonlocal closed
        try:
            for i in range(3):
                yield ("a@x.test", ["b@y.test"], b"%d" % i)
            raise KeyError("mine")
        finally:
            closed = True

    seen = 0
    async with pool_of() as pool:
        with pytest.raises(KeyError, match="mine"):  # noqa: PT012
            async with pool.send_many(jobs()) as outcomes:
                async for _ in outcomes:
                    seen += 1
    assert seen == 3
    assert closed


async def test_send_many_left_early_gives_up_what_is_being_sent(net: Network, autojump_clock: Clock) -> None:
    def jobs() -> Iterator[trio_smtp.Job]:
        while True:
            yield ("a@x.test", ["b@y.test"], b"x")

    async with pool_of() as pool:
        async with pool.send_many(jobs()) as outcomes:
            async for _ in outcomes:
                break
        await pool.drain()
        await send(pool)


async def test_send_many_wrong_job_is_its_own_outcome(net: Network, autojump_clock: Clock) -> None:
    async with pool_of() as pool, pool.send_many([42, ("a@x.test", ["b@y.test"], b"x")]) as outcomes:
        errors = [outcome.error async for outcome in outcomes]
    assert sorted(type(error).__name__ for error in errors) == ["NoneType", "TypeError"]


async def test_send_many_body_s_exception_comes_out_bare(net: Network, autojump_clock: Clock) -> None:
    async with pool_of() as pool:
        with pytest.raises(KeyError):
            async with pool.send_many([("a@x.test", ["b@y.test"], b"x")] * 100):
                raise KeyError


async def test_public_coroutines_are_checkpoints(net: Network, autojump_clock: Clock) -> None:
    async with pool_of() as pool:
        with trio.testing.assert_checkpoints():
            await send(pool)
        with trio.testing.assert_checkpoints():
            await pool.drain()
        with trio.CancelScope() as scope:
            scope.cancel()
            await send(pool)
        assert scope.cancelled_caught
    assert len(net.accepted) == 1


async def test_min_idle_outlives_a_host_callable_that_fails(
    net: Network, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    asked = 0

    async def hosts() -> str:
        nonlocal asked
        await trio.lowlevel.checkpoint()
        asked += 1
        if asked == 1:
            raise LookupError("the directory is down")
        return "mail.test"

    async with pool_of(PoolConfig(min_idle=1), host=hosts) as pool:
        await trio.sleep(0.1)
        assert pool.statistics().connections == 0
        await trio.sleep(10)
        assert pool.statistics().idle == 1
    assert "the directory is down" in caplog.text


@pytest.mark.parametrize("port", [0, 65536, -1])
async def test_ports_that_cannot_be(port: int) -> None:
    with pytest.raises(ValueError, match="from 1 to 65535"):
        async with pool_of(host=[("mail.test", port)]):
            pass


async def test_send_many_job_that_is_none_is_an_outcome(net: Network, autojump_clock: Clock) -> None:
    jobs: list[object] = [None, None, ("a@x.test", ["b@y.test"], b"x\r\n")]
    async with pool_of(max_connections=1) as pool, pool.send_many(jobs) as outcomes:
        seen = [outcome async for outcome in outcomes]
    assert [type(outcome.error) for outcome in seen if outcome.job is None] == [TypeError, TypeError]
    assert net.accepted == [b"x\r\n"]


def test_rate_limit_needs_its_seconds() -> None:
    with pytest.raises(TypeError, match="rate_limit is"):
        PoolConfig(rate_limit=(1, None))  # type: ignore[arg-type]


async def test_max_waiting_does_not_count_a_caller_whose_message_was_taken(net: Network, autojump_clock: Clock) -> None:
    async def many(pool: trio_smtp.Pool) -> None:
        for _ in range(100):
            await send(pool)

    config = PoolConfig(max_connections=1, max_waiting=1, max_messages=None)
    async with pool_of(config) as pool, trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(many, pool)
    assert len(net.accepted) == 200


async def test_leaving_does_not_wait_for_a_connection_that_nobody_needs(net: Network, autojump_clock: Clock) -> None:
    async def script(peer: Peer, number: int) -> None:
        await peer.drain()

    net.script = script
    started = trio.current_time()
    async with pool_of(PoolConfig(min_idle=1)):
        await trio.sleep(1)
    assert trio.current_time() - started < 2
