# The end: shutdown with and without grace, from anywhere, and cancellation; 421 once, and never where it must not be.
from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import trio
from support import DATA, MAIL, Peer, Recorder, make_server, serving, session
from tls_support import client_context, server_context
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from trio_smtp import ConnectionLostError, Discard, Reject

BYE = "421 4.3.2 the server is shutting down"


# ---- shutdown


@pytest.mark.parametrize("stage", ["greeted", "ready", "AUTH"])
async def test_an_idle_session_gets_its_421_at_once(stage, autojump_clock):
    handler = Recorder(on_auth=True)
    server = make_server(handler, allow_insecure_auth=True)
    async with serving(server) as connect:
        peer = connect()
        await peer.reply()
        if stage != "greeted":
            await peer.ask("EHLO x")
        if stage == "AUTH":
            assert await peer.ask("AUTH PLAIN") == "334 "
        await server.shutdown()
        assert await peer.rest() == BYE + "\r\n"
    assert trio.current_time() == 0
    assert handler.calls[-1] == "on_close"


async def test_a_transaction_in_progress_may_finish(autojump_clock):
    handler = Recorder()
    server = make_server(handler)
    async with serving(server) as connect, trio.open_nursery() as nursery:
        peer = connect()
        await peer.hello()
        await peer.speak(MAIL)
        nursery.start_soon(server.shutdown)
        await trio.sleep(10)
        await peer.speak(f"""
            C: DATA
            S: 354…
            C: text
            C: .
            S: 250 2.0.0 OK: queued
            S: {BYE}
            S: <closed>
        """)
    assert trio.current_time() == 10
    assert handler.messages
    assert handler.count("on_reset") == 0


async def test_a_command_in_a_transaction_has_no_more_time_because_of_a_shutdown(autojump_clock):
    server = make_server(command_timeout=10)
    async with serving(server) as connect, trio.open_nursery() as nursery:
        peer = connect()
        await peer.hello()
        await peer.speak(MAIL)
        nursery.start_soon(partial(server.shutdown, grace=5000))
        for letter in "RC":
            await trio.sleep(4)
            await peer.send(letter)
        assert await peer.rest() == "421 4.4.2 timeout exceeded\r\n"
        assert trio.current_time() == 10


@pytest.mark.parametrize("stage", ["MAIL", "DATA", "hook", "BDAT", "dropping"])
async def test_after_the_grace_it_ends_whatever_is_in_progress(stage, autojump_clock):
    errors = []

    async def on_data(session, envelope, body):
        if stage == "dropping":
            return
        try:
            await body.read()
        except ConnectionLostError as exc:
            errors.append(exc)
            raise

    async def on_mail(session, sender):
        if stage == "hook":
            await trio.sleep_forever()

    handler = Recorder(on_mail=on_mail, on_data=on_data)
    server = make_server(handler)
    async with serving(server) as connect:
        peer = connect()
        await peer.hello()
        if stage == "hook":
            await peer.send_line("MAIL FROM:<>")
        elif stage == "BDAT":
            await peer.speak(MAIL)
            await peer.send("BDAT 10\r\nabc")
        else:
            await peer.speak(MAIL if stage == "MAIL" else DATA)
        await wait_all_tasks_blocked()
        await server.shutdown(grace=7)
        assert await peer.rest() == BYE + "\r\n"
        assert trio.current_time() == 7
    assert len(errors) == (stage in ("DATA", "BDAT"))
    assert handler.count("on_reset") == (stage != "hook")
    assert handler.count("on_close") == 1


@pytest.mark.parametrize("result", ["ABC1", Reject(550, "no", "5.7.1")])
async def test_a_message_that_was_taken_when_the_grace_is_over_is_answered(result, autojump_clock):
    async def on_data(session, envelope, body):
        await body.read()
        with trio.CancelScope(shield=True):
            await trio.sleep(10)
        return result

    handler = Recorder(on_data=on_data)
    server = make_server(handler)
    async with serving(server) as connect:
        peer = connect()
        await peer.hello()
        await peer.speak(DATA + "C: text\nC: .")
        await wait_all_tasks_blocked()
        await server.shutdown(grace=7)
        reply, bye = (await peer.rest()).splitlines()
        assert reply == ("250 2.0.0 OK: queued as ABC1" if result == "ABC1" else "550 5.7.1 no")
        assert bye == BYE
        assert trio.current_time() == 10
    assert handler.count("on_reset") == (result != "ABC1")
    assert handler.count("on_close") == 1
    assert server.statistics().messages == (result == "ABC1")


async def test_no_grace():
    server = make_server()
    async with serving(server) as connect:
        peer = connect()
        await peer.hello()
        await peer.speak(DATA)
        await server.shutdown(grace=0)
        assert await peer.rest() == BYE + "\r\n"


@pytest.mark.parametrize("grace", [-1, float("nan")])
async def test_a_grace_that_is_none_does_nothing(grace):
    server = make_server()
    async with serving(server) as connect:
        peer = connect()
        await peer.hello()
        with pytest.raises(ValueError, match="grace"):
            await server.shutdown(grace=grace)
        assert await peer.ask("NOOP") == "250 2.0.0 OK"


async def test_new_connections_are_refused_after_shutdown():
    server = make_server()
    await server.shutdown()
    async with serving(server) as connect:
        assert await connect().rest() == BYE + "\r\n"
    assert server.statistics().refused_connections == 1


async def test_no_421_after_221_and_none_twice():
    server = make_server()
    async with serving(server) as connect:
        peer = connect()
        await peer.hello()
        await peer.ask("QUIT")
        await server.shutdown()
        await server.shutdown()
        assert await peer.rest() == ""


async def test_shutdown_from_a_hook_does_not_wait_for_its_own_session(autojump_clock):
    async def on_rcpt(session, recipient):
        await server.shutdown(grace=5)

    server = make_server(Recorder(on_rcpt=on_rcpt))
    async with serving(server) as connect:
        peer, idle = connect(), connect()
        await peer.hello()
        await idle.hello()
        await peer.speak(MAIL)
        assert await idle.rest() == BYE + "\r\n"
        # its grace was over when the hook ended: the reply, and the end
        assert await peer.rest() == BYE + "\r\n"
        assert trio.current_time() < 5


async def test_two_shutdowns_at_a_time(autojump_clock):
    server = make_server()
    async with serving(server) as connect:
        peer = connect()
        await peer.hello()
        await peer.speak(MAIL)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.shutdown)
            nursery.start_soon(server.shutdown)
            await trio.sleep(3)
            await peer.ask("RSET")
        assert trio.current_time() == 3


@pytest.mark.parametrize("hooked", [True, False])
async def test_no_transaction_begins_after_shutdown_began(hooked, autojump_clock):
    """Pipelined, further ones are there already when the one in progress ends."""
    messages = []

    class Slow:
        async def on_data(self, session, envelope, body):
            messages.append(await body.read())
            await trio.sleep(3)

        async def on_mail(self, session, sender):
            messages.append(sender.address)

    if not hooked:
        del Slow.on_mail
    server = make_server(Slow())
    async with serving(server) as connect, trio.open_nursery() as nursery:
        peer = connect()
        await peer.hello()
        await peer.send("MAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\nBDAT 3 LAST\r\nabc" * 3)
        await wait_all_tasks_blocked()
        nursery.start_soon(server.shutdown)
        await peer.speak(f"S: 250…\nS: 250…\nS: 250…\nS: {BYE}\nS: <closed>")
    assert trio.current_time() == 3
    assert messages == (["a@a.test", b"abc"] if hooked else [b"abc"])
    assert (server.statistics().transactions, server.statistics().messages) == (1, 1)


@pytest.mark.parametrize("order", [1, -1])
async def test_hooks_that_shut_down_do_not_wait_for_each_other(order, autojump_clock):
    ended: list[Any] = []

    async def on_rcpt(session, recipient):
        await trio.sleep(1)
        await server.shutdown(grace=20)
        ended.append(trio.current_time())

    server = make_server(Recorder(on_rcpt=on_rcpt))
    async with serving(server) as connect:
        peers = [connect() for _ in range(3)]
        for peer in peers:
            await peer.hello()
            await peer.ask("MAIL FROM:<>")
        *stoppers, busy = peers[::order]
        for peer in stoppers:
            await peer.send_line("RCPT TO:<b@b.test>")
        await trio.sleep(8)
        await busy.speak(f"C: RSET\nS: 250…\nS: {BYE}\nS: <closed>")  # the one that both have waited for
        for peer in stoppers:
            assert await peer.rest() == "250 2.1.5 OK\r\n" + BYE + "\r\n"
    assert ended == [8, 8]


async def test_shutdown_from_outside_waits_for_a_hook_that_shuts_down(autojump_clock):
    async def on_rcpt(session, recipient):
        await server.shutdown(grace=20)
        await trio.sleep(5)

    server = make_server(Recorder(on_rcpt=on_rcpt))
    async with serving(server) as connect:
        peer = connect()
        await peer.hello()
        await peer.ask("MAIL FROM:<>")
        await peer.send_line("RCPT TO:<b@b.test>")
        await wait_all_tasks_blocked()
        await server.shutdown()
        assert trio.current_time() == 5
        assert server.sessions == frozenset()


async def test_serve_returns_after_shutdown():
    server = make_server()
    assert repr(server) == "<Server mx.test: 0 connections>"
    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(lambda task_status: server.serve(0, host="127.0.0.1", task_status=task_status))
        stream = await trio.open_tcp_stream(*listener.socket.getsockname())
        await stream.receive_some()
        assert len(server.sessions) == 1
        assert repr(server.statistics()).startswith("ServerStatistics(connections=1, total_connections=1,")
        nursery.start_soon(server.shutdown)
        assert await stream.receive_some() == BYE.encode() + b"\r\n"
        await stream.aclose()
    assert server.sessions == frozenset()
    assert repr(server) == "<Server mx.test: shutting down, 0 connections>"


async def test_serve_after_shutdown_returns_at_once():
    server = make_server()
    await server.shutdown()
    await server.serve(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:  # noqa: ASYNC112 (start() is what is tried)
        await nursery.start(lambda task_status: server.serve(0, host="127.0.0.1", task_status=task_status))


@pytest.mark.parametrize("implicit", [True, False])
async def test_nothing_in_clear_during_a_handshake(implicit, autojump_clock):
    server = make_server(ssl_context=server_context(), implicit_tls=implicit)
    async with serving(server) as connect:
        peer = connect()
        if not implicit:
            await peer.hello()
            assert await peer.ask("STARTTLS") == "220 ready to start TLS"
        await wait_all_tasks_blocked()
        await server.shutdown(grace=1)
        assert trio.current_time() == 0  # nothing was in progress
        assert await peer.rest() == ""


async def test_a_handshake_on_a_socket_is_not_waited_for(autojump_clock):
    server = make_server(ssl_context=server_context(), implicit_tls=True)
    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(lambda task_status: server.serve(0, host="127.0.0.1", task_status=task_status))
        stream = await trio.open_tcp_stream(*listener.socket.getsockname())
        while not server.sessions:
            await trio.lowlevel.checkpoint()
        await wait_all_tasks_blocked()
        async with stream:
            await server.shutdown(grace=60)
            assert trio.current_time() < 60
            assert await stream.receive_some() == b""


async def test_nothing_in_clear_before_an_implicit_handshake(autojump_clock):
    async def stuck(*args):
        await trio.sleep_forever()

    server = make_server(Recorder(on_connect=stuck), ssl_context=server_context(), implicit_tls=True)
    async with serving(server) as connect:
        peer = connect()
        await wait_all_tasks_blocked()
        await server.shutdown(grace=1)
        assert await peer.rest() == ""


async def test_nothing_in_clear_when_cancelled_between_220_and_the_handshake(autojump_clock):
    async def on_reset(session):
        scope.cancel()
        await trio.sleep(1)

    near, far = memory_stream_pair()
    server = make_server(Recorder(on_reset=on_reset), ssl_context=server_context())
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as inner:
                inner.start_soon(server.serve_stream, far)
                await near.send_all(b"EHLO x\r\nMAIL FROM:<>\r\nSTARTTLS\r\n")
                await trio.sleep_forever()
        got = b""
        while data := await near.receive_some():
            got += data
        nursery.cancel_scope.cancel()
    assert b"421" not in got


# ---- cancellation


@pytest.mark.parametrize("stage", ["ready", "MAIL", "DATA", "hook", "AUTH"])
async def test_a_cancelled_session_still_says_421_and_cleans_up(stage, autojump_clock):
    async def on_mail(session, sender):
        if stage == "hook":
            await trio.sleep_forever()

    async def tidy(session):
        await trio.sleep(4)

    handler = Recorder(on_mail=on_mail, on_reset=tidy, on_close=tidy, on_auth=True)
    server = make_server(handler, allow_insecure_auth=True)
    near, far = memory_stream_pair()
    peer = Peer(near)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_stream, far)
        await peer.hello()
        if stage == "hook":
            await peer.send_line("MAIL FROM:<>")
        elif stage == "AUTH":
            await peer.ask("AUTH PLAIN")
        elif stage != "ready":
            await peer.speak(DATA if stage == "DATA" else MAIL)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert await peer.rest() == BYE + "\r\n"
    in_transaction = stage in ("MAIL", "DATA")
    assert trio.current_time() == (8 if in_transaction else 4)
    assert handler.count("on_reset") == in_transaction
    assert handler.count("on_close") == 1


async def test_a_cancellation_in_a_hook_is_cancelled_and_nothing_else():
    seen = []

    async def on_data(session, envelope, body):
        try:
            await body.read()
        except BaseException as exc:
            seen.append(type(exc))
            raise

    near, far = memory_stream_pair()
    peer = Peer(near)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(make_server(Recorder(on_data=on_data)).serve_stream, far)
        await peer.hello()
        await peer.speak(DATA)
        nursery.cancel_scope.cancel()
    assert seen == [trio.Cancelled]


async def test_a_failing_child_of_a_cancelled_hook_does_not_end_the_server(caplog):
    async def child():
        try:
            await trio.sleep_forever()
        finally:
            raise RuntimeError("while cancelled")

    async def on_mail(session, sender):
        async with trio.open_nursery() as nursery:  # noqa: ASYNC112 (for the group that it makes)
            nursery.start_soon(child)

    near, far = memory_stream_pair()
    peer = Peer(near)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(make_server(Recorder(on_mail=on_mail)).serve_stream, far)
        await peer.hello()
        await peer.send_line("MAIL FROM:<>")
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert (await peer.rest()).endswith(BYE + "\r\n")
    assert "while cancelled" in caplog.text


async def test_a_peer_that_does_not_read_cannot_delay_the_end_of_a_cancelled_session(autojump_clock):
    near, far = trio.testing.lockstep_stream_pair()
    handler = Recorder()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(make_server(handler).serve_stream, far)
        await wait_all_tasks_blocked()  # it is sending its greeting
        nursery.cancel_scope.cancel()
    assert trio.current_time() <= 1
    assert handler.calls == ["on_connect", "on_close"]
    await near.aclose()


# ---- serve and its errors


async def test_a_port_in_use_is_a_bare_os_error():
    import trio_smtp

    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        with pytest.raises(OSError):  # noqa: PT011
            await trio_smtp.serve(Recorder(), listener.socket.getsockname()[1], host="127.0.0.1")


async def test_an_error_of_a_listener_comes_out_bare():
    class Broken(trio.abc.Listener):
        async def accept(self):
            raise trio.ClosedResourceError("closed by somebody")

        async def aclose(self):
            await trio.lowlevel.checkpoint()

    with pytest.raises(trio.ClosedResourceError):
        await make_server().serve_listeners([Broken()])


async def test_implicit_tls_needs_a_context():
    from trio_smtp import Server

    with pytest.raises(ValueError, match="ssl_context"):
        Server(Discard(), implicit_tls=True)


async def test_shutdown_over_tls():
    server = make_server(ssl_context=server_context(), implicit_tls=True)
    near, far = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_stream, far)
        tls = trio.SSLStream(near, client_context(), server_hostname="mx.test")
        assert await tls.receive_some() == b"220 mx.test ESMTP trio_smtp\r\n"
        await server.shutdown()
        assert await tls.receive_some() == BYE.encode() + b"\r\n"
        assert await tls.receive_some() == b""


async def test_shutdown_over_tls_on_a_socket():
    server = make_server(ssl_context=server_context(), implicit_tls=True)
    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(lambda task_status: server.serve(0, host="127.0.0.1", task_status=task_status))
        stream = await trio.open_tcp_stream(*listener.socket.getsockname())
        tls = trio.SSLStream(stream, client_context(), server_hostname="mx.test")
        await tls.receive_some()
        nursery.start_soon(server.shutdown)
        assert await tls.receive_some() == BYE.encode() + b"\r\n"
        assert await tls.receive_some() == b""
        await tls.aclose()


async def test_session_needs_no_serve():
    async with session() as peer:
        assert await peer.ask("NOOP") == "250 2.0.0 OK"


async def test_a_task_that_a_hook_has_started_ends_that_hooks_session_too(nursery, autojump_clock):
    async def on_mail(session, sender):
        nursery.start_soon(lambda: server.shutdown(grace=1))

    server = make_server(Recorder(on_mail=on_mail))
    async with serving(server) as connect:
        peer = connect()
        await peer.hello()
        await peer.speak("C: MAIL FROM:<a@a.test>\nS: 250 2.1.0 OK")
        began = trio.current_time()
        await peer.expect("421 4.3.2 the server is shutting down")
        assert trio.current_time() - began == pytest.approx(1)
