# The hooks: when each is called, what it may answer, what becomes of its mistakes, and that time is kept for it.
from __future__ import annotations

import functools
import logging
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import pytest
import trio
from support import DATA, GREETING, MAIL, Recorder, make_server, serving, session

from trio_smtp import Discard, Handler, Reject, Reply, Server

ENVELOPE = ("MAIL FROM:<a@a.test>", "RCPT TO:<b@b.test>")


async def stuck(*args):
    await trio.sleep_forever()


async def nap(*args):
    await trio.sleep(1)


async def long_nap(*args):
    await trio.sleep(3)


async def spoil(*args):
    raise RuntimeError("a secret of the application's")


# ---- the whole session


async def test_hooks_of_a_session_in_order():
    handler = Recorder()
    async with session(handler) as peer:
        await peer.speak(
            DATA
            + """
            C: Subject: hi
            C:
            C: ..dot
            C: .
            S: 250 2.0.0 OK: queued
            C: VRFY someone
            S: 252 2.5.0 cannot verify the user, but will take mail for it
            C: QUIT
            S: 221 2.0.0 mx.test closing connection
            S: <closed>
        """
        )
    assert handler.calls == [
        "on_connect",
        "on_hello",
        "on_mail",
        "on_rcpt",
        "on_data",
        "on_vrfy",
        "on_close",
    ]
    assert handler.messages == [("a@a.test", ["b@b.test"], b"Subject: hi\r\n\r\n.dot\r\n")]


async def test_a_handler_need_not_subclass_and_need_not_have_every_hook():
    class Minimal:
        async def on_data(self, session, envelope, body):
            return str(len(await body.read()))

    async with session(Minimal()) as peer:
        await peer.speak(DATA + "    C: x\n    C: .\n    S: 250 2.0.0 OK: queued as 3")


async def test_discard_accepts_everything():
    async with session(Discard()) as peer:
        await peer.speak(DATA + "    C: x\n    C: .\n    S: 250 2.0.0 OK: queued")


async def test_a_handler_does_not_offer_auth_by_itself():
    async with session(Discard(), hello=False, allow_insecure_auth=True) as peer:
        await peer.expect(GREETING)
        assert "AUTH" not in await peer.ask("EHLO c.test")


@pytest.mark.parametrize("kind", ["attribute", "method"])
def test_an_on_name_that_is_no_hook_is_an_error(kind):
    class Misspelt(Handler):
        async def on_recipient(self, session, recipient):
            pass

    handler = Misspelt() if kind == "method" else SimpleNamespace(on_recipient=stuck)
    with pytest.raises(TypeError, match="on_recipient is no hook"):
        Server(handler)


def test_a_hook_that_is_not_async_is_an_error():
    class Sync(Handler):
        def on_rcpt(self, session, recipient):
            pass

    with pytest.raises(TypeError, match=r"Sync.on_rcpt must be an async function"):
        Server(Sync())


async def test_serve_checks_the_handler_before_it_listens():
    import trio_smtp

    with pytest.raises(TypeError, match="on_recipient"):
        await trio_smtp.serve(SimpleNamespace(on_recipient=stuck), 0, host="127.0.0.1")


class AsyncCall:
    async def __call__(self, *args):
        return Reply(250, "called", "2.1.0")


async def answer(text, *args):
    return Reply(250, text, "2.1.0")


class Namesake:
    async def method(self, *args):
        return Reply(250, "method", "2.1.0")


@pytest.mark.parametrize(
    ("hook", "text"),
    [
        (AsyncCall(), "called"),
        (functools.partial(answer, "partial"), "partial"),
        (functools.partial(AsyncCall()), "called"),
        (functools.partial(Namesake().method), "method"),
        (Namesake().method, "method"),
        (AsyncMock(return_value=Reply(250, "mock", "2.1.0")), "mock"),
    ],
)
async def test_hooks_of_every_async_kind(hook, text):
    async with session(SimpleNamespace(on_mail=hook, on_data=Discard().on_data)) as peer:
        assert await peer.ask("MAIL FROM:<>") == f"250 2.1.0 {text}"


async def test_a_mock_of_a_handler_serves():
    handler = AsyncMock(spec=Handler)
    handler.configure_mock(**{f"{name}.return_value": None for name in vars(Handler) if name.startswith("on_")})
    async with session(handler) as peer:
        await peer.speak(DATA + "    C: x\n    C: .\n    S: 250 2.0.0 OK: queued")
    handler.on_data.assert_awaited_once()
    handler.on_close.assert_awaited_once()


# ---- what each may answer


@pytest.mark.parametrize("how", ["reply", "reject"])
async def test_on_connect_refuses(how):
    answer = Reply(554, "go away", "5.7.1") if how == "reply" else Reject(554, "go away", "5.7.1")
    handler = Recorder(on_connect=answer)
    async with session(handler, hello=False) as peer:
        await peer.speak("S: 554 5.7.1 go away\nS: <closed>")
    assert handler.calls == ["on_connect", "on_close"]


async def test_on_connect_gives_the_greeting():
    async with session(Recorder(on_connect=Reply(250, "mx.test here\nand more")), hello=False) as peer:
        await peer.speak("S: 220-mx.test here\nS: 220 and more\nC: NOOP\nS: 250 2.0.0 OK")


@pytest.mark.parametrize("hook", ["on_connect", "on_hello", "on_auth", "on_mail", "on_rcpt", "on_data", "on_vrfy"])
async def test_a_success_closes_the_connection_where_its_reply_says_so(hook):
    handler = Recorder(**{"on_auth": True, hook: Reply(250, "bye", close=True)})
    commands = ("EHLO x.test", "AUTH PLAIN AG1lAHNlY3JldA==", "VRFY you", *ENVELOPE, "DATA", ".")
    async with session(handler, hello=False, allow_insecure_auth=True) as peer:
        reply = "\n".join(await peer.reply())
        for command in commands:
            if "bye" in reply:
                break
            reply = await peer.ask(command)
        assert "bye" in reply
        assert reply[0] == "2"
        with trio.fail_after(5):
            await peer.closed()
    assert handler.calls[-1] == "on_close"


@pytest.mark.parametrize("result", [RuntimeError("x"), Reply(354, "x"), "x", ExceptionGroup("x", [ValueError()])])
async def test_on_connect_that_fails_closes_with_421(result, caplog):
    handler = Recorder(on_connect=result)
    async with session(handler, hello=False) as peer:
        await peer.speak("S: 421 4.3.0 service not available\nS: <closed>")
    assert handler.calls == ["on_connect", "on_close"]
    assert "on_connect failed" in caplog.text


async def test_on_connect_that_takes_too_long_closes_with_421(autojump_clock, caplog):
    async with session(Recorder(on_connect=stuck), hello=False, handler_timeout=7) as peer:
        await peer.speak("S: 421 4.3.0 service not available\nS: <closed>")
        assert trio.current_time() == 7
    assert "on_connect took too long" in caplog.text


async def test_on_hello_refuses_and_changes_nothing():
    handler = Recorder(on_hello=Reject(550, "not you", "5.7.1"))
    async with session(handler, hello=False) as peer:
        await peer.speak(f"""
            S: {GREETING}
            C: EHLO x.test
            S: 550 5.7.1 not you
            C: MAIL FROM:<>
            S: 503 5.5.1 send EHLO first
        """)
        assert handler.sessions[0].hello is None
    assert handler.seen[1] == ("on_hello", "x.test")


async def test_on_hello_gives_the_first_line():
    async with session(Recorder(on_hello=Reply(250, "mx.test at your service")), hello=False) as peer:
        await peer.reply()
        await peer.speak("C: HELO x.test\nS: 250 mx.test at your service")


@pytest.mark.parametrize(
    ("hook", "command", "text"),
    [
        ("on_mail", "MAIL FROM:<a@a.test>", "sender"),
        ("on_vrfy", "VRFY a", "user"),
        ("on_rcpt", "RCPT TO:<b@b.test>", "r"),
    ],
)
async def test_hooks_that_refuse_change_nothing(hook, command, text):
    handler = Recorder()
    async with session(handler) as peer:
        if hook == "on_rcpt":
            await peer.ask("MAIL FROM:<a@a.test>")
        for result, wire in (
            (Reply(550, "no", "5.1.1"), "550 5.1.1 no"),
            (Reject(451, "later"), "451 4.0.0 later"),
            (Reject(550, "one\ntwo"), "550-5.0.0 one\n550 5.0.0 two"),
            (ExceptionGroup("nursery", [Reject(550, "in a group", "5.7.1")]), "550 5.7.1 in a group"),
            (ExceptionGroup("x", [ExceptionGroup("y", [Reject(550, "deep", "5.7.1")])]), "550 5.7.1 deep"),
            (ExceptionGroup("x", [Reject(450, "a"), Reject(550, "b", "5.7.1")]), "550 5.7.1 b"),
        ):
            handler.answers[hook] = result
            assert await peer.ask(command) == wire
        handler.answers.clear()
        assert (await peer.ask(command))[:3] == ("252" if hook == "on_vrfy" else "250")


async def test_a_reject_out_of_a_nursery_of_the_hook():
    async def check(session, recipient):
        async def refuse():
            raise Reject(550, "a child says no", "5.7.1")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(refuse)
            nursery.start_soon(trio.sleep_forever)

    async with session(Recorder(on_rcpt=check)) as peer:
        await peer.ask("MAIL FROM:<>")
        assert await peer.ask("RCPT TO:<a@a.test>") == "550 5.7.1 a child says no"


@pytest.mark.parametrize(
    ("hook", "command"),
    [
        ("on_hello", "EHLO again.test"),
        ("on_mail", "MAIL FROM:<>"),
        ("on_vrfy", "VRFY x"),
        ("on_rcpt", "RCPT TO:<x@x.test>"),
        ("on_data", "DATA"),
        ("on_auth", "AUTH PLAIN AHgAeA=="),
    ],
)
@pytest.mark.parametrize("failure", ["raises", "3xx", "wrong type", "group", "too long"])
async def test_a_hook_that_fails_is_451_and_logged_and_the_session_lives(
    hook, command, failure, autojump_clock, caplog
):
    if hook == "on_auth" and failure == "wrong type":
        pytest.skip("any object is an identity")
    results = {
        "raises": spoil,
        "3xx": Reply(354, "a secret of the application's"),
        "wrong type": 17,
        "group": ExceptionGroup("g", [ValueError("a secret of the application's"), KeyError()]),
        "too long": stuck,
    }
    handler = Recorder(on_auth=True) if hook == "on_auth" else Recorder()
    async with session(handler, allow_insecure_auth=True, handler_timeout=5) as peer:
        if hook in ("on_rcpt", "on_data"):
            await peer.ask("MAIL FROM:<>")
        if hook == "on_data":
            await peer.ask("RCPT TO:<x@x.test>")
        handler.answers[hook] = results[failure]
        reply = await peer.ask(command)
        if hook == "on_data" and failure in ("3xx", "wrong type"):
            reply = reply[:3]  # it had read nothing, and still DATA itself is refused
            assert reply == "451"
        else:
            assert reply == "451 4.3.0 local error in processing"
        assert await peer.ask("NOOP") == "250 2.0.0 OK"
        handler.answers[hook] = None
        if hook in ("on_hello", "on_mail", "on_vrfy", "on_rcpt"):
            assert (await peer.ask(command))[0] == "2"
    [record] = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.name == "trio_smtp"
    if failure == "too long":
        assert f"{hook} took too long" in record.getMessage()
    elif failure in ("raises", "group"):
        assert f"{hook} failed" in record.getMessage()
        assert record.exc_info is not None
    assert trio.current_time() == (5 if failure == "too long" else 0)


async def test_failures_are_counted():
    handler = Recorder(on_mail=RuntimeError())
    server = make_server(handler)
    async with serving(server) as connect:
        peer = connect()
        await peer.hello()
        await peer.ask("MAIL FROM:<>")
        assert server.statistics().failed_hooks == 1


# ---- time limits


async def test_a_hook_that_ends_just_in_time(autojump_clock):
    async def slow(*args):
        await trio.sleep(4.99)

    async with session(Recorder(on_mail=slow), handler_timeout=5) as peer:
        assert await peer.ask("MAIL FROM:<>") == "250 2.1.0 OK"


@pytest.mark.parametrize("result", [None, Reject(550, "no", "5.7.1")])
async def test_a_hook_that_ends_in_the_tick_of_its_time_limit_has_its_say(result, autojump_clock):
    # Woken at the very moment at which its limit is over: it has ended, and is neither cancelled nor told twice.
    async def slow(*args):
        with trio.CancelScope(shield=True):
            await trio.sleep(5)
        if result is not None:
            raise result

    handler = Recorder(on_mail=slow)
    async with session(handler, handler_timeout=5) as peer:
        assert (await peer.ask("MAIL FROM:<>"))[:3] == ("250" if result is None else "550")
        assert await peer.ask("NOOP") == "250 2.0.0 OK"
        handler.answers.clear()
        # and the next hooks are not cancelled by what was left of it
        await peer.ask("RSET")
        handler.answers["on_mail"] = nap
        assert await peer.ask("MAIL FROM:<>") == "250 2.1.0 OK"
    assert handler.count("on_mail") == 2


async def test_a_cancelled_hook_may_clean_up_in_peace(autojump_clock):
    log = []

    async def tidy(*args):
        try:
            await trio.sleep_forever()
        finally:
            with trio.move_on_after(3, shield=True):
                await trio.sleep(2)
                log.append("tidy")

    handler = Recorder(on_mail=tidy)
    async with session(handler, handler_timeout=5) as peer:
        assert await peer.ask("MAIL FROM:<>") == "451 4.3.0 local error in processing"
        assert trio.current_time() == 7
        handler.answers.clear()
        assert await peer.ask("MAIL FROM:<>") == "250 2.1.0 OK"
    assert log == ["tidy"]


async def test_a_hook_whose_child_fails_while_it_is_cancelled(autojump_clock, caplog):
    # Cancelled and RuntimeError leave the hook in one group: the session must not end by that.
    async def child():
        try:
            await trio.sleep_forever()
        finally:
            raise RuntimeError("while cancelled")

    async def parent(*args):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)
            await trio.sleep_forever()

    async with session(Recorder(on_mail=parent), handler_timeout=5) as peer:
        assert await peer.ask("MAIL FROM:<>") == "451 4.3.0 local error in processing"
        assert await peer.ask("NOOP") == "250 2.0.0 OK"
    assert "while cancelled" in caplog.text


async def test_a_hook_may_have_no_time_limit(autojump_clock):
    async def slow(*args):
        await trio.sleep(50_000)

    handler = Recorder(on_mail=slow)
    async with session(handler, handler_timeout=None, session_timeout=None, command_timeout=None) as peer:
        assert await peer.ask("MAIL FROM:<>") == "250 2.1.0 OK"
        assert trio.current_time() == 50_000


async def test_the_time_limit_does_not_count_waiting_for_the_peer(autojump_clock):
    async def read(session, envelope, body):
        await trio.sleep(2)
        async for _ in body:
            await trio.sleep(1)

    async with session(Recorder(on_data=read), handler_timeout=5) as peer:
        await peer.speak(DATA)
        for _ in range(2):
            await trio.sleep(100)
            await peer.send("line\r\n")
        await trio.sleep(100)
        await peer.speak("C: .\nS: 250 2.0.0 OK: queued")
        assert trio.current_time() > 300


async def test_the_time_limit_counts_the_time_between_reads(autojump_clock):
    async def read(session, envelope, body):
        async for _ in body:
            await trio.sleep(2)

    handler = Recorder(on_data=read)
    async with session(handler, handler_timeout=5) as peer:
        await peer.speak(DATA)
        for _ in range(5):
            await peer.send("line\r\n")
            await trio.sleep(3)
        await peer.speak("C: .\nS: 451 4.3.0 local error in processing\nC: NOOP\nS: 250 2.0.0 OK")
    assert handler.calls[-2:] == ["on_reset", "on_close"]


async def test_a_hook_cancelled_in_mid_body_has_the_rest_dropped(autojump_clock):
    async def read(session, envelope, body):
        await anext(body)
        await trio.sleep_forever()

    async with session(Recorder(on_data=read), handler_timeout=5) as peer:
        await peer.speak(DATA)
        await peer.send("first\r\n")
        await trio.sleep(6)
        await peer.speak("C: NOOP\nC: .\nS: 451 4.3.0 local error in processing\nC: NOOP\nS: 250 2.0.0 OK")


async def test_a_cancelled_hook_may_still_read_in_its_cleanup(autojump_clock):
    got = []

    async def read(session, envelope, body):
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                got.append(await body.read())

    async with session(Recorder(on_data=read), handler_timeout=5) as peer:
        await peer.speak(DATA + "    C: x\n    C: .\n    S: 451 4.3.0 local error in processing")
        await peer.speak("C: NOOP\nS: 250 2.0.0 OK")
    assert got == [b"x\r\n"]


async def test_a_hook_may_bound_its_own_reading(autojump_clock):
    async def read(session, envelope, body):
        with trio.move_on_after(10):
            await body.read()
            return "whole"
        return "in part"

    async with session(Recorder(on_data=read)) as peer:
        await peer.speak(DATA + "    C: x")
        await trio.sleep(20)
        await peer.speak("C: y\nC: .\nS: 250 2.0.0 OK: queued as in part\nC: NOOP\nS: 250 2.0.0 OK")


async def test_a_hook_that_polls_does_not_lengthen_the_peers_time(autojump_clock):
    async def read(session, envelope, body):
        while True:
            with trio.move_on_after(10):
                await anext(body)

    async with session(Recorder(on_data=read), data_timeout=60) as peer:
        await peer.speak(DATA + "    S: 421 4.4.2 timeout exceeded\n    S: <closed>")
        assert 59 <= trio.current_time() <= 61


@pytest.mark.parametrize("hook", ["on_reset", "on_close"])
async def test_on_reset_and_on_close_have_ten_seconds(hook, autojump_clock, caplog):
    handler = Recorder(**{hook: stuck})
    async with session(handler, handler_timeout=300) as peer:
        await peer.speak(MAIL + "    C: QUIT\n    S: 221 2.0.0 mx.test closing connection\n    S: <closed>")
    assert trio.current_time() == 10
    assert handler.calls[-2:] == ["on_reset", "on_close"]
    assert f"{hook} took too long" in caplog.text


@pytest.mark.parametrize("hook", ["on_reset", "on_close"])
async def test_on_reset_and_on_close_that_raise_are_logged_only(hook, caplog):
    handler = Recorder(**{hook: RuntimeError("oh")})
    async with session(handler) as peer:
        await peer.speak(MAIL + "    C: RSET\n    S: 250 2.0.0 OK\n    C: NOOP\n    S: 250 2.0.0 OK")
    assert f"{hook} failed" in caplog.text
    assert handler.count(hook) == 1


# ---- order


async def test_hooks_of_a_pipelined_group_run_in_order_and_one_at_a_time(autojump_clock):
    running: list[Any] = []

    async def slow(session, argument):
        assert not running
        running.append(argument)
        await trio.sleep(1)
        running.clear()

    handler = Recorder(on_mail=slow, on_rcpt=slow)
    async with session(handler) as peer:
        await peer.speak("""
            C: MAIL FROM:<a@a.test>
            C: RCPT TO:<b@b.test>
            C: RCPT TO:<c@c.test>
            C: DATA
            S: 250 2.1.0 OK
            S: 250 2.1.5 OK
            S: 250 2.1.5 OK
            S: 354 end data with <CR><LF>.<CR><LF>
            C: .
            S: 250 2.0.0 OK: queued
        """)
    assert [str(argument) for name, argument in handler.seen if name in ("on_mail", "on_rcpt")] == [
        "a@a.test",
        "b@b.test",
        "c@c.test",
    ]


async def test_replies_of_a_group_do_not_wait_for_all_of_its_hooks(autojump_clock):
    """A client that waits five minutes for each reply must not wait for a hundred slow hooks before the first."""

    async def slow(session, recipient):
        await trio.sleep(4)

    async def quick(session, sender):
        pass

    async with session(Recorder(on_mail=quick, on_rcpt=slow)) as peer:
        began = trio.current_time()
        await peer.send("MAIL FROM:<>\r\n" + "RCPT TO:<b@b.test>\r\n" * 5)
        arrived = []
        for _ in range(6):
            assert await peer.code() == "250"
            arrived.append(trio.current_time() - began)
    # Before the third recipient's hook the first reply is 8 s old, and so is the fourth before the last one's.
    assert arrived == [8, 8, 8, 16, 16, 20]


async def test_replies_of_the_messages_before_do_not_wait_for_the_hooks_of_the_next(autojump_clock):
    async def slow(session, envelope, body):
        await body.read()
        await trio.sleep(6)

    async with session(Recorder(on_data=slow)) as peer:
        began = trio.current_time()
        await peer.send("MAIL FROM:<>\r\nRCPT TO:<b@b.test>\r\nBDAT 1 LAST\r\nx" * 2)
        arrived = []
        for _ in range(6):
            assert await peer.code() == "250"
            arrived.append(trio.current_time() - began)
    assert arrived == [0, 0, 6, 6, 6, 12]


async def test_sessions_do_not_wait_for_each_others_hooks():
    waiting = trio.Event()
    go_on = trio.Event()

    async def wait(session, sender):
        if sender.address:
            waiting.set()
            await go_on.wait()

    async with serving(make_server(Recorder(on_mail=wait))) as connect:
        first, second = connect(), connect()
        await first.hello()
        await second.hello()
        await first.send_line("MAIL FROM:<a@a.test>")
        await waiting.wait()
        assert await second.ask("MAIL FROM:<>") == "250 2.1.0 OK"
        go_on.set()
        assert await first.code() == "250"


# ---- on_reset and on_close


@pytest.mark.parametrize(
    "end", ["RSET", "EHLO x.test", "HELO x.test", "QUIT", "gone", "refused", "rejected at DATA", "STARTTLS"]
)
async def test_on_reset_runs_once_for_each_transaction_that_was_not_accepted(end):
    from tls_support import server_context

    seen = []

    async def on_reset(session):
        seen.append(session.envelope.sender.address)

    async def refuse(session, envelope, body):
        if end == "refused":
            await body.read()
        raise Reject(550, "no", "5.7.1")

    handler = Recorder(on_reset=on_reset, on_data=refuse)
    async with session(handler, ssl_context=server_context()) as peer:
        await peer.speak(MAIL)
        if end == "gone":
            await peer.aclose()
        elif end in ("refused", "rejected at DATA"):
            assert (await peer.ask("DATA"))[:3] == ("354" if end == "refused" else "550")
            if end == "refused":
                assert await peer.ask(".") == "550 5.7.1 no"
            await peer.ask("NOOP")
            assert handler.sessions[0].envelope is None
        else:
            await peer.ask(end)
    assert seen == ["a@a.test"]
    assert handler.calls[-1] == "on_close"


@pytest.mark.parametrize("hook", ["on_mail", "on_rcpt", "on_data"])
async def test_a_success_that_closes_is_a_success(hook: str):
    """The transaction has begun, and ends with the connection, or with its message."""
    seen = []

    async def on_reset(session):
        seen.append(session.envelope.sender.address)

    handler = Recorder(**{hook: Reply(250, "fine, but good-bye", "2.0.0", close=True)}, on_reset=on_reset)
    server = make_server(handler)
    async with serving(server) as connect:
        peer = connect()
        await peer.hello()
        commands = {"on_mail": "MAIL FROM:<a@a.test>", "on_rcpt": "RCPT TO:<b@b.test>", "on_data": "BDAT 0 LAST"}
        for each, command in commands.items():
            answer = await peer.ask(command)
            if each == hook:
                assert answer == "250 2.0.0 fine, but good-bye"
                await peer.expect("<closed>")
                break
            assert answer[:3] == "250"
    accepted = hook == "on_data"
    assert seen == ([] if accepted else ["a@a.test"])
    statistics = server.statistics()
    assert (statistics.transactions, statistics.messages) == (1, accepted)
    assert handler.calls[-1] == "on_close"
    assert handler.sessions[0].transaction_count == 1


async def test_on_reset_never_runs_without_a_transaction_nor_after_acceptance():
    handler = Recorder()
    async with session(handler) as peer:
        await peer.speak(
            "    C: RSET\n    S: 250 2.0.0 OK\n"
            + DATA
            + "    C: .\n    S: 250 2.0.0 OK: queued\n    C: RSET\n    S: 250 2.0.0 OK"
        )
        handler.answers["on_mail"] = Reject(550, "no")
        await peer.ask("MAIL FROM:<>")
        await peer.ask("RSET")
        await peer.ask("EHLO again.test")
        await peer.ask("QUIT")
    assert handler.count("on_reset") == 0
    assert handler.count("on_close") == 1


async def test_on_reset_comes_before_the_hook_of_the_next_transaction():
    handler = Recorder()
    async with session(handler) as peer:
        await peer.send("MAIL FROM:<>\r\nRSET\r\nMAIL FROM:<>\r\nRSET\r\nNOOP\r\n")
        for _ in range(5):
            assert await peer.code() == "250"
    assert handler.calls[2:-1] == ["on_mail", "on_reset", "on_mail", "on_reset"]


async def test_no_message_is_refused_twice_when_on_reset_is_interrupted(autojump_clock):
    handler = Recorder(on_reset=long_nap)
    server = make_server(handler)
    with trio.move_on_after(1):
        async with serving(server) as connect:
            peer = connect()
            await peer.hello()
            await peer.speak(MAIL + "    C: RSET\n    S: 250 2.0.0 OK")
    assert handler.count("on_reset") == 1
    assert handler.count("on_close") == 1
    assert trio.current_time() == 3  # on_reset ended in its own time


async def test_on_close_without_on_connect():
    class Closes(Discard):
        closed = 0

        async def on_close(self, session):
            self.closed += 1

    handler = Closes()
    async with session(handler):
        pass
    assert handler.closed == 1


# ---- the session object


async def test_what_hooks_know_of_the_session():
    seen = []

    async def look(session, *args):
        envelope = session.envelope
        seen.append((session.hello, session.esmtp, envelope and envelope.sender.address, session.transaction_count))

    handler = Recorder(on_connect=look, on_hello=look, on_mail=look, on_rcpt=look, on_reset=look, on_close=look)
    async with session(handler) as peer:
        await peer.speak(MAIL + "    C: RSET\n    S: 250 2.0.0 OK")
        await peer.ask("HELO other.test")
        await peer.ask("MAIL FROM:<>")
        [seen_session] = handler.sessions
        assert (seen_session.hello, seen_session.esmtp) == ("other.test", False)
        assert seen_session.envelope.sender.address == ""
        seen_session.state.mine = 1
        assert seen_session.state.mine == 1
        assert seen_session.peer is None
        assert seen_session.tls is None
        assert seen_session.identity is None
    assert seen == [
        (None, False, None, 0),
        (None, False, None, 0),
        ("client.test", True, None, 0),
        ("client.test", True, "a@a.test", 1),
        ("client.test", True, "a@a.test", 1),
        ("client.test", True, None, 1),
        ("other.test", False, None, 1),
        ("other.test", False, "", 2),
        ("other.test", False, None, 2),
    ]


async def test_on_vrfy_sees_its_argument():
    handler = Recorder(on_vrfy=Reply(250, "Fred <fred@x.test>", "2.1.5"))
    async with session(handler) as peer:
        assert await peer.ask("VRFY Fred Smith") == "250 2.1.5 Fred <fred@x.test>"
    assert ("on_vrfy", "Fred Smith") in handler.seen


@pytest.mark.parametrize("hook", ["on_reset", "on_close"])
async def test_a_reject_from_a_hook_that_is_only_told_is_logged(hook, caplog):
    server = make_server(Recorder(**{hook: Reject(550, "no", "5.7.1")}))
    async with serving(server) as connect:
        peer = connect()
        await peer.hello()
        await peer.speak(MAIL)
        assert await peer.ask("RSET") == "250 2.0.0 OK"
        assert (await peer.ask("QUIT")).startswith("221 ")
        assert await peer.rest() == ""
    assert [record.getMessage().endswith(f"{hook} failed") for record in caplog.records] == [True]
    assert server.statistics().failed_hooks == 1
