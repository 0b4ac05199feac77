# BDAT through a session: each chunk's answer, the octets counted, and what a hook sees when the message is no good.
from __future__ import annotations

import itertools

import pytest
import trio
from core_session import ENVELOPE, Core, codes
from support import MAIL, Peer, Recorder, make_server, serving, session
from trio.testing import wait_all_tasks_blocked

from trio_smtp import ConnectionLostError, MessageAbortedError, MessageTooLargeError, Reject, RemoteProtocolError, Reply

QUEUED = "250 2.0.0 OK: queued"


class Reader(Recorder):
    """Reads all of each message, and keeps the error that this ends with."""

    def __init__(self, **answers: object) -> None:
        super().__init__(on_data=self.read, **answers)
        self.errors: list[Exception] = []
        self.chunks: list[bytes] = []

    async def read(self, session, envelope, body):
        try:
            async for chunk in body:
                self.chunks.append(chunk)
        except Exception as exc:
            self.errors.append(exc)
            raise
        self.messages.append((envelope.sender.address, [], b"".join(self.chunks)))
        self.chunks.clear()


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
async def test_a_message_in_chunks_however_it_is_cut(size: int):
    handler = Recorder()
    wire = b"BDAT 6\r\nline\r\nBDAT 0\r\nBDAT 5\r\n.\r\n..BDAT 4 LAST\r\nend\nRSET\r\n".replace(b"\nRSET", b"!RSET")
    async with session(handler) as peer:
        await peer.speak(MAIL)
        for at in range(0, len(wire), size):
            await peer.send(wire[at : at + size])
        await peer.speak(f"""
            S: 250 2.0.0 6 octets received
            S: 250 2.0.0 6 octets received
            S: 250 2.0.0 11 octets received
            S: {QUEUED}
            S: 250 2.0.0 OK
        """)
    assert handler.messages == [("a@a.test", ["b@b.test"], b"line\r\n.\r\n..end!")]
    assert handler.count("on_data") == 1


async def test_everything_in_one_write():
    handler = Recorder()
    async with session(handler) as peer:
        await peer.send("MAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\nBDAT 3 LAST\r\nabcMAIL FROM:<>\r\nQUIT\r\n")
        await peer.speak(f"S: 250…\nS: 250…\nS: {QUEUED}\nS: 250…\nS: 221…\nS: <closed>")
    assert [content for _, _, content in handler.messages] == [b"abc"]


async def test_an_empty_message():
    handler = Recorder()
    async with session(handler) as peer:
        await peer.speak(MAIL + f"C: BDAT 0 LAST\nS: {QUEUED}")
    assert [content for _, _, content in handler.messages] == [b""]


async def test_each_chunk_is_answered_once_the_hook_has_taken_it():
    taken = trio.Event()

    async def on_data(session, envelope, body):
        await body.__anext__()
        await taken.wait()
        await body.read()

    async with session(Recorder(on_data=on_data)) as peer:
        await peer.speak(MAIL)
        await peer.send("BDAT 3\r\nabc")
        async with trio.open_nursery() as nursery:
            answers: list[str] = []

            async def listen():
                answers.append(await peer.line())

            nursery.start_soon(listen)
            await wait_all_tasks_blocked()
            assert answers == []
            taken.set()
        assert answers == ["250 2.0.0 3 octets received"]
        await peer.speak(f"C: BDAT 0 LAST\nS: {QUEUED}")


async def test_other_commands_between_chunks_are_answered_in_order():
    handler = Recorder()
    async with session(handler) as peer:
        await peer.speak(MAIL)
        await peer.send(
            "BDAT 1\r\naNOOP\r\nVRFY x\r\nMAIL FROM:<>\r\nRCPT TO:<c@c.test>\r\nDATA\r\nFOO\r\nBDAT 1 LAST\r\nb"
        )
        await peer.speak(f"""
            S: 250 2.0.0 1 octets received
            S: 250 2.0.0 OK
            S: 252 2.5.0…
            S: 503 5.5.1 a transaction is in progress
            S: 503 5.5.1 a transaction is in progress
            S: 503 5.5.1 a transaction is in progress
            S: 500 5.5.1…
            S: {QUEUED}
        """)
    assert [content for _, _, content in handler.messages] == [b"ab"]
    assert handler.count("on_vrfy") == 0  # the hook of the message is still running


@pytest.mark.parametrize("command", ["RSET", "QUIT", "EHLO x", "HELO x"])
async def test_given_up_between_chunks(command: str):
    handler = Reader()
    handler.on_hello = None  # type: ignore[assignment, method-assign]  # no hook that might refuse it
    async with session(handler) as peer:
        await peer.speak(MAIL)
        await peer.send(f"BDAT 3\r\nabc{command}\r\n")
        await peer.expect("250 2.0.0 3 octets received")
        assert (await peer.reply())[-1][0] == "2"
    assert [type(error) for error in handler.errors] == [MessageAbortedError]
    assert handler.messages == []
    assert handler.count("on_reset") == 1
    assert handler.calls.index("on_reset") < handler.calls.index("on_close")


@pytest.mark.parametrize("command", ["EHLO again.test", "HELO again.test"])
async def test_a_hello_that_may_be_refused_changes_nothing_between_chunks(command: str):
    """RFC 5321 section 4.1.4: a server stays in the same state after an EHLO that it refuses."""
    handler = Reader(on_hello=Reply(550, "no", "5.7.1"))
    async with session(handler, hello=False) as peer:
        await peer.reply()
        handler.answers["on_hello"] = None
        await peer.ask("EHLO x.test")
        handler.answers["on_hello"] = Reply(550, "no", "5.7.1")
        await peer.speak(MAIL)
        await peer.send(f"BDAT 3\r\nabc{command}\r\nBDAT 3 LAST\r\ndef")
        await peer.speak(f"S: 250…\nS: 503 5.5.1 a transaction is in progress\nS: {QUEUED}")
        assert await peer.ask(command) == "550 5.7.1 no"
        assert handler.sessions[0].hello == "x.test"
    assert handler.errors == []
    assert [content for _, _, content in handler.messages] == [b"abcdef"]
    assert handler.count("on_hello") == 2  # one session's hooks never run at a time, and on_data was running


@pytest.mark.parametrize("answer", [Reply(550, "no", "5.7.1"), None])
async def test_a_hello_between_chunks_that_nobody_reads_is_judged(answer: object):
    handler = Recorder(on_data="Q1")
    async with session(handler) as peer:
        handler.answers["on_hello"] = answer
        await peer.speak(MAIL)
        await peer.send("BDAT 3\r\nabcEHLO x\r\n")
        await peer.expect("250 2.0.0 3 octets received")
        assert (await peer.reply())[-1][:3] == ("250" if answer is None else "550")
        await peer.send("BDAT 3 LAST\r\ndef")
        await peer.expect("503 5.5.1 send MAIL first" if answer is None else "250 2.0.0 OK: queued as Q1")
    assert handler.count("on_reset") == (answer is None)


async def test_after_a_refusal_chunks_are_dropped_until_the_next_mail():
    async def on_data(session, envelope, body):
        await body.__anext__()
        raise Reject(554, "no", "5.7.1")

    handler = Recorder(on_data=on_data)
    async with session(handler) as peer:
        await peer.speak(MAIL)
        await peer.send("BDAT 3\r\nabcBDAT 6\r\nRSET\r\nBDAT 6 LAST\r\nQUIT\r\n")
        await peer.speak("S: 554 5.7.1 no\nS: 503 5.5.1 send MAIL first\nS: 503 5.5.1 send MAIL first")
        del handler.answers["on_data"]
        await peer.speak(MAIL + f"C: BDAT 0 LAST\nS: {QUEUED}")
    assert handler.count("on_reset") == 1


async def test_a_refusal_without_reading_drops_the_first_chunk_and_answers_it():
    async with session(Recorder(on_data=Reject(554, "no", "5.7.1"))) as peer:
        await peer.speak(MAIL)
        await peer.send("BDAT 6 LAST\r\nQUIT\r\nNOOP\r\n")
        await peer.speak("S: 554 5.7.1 no\nS: 250 2.0.0 OK")


async def test_a_success_without_reading_is_an_acceptance_of_all_chunks():
    async with session(Recorder(on_data="ABC")) as peer:
        await peer.speak(MAIL)
        await peer.send("BDAT 6\r\nQUIT\r\nBDAT 2 LAST\r\nab")
        await peer.speak("S: 250 2.0.0 6 octets received\nS: 250 2.0.0 OK: queued as ABC")


@pytest.mark.parametrize("command", ["BDAT 6", "BDAT 6 LAST"])
@pytest.mark.parametrize(
    ("before", "reply"),
    [
        ("", "503 5.5.1 send MAIL first"),
        ("MAIL FROM:<>", "503 5.5.1 send RCPT first"),
    ],
)
async def test_octets_of_a_misplaced_chunk_are_no_commands(before: str, command: str, reply: str):
    async with session() as peer:
        if before:
            await peer.ask(before)
        await peer.send(f"{command}\r\nQUIT\r\nNOOP\r\n")
        await peer.speak(f"S: {reply}\nS: 250 2.0.0 OK")


async def test_before_ehlo():
    async with session(hello=False) as peer:
        await peer.reply()
        await peer.send("BDAT 6 LAST\r\nQUIT\r\nNOOP\r\n")
        await peer.speak("S: 503 5.5.1 send EHLO first\nS: 250 2.0.0 OK")


@pytest.mark.parametrize("newlines", ["reject", "normalize"])
@pytest.mark.parametrize(
    "chunks",
    [
        ("a\nb",),
        ("a\rb",),
        ("a\r", "b"),
        ("a", "\nb"),
        ("a\r",),
        ("\n.\r\n",),
    ],
)
async def test_bare_newlines(chunks: tuple[str, ...], newlines: str):
    handler = Reader()
    async with session(handler, bare_newlines=newlines) as peer:
        await peer.speak(MAIL)
        for n, chunk in enumerate(chunks):
            last = n == len(chunks) - 1
            await peer.send(f"BDAT {len(chunk)}{' LAST' if last else ''}\r\n{chunk}")
            if not last:
                await peer.expect("250…")
        if newlines == "reject":
            await peer.expect("550 5.6.11 the message has a bare CR or LF")
        else:
            await peer.expect(QUEUED)
        assert await peer.ask("NOOP") == "250 2.0.0 OK"
    if newlines == "reject":
        assert [type(error) for error in handler.errors] == [RemoteProtocolError]
        assert handler.messages == []
    else:
        content = handler.messages[0][2]
        assert content.count(b"\r") == content.count(b"\n") == content.count(b"\r\n") > 0


async def test_a_cr_lf_may_be_split_over_two_chunks():
    handler = Recorder()
    async with session(handler) as peer:
        await peer.speak(MAIL)
        await peer.send("BDAT 2\r\na\rBDAT 2 LAST\r\n\nb")
        await peer.speak(f"S: 250…\nS: {QUEUED}")
    assert handler.messages[0][2] == b"a\r\nb"


# ---- size


@pytest.mark.parametrize(
    ("sizes", "accepted"), [((60, 40), True), ((60, 41), False), ((100,), True), ((1,) * 100, True)]
)
async def test_the_limit_counts_all_chunks(sizes: tuple[int, ...], accepted: bool):
    handler = Reader()
    async with session(handler, max_message_size=100) as peer:
        await peer.speak(MAIL)
        for n, size in enumerate(sizes):
            last = n == len(sizes) - 1
            await peer.send(f"BDAT {size}{' LAST' if last else ''}\r\n" + "x" * size)
            if not last:
                await peer.expect("250 2.0.0…")
        await peer.expect(QUEUED if accepted else "552 5.3.4 the message is too large")
        assert await peer.ask("NOOP") == "250 2.0.0 OK"
    assert len(handler.messages) == accepted
    assert [type(error) for error in handler.errors] == ([] if accepted else [MessageTooLargeError])


@pytest.mark.parametrize("line_end", [b"\n", b"\r"])
@pytest.mark.parametrize("grown", [100, 101])
@pytest.mark.parametrize("cut", [1, 30, 64])
def test_the_limit_counts_what_bare_newlines_have_become(line_end: bytes, grown: int, cut: int):
    """As with DATA, and however the message is cut, into chunks and on its way."""
    content = line_end * 20 + b"x" * (grown - 42) + line_end
    for size in (0, 1, 7):
        core = Core(bare_newlines="normalize", max_message_size=100)
        core.say(b"EHLO x\r\n" + ENVELOPE)
        wire = b"BDAT %d\r\n%bBDAT %d LAST\r\n%b" % (cut, content[:cut], len(content) - cut, content[cut:])
        lines = core.say_split(wire, size)
        assert codes(lines) == ["250", "250" if grown == 100 else "552"]
        assert [len(message) for message in core.messages] == ([100] if grown == 100 else [])
        assert core.protocol.transfer.take_octets() == grown


def test_chunks_beyond_the_limit_are_counted_alike_however_they_are_cut():
    """The application that does not mind has its message refused at the end; each chunk's answer is the same."""
    wire = b"BDAT 80\r\n" + b"\n" * 80 + b"BDAT 20\r\n" + b"\n" * 20 + b"BDAT 0 LAST\r\n"
    for size in range(9):
        core = Core(bare_newlines="normalize", max_message_size=100)
        core.say(b"EHLO x\r\n" + ENVELOPE)
        assert core.say_split(wire, size) == [
            "250 2.0.0 160 octets received",
            "250 2.0.0 200 octets received",
            "552 5.3.4 the message is too large",
        ]


@pytest.mark.parametrize("last", ["", " LAST"])
@pytest.mark.parametrize("first", [None, 0, 10])
async def test_a_chunk_larger_than_any_message_ends_the_session(first: int | None, last: str):
    """Its octets are not waited for; a hook that has had a chunk before it learns why there are no more."""
    handler = Reader()
    async with session(handler, max_message_size=100) as peer:
        await peer.speak(MAIL)
        if first is not None:
            await peer.send(f"BDAT {first}\r\n" + "x" * first)
            await peer.expect("250…")
        await peer.send_line(f"BDAT 101{last}")
        await peer.speak("S: 552 5.3.4 the chunk is larger than a message may be\nS: <closed>")
    assert [type(error) for error in handler.errors] == ([] if first is None else [MessageTooLargeError])
    assert handler.messages == []
    assert handler.count("on_reset") == handler.count("on_close") == 1


async def test_a_chunk_that_is_too_large_when_the_hook_has_had_its_say():
    async with session(Recorder(on_data="ABC"), max_message_size=100) as peer:
        await peer.speak(MAIL)
        await peer.send("BDAT 3\r\nabc")
        await peer.expect("250…")
        await peer.send_line("BDAT 101 LAST")
        await peer.speak("S: 552 5.3.4…\nS: <closed>")


async def test_a_hook_that_takes_no_notice_of_it_accepts_nothing():
    async def on_data(session, envelope, body):
        try:
            await body.read()
        except MessageTooLargeError:
            return "ABC"

    handler = Recorder(on_data=on_data)
    server = make_server(handler, max_message_size=100)
    async with serving(server) as connect:
        peer = connect()
        await peer.hello()
        await peer.speak(MAIL)
        await peer.send("BDAT 3\r\nabcBDAT 101 LAST\r\n")
        await peer.speak("S: 250…\nS: 552 5.3.4…\nS: <closed>")
    assert server.statistics().messages == 0
    assert server.statistics().failed_hooks == 0
    assert handler.count("on_reset") == 1


# ---- sizes that are none, and chunks that never end


@pytest.mark.parametrize(
    "argument",
    ["", "-1", "+5", "0x10", "5 FIRST", "5 LAST LAST", "5LAST", "1e3", "99999999999999999999999", "٣", "5,5"],
)
async def test_a_chunk_of_unknown_size_ends_the_session(argument: str):
    handler = Recorder()
    async with session(handler) as peer:
        await peer.speak(MAIL)
        await peer.send(f"BDAT {argument}\r\nRSET\r\n")
        await peer.speak("S: 501 5.5.4 syntax: BDAT octets [LAST]\nS: <closed>")
    assert handler.count("on_data") == 0
    assert handler.count("on_reset") == 1


async def test_a_bad_chunk_in_mid_message_is_no_end_of_it():
    handler = Reader()
    async with session(handler) as peer:
        await peer.speak(MAIL)
        await peer.send("BDAT 3\r\nabcBDAT -1 LAST\r\n")
        await peer.speak("S: 250…\nS: 501 5.5.4…\nS: <closed>")
    [error] = handler.errors
    assert type(error) is ConnectionLostError
    assert "client" not in str(error)  # it was the server that broke off
    assert handler.messages == []
    assert handler.count("on_reset") == handler.count("on_close") == 1


async def test_a_hook_that_takes_no_notice_of_the_end_accepts_nothing():
    async def on_data(session, envelope, body):
        try:
            await body.read()
        except ConnectionLostError:
            return "ABC"

    handler = Recorder(on_data=on_data)
    server = make_server(handler)
    async with serving(server) as connect:
        peer = connect()
        await peer.hello()
        await peer.speak(MAIL)
        await peer.send("BDAT 3\r\nabcBDAT -1 LAST\r\n")
        await peer.speak("S: 250…\nS: 501 5.5.4…\nS: <closed>")
    assert server.statistics().messages == 0
    assert server.statistics().failed_hooks == 0
    assert handler.count("on_reset") == handler.count("on_close") == 1


async def test_a_huge_number_is_too_large_and_not_waited_for():
    async with session() as peer:
        await peer.speak(MAIL + "C: BDAT 99999999999\nS: 552 5.3.4…\nS: <closed>")


async def test_exact_counting():
    """BDAT 10 with 5 octets and RSET behind them: RSET is content, for the client has said so."""
    handler = Recorder()
    async with session(handler) as peer:
        await peer.speak(MAIL)
        await peer.send("BDAT 10 LAST\r\nabcdeRSET\r")
        await peer.send("NOOP\r\n")
        await peer.speak("S: 550 5.6.11…\nS: 250 2.0.0 OK")  # the CR is bare
    assert handler.messages == []


async def test_a_chunk_cut_off_by_the_end_of_the_connection():
    handler = Reader()
    async with serving(make_server(handler)) as connect:
        peer = connect()
        await peer.hello()
        await peer.speak(MAIL)
        await peer.send("BDAT 10 LAST\r\nabc")
        await peer.aclose()
        await wait_all_tasks_blocked()
        assert [type(error) for error in handler.errors] == [ConnectionLostError]
    assert handler.count("on_reset") == handler.count("on_close") == 1


async def test_data_may_not_end_what_bdat_began():
    handler = Recorder()
    async with session(handler) as peer:
        await peer.speak(MAIL)
        await peer.send("BDAT 3\r\nabcDATA\r\nBDAT 1 LAST\r\nd")
        await peer.speak(f"S: 250…\nS: 503 5.5.1…\nS: {QUEUED}")
    assert handler.messages[0][2] == b"abcd"


async def test_bdat_is_unknown_without_chunking():
    async with session(disabled_extensions=("CHUNKING",)) as peer:
        await peer.speak(MAIL + "C: BDAT 0 LAST\nS: 500 5.5.1…")


async def test_a_reply_of_the_hook_goes_out_at_the_last_chunk():
    async def on_data(session, envelope, body):
        await body.read()
        return Reply(450, "later", "4.2.0")

    async with session(Recorder(on_data=on_data)) as peer:
        await peer.speak(MAIL)
        await peer.send("BDAT 1\r\naBDAT 1 LAST\r\nb")
        await peer.speak("S: 250…\nS: 450 4.2.0 later")


# ---- others have their turn


@pytest.mark.parametrize("what", ["chunks", "whole messages"])
async def test_tiny_chunks_do_not_starve_others(what: str):
    """All of them lie in the socket's buffer, and the hook waits for nothing else, so that no wait is a turn."""
    done = 0

    async def on_data(session, envelope, body):
        nonlocal done
        async for _ in body:
            done += 1

    at_each_turn: list[int] = []

    async def another() -> None:
        while True:
            at_each_turn.append(done)
            await trio.lowlevel.checkpoint()

    near, far = trio.socket.socketpair()
    server = make_server(Recorder(on_data=on_data), max_junk_commands=None, max_messages=None)
    if what == "chunks":
        wire = b"MAIL FROM:<>\r\nRCPT TO:<b@b.test>\r\n" + b"BDAT 1\r\nx" * 6000 + b"BDAT 0 LAST\r\n"
    else:
        wire = b"MAIL FROM:<>\r\nRCPT TO:<b@b.test>\r\nBDAT 1 LAST\r\nx" * 1000
    async with trio.open_nursery() as nursery:
        await near.send(b"EHLO x\r\n" + wire)
        near.shutdown(trio.socket.SHUT_WR)
        nursery.start_soon(Peer(trio.SocketStream(near)).rest)
        nursery.start_soon(another)
        await server.serve_stream(trio.SocketStream(far))
        nursery.cancel_scope.cancel()
    near.close()
    assert done == (6000 if what == "chunks" else 1000)
    steps = [after - before for before, after in itertools.pairwise(at_each_turn)]
    assert max(steps) <= (600 if what == "chunks" else 100)  # two turns: which task is first varies


async def test_octets_that_nobody_wants_have_all_their_time(autojump_clock):
    """The message before has used up most of its own, and says nothing about these."""

    async def slow(session, envelope, body):
        raise Reject(554, "no")

    async with session(Recorder(on_data=slow), data_timeout=100, command_timeout=1000) as peer:
        await peer.speak(MAIL)
        await peer.send("BDAT 10\r\n")
        await trio.sleep(90)
        await peer.send("x" * 10)
        await peer.expect("554 5.0.0 no")
        for _ in range(2):
            await peer.send("BDAT 10 LAST\r\n")
            await trio.sleep(90)
            await peer.send("x" * 10)
            await peer.expect("503 5.5.1 send MAIL first")
        await peer.send("BDAT 10 LAST\r\n")
        await trio.sleep(99)
        await peer.send("x")
        await trio.sleep(2)  # one octet is worth 2 ms
        await peer.speak("S: 421 4.4.2…\nS: <closed>")
