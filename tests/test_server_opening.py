# How a session begins: who may speak first, and what a shutdown does before there is a session.
from __future__ import annotations

import trio
from loopback import serving_tcp
from support import Recorder, make_server, serving
from tls_support import server_context
from trio.testing import wait_all_tasks_blocked

from trio_smtp._server.shutdown import Phase


async def test_early_talkers_are_refused_where_that_is_asked_for():
    async with serving(make_server(reject_early_talkers=True)) as connect:
        peer = connect()
        await peer.send("EHLO x\r\n")
        await peer.speak("S: 554 5.5.1…\nS: <closed>")
    async with serving(make_server()) as connect:
        peer = connect()
        await peer.send("EHLO x\r\nQUIT\r\n")
        assert (await peer.rest()).startswith("220 ")


async def test_what_shares_a_segment_with_a_proxy_header_is_no_early_talking():
    """It is read with the header, and is neither lost nor held against the client; what comes later is."""
    connected = trio.Event()

    async def on_connect(session):
        connected.set()

    config = {"reject_early_talkers": True, "proxy_protocol_from": ["127.0.0.1"]}
    server = make_server(Recorder(on_connect=on_connect), **config)
    header = "PROXY TCP4 192.0.2.7 192.0.2.8 1000 25\r\n"
    async with serving_tcp(server) as connect:
        peer = await connect()
        await peer.send(header + "NOOP\r\n")
        await peer.speak("S: 220…\nS: 250 2.0.0 OK\nC: QUIT\nS: 221…\nS: <closed>")
        connected = trio.Event()
        peer = await connect()
        await peer.send(header)
        await connected.wait()
        await peer.send("NOOP\r\n")
        await peer.speak("S: 554 5.5.1 you talk before the greeting\nS: <closed>")
        peer = await connect()
        await peer.send(header)
        await peer.speak("S: 220…\nC: NOOP\nS: 250 2.0.0 OK")


async def test_an_implicit_handshake_is_a_phase_of_its_own_and_ends_with_a_shutdown(mock_clock):
    handler = Recorder()
    server = make_server(handler, ssl_context=server_context(), implicit_tls=True)
    async with serving(server) as connect:
        peer = connect()
        await wait_all_tasks_blocked()
        [connection] = server._connections
        assert connection.phase is Phase.HANDSHAKE
        connection.begin_shutdown()
        assert await peer.rest() == ""
    assert handler.calls == ["on_connect", "on_close"]


async def test_a_shutdown_before_an_implicit_handshake_lets_on_connect_end(mock_clock):
    asked = trio.Event()

    async def on_connect(session):
        await asked.wait()

    handler = Recorder(on_connect=on_connect)
    server = make_server(handler, ssl_context=server_context(), implicit_tls=True)
    async with serving(server) as connect:
        peer = connect()
        await wait_all_tasks_blocked()
        [connection] = server._connections
        assert connection.phase is Phase.HOOK
        connection.begin_shutdown()
        await wait_all_tasks_blocked()
        assert handler.calls == ["on_connect"]
        asked.set()
        assert await peer.rest() == ""
    assert handler.calls == ["on_connect", "on_close"]


async def test_repr():
    server = make_server()
    async with serving(server) as connect:
        await connect().reply()
        [connection] = server._connections
        assert repr(connection._opening) == f"<Opening of {connection.session!r}>"
