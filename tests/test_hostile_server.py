"""Hostile input for a server: what comes in, and what the answer must be. docs/hostile-input.md lists the rules.

Most of it is sent to the protocol's core, whole and split at every octet; what needs time, TLS or addresses runs
through a session.
"""

from __future__ import annotations

import base64
import contextlib
import ssl
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from core_session import ENVELOPE, Core, codes
from loopback import serving_tcp
from raw_tls import RawTLS, needs_openssl
from support import MAIL, Recorder, make_server, serving, session
from test_server_auth import log_in
from tls_support import client_context, server_context

import trio_smtp
from trio_smtp import Reject, Reply
from trio_smtp._protocol.server.input import MAX_SKIPPED
from trio_smtp._server import limits as limits_module

SECOND = b"MAIL FROM:<evil@a.test>\r\nRCPT TO:<c@b.test>\r\nDATA\r\nsmuggled\r\n.\r\n"


# ---- the end of data

SEQUENCES = {
    "LF.LF": b"\n.\n",
    "LF.CRLF": b"\n.\r\n",
    "CRLF.LF": b"\r\n.\n",
    "CR.LF": b"\r.\n",
    "LF.CR": b"\n.\r",
    "CR.CR": b"\r.\r",
    "CR.CRLF": b"\r.\r\n",
    "CRLF.CR": b"\r\n.\r",
    "CRLF NUL.CRLF": b"\r\n\0.\r\n",
    "CRLF.NUL CRLF": b"\r\n.\0\r\n",
    "CRLF.CRCRLF": b"\r\n.\r\r\n",
    "LF in a line": b"body\nmore",
    "CR in a line": b"body\rmore",
    "LFLF.LFLF": b"\n\n.\n\n",
}
WITH_NUL = {"CRLF NUL.CRLF", "CRLF.NUL CRLF"}


@pytest.mark.parametrize("newlines", ["reject", "normalize"])
@pytest.mark.parametrize("name", SEQUENCES)
def test_lone_dots_between_other_line_ends_are_no_end_of_data(name: str, newlines: str) -> None:
    wire = b"Subject: t\r\n\r\nbody" + SEQUENCES[name] + SECOND
    for size in range(len(wire)):
        core = Core(bare_newlines=newlines)
        core.say(b"EHLO x\r\n" + ENVELOPE + b"DATA\r\n")
        lines = core.say_split(wire, size)
        refused = newlines == "reject" or name in WITH_NUL
        assert codes(lines) == ["550" if refused else "250"], (size, lines)
        assert len(core.messages) == (0 if refused else 1)
        assert codes(core.say(b"RCPT TO:<d@b.test>\r\nNOOP\r\n")) == ["503", "250"]
        for message in core.messages:
            assert b"smuggled" in message
            assert b"\n" not in message.replace(b"\r\n", b"")
            assert b"\r" not in message.replace(b"\r\n", b"")


@pytest.mark.parametrize("newlines", ["reject", "normalize"])
@pytest.mark.parametrize("text", [b"\0", b"a\0\r\n", b"\r\n\0.\r\n", b"\r\n.\0\r\n", b"x\r\0\n.\r\n", b"y\r\n\0\r\n"])
def test_a_nul_in_text_is_refused_at_the_true_end(text: bytes, newlines: str) -> None:
    wire = {
        b"": b"DATA\r\n" + text + SECOND,
        b" BODY=8BITMIME": b"BDAT %d\r\n%sBDAT 6 LAST\r\nlast\r\n" % (len(text), text),
    }
    for body, octets in wire.items():
        for size in range(len(octets)):
            core = Core(bare_newlines=newlines)
            core.say(b"EHLO x\r\nMAIL FROM:<a@a.test>%s\r\nRCPT TO:<b@b.test>\r\n" % body)
            lines = core.say_split(octets, size)
            assert lines[-1][:10] == "550 5.6.11", (octets, size, lines)
            assert core.messages == []
            assert codes(core.say(b"RCPT TO:<d@b.test>\r\nNOOP\r\n")) == ["503", "250"]
            core = Core(bare_newlines=newlines, nul="keep")
            core.say(b"EHLO x\r\nMAIL FROM:<a@a.test>%s\r\nRCPT TO:<b@b.test>\r\n" % body)
            core.say_split(octets, size)
            assert all(b"\0" in message for message in core.messages)
            assert core.messages or b"\r\0" in text


def test_a_nul_is_kept_in_binarymime() -> None:
    core = Core()
    core.say(b"EHLO x\r\nMAIL FROM:<a@a.test> BODY=BINARYMIME\r\nRCPT TO:<b@b.test>\r\n")
    assert codes(core.say(b"BDAT 3 LAST\r\n\0\n\r")) == ["250"]
    assert core.messages == [b"\0\n\r"]


def test_of_a_message_with_a_nul_no_octet_after_it_is_handed_on() -> None:
    core = Core()
    core.say(b"EHLO x\r\n" + ENVELOPE + b"DATA\r\n")
    core.say(b"one\r\n")
    core.say(b"two\0\r\n")
    core.say(b"three\r\n")
    assert core.text == b"one\r\n"


def test_a_stray_cr_before_the_end_of_data_is_no_part_of_it() -> None:
    wire = b"body\r\r\n.\r\n"
    for size in range(len(wire)):
        core = Core()
        core.say(b"EHLO x\r\n" + ENVELOPE + b"DATA\r\n")
        assert codes(core.say_split(wire + SECOND[:24], size)) == ["550"]
        assert core.messages == []


@pytest.mark.parametrize(
    "chunks", [b"BDAT 10 LAST\r\nbody\n.\n\n\n\n", b"BDAT 5\r\nbody\nBDAT 1 LAST\r\nx", b"BDAT 2\r\n\rxBDAT 0 LAST\r\n"]
)
def test_bare_newlines_in_chunks_are_refused_too(chunks: bytes) -> None:
    for size in range(len(chunks)):
        core = Core()
        core.say(b"EHLO x\r\n" + ENVELOPE)
        assert codes(core.say_split(chunks, size))[-1] == "550"
        assert core.messages == []
    core = Core()
    core.say(b"EHLO x\r\nMAIL FROM:<a@a.test> BODY=BINARYMIME\r\nRCPT TO:<b@b.test>\r\n")
    assert codes(core.say(chunks))[-1] == "250"  # RFC 3030 §3


def test_empty_message() -> None:
    core = Core()
    assert codes(core.say(b"EHLO x\r\n" + ENVELOPE + b"DATA\r\n.\r\nNOOP\r\n"))[-3:] == ["354", "250", "250"]
    assert core.messages == [b""]


def test_one_dot_is_removed() -> None:
    core = Core()
    core.say(b"EHLO x\r\n" + ENVELOPE + b"DATA\r\n..x\r\n...\r\n.y\r\n.\r\n")
    assert core.messages == [b".x\r\n..\r\ny\r\n"]


async def test_data_without_an_end_delivers_nothing() -> None:
    ended: list[object] = []

    async def on_data(session, envelope, body):
        try:
            await body.read()
        except trio_smtp.ConnectionLostError as exc:
            ended.append(exc)
            raise

    handler = Recorder(on_data=on_data)
    async with session(handler) as peer:
        await peer.speak(MAIL + "C: DATA\nS: 354…")
        await peer.send("half a mess")
        await peer.stream.send_stream.aclose()
        await peer.expect("<closed>")
    assert len(ended) == 1
    assert handler.calls[-2:] == ["on_reset", "on_close"]


# ---- TLS


def test_what_follows_starttls_is_never_read() -> None:
    for tail in (b"NOOP\r\n", b"N", b"\r\n"):
        core = Core(starttls=True)
        core.say(b"EHLO x\r\n")
        assert core.say(b"STARTTLS\r\n" + tail) == ["554 5.5.1 nothing may follow STARTTLS"]
        assert core.protocol.is_closed


async def test_plaintext_where_the_handshake_belongs_gets_no_answer() -> None:
    async with session(ssl_context=server_context()) as peer:
        await peer.speak("C: STARTTLS\nS: 220 ready to start TLS")
        await peer.send("EHLO again\r\n")
        rest = b""
        while data := await peer.stream.receive_some():
            rest += data
        assert b"250" not in rest  # a TLS alert at most
        assert rest[:1] in (b"", b"\x15")


async def test_starttls_forgets_all_that_was_said_in_clear() -> None:
    handler = Recorder(on_auth=True)
    async with session(handler, ssl_context=server_context(), allow_insecure_auth=True, auth="required") as peer:
        await peer.speak("C: AUTH PLAIN AG1lAHNlY3JldA==\nS: 235 2.7.0 authentication succeeded\nC: STARTTLS\nS: 220…")
        tls = trio.SSLStream(peer.stream, client_context(), server_hostname="mx.test")
        await tls.do_handshake()
        peer.stream = tls
        await peer.speak("C: MAIL FROM:<a@a.test>\nS: 503 5.5.1 send EHLO first")
        [seen] = handler.sessions
        assert (seen.hello, seen.identity) == (None, None)
        assert "STARTTLS" not in await peer.ask("EHLO again")
        await peer.speak("C: MAIL FROM:<a@a.test>\nS: 530 5.7.0…\nC: STARTTLS\nS: 503 5.5.1 TLS is active already")


async def test_what_a_relay_has_said_in_clear_is_forgotten_too() -> None:
    """But for the client's address: the relay may be only a pipe from here on, and it is the client who wants TLS."""
    handler = Recorder()
    server = make_server(handler, ssl_context=server_context(), xclient_from=["127.0.0.1"])
    async with serving_tcp(server) as connect:
        peer = await connect()
        await peer.hello()
        [seen] = handler.sessions
        await peer.ask("XCLIENT ADDR=127.0.0.1 PORT=99 LOGIN=boss HELO=evil.test PROTO=SMTP")
        assert (seen.hello, seen.identity, seen.esmtp) == ("evil.test", "boss", False)
        await peer.ask("EHLO client.test")
        assert await peer.ask("XFORWARD ADDR=192.0.2.7 NAME=evil.test") == "250 2.0.0 OK"
        assert seen.forwarded == {"ADDR": "192.0.2.7", "NAME": "evil.test"}
        assert await peer.ask("STARTTLS") == "220 ready to start TLS"
        tls = trio.SSLStream(peer.stream, client_context(), server_hostname="mx.test")
        await tls.do_handshake()
        peer.stream = tls
        await peer.speak("C: MAIL FROM:<a@a.test>\nS: 503 5.5.1 send EHLO first")
        assert (seen.hello, seen.identity, seen.esmtp, seen.forwarded) == (None, None, False, {})
        assert seen.peer == ("127.0.0.1", 99)
        assert seen.xclient == {"ADDR": "127.0.0.1", "PORT": "99"}


async def test_no_credentials_in_clear() -> None:
    handler = Recorder(on_auth=True)
    async with session(handler, ssl_context=server_context()) as peer:
        assert "AUTH" not in await peer.ask("EHLO again")
        assert (await peer.ask("AUTH PLAIN AG1lAHNlY3JldA==")).startswith("538 5.7.11")
    assert handler.count("on_auth") == 0


def test_a_group_after_helo_is_answered_in_order_by_default() -> None:
    for wire in (b"HELO x\r\n" + ENVELOPE + b"DATA\r\n.\r\n", b"EHLO x\r\n" + ENVELOPE + b"DATA\r\n.\r\n"):
        for size in range(len(wire)):
            core = Core()
            assert codes(core.say_split(wire, size)) == ["250", "250", "250", "354", "250"]
            assert core.messages == [b""]


OUT_OF_TURN = "554 5.5.1 pipelining was not offered"


@pytest.mark.parametrize(
    ("before", "group", "answered"),
    [
        (b"", b"HELO x\r\nMAIL FROM:<>\r\n", 0),
        (b"", b"EHLO x\r\nMAIL FROM:<>\r\n", 0),
        (b"", b"HELO x\r\nM", 0),
        (b"HELO x\r\n", ENVELOPE, 0),
        (b"HELO x\r\n", b"FOO\r\n" + ENVELOPE, 0),
        (b"HELO x\r\nMAIL FROM:<>\r\nRCPT TO:<b@b.test>\r\n", b"DATA\r\nbody\r\n.\r\n", 0),
        (b"HELO x\r\nMAIL FROM:<>\r\nRCPT TO:<b@b.test>\r\nDATA\r\n", b"body\r\n.\r\nQUIT\r\n", 1),
    ],
)
def test_a_group_that_was_not_asked_for_is_refused_where_that_is_asked_for(
    before: bytes, group: bytes, answered: int
) -> None:
    core = Core(reject_early_talkers=True)
    for line in before.splitlines(keepends=True):
        assert codes(core.say(line))[0][0] in "23"
    lines = core.say(group)
    assert lines[answered:] == [OUT_OF_TURN]
    assert core.protocol.is_closed
    assert len(core.messages) == answered


@pytest.mark.parametrize(("disabled", "offered"), [((), True), (("PIPELINING",), False)])
def test_a_group_is_welcome_where_pipelining_was_offered(disabled: tuple[str, ...], offered: bool) -> None:
    core = Core(reject_early_talkers=True, disabled_extensions=disabled)
    core.say(b"EHLO x\r\n")
    lines = core.say(ENVELOPE + b"BDAT 3 LAST\r\nabcNOOP\r\n")
    assert codes(lines) == (["250"] * 4 if offered else ["554"])


def test_octets_of_a_chunk_are_no_command_too_many() -> None:
    core = Core(reject_early_talkers=True, disabled_extensions=("PIPELINING",))
    for line in (b"EHLO x\r\n", b"MAIL FROM:<>\r\n", b"RCPT TO:<b@b.test>\r\n"):
        core.say(line)
    assert codes(core.say(b"BDAT 3\r\nabc")) == ["250"]
    assert codes(core.say(b"BDAT 3 LAST\r\ndef")) == ["250"]
    assert core.messages == [b"abcdef"]


async def test_a_session_in_lock_step_is_left_alone() -> None:
    handler = Recorder()
    async with session(handler, hello=False, reject_early_talkers=True) as peer:
        await peer.reply()
        await peer.ask("HELO x")
        await peer.speak(MAIL + "C: DATA\nS: 354…\nC: body\nC: .\nS: 250…\nC: QUIT\nS: 221…\nS: <closed>")
    assert [content for _, _, content in handler.messages] == [b"body\r\n"]


# ---- commands


@pytest.mark.parametrize(
    "line",
    [
        b"GET / HTTP/1.1",
        b"POST / HTTP/1.1",
        b"CONNECT x:25 HTTP/1.1",
        b"Host: x",
        b"get /",
        bytes.fromhex("1603010200"),
    ],
)
def test_foreign_protocols_end_at_once(line: bytes) -> None:
    core = Core()
    assert codes(core.say(line + b"\r\nHost: mx.test\r\n\r\nEHLO x\r\n" + ENVELOPE)) == ["554"]
    assert core.protocol.is_closed


def test_a_command_without_end_is_dropped_within_bounds() -> None:
    core = Core()
    lines: list[str] = []
    sent = 0
    while not core.protocol.is_closed:
        lines += core.say(b"x" * 4096)
        sent += 4096
        assert len(core.protocol.input._buffer) <= 4096
        assert sent < 10_000_000
    assert lines == ["500 5.5.2 line too long"]
    assert sent <= MAX_SKIPPED + 3 * 4096


def test_a_line_that_is_too_long_is_refused_once_and_the_session_lives_on() -> None:
    core = Core()
    core.say(b"EHLO x\r\n")
    fits = b"NOOP " + b"x" * (2048 - 7) + b"\r\n"
    assert len(fits) == 2048
    assert codes(core.say(fits)) == ["250"]
    assert core.say(b"NOOP " + b"x" * (2048 - 6) + b"\r\nNOOP\r\n") == ["500 5.5.2 line too long", "250 2.0.0 OK"]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"EHLO a\0b", "501"),
        (b"MAIL FROM:<a\0@b.test>", "501"),
        (b"MAIL FROM:<\xc3\xa4@b.test>", "553"),
        (b"MAIL FROM:<\xff@b.test> SMTPUTF8", "501"),
        (b"MAIL FROM:<a@b.test> \xff", "501"),
        (b"EHLO \xc3\xa4", "501"),
        (b"VRFY \xff", "501"),
        (b"NOOP \x01", "501"),
    ],
)
def test_nul_and_eight_bits_never_reach_a_hook(line: bytes, code: str) -> None:
    core = Core()
    core.say(b"EHLO x\r\n")
    assert codes(core.say(line + b"\r\nNOOP\r\n")) == [code, "250"]


LOOK_ALIKE = [
    "exam\u200bple.test",  # ZERO WIDTH SPACE
    "exam\u00adple.test",  # SOFT HYPHEN
    "ｅxample.test",
    "example\uff0etest",  # FULLWIDTH FULL STOP
    "example\u3002test",  # IDEOGRAPHIC FULL STOP
    "e\u212aample.test",  # KELVIN SIGN
    "example\u2024test",  # ONE DOT LEADER
    "\ufb01rst.test",  # LATIN SMALL LIGATURE FI
    "exam\u200dple.test",  # ZERO WIDTH JOINER
    "\u202eelpmaxe.test",  # RIGHT-TO-LEFT OVERRIDE
    "exam\ufe0fple.test",  # VARIATION SELECTOR-16
    "\u2603.test",
]


@pytest.mark.parametrize("lenient", [False, True])
@pytest.mark.parametrize("domain", LOOK_ALIKE)
def test_domains_that_look_alike_never_reach_a_hook(domain: str, lenient: bool) -> None:
    core = Core(lenient_addresses=lenient)
    address = f"x@{domain}".encode()
    core.say(b"EHLO x\r\n")
    assert codes(core.say(b"MAIL FROM:<%s> SMTPUTF8\r\n" % address)) == ["501"]
    core.say(b"MAIL FROM:<> SMTPUTF8\r\n")
    assert codes(core.say(b"RCPT TO:<%s>\r\nRCPT TO:<%s>\r\n" % (address, address.replace(b"x@", "é@".encode())))) == [
        "501",
        "501",
    ]
    assert core.protocol.transactions.envelope is not None
    assert core.protocol.transactions.envelope.recipients == []


@pytest.mark.parametrize("lenient", [False, True])
def test_all_spellings_of_a_domain_are_one_for_a_hook(lenient: bool) -> None:
    core = Core(lenient_addresses=lenient)
    core.say(b"EHLO x\r\nMAIL FROM:<a@M\xc3\x9cLLER.test> SMTPUTF8\r\n")
    spellings = ["müller.test", "MÜLLER.TEST", "mu\u0308ller.test", "xn--mller-kva.test", "XN--MLLER-KVA.test"]
    for domain in spellings:
        assert codes(core.say(f"RCPT TO:<a@{domain}>\r\n".encode())) == ["250"]
    envelope = core.protocol.transactions.envelope
    assert envelope is not None
    assert {each.domain for each in (envelope.sender, *envelope.recipients)} == {"xn--mller-kva.test"}
    assert [each.address for each in envelope.recipients] == [f"a@{domain}" for domain in spellings]


def test_a_u_label_in_hello_is_refused() -> None:
    core = Core()
    assert codes(core.say("EHLO müller.test\r\nEHLO exam\u200bple.test\r\n".encode())) == ["501", "501"]


@pytest.mark.parametrize("line", [b"MAIL FROM:<a@b>\nRCPT TO:<c@d>\r\n", b"NOOP\n", b"NOOP a\rb\r\n", b"\n"])
def test_only_cr_lf_ends_a_command(line: bytes) -> None:
    for size in range(len(line)):
        core = Core()
        core.say(b"EHLO x\r\n")
        assert codes(core.say_split(line, size)) == ["500"]
        assert core.protocol.is_closed
        assert core.protocol.transactions.envelope is None


def test_the_21st_error_the_101st_noop_the_1001st_recipient() -> None:
    core = Core()
    core.say(b"EHLO x\r\n")
    assert codes(core.say(b"FOO\r\n" * 21)) == ["500"] * 20 + ["421"]
    core = Core()
    core.say(b"EHLO x\r\n")
    assert codes(core.say(b"NOOP\r\n" * 122)) == ["250"] * 120 + ["421"]  # 100 are free, 20 are errors
    core = Core()
    core.say(b"EHLO x\r\nMAIL FROM:<a@a.test>\r\n")
    assert codes(core.say(b"RCPT TO:<b@b.test>\r\n" * 1002)) == ["250"] * 1000 + ["452"] * 2
    assert codes(core.say(b"DATA\r\n.\r\n")) == ["354", "250"]


async def test_20_refused_recipients_are_20_errors() -> None:
    async with session(Recorder(on_rcpt=Reject(550, "no such user", "5.1.1")), error_delay=None) as peer:
        await peer.ask("MAIL FROM:<a@a.test>")
        for _ in range(20):
            assert (await peer.ask("RCPT TO:<b@b.test>")).startswith("550")
        await peer.speak("C: RCPT TO:<b@b.test>\nS: 421 4.7.0 too many errors\nS: <closed>")


async def test_delays_from_the_eleventh_error_on(autojump_clock: trio.testing.MockClock) -> None:
    async with session() as peer:
        waits = []
        for _ in range(15):
            began = trio.current_time()
            await peer.ask("FOO")
            waits.append(trio.current_time() - began)
        assert waits == [0] * 10 + [1] * 5
        began = trio.current_time()
        await peer.ask("NOOP")
        assert trio.current_time() == began  # only mistakes cost time


async def test_shutdown_does_not_wait_for_a_delay(autojump_clock: trio.testing.MockClock) -> None:
    server = make_server(error_delay=10, soft_errors=0)
    async with serving(server) as connect:
        peer = connect()
        await peer.hello()
        await peer.send_line("FOO")
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        await server.shutdown()
        assert trio.current_time() == began
        await peer.speak("S: 500…\nS: 421 4.3.2…\nS: <closed>")


async def test_a_delay_counts_against_the_sessions_time(autojump_clock: trio.testing.MockClock) -> None:
    async with session(error_delay=10, soft_errors=0, session_timeout=5) as peer:
        began = trio.current_time()
        await peer.send_line("FOO")
        await peer.speak("S: 500…\nS: 421 4.4.2…\nS: <closed>")
        assert trio.current_time() - began == 5


async def test_a_trickle_ends_within_the_budget(autojump_clock: trio.testing.MockClock) -> None:
    """A command, the octets of a message, and a handshake, at one octet each four seconds."""

    async def trickle(peer, octet: bytes) -> float:
        began = trio.current_time()
        try:
            while True:
                await peer.stream.send_all(octet)
                with trio.move_on_after(4):
                    if not await peer.stream.receive_some():
                        break
        except trio.BrokenResourceError:
            pass
        return trio.current_time() - began

    async with session(session_timeout=1000) as peer:
        assert await trickle(peer, b"x") <= 1010
    async with session() as peer:
        await peer.speak(MAIL + "C: DATA\nS: 354…")
        assert await trickle(peer, b"x") <= 310
    async with serving(make_server(ssl_context=server_context(), implicit_tls=True)) as connect:
        assert await trickle(connect(), b"\x16") <= 70


async def test_connections_per_host_and_in_all() -> None:
    async with serving_tcp(make_server(max_connections=3, max_connections_per_host=2)) as connect:
        first = await connect()
        assert await first.code() == "220"
        assert await (await connect()).code() == "220"
        await (await connect()).speak("S: 421 4.7.0…\nS: <closed>")
        assert await first.ask("QUIT") == "221 2.0.0 mx.test closing connection"
        await first.expect("<closed>")
        await trio.testing.wait_all_tasks_blocked()
        assert await (await connect()).code() == "220"
    async with serving(make_server(max_connections=1)) as connect:
        await connect().reply()
        await connect().speak("S: 421 4.3.2…\nS: <closed>")


def test_an_ipv6_network_of_64_bits_is_one_host() -> None:
    limits = limits_module.ConnectionLimits(None, 1)
    assert limits.take_slot("2001:db8::1") is None
    assert limits.take_slot("2001:db8::ffff:1") is not None
    assert limits.take_slot("2001:db8:0:1::1") is None
    assert limits.take_slot("192.0.2.1") is None
    assert limits.take_slot("::ffff:192.0.2.1") is not None


# ---- AUTH

WRONG, RIGHT = "AUTH PLAIN AG1lAHdyb25n", "AUTH PLAIN AG1lAHNlY3JldA=="


async def check_secret(session, credentials):
    return credentials.check_password("secret" if credentials.username == "me" else None)


async def test_failures_slow_down_and_cut_off(autojump_clock: trio.testing.MockClock) -> None:
    async with session(Recorder(on_auth=check_secret), allow_insecure_auth=True) as peer:
        waits = []
        for _ in range(3):
            began = trio.current_time()
            assert (await peer.ask(WRONG)).startswith("535 5.7.8")
            waits.append(trio.current_time() - began)
        assert waits == [0, 1, 2]
        await peer.speak(f"C: {WRONG}\nS: 421 4.7.0…\nS: <closed>")


async def test_failures_of_a_host_survive_its_reconnecting(autojump_clock: trio.testing.MockClock) -> None:
    handler = Recorder(on_auth=check_secret)
    server = make_server(handler, allow_insecure_auth=True, max_auth_failures_per_host=(3, 60.0))
    async with serving_tcp(server) as connect:
        for _ in range(3):
            peer = await connect()
            await peer.hello()
            assert (await peer.ask(WRONG)).startswith("535 5.7.8")
        assert handler.count("on_auth") == 3
        peer = await connect()
        await peer.hello()
        assert (await peer.ask(RIGHT)).startswith("454 4.7.0")  # the application is not asked
        assert handler.count("on_auth") == 3
        await trio.sleep(60)  # virtual
        assert (await peer.ask(RIGHT)).startswith("235")


async def test_a_success_resets_the_host(autojump_clock: trio.testing.MockClock) -> None:
    server = make_server(Recorder(on_auth=check_secret), allow_insecure_auth=True, max_auth_failures_per_host=(2, 60.0))
    async with serving_tcp(server) as connect:
        for _ in range(3):
            peer = await connect()
            await peer.hello()
            assert (await peer.ask(WRONG)).startswith("535")
            assert (await peer.ask(RIGHT)).startswith("235")


def test_the_memory_of_failures_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits_module, "MAX_HOSTS", 100)
    failures = limits_module.FailureLimit((5, 60.0))
    for n in range(1000):
        failures.add(f"192.0.{n // 250}.{n % 250}", n / 1000)
    assert len(failures._hosts) == 100
    for _ in range(1000):
        assert failures.add("192.0.2.1", 1.0) <= 5
    assert failures.is_reached("192.0.2.1", 60.9)
    assert not failures.is_reached("192.0.2.1", 61.0)
    assert not failures.is_reached(None, 1.0)
    assert limits_module.FailureLimit(None).add("192.0.2.1", 1.0) == 0


PASSWORD_MECHANISMS = ("PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256")


@contextlib.contextmanager
def costly_calls() -> Iterator[list[str]]:
    """The calls of functions whose time depends on what they are given: digests, key derivations, comparisons."""
    calls: list[str] = []

    def note(frame: object, event: str, function: object) -> None:
        if event == "c_call" and getattr(function, "__module__", "") in ("_hashlib", "_hmac", "_operator", "_sha2"):
            calls.append(function.__name__)  # type: ignore[attr-defined]

    previous = sys.getprofile()
    sys.setprofile(note)
    try:
        yield calls
    finally:
        sys.setprofile(previous)


@pytest.mark.parametrize("mechanism", PASSWORD_MECHANISMS)
async def test_an_unknown_user_looks_like_a_wrong_password(mechanism: str) -> None:
    """The same replies to the same number of lines, and the same work in the same order, whichever mechanism."""

    async def fail(user: str) -> tuple[str, list[str]]:
        options: dict[str, Any] = {
            "auth_mechanisms": PASSWORD_MECHANISMS,
            "allow_insecure_auth": True,
            "error_delay": None,
        }
        async with session(Recorder(on_auth=check_secret), **options) as peer:
            with costly_calls() as calls:
                answer = await log_in(peer, mechanism, user, "wrong")
            return answer, calls

    wrong, unknown = await fail("me"), await fail("yo")
    assert wrong == unknown
    assert wrong[0] == "535 5.7.8 authentication failed"
    assert wrong[1][-1].endswith("compare_digest")


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-1", "SCRAM-SHA-256"])
async def test_an_unknown_user_has_a_salt_that_stays(mechanism: str) -> None:
    async def first_challenge(user: str, **options: object) -> dict[str, str]:
        server = make_server(Recorder(on_auth=check_secret), allow_insecure_auth=True, **{**config, **options})
        async with serving(server) as connect:
            peer = connect()
            await peer.hello()
            message = base64.b64encode(f"n,,n={user},r=nonce".encode()).decode()
            answer = await peer.ask(f"AUTH {mechanism} {message}")
            return dict(part.split("=", 1) for part in base64.b64decode(answer[4:]).decode().split(","))

    config = {"auth_mechanisms": [mechanism], "scram_secret": b"x" * 32}
    known, unknown = await first_challenge("me"), await first_challenge("yo")
    assert (await first_challenge("yo"))["s"] == unknown["s"]  # also by another process of the same service
    assert (await first_challenge("me"))["s"] == known["s"]
    assert known["s"] != unknown["s"]
    assert known["i"] == unknown["i"]
    assert [len(known[name]) for name in "rsi"] == [len(unknown[name]) for name in "rsi"]
    assert (await first_challenge("yo", scram_secret=b"y" * 32))["s"] != unknown["s"]


async def test_vrfy_and_expn_tell_nothing_unless_the_application_does() -> None:
    async with session(trio_smtp.Discard()) as peer:
        assert (await peer.ask("VRFY b@b.test")).startswith("252")
        assert (await peer.ask("VRFY nobody@b.test")).startswith("252")
        assert (await peer.ask("EXPN list@b.test")).startswith("502")


@pytest.mark.parametrize("text", ["a\r\n250 b", "a\rb", "a\nb", "x" * 2000, "ä\0b", "\r\n.\r\n"])
async def test_no_text_of_a_hook_is_a_second_reply(text: str) -> None:
    async with session(Recorder(on_mail=Reject(550, text, "5.7.1"))) as peer:
        await peer.send("MAIL FROM:<a@a.test>\r\nNOOP\r\n")
        lines = await peer.reply()
        assert all(line.startswith("550") and len(line) <= 510 and line.isascii() for line in lines)
        assert await peer.reply() == ["250 2.0.0 OK"]


@pytest.mark.parametrize("name", [b"a\rb", b"a b", b"", b"x" * 256, b"a\tb", b"\xc3\xa4"])
def test_a_hello_name_that_cannot_stand_in_a_header_is_refused(name: bytes) -> None:
    core = Core()
    assert codes(core.say(b"EHLO " + name + b"\r\n")) in (["501"], ["500"])
    assert core.protocol.hello is None


# ---- BDAT


def test_chunks_are_counted_exactly() -> None:
    wire = b"BDAT 10\r\n1234567\r\nxRSET\r\nNOOP\r\n"
    for size in range(len(wire)):
        core = Core()
        core.say(b"EHLO x\r\n" + ENVELOPE)
        assert codes(core.say_split(wire, size)) == ["250", "250", "250"]
        assert core.messages == []


@pytest.mark.parametrize(
    "line",
    [
        b"BDAT -1",
        b"BDAT 0x10",
        b"BDAT +5",
        b"BDAT 5 LAST LAST",
        b"BDAT",
        b"BDAT 5 FIRST",
        b"BDAT 5,5",
        b"BDAT " + b"9" * 21,
    ],
)
def test_a_chunk_of_unknown_size_ends_the_connection(line: bytes) -> None:
    core = Core()
    core.say(b"EHLO x\r\n" + ENVELOPE)
    assert codes(core.say(line + b"\r\nNOOP\r\n")) == ["501"]
    assert core.protocol.is_closed


def test_a_chunk_larger_than_any_message_ends_the_connection() -> None:
    core = Core()
    core.say(b"EHLO x\r\n" + ENVELOPE)
    assert codes(core.say(b"BDAT 99999999999\r\n")) == ["552"]
    assert core.protocol.is_closed


def test_a_million_chunks_of_one_octet_take_no_memory() -> None:
    core = Core(max_junk_commands=None)
    core.say(b"EHLO x\r\n" + ENVELOPE)
    for _ in range(1000):
        assert codes(core.say(b"BDAT 1\r\nx" * 20)) == ["250"] * 20
        core.text = b""
        assert len(core.protocol.input._buffer) == 0
    core.say(b"BDAT 0 LAST\r\n")
    assert len(core.messages) == 1


@pytest.mark.parametrize("chunk", [b"BDAT 0\r\n", b"BDAT 1\r\nx"])
def test_empty_and_tiny_chunks_are_junk(chunk: bytes) -> None:
    core = Core(max_junk_commands=5, max_errors=2)
    core.say(b"EHLO x\r\n" + ENVELOPE)
    assert codes(core.say(chunk * 20)) == ["250"] * 7 + ["421"]
    assert core.messages == []


def test_octets_of_a_misplaced_chunk_are_read_and_refused() -> None:
    for before in (b"", b"MAIL FROM:<a@a.test>\r\n"):
        core = Core()
        core.say(b"EHLO x\r\n" + before)
        assert codes(core.say(b"BDAT 8\r\nQUIT\r\nxxNOOP\r\n")) == ["503", "250"]


# The PROXY header has a file of its own: test_proxy.py.


def test_no_context_renegotiates() -> None:
    """TLS 1.3 has none, and OpenSSL 3 refuses a client's in TLS 1.2; older ones want to be told."""
    context = server_context()
    context.options &= ~ssl.OP_NO_RENEGOTIATION
    make_server(ssl_context=context)
    assert context.options & ssl.OP_NO_RENEGOTIATION


@asynccontextmanager
async def raw_session(server: trio_smtp.Server, version: ssl.TLSVersion, *, real: bool) -> AsyncIterator[RawTLS]:
    async with serving_tcp(server) if real else serving(server) as connect:
        client = RawTLS((await connect() if real else connect()).stream, version)
        await client.shake_hands()
        assert (await client.receive()).startswith(b"220 ")
        yield client


@needs_openssl
@pytest.mark.parametrize("real", [True, False])
async def test_a_client_that_renegotiates_is_refused(
    real: bool, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    handler = Recorder()
    server = make_server(handler, ssl_context=server_context(), implicit_tls=True)
    async with raw_session(server, ssl.TLSVersion.TLSv1_2, real=real) as client:
        client.renegotiate()
        await client.flush()
        with pytest.raises(ssl.SSLError, match="NO_RENEGOTIATION"):
            await client.receive()
        await client.stream.aclose()
        while "on_close" not in handler.calls:
            await trio.sleep(1)
    assert handler.count("on_tls") == 1
    assert not caplog.records


@needs_openssl
@pytest.mark.parametrize("real", [True, False])
async def test_key_updates_do_not_lengthen_a_sessions_time(real: bool, autojump_clock: trio.testing.MockClock) -> None:
    handler = Recorder()
    server = make_server(handler, ssl_context=server_context(), implicit_tls=True, command_timeout=300)
    async with raw_session(server, ssl.TLSVersion.TLSv1_3, real=real) as client:
        began = trio.current_time()
        try:
            while "on_close" not in handler.calls:
                client.update_keys()
                await client.flush()
                await trio.sleep(10)
        except trio.BrokenResourceError:
            pass
        assert trio.current_time() - began <= 320


@needs_openssl
@pytest.mark.parametrize("real", [True, False])
async def test_ten_thousand_key_updates_are_borne_or_end_the_session(
    real: bool, autojump_clock: trio.testing.MockClock
) -> None:
    """Each wants an answer of TLS's own; a client that says nothing else cannot make them pile up."""
    handler = Recorder()
    server = make_server(handler, ssl_context=server_context(), implicit_tls=True)
    async with raw_session(server, ssl.TLSVersion.TLSv1_3, real=real) as client:
        with contextlib.suppress(trio.BrokenResourceError):
            for _ in range(100):
                for _ in range(100):
                    client.update_keys()
                await client.flush()
            await client.send(b"NOOP\r\n")
            assert await client.receive() in (b"250 2.0.0 OK\r\n", b"")
        await client.stream.aclose()
        while "on_close" not in handler.calls:
            await trio.sleep(1)
    assert handler.count("on_close") == 1


@pytest.mark.parametrize("in_message", [True, False])
async def test_tls_cut_off_without_close_notify(in_message: bool) -> None:
    handler = Recorder()
    async with serving(make_server(handler, ssl_context=server_context(), implicit_tls=True)) as connect:
        peer = connect()
        bare = peer.stream
        peer.stream = trio.SSLStream(bare, client_context(), server_hostname="mx.test")
        await peer.hello()
        if in_message:
            await peer.speak(MAIL + "C: DATA\nS: 354…\nC: half")
        else:
            await peer.ask("QUIT")
        await trio.aclose_forcefully(bare)
        await trio.testing.wait_all_tasks_blocked()
    assert handler.messages == []
    assert handler.count("on_reset") == int(in_message)
    assert handler.count("on_close") == 1


@pytest.mark.parametrize(
    ("lines", "answers"),
    [
        ([b"AUTH PLAIN " + b"A" * (12288 - 13)], ["501"]),  # the longest there may be
        ([b"AUTH PLAIN " + b"A" * (12288 - 12)], ["500"]),
        ([b"AUTH PLAIN", b"A" * 1_000_000], ["334", "500"]),
        ([b"AUTH PLAIN ="], ["501"]),
        ([b"AUTH PLAIN *"], ["501"]),
        ([b"AUTH PLAIN", b"*"], ["334", "501"]),
        ([b"AUTH PLAIN", b"AG1l*AHNl"], ["334", "501"]),
        ([b"AUTH PLAIN AG1l AHNl"], ["501"]),
        ([b"AUTH PLAIN", b"AG1l AHNl"], ["334", "501"]),
        ([b"AUTH PLAIN AG1lAHNlY3JldA"], ["501"]),
        ([b"AUTH FOO"], ["504"]),
        ([b"AUTH"], ["501"]),
    ],
)
def test_auth_lines(lines: list[bytes], answers: list[str]) -> None:
    core = Core(tls=True)
    core.say(b"EHLO x\r\n")
    got: list[str] = []
    for line in lines:
        for at in range(0, len(line), 8192):
            got += codes(core.say(line[at : at + 8192]))
        got += codes(core.say(b"\r\n")) if not core.protocol.is_closed else []
    assert got == answers


def test_one_tls_context_for_different_privileges_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    context = server_context()
    make_server(ssl_context=context)
    make_server(ssl_context=context, max_errors=5)
    assert caplog.messages == []
    make_server(Recorder(on_auth=True), ssl_context=context, auth="required")
    assert "different privileges" in caplog.messages[0]
    make_server(Recorder(on_auth=True), ssl_context=server_context(), auth="required")
    assert len(caplog.messages) == 1


# ---- a command that fails neither begins nor ends a transaction

FAILING = {
    "MAIL": b"MAIL FROM:<a\r\n",
    "MAIL parameter": b"MAIL FROM:<a@a.test> FOO=1\r\n",
    "MAIL size": b"MAIL FROM:<a@a.test> SIZE=99999999999999999999\r\n",
    "RCPT": b"RCPT TO:<b@b.test>\r\n",
    "RCPT syntax": b"RCPT TO:b\r\n",
    "DATA argument": b"DATA now\r\n",
    "BDAT": b"BDAT 4\r\nRSET",
    "BDAT last": b"BDAT 4 LAST\r\nRSET",
    "RSET argument": b"RSET now\r\n",
    "VRFY": b"VRFY\r\n",
    "VRFY 8bit": b"VRFY \xff\r\n",
    "EXPN": b"EXPN x\r\n",
    "EHLO": b"EHLO\r\n",
    "HELO": b"HELO a b\r\n",
    "AUTH": b"AUTH FOO\r\n",
    "AUTH cancelled": b"AUTH PLAIN\r\n*\r\n",
    "STARTTLS": b"STARTTLS now\r\n",
    "unknown": b"FOO\r\n",
    "not implemented": b"ETRN x\r\n",
    "control character": b"MAIL FROM:<a@a.test>\0\r\n",
    "too long": b"MAIL FROM:<" + b"a" * 3000 + b"@a.test>\r\n",
}
REFUSED_MESSAGES = {
    "too large": b"DATA\r\n" + b"x" * 99 + b"\r\n.\r\n",
    "bare newline": b"DATA\r\na\nb\r\n.\r\n",
    "BDAT too large": b"BDAT 40\r\n" + b"x" * 40 + b"BDAT 20 LAST\r\n" + b"x" * 20,
    "BDAT bare newline": b"BDAT 3 LAST\r\na\nb",
    "BDAT reset": b"BDAT 3\r\nabcRSET\r\n",
    "RSET": b"RSET\r\n",
    "EHLO": b"EHLO y\r\n",
}


@pytest.mark.parametrize("name", FAILING)
def test_a_failing_command_begins_no_transaction(name: str) -> None:
    core = Core(tls=True, starttls=True)
    core.say(b"EHLO x\r\n")
    answer = codes(core.say(FAILING[name]))
    assert answer[-1][0] in "45", answer
    for command in (b"DATA\r\n", b"BDAT 0 LAST\r\n", b"RCPT TO:<b@b.test>\r\n"):
        assert codes(core.say(command)) == ["503"]
    assert core.messages == []


@pytest.mark.parametrize("name", sorted(FAILING.keys() - {"RCPT"}))
def test_a_failing_command_ends_no_transaction(name: str) -> None:
    core = Core(tls=True, starttls=True)
    core.say(b"EHLO x\r\nMAIL FROM:<a@a.test>\r\n")
    answer = codes(core.say(FAILING[name]))
    assert answer[-1][0] in "45", answer
    assert codes(core.say(b"RCPT TO:<b@b.test>\r\nDATA\r\n.\r\n")) == ["250", "354", "250"]


@pytest.mark.parametrize("name", REFUSED_MESSAGES)
def test_a_refused_message_leaves_no_transaction(name: str) -> None:
    core = Core(tls=True, max_message_size=50)
    core.say(b"EHLO x\r\n" + ENVELOPE)
    core.say(REFUSED_MESSAGES[name])
    assert core.messages == []
    for command in (b"DATA\r\n", b"BDAT 0 LAST\r\n", b"RCPT TO:<b@b.test>\r\n"):
        assert codes(core.say(command)) == ["503"]
    assert codes(core.say(ENVELOPE + b"DATA\r\n.\r\n")) == ["250", "250", "354", "250"]


@pytest.mark.parametrize("hook", ["on_mail", "on_rcpt", "on_data"])
@pytest.mark.parametrize("answer", [Reject(550, "no"), Reply(450, "later"), ValueError("a bug")])
async def test_a_refusing_hook_leaves_no_half_a_transaction(hook: str, answer: object) -> None:
    async with session(Recorder(**{hook: answer})) as peer:
        await peer.send(ENVELOPE + b"DATA\r\n")
        got = [await peer.code() for _ in range(3)]
        wanted = {"on_mail": [None, "503", "503"], "on_rcpt": ["250", None, "503"], "on_data": ["250", "250", None]}[
            hook
        ]
        assert [code for code, want in zip(got, wanted, strict=True) if want] == [want for want in wanted if want]
        assert got[wanted.index(None)][0] in "45"
        assert (await peer.ask("DATA"))[:3] == "503"
