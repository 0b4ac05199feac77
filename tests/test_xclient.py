"""XCLIENT and XFORWARD: what a trusted relay says of its client, and that no other client can say it."""

from __future__ import annotations

from functools import partial

import pytest
import trio
from cli_process import tool
from loopback import serving_tcp
from support import MAIL, Recorder, make_server, session

from trio_smtp import Reject, Reply
from trio_smtp._protocol.relay_attributes import XCLIENT, XFORWARD, parse_attributes

TRUSTED = {"xclient_from": ["127.0.0.1"]}


def parse(argument: bytes) -> dict[str, str | None]:
    return parse_attributes(argument, XCLIENT)


# ---- the attributes


@pytest.mark.parametrize(
    ("argument", "attributes"),
    [
        (b"ADDR=192.0.2.7", {"ADDR": "192.0.2.7"}),
        (b"addr=IPV6:2001:DB8::7 port=25", {"ADDR": "2001:db8::7", "PORT": "25"}),
        (b"NAME=[UNAVAILABLE] HELO=[tempunavail]", {"NAME": None, "HELO": None}),
        (b"  PROTO=esmtp  HELO=a+2Bb ", {"PROTO": "ESMTP", "HELO": "a+b"}),
        (b"LOGIN=me+20and+20you", {"LOGIN": "me and you"}),
        (b"DESTADDR=198.51.100.1 DESTPORT=00587", {"DESTADDR": "198.51.100.1", "DESTPORT": "587"}),
        (b"LOGIN=" + b"x" * 255, {"LOGIN": "x" * 255}),
    ],
)
def test_attributes_are_decoded(argument: bytes, attributes: dict[str, str | None]) -> None:
    assert parse(argument) == attributes


@pytest.mark.parametrize(
    "argument",
    [
        b"",
        b" ",
        b"ADDR",
        b"ADDR=",
        b"ADDR=mail.example",
        b"ADDR=2001:db8::7",
        b"ADDR=IPV6:192.0.2.7",
        b"ADDR=IPV6:",
        b"PORT=65536",
        b"PORT=-1",
        b"PORT=\xb2",
        b"PORT=123456",
        b"PROTO=LMTP",
        b"NAME=a+20b",
        b"HELO=a+00b",
        b"HELO=a+0D+0Ab",
        b"HELO=a+0d",
        b"LOGIN=" + b"x" * 256,
        b"LOGIN=\xc3\xa4",
        b"IDENT=1",
        b"SOURCE=LOCAL",
        b"WHAT=ever",
        b"ADDR=192.0.2.7 WHAT=ever",
    ],
)
def test_bad_attributes_are_refused(argument: bytes) -> None:
    with pytest.raises(Reject) as excinfo:
        parse(argument)
    assert excinfo.value.reply.code == 501


def test_xforward_has_attributes_of_its_own() -> None:
    assert parse_attributes(b"IDENT=ABC SOURCE=local PROTO=LMTP", XFORWARD) == {
        "IDENT": "ABC",
        "SOURCE": "LOCAL",
        "PROTO": "LMTP",
    }
    with pytest.raises(Reject):
        parse_attributes(b"LOGIN=me", XFORWARD)


# ---- XCLIENT


async def test_a_trusted_relay_is_offered_both() -> None:
    async with serving_tcp(make_server(**TRUSTED)) as connect:
        peer = await connect()
        await peer.reply()
        await peer.send_line("EHLO relay.test")
        lines = [line[4:] for line in await peer.reply()]
        assert "XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT" in lines
        assert "XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE" in lines


@pytest.mark.parametrize("verb", ["XCLIENT", "XFORWARD"])
async def test_others_are_refused_and_offered_nothing(verb: str) -> None:
    handler = Recorder()
    async with serving_tcp(make_server(handler, xclient_from=["192.0.2.0/24"])) as connect:
        peer = await connect()
        await peer.reply()
        assert verb not in await peer.ask("EHLO client.test")
        assert await peer.ask(f"{verb} ADDR=192.0.2.7") == "550 5.7.0 insufficient authorization"
        assert handler.sessions[0].peer[0] == "127.0.0.1"
        assert handler.sessions[0].xclient == handler.sessions[0].forwarded == {}


@pytest.mark.parametrize("verb", ["XCLIENT", "XFORWARD"])
@pytest.mark.parametrize("options", [{}, {**TRUSTED, "disabled_extensions": ["XCLIENT", "XFORWARD"]}])
async def test_where_nobody_is_trusted_they_are_unknown(verb: str, options: dict[str, object]) -> None:
    async with serving_tcp(make_server(**options)) as connect:
        peer = await connect()
        await peer.hello()
        assert (await peer.ask(f"{verb} ADDR=192.0.2.7")).startswith("500 5.5.1")


async def test_the_session_becomes_that_of_the_client_and_starts_over() -> None:
    handler = Recorder(on_auth=True)
    async with serving_tcp(make_server(handler, **TRUSTED, allow_insecure_auth=True, auth="required")) as connect:
        peer = await connect()
        await peer.hello()
        assert (await peer.ask("AUTH PLAIN AHJlbGF5AHNlY3JldA==")).startswith("235")
        [seen] = handler.sessions
        assert seen.identity == "relay"
        await peer.speak("""
            C: XCLIENT ADDR=127.0.0.1 PORT=4711
            S: 220 mx.test ESMTP trio_smtp
            C: MAIL FROM:<a@a.test>
            S: 503 5.5.1 send EHLO first
        """)
        assert handler.sessions == [seen, seen]  # on_connect is asked about the client too
        assert seen.peer == ("127.0.0.1", 4711)
        assert seen.local[0] == "127.0.0.1"
        assert (seen.hello, seen.identity, seen.esmtp) == (None, None, False)
        named = "HELO=client.example PROTO=ESMTP LOGIN=me DESTADDR=198.51.100.1 DESTPORT=587"
        await peer.speak(f"""
            C: XCLIENT NAME=host.example ADDR=IPV6:2001:db8::7 PORT=4711 {named}
            S: 220 mx.test ESMTP trio_smtp
        """)
        assert seen.peer == ("2001:db8::7", 4711)
        assert seen.local == ("198.51.100.1", 587)
        assert (seen.hello, seen.identity, seen.esmtp) == ("client.example", "me", True)
        assert seen.xclient["NAME"] == "host.example"
        await peer.ask("EHLO relay.test")
        assert seen.hello == "client.example"
        await peer.speak("""
            C: AUTH PLAIN AHJlbGF5AHNlY3JldA==
            S: 503 5.5.1 already authenticated
            C: MAIL FROM:<a@a.test>
            S: 250 2.1.0 OK
        """)
        assert handler.count("on_close") == 0
    assert handler.count("on_close") == 1


async def test_what_the_relay_does_not_know_is_nobodys() -> None:
    handler = Recorder()
    async with serving_tcp(make_server(handler, **TRUSTED)) as connect:
        peer = await connect()
        await peer.reply()
        await peer.ask("XCLIENT ADDR=127.0.0.1")
        assert handler.sessions[0].peer == ("127.0.0.1", 0)
        await peer.ask("XCLIENT PORT=25")
        assert handler.sessions[0].peer == ("127.0.0.1", 25)
        await peer.ask("XCLIENT ADDR=[UNAVAILABLE] NAME=[TEMPUNAVAIL]")
        assert handler.sessions[0].peer is None
        assert handler.sessions[0].xclient == {"ADDR": None, "PORT": "25", "NAME": None}


async def test_the_client_that_is_named_is_not_trusted_himself() -> None:
    """A relay may hand the connection on to its client, which could then take any identity."""
    handler = Recorder()
    async with serving_tcp(make_server(handler, **TRUSTED, auth="required")) as connect:
        peer = await connect()
        await peer.hello()
        assert (await peer.ask("XCLIENT ADDR=203.0.113.7")).startswith("220")
        assert "XCLIENT" not in await peer.ask("EHLO client.test")
        await peer.speak("""
            C: XCLIENT ADDR=127.0.0.1 LOGIN=boss
            S: 550 5.7.0 insufficient authorization
            C: MAIL FROM:<boss@a.test>
            S: 530 5.7.0 authentication required
        """)


async def test_a_client_inherits_nothing_from_the_one_before() -> None:
    handler = Recorder()
    async with serving_tcp(make_server(handler, **TRUSTED)) as connect:
        peer = await connect()
        await peer.reply()
        await peer.ask("XCLIENT ADDR=127.0.0.1 LOGIN=bob HELO=bobs.test PROTO=ESMTP")
        seen = handler.sessions[0]
        assert (seen.identity, seen.hello, seen.esmtp) == ("bob", "bobs.test", True)
        await peer.ask("XCLIENT ADDR=198.51.100.6")
        assert (seen.identity, seen.hello, seen.esmtp) == (None, None, False)


async def test_the_client_that_is_named_can_be_refused() -> None:
    async def judge(session):
        return Reply(554, "not you", "5.7.1") if session.peer[0] == "192.0.2.7" else None

    async with serving_tcp(make_server(Recorder(on_connect=judge), **TRUSTED)) as connect:
        peer = await connect()
        await peer.speak("""
            S: 220 mx.test ESMTP trio_smtp
            C: XCLIENT ADDR=192.0.2.7
            S: 554 5.7.1 not you
            S: <closed>
        """)


@pytest.mark.parametrize("verb", ["XCLIENT", "XFORWARD"])
async def test_not_inside_a_transaction(verb: str) -> None:
    handler = Recorder()
    async with serving_tcp(make_server(handler, **TRUSTED)) as connect:
        peer = await connect()
        await peer.hello()
        for transcript in ("C: MAIL FROM:<a@a.test>\nS: 250 2.1.0 OK", "C: RCPT TO:<b@b.test>\nS: 250 2.1.5 OK"):
            await peer.speak(transcript)
            await peer.speak(f"C: {verb} ADDR=192.0.2.7\nS: 503 5.5.1 not during a transaction")
        await peer.send("BDAT 2\r\nhi")
        await peer.speak(f"""
            S: 250 2.0.0 2 octets received
            C: {verb} ADDR=192.0.2.7
            S: 503 5.5.1 not during a transaction
            C: BDAT 0 LAST
            S: 250 2.0.0 OK: queued
        """)
        assert handler.messages == [("a@a.test", ["b@b.test"], b"hi")]
        assert handler.sessions[0].peer[0] == "127.0.0.1"


async def test_a_bad_attribute_changes_nothing() -> None:
    handler = Recorder()
    async with serving_tcp(make_server(handler, **TRUSTED)) as connect:
        peer = await connect()
        await peer.hello()
        assert (await peer.ask("XCLIENT ADDR=192.0.2.7 PORT=x")).startswith("501 5.5.4")
        assert handler.sessions[0].peer[0] == "127.0.0.1"
        assert handler.sessions[0].hello == "client.test"
        await peer.speak(MAIL)


# ---- XFORWARD


async def test_xforward_is_kept_for_one_transaction() -> None:
    seen = []

    async def on_data(session, envelope, body):
        seen.append(dict(session.forwarded))

    handler = Recorder(on_data=on_data)
    async with serving_tcp(make_server(handler, **TRUSTED)) as connect:
        peer = await connect()
        await peer.hello()
        await peer.speak(f"""
            C: XFORWARD NAME=host.example ADDR=192.0.2.7
            S: 250 2.0.0 OK
            C: XFORWARD IDENT=ABC123 SOURCE=REMOTE HELO=[UNAVAILABLE]
            S: 250 2.0.0 OK
            {MAIL}
            C: DATA
            S: 354 end data with <CR><LF>.<CR><LF>
            C: .
            S: 250 2.0.0 OK: queued
        """)
        assert seen == [
            {"NAME": "host.example", "ADDR": "192.0.2.7", "IDENT": "ABC123", "SOURCE": "REMOTE", "HELO": None}
        ]
        assert handler.sessions[0].forwarded == {}
        assert handler.sessions[0].peer[0] == "127.0.0.1"  # it only informs
        assert handler.sessions[0].hello == "client.test"


@pytest.mark.parametrize("command", ["RSET", "EHLO again", "HELO again", "XCLIENT ADDR=127.0.0.1"])
async def test_xforward_for_a_message_that_is_never_begun_is_not_the_next_ones(command: str) -> None:
    handler = Recorder()
    async with serving_tcp(make_server(handler, **TRUSTED)) as connect:
        peer = await connect()
        await peer.hello()
        await peer.speak("C: XFORWARD IDENT=ABC123\nS: 250 2.0.0 OK\nC: NOOP\nS: 250 2.0.0 OK")
        assert (await peer.ask("MAIL FROM:a")).startswith("501")
        assert handler.sessions[0].forwarded == {"IDENT": "ABC123"}  # a command that fails changes nothing
        assert (await peer.ask(command))[0] == "2"
        assert handler.sessions[0].forwarded == {}


async def test_over_a_stream_without_an_address_nobody_is_trusted() -> None:
    async with session(xclient_from=["0.0.0.0/0", "::/0"]) as peer:
        assert (await peer.ask("XCLIENT ADDR=192.0.2.7")).startswith("550 5.7.0")


async def test_swaks_introduces_its_client() -> None:
    swaks = tool("swaks")
    handler = Recorder()
    server = make_server(handler, **TRUSTED)
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(server.serve, 0, host="127.0.0.1"))
        where = f"127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        words = "--xclient-addr 192.0.2.7 --xclient-port 99 --xclient-name host.example --xclient-helo client.example"
        command = [
            swaks,
            "--server",
            where,
            "--timeout",
            "20",
            "--from",
            "a@a.test",
            "--to",
            "b@b.test",
            *words.split(),
        ]
        done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
        assert done.returncode == 0, done.stdout
        nursery.cancel_scope.cancel()
    seen = handler.sessions[0]
    assert (seen.peer, seen.hello, seen.xclient["NAME"]) == (("192.0.2.7", 99), "client.example", "host.example")
    assert len(handler.messages) == 1
