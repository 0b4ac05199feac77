# What ServerConfig.trace is told of: one event for each thing that happens, in order, with what it says.
from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest
import trio
from loopback import serving_tcp
from support import DATA, MAIL, Recorder, make_server, serving, session
from tls_support import NAME, client_context, server_context
from trio.testing import wait_all_tasks_blocked

from trio_smtp import ConnectionLostError, Reject, Reply, ServerEvent, ServerEventName, SMTPTimeoutError
from trio_smtp._server.trace import Witness

PAGE = (Path(__file__).parent.parent / "docs" / "observing.md").read_text(encoding="utf-8")


@pytest.fixture
def events() -> list[ServerEvent]:
    return []


def brief(events: list[ServerEvent], *names: str) -> list[tuple[object, ...]]:
    """Name, verb, code and detail of the events of these names."""
    return [(each.name, each.verb, each.code, each.detail) for each in events if each.name in names]


async def test_a_session_from_its_beginning_to_its_end(events):
    async def on_data(session, envelope, body):
        await body.read()
        return "Q1"

    handler = Recorder(on_data=on_data)
    async with session(handler, trace=events.append) as peer:
        await peer.speak(DATA + "C: text\nC: .\nS: 250…\nC: QUIT\nS: 221…\nS: <closed>")
    assert brief(events, *get_args(ServerEventName)) == [
        ("hook", "", 0, "on_connect"),
        ("connect", "", 220, "mx.test ESMTP trio_smtp"),
        ("hook", "", 0, "on_hello"),
        ("command", "EHLO", 250, events[3].detail),
        ("hook", "", 0, "on_mail"),
        ("command", "MAIL", 250, "OK"),
        ("hook", "", 0, "on_rcpt"),
        ("command", "RCPT", 250, "OK"),
        ("command", "DATA", 354, "end data with <CR><LF>.<CR><LF>"),
        ("hook", "", 0, "on_data"),
        ("message", "DATA", 250, "OK: queued as Q1"),
        ("command", "QUIT", 221, "mx.test closing connection"),
        ("hook", "", 0, "on_close"),
        ("close", "", 221, "quit"),
    ]
    assert {each.session for each in events} == {handler.sessions[0]}
    assert {each.error for each in events} == {None}
    assert [each.octets for each in events if each.name == "message"] == [len("text\r\n")]
    assert events[-1].octets == len("text\r\n")
    assert [each.octets for each in events if each.verb == "MAIL"] == [len("MAIL FROM:<a@a.test>\r\n")]


async def test_how_long_things_take(events, autojump_clock):
    async def on_data(session, envelope, body):
        await trio.sleep(2)
        await body.read()
        await trio.sleep(1)

    async def on_mail(session, sender):
        await trio.sleep(5)

    async with session(Recorder(on_data=on_data, on_mail=on_mail), trace=events.append) as peer:
        await peer.send("MAIL FROM:<a@a.test>\r\n")
        await peer.reply()
        await peer.send("RCPT TO:<b@b.test>\r\nDATA\r\n")
        await peer.speak("S: 250…\nS: 354…")
        await trio.sleep(30)
        await peer.speak("C: .\nS: 250…")
    seconds = {each.detail or each.name: each.seconds for each in events if each.name == "hook"}
    assert seconds["on_mail"] == pytest.approx(5)
    assert seconds["on_data"] == pytest.approx(3)  # its own time
    [mail] = [each.seconds for each in events if each.verb == "MAIL"]
    assert mail == pytest.approx(5)
    [message] = [each.seconds for each in events if each.name == "message"]
    assert message == pytest.approx(33)
    assert events[-1].name == "close"
    assert events[-1].seconds == pytest.approx(38)


@pytest.mark.parametrize("reads_first", [True, False])
async def test_a_message_whose_hook_has_ended_before_it_lasts_to_its_reply(events, autojump_clock, reads_first: bool):
    async def on_data(session, envelope, body):
        await trio.sleep(1)
        if reads_first:
            await anext(body)
        return Reply(550, "no") if reads_first else None

    async with session(Recorder(on_data=on_data), trace=events.append) as peer:
        await peer.speak(MAIL + "C: DATA\nS: 354…\nC: text")
        await trio.sleep(20)
        await peer.speak(f"C: more\nC: .\nS: {550 if reads_first else 250}…")
    [message] = [each.seconds for each in events if each.name == "message"]
    assert message == pytest.approx(21)
    [hook] = [each.seconds for each in events if each.detail == "on_data"]
    assert hook == pytest.approx(1)
    [data] = [each.seconds for each in events if each.verb == "DATA" and each.name == "command"]
    assert data == pytest.approx(1)


async def test_a_command_that_waits_for_older_replies_to_leave_has_its_own_time(events, autojump_clock):
    async def on_vrfy(session, argument):
        await trio.sleep(6)

    async with session(Recorder(on_vrfy=on_vrfy), trace=events.append) as peer:
        await peer.send("VRFY a\r\nVRFY b\r\nVRFY c\r\n")
        await peer.speak("S: 252…\nS: 252…\nS: 252…")
    assert [each.seconds for each in events if each.verb == "VRFY"] == [pytest.approx(6)] * 3


async def test_chunks_take_time_and_the_commands_between_messages_take_none(events, autojump_clock):
    async with session(trace=events.append) as peer:
        await peer.speak(MAIL + "C: BDAT 40\n")
        await trio.sleep(3)
        await peer.send(b"x" * 40)
        await peer.speak("S: 250…")
        await trio.sleep(5)
        await peer.send("BDAT 20 LAST\r\n")
        await trio.sleep(2)
        await peer.send("x" * 20 + "NOOP\r\n")
        await peer.speak("S: 250…\nS: 250…")
    timed = [(each.name, each.verb, round(each.seconds)) for each in events if each.verb in ("BDAT", "NOOP")]
    assert timed == [("command", "BDAT", 3), ("message", "BDAT", 10), ("command", "NOOP", 0)]


async def test_pipelined_commands_have_each_their_reply(events):
    async with session(Recorder(on_vrfy=Reply(550, "no")), trace=events.append) as peer:
        await peer.send("MAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\nRCPT TO:<bad\r\nDATA\r\n")
        await peer.speak("S: 250…\nS: 250…\nS: 501…\nS: 354…")
        await peer.send("x\r\n.\r\nNOOP\r\nfoo bar\r\nVRFY x\r\nMAIL FROM:<>\r\nRSET\r\n")
        await peer.speak("S: 250…\nS: 250…\nS: 500…\nS: 550…\nS: 250…\nS: 250…")
    assert [each[:3] for each in brief(events, "command", "message")][1:] == [
        ("command", "MAIL", 250),
        ("command", "RCPT", 250),
        ("command", "RCPT", 501),
        ("command", "DATA", 354),
        ("message", "DATA", 250),
        ("command", "NOOP", 250),
        ("command", "", 500),  # the verb is the client's own, and could be anything
        ("command", "VRFY", 550),
        ("command", "MAIL", 250),
        ("command", "RSET", 250),
    ]
    assert [each.octets for each in events if each.name == "message"] == [len("x\r\n")]


async def test_lines_that_are_no_commands(events):
    async with session(trace=events.append) as peer:
        await peer.send("x" * 3000 + "\r\nNOOP\n")
        await peer.speak("S: 500…\nS: 500…\nS: <closed>")
    assert brief(events, "command", "close")[1:] == [
        ("command", "", 500, "line too long"),
        ("command", "", 500, "lines end with CR LF"),
        ("close", "", 500, "refused"),
    ]


@pytest.mark.parametrize(
    ("wire", "code", "octets", "detail"),
    [
        ("BDAT 4\r\nabcdBDAT 2 LAST\r\n\r\n", 250, 6, "OK: queued"),
        ("BDAT 2 LAST\r\na\n", 550, 2, "the message has a bare CR or LF"),
        ("BDAT 2\r\nabRSET\r\n", 0, 2, "given up"),
        ("BDAT 2\r\nabQUIT\r\n", 0, 2, "given up"),
    ],
)
async def test_a_message_in_chunks(events, wire: str, code: int, octets: int, detail: str):
    async with session(trace=events.append) as peer:
        await peer.speak(MAIL)
        await peer.send(wire)
        await wait_all_tasks_blocked()
    [message] = [each for each in events if each.name == "message"]
    assert (message.verb, message.code, message.octets, message.detail) == ("BDAT", code, octets, detail)
    answered = [each.verb for each in events if each.name == "command"][3:]
    assert answered == re.findall(r"BDAT(?! \d LAST)|RSET|QUIT", wire)


async def test_a_message_that_data_refuses_is_none(events):
    async with session(Recorder(on_data=Reject(550, "no", "5.7.1")), trace=events.append) as peer:
        await peer.speak(MAIL + "C: DATA\nS: 550…\nC: BDAT 3\n")
        await peer.send("abc")
        await peer.speak("S: 503…")
    assert brief(events, "message") == []
    assert ("command", "DATA", 550, "no") in brief(events, "command")
    assert ("command", "BDAT", 503, "send MAIL first") in brief(events, "command")
    [hook] = [each for each in events if each.detail == "on_data"]
    assert hook.error is None  # a rejection is an answer


async def test_lmtp_has_one_event_for_a_message(events):
    outcome = {"a@a.test": None, "b@b.test": Reply(550, "full"), "c@c.test": Reply(450, "later")}

    async def on_data(session, envelope, body):
        await body.read()
        return outcome

    async with serving(make_server(Recorder(on_data=on_data), lmtp=True, trace=events.append)) as connect:
        peer = connect()
        await peer.reply()
        await peer.ask("LHLO x")
        await peer.ask("MAIL FROM:<>")
        for address in outcome:
            await peer.ask(f"RCPT TO:<{address}>")
        await peer.speak("C: DATA\nS: 354…\nC: .\nS: 250…\nS: 550…\nS: 450…")
    assert brief(events, "message") == [("message", "DATA", 250, "1 of 3 recipients")]


async def test_a_message_that_is_cut_off(events, autojump_clock):
    async with session(trace=events.append) as peer:
        await peer.speak(DATA + "C: half")
        await peer.aclose()
        await wait_all_tasks_blocked()
    [message] = [each for each in events if each.name == "message"]
    assert (message.code, message.octets) == (0, len("half\r\n"))
    assert isinstance(message.error, ConnectionLostError)
    assert (events[-1].detail, events[-1].error) == ("lost", message.error)
    del events[:]
    async with session(trace=events.append) as peer:
        await peer.speak(DATA + "C: half\nS: 421 4.4.2…\nS: <closed>")
    assert brief(events, "message", "close") == [
        ("message", "DATA", 421, "timeout exceeded"),
        ("close", "", 421, "timeout"),
    ]
    assert isinstance(events[-1].error, SMTPTimeoutError)


async def test_logins(events):
    async def on_auth(session, credentials):
        return credentials.check_password("secret")

    config: dict[str, Any] = {"allow_insecure_auth": True, "error_delay": None}
    async with session(Recorder(on_auth=on_auth), trace=events.append, **config) as peer:
        for line in ("AUTH PLAIN AG1lAHdyb25n", "AUTH FOO"):
            await peer.ask(line)
        await peer.speak("C: auth login\nS: 334…\nC: bWU=\nS: 334…\nC: c2VjcmV0\nS: 235…")
    assert brief(events, "auth") == [
        ("auth", "AUTH", 535, "PLAIN"),
        ("auth", "AUTH", 504, ""),
        ("auth", "AUTH", 235, "LOGIN"),
    ]
    assert [each[2] for each in brief(events, "command")][1:] == [535, 504, 235]
    assert "secret" not in repr(events)
    assert "AG1l" not in repr(events)


async def test_handshakes(events):
    server = make_server(Recorder(), ssl_context=server_context(), trace=events.append)
    async with serving_tcp(server) as connect:
        peer = await connect()
        await peer.hello()
        await peer.ask("STARTTLS")
        stream = trio.SSLStream(peer.stream, client_context(), server_hostname=NAME)
        await stream.do_handshake()
        other = await connect()
        await other.hello()
        await other.ask("STARTTLS")
        await other.send("GET / HTTP/1.0\r\n\r\n")
        await other.closed()
        await wait_all_tasks_blocked()
    good, bad = [each for each in events if each.name == "tls"]
    assert re.fullmatch(r"TLSv1\.\d \w+", good.detail)
    assert (good.verb, good.error) == ("STARTTLS", None)
    assert bad.error is not None
    assert ("close", "", 220, "tls") in brief(events, "close")


async def test_a_connection_that_on_connect_refuses(events):
    async with session(Recorder(on_connect=Reject(554, "not you")), hello=False, trace=events.append) as peer:
        await peer.speak("S: 554…\nS: <closed>")
    assert brief(events, "connect", "hook", "close") == [
        ("hook", "", 554, "on_connect"),
        ("connect", "", 554, "not you"),
        ("hook", "", 0, "on_close"),
        ("close", "", 554, "refused"),
    ]


async def test_a_connection_that_is_refused_under_implicit_tls_is_not_answered(events):
    handler = Recorder(on_connect=Reject(554, "not you"))
    server = make_server(handler, ssl_context=server_context(), implicit_tls=True, trace=events.append)
    async with serving(server) as connect:
        await connect().expect("<closed>")
    assert brief(events, "connect", "close") == [("connect", "", 0, ""), ("close", "", 0, "refused")]


async def test_connections_that_get_no_session(events, monkeypatch):
    limits: dict[str, Any] = {"max_connections": 2, "max_connections_per_host": 1}
    server = make_server(trace=events.append, **limits)
    async with serving_tcp(server) as connect:
        await (await connect()).hello()
        await (await connect()).expect("421 4.7.0…")
    server = make_server(trace=events.append, max_connections=1, proxy_protocol_from=["127.0.0.1"], proxy_timeout=9)
    async with serving_tcp(server) as connect:
        first = await connect()
        while not server._limits.in_use:
            await trio.lowlevel.checkpoint()
        await (await connect()).expect("421 4.3.2…")
        await first.send("EHLO x\r\n")
        await first.rest()
        monkeypatch.setattr("trio_smtp._server.server.are_short", lambda stream, sessions: True)
        await (await connect()).expect("421 4.3.2…")
    await server.shutdown()
    async with serving(server) as connect:
        await connect().expect("421 4.3.2…")
    refusals = [each for each in events if each.name == "refuse"]
    reasons = ["full for host", "full", "proxy header", "descriptors", "shutting down"]
    assert [each.detail for each in refusals] == reasons
    assert {(each.session, each.code) for each in refusals} == {(None, 421)}
    for reason in reasons:
        assert f"`{reason}`" in PAGE


async def test_how_sessions_end(events, autojump_clock):
    server = make_server(trace=events.append, max_connections=1)
    async with serving(server) as connect:
        await connect().hello()
        await trio.sleep(1)
        second = connect()
        await second.hello()  # the first has made room
        await second.aclose()
        await wait_all_tasks_blocked()
        third = connect()
        await third.hello()
        await server.shutdown()
    _near, far = trio.testing.memory_stream_pair()
    server = make_server(trace=events.append)
    with trio.move_on_after(1):
        await server.serve_stream(far)
    reasons = [each.detail for each in events if each.name == "close"]
    assert sorted(reasons) == ["cancelled", "lost", "shutting down", "the server is full"]
    for reason in (*reasons, "quit", "timeout", "tls", "refused", "error"):
        assert f"`{reason}`" in PAGE


async def test_hooks_that_fail(events, autojump_clock):
    async def stuck(session, *args):
        await trio.sleep_forever()

    bug = ValueError("a bug")
    async with session(
        Recorder(on_mail=bug, on_vrfy=stuck, on_reset=bug), trace=events.append, handler_timeout=5
    ) as peer:
        await peer.ask("MAIL FROM:<>")
        await peer.ask("VRFY x")
    hooks = {each.detail: each for each in events if each.name == "hook"}
    assert hooks["on_mail"].error is bug
    assert isinstance(hooks["on_vrfy"].error, trio.Cancelled)
    assert hooks["on_vrfy"].seconds == pytest.approx(5)
    assert hooks["on_hello"].error is None


async def test_a_trace_function_that_raises_is_logged_once_and_hurts_no_session(caplog):
    def trace(event: ServerEvent) -> None:
        raise RuntimeError(event.name)

    handler = Recorder()
    server = make_server(handler, trace=trace, max_connections=1)
    async with serving(server) as connect:
        peer = connect()
        await peer.hello()
        await connect().expect("421 4.3.2…")
        await peer.speak(DATA + "C: .\nS: 250…\nC: QUIT\nS: 221…\nS: <closed>")
    assert len(handler.messages) == 1
    said = [record.getMessage() for record in caplog.records if "trace" in record.getMessage()]
    assert said == ["server: the trace function failed; further failures are not logged"]


async def test_nothing_is_made_where_nothing_looks(monkeypatch):
    def fail(*args: object, **kwargs: object) -> None:
        raise AssertionError

    monkeypatch.setattr(Witness, "__init__", fail)
    monkeypatch.setattr(Witness, "_tell", fail)
    monkeypatch.setattr("trio_smtp._server.trace.ServerEvent", fail)
    async with session() as peer:
        await peer.speak(DATA + "C: .\nS: 250…\nC: QUIT\nS: 221…\nS: <closed>")


async def test_the_log_and_the_trace_see_the_same_dialogue(events, caplog):
    caplog.set_level("DEBUG", "trio_smtp")
    async with session(trace=events.append) as peer:
        await peer.ask("NOOP")
    assert "< NOOP" in caplog.text
    assert "> 250 2.0.0 OK" in caplog.text
    assert ("command", "NOOP", 250, "OK") in brief(events, "command")


def test_events_are_frozen_values():
    event = ServerEvent(name="refuse", session=None, code=421)
    with pytest.raises(AttributeError):
        event.code = 250  # type: ignore[misc]
    assert event == ServerEvent(name="refuse", session=None, code=421)


def test_the_page_has_each_event_and_each_field():
    rows = re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)
    assert set(get_args(ServerEventName)) <= set(rows)
    for field in ServerEvent._fields:
        assert f"`{field}`" in PAGE
