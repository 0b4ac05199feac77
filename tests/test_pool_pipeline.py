"""Several messages in flight on one connection: round trips saved, and each message's own certainty."""

from collections.abc import AsyncIterator
from dataclasses import replace
from email.message import EmailMessage
from functools import partial

import pytest
import trio
import trio.testing
from client_peer import Peer
from pool_server import Network, network, pool_of

import trio_smtp
from trio_smtp import Delivery, PoolConfig
from trio_smtp._client.connection import ClientConnection
from trio_smtp._pool.health import ServerHealth
from trio_smtp._protocol.client.transaction import Transaction

Clock = trio.testing.MockClock
DEEP = PoolConfig(pipeline_depth=4, max_connections=1, max_messages=None, connect_retries=0)
EARLY = trio_smtp.ClientConfig(early_text=True)


@pytest.fixture
async def net(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Network]:
    async with network(monkeypatch) as net:
        yield net


class Outcomes:
    """What became of the messages of one test."""

    def __init__(self) -> None:
        self.results: dict[bytes, trio_smtp.SendResult] = {}
        self.errors: dict[bytes, trio_smtp.SMTPError] = {}

    async def send(self, pool: trio_smtp.Pool, text: bytes) -> None:
        try:
            self.results[text] = await pool.send("a@x.test", ["b@y.test"], text)
        except trio_smtp.SMTPError as exc:
            self.errors[text] = exc


async def send_all(pool: trio_smtp.Pool, texts: list[bytes]) -> Outcomes:
    outcomes = Outcomes()
    async with trio.open_nursery() as nursery:
        for text in texts:
            nursery.start_soon(outcomes.send, pool, text)
            await trio.testing.wait_all_tasks_blocked(0.001)
    return outcomes


async def test_bdat_messages_follow_each_other_without_waiting(net: Network, autojump_clock: Clock) -> None:
    net.offers = ("PIPELINING", "CHUNKING")
    seen = 0

    async def script(peer: Peer, number: int) -> None:
        nonlocal seen
        await peer.greet(*net.offers)
        await net.message(peer)
        await peer.hear("MAIL FROM:<a@x.test>")
        await trio.sleep(0.5)
        seen = peer.heard.count(b"LAST")
        await peer.say("250 ok")
        while await net.message(peer):
            pass

    net.script = script
    net.delay = 0.5
    texts = [b"%d\r\n" % i for i in range(10)]
    async with pool_of(DEEP, client_config=EARLY) as pool:
        outcomes = await send_all(pool, texts)
    assert seen == 1 + 4
    assert net.accepted == texts
    assert len(outcomes.results) == 10


async def test_data_next_envelope_rides_behind_the_end_of_the_last(net: Network, autojump_clock: Clock) -> None:
    heard: list[bytes] = []

    async def script(peer: Peer, number: int) -> None:
        await peer.greet("PIPELINING")
        await net.message(peer)
        await peer.hear("MAIL FROM:<a@x.test>", "RCPT TO:<b@y.test>", "DATA")
        await peer.say("250 ok", "250 ok", "354 go")
        heard.append(await peer.text())
        await peer.hear("MAIL FROM:<a@x.test>", "RCPT TO:<b@y.test>", "DATA")
        await trio.sleep(0.5)
        await peer.say("250 one", "250 ok", "250 ok", "354 go")
        heard.append(await peer.text())
        await peer.say("554 two")
        while await net.message(peer):
            pass

    net.script = script
    net.delay = 0.5
    texts = [b"%d\r\n" % i for i in range(5)]
    async with pool_of(DEEP) as pool:
        outcomes = await send_all(pool, texts)
    assert heard == texts[1:3]
    assert outcomes.results[texts[1]].reply.text == "one"
    assert isinstance(outcomes.errors[texts[2]], trio_smtp.MessageRefusedError)
    assert len(outcomes.results) == 4


@pytest.mark.parametrize("size", [100, 100_000], ids=["small", "too large to be sent with others"])
async def test_a_message_counts_once_towards_max_messages(net: Network, autojump_clock: Clock, size: int) -> None:
    net.delay = 0.5
    async with pool_of(replace(DEEP, max_messages=10)) as pool:
        outcomes = await send_all(pool, [b"%d " % i + b"x" * size + b"\r\n" for i in range(20)])
    assert (len(outcomes.results), net.connections) == (20, 2)


@pytest.mark.parametrize("offers", [("PIPELINING",), ("PIPELINING", "CHUNKING")])
async def test_refusals_of_every_kind_reach_the_message_they_belong_to(
    net: Network, autojump_clock: Clock, offers: tuple[str, ...]
) -> None:
    async def script(peer: Peer, number: int) -> None:
        await peer.greet(*offers)
        mail = rcpt = True
        try:
            while (line := await peer.line()) != "QUIT":
                verb = line.split(" ")[0]
                if verb == "MAIL":
                    mail = "bad" not in line
                    rcpt = False
                    await peer.say("250 ok" if mail else "550 bad sender")
                elif verb == "RCPT":
                    rcpt = rcpt or (mail and "bad" not in line)
                    await peer.say("250 ok" if mail and "bad" not in line else "550 bad recipient")
                elif verb == "DATA":
                    await peer.say("354 go" if rcpt else "554 nobody")
                    if rcpt:
                        text = await peer.text()
                        await peer.say("554 bad text" if b"bad" in text else "250 taken")
                elif verb == "BDAT":
                    text = await peer.octets(int(line.split(" ")[1]))
                    await peer.say("250 taken" if rcpt and b"bad" not in text else "554 no")
                else:
                    await peer.say("250 ok")
            await peer.say("221 bye")
        except EOFError:
            pass

    net.script = script
    outcomes: list[str] = []

    async def one(pool: trio_smtp.Pool, i: int) -> None:
        bad = ["", "sender", "recipient", "text", ""][i % 5]
        sender, recipient = "bad" if bad == "sender" else "a", "bad" if bad == "recipient" else "b"
        try:
            await pool.send(f"{sender}@x.test", [f"{recipient}@y.test"], b"bad" if bad == "text" else b"good")
            outcomes.append("")
        except trio_smtp.SenderRefusedError:
            outcomes.append("sender")
        except trio_smtp.RecipientsRefusedError:
            outcomes.append("recipient")
        except trio_smtp.MessageRefusedError:
            outcomes.append("text")
        assert outcomes.pop() == bad
        outcomes.append(bad)

    async with pool_of(DEEP) as pool, trio.open_nursery() as nursery:
        for i in range(50):
            nursery.start_soon(one, pool, i)
    assert len(outcomes) == 50
    assert net.connections == 1


async def test_connection_lost_with_messages_in_flight_each_knows_its_fate(net: Network, autojump_clock: Clock) -> None:
    async def script(peer: Peer, number: int) -> None:
        if number > 1:
            return await net.sink(peer, number)
        await peer.greet("PIPELINING", "CHUNKING")
        await net.message(peer)
        for i in range(3):
            await peer.hear(*["RSET"][:i], "MAIL FROM:<a@x.test>", "RCPT TO:<b@y.test>")
            await peer.octets(int((await peer.line()).split(" ")[1]))
        await peer.say("250 ok", "250 ok", "250 taken", *["250 ok"] * 3, "554 no", *["250 ok"] * 2)
        return await peer.aclose()

    net.script = script
    net.delay = 0.5
    texts = [b"%d\r\n" % i for i in range(4)]
    async with pool_of(DEEP, client_config=EARLY) as pool:
        outcomes = await send_all(pool, texts)
    assert set(outcomes.results) == set(texts[:2])
    assert isinstance(outcomes.errors[texts[2]], trio_smtp.MessageRefusedError)
    assert outcomes.errors[texts[3]].delivery is Delivery.UNKNOWN
    assert outcomes.errors[texts[3]].unknown == ["b@y.test"]


@pytest.mark.parametrize("offers", [("PIPELINING",), ("PIPELINING", "CHUNKING")])
async def test_each_message_has_a_send_event_of_its_own_with_its_own_error(
    net: Network, autojump_clock: Clock, offers: tuple[str, ...]
) -> None:
    async def script(peer: Peer, number: int) -> None:
        if number > 1:
            return await net.sink(peer, number)
        await peer.greet(*offers)
        await net.message(peer)
        await net.message(peer)
        await peer.line()  # of the next one: RSET or MAIL
        return await peer.aclose()

    net.script = script
    net.delay = 0.5
    events: list[trio_smtp.TraceEvent] = []
    texts = [b"%d\r\n" % i for i in range(4)]
    async with pool_of(replace(DEEP, trace=events.append)) as pool:
        outcomes = await send_all(pool, texts)
    sends = [event for event in events if event.name == "send" and event.connection == 1]
    assert [event.error is None for event in sends] == [True, True, *[False] * (len(sends) - 2)]
    assert len(sends) > 2
    assert all(isinstance(event.error, trio_smtp.ConnectionLostError) for event in sends[2:])
    for text, error in outcomes.errors.items():
        assert text in texts[2:]
        assert error in [event.error for event in sends]
    assert sends[1].seconds == pytest.approx(0.5, abs=0.1)


async def test_each_message_of_a_batch_lets_the_limit_rise(net: Network, autojump_clock: Clock) -> None:
    net.offers = ("PIPELINING", "CHUNKING")
    net.delay = 0.5
    done = 0

    class CountingHealth(ServerHealth):
        def message_done(self) -> None:
            nonlocal done
            done += 1
            super().message_done()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trio_smtp._pool.opening.ServerHealth", CountingHealth)
        async with pool_of(DEEP) as pool:
            await send_all(pool, [b"%d\r\n" % i for i in range(9)])
    assert done == 9


async def test_message_never_goes_to_the_recipients_of_the_one_before(net: Network, autojump_clock: Clock) -> None:
    delivered: list[tuple[list[str], bytes]] = []

    async def script(peer: Peer, number: int) -> None:
        """A server that keeps the transaction when it refuses its text."""
        await peer.greet("PIPELINING", "CHUNKING")
        is_open, recipients = False, list[str]()
        while (line := await peer.line()) != "QUIT":
            answer = "250 ok"
            if line == "RSET":
                is_open, recipients = False, []
            elif line.startswith("MAIL"):
                answer = "503 nested MAIL" if is_open else answer
                is_open = True
            elif line.startswith("RCPT"):
                recipients.append(line)
            else:
                text = await peer.octets(int(line.split(" ")[1]))
                await trio.sleep(0.5)
                if text == b"1\r\n":
                    answer = "452 full"
                else:
                    delivered.append((recipients, text))
                    is_open, recipients = False, []
            await peer.say(answer)
        await peer.say("221 bye")

    outcomes: dict[int, object] = {}

    async def send(i: int) -> None:
        try:
            outcomes[i] = await pool.send("a@x.test", [f"r{i}@y.test"], b"%d\r\n" % i)
        except trio_smtp.SMTPError as exc:
            outcomes[i] = exc

    net.script = script
    async with pool_of(DEEP, client_config=EARLY) as pool, trio.open_nursery() as nursery:
        for i in range(4):
            nursery.start_soon(send, i)
            await trio.testing.wait_all_tasks_blocked(0.001)
    assert delivered == [([f"RCPT TO:<r{i}@y.test>"], b"%d\r\n" % i) for i in (0, 2, 3)]
    assert isinstance(outcomes.pop(1), trio_smtp.MessageRefusedError)
    assert all(isinstance(outcome, trio_smtp.SendResult) for outcome in outcomes.values())


async def test_message_that_does_not_fit_is_sent_alone(net: Network, autojump_clock: Clock) -> None:
    net.offers = ("PIPELINING", "CHUNKING")
    net.delay = 0.5

    async def script(peer: Peer, number: int) -> None:
        await peer.greet(*net.offers)
        text = b""
        try:
            while (line := await peer.line()) != "QUIT":
                if line.startswith("BDAT"):
                    text += await peer.octets(int(line.split(" ")[1]))
                    if "LAST" in line:
                        net.accepted.append(text)
                        text = b""
                        await trio.sleep(0.5)
                await peer.say("250 ok")
            await peer.say("221 bye")
        except EOFError:
            pass

    net.script = script
    texts = [b"0\r\n", b"1\r\n", b"2" * 500_000 + b"\r\n", b"3\r\n"]
    async with pool_of(DEEP) as pool:
        outcomes = await send_all(pool, texts)
    assert set(outcomes.results) == set(texts)
    assert sorted(net.accepted) == sorted(texts)


@pytest.mark.parametrize("offers", [("PIPELINING",), ("PIPELINING", "CHUNKING")])
async def test_cancelled_callers_harm_nobody_else(net: Network, autojump_clock: Clock, offers: tuple[str, ...]) -> None:
    net.offers = offers
    net.delay = 1
    sent: list[bytes] = []
    cancelled: list[bytes] = []

    async def one(i: int) -> None:
        text = b"%d\r\n" % i
        with trio.move_on_after(0.35 * i if i % 2 else 1000) as scope:
            await pool.send("a@x.test", ["b@y.test"], text)
            sent.append(text)
        if scope.cancelled_caught:
            cancelled.append(text)

    config = PoolConfig(pipeline_depth=4, max_connections=2, max_messages=None)
    async with pool_of(config) as pool, trio.open_nursery() as nursery:
        for i in range(60):
            nursery.start_soon(one, i)
    assert len(net.accepted) == len(set(net.accepted))
    assert set(sent) <= set(net.accepted)
    assert len(sent) + len(cancelled) == 60
    assert {b"%d\r\n" % i for i in range(0, 60, 2)} <= set(sent)


class Late:
    """A message whose sender is cancelled, and what came of it."""

    def __init__(self, pool: trio_smtp.Pool, text: bytes) -> None:
        self._pool = pool
        self._text = text
        self.scope = trio.CancelScope()
        self.left = -1.0

    async def send(self) -> None:
        with self.scope:
            await self._pool.send("a@x.test", ["b@y.test"], self._text)
        assert self.scope.cancelled_caught
        self.left = trio.current_time()


async def test_cancelled_before_its_354_leaves_at_once_and_the_connection_ends(
    net: Network, autojump_clock: Clock
) -> None:
    async def script(peer: Peer, number: int) -> None:
        if number > 1:
            return await net.sink(peer, number)
        await peer.greet("PIPELINING")
        await net.message(peer)
        await peer.hear("MAIL FROM:<a@x.test>", "RCPT TO:<b@y.test>", "DATA")
        await peer.say("250 ok", "250 ok")
        return await peer.closed()

    net.script = script
    async with pool_of(DEEP) as pool:
        await pool.send("a@x.test", ["b@y.test"], b"1\r\n")
        late = Late(pool, b"2\r\n")
        late.scope.deadline = trio.current_time() + 1
        await late.send()
        assert late.left == late.scope.deadline
        await pool.send("a@x.test", ["b@y.test"], b"3\r\n")
    assert net.accepted == [b"1\r\n", b"3\r\n"]
    assert net.connections == 2


async def test_cancelled_behind_another_leaves_at_once_and_is_never_sent(net: Network, autojump_clock: Clock) -> None:
    async def script(peer: Peer, number: int) -> None:
        if number > 1:
            return await net.sink(peer, number)
        await peer.greet("PIPELINING")
        await net.message(peer)
        await peer.hear("MAIL FROM:<a@x.test>", "RCPT TO:<b@y.test>", "DATA")
        await trio.sleep(0.5)
        await peer.say("250 ok", "250 ok", "354 go")
        assert await peer.text() == b"2\r\n"
        await peer.hear("MAIL FROM:<a@x.test>", "RCPT TO:<b@y.test>", "DATA")
        await trio.sleep(60)
        await peer.say("250 taken")
        return await peer.closed()

    net.script = script
    outcomes = Outcomes()
    async with pool_of(DEEP) as pool:
        await pool.send("a@x.test", ["b@y.test"], b"1\r\n")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outcomes.send, pool, b"2\r\n")
            await trio.testing.wait_all_tasks_blocked()
            late = Late(pool, b"3\r\n")
            nursery.start_soon(late.send)
            await trio.sleep(1)
            late.scope.cancel()
            await trio.sleep(1)
            assert late.left == trio.current_time() - 1
        await pool.send("a@x.test", ["b@y.test"], b"4\r\n")
    assert list(outcomes.results) == [b"2\r\n"]
    assert net.accepted == [b"1\r\n", b"4\r\n"]
    assert net.connections == 2


@pytest.mark.parametrize("offers", [("PIPELINING",), ("PIPELINING", "CHUNKING")])
@pytest.mark.parametrize("at_end", [False, True])
async def test_cancelled_while_the_connection_is_looked_at_is_never_sent(
    net: Network, autojump_clock: Clock, offers: tuple[str, ...], at_end: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = ClientConnection.look

    async def look(connection: ClientConnection, transaction: Transaction | None = None) -> bool:
        if (transaction is not None) is at_end:
            await trio.sleep(1)
        return await slow(connection, transaction)

    net.offers = offers
    async with pool_of(DEEP) as pool:
        await pool.send("a@x.test", ["b@y.test"], b"1\r\n")
        monkeypatch.setattr(ClientConnection, "look", look)
        with trio.move_on_after(0.5) as scope:
            await pool.send("a@x.test", ["b@y.test"], b"2\r\n")
        monkeypatch.setattr(ClientConnection, "look", slow)
        await pool.send("a@x.test", ["b@y.test"], b"3\r\n")
    assert net.accepted[-1] == b"3\r\n"
    assert (b"2\r\n" in net.accepted) is not scope.cancelled_caught


async def test_cancelled_while_set_aside_leaves_the_message_alone_that_is_sent_meanwhile(
    net: Network, autojump_clock: Clock
) -> None:
    """The last in flight has the connection for itself. Refused for the order, it waits behind others that need it."""

    async def script(peer: Peer, number: int) -> None:
        await peer.greet("PIPELINING", "CHUNKING")
        await net.message(peer)
        answers: list[str] = []
        for _ in range(3):
            is_first = not answers
            while (line := await peer.line()) != "BDAT 3 LAST":
                answers.append("250 ok" if is_first or line == "RSET" else "503 out of order")
            await peer.octets(3)
            answers.append("250 taken" if is_first else "503 out of order")
        await trio.sleep(0.5)
        await peer.say(*answers)
        await peer.hear("RSET")
        await peer.say("250 ok")
        await peer.hear("MAIL FROM:<a@x.test>", "RCPT TO:<b@y.test>", "BDAT 3 LAST")
        assert await peer.octets(3) == b"3\r\n"
        await trio.sleep(60)  # meanwhile the caller of the fourth leaves
        await peer.say("250 ok", "250 ok", "250 taken")
        await peer.hear("QUIT")
        await peer.say("221 bye")

    net.script = script
    outcomes = Outcomes()
    async with pool_of(DEEP, client_config=EARLY) as pool, trio.open_nursery() as nursery:
        await pool.send("a@x.test", ["b@y.test"], b"1\r\n")
        for text in (b"2\r\n", b"3\r\n"):
            nursery.start_soon(outcomes.send, pool, text)
            await trio.lowlevel.checkpoint()
        late = Late(pool, b"4\r\n")
        nursery.start_soon(late.send)
        await trio.sleep(30)
        late.scope.cancel()
        await trio.sleep(1)
        assert late.left == trio.current_time() - 1
    assert not outcomes.errors
    assert sorted(outcomes.results) == [b"2\r\n", b"3\r\n"]


@pytest.mark.parametrize("alone", [True, False])
async def test_cancelled_after_its_end_has_left_waits_for_the_grace_and_no_longer(
    net: Network, autojump_clock: Clock, alone: bool
) -> None:
    async def script(peer: Peer, number: int) -> None:
        if number > 1:
            return await net.sink(peer, number)
        await peer.greet("PIPELINING", "CHUNKING")
        await net.message(peer)
        await peer.hear("MAIL FROM:<a@x.test>")
        if alone:
            return await peer.drain()
        await trio.sleep(60)
        await peer.say(*["250 ok"] * 7)
        return await peer.drain()

    net.script = script
    outcomes = Outcomes()
    async with pool_of(DEEP, client_config=EARLY) as pool:
        await pool.send("a@x.test", ["b@y.test"], b"1\r\n")
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            late = Late(pool, b"2\r\n")
            nursery.start_soon(late.send)
            if not alone:
                nursery.start_soon(outcomes.send, pool, b"3\r\n")
            await trio.sleep(1)
            late.scope.cancel()
        assert late.left == 1 + 10
    assert len(outcomes.results) == (not alone)
    assert net.connections == 1


async def test_pool_cancelled_while_the_connection_is_looked_at(
    net: Network, autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = ClientConnection.look

    async def look(connection: ClientConnection, transaction: Transaction | None = None) -> bool:
        await trio.sleep(10)
        return await slow(connection, transaction)

    net.offers = ("PIPELINING", "CHUNKING")
    net.delay = 0.5
    outcomes = Outcomes()
    with trio.fail_after(100):
        async with trio.open_nursery() as nursery:
            with trio.move_on_after(2):
                async with pool_of(DEEP, client_config=EARLY) as pool:
                    await pool.send("a@x.test", ["b@y.test"], b"1\r\n")
                    send = partial(outcomes.send, pool)
                    nursery.start_soon(send, b"2\r\n")
                    await trio.sleep(0.2)
                    nursery.start_soon(send, b"3\r\n")
                    monkeypatch.setattr(ClientConnection, "look", look)
                    await trio.sleep_forever()
    assert list(outcomes.results) == [b"2\r\n"]
    assert outcomes.errors[b"3\r\n"].delivery is Delivery.NOT_SENT


async def test_pool_cancelled_with_messages_in_flight(net: Network, autojump_clock: Clock) -> None:
    net.offers = ("PIPELINING", "CHUNKING")
    net.delay = 7
    outcomes = Outcomes()
    async with trio.open_nursery() as nursery:
        with trio.move_on_after(10):
            async with pool_of(DEEP, client_config=EARLY) as pool:
                send = partial(outcomes.send, pool)
                for i in range(6):
                    nursery.start_soon(send, b"%d\r\n" % i)
                    await trio.testing.wait_all_tasks_blocked(0.001)
                await trio.sleep_forever()
    assert len(outcomes.results) + len(outcomes.errors) == 6
    assert set(outcomes.results) <= set(net.accepted)
    assert set(outcomes.results) == {b"0\r\n", b"1\r\n"}  # the second came in the seconds of grace
    for text, error in outcomes.errors.items():
        assert error.delivery is (Delivery.NOT_SENT if text == b"5\r\n" else Delivery.UNKNOWN), text


@pytest.mark.parametrize("offers", [("PIPELINING",), ("PIPELINING", "CHUNKING")])
async def test_message_that_cannot_be_made_octets_harms_nobody_else(
    net: Network, autojump_clock: Clock, offers: tuple[str, ...]
) -> None:
    net.offers = offers
    net.delay = 0.5
    bad = EmailMessage()
    bad["From"], bad["To"] = "a@x.test", "b@y.test"
    bad.set_content("x")
    bad.set_payload(object())  # type: ignore[call-overload]
    errors: list[Exception] = []

    async def send_bad(pool: trio_smtp.Pool) -> None:
        try:
            await pool.send_message(bad)
        except Exception as exc:
            errors.append(exc)

    async with pool_of(DEEP) as pool:
        await pool.send("a@x.test", ["b@y.test"], b"first\r\n")
        await send_bad(pool)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_all, pool, [b"1\r\n", b"2\r\n"])
            await trio.testing.wait_all_tasks_blocked(0.01)
            nursery.start_soon(send_bad, pool)
    assert len(errors) == 2
    assert net.accepted == [b"first\r\n", b"1\r\n", b"2\r\n"]


async def test_reply_to_a_pipelined_rset_that_never_comes_leaves_an_error_with_a_stage(
    net: Network, autojump_clock: Clock
) -> None:
    async def script(peer: Peer, number: int) -> None:
        await peer.greet("PIPELINING", "CHUNKING")
        await net.message(peer)
        for i in range(2):
            await peer.hear(*["RSET"][:i], "MAIL FROM:<a@x.test>", "RCPT TO:<b@y.test>", "BDAT 3 LAST")
            await peer.octets(3)
        await peer.say("250 ok", "250 ok", "250 taken")
        await peer.aclose()

    net.script = script
    net.delay = 0.5
    async with pool_of(DEEP, client_config=EARLY) as pool:
        outcomes = await send_all(pool, [b"%d\r\n" % i for i in range(3)])
    [error] = outcomes.errors.values()
    assert (error.stage, error.delivery) == ("mail", Delivery.UNKNOWN)


async def test_an_envelope_in_flight_has_the_limit_of_its_commands(net: Network, autojump_clock: Clock) -> None:
    """From when its replies are awaited: behind the reply to the end before it, which may take longer."""

    async def script(peer: Peer, number: int) -> None:
        await peer.greet("PIPELINING")
        await net.message(peer)
        if number == 1:
            await peer.take_message("MAIL FROM:<a@x.test>")
            await peer.hear("MAIL FROM:<a@x.test>", "RCPT TO:<b@y.test>", "DATA")
            await trio.sleep(500)
            await peer.say("250 taken")
            await peer.drain()

    net.script = script
    net.delay = 0.5
    client_config = trio_smtp.ClientConfig(command_timeout=60, end_timeout=600)
    async with pool_of(DEEP, client_config=client_config) as pool:
        outcomes = await send_all(pool, [b"0\r\n", b"1\r\n", b"2\r\n"])
        assert trio.current_time() < 600
    assert set(outcomes.results) >= {b"0\r\n", b"1\r\n"}
    for error in outcomes.errors.values():
        assert isinstance(error, trio_smtp.SMTPTimeoutError)
        assert (error.stage, error.delivery) == ("mail", Delivery.NOT_SENT)
        assert "within 60" in str(error)


async def test_replies_that_came_before_a_send_failed_count(net: Network, autojump_clock: Clock) -> None:
    async def script(peer: Peer, number: int) -> None:
        await peer.greet("PIPELINING", "CHUNKING")
        await net.message(peer)
        await peer.hear("MAIL…", "RCPT…", "BDAT 3 LAST", "…")
        for _ in range(3):
            await peer.hear("RSET", "MAIL…", "RCPT…", "BDAT 3 LAST", "…")
        peer.stream.receive_stream.close()  # type: ignore[attr-defined]
        replies = "250 ok\r\n250 ok\r\n250 taken\r\n"
        await peer.send(f"{replies}250 ok\r\n{replies}".encode())
        await peer.aclose()

    net.script = script
    net.delay = 0.5
    texts = [b"%d\r\n" % i for i in range(6)]
    async with pool_of(DEEP, client_config=EARLY) as pool:
        outcomes = await send_all(pool, texts)
    assert set(outcomes.results) == set(texts[:3])
    assert {text: error.delivery for text, error in outcomes.errors.items()} == dict.fromkeys(
        texts[3:], Delivery.UNKNOWN
    )


# -- servers that do not bear an envelope behind an end


class Breaking:
    """A server that takes messages, but not an envelope that came behind an end before its reply."""

    def __init__(self, net: Network, manner: str) -> None:
        self._net = net
        self.manner = manner
        self.rode = 0

    async def script(self, peer: Peer, number: int) -> None:
        await peer.greet("PIPELINING")
        try:
            while (line := await peer.line()) != "QUIT":
                if line != "DATA":
                    await peer.say("250 ok")
                    continue
                await peer.say("354 go")
                self._net.accepted.append(await peer.text())
                with trio.move_on_after(0.5) as waiting:
                    await peer.line()
                if not waiting.cancelled_caught and await self._is_over(peer):
                    return
                if waiting.cancelled_caught:
                    await peer.say("250 taken")
            await peer.say("221 bye")
        except EOFError:
            pass

    async def _is_over(self, peer: Peer) -> bool:
        self.rode += 1
        await peer.hear("RCPT TO:<b@y.test>", "DATA")
        if self.manner == "503":
            await peer.say("250 taken", *["503 out of order"] * 3)
        elif self.manner == "421":
            await peer.say("250 taken", "421 too much")
        elif self.manner == "forgets":
            await peer.say("250 taken")
        return self.manner in ("421", "dies")


@pytest.mark.parametrize("manner", ["503", "421", "forgets", "dies"])
async def test_host_that_does_not_bear_envelopes_behind_an_end_is_found_out_once(
    net: Network, autojump_clock: Clock, manner: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "trio_smtp")
    events: list[trio_smtp.TraceEvent] = []
    server = Breaking(net, manner)
    net.script = server.script
    texts = [b"%d\r\n" % i for i in range(12)]
    async with pool_of(replace(DEEP, trace=events.append)) as pool:
        outcomes = await send_all(pool, texts)
    in_doubt = list(outcomes.errors.values())
    if manner == "dies":  # with the reply to the message before, which the server has
        assert [error.delivery for error in in_doubt] == [Delivery.UNKNOWN]
    else:
        assert not in_doubt
    assert sorted(net.accepted) == sorted(texts)
    assert server.rode == 1
    assert [event.detail for event in events if event.name == "alone"] == ["mail.test:25"]
    assert sum("does not bear" in record.getMessage() for record in caplog.records) == 1


async def test_what_was_sent_behind_a_421_is_sent_again(net: Network, autojump_clock: Clock) -> None:
    """Whole messages in flight: the server has read none behind its 421."""

    async def script(peer: Peer, number: int) -> None:
        if number > 1:
            return await net.sink(peer, number)
        await peer.greet("PIPELINING", "CHUNKING")
        await net.message(peer)
        for i in range(4):
            await peer.hear(*["RSET"][:i], "MAIL FROM:<a@x.test>", "RCPT TO:<b@y.test>")
            text = await peer.octets(int((await peer.line()).split(" ")[1]))
            if not i:
                net.accepted.append(text)
        await peer.say("250 ok", "250 ok", "250 taken", "250 ok", "421 too many messages")
        return await peer.aclose()

    net.script = script
    net.delay = 0.5
    texts = [b"%d\r\n" % i for i in range(8)]
    async with pool_of(DEEP, client_config=EARLY) as pool:
        outcomes = await send_all(pool, texts)
    assert not outcomes.errors
    assert sorted(net.accepted) == sorted(texts)


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA"])
@pytest.mark.parametrize("depth", [1, 4])
async def test_421_before_the_end_on_a_used_connection_refuses_no_message(
    net: Network, autojump_clock: Clock, verb: str, depth: int
) -> None:
    async def script(peer: Peer, number: int) -> None:
        await peer.greet("PIPELINING")
        if not await net.message(peer):
            return None
        try:
            while not (line := await peer.line()).startswith(verb):
                if line == "QUIT":
                    return await peer.say("221 bye")
                await peer.say("250 ok")
            await peer.say("421 that is enough")
        except EOFError:
            pass

    net.script = script
    texts = [b"%d\r\n" % i for i in range(5)]
    async with pool_of(replace(DEEP, pipeline_depth=depth)) as pool:
        outcomes = await send_all(pool, texts)
    assert not outcomes.errors
    assert sorted(net.accepted) == sorted(texts)


async def test_a_rider_that_is_refused_for_its_own_sake_is_refused(net: Network, autojump_clock: Clock) -> None:
    """No sign: an ordinary refusal of its MAIL, or of its recipient."""

    async def script(peer: Peer, number: int) -> None:
        await peer.greet("PIPELINING")
        try:
            while (line := await peer.line()) != "QUIT":
                if line == "DATA":
                    await peer.say("354 go")
                    net.accepted.append(await peer.text())
                    await trio.sleep(0.5)
                    await peer.say("250 taken")
                elif "bad" in line:
                    await peer.say("550 bad")
                    await peer.hear("DATA")
                    await peer.say("554 no recipient")
                else:
                    await peer.say("250 ok")
            await peer.say("221 bye")
        except EOFError:
            pass

    events: list[trio_smtp.TraceEvent] = []
    errors: list[trio_smtp.SMTPError] = []

    async def send_bad(pool: trio_smtp.Pool) -> None:
        try:
            await pool.send("a@x.test", ["bad@y.test"], b"x\r\n")
        except trio_smtp.RecipientsRefusedError as exc:
            errors.append(exc)

    net.script = script
    async with pool_of(replace(DEEP, trace=events.append)) as pool, trio.open_nursery() as nursery:
        for number in range(6):
            nursery.start_soon(partial(pool.send, "a@x.test", ["b@y.test"], b"%d\r\n" % number))
            nursery.start_soon(send_bad, pool)
    assert len(errors) == len(net.accepted) == 6
    assert "alone" not in [event.name for event in events]


async def test_a_host_that_has_taken_a_rider_is_not_blamed_for_a_lost_connection(
    net: Network, autojump_clock: Clock
) -> None:
    async def script(peer: Peer, number: int) -> None:
        if number > 1:
            return await net.sink(peer, number)
        await peer.greet("PIPELINING")
        for _ in range(4):
            await net.message(peer)
        await peer.line()
        return await peer.aclose()

    events: list[trio_smtp.TraceEvent] = []
    net.script = script
    net.delay = 0.5
    texts = [b"%d\r\n" % i for i in range(8)]
    async with pool_of(replace(DEEP, trace=events.append)) as pool:
        outcomes = await send_all(pool, texts)
    assert not outcomes.errors
    assert sorted(net.accepted) == sorted(texts)
    assert "alone" not in [event.name for event in events]


async def test_a_lost_rider_that_another_connection_takes_is_alone_there(net: Network, autojump_clock: Clock) -> None:
    """The connection has others in flight: their replies come first, and nothing rides behind it."""

    async def script(peer: Peer, number: int) -> None:
        if number == 1:
            await peer.greet("PIPELINING")
            for _ in range(4):
                await net.message(peer)
            await peer.line()
            await peer.aclose()
            return
        await net.sink(peer, number)

    events: list[trio_smtp.TraceEvent] = []
    net.script = script
    net.delay = 0.5
    texts = [b"%d\r\n" % i for i in range(24)]
    config = replace(DEEP, trace=events.append, max_connections=2)
    async with pool_of(config) as pool:
        outcomes = await send_all(pool, texts)
    assert not outcomes.errors
    assert sorted(net.accepted) == sorted(texts)
    sends = [event for event in events if event.name == "send"]
    lost = [event for event in sends if event.error is not None]
    assert len(lost) == 1
    alone = [event for event in sends if event.detail != "pipeline"]
    assert len(alone) == net.connections + len(lost)


async def test_a_cancelled_rider_that_is_refused_is_not_sent_again(net: Network, autojump_clock: Clock) -> None:
    server = Breaking(net, "503")
    net.script = server.script
    async with pool_of(DEEP) as pool, trio.open_nursery() as nursery:
        await pool.send("a@x.test", ["b@y.test"], b"first\r\n")
        nursery.start_soon(partial(pool.send, "a@x.test", ["b@y.test"], b"second\r\n"))
        await trio.testing.wait_all_tasks_blocked(0.001)
        with trio.move_on_after(0.2) as scope:
            await pool.send("a@x.test", ["b@y.test"], b"rider\r\n")
        assert scope.cancelled_caught
    assert net.accepted == [b"first\r\n", b"second\r\n"]


@pytest.mark.parametrize("manner", ["503", "421", "forgets", "ten", "ten, BDAT"])
async def test_sixty_messages_through_a_server_that_does_not_bear_what_pipelining_allows(
    net: Network, autojump_clock: Clock, manner: str
) -> None:
    """`ten`: it says 421 to the eleventh MAIL of a connection, as an Exim that is told so. The others: see Breaking."""

    async def limited(peer: Peer, number: int) -> None:
        await peer.greet("PIPELINING", *["CHUNKING"] * ("BDAT" in manner))
        mails = 0
        try:
            while (line := await peer.line()) != "QUIT":
                mails += line.startswith("MAIL")
                if mails > 10:  # it stays for a while, and answers
                    await peer.say("421 too many messages in this connection" if line[0] == "M" else "503 no sender")
                    continue
                if line.startswith("BDAT"):
                    net.accepted.append(await peer.octets(int(line.split(" ")[1])))
                await peer.say("354 go" if line == "DATA" else "250 ok")
                if line == "DATA":
                    net.accepted.append(await peer.text())
                    await peer.say("250 taken")
            await peer.say("221 bye")
        except (EOFError, trio.BrokenResourceError):
            pass

    net.script = limited if manner.startswith("ten") else Breaking(net, manner).script
    config = PoolConfig(pipeline_depth=4, max_connections=2, retry_delay=0)
    texts = [b"%d\r\n" % i for i in range(60)]
    started = trio.current_time()
    async with (
        pool_of(config) as pool,
        pool.send_many([("a@x.test", ["b@y.test"], text) for text in texts]) as outcomes,
    ):
        errors = [outcome.error async for outcome in outcomes if outcome.error is not None]
    seconds = trio.current_time() - started
    print(f"{manner}: {len(errors)} of 60 not sent, in {seconds:.0f} s")  # noqa: T201 - with -rP
    assert not errors
    assert sorted(net.accepted) == sorted(texts)
