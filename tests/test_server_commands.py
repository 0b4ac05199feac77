# The order of commands and their replies, as RFC 5321 has them; and defects that other servers had.
from __future__ import annotations

import pytest
import trio
import trio.lowlevel
from support import DATA, GREETING, MAIL, Recorder, make_server, serving, session
from trio.testing import memory_stream_pair

from trio_smtp import Reject, Reply, open_client

BEFORE_HELLO = {
    "MAIL FROM:<>": "503 5.5.1 send EHLO first",
    "RCPT TO:<a@a.test>": "503 5.5.1 send EHLO first",
    "DATA": "503 5.5.1 send EHLO first",
    "BDAT 0 LAST": "503 5.5.1 send EHLO first",
    "RSET": "250 2.0.0 OK",
    "NOOP": "250 2.0.0 OK",
    "VRFY a": "252 2.5.0 cannot verify the user, but will take mail for it",
}


@pytest.mark.parametrize("command", BEFORE_HELLO)
async def test_before_ehlo(command):
    async with session(hello=False) as peer:
        await peer.expect(GREETING)
        assert await peer.ask(command) == BEFORE_HELLO[command]


async def test_the_ehlo_reply():
    async with session(hello=False, max_message_size=1000, max_recipients=7, max_messages=9) as peer:
        await peer.speak(f"""
            S: {GREETING}
            C: EHLO client.test
            S: 250-mx.test
            S: 250-PIPELINING
            S: 250-SIZE 1000
            S: 250-8BITMIME
            S: 250-SMTPUTF8
            S: 250-ENHANCEDSTATUSCODES
            S: 250-CHUNKING
            S: 250-BINARYMIME
            S: 250-LIMITS MAILMAX=9 RCPTMAX=7
            S: 250 VRFY
        """)


async def test_helo_has_no_extensions_but_knows_their_parameters():
    async with session(hello=False) as peer:
        await peer.reply()
        await peer.speak("""
            C: HELO client.test
            S: 250 mx.test
            C: MAIL FROM:<a@a.test> SIZE=10 BODY=8BITMIME
            S: 250 2.1.0 OK
        """)


@pytest.mark.parametrize(
    ("state", "command", "reply"),
    [
        ("ready", "RCPT TO:<a@a.test>", "503 5.5.1 send MAIL first"),
        ("ready", "DATA", "503 5.5.1 send MAIL first"),
        ("ready", "BDAT 0 LAST", "503 5.5.1 send MAIL first"),
        ("mail", "MAIL FROM:<>", "503 5.5.1 a transaction is in progress"),
        ("mail", "DATA", "503 5.5.1 send RCPT first"),
        ("mail", "BDAT 0", "503 5.5.1 send RCPT first"),
        ("rcpt", "MAIL FROM:<>", "503 5.5.1 a transaction is in progress"),
        ("rcpt", "DATA now", "501 5.5.4 DATA takes no argument"),
        ("rcpt", "RSET now", "501 5.5.4 RSET takes no argument"),
        ("ready", "EHLO", "501 5.5.4 syntax: EHLO hostname"),
        ("ready", "HELO", "501 5.5.4 syntax: HELO hostname"),
        ("ready", "EHLO two words", "501 5.5.4 syntax: EHLO hostname"),
        ("ready", "EHLO " + 256 * "x", "501 5.5.4 syntax: EHLO hostname"),
        ("ready", "VRFY", "501 5.5.4 syntax: VRFY address"),
        ("ready", "LHLO x", "500 5.5.1 command not recognized"),
        ("ready", "EXPN list", "502 5.5.1 command not implemented"),
        ("ready", "STARTTLS", "500 5.5.1 command not recognized"),
        ("ready", "AUTH PLAIN", "500 5.5.1 command not recognized"),
        ("ready", "ETRN x", "502 5.5.1 command not implemented"),
        ("ready", "BOGUS", "500 5.5.1 command not recognized"),
        ("ready", "", "500 5.5.1 command not recognized"),
        ("ready", " NOOP", "500 5.5.1 command not recognized"),
        ("ready", "MAIL", "501…"),
        ("ready", "MAIL FROM", "501…"),
        ("ready", "MAIL FROM:<a@b> FOO=1", "555 5.5.4 parameter FOO is not supported"),
        ("mail", "RCPT TO:<a@b> FOO", "555 5.5.4 parameter FOO is not supported"),
        ("mail", "RCPT TO:<a@b> NOTIFY=NEVER", "555 5.5.4 parameter NOTIFY is not supported"),
        ("mail", "RCPT TO:<>", "501…"),
        ("mail", "RCPT TO:<a>", "501…"),
    ],
)
async def test_refused_and_nothing_is_changed(state, command, reply):
    handler = Recorder()
    async with session(handler) as peer:
        await peer.speak({"ready": "", "mail": MAIL[: MAIL.index("C: RCPT")], "rcpt": MAIL}[state])
        await peer.send_line(command)
        await peer.expect(reply)
        following = {"ready": "MAIL FROM:<a@a.test>", "mail": "RCPT TO:<b@b.test>", "rcpt": "DATA"}[state]
        assert (await peer.ask(following))[:3] == ("354" if state == "rcpt" else "250")
        if state == "rcpt":
            assert await peer.ask(".") == "250 2.0.0 OK: queued"
    assert handler.count("on_reset") == (state != "rcpt")


@pytest.mark.parametrize("command", ["noop", "NoOp anything at all", "NOOP ", "NOOP \t", "QUIT", "quit now"])
async def test_case_arguments_and_trailing_white_space_do_not_matter(command):
    async with session() as peer:
        assert (await peer.ask(command))[:3] == ("221" if "q" in command.lower() else "250")


@pytest.mark.parametrize(
    ("command", "address", "domain"),
    [
        ("mail from:<A.b@Example.COM>", "A.b@Example.COM", "example.com"),
        ("MAIL FROM: <a@b.test>", "a@b.test", "b.test"),
        ("MAIL FROM:<@x,@y:a@b.test>", "a@b.test", "b.test"),
        ('MAIL FROM:<"a b@c"@d.test>', '"a b@c"@d.test', "d.test"),
        ("MAIL FROM:<a@[192.0.2.1]>", "a@[192.0.2.1]", "[192.0.2.1]"),
        ("MAIL FROM:<a@[IPv6:2001:db8::1]>", "a@[IPv6:2001:db8::1]", "[IPv6:2001:db8::1]"),
        ("MAIL FROM:<>", "", ""),
        ("MAIL FROM:<é@b.test> SMTPUTF8", "é@b.test", "b.test"),
    ],
)
async def test_addresses_as_hooks_see_them(command, address, domain):
    handler = Recorder()
    async with session(handler) as peer:
        assert await peer.ask(command) == "250 2.1.0 OK"
    [(_, sender)] = [seen for seen in handler.seen if seen[0] == "on_mail"]
    assert (sender.address, sender.domain) == (address, domain)


async def test_postmaster_needs_no_domain():
    handler = Recorder()
    async with session(handler) as peer:
        await peer.ask("MAIL FROM:<>")
        assert await peer.ask("RCPT TO:<PostMaster>") == "250 2.1.5 OK"


async def test_help_names_the_commands():
    async with session() as peer:
        reply = await peer.ask("HELP")
        assert reply.startswith("214 2.0.0 commands: ")
        assert "MAIL" in reply
        assert "STARTTLS" not in reply


async def test_quit_ends_the_session():
    async with session() as peer:
        await peer.speak("C: QUIT\nS: 221 2.0.0 mx.test closing connection\nS: <closed>")


async def test_nothing_is_read_after_quit():
    handler = Recorder()
    async with session(handler) as peer:
        await peer.speak("C: QUIT\nC: MAIL FROM:<>\nS: 221 2.0.0 mx.test closing connection\nS: <closed>")
    assert handler.count("on_mail") == 0


async def test_ehlo_disabled():
    async with session(hello=False, enable_ehlo=False) as peer:
        await peer.reply()
        await peer.speak("C: EHLO x\nS: 502 5.5.1 command not implemented\nC: HELO x\nS: 250 mx.test")


async def test_disabled_extensions_and_what_hangs_on_them():
    async with session(disabled_extensions=("8bitmime", "CHUNKING", "ENHANCEDSTATUSCODES")) as peer:
        reply = await peer.ask("EHLO x")
        for keyword in ("8BITMIME", "SMTPUTF8", "CHUNKING", "ENHANCED"):
            assert keyword not in reply
        assert await peer.ask("BDAT 3 LAST") == "500 command not recognized"
        assert await peer.ask("MAIL FROM:<a@b.test> BODY=8BITMIME") == "555 parameter BODY is not supported"
        assert await peer.ask("MAIL FROM:<a@b.test>") == "250 OK"


async def test_opt_in_extensions():
    names = ("DSN", "DELIVERBY", "FUTURERELEASE", "MT-PRIORITY")
    handler = Recorder()
    async with session(handler, enabled_extensions=names) as peer:
        reply = await peer.ask("EHLO x")
        assert all(name in reply for name in names)
        assert await peer.ask("MAIL FROM:<a@b.test> RET=HDRS ENVID=x+2By") == "250 2.1.0 OK"
        assert await peer.ask("RCPT TO:<c@d.test> NOTIFY=FAILURE ORCPT=rfc822;q+3Dw@d.test") == "250 2.1.5 OK"
    sender, recipient = [value for name, value in handler.seen if name in ("on_mail", "on_rcpt")]
    assert (sender.ret, sender.envid, sender.params) == ("HDRS", "x+y", {"RET": "HDRS", "ENVID": "x+2By"})
    assert (recipient.notify, recipient.orcpt) == ({"FAILURE"}, ("rfc822", "q=w@d.test"))


# ---- pipelining (RFC 2920)


async def test_a_whole_session_in_one_segment():
    handler = Recorder()
    async with session(handler, hello=False) as peer:
        await peer.reply()
        await peer.send(
            "EHLO x\r\nMAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\nDATA\r\none\r\n.\r\n"
            "MAIL FROM:<c@c.test>\r\nRCPT TO:<d@d.test>\r\nDATA\r\ntwo\r\n.\r\nQUIT\r\n"
        )
        codes = [await peer.code() for _ in range(10)]
        assert codes == ["250", "250", "250", "354", "250", "250", "250", "354", "250", "221"]
        await peer.expect("<closed>")
    assert handler.messages == [("a@a.test", ["b@b.test"], b"one\r\n"), ("c@c.test", ["d@d.test"], b"two\r\n")]


async def test_a_whole_session_one_octet_at_a_time():
    handler = Recorder()
    async with session(handler, hello=False) as peer:
        await peer.reply()
        for octet in b"EHLO x\r\nMAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\nDATA\r\none\r\n..\r\n.\r\nQUIT\r\n":
            await peer.send(bytes([octet]))
        assert [await peer.code() for _ in range(6)] == ["250", "250", "250", "354", "250", "221"]
    assert handler.messages == [("a@a.test", ["b@b.test"], b"one\r\n.\r\n")]


async def test_replies_of_a_group_leave_together():
    class Counting(trio.abc.Stream):
        def __init__(self, stream):
            self.stream = stream
            self.sent = []

        async def send_all(self, data):
            self.sent.append(bytes(data))
            await self.stream.send_all(data)

        async def wait_send_all_might_not_block(self):
            await trio.lowlevel.checkpoint()

        async def receive_some(self, max_bytes=None):
            return await self.stream.receive_some(max_bytes)

        async def aclose(self):
            await self.stream.aclose()

    near, far = trio.testing.memory_stream_pair()
    counting = Counting(far)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(make_server().serve_stream, counting)
        await near.send_all(b"EHLO x\r\n")
        await trio.testing.wait_all_tasks_blocked()
        counting.sent.clear()
        await near.send_all(b"MAIL FROM:<a@a.test>\r\n" + 20 * b"RCPT TO:<b@b.test>\r\n" + b"NOOP\r\nNOOP\r\n")
        await trio.testing.wait_all_tasks_blocked()
        assert [data.count(b"\r\n") for data in counting.sent] == [22, 1]  # NOOP is not held back
        counting.sent.clear()
        await near.send_all(b"RSET\r\nMAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.te")
        await trio.testing.wait_all_tasks_blocked()
        assert [data.count(b"\r\n") for data in counting.sent] == [2]  # nothing is kept back when the input is used up
        await near.aclose()


async def test_a_thousand_pipelined_recipients_from_a_client_that_does_not_read():
    handler = Recorder()
    async with session(handler) as peer:
        await peer.send("MAIL FROM:<a@a.test>\r\n" + "".join(f"RCPT TO:<u{n}@b.test>\r\n" for n in range(1001)))
        await peer.send("DATA\r\n.\r\n")
        codes = [await peer.code() for _ in range(1004)]
    assert codes == ["250"] * 1001 + ["452", "354", "250"]
    assert len(handler.messages[0][1]) == 1000


async def test_a_client_that_pipelines_100000_noops_does_not_starve_another():
    # Real sockets: there the server reads and writes without waiting, as long as the kernel plays along.
    server = make_server(max_junk_commands=None, max_errors=None)
    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(lambda task_status: server.serve(0, host="127.0.0.1", task_status=task_status))
        address = listener.socket.getsockname()
        greedy = await trio.open_tcp_stream(*address)
        modest = await trio.open_tcp_stream(*address)
        for stream in (greedy, modest):
            await stream.receive_some()
        answered = 0

        async def flood():
            await greedy.send_all(b"NOOP\r\n" * 100_000)

        async def count():
            nonlocal answered
            while answered < 100_000 * len("250 2.0.0 OK\r\n"):
                answered += len(await greedy.receive_some())

        async with trio.open_nursery() as flooding:
            flooding.start_soon(flood)
            flooding.start_soon(count)
            await trio.lowlevel.checkpoint()
            for _ in range(20):
                await modest.send_all(b"NOOP\r\n")
                assert await modest.receive_some() == b"250 2.0.0 OK\r\n"
            assert answered < 100_000 * len("250 2.0.0 OK\r\n") / 2
            flooding.cancel_scope.cancel()
        await greedy.aclose()
        await modest.aclose()
        nursery.cancel_scope.cancel()


async def test_a_flood_of_errors_answered_by_the_protocol_alone_is_sent_in_pieces():
    async with session(max_errors=None, soft_errors=None) as peer:
        await peer.send(b"\r\n" * 5000)
        for _ in range(5000):
            assert await peer.line() == "500 5.5.1 command not recognized"


# ---- what callback servers got wrong


async def test_null_sender_end_to_end():
    handler = Recorder()
    async with session(handler) as peer:
        await peer.speak("""
            C: MAIL FROM:<>
            S: 250 2.1.0 OK
            C: RCPT TO:<b@b.test>
            S: 250 2.1.5 OK
            C: DATA
            S: 354…
            C: bounce
            C: .
            S: 250 2.0.0 OK: queued
        """)
    assert handler.messages == [("", ["b@b.test"], b"bounce\r\n")]


async def test_pipelined_group_with_slow_hooks_is_answered_in_order(autojump_clock):
    async def slow(*args):
        await trio.sleep(1)

    async def refuse(session, recipient):
        await trio.sleep(3 if recipient.local_part == "slow" else 0)
        raise Reject(550, recipient.local_part)

    async with session(Recorder(on_mail=slow, on_rcpt=refuse)) as peer:
        await peer.speak("""
            C: MAIL FROM:<a@a.test>
            C: RCPT TO:<slow@b.test>
            C: RCPT TO:<fast@b.test>
            C: DATA
            S: 250 2.1.0 OK
            S: 550 5.0.0 slow
            S: 550 5.0.0 fast
            S: 503 5.5.1 send RCPT first
        """)


async def test_empty_message():
    handler = Recorder()
    async with session(handler) as peer:
        await peer.speak(DATA + "    C: .\n    S: 250 2.0.0 OK: queued\n    C: NOOP\n    S: 250 2.0.0 OK")
    assert handler.messages[0][2] == b""


async def test_command_split_right_after_the_dot():
    handler = Recorder()
    async with session(handler) as peer:
        await peer.speak(DATA)
        await peer.send("text\r\n.\r\nNO")
        assert await peer.line() == "250 2.0.0 OK: queued"
        await peer.send("OP\r\n")
        assert await peer.line() == "250 2.0.0 OK"
    assert handler.messages[0][2] == b"text\r\n"


async def test_a_chunk_that_ends_with_cr_cr_lf_loses_nothing():
    handler = Recorder()
    async with session(handler, bare_newlines="normalize") as peer:
        await peer.speak(DATA)
        await peer.send("abc\r\r\n")
        await trio.testing.wait_all_tasks_blocked()
        await peer.send("def\r\n.\r\n")
        assert await peer.code() == "250"
    assert handler.messages[0][2] == b"abc\r\n\r\ndef\r\n"


async def test_nothing_is_without_a_limit():
    from trio_smtp import ServerConfig

    config = ServerConfig()
    for name in [
        "max_message_size",
        "max_connections",
        "max_connections_per_host",
        "max_recipients",
        "max_messages",
        "max_errors",
        "max_junk_commands",
        "max_auth_failures",
        "max_command_line",
        "max_auth_line",
        "max_reply_buffer",
        "command_timeout",
        "data_timeout",
        "session_timeout",
        "handler_timeout",
        "tls_handshake_timeout",
        "min_data_rate",
    ]:
        assert getattr(config, name) is not None


async def test_a_bare_lf_command_is_answered_and_does_not_hang():
    async with session() as peer:
        await peer.send("NOOP\n")
        await peer.speak("S: 500 5.5.2 lines end with CR LF\nS: <closed>")


async def test_rset_keeps_the_authentication():
    handler = Recorder(on_auth=True)
    async with session(handler, allow_insecure_auth=True, auth="required") as peer:
        assert (await peer.ask("AUTH PLAIN AHUAcA=="))[:3] == "235"
        await peer.ask("RSET")
        assert await peer.ask("MAIL FROM:<>") == "250 2.1.0 OK"
        assert handler.sessions[0].identity == "u"


async def test_data_can_be_refused_before_anything_is_transferred():
    async with session(Recorder(on_data=Reject(452, "no room", "4.3.1"))) as peer:
        await peer.speak(MAIL + "    C: DATA\n    S: 452 4.3.1 no room\n    C: RCPT TO:<x@y.test>\n    S: 503…")


async def test_rcpt_has_its_own_enhanced_code_and_repeated_recipients_are_kept():
    handler = Recorder()
    async with session(handler) as peer:
        await peer.speak(MAIL)
        await peer.speak("C: RCPT TO:<b@b.test>\nS: 250 2.1.5 OK\nC: DATA\nS: 354…\nC: .\nS: 250…")
    assert handler.messages[0][1] == ["b@b.test", "b@b.test"]


async def test_later_1_a_handler_that_rejects_asynchronously_gets_its_answer(autojump_clock):
    async def later(*args):
        await trio.sleep(1)
        raise Reject(550, "no")

    async with session(Recorder(on_mail=later)) as peer:
        assert await peer.ask("MAIL FROM:<>") == "550 5.0.0 no"


# ---- what Postfix got wrong once

FAILING = [
    "MAIL FROM:<x@y.test> SIZE=99999999999",
    "MAIL FROM:<x@y.test> FOO",
    "MAIL bad",
    "BDAT 5 LAST\r\nhello",
    "RCPT TO:<x@y.test>",
    "VRFY",
    "VRFY \xff",
    "EXPN x",
    "BOGUS",
    "DATA x",
    "NOOP\0",
    "EHLO",
    "RSET x",
    "AUTH PLAIN",
    "STARTTLS",
]


@pytest.mark.parametrize("command", FAILING)
async def test_postfix_1_after_any_failing_command_data_is_out_of_order(command):
    async with session() as peer:
        await peer.send(command.encode("latin-1") + b"\r\n")
        assert (await peer.reply())[-1][0] == "5"
        if "BDAT" in command:
            assert await peer.code() == "500"  # CR LF after the octets
        assert await peer.ask("DATA") == "503 5.5.1 send MAIL first"
        assert (await peer.ask("RCPT TO:<a@b.test>"))[:3] == "503"


@pytest.mark.parametrize(
    "when", ["before reading", "after reading", "fails", "too large", "bare", "BDAT", "BDAT too large"]
)
async def test_postfix_1_and_2_after_a_refused_message_nothing_is_left_of_the_transaction(when):
    async def on_data(session, envelope, body):
        if when != "before reading":
            await body.read()
        if when == "fails":
            raise RuntimeError
        raise Reject(550, "no")

    async with session(Recorder(on_data=on_data), max_message_size=1000) as peer:
        await peer.speak(MAIL)
        if when.startswith("BDAT"):
            await peer.send("BDAT 600\r\n" + 600 * "x")
            assert await peer.code() == "250"
            size = 600 if "large" in when else 3
            await peer.send(f"BDAT {size} LAST\r\n" + size * "x")
        else:
            await peer.send("DATA\r\n")
            if when != "before reading":
                assert await peer.code() == "354"
                text = {"too large": 1001 * "x" + "\r\n", "bare": "a\nb\r\n"}.get(when, "text\r\n")
                await peer.send(text + ".\r\n")
        assert await peer.code() in ("550", "451", "552")
        for command in ("DATA", "RCPT TO:<a@b.test>", "BDAT 0 LAST"):
            assert await peer.ask(command) == "503 5.5.1 send MAIL first"
        assert await peer.ask("MAIL FROM:<a@b.test>") == "250 2.1.0 OK"


@pytest.mark.parametrize(
    "command", ["VRFY é", "VRFY \xff", "VRFY", "EXPN x", "NOOP \0", "NOOP x", "HELP", "VRFY ok", "FOO"]
)
async def test_postfix_3_vrfy_and_the_like_change_nothing_in_mid_transaction(command):
    handler = Recorder()
    async with session(handler) as peer:
        await peer.speak(MAIL)
        await peer.send(command.encode("latin-1") + b"\r\n")
        await peer.reply()
        await peer.speak("C: DATA\nS: 354…\nC: .\nS: 250 2.0.0 OK: queued")
    assert handler.count("on_reset") == 0


# ---- hostile input


async def test_data_without_its_end_and_then_fin():
    handler = Recorder()
    async with session(handler) as peer:
        await peer.speak(DATA)
        await peer.send("Subject: half\r\n")
    assert handler.messages == []
    assert handler.calls[-2:] == ["on_reset", "on_close"]


@pytest.mark.parametrize(
    "line", ["GET / HTTP/1.1", "POST / HTTP/1.0", "CONNECT x:25 HTTP/1.1", "Host: x", "user-agent: y"]
)
async def test_a_browser_is_sent_away_at_once(line):
    async with session(hello=False) as peer:
        await peer.reply()
        await peer.send(line + "\r\nMAIL FROM:<>\r\n")
        await peer.speak("S: 554 5.5.1 this is SMTP\nS: <closed>")


CLIENT_HELLO = bytes.fromhex("16030100f8010000f40303")


@pytest.mark.parametrize("rest", [b"", b"\n\0", b"\r\n", 5000 * b"\1"])
async def test_a_tls_handshake_on_a_plain_port_is_answered_at_once(rest):
    async with session(hello=False) as peer:
        await peer.reply()
        await peer.send(CLIENT_HELLO + rest)
        await peer.speak("S: 554 5.5.1 TLS does not start by itself on this port\nS: <closed>")


async def test_ten_megabytes_without_lf_as_a_command():
    async with session() as peer:
        sent = 0
        try:
            while sent < 10_000_000:
                await peer.send(b"x" * 65536)
                sent += 65536
                await trio.testing.wait_all_tasks_blocked()
        except trio.BrokenResourceError:
            pass
        assert sent <= 3 * 65536
        await peer.speak("S: 500 5.5.2 line too long\nS: <closed>")


@pytest.mark.parametrize(
    "what", ["EHLO a\0b", "MAIL FROM:<a\0@b.test>", "NOOP \0", "MAIL FROM:<a\x07@b.test>", "NO\tOP"]
)
async def test_control_characters_never_reach_a_hook(what):
    handler = Recorder()
    async with session(handler) as peer:
        before = list(handler.calls)
        assert (await peer.ask(what))[:3] in ("501", "500")
        assert handler.calls == before
        assert await peer.ask("NOOP") == "250 2.0.0 OK"


@pytest.mark.parametrize(
    ("what", "reply"),
    [
        (b"MAIL FROM:<\xc3\xa9@b.test>", "553 5.6.7"),
        (b"MAIL FROM:<\xff@b.test>", "501 5.5.2"),
        (b"MAIL FROM:<\xff@b.test> SMTPUTF8", "501 5.5.2"),
        (b"EHLO \xc3\xa9", "501 5.5.4"),
        (b"\xff\xfe", "500 5.5.1"),
        (b"VRFY \xff", "501 5.5.4"),
    ],
)
async def test_octets_that_are_not_ascii(what, reply):
    async with session() as peer:
        await peer.send(what + b"\r\n")
        assert (await peer.line()).startswith(reply)
        assert await peer.ask("NOOP") == "250 2.0.0 OK"


@pytest.mark.parametrize("mode", ["reject", "normalize"])
@pytest.mark.parametrize(
    "line", [b"MAIL FROM:<a@b.test>\nRCPT TO:<c@d.test>\r\n", b"NOOP\n", b"NOOP\rx\r\n", b"NOOP\r\r\n"]
)
async def test_bare_cr_and_lf_in_commands(line, mode):
    handler = Recorder()
    async with session(handler, bare_newlines=mode) as peer:
        await peer.send(line)
        assert (await peer.line())[:3] in ("500", "501")
        if mode == "reject":
            await peer.expect("<closed>")
    assert handler.count("on_mail") == 0


async def test_a_reply_with_cr_lf_and_2000_characters_is_one_well_formed_reply():
    text = "evil\r\n250 2.0.0 injected\rmore\0\x1b[0m\n" + 2000 * "x"
    async with session(Recorder(on_mail=Reply(550, text, "5.7.1"), on_data=text)) as peer:
        await peer.send_line("MAIL FROM:<>")
        lines = await peer.reply()
        assert all(line.startswith(("550-5.7.1 ", "550 5.7.1 ")) and len(line) <= 510 for line in lines)
        assert lines[1] == "550-5.7.1 250 2.0.0 injected"
        assert await peer.ask("NOOP") == "250 2.0.0 OK"


async def test_a_queue_id_with_cr_lf_is_one_well_formed_reply():
    async def on_data(session, envelope, body):
        await body.read()
        return "id\r\n250 2.0.0 injected" + 2000 * "x"

    async with session(Recorder(on_data=on_data)) as peer:
        await peer.speak(DATA)
        await peer.send(".\r\n")
        lines = await peer.reply()
        assert lines[0] == "250-2.0.0 OK: queued as id"
        assert all(len(line) <= 510 and line[3] + line[4:9] in ("-2.0.0", " 2.0.0") for line in lines)
        assert await peer.ask("NOOP") == "250 2.0.0 OK"


async def test_the_hello_name_is_checked():
    handler = Recorder()
    async with session(handler, hello=False) as peer:
        await peer.reply()
        for name in ("a b", "a\tb", 300 * "x", "", " "):
            assert (await peer.ask("EHLO " + name))[:3] == "501"
        assert (await peer.ask("EHLO " + 255 * "x"))[:3] == "250"
    assert handler.count("on_hello") == 1


# ---- replies


async def test_utf8_in_replies_only_for_clients_that_asked_for_it():
    handler = Recorder(on_rcpt=Reject(550, "schöne Grüße", "5.1.1"))
    async with session(handler) as peer:
        await peer.ask("MAIL FROM:<a@a.test>")
        assert await peer.ask("RCPT TO:<x@x.test>") == r"550 5.1.1 sch\xf6ne Gr\xfc\xdfe"
        await peer.ask("RSET")
        await peer.ask("MAIL FROM:<a@a.test> SMTPUTF8")
        assert await peer.ask("RCPT TO:<x@x.test>") == "550 5.1.1 schöne Grüße"


@pytest.mark.parametrize(
    ("reply", "wire"),
    [
        (Reply(250, "fine"), "250 2.0.0 fine"),
        (Reply(450, "later"), "450 4.0.0 later"),
        (Reply(550, "never"), "550 5.0.0 never"),
        (Reply(550, "never", "5.7.1"), "550 5.7.1 never"),
        (Reply(250, ["a", "b"], "2.1.0"), "250-2.1.0 a\n250 2.1.0 b"),
        (Reply(251, ""), "251 2.0.0 "),
    ],
)
async def test_enhanced_codes(reply, wire):
    async with session(Recorder(on_mail=reply)) as peer:
        assert await peer.ask("MAIL FROM:<>") == wire


async def test_a_reply_that_closes():
    async with session(Recorder(on_rcpt=Reject(550, "enough", "5.7.1", close=True))) as peer:
        await peer.ask("MAIL FROM:<>")
        await peer.speak("C: RCPT TO:<a@b.test>\nC: NOOP\nS: 550 5.7.1 enough\nS: <closed>")


async def test_a_421_from_a_hook_closes():
    handler = Recorder(on_rcpt=Reply(421, "enough"))
    async with session(handler) as peer:
        await peer.ask("MAIL FROM:<>")
        await peer.speak("C: RCPT TO:<a@b.test>\nS: 421 4.0.0 enough\nS: <closed>")
    assert handler.calls[-2:] == ["on_reset", "on_close"]


async def test_expn_with_a_hook():
    class Lists(Recorder):
        async def on_expn(self, session, argument):
            return Reply(250, [f"<a@{argument}>", f"<b@{argument}>"], "2.1.5")

    async with session(Lists()) as peer:
        assert await peer.ask("EXPN x.test") == "250-2.1.5 <a@x.test>\n250 2.1.5 <b@x.test>"


class Directory(Recorder):
    """Knows lists too, and answers with what it was asked for."""

    async def on_vrfy(self, session, argument):
        self.calls.append(argument)
        return Reply(250, f"{argument} <ü@x.test>", "2.1.5") if "unknown" not in argument else Reply(550, "ö", "5.1.1")

    on_expn = on_vrfy


@pytest.mark.parametrize("verb", ["VRFY", "EXPN"])
async def test_utf8_is_asked_for_and_answered_with_the_parameter_only(verb):
    handler = Directory()
    async with session(handler) as peer:
        for said, heard, answer in (
            ("jürgen SMTPUTF8", "jürgen", "250 2.1.5 jürgen <ü@x.test>"),
            ("<j@ü.test>  smtputf8 ", "<j@ü.test>", "250 2.1.5 <j@ü.test> <ü@x.test>"),
            ("me SMTPUTF8", "me", "250 2.1.5 me <ü@x.test>"),
            ("unknown SMTPUTF8", "unknown", "550 5.1.1 ö"),
            ("me", "me", r"250 2.1.5 me <\xfc@x.test>"),
            ("unknown", "unknown", r"550 5.1.1 \xf6"),
            ("Fred Smith", "Fred Smith", r"250 2.1.5 Fred Smith <\xfc@x.test>"),
            ("SMTPUTF8", "SMTPUTF8", r"250 2.1.5 SMTPUTF8 <\xfc@x.test>"),  # somebody's name, and no parameter
            ("aSMTPUTF8", "aSMTPUTF8", r"250 2.1.5 aSMTPUTF8 <\xfc@x.test>"),
            ('"a SMTPUTF8"', '"a SMTPUTF8"', r'250 2.1.5 "a SMTPUTF8" <\xfc@x.test>'),
        ):
            assert await peer.ask(f"{verb} {said}") == answer
            assert handler.calls.pop() == heard
        for said in ("jürgen", "jürgen SMTPUTF8=1", "jürgenSMTPUTF8", "jürgen ſmtputf8"):
            assert await peer.ask(f"{verb} {said}") == "553 5.6.7 a non-ASCII address needs SMTPUTF8"
        assert await peer.ask("NOOP") == "250 2.0.0 OK"
    assert "jürgen" not in handler.calls


async def test_without_the_extension_smtputf8_is_no_parameter_of_vrfy():
    handler = Directory()
    async with session(handler, disabled_extensions=["SMTPUTF8"]) as peer:
        assert await peer.ask("VRFY me SMTPUTF8") == r"250 2.1.5 me SMTPUTF8 <\xfc@x.test>"
        assert (await peer.ask("VRFY jürgen SMTPUTF8")).startswith("553 5.6.7")


async def test_the_client_asks_for_somebody_who_is_not_ascii():
    handler = Directory()
    async with trio.open_nursery() as nursery:
        near, far = memory_stream_pair()
        nursery.start_soon(make_server(handler).serve_stream, far)
        async with open_client("mx.test", stream=near, tls="none") as client:
            assert (await client.verify("jürgen")).text == "jürgen <ü@x.test>"
    assert "jürgen" in handler.calls


async def test_sessions_over_one_server_are_apart():
    handler = Recorder()
    async with serving(make_server(handler)) as connect:
        first, second = connect(), connect()
        await first.hello()
        await second.hello()
        await first.ask("MAIL FROM:<>")
        assert await second.ask("RCPT TO:<a@b.test>") == "503 5.5.1 send MAIL first"
    assert handler.count("on_close") == 2
