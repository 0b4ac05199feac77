# Limits of a connection and of all of them: what is still taken (n), what is not (n + 1), and that slots come back.
from __future__ import annotations

import contextlib
import socket
import struct
from typing import Any

import pytest
import trio
from core_session import Core, codes
from loopback import serving_tcp
from support import DATA, HOSTNAME, MAIL, Peer, Recorder, make_server, serving, session
from tls_support import client_context, server_context
from trio.testing import wait_all_tasks_blocked

from trio_smtp import ConnectionLostError, Reject, Reply
from trio_smtp._wire.wire import Wire

TOO_MANY_ERRORS = "421 4.7.0 too many errors"


def reset(peer: Peer) -> None:
    """Close with RST instead of FIN."""
    stream: Any = peer.stream.transport_stream if isinstance(peer.stream, trio.SSLStream) else peer.stream
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()


async def until_empty(server) -> None:
    """Let the sessions end: what they wait for is there already, but the kernel says so in its own time."""
    with trio.fail_after(10):
        while server.sessions:
            await trio.lowlevel.checkpoint()


# ---- connections

STAGES = {
    "connected": "",
    "greeted": "S: 220…",
    "hello": "S: 220…\nC: HELO x\nS: 250…",
    "AUTH": "S: 220…\nC: EHLO x\n{ehlo}\nC: AUTH PLAIN\nS: 334…",
    "MAIL": "S: 220…\nC: HELO x\nS: 250…\nC: MAIL FROM:<a@a.test>\nS: 250…",
    "half a command": "S: 220…\nC: HELO x\nS: 250…\nC: MAIL FROM",
    "DATA": "S: 220…\nC: HELO x\nS: 250…" + DATA,
    "content": "S: 220…\nC: HELO x\nS: 250…" + DATA + "C: text",
    "BDAT": "S: 220…\nC: HELO x\nS: 250…" + MAIL + "C: BDAT 100\nC: half",
    "between chunks": "S: 220…\nC: HELO x\nS: 250…" + MAIL + "C: BDAT 0\nS: 250…",
    "hook": "S: 220…\nC: HELO x\nS: 250…\nC: VRFY slow",
    "dropping": "S: 220…\nC: HELO x\nS: 250…\nC: BDAT 100\nC: half",
    "pipelining": "S: 220…\nC: HELO x\nS: 250…" + "\nC: VRFY x" * 1000,
}


@pytest.mark.parametrize("how", ["RST", "FIN"])
@pytest.mark.parametrize("stage", STAGES)
async def test_the_slot_comes_back_however_the_client_leaves(stage: str, how: str):
    """A reset gives the slot back as an orderly end does."""

    async def on_vrfy(session, argument):
        if argument == "slow":
            await trio.lowlevel.checkpoint()

    handler = Recorder(on_auth=True, on_vrfy=on_vrfy)
    options = {"max_connections": 1, "max_connections_per_host": 1, "allow_insecure_auth": True, "error_delay": None}
    server = make_server(handler, **options)
    async with serving_tcp(server) as connect:
        for n in range(1, 4):
            peer = await connect()
            for line in STAGES[stage].splitlines():
                if line == "{ehlo}":
                    await peer.reply()
                elif line.endswith("EHLO x"):
                    await peer.send_line("EHLO x")
                else:
                    await peer.speak(line)
            if how == "RST":
                reset(peer)
            else:
                await peer.aclose()
            while handler.count("on_close") < n:  # the server has noticed
                await trio.lowlevel.checkpoint()
            await until_empty(server)
        peer = await connect()
        assert await peer.code() == "220"
        assert server.statistics().connections == 1
        assert server.statistics().refused_connections == 0
    assert handler.count("on_close") == handler.count("on_connect") == 4
    assert handler.count("on_reset") == server.statistics().transactions


@pytest.mark.parametrize("stage", ["TCP", "half a ClientHello", "TLS", "DATA"])
async def test_the_slot_comes_back_under_tls_too(stage: str):
    handler = Recorder()
    server = make_server(handler, max_connections=1, ssl_context=server_context(), implicit_tls=True)
    async with serving_tcp(server) as connect:
        for n in range(1, 4):
            peer = await connect()
            if stage == "half a ClientHello":
                await peer.send(b"\x16\x03\x01\x02\x00\x01\x00")
            elif stage != "TCP":
                peer.stream = trio.SSLStream(peer.stream, client_context(), server_hostname=HOSTNAME)
                await peer.hello()
                if stage == "DATA":
                    await peer.speak(DATA + "C: text")
            reset(peer)
            while handler.count("on_close") < n:
                await trio.lowlevel.checkpoint()
            await until_empty(server)
        assert server.statistics().refused_connections == 0
    assert handler.count("on_close") == handler.count("on_connect") == 3


async def test_a_slot_comes_back_after_a_refusal_in_on_connect_and_a_broken_hook():
    handler = Recorder(on_connect=Reject(554, "no"))
    server = make_server(handler, max_connections=1)
    async with serving(server) as connect:
        for failure in (Reject(554, "no"), ValueError("a bug"), Reply(550)):
            handler.answers["on_connect"] = failure
            peer = connect()
            assert (await peer.rest())[0] in "45"
        del handler.answers["on_connect"]
        assert await connect().code() == "220"
    assert handler.count("on_close") == 4


async def test_connections_in_all():
    handler = Recorder()
    server = make_server(handler, max_connections=2)
    async with serving(server) as connect:
        first = connect()
        for peer in (first, connect()):
            assert await peer.code() == "220"
        assert await connect().rest() == "421 4.3.2 too many connections, try again later\r\n"
        await first.aclose()
        await wait_all_tasks_blocked()
        assert await connect().code() == "220"
        statistics = server.statistics()
        assert (statistics.connections, statistics.total_connections, statistics.refused_connections) == (2, 3, 1)
    assert handler.count("on_connect") == handler.count("on_close") == 3


async def test_connections_of_a_host():
    server = make_server(max_connections_per_host=2)
    async with serving_tcp(server) as connect:
        for _ in range(2):
            assert await (await connect()).code() == "220"
        assert await (await connect()).rest() == "421 4.7.0 too many connections from your host\r\n"
    async with serving(server) as connect:  # in memory there are no hosts
        for _ in range(3):
            assert await connect().code() == "220"


async def test_a_refusal_has_no_enhanced_code_where_they_are_disabled():
    server = make_server(max_connections=1, disabled_extensions=["ENHANCEDSTATUSCODES"])
    async with serving(server) as connect:
        assert await connect().code() == "220"
        assert await connect().rest() == "421 too many connections, try again later\r\n"
    await server.shutdown()
    async with serving(server) as connect:
        assert await connect().rest() == "421 the server is shutting down\r\n"


async def test_a_refused_connection_costs_no_handshake():
    server = make_server(max_connections=1, ssl_context=server_context(), implicit_tls=True)
    async with serving_tcp(server) as connect:
        await connect()
        while not server.sessions:
            await trio.lowlevel.checkpoint()
        assert await (await connect()).rest() == ""


async def test_a_refusal_is_not_lost_to_what_the_client_is_already_sending():
    """A socket that is closed with unread input is reset, and the client's kernel may forget the 421."""
    server = make_server(max_connections=1)
    async with serving_tcp(server) as connect:
        assert await (await connect()).code() == "220"
        refused = await connect()
        while not server.statistics().refused_connections:
            await trio.lowlevel.checkpoint()
        for _ in range(20):
            await refused.send("EHLO x\r\n" * 100)
        assert await refused.rest() == "421 4.3.2 too many connections, try again later\r\n"


async def test_lingering_over_refusals_is_bounded_in_time_and_number(autojump_clock, monkeypatch):
    monkeypatch.setattr("trio_smtp._server.server.MAX_LINGERING", 2)
    server = make_server(max_connections=1)
    async with serving_tcp(server) as connect:
        assert await (await connect()).code() == "220"
        for _ in range(5):
            peer = await connect()
            assert await peer.rest() == "421 4.3.2 too many connections, try again later\r\n"
        assert server._lingering == 2  # they keep their side open
        began = trio.current_time()
        while server._lingering:
            await trio.sleep(0.1)
        assert trio.current_time() - began <= 1.2
        assert server.statistics().refused_connections == 5


async def test_a_refusal_that_is_cancelled_closes_the_stream():
    server = make_server(max_connections=1)
    near, far = trio.testing.memory_stream_pair()
    async with serving(server) as connect:
        assert await connect().code() == "220"
        with trio.CancelScope() as scope:
            scope.cancel()
            await server.serve_stream(far)
        assert scope.cancelled_caught
        assert await near.receive_some() == b""


async def test_none_lifts_both():
    async with serving_tcp(make_server(max_connections=None, max_connections_per_host=None)) as connect:
        for _ in range(60):
            assert await (await connect()).code() == "220"


# ---- errors

ERRORS = {
    "unknown": (b"FOO\r\n", "500"),
    "syntax": (b"MAIL FROM:a\r\n", "501"),
    "order": (b"DATA\r\n", "503"),
    "argument": (b"RSET now\r\n", "501"),
    "not implemented": (b"ETRN x\r\n", "502"),
    "control character": (b"NOOP \0\r\n", "501"),
    "too long": (b"NOOP " + b"x" * 3000 + b"\r\n", "500"),
    "parameter": (b"MAIL FROM:<> FOO=1\r\n", "555"),
    "AUTH": (b"AUTH FOO\r\n", "504"),
    "misplaced chunk": (b"BDAT 2\r\nab", "503"),
}


@pytest.mark.parametrize("kind", ERRORS)
def test_errors_of_every_kind(kind: str):
    wire, code = ERRORS[kind]
    core = Core(tls=True, max_errors=3)
    core.say(b"EHLO x\r\n")
    assert codes(core.say(wire * 3)) == [code] * 3
    assert core.say(wire) == [TOO_MANY_ERRORS]
    assert core.protocol.is_closed


@pytest.mark.parametrize("hook", ["on_hello", "on_mail", "on_rcpt", "on_vrfy", "on_data", "at the end"])
async def test_refusals_of_hooks_are_errors(hook: str):
    async def read(session, envelope, body):
        await body.read()
        raise Reject(550, "no", "5.7.1")

    refusal = Reject(550, "no", "5.7.1")
    handler = Recorder(**{"on_data": read} if hook == "at the end" else {hook: refusal})
    async with session(handler, hello=hook != "on_hello", max_errors=2) as peer:
        if hook == "on_hello":
            await peer.reply()
        for reply in ("550 5.7.1 no", "550 5.7.1 no", TOO_MANY_ERRORS):
            if hook == "on_hello":
                await peer.speak(f"C: HELO x\nS: {reply}")
            elif hook == "on_mail":
                await peer.speak(f"C: MAIL FROM:<>\nS: {reply}")
            elif hook == "on_vrfy":
                await peer.speak(f"C: VRFY x\nS: {reply}")
            elif hook == "on_rcpt":
                if handler.count("on_mail") == 0:
                    await peer.ask("MAIL FROM:<>")
                await peer.speak(f"C: RCPT TO:<b@b.test>\nS: {reply}")
            elif hook == "on_data":
                await peer.speak(MAIL + f"C: DATA\nS: {reply}")
            else:
                await peer.speak(DATA + f"C: .\nS: {reply}")
        await peer.expect("<closed>")
    assert handler.count("on_close") == 1


@pytest.mark.parametrize("fault", ["too large", "bare newline", "BDAT too large", "BDAT bare newline"])
def test_a_refused_message_that_is_the_error_too_many_is_answered_421(fault: str):
    content = b"x" * 99 if fault.endswith("large") else b"a\nb"
    wire = b"BDAT %d LAST\r\n%b" % (len(content), content) if "BDAT" in fault else b"DATA\r\n%b\r\n.\r\n" % content
    if fault == "BDAT too large":
        wire = b"BDAT 40\r\n" + b"x" * 40 + b"BDAT 40 LAST\r\n" + b"x" * 40
    core = Core(max_errors=2, max_message_size=50)
    core.say(b"EHLO x\r\n")
    for _ in range(2):
        answers = codes(core.say(b"MAIL FROM:<>\r\nRCPT TO:<a@a.test>\r\n" + wire))
        assert answers[-1] == ("552" if fault.endswith("large") else "550")
        assert not core.protocol.is_closed
    assert core.say(b"MAIL FROM:<>\r\nRCPT TO:<a@a.test>\r\n" + wire)[-1] == TOO_MANY_ERRORS
    assert core.protocol.is_closed
    assert core.messages == []


async def test_lmtp_a_message_that_is_the_error_too_many_has_one_421():
    async with session(Recorder(on_data=Reject(550, "no", "5.7.1")), hello=False, lmtp=True, max_errors=1) as peer:
        await peer.reply()
        await peer.ask("LHLO x")
        two = "C: MAIL FROM:<>\nS: 250…\nC: RCPT TO:<a@a.test>\nS: 250…\nC: RCPT TO:<b@a.test>\nS: 250…\n"
        await peer.speak(two)
        await peer.send("BDAT 0 LAST\r\n")
        await peer.speak("S: 550…\nS: 550…")  # one message, one error
        await peer.speak(two)
        await peer.send("BDAT 0 LAST\r\n")
        await peer.speak(f"S: {TOO_MANY_ERRORS}\nS: <closed>")


def test_an_accepted_message_resets_the_count():
    core = Core(max_errors=2, max_junk_commands=1)
    core.say(b"EHLO x\r\n")
    for _ in range(5):
        assert codes(core.say(b"FOO\r\nFOO\r\nNOOP\r\n")) == ["500", "500", "250"]
        core.say(b"MAIL FROM:<>\r\nRCPT TO:<a@a.test>\r\nDATA\r\n.\r\n")
    assert codes(core.say(b"FOO\r\nFOO\r\nFOO\r\n")) == ["500", "500", "421"]


def test_a_refused_message_does_not():
    core = Core(max_errors=3, max_message_size=1)
    core.say(b"EHLO x\r\n")
    assert codes(core.say(b"FOO\r\nMAIL FROM:<>\r\nRCPT TO:<a@a.test>\r\nDATA\r\nxx\r\n.\r\nFOO\r\nFOO\r\n"))[-3:] == [
        "552",
        "500",
        "421",
    ]


@pytest.mark.parametrize("code", [450, 451, 452])
async def test_temporary_refusals_are_no_errors(code: int):
    async with session(Recorder(on_rcpt=Reject(code, "later")), max_errors=1) as peer:
        await peer.ask("MAIL FROM:<>")
        for _ in range(5):
            assert (await peer.ask("RCPT TO:<a@a.test>"))[:3] == str(code)
        assert await peer.ask("NOOP") == "250 2.0.0 OK"


def test_none_bears_any_number_of_errors():
    core = Core(max_errors=None, max_junk_commands=None)
    core.say(b"EHLO x\r\n")
    assert set(codes(core.say(b"FOO\r\nNOOP\r\n" * 500))) == {"500", "250"}


async def test_each_error_beyond_the_soft_limit_waits_the_same(autojump_clock):
    async with session(soft_errors=2, error_delay=3, max_errors=8) as peer:
        waits = []
        for _ in range(8):
            began = trio.current_time()
            assert await peer.ask("FOO") == "500 5.5.1 command not recognized"
            waits.append(trio.current_time() - began)
        assert waits == [0, 0, 3, 3, 3, 3, 3, 3]
        began = trio.current_time()
        assert await peer.ask("NOOP") == "250 2.0.0 OK"
        assert trio.current_time() == began
        await peer.speak(f"C: FOO\nS: {TOO_MANY_ERRORS}\nS: <closed>")
        assert trio.current_time() == began  # the last word is not kept back


async def test_pipelined_errors_wait_one_by_one(autojump_clock):
    async with session(soft_errors=2, error_delay=1) as peer:
        await peer.send("FOO\r\n" * 5)
        waits = []
        for _ in range(5):
            await peer.reply()
            waits.append(trio.current_time())
        assert waits == [1, 1, 1, 2, 3]  # what was said together with the first of them waits with it


async def test_a_delay_is_at_most_ten_seconds_and_none_is_none(autojump_clock):
    async with session(soft_errors=0, error_delay=1000) as peer:
        await peer.ask("FOO")
        assert trio.current_time() == 10
    for options in ({"error_delay": None, "soft_errors": 0}, {"soft_errors": None}, {"max_errors": None}):
        async with session(**options) as peer:
            for _ in range(15):
                await peer.ask("FOO")
        assert trio.current_time() == 10


# ---- junk


@pytest.mark.parametrize("command", ["NOOP", "RSET", "VRFY x", "HELP", "EHLO x", "BDAT 0", "BDAT 15"])
def test_junk(command: str):
    core = Core(max_junk_commands=3, max_errors=2)
    core.say(b"EHLO x\r\n")
    line = command.encode() + b"\r\n"
    if command.startswith("BDAT"):
        core.say(b"MAIL FROM:<>\r\nRCPT TO:<a@a.test>\r\n")
        line += b"x" * int(command[5:])
    for _ in range(5):  # three are free, two are errors
        assert codes(core.say(line))[0][0] == "2"
    assert core.say(line) == [TOO_MANY_ERRORS]


def test_chunks_of_sixteen_octets_are_no_junk_nor_is_a_last_one():
    core = Core(max_junk_commands=0, max_errors=1)
    core.say(b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@a.test>\r\n")
    for _ in range(50):
        assert codes(core.say(b"BDAT 16\r\n" + b"x" * 16)) == ["250"]
    assert codes(core.say(b"BDAT 1 LAST\r\nx")) == ["250"]
    assert core.messages == [b"x" * 801]


async def test_expn_is_junk():
    class Lists(Recorder):
        async def on_expn(self, session, argument):
            return None

    async with session(Lists(), max_junk_commands=1, max_errors=1) as peer:
        for code in ("252", "252", "421"):
            await peer.send_line("EXPN x")
            assert await peer.code() == code


# ---- messages and recipients


async def test_messages():
    handler = Recorder()
    async with session(handler, max_messages=2) as peer:
        await peer.speak(MAIL + "C: RSET\nS: 250…")  # begun is begun
        await peer.speak(DATA + "C: .\nS: 250…")
        assert await peer.ask("NOOP") == "250 2.0.0 OK"
        await peer.speak("C: MAIL FROM:<>\nS: 421 4.7.0 too many messages on this connection\nS: <closed>")
    assert handler.count("on_mail") == 2


def test_a_refused_mail_is_no_message():
    core = Core(max_messages=1)
    core.say(b"EHLO x\r\n")
    assert codes(core.say(b"MAIL FROM:a\r\nMAIL FROM:<> FOO=1\r\nMAIL FROM:<>\r\nRSET\r\nMAIL FROM:<>\r\n")) == [
        "501",
        "555",
        "250",
        "250",
        "421",
    ]


async def test_recipients():
    handler = Recorder()
    async with session(handler, max_recipients=2) as peer:
        for _ in range(2):  # a limit of each message
            await peer.speak("""
                C: MAIL FROM:<>
                S: 250…
                C: RCPT TO:<a@a.test>
                S: 250…
                C: RCPT TO:<b@a.test>
                S: 250…
                C: RCPT TO:<c@a.test>
                S: 452 4.5.3 too many recipients
                C: RCPT TO:<d@a.test>
                S: 452 4.5.3 too many recipients
                C: DATA
                S: 354…
                C: .
                S: 250…
            """)
    assert [recipients for _, recipients, _ in handler.messages] == [["a@a.test", "b@a.test"]] * 2
    assert handler.count("on_rcpt") == 4


async def test_refused_recipients_are_no_recipients():
    async def on_rcpt(session, recipient):
        if recipient.local_part != "good":
            raise Reject(550, "no", "5.1.1")

    async with session(Recorder(on_rcpt=on_rcpt), max_recipients=1) as peer:
        await peer.ask("MAIL FROM:<>")
        for who, code in (("bad", "550"), ("bad", "550"), ("good", "250"), ("good", "452")):
            assert (await peer.ask(f"RCPT TO:<{who}@a.test>"))[:3] == code


def test_none_lifts_messages_and_recipients():
    core = Core(max_messages=None, max_recipients=None, max_junk_commands=None)
    core.say(b"EHLO x\r\n")
    core.say(b"MAIL FROM:<>\r\nRSET\r\n" * 1001)
    core.say(b"MAIL FROM:<>\r\n")
    assert codes(core.say(b"RCPT TO:<a@a.test>\r\n" * 1001)) == ["250"] * 1001


# ---- failed AUTH commands

WRONG = "AUTH PLAIN AHgAeA=="


async def test_failed_auth_commands():
    async with session(
        Recorder(on_auth=False), allow_insecure_auth=True, max_auth_failures=2, error_delay=None
    ) as peer:
        for _ in range(2):
            assert await peer.ask(WRONG) == "535 5.7.8 authentication failed"
        await peer.speak(f"C: {WRONG}\nS: 421 4.7.0 too many failed authentications\nS: <closed>")


@pytest.mark.parametrize("kind", ["cancelled", "bad base64", "malformed", "451"])
async def test_what_counts_as_a_failed_auth_command(kind: str):
    handler = Recorder(on_auth=Reply(451, "later") if kind == "451" else False)
    async with session(handler, allow_insecure_auth=True, max_auth_failures=1, error_delay=None) as peer:
        for code in ("451" if kind == "451" else "501", "421"):
            if kind == "cancelled":
                await peer.ask("AUTH PLAIN")
                answer = await peer.ask("*")
            else:
                answer = await peer.ask({"bad base64": "AUTH PLAIN !", "malformed": "AUTH PLAIN eA=="}.get(kind, WRONG))
            assert answer[:3] == code


async def test_without_a_limit_of_failures():
    handler = Recorder(on_auth=False)
    options: dict[str, Any] = dict.fromkeys(
        ("max_auth_failures", "max_errors", "error_delay", "max_auth_failures_per_host")
    )
    async with session(handler, allow_insecure_auth=True, **options) as peer:
        for _ in range(50):
            assert (await peer.ask(WRONG))[:3] == "535"


async def test_the_wait_after_failures_grows_from_the_second_on_and_is_capped(autojump_clock):
    handler = Recorder(on_auth=False)
    options: dict[str, Any] = {"max_auth_failures": None, "max_errors": None, "error_delay": 4}
    async with session(handler, allow_insecure_auth=True, **options) as peer:
        waits = []
        for _ in range(5):
            began = trio.current_time()
            await peer.ask(WRONG)
            waits.append(trio.current_time() - began)
    assert waits == [0, 4, 8, 10, 10]


async def test_the_wait_of_a_host_goes_on_over_its_connections(autojump_clock):
    server = make_server(Recorder(on_auth=False), allow_insecure_auth=True)
    waits = []
    async with serving_tcp(server) as connect:
        for _ in range(4):
            peer = await connect()
            await peer.hello()
            began = trio.current_time()
            await peer.ask(WRONG)
            waits.append(trio.current_time() - began)
    assert waits == [0, 1, 2, 3]


# ---- time


async def test_the_limit_of_a_command_is_not_renewed_by_each_octet(autojump_clock):
    async with session(command_timeout=10, session_timeout=None) as peer:
        began = trio.current_time()
        while trio.current_time() - began < 15:
            with contextlib.suppress(trio.BrokenResourceError):
                await peer.send("x")
            await trio.sleep(3)
        assert trio.current_time() - began <= 15
        await peer.speak("S: 421 4.4.2 timeout exceeded\nS: <closed>")


async def test_each_command_has_all_its_time(autojump_clock):
    async with session(command_timeout=10) as peer:
        for _ in range(5):
            await trio.sleep(9)
            await peer.send("NO")
            await trio.sleep(0.9)
            assert await peer.ask("OP") == "250 2.0.0 OK"
        await peer.speak("S: 421 4.4.2 timeout exceeded\nS: <closed>")


async def test_a_command_behind_half_of_the_next_one_has_its_time_from_the_answer_on(autojump_clock):
    async with session(command_timeout=10) as peer:
        for _ in range(5):
            await trio.sleep(8)
            await peer.send("OP\r\nNO" if _ else "NOOP\r\nNO")
            assert await peer.line() == "250 2.0.0 OK"
        await peer.speak("S: 421 4.4.2 timeout exceeded\nS: <closed>")
        assert trio.current_time() == 50


@pytest.mark.parametrize("stage", ["idle", "MAIL", "AUTH"])
async def test_an_idle_client_gets_its_421(stage: str, autojump_clock):
    handler = Recorder(on_auth=True)
    async with session(handler, command_timeout=60, allow_insecure_auth=True) as peer:
        if stage == "MAIL":
            await peer.ask("MAIL FROM:<>")
        if stage == "AUTH":
            await peer.ask("AUTH LOGIN")
        await peer.speak("S: 421 4.4.2 timeout exceeded\nS: <closed>")
        assert trio.current_time() == 60
    assert handler.count("on_reset") == (stage == "MAIL")
    assert handler.count("on_close") == 1


async def test_no_time_limits(autojump_clock):
    async with session(command_timeout=None, session_timeout=None) as peer:
        await trio.sleep(86400)
        assert await peer.ask("NOOP") == "250 2.0.0 OK"


@pytest.mark.parametrize("what", ["commands", "content", "unwanted chunks"])
async def test_the_sessions_time_ends_for_a_client_that_always_has_data(what: str, autojump_clock):
    """Its next octets are there whenever the server looks, so that no wait is ever long enough to be ended."""
    near, far = trio.socket.socketpair()
    data = {"commands": b"VRFY x\r\n", "content": b"line\r\n", "unwanted chunks": b"BDAT 2\r\nabVRFY x\r\n"}[what]
    errors: list[Exception] = []

    async def another_second() -> None:
        assert trio.current_time() < 100
        autojump_clock.jump(1)
        await near.send(data)  # before the server looks

    async def on_vrfy(session, argument):
        await another_second()

    async def on_data(session, envelope, body):
        try:
            async for _ in body:
                await another_second()
        except ConnectionLostError as exc:
            errors.append(exc)
            raise

    handler = Recorder(on_data=on_data, on_vrfy=on_vrfy)
    server = make_server(handler, session_timeout=50, max_errors=None, max_junk_commands=None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_stream, trio.SocketStream(far))
        peer = Peer(trio.SocketStream(near))
        await peer.hello()
        if what == "content":
            await peer.speak(DATA)
        await peer.send(data)
        lines = (await peer.rest()).splitlines()
        await peer.aclose()
    assert lines[-1] == "421 4.4.2 timeout exceeded"
    assert 50 <= trio.current_time() <= 51
    assert len(errors) == (what == "content")
    assert handler.count("on_close") == 1


async def test_a_client_that_reads_nothing_is_given_up(autojump_clock):
    handler = Recorder(on_vrfy=Reply(250, "x" * 400))
    server = make_server(handler, command_timeout=20, max_junk_commands=None)
    async with serving_tcp(server) as connect:
        peer = await connect()
        with contextlib.suppress(trio.BrokenResourceError):
            while True:
                await peer.send("VRFY x\r\n" * 1000)
        await until_empty(server)
    assert handler.count("on_close") == 1


# ---- octets


async def test_statistics_count_the_octets_of_messages_however_they_come():
    server = make_server()
    async with serving(server) as connect:
        peer = connect()
        await peer.hello()
        # with the command, all of it
        await peer.send("MAIL FROM:<>\r\nRCPT TO:<a@a.test>\r\nBDAT 5 LAST\r\n12345")
        await peer.speak("S: 250…\nS: 250…\nS: 250…")
        assert server.statistics().octets == 5
        # with the command, some of it
        await peer.send("MAIL FROM:<>\r\nRCPT TO:<a@a.test>\r\nDATA\r\n123")
        await peer.speak("S: 250…\nS: 250…\nS: 354…")
        await peer.send("45\r\n..\r\n.\r\nNOOP\r\n")
        await peer.speak("S: 250…\nS: 250 2.0.0 OK")
        assert server.statistics().octets == 5 + 7 + 3
        # refused, and given up
        await peer.speak(MAIL)
        await peer.send("BDAT 4\r\n1234RSET\r\n")
        await peer.speak("S: 250…\nS: 250…")
        assert server.statistics().octets == 15 + 4
        await peer.speak(DATA)
        await peer.send("1234567\r\n")
        await peer.aclose()
        await wait_all_tasks_blocked()
    statistics = server.statistics()
    assert statistics.octets == 19 + 9
    assert (statistics.transactions, statistics.messages) == (4, 2)


async def test_a_refused_connection_is_one_wire(monkeypatch):
    made = []
    init = Wire.__init__

    def note(wire, *args):
        made.append(wire)
        init(wire, *args)

    monkeypatch.setattr(Wire, "__init__", note)
    server = make_server()
    await server.shutdown()
    async with serving(server) as connect:
        assert (await connect().rest()).startswith("421 ")
    assert len(made) == 1
