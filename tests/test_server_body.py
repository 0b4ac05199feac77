# The message on its way to on_data: whole, in order, no faster than the hook; and every way in which it can fail.
from __future__ import annotations

from typing import Any

import pytest
import trio
from support import DATA, MAIL, Peer, Recorder, make_server, session
from trio.testing import wait_all_tasks_blocked

from trio_smtp import (
    ConnectionLostError,
    MessageAbortedError,
    MessageTooLargeError,
    Reject,
    RemoteProtocolError,
    Reply,
)

CONTENT = b"Subject: x\r\n\r\n.one\r\n..two\r\n\r\n.\r\n\x01\xff8-bit\r\nlast\r\n"


def stuffed(content: bytes) -> bytes:
    return (b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:] + b".\r\n"


# ---- content and where it is cut


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
async def test_the_content_comes_whole_and_in_order_however_it_is_cut(size):
    handler = Recorder()
    async with session(handler) as peer:
        await peer.speak(DATA)
        wire = stuffed(CONTENT)
        for start in range(0, len(wire), size):
            await peer.send(wire[start : start + size])
            await wait_all_tasks_blocked()
        await peer.speak("S: 250 2.0.0 OK: queued\nC: NOOP\nS: 250 2.0.0 OK")
    assert handler.messages[0][2] == CONTENT


@pytest.mark.parametrize("cut", range(len(b"x\r\n.\r\nNOOP\r\n")))
async def test_end_of_data_split_at_every_octet_with_a_command_behind_it(cut):
    wire = b"x\r\n.\r\nNOOP\r\n"
    handler = Recorder()
    async with session(handler) as peer:
        await peer.speak(DATA)
        await peer.send(wire[:cut])
        await wait_all_tasks_blocked()
        await peer.send(wire[cut:])
        await peer.speak("S: 250 2.0.0 OK: queued\nS: 250 2.0.0 OK")
    assert handler.messages[0][2] == b"x\r\n"


async def test_empty_message():
    handler = Recorder()
    async with session(handler) as peer:
        await peer.speak(DATA + "C: .\nC: NOOP\nS: 250 2.0.0 OK: queued\nS: 250 2.0.0 OK")
    assert handler.messages[0][2] == b""


async def test_a_stuffed_dot():
    handler = Recorder()
    async with session(handler) as peer:
        await peer.speak(DATA + "C: ..x\nC: .\nS: 250 2.0.0 OK: queued")
    assert handler.messages[0][2] == b".x\r\n"


NOT_THE_END = {
    "s1": b"\n.\n",
    "s2": b"\n.\r\n",
    "s3": b"\r\n.\n",
    "s4": b"\r.\n",
    "s5": b"\n.\r",
    "s6": b"\r.\r",
    "s7": b"\r.\r\n",
    "s8": b"\r\n.\r",
    "s9": b"\r\n\0.\r\n",
    "s10": b"\r\n.\0\r\n",
    "s11": b"\r\n.\r\r\n",
    "s12": b"x\ny\r\n",
    "s13": b"x\ry\r\n",
    "s14": b"\r\n\r.\r\n",
}


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("mode", ["reject", "normalize"])
@pytest.mark.parametrize("name", NOT_THE_END)
async def test_nothing_but_crlf_dot_crlf_ends_the_data(name, mode, whole):
    handler = Recorder()
    smuggled = b"MAIL FROM:<evil@x.test>\r\nRCPT TO:<v@x.test>\r\nDATA\r\nevil\r\n"
    wire = b"Subject: x\r\n\r\nbody" + NOT_THE_END[name] + smuggled + b".\r\n"
    async with session(handler, bare_newlines=mode) as peer:
        await peer.speak(DATA)
        for piece in [wire] if whole else [wire[i : i + 1] for i in range(len(wire))]:
            await peer.send(piece)
            if not whole:
                await trio.lowlevel.checkpoint()
        has_nul = b"\0" in wire
        refused = mode == "reject" or has_nul
        why = "a NUL, which needs BODY=BINARYMIME" if has_nul else "a bare CR or LF"
        assert await peer.line() == (f"550 5.6.11 the message has {why}" if refused else "250 2.0.0 OK: queued")
        assert await peer.ask("NOOP") == "250 2.0.0 OK"
    assert handler.count("on_mail") == 1
    assert len(handler.messages) == (not refused)
    assert handler.count("on_reset") == refused
    if handler.messages:
        assert smuggled in handler.messages[0][2]


# ---- at the hook's pace


async def test_354_goes_out_at_the_first_read():
    reading = trio.Event()

    async def on_data(session, envelope, body):
        await reading.wait()
        await body.read()

    async with session(Recorder(on_data=on_data)) as peer:
        await peer.speak(MAIL)
        await peer.send_line("DATA")
        await wait_all_tasks_blocked()
        with trio.move_on_after(0):
            raise AssertionError(await peer.line())
        reading.set()
        await peer.speak("S: 354…\nC: .\nS: 250…")


async def test_back_pressure_down_to_the_socket():
    go_on = trio.Semaphore(0)
    got = []

    async def on_data(session, envelope, body):
        async for chunk in body:
            got.append(chunk)
            await go_on.acquire()

    near, far = trio.testing.lockstep_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(make_server(Recorder(on_data=on_data)).serve_stream, far)
        peer = Peer(near)
        await peer.hello()
        await peer.speak(DATA)
        await peer.send("1\r\n")
        sent = []

        async def send_more():
            await peer.send("2\r\n")
            sent.append(2)

        nursery.start_soon(send_more)
        await wait_all_tasks_blocked()
        assert sent == []  # no hook has taken it
        go_on.release()
        await wait_all_tasks_blocked()
        assert sent == [2]
        assert got == [b"1\r\n", b"2\r\n"]
        nursery.cancel_scope.cancel()


async def test_memory_is_flat_while_a_large_message_is_dropped():
    import tracemalloc

    async def on_data(session, envelope, body):
        return "kept nothing"

    near, far = trio.testing.lockstep_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(make_server(Recorder(on_data=on_data)).serve_stream, far)
        peer = Peer(near)
        await peer.hello()
        await peer.speak(DATA)
        block = (b"x" * 998 + b"\r\n") * 60
        tracemalloc.start()
        for _ in range(100):
            await peer.send(block)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 10 * len(block)
        await peer.speak("C: .\nS: 250 2.0.0 OK: queued as kept nothing")
        await peer.stream.aclose()


async def test_received_counts_what_was_handed_out():
    seen: list[Any] = []

    async def on_data(session, envelope, body):
        seen.append(body.received)
        async for _ in body:
            seen.append(body.received)  # noqa: PERF401
        assert await body.read() == b""

    async with session(Recorder(on_data=on_data)) as peer:
        await peer.speak(DATA + "C: 12\nC: ..\nC: .\nS: 250…")
    assert (seen[0], seen[-1]) == (0, 7)


# ---- a hook that makes up its mind early


@pytest.mark.parametrize(
    ("result", "reply"),
    [
        (None, "250 2.0.0 OK: queued"),
        ("ID", "250 2.0.0 OK: queued as ID"),
        (Reply(250, "mine", "2.6.0"), "250 2.6.0 mine"),
        (Reject(550, "no", "5.7.1"), "550 5.7.1 no"),
        (Reply(450, "no"), "450 4.0.0 no"),
    ],
)
async def test_a_result_in_mid_body_goes_out_after_the_end(result, reply):
    async def on_data(session, envelope, body):
        await anext(body)
        if isinstance(result, Exception):
            raise result
        return result

    handler = Recorder(on_data=on_data)
    async with session(handler) as peer:
        await peer.speak(DATA)
        await peer.send("first\r\n")
        await wait_all_tasks_blocked()
        await peer.send("QUIT\r\nRSET\r\n")
        await peer.speak(f"C: .\nS: {reply}\nC: NOOP\nS: 250 2.0.0 OK")
    assert handler.count("on_reset") == (not reply.startswith("2"))


async def test_a_success_without_reading_is_an_acceptance():
    handler = Recorder(on_data=Reply(250, "mine"))
    async with session(handler) as peer:
        await peer.speak(DATA + "C: text\nC: .\nS: 250 2.0.0 mine")
    assert handler.count("on_reset") == 0


@pytest.mark.parametrize("wire", ["a\nb\r\n.\r\n", 2000 * "x" + "\r\n.\r\n"])
async def test_an_early_success_is_not_worth_more_than_the_message(wire):
    async def on_data(session, envelope, body):
        return "accepted unseen"

    handler = Recorder(on_data=on_data)
    async with session(handler, max_message_size=1000) as peer:
        await peer.speak(DATA)
        await peer.send(wire)
        assert await peer.code() in ("550", "552")
    assert handler.count("on_reset") == 1


async def test_the_body_of_a_message_that_is_over_reads_nothing_of_the_next():
    kept: list[Any] = []
    errors = []

    async def on_data(session, envelope, body):
        if kept:
            with pytest.raises(trio.ClosedResourceError):
                await kept[0].read()
            errors.append(1)
        kept.append(body)
        return await body.read() and "x"

    async with session(Recorder(on_data=on_data)) as peer:
        for _ in range(2):
            await peer.speak(DATA + "C: text\nC: .\nS: 250 2.0.0 OK: queued as x")
    assert errors == [1]


# ---- when it cannot be had whole


async def swallow(body, into):
    try:
        await body.read()
    except Exception as exc:
        into.append(exc)
        with pytest.raises(type(exc)):
            await body.read()


FAILURES = {
    "too large": (MessageTooLargeError, "552 5.3.4 the message is too large"),
    "bare": (RemoteProtocolError, "550 5.6.11 the message has a bare CR or LF"),
    "NUL": (RemoteProtocolError, "550 5.6.11 the message has a NUL, which needs BODY=BINARYMIME"),
}


@pytest.mark.parametrize("how", ["returns", "raises", "wraps", "in a nursery", "rejects", "fails", "times out"])
@pytest.mark.parametrize("what", FAILURES)
async def test_a_message_that_is_no_good_is_refused_whatever_the_hook_says(what, how, autojump_clock, caplog):
    seen: list[Any] = []

    async def on_data(session, envelope, body):
        if how == "raises":
            await body.read()
        elif how == "in a nursery":
            async with trio.open_nursery() as nursery:  # noqa: ASYNC112 (for the group that it makes)
                nursery.start_soon(body.read)
        elif how == "wraps":
            try:
                await body.read()
            except Exception as exc:
                raise RuntimeError("disk") from exc
        await swallow(body, seen)
        if how == "rejects":
            raise Reject(450, "mine", "4.7.1")
        if how == "fails":
            raise RuntimeError
        if how == "times out":
            await trio.sleep_forever()
        return "accepted"

    error, reply = FAILURES[what]
    handler = Recorder(on_data=on_data)
    async with session(handler, max_message_size=1000) as peer:
        await peer.speak(DATA)
        await peer.send({"bare": "x\ny\r\n", "NUL": "x\0\r\n", "too large": "y" * 1001}[what])
        await peer.speak(f"""
            C: more
            C: .
            S: {"450 4.7.1 mine" if how == "rejects" else reply}
            C: NOOP
            S: 250 2.0.0 OK
        """)
    assert all(type(exc) is error for exc in seen)
    assert handler.count("on_reset") == 1
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    assert bool(errors) == (how in ("wraps", "fails", "times out"))


@pytest.mark.parametrize("how", ["returns", "raises", "rejects"])
@pytest.mark.parametrize("what", ["gone", "stalls"])
async def test_a_message_cut_off_is_never_accepted(what, how, autojump_clock, caplog):
    seen: list[Any] = []

    async def on_data(session, envelope, body):
        if how == "raises":
            await body.read()
        await swallow(body, seen)
        if how == "rejects":
            raise Reject(550, "no")
        return "accepted"

    handler = Recorder(on_data=on_data)
    async with session(handler, data_timeout=30) as peer:
        await peer.speak(DATA + "C: half")
        if what == "stalls":
            await peer.speak("S: 421 4.4.2 timeout exceeded\nS: <closed>")
            assert trio.current_time() == pytest.approx(30, abs=0.1)
    assert all(type(exc) is ConnectionLostError for exc in seen)
    assert handler.calls[-2:] == ["on_reset", "on_close"]
    assert not caplog.records


@pytest.mark.parametrize("command", ["RSET", "EHLO x", "QUIT"])
async def test_a_message_given_up_between_chunks(command):
    seen: list[Any] = []

    async def on_data(session, envelope, body):
        await swallow(body, seen)
        assert session.envelope is not None
        return "accepted"

    handler = Recorder(on_data=on_data)
    handler.on_hello = None  # type: ignore[assignment, method-assign]  # no hook that might refuse it
    async with session(handler) as peer:
        await peer.speak(MAIL)
        await peer.send("BDAT 3\r\nabc")
        assert await peer.code() == "250"
        assert (await peer.ask(command))[:3] == ("221" if command == "QUIT" else "250")
        if command != "QUIT":
            assert await peer.ask("MAIL FROM:<>") == "250 2.1.0 OK"
    assert [type(exc) for exc in seen] == [MessageAbortedError]
    assert handler.calls.count("on_reset") == (1 if command == "QUIT" else 2)


# ---- its size


@pytest.mark.parametrize(
    ("size", "reply"), [(1000, "250 2.0.0 OK: queued"), (1001, "552 5.3.4 the message is too large")]
)
async def test_size_counts_neither_stuffed_dots_nor_the_end(size, reply):
    content = b".\r\n" * 300
    content += b"x" * (size - 2 - len(content)) + b"\r\n"
    assert len(content) == size
    handler = Recorder()
    async with session(handler, max_message_size=1000) as peer:
        await peer.speak(DATA)
        await peer.send(stuffed(content))
        assert await peer.line() == reply
        assert await peer.ask("NOOP") == "250 2.0.0 OK"


@pytest.mark.parametrize(
    ("parameter", "reply"),
    [
        ("SIZE=1000", "250 2.1.0 OK"),
        ("SIZE=1001", "552 5.3.4…"),
        ("SIZE=99999999999999999999", "552 5.3.4…"),
        ("SIZE=-1", "501…"),
        ("SIZE=0x10", "501…"),
        ("SIZE=", "501…"),
        ("SIZE", "501…"),
        ("SIZE=1 SIZE=1", "501…"),
    ],
)
async def test_declared_sizes(parameter, reply):
    async with session(max_message_size=1000) as peer:
        await peer.send_line(f"MAIL FROM:<a@a.test> {parameter}")
        await peer.expect(reply)


# ---- the peer's time


async def test_a_trickle_of_data_comes_to_an_end(autojump_clock):
    handler = Recorder()
    async with session(handler, data_timeout=300, min_data_rate=500, session_timeout=None) as peer:
        await peer.speak(DATA)
        try:
            while True:
                await peer.send("x")
                await trio.sleep(4)
        except trio.BrokenResourceError:
            pass
        assert trio.current_time() < 310
        assert await peer.rest() == "421 4.4.2 timeout exceeded\r\n"


async def test_data_that_comes_fast_enough_takes_as_long_as_it_takes(autojump_clock):
    handler = Recorder()
    async with session(handler, data_timeout=300, min_data_rate=500, session_timeout=None) as peer:
        await peer.speak(DATA)
        for _ in range(20):
            await peer.send(b"x" * 60_000 + b"\r\n")
            await trio.sleep(100)
        await peer.speak("C: .\nS: 250 2.0.0 OK: queued")
        assert trio.current_time() == 2000


async def test_without_a_rate_each_read_has_its_time(autojump_clock):
    async with session(data_timeout=10, min_data_rate=None) as peer:
        await peer.speak(DATA)
        for _ in range(5):
            await peer.send("x")
            await trio.sleep(9)
        await peer.speak("S: 421 4.4.2 timeout exceeded\nS: <closed>")
        assert trio.current_time() == 46


async def test_without_limits_the_peer_may_take_for_ever(autojump_clock):
    async with session(data_timeout=None, session_timeout=None) as peer:
        await peer.speak(DATA)
        await trio.sleep(50_000)
        await peer.speak("C: .\nS: 250 2.0.0 OK: queued")
