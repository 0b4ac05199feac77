# TLS at a server: STARTTLS and implicit, through memory and sockets; what is forgotten, what is refused, what is known.
from __future__ import annotations

import contextlib
import ssl
from typing import Any

import pytest
import trio
from loopback import serving_tcp
from support import DATA, MAIL, Peer, Recorder, make_server, serving
from tls_support import NAME, authority, client_context, server_context
from trio.testing import wait_all_tasks_blocked

from trio_smtp import Reject, Server, ServerExtension


async def start_tls(peer: Peer, name: str | None = NAME, context: ssl.SSLContext | None = None) -> None:
    peer.stream = trio.SSLStream(peer.stream, context or client_context(), server_hostname=name)
    await peer.stream.do_handshake()


async def upgrade(peer: Peer, **options: Any) -> None:
    assert await peer.ask("STARTTLS") == "220 ready to start TLS"
    await start_tls(peer, **options)


@pytest.mark.parametrize("real", [True, False])
@pytest.mark.parametrize("implicit", [True, False])
async def test_a_session_of_either_kind(implicit: bool, real: bool):
    handler = Recorder()
    server = make_server(handler, ssl_context=server_context(), implicit_tls=implicit)
    async with serving_tcp(server) if real else serving(server) as connect:
        peer = await connect() if real else connect()
        if implicit:
            await start_tls(peer)
            await peer.hello()
        else:
            await peer.hello()
            await upgrade(peer)
            assert "STARTTLS" not in await peer.ask("EHLO x")
        await peer.speak(DATA + "C: text\nC: .\nS: 250…\nC: QUIT\nS: 221…\nS: <closed>")
        tls = handler.sessions[0].tls
        assert tls.version == "TLSv1.3"
        assert tls.cipher.startswith("TLS_")
        assert tls.server_name == NAME
        assert tls.peer_certificate is None
        assert not tls.verified
        while "on_close" not in handler.calls:
            await trio.lowlevel.checkpoint()
    assert handler.messages == [("a@a.test", ["b@b.test"], b"text\r\n")]
    hooks = ["on_connect", "on_tls", "on_hello"] if implicit else ["on_connect", "on_hello", "on_tls", "on_hello"]
    assert handler.calls[: len(hooks)] == hooks
    assert handler.count("on_tls") == 1


async def test_the_session_is_in_clear_until_the_handshake_is_done():
    seen = []

    async def look(session, *args):
        seen.append(session.tls is not None)

    handler = Recorder(on_connect=look, on_hello=look, on_tls=look)
    async with serving(make_server(handler, ssl_context=server_context())) as connect:
        peer = connect()
        await peer.hello()
        await upgrade(peer)
        await peer.ask("EHLO x")
    assert seen == [False, False, True, True]


async def test_a_client_certificate_is_known():
    context = server_context()
    context.verify_mode = ssl.CERT_OPTIONAL
    authority().configure_trust(context)
    client = client_context()
    authority().issue_cert("me@client.test", common_name="me").configure_cert(client)
    handler = Recorder()
    async with serving(make_server(handler, ssl_context=context)) as connect:
        peer = connect()
        await peer.hello()
        await upgrade(peer, context=client)
        await peer.ask("EHLO x")
        tls = handler.sessions[0].tls
        assert tls.verified
        assert ("email", "me@client.test") in tls.peer_certificate["subjectAltName"]
        assert "client.test" not in repr(tls)


@pytest.mark.parametrize("previous", ["none", "callback", "callback that refuses"])
async def test_the_server_name_is_known_and_an_existing_callback_still_called(previous: str):
    asked: list[str | None] = []

    def callback(connection: object, name: str | None, ctx: object) -> int | None:
        asked.append(name)
        return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME if "refuses" in previous else None

    context = server_context()
    if previous != "none":
        context.sni_callback = callback
    handler = Recorder()
    server = make_server(handler, ssl_context=context, implicit_tls=True)
    Server(handler, ssl_context=context)  # a second one with the same context does not chain twice
    async with serving(server) as connect:
        peer = connect()
        if "refuses" in previous:
            with pytest.raises(trio.BrokenResourceError):
                await start_tls(peer)
        else:
            await start_tls(peer, "localhost")
            await peer.hello()
            assert handler.sessions[0].tls.server_name == "localhost"
    assert len(asked) == (previous != "none")


async def test_no_server_name():
    client = client_context()
    client.check_hostname = False
    handler = Recorder()
    async with serving(make_server(handler, ssl_context=server_context(), implicit_tls=True)) as connect:
        peer = connect()
        await start_tls(peer, None, client)
        await peer.hello()
        assert handler.sessions[0].tls.server_name is None


@pytest.mark.parametrize("rest", ["NOOP\r\n", "x", "EHLO evil\r\nMAIL FROM:<>\r\n"])
async def test_what_follows_starttls_in_clear_ends_the_session(rest: str):
    handler = Recorder()
    async with serving(make_server(handler, ssl_context=server_context())) as connect:
        peer = connect()
        await peer.hello()
        await peer.send("STARTTLS\r\n" + rest)
        await peer.speak("S: 554 5.5.1 nothing may follow STARTTLS\nS: <closed>")
    assert handler.count("on_tls") == 0
    assert handler.count("on_hello") == 1


@pytest.mark.parametrize("garbage", [b"EHLO x\r\n", b"\0" * 9, b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01\x00\x04zzzz"])
@pytest.mark.parametrize("implicit", [True, False])
@pytest.mark.parametrize("real", [True, False])
async def test_no_hello_of_tls_where_one_belongs(garbage: bytes, implicit: bool, real: bool, caplog):
    handler = Recorder()
    server = make_server(handler, ssl_context=server_context(), implicit_tls=implicit)
    async with serving_tcp(server) if real else serving(server) as connect:
        peer = await connect() if real else connect()
        if not implicit:
            await peer.hello()
            await peer.ask("STARTTLS")
        await peer.send(garbage)
        answer = b""
        try:
            while data := await peer.stream.receive_some():
                answer += data
        except trio.BrokenResourceError:  # RST
            pass
        assert answer[:1] in (b"", b"\x15")  # an alert at most
        assert b"421" not in answer
        while "on_close" not in handler.calls:
            await trio.lowlevel.checkpoint()
    assert handler.count("on_tls") == 0
    assert handler.count("on_close") == 1
    assert caplog.records == []


async def test_all_that_was_said_in_clear_is_forgotten():
    handler = Recorder(on_auth=True)
    server = make_server(handler, ssl_context=server_context(), allow_insecure_auth=True)
    async with serving(server) as connect:
        peer = connect()
        await peer.hello()
        assert (await peer.ask("AUTH PLAIN AHgAeA=="))[:3] == "235"
        await peer.speak(MAIL)
        session = handler.sessions[0]
        session.state.mine = 17
        assert (session.identity, session.hello) == ("x", "client.test")
        await upgrade(peer)
        await wait_all_tasks_blocked()  # the client's end of a handshake is the first to be done
        assert handler.count("on_reset") == 1
        assert (session.identity, session.hello, session.envelope) == (None, None, None)
        assert session.state.mine == 17
        assert await peer.ask("MAIL FROM:<>") == "503 5.5.1 send EHLO first"
        assert await peer.ask("STARTTLS") == "503 5.5.1 TLS is active already"
        lines = await peer.ask("EHLO again")
        assert "STARTTLS" not in lines
        assert "AUTH PLAIN" in lines
        assert await peer.ask("RCPT TO:<b@b.test>") == "503 5.5.1 send MAIL first"
        assert (await peer.ask("AUTH PLAIN AHgAeA=="))[:3] == "235"


async def test_an_argument_and_no_context():
    async with serving(make_server(ssl_context=server_context())) as connect:
        peer = connect()
        await peer.hello()
        assert await peer.ask("STARTTLS now") == "501 5.5.4 STARTTLS takes no argument"
    async with serving(make_server()) as connect:
        peer = connect()
        await peer.hello()
        assert (await peer.ask("STARTTLS"))[:3] == "500"


@pytest.mark.parametrize("implicit", [True, False])
def test_a_context_for_clients_is_refused_at_once(implicit: bool):
    with pytest.raises(ValueError, match="for clients"):
        Server(Recorder(), ssl_context=client_context(), implicit_tls=implicit)


async def test_require_tls():
    async with serving(make_server(ssl_context=server_context(), require_tls=True)) as connect:
        peer = connect()
        await peer.hello()
        for command in ("MAIL FROM:<>", "RCPT TO:<a@a.test>", "DATA"):
            assert await peer.ask(command) == "530 5.7.0 must issue a STARTTLS command first"
        await peer.send("BDAT 6\r\nQUIT\r\n")
        await peer.expect("530…")
        await upgrade(peer)
        await peer.ask("EHLO x")
        await peer.speak(MAIL)


async def test_with_require_tls_lookups_and_an_applications_commands_are_refused_in_clear_too():
    """RFC 3207 section 4: 530 to every command but NOOP, EHLO, STARTTLS and QUIT."""

    class Directory(Recorder):
        async def on_expn(self, session, argument):
            return await self._take("on_expn", session, argument)

        async def on_command(self, session, verb, argument):
            return await self._take("on_command", session, verb, argument)

    handler = Directory()
    extension = ServerExtension("XFOO", commands=["XDO"])
    server = make_server(handler, ssl_context=server_context(), require_tls=True, extensions=[extension])
    async with serving(server) as connect:
        peer = connect()
        await peer.hello()
        for command in ("VRFY bob", "EXPN list", "XDO it"):
            assert await peer.ask(command) == "530 5.7.0 must issue a STARTTLS command first"
        assert not {"on_vrfy", "on_expn", "on_command"} & set(handler.calls)
        await upgrade(peer)
        for command in ("VRFY bob", "EXPN list", "XDO it"):
            assert (await peer.ask(command))[0] == "2"
        assert {"on_vrfy", "on_expn", "on_command"} <= set(handler.calls)


# ---- never a word in clear where TLS belongs


@pytest.mark.parametrize("implicit", [True, False])
@pytest.mark.parametrize("end", ["handshake timeout", "session timeout", "shutdown", "client leaves"])
async def test_no_421_in_clear_where_a_handshake_is_due(end: str, implicit: bool, autojump_clock):
    handler = Recorder()
    options = {"session_timeout": 7} if end == "session timeout" else {"tls_handshake_timeout": 5}
    server = make_server(handler, ssl_context=server_context(), implicit_tls=implicit, **options)
    async with serving(server) as connect:
        peer = connect()
        if not implicit:
            await peer.hello()
            await peer.ask("STARTTLS")
        if end == "client leaves":
            await peer.stream.send_stream.aclose()
        elif end == "shutdown":
            await wait_all_tasks_blocked()
            await server.shutdown(grace=1)
        assert await peer.rest() == ""
        assert trio.current_time() == {"handshake timeout": 5, "session timeout": 7}.get(end, trio.current_time())
    assert handler.count("on_close") == 1
    assert handler.count("on_tls") == 0


async def test_a_slow_handshake_comes_to_an_end(autojump_clock):
    server = make_server(ssl_context=server_context(), implicit_tls=True, tls_handshake_timeout=60)
    async with serving(server) as connect:
        peer = connect()
        await peer.send(b"\x16\x03\x01\x02\x00\x01\x00")
        assert await peer.rest() == ""
        assert trio.current_time() == 60


@pytest.mark.parametrize("implicit", [True, False])
async def test_on_connect_of_an_implicit_server_refuses_without_a_word(implicit: bool):
    handler = Recorder(on_connect=Reject(554, "no"))
    async with serving(make_server(handler, ssl_context=server_context(), implicit_tls=implicit)) as connect:
        assert await connect().rest() == ("" if implicit else "554 5.0.0 no\r\n")
    assert handler.count("on_close") == 1


async def test_on_tls_that_fails_is_logged_only(caplog):
    handler = Recorder(on_tls=ValueError("a bug"))
    async with serving(make_server(handler, ssl_context=server_context(), implicit_tls=True)) as connect:
        peer = connect()
        await start_tls(peer)
        await peer.hello()
        assert await peer.ask("NOOP") == "250 2.0.0 OK"
    assert [record.getMessage().split()[-2:] for record in caplog.records] == [["on_tls", "failed"]]


# ---- streams that come with TLS of their own


@contextlib.asynccontextmanager
async def serving_ssl_listeners(server: Server, context: ssl.SSLContext):
    """Connect to a server behind Trio's own TLS listeners."""
    listeners = await trio.open_ssl_over_tcp_listeners(0, context, host="127.0.0.1")
    assert isinstance(listeners[0].transport_listener, trio.SocketListener)
    address = listeners[0].transport_listener.socket.getsockname()
    peers = []
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: server.serve_listeners(listeners, task_status=task_status))

        async def connect() -> Peer:
            peers.append(Peer(await trio.open_tcp_stream(*address)))
            return peers[-1]

        yield connect
        for peer in peers:
            await peer.aclose()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("own", ["no context", "STARTTLS", "implicit"])
async def test_a_tls_listener_is_implicit_tls(own: str):
    handler = Recorder(on_auth=True)
    context = None if own == "no context" else server_context()
    server = make_server(handler, ssl_context=context, implicit_tls=own == "implicit", require_tls=context is not None)
    async with serving_ssl_listeners(server, server_context()) as connect:
        peer = await connect()
        await start_tls(peer)
        await peer.reply()
        offered = await peer.ask("EHLO x")
        assert "STARTTLS" not in offered
        assert "AUTH PLAIN LOGIN" in offered
        assert await peer.ask("AUTH PLAIN AG1lAHNlY3JldA==") == "235 2.7.0 authentication succeeded"
        assert (await peer.ask("STARTTLS"))[:3] == ("503" if own == "STARTTLS" else "500")
        await peer.speak(DATA + "C: text\nC: .\nS: 250…\nC: QUIT\nS: 221…\nS: <closed>")
        [seen] = handler.sessions
        assert seen.tls.version == "TLSv1.3"
        assert seen.tls.server_name == NAME
        assert seen.peer[0] == "127.0.0.1"
    assert handler.calls[:3] == ["on_connect", "on_tls", "on_hello"]
    assert handler.messages == [("a@a.test", ["b@b.test"], b"text\r\n")]


@pytest.mark.parametrize("shaken", [False, True])
async def test_a_tls_stream_is_implicit_tls(shaken: bool):
    """Whether its handshake was done when it was made, or is still to come."""
    handler = Recorder()
    near, far = trio.testing.memory_stream_pair()
    server = make_server(handler)
    stream = trio.SSLStream(far, server_context(), server_side=True)
    peer = Peer(trio.SSLStream(near, client_context(), server_hostname=NAME))
    async with trio.open_nursery() as nursery:
        if shaken:
            assert isinstance(peer.stream, trio.SSLStream)
            nursery.start_soon(peer.stream.do_handshake)
            await stream.do_handshake()
        nursery.start_soon(server.serve_stream, stream)
        await peer.reply()
        assert "STARTTLS" not in await peer.ask("EHLO x")
        await peer.speak(DATA + "C: text\nC: .\nS: 250…\nC: QUIT\nS: 221…\nS: <closed>")
        assert handler.sessions[0].tls.cipher.startswith("TLS_")
        assert handler.sessions[0].tls.server_name == (None if shaken else NAME)
    assert handler.calls[:3] == ["on_connect", "on_tls", "on_hello"]


async def test_the_handshake_of_a_tls_listener_has_a_time_limit(autojump_clock):
    handler = Recorder()
    async with serving_ssl_listeners(make_server(handler, tls_handshake_timeout=7), server_context()) as connect:
        peer = await connect()
        await peer.expect("<closed>")
        assert trio.current_time() == pytest.approx(7, abs=0.1)
        while "on_close" not in handler.calls:
            await trio.sleep(0.1)
    assert handler.calls == ["on_connect", "on_close"]


@pytest.mark.parametrize("reason", ["on_connect", "limit", "shutdown"])
async def test_a_refused_client_of_a_tls_listener_gets_no_handshake(reason: str):
    answers = {"on_connect": Reject(554, "no", "5.7.1")} if reason == "on_connect" else {}
    server = make_server(Recorder(**answers), max_connections=1)
    async with serving_ssl_listeners(server, server_context()) as connect:
        if reason != "on_connect":
            first = await connect()
            await start_tls(first)
            await first.reply()
        peer = await connect()
        if reason == "shutdown":
            await server.shutdown()
        await peer.expect("<closed>")


async def test_a_proxy_header_comes_before_the_handshake_of_a_tls_listener():
    handler = Recorder()
    server = make_server(handler, proxy_protocol_from=["127.0.0.1/32"])
    async with serving_ssl_listeners(server, server_context()) as connect:
        peer = await connect()
        await peer.send_line("PROXY TCP4 192.0.2.1 192.0.2.2 1234 465")
        await start_tls(peer)
        await peer.hello()
        assert handler.sessions[0].peer == ("192.0.2.1", 1234)
        assert handler.sessions[0].tls is not None


# ---- the end


@pytest.mark.parametrize("tls", [True, False])
@pytest.mark.parametrize("reply", ["421", "554", "552", "501"])
async def test_the_last_reply_is_not_lost_to_what_the_client_is_still_sending(reply: str, tls: bool):
    """A socket closed with unread input sends RST, which makes the client's kernel forget what it has not read."""
    options = {"max_errors": 1, "max_message_size": 100, "error_delay": None}
    server = make_server(ssl_context=server_context() if tls else None, implicit_tls=tls, **options)
    wire = {
        "421": "FOO\r\nFOO\r\n",
        "554": "GET / HTTP/1.0\r\n",
        "552": "BDAT 100000 LAST\r\n",
        "501": "BDAT 3\r\nabcBDAT x\r\n",  # while a hook waits for the rest of the message
    }[reply]
    async with serving_tcp(server) as connect:
        peer = await connect()
        if tls:
            await start_tls(peer)
        await peer.hello()
        if reply in ("552", "501"):
            await peer.speak(MAIL)
        await peer.send(wire)
        while not server._connections or not next(iter(server._connections))._channel.protocol.is_closed:
            await trio.lowlevel.checkpoint()
        for _ in range(20):  # the server has said its last word, and its client goes on
            await peer.send("x" * 5000)
        lines = (await peer.rest()).splitlines()  # under TLS this checks for close_notify, too
        assert lines[-1].startswith(reply)
        await peer.aclose()
        with trio.fail_after(5):
            while server.sessions:
                await trio.lowlevel.checkpoint()


async def test_lingering_under_tls_is_bounded(autojump_clock):
    server = make_server(ssl_context=server_context(), implicit_tls=True)
    async with serving_tcp(server) as connect:
        peer = await connect()
        await start_tls(peer)
        await peer.hello()
        began = trio.current_time()
        await peer.speak("C: GET / HTTP/1.0\nS: 554…\nS: <closed>")
        while server.sessions:  # the client keeps its side open
            await trio.sleep(0.5)
        assert trio.current_time() - began <= 5
