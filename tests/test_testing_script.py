# trio_smtp.testing: peers that follow a script.
from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

import trio_smtp
from trio_smtp import ClientConfig, Stage
from trio_smtp.testing import FaultyStream, ScriptedPeer, Split, make_certificates, open_script, open_sink

HELLO = """
    S: 220 mail.test ESMTP
    C: EHLO me.test
    S: 250-mail.test
    S: 250 PIPELINING
"""
BYE = """
    C: QUIT
    S: 221 bye
    C: <closed>
"""
TAKEN = """
    C: MAIL FROM:<a@x.test>
    C: RCPT TO:<b@y.test>
    C: DATA
    S: 250 ok
    S: 250 ok
    S: 354 go
    C: <text>
    S: 250 2.0.0 taken
"""


def client_of(server, **options):
    return trio_smtp.open_client("mail.test", stream=server.connect(), local_hostname="me.test", **options)


async def send(client):
    return await client.send("a@x.test", ["b@y.test"], b"hi\r\n.there\r\n")


# --- a server for a client ---


@pytest.mark.parametrize("size", [None, 1])
async def test_a_transcript(size):
    wrap = (lambda stream: stream) if size is None else (lambda stream: FaultyStream(stream, receive=Split(size)))
    async with open_script(HELLO + TAKEN + TAKEN + BYE, wrap=wrap) as server, client_of(server) as client:
        assert (await send(client)).reply.text == "taken"
        await send(client)
    assert server.peers[0].texts == [b"hi\r\n..there\r\n"] * 2
    assert server.peers[0].heard.startswith(b"EHLO me.test\r\nMAIL FROM:")


async def test_over_loopback_with_a_script_for_each_connection():
    refused = HELLO + "C: MAIL…\nC: RCPT TO...\nC: DATA\nS: 451 4.3.0 not now\nS: 503 no\nS: 503 no" + BYE
    async with open_script(refused, HELLO + TAKEN + BYE) as server:
        for ok in (False, True):
            async with trio_smtp.open_client(server.host, server.port, local_hostname="me.test") as client:
                if ok:
                    await send(client)
                else:
                    with pytest.raises(trio_smtp.SenderRefusedError, match="not now"):
                        await send(client)
    assert len(server.peers) == 2


async def test_tls():
    certificates = make_certificates("mail.test")
    script = """
        S: 220 mail.test ESMTP
        C: EHLO me.test
        S: 250-mail.test
        S: 250 STARTTLS
        C: STARTTLS
        S: 220 go
        S: <tls>
        C: EHLO me.test
        S: 250 mail.test
    """
    implicit = "S: <tls>\n" + script.partition("S: <tls>\n")[0].partition("C: STARTTLS")[0]
    options = {"ssl_context": certificates.client_context()}
    async with open_script(script + BYE, implicit + BYE, certificates=certificates) as server:
        async with client_of(server, **options) as client:
            assert client.tls.verified
        async with client_of(server, tls="implicit", **options) as client:
            assert client.tls.verified


async def test_bdat_and_octets():
    async with (
        open_script(
            """
        S: 220 mail.test ESMTP
        C: EHLO…
        S: 250-mail.test
        S: 250 CHUNKING
        C: MAIL FROM:<a@x.test>
        S: 250 ok
        C: RCPT TO:<b@y.test>
        S: 250 ok
        C: BDAT 12 LAST
        C: <octets 12>
        S: 250 ok
        """
            + BYE
        ) as server,
        client_of(server) as client,
    ):
        await send(client)
    assert b"hi\r\n.there\r\n" in server.peers[0].heard


async def test_a_stall(autojump_clock: MockClock):
    async with open_script(HELLO + "C: MAIL…\nC: RCPT…\nC: DATA\nS: <stall>") as server:
        with pytest.raises(trio_smtp.SMTPTimeoutError) as caught:
            async with client_of(server, config=ClientConfig(command_timeout=100)) as client:
                await send(client)
        assert caught.value.stage is Stage.MAIL
    assert 100 <= trio.current_time() < 200


async def test_a_close():
    async with open_script(HELLO + "C: MAIL…\nS: 250 ok\nS: <close>") as server:
        with pytest.raises(trio_smtp.ConnectionLostError):
            async with client_of(server) as client:
                await send(client)


async def test_a_script_as_a_function():
    async def script(peer: ScriptedPeer) -> None:
        await peer.say("220 mail.test ESMTP")
        name = (await peer.line()).removeprefix("EHLO ")
        await peer.send(f"250 hello {name}\r\n".encode())
        await peer.hear("NOOP", "QUIT")
        await peer.say("250 ok", "221 bye")
        await peer.closed()

    async with open_script(script) as server, trio.open_nursery() as nursery:
        stream = server.connect()
        client = ScriptedPeer(stream, side="C")
        nursery.start_soon(client.play, "S: 220…\nC: EHLO x\nS: 250 hello x\nC: NOOP\nC: QUIT\nS: 250 ok\nS: 221 bye")
        await trio.testing.wait_all_tasks_blocked()
        await client.aclose()


# --- what goes wrong is told ---


async def follow(script, do, **options):
    async with open_script(script, **options) as server:
        await do(server)


async def quit_at_once(server):
    async with client_of(server):
        pass


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (HELLO + "C: NOOP", "connection 1: line 5 of the script: heard 'QUIT' instead of 'NOOP'"),
        (HELLO + "C: NOOP…", "connection 1: line 5 of the script: heard 'QUIT' instead of 'NOOP…'"),
        ("S: 220 hi\nC: HELO…", "connection 1: line 2 of the script: heard 'EHLO me.test' instead of 'HELO…'"),
        (HELLO + "C: <closed>", r"line 5 of the script: heard b'QUIT\\r\\n' instead of the end of the stream"),
        (
            HELLO + "C: QUIT\nS: 221 bye\nC: RSET",
            "line 7 of the script: the stream has ended, while waiting for 'RSET'",
        ),
        (HELLO + "C: QUIT\nS: 221 bye\nC: <text>", "while waiting for the end of a message's text"),
        (HELLO + "C: <octets 90>", "while waiting for 90 octets"),
        (
            HELLO + "C: <octets 1>\nS: <tls>",
            r"line 6 of the script: heard b'UIT\\r\\n' in clear instead of a TLS handshake",
        ),
    ],
)
async def test_a_client_that_does_not_follow(script, words, autojump_clock: MockClock):
    with pytest.raises(AssertionError, match=words):
        await follow(script, quit_at_once)


async def test_a_client_that_is_slow_to_end(autojump_clock: MockClock):
    async def stay(server):
        server.stream = server.connect()
        await server.stream.receive_some()

    with pytest.raises(AssertionError, match="connection 1: the script still waits for 'QUIT'"):
        await follow("S: 220 hi\nC: QUIT", stay, patience=7)
    assert trio.current_time() == pytest.approx(7)


async def test_nobody_connects():
    with pytest.raises(AssertionError, match="only 0 of 1 scripts were begun"):
        async with open_script(HELLO):
            pass


async def test_one_connection_too_many():
    async def connect_twice(server):
        await quit_at_once(server)
        await quit_at_once(server)

    with pytest.raises(AssertionError, match="connection 2: there are only 1 scripts"):
        await follow(HELLO + BYE, connect_twice)


async def test_an_error_of_the_block_comes_first_if_the_script_was_followed():
    async def fail(server):
        await quit_at_once(server)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await follow(HELLO + BYE, fail)
    with pytest.raises(ZeroDivisionError):  # the second script is not to blame
        async with open_script(HELLO + BYE, HELLO) as server:
            await fail(server)


async def test_cancelling_the_block(autojump_clock: MockClock):
    with trio.move_on_after(5) as scope:
        async with open_script(HELLO) as server:
            stream = server.connect()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert await stream.receive_some() == b"220 mail.test ESMTP\r\n"
    assert await stream.receive_some() == b""


@pytest.mark.parametrize("line", ["X: hello", "S 220 hi", "S:220 hi", "220 hi"])
async def test_lines_that_are_none(line):
    near, _ = memory_stream_pair()
    with pytest.raises(ValueError, match="line 2 of the script begins neither"):
        await ScriptedPeer(near).play(f"\n  S: 220 hi\n\n  {line}\n")


@pytest.mark.parametrize(
    ("script", "words"),
    [("S: 220 hi\nX: hello", "line 2 of the script"), (5, "a script is"), (b"S: 220 hi", "a script is")],
)
async def test_scripts_that_are_none(script, words):
    """Told of at once: when a client has come, it would be the client whose error is seen."""
    with pytest.raises((TypeError, ValueError), match=words):
        async with open_script(script):
            raise AssertionError("it was opened")


async def test_what_a_script_raises_is_told_first():
    async def script(peer):
        await peer.say("220 mail.test ESMTP")
        raise LookupError("a mistake in the test")

    with pytest.raises(AssertionError, match="connection 1: the script raised LookupError") as caught:
        async with (
            open_script(script) as server,
            trio_smtp.open_client(server.host, server.port, local_hostname="me.test"),
        ):
            raise AssertionError("it was opened")
    assert isinstance(caught.value.__cause__, LookupError)


async def test_what_a_peer_cannot_be():
    near, _ = memory_stream_pair()
    with pytest.raises(ValueError, match="side is 'S' or 'C'"):
        ScriptedPeer(near, side="server")  # type: ignore[arg-type]


# --- a client for a server ---


@pytest.mark.parametrize("tls", ["none", "starttls", "implicit"])
async def test_a_scripted_client(tls):
    start = {
        "none": "S: 220 sink.test ESMTP trio_smtp",
        "starttls": "S: 220…\nC: EHLO x\n" + "S: 250-…\n" * 7 + "S: 250 STARTTLS\nC: STARTTLS\nS: 220…\nC: <tls>",
        "implicit": "C: <tls>\nS: 220 sink.test ESMTP trio_smtp",
    }[tls]
    script = start.replace("S: 250-…\n" * 7 + "S: 250 STARTTLS", "S: <ehlo>") + (
        """
        C: HELO x
        S: 250 sink.test
        C: MAIL FROM:<a@x.test>
        C: RCPT TO:<b@y.test>
        S: 250 2.1.0 OK
        S: 250 2.1.5 OK
        C: DATA
        S: 354 …
        C: hello
        C: .
        S: 250 2.0.0 OK: queued as 1
        C: QUIT
        S: 221…
        S: <closed>
        """
    )
    async with open_sink(tls=tls) as sink:
        peer = ScriptedPeer(sink.connect(), side="C", certificates=sink.certificates)
        before, _, after = script.partition("S: <ehlo>\n")
        if after:
            await peer.play(before)
            while (await peer.line())[3] == "-":
                pass
        await peer.play(after or before)
    assert [message.content for message in sink.messages] == [b"hello\r\n"]
