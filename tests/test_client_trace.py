"""What ClientConfig.trace is told of: one event for each thing that happens on a connection, with what it says."""

from __future__ import annotations

import re
from typing import Any, get_args

import pytest
import trio
import trio.testing
from client_peer import OFFERS, Peer, client_and, error_of
from tls_support import NAME, client_context

import trio_smtp
from trio_smtp import ClientConfig, ClientEvent, ClientEventName
from trio_smtp._client.trace import ClientWitness
from trio_smtp._protocol.server.observation import ServerEvent

MAIL, RCPT = "MAIL FROM:<a@x.test> SIZE=6", "RCPT TO:<b@y.test>"


@pytest.fixture
def events() -> list[ClientEvent]:
    return []


def traced(events: list[ClientEvent], **options: Any) -> ClientConfig:
    return ClientConfig(trace=events.append, **options)


def brief(events: list[ClientEvent], *names: str) -> list[tuple[object, ...]]:
    """Name, verb, code and detail of the events of these names, or of all."""
    return [(each.name, each.verb, each.code, each.detail) for each in events if not names or each.name in names]


async def test_a_connection_from_its_beginning_to_its_end(events: list[ClientEvent]) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet(*OFFERS)
        await peer.take_envelope()
        await peer.text()
        await peer.say("250 2.0.0 queued as 1")
        await peer.hear("VRFY b")
        await peer.say("252 perhaps")
        await peer.hear("XFOO bar")
        await peer.say("500 what?")
        await peer.goodbye()

    async with client_and(script, config=traced(events)) as client:
        await client.send("a@x.test", ["b@y.test"], b"text\r\n")
        await client.verify("b")
        await client.command("XFOO bar")
    greeting = events[0].detail
    assert brief(events) == [
        ("connect", "", 220, greeting),
        ("command", "EHLO", 250, events[1].detail),
        ("command", "MAIL", 250, "ok"),
        ("command", "RCPT", 250, "ok"),
        ("command", "DATA", 354, "go"),
        ("message", "DATA", 250, "queued as 1"),
        ("command", "VRFY", 252, "perhaps"),
        ("command", "", 500, "what?"),  # a word of one's own could be anything
        ("command", "QUIT", 221, events[8].detail),
        ("close", "", 221, "quit"),
    ]
    assert {each.error for each in events} == {None}
    assert [each.octets for each in events if each.name in ("message", "close")] == [6, 6]
    assert [each.octets for each in events if each.verb == "MAIL"] == [len(MAIL) + 2]


async def test_how_long_things_take(events: list[ClientEvent], autojump_clock: trio.testing.MockClock) -> None:
    async def script(peer: Peer) -> None:
        await trio.sleep(1)
        await peer.greet(*OFFERS)
        await peer.hear(MAIL, RCPT, "DATA")
        await trio.sleep(2)
        await peer.say("250 ok", "250 ok", "354 go")
        await peer.text()
        await trio.sleep(4)
        await peer.say("250 ok")
        await peer.goodbye()

    async with client_and(script, config=traced(events)) as client:
        await client.send("a@x.test", ["b@y.test"], b"text\r\n")
        await trio.sleep(8)
    seconds = {each.verb or each.name: each.seconds for each in events if each.name != "message"}
    assert seconds == pytest.approx({"connect": 1, "EHLO": 0, "MAIL": 2, "RCPT": 2, "DATA": 2, "QUIT": 0, "close": 15})
    assert [each.seconds for each in events if each.name == "message"] == [pytest.approx(6)]


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (["550 5.7.1 no", "503 no", "503 no"], ("message", "MAIL", 550, "no")),
        (["250 ok", "450 4.2.1 later", "503 no"], ("message", "RCPT", 450, "later")),
        (["250 ok", "250 ok", "451 4.3.0 ill"], ("message", "DATA", 451, "ill")),
    ],
)
async def test_the_reply_that_decides_is_a_messages(
    events: list[ClientEvent], answers: list[str], expected: tuple[object, ...]
) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet(*OFFERS)
        await peer.hear(MAIL, RCPT, "DATA")
        await peer.say(*answers)
        await peer.goodbye()

    async with client_and(script, config=traced(events)) as client:
        with pytest.raises(trio_smtp.SMTPError):
            await client.send("a@x.test", ["b@y.test"], b"text\r\n")
    assert brief(events, "message") == [expected]
    assert [(each.octets, each.error) for each in events if each.name == "message"] == [(0, None)]


async def test_chunks_are_commands_and_the_last_is_the_messages(events: list[ClientEvent]) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet(*OFFERS, "CHUNKING")
        await peer.hear("MAIL FROM:<a@x.test> BODY=8BITMIME", RCPT)
        await peer.say("250 ok", "250 ok")
        for size in (2**18, 2**18):
            await peer.hear(f"BDAT {size}")
            await peer.octets(size)
            await peer.say("250 ok")
        await peer.hear("BDAT 5 LAST")
        await peer.octets(5)
        await peer.say("250 done")
        await peer.goodbye()

    async def pieces() -> Any:
        yield b"x" * 2**19
        yield b"end"

    async with client_and(script, config=traced(events)) as client:
        await client.send("a@x.test", ["b@y.test"], pieces())
    assert [each[1:3] for each in brief(events, "command")] == [
        ("EHLO", 250),
        ("MAIL", 250),
        ("RCPT", 250),
        ("BDAT", 250),
        ("BDAT", 250),
        ("QUIT", 221),
    ]
    assert brief(events, "message") == [("message", "BDAT", 250, "done")]
    assert [each.octets for each in events if each.name == "message"] == [2**19 + 5]


async def test_lmtp_has_one_event_for_a_message(events: list[ClientEvent]) -> None:
    async def script(peer: Peer) -> None:
        await peer.say("220 mx.test LMTP")
        await peer.hear("LHLO me.test")
        await peer.say("250-mx.test", "250 PIPELINING")
        await peer.hear("MAIL FROM:<a@x.test>", RCPT, "RCPT TO:<c@y.test>", "DATA")
        await peer.say("250 ok", "250 ok", "250 ok", "354 go")
        await peer.text()
        await peer.say("452 full", "250 ok")
        await peer.goodbye()

    async with client_and(script, lmtp=True, config=traced(events)) as client:
        await client.send("a@x.test", ["b@y.test", "c@y.test"], b"text\r\n")
    assert brief(events, "message") == [("message", "DATA", 250, "1 of 2 recipients")]


async def test_a_transaction_in_pieces_that_is_given_up(events: list[ClientEvent]) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet(*OFFERS)
        await peer.hear("MAIL FROM:<a@x.test> BODY=8BITMIME", RCPT, "DATA")
        await peer.say("250 ok", "250 ok", "354 go")
        await peer.drain()

    async with client_and(script, config=traced(events)) as client:
        with pytest.raises(ZeroDivisionError):
            async with client.transaction("a@x.test", ["b@y.test"]):
                raise ZeroDivisionError
    [message] = [each for each in events if each.name == "message"]
    assert (message.verb, message.code, message.detail) == ("DATA", 0, "given up")
    assert isinstance(message.error, ZeroDivisionError)
    assert brief(events, "close") == [("close", "", 354, "error")]


@pytest.mark.parametrize("is_late", [True, False])
async def test_a_connection_that_ends_in_the_middle(
    events: list[ClientEvent], is_late: bool, autojump_clock: trio.testing.MockClock
) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet(*OFFERS)
        await peer.take_envelope()
        await peer.text()
        if is_late:
            await trio.sleep(700)
        await peer.aclose()

    kind = trio_smtp.SMTPTimeoutError if is_late else trio_smtp.ConnectionLostError
    async with client_and(script, config=traced(events)) as client:
        with pytest.raises(kind) as caught:
            await client.send("a@x.test", ["b@y.test"], b"text\r\n")
    message, close = events[-2:]
    assert (message.name, message.code, message.detail) == ("message", 0, "given up")
    assert message.error is caught.value
    assert caught.value.delivery == "unknown"
    assert (close.name, close.detail, close.error) == ("close", "timeout" if is_late else "lost", caught.value)


async def test_a_421_in_place_of_a_reply(events: list[ClientEvent]) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet(*OFFERS)
        await peer.hear(MAIL, RCPT, "DATA")
        await peer.say("421 4.3.2 going down")
        await peer.aclose()

    async with client_and(script, config=traced(events)) as client:
        with pytest.raises(trio_smtp.ConnectionLostError) as caught:
            await client.send("a@x.test", ["b@y.test"], b"text\r\n")
    assert brief(events, "message", "close") == [
        ("message", "MAIL", 421, "going down"),
        ("close", "", 421, "lost"),
    ]
    assert [each.error for each in events[-2:]] == [caught.value] * 2


async def test_the_servers_words_out_of_turn(events: list[ClientEvent]) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet(*OFFERS)
        await peer.hear("NOOP")
        await peer.say("250 ok", "250 and once more")
        await peer.drain()

    async with client_and(script, config=traced(events)) as client:
        await client.noop()
        with pytest.raises(trio_smtp.RemoteProtocolError) as caught:
            await client.noop()
    assert brief(events, "close") == [("close", "", 250, "protocol")]
    assert events[-1].error is caught.value


async def test_logins(events: list[ClientEvent]) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet(*OFFERS, "AUTH PLAIN")
        await peer.hear("AUTH PLAIN AG1lAHNlY3JldA==")
        await peer.say("535 5.7.8 no")
        await peer.goodbye()

    opening = client_and(script, auth=("me", "secret"), allow_insecure_auth=True, config=traced(events))
    assert isinstance(await error_of(opening), trio_smtp.AuthenticationError)
    assert brief(events, "auth", "command")[1:3] == [("auth", "AUTH", 535, "PLAIN"), ("command", "AUTH", 535, "no")]
    assert brief(events, "close") == [("close", "", 221, "quit")]
    assert "secret" not in repr(events)
    assert "AG1l" not in repr(events)


async def test_an_exchange_of_several_lines_is_one_command(
    events: list[ClientEvent], autojump_clock: trio.testing.MockClock
) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet(*OFFERS, "AUTH LOGIN")
        await peer.hear("AUTH LOGIN")
        await peer.say("334 VXNlcm5hbWU6")
        await peer.hear("bWU=")
        await trio.sleep(3)
        await peer.say("334 UGFzc3dvcmQ6")
        await peer.hear("c2VjcmV0")
        await peer.say("235 2.7.0 welcome")
        await peer.goodbye()

    async with client_and(script, auth=("me", "secret"), allow_insecure_auth=True, config=traced(events)):
        pass
    assert [each[1:] for each in brief(events, "auth", "command")][1:3] == [
        ("AUTH", 235, "LOGIN"),
        ("AUTH", 235, "welcome"),
    ]
    assert [each.seconds for each in events if each.verb == "AUTH"] == [pytest.approx(3)] * 2


async def test_handshakes(events: list[ClientEvent]) -> None:
    async def good(peer: Peer) -> None:
        await peer.greet(*OFFERS, "STARTTLS")
        await peer.hear("STARTTLS")
        await peer.say("220 go")
        await peer.start_tls()
        await peer.hear("EHLO me.test")
        await peer.say("250 mx.test")
        await peer.goodbye()

    async def bad(peer: Peer) -> None:
        await peer.greet(*OFFERS, "STARTTLS")
        await peer.hear("STARTTLS")
        await peer.say("220 go")
        await peer.send(b"this is no handshake, whatever else it may be\r\n")
        await peer.drain()

    options: dict[str, Any] = {"ssl_context": client_context(), "config": traced(events)}
    peer = Peer()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(good, peer)
        async with trio_smtp.open_client(NAME, stream=peer.far, local_hostname="me.test", **options):
            pass
    [tls] = [each for each in events if each.name == "tls"]
    assert re.fullmatch(r"TLSv1\.\d \w+", tls.detail)
    assert (tls.verb, tls.error) == ("STARTTLS", None)
    del events[:]
    error = await error_of(client_and(bad, **options))
    [tls] = [each for each in events if each.name == "tls"]
    assert (tls.verb, tls.detail) == ("STARTTLS", "")
    assert isinstance(tls.error, trio_smtp.TLSError)
    assert isinstance(error, trio_smtp.TLSError)
    assert brief(events, "close") == [("close", "", 220, "tls")]


async def test_a_server_that_is_not_reached(events: list[ClientEvent], monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*args: object, **options: object) -> None:
        raise ConnectionRefusedError(111, "refused")

    monkeypatch.setattr(trio, "open_tcp_stream", refuse)
    error = await error_of(trio_smtp.open_client("mail.test", config=traced(events)))
    assert events == [ClientEvent("connect", seconds=events[0].seconds, error=error)]


@pytest.mark.parametrize(("greeting", "code", "why"), [("554 no", 554, "refused"), (None, 0, "lost")])
async def test_a_server_that_does_not_greet(
    events: list[ClientEvent], greeting: str | None, code: int, why: str
) -> None:
    async def script(peer: Peer) -> None:
        if greeting is not None:
            await peer.say(greeting)
        await peer.aclose()

    error = await error_of(client_and(script, config=traced(events)))
    connect, close = events
    assert (connect.name, connect.code, connect.error) == ("connect", code, None if greeting else error)
    assert (close.name, close.code, close.detail) == ("close", code, why)


async def test_a_cancelled_opening(events: list[ClientEvent], autojump_clock: trio.testing.MockClock) -> None:
    async def script(peer: Peer) -> None:
        await peer.drain()

    with trio.move_on_after(1):
        async with client_and(script, config=traced(events)):
            raise AssertionError("it opened")
    connect, close = events
    assert isinstance(connect.error, trio.Cancelled)
    assert (close.detail, close.error) == ("cancelled", None)
    assert close.seconds == pytest.approx(1)


async def test_a_trace_function_that_raises_is_logged_once_and_hurts_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet(*OFFERS)
        await peer.take_envelope()
        await peer.text()
        await peer.say("250 ok")
        await peer.goodbye()

    def trace(event: ClientEvent) -> None:
        raise trio_smtp.ConnectionLostError(event.name)

    async with client_and(script, config=ClientConfig(trace=trace)) as client:
        assert (await client.send("a@x.test", ["b@y.test"], b"text\r\n")).accepted == ["b@y.test"]
    [record] = [each for each in caplog.records if "trace function failed" in each.getMessage()]
    assert record.getMessage() == "client: the trace function failed; further failures are not logged"


async def test_nothing_is_made_where_nothing_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet(*OFFERS)
        await peer.take_envelope()
        await peer.text()
        await peer.say("250 ok")
        await peer.goodbye()

    def fail(*args: object, **kwargs: object) -> None:
        raise AssertionError

    monkeypatch.setattr(ClientWitness, "__init__", fail)
    async with client_and(script) as client:
        await client.send("a@x.test", ["b@y.test"], b"text\r\n")


async def test_the_log_says_the_same_with_a_trace(events: list[ClientEvent], caplog: pytest.LogCaptureFixture) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet(*OFFERS)
        await peer.take_envelope()
        await peer.text()
        await peer.say("250 ok")
        await peer.goodbye()

    said: list[list[str]] = []
    for config in (ClientConfig(), traced(events)):
        caplog.clear()
        with caplog.at_level("DEBUG", "trio_smtp"):
            async with client_and(script, config=config) as client:
                await client.send("a@x.test", ["b@y.test"], b"text\r\n")
        said.append([record.getMessage() for record in caplog.records])
    assert said[0] == said[1]
    assert any("S: 354" in line for line in said[0])


def test_events_are_frozen_values() -> None:
    event = ClientEvent(name="close", code=221)
    with pytest.raises(AttributeError):
        event.code = 250  # type: ignore[misc]
    assert event == ClientEvent("close", code=221)


def test_the_fields_are_the_servers_but_for_the_session() -> None:
    assert [*(field for field in ServerEvent._fields if field != "session"), "pool_message"] == [*ClientEvent._fields]
    assert len(get_args(ClientEventName)) == 6


@pytest.mark.parametrize("value", [5, "print", []])
def test_a_trace_is_a_function(value: Any) -> None:
    with pytest.raises(TypeError, match="trace"):
        ClientConfig(trace=value)
