# What a shutdown does to a connection in each phase: the table, and each of its rows played against a real session.
from __future__ import annotations

import pytest
import trio
from support import DATA, MAIL, Recorder, make_server, serving
from tls_support import server_context
from trio.testing import wait_all_tasks_blocked

from trio_smtp import ConnectionLostError
from trio_smtp._server.shutdown import ACTIONS, Action, Phase, Shutdown

BYE = "421 4.3.2 the server is shutting down\r\n"
NEVER = trio.sleep_forever


def test_the_table_is_complete():
    assert set(ACTIONS) == {Shutdown.DRAIN, Shutdown.END}
    for row in ACTIONS.values():
        assert set(row) == set(Phase)


def test_the_first_step_cancels_nothing():
    assert not {Action.CANCEL, Action.INTERRUPT_OR_CANCEL} & set(ACTIONS[Shutdown.DRAIN].values())


def test_the_second_step_lets_nothing_pass():
    assert Action.NOTHING not in ACTIONS[Shutdown.END].values()


class Scene:
    """A session brought to a phase: how, what ends the phase by itself, and what is said when it is ended."""

    def __init__(self, phase, begin, *, drained=None, ended=BYE, **options):
        self.phase, self.begin, self.drained, self.ended, self.options = phase, begin, drained, ended, options


async def nothing(peer):
    pass


async def stuck(*args):
    await NEVER()


async def read_all(session, envelope, body):
    await body.read()


async def greet(peer):
    await peer.hello()


async def begin_mail(peer):
    await peer.hello()
    await peer.speak(MAIL)


async def ask_hook(peer):
    await peer.hello()
    await peer.send_line("MAIL FROM:<>")


async def begin_data(peer):
    await peer.hello()
    await peer.speak(DATA)


async def err(peer):
    await peer.hello()
    await peer.ask("FOO")
    await peer.send_line("FOO")


async def begin_tls(peer):
    await peer.hello()
    await peer.ask("STARTTLS")


SCENES = {
    "opening": Scene(Phase.OPENING, nothing, reject_early_talkers=True),
    "on_connect": Scene(Phase.HOOK, nothing, hooks={"on_connect": stuck}),
    "handshake": Scene(Phase.HANDSHAKE, begin_tls, drained="", ended="", tls=True),
    "idle": Scene(Phase.IDLE, greet, drained=BYE),
    "in a transaction": Scene(Phase.IDLE, begin_mail),
    "hook": Scene(Phase.HOOK, ask_hook, hooks={"on_mail": stuck}),
    "body": Scene(Phase.BODY, begin_data, hooks={"on_data": read_all}),
    "held back": Scene(
        Phase.HELD_BACK, err, drained="500 5.5.1 command not recognized\r\n" + BYE, soft_errors=1, error_delay=5
    ),
}


@pytest.mark.parametrize("step", ["drain", "end"])
@pytest.mark.parametrize("name", SCENES)
async def test_a_shutdown_in_each_phase(name, step, mock_clock):
    """With a clock that stands still: what ends, ends because of the shutdown."""
    scene = SCENES[name]
    options = dict(scene.options)
    context = server_context() if options.pop("tls", False) else None
    server = make_server(Recorder(**options.pop("hooks", {})), ssl_context=context, **options)
    async with serving(server) as connect:
        peer = connect()
        await scene.begin(peer)
        await wait_all_tasks_blocked()
        [connection] = server._connections
        assert connection.phase is scene.phase
        assert scene.phase.name in repr(connection)
        connection.begin_shutdown()
        if step == "drain":
            await wait_all_tasks_blocked()
            if scene.drained is None:
                assert connection.phase is scene.phase  # it goes on
                connection.end_now()
            else:
                assert await peer.rest() == scene.drained
        else:
            connection.end_now()
        if scene.drained is None or step == "end":
            assert await peer.rest() in (scene.ended, scene.drained)
        with trio.fail_after(5):
            while server.sessions:
                await trio.lowlevel.checkpoint()


async def test_the_session_whose_hook_shuts_down_ends_when_its_hook_does():
    async def on_mail(session, sender):
        connection.end_soon()
        await trio.lowlevel.checkpoint()

    server = make_server(Recorder(on_mail=on_mail))
    async with serving(server) as connect:
        peer = connect()
        await peer.hello()
        [connection] = server._connections
        await peer.send_line("MAIL FROM:<>")
        assert await peer.rest() == "250 2.1.0 OK\r\n" + BYE


async def test_a_body_that_was_interrupted_tells_its_hook_why():
    errors = []

    async def on_data(session, envelope, body):
        for _ in range(2):
            with pytest.raises(ConnectionLostError) as caught:
                await body.read()
            errors.append(str(caught.value))

    server = make_server(Recorder(on_data=on_data))
    async with serving(server) as connect:
        peer = connect()
        await begin_data(peer)
        await wait_all_tasks_blocked()
        [connection] = server._connections
        connection.end_now()
        assert await peer.rest() == BYE
    assert errors == ["the message was cut off: shutting down"] * 2


async def test_the_end_of_the_grace_ends_the_wait_for_a_client_to_read_our_last_word(mock_clock):
    server = make_server()
    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(lambda task_status: server.serve(0, host="127.0.0.1", task_status=task_status))
        stream = await trio.open_tcp_stream(*listener.socket.getsockname())
        await stream.receive_some()
        await stream.send_all(b"GET / HTTP/1.0\r\n")
        assert (await stream.receive_some()).startswith(b"554")
        await wait_all_tasks_blocked(0.01)
        [connection] = server._connections
        assert connection.phase is Phase.CLOSING
        await server.shutdown(grace=0)
        assert not server.sessions
        await stream.aclose()


async def test_what_is_kept_of_a_hook_is_let_go_with_the_transaction():
    server = make_server(Recorder(on_data=read_all))
    async with serving(server) as connect:
        peer = connect()
        await begin_data(peer)
        [connection] = server._connections
        assert connection._caller.body is not None
        await peer.speak("C: text\nC: .\nS: 250…")
        assert connection._caller.body is None
