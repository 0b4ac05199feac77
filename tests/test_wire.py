# Wires of every kind alike: ends, resets, time limits, interruptions, a broken send, and closing.
from __future__ import annotations

import contextlib
import re

import pytest
import trio
from tls_support import NAME, client_context, server_context
from trio.testing import open_stream_to_socket_listener, wait_all_tasks_blocked
from wire_pairs import KINDS, SECURED, SOCKETS, far_end, pair, reset

from trio_smtp import ConnectionLostError, SMTPTimeoutError
from trio_smtp._wire.opening import open_wire
from trio_smtp._wire.timekeeper import Timekeeper
from trio_smtp._wire.waits import Interrupted


@pytest.mark.parametrize("kind", KINDS)
async def test_octets_both_ways_and_the_end(kind: str):
    async with pair(kind) as (wire, far):
        await far.send_all(b"there")
        assert await wire.receive() == b"there"
        await wire.send(b"and back")
        assert await far.receive_some() == b"and back"
        await far.aclose()
        assert await wire.receive() == b""
        assert not wire.broken


@pytest.mark.parametrize("kind", SOCKETS)
async def test_a_reset_is_a_lost_connection(kind: str):
    async with pair(kind) as (wire, far):
        reset(far)
        with pytest.raises(ConnectionLostError) as caught:
            await wire.receive()
        assert isinstance(caught.value.__cause__, OSError | trio.BrokenResourceError)
        assert wire.broken
        with pytest.raises(ConnectionLostError):
            await wire.send(b"x")


@pytest.mark.parametrize("kind", SECURED)
async def test_tls_that_ends_without_close_notify_is_the_end(kind: str):
    async with pair(kind) as (wire, far):
        await far.send_all(b"last")
        await far.transport_stream.aclose()
        assert await wire.receive() == b"last"
        assert await wire.receive() == b""
        assert not wire.broken


@pytest.mark.parametrize("kind", KINDS)
async def test_a_wait_ends_at_its_deadline_and_the_connection_is_intact(kind: str, autojump_clock):
    async with pair(kind) as (wire, far):
        with pytest.raises(SMTPTimeoutError):
            await wire.receive(trio.current_time() + 5)
        assert trio.current_time() == 5
        assert not wire.broken
        await far.send_all(b"late")
        assert await wire.receive(trio.current_time() + 5) == b"late"


@pytest.mark.parametrize("kind", KINDS)
async def test_interrupt_ends_this_wait_or_the_next(kind: str):
    async with pair(kind) as (wire, far):
        wire.interrupt()
        with pytest.raises(Interrupted):
            await wire.receive()
        async with trio.open_nursery() as nursery:

            async def receive():
                with pytest.raises(Interrupted):
                    await wire.receive()

            nursery.start_soon(receive)
            await wait_all_tasks_blocked()
            assert wire.is_receiving
            wire.interrupt()
        wire.interrupt()
        wire.forget_interruption()
        await far.send_all(b"x")
        assert await wire.receive() == b"x"
        assert not wire.broken


@pytest.mark.parametrize("kind", SOCKETS)
@pytest.mark.parametrize("end", ["cancelled", "timeout", "abandoned", "reset"])
async def test_a_send_that_did_not_end_breaks_the_connection(kind: str, end: str, autojump_clock):
    async with pair(kind) as (wire, far):

        async def send() -> None:
            await wire.send(b"x" * 20_000_000, trio.current_time() + 5)

        if end == "cancelled":
            with trio.move_on_after(1) as scope:
                await send()
            assert scope.cancelled_caught
        elif end == "timeout":
            with pytest.raises(SMTPTimeoutError):
                await send()
        else:
            error = Interrupted if end == "abandoned" else ConnectionLostError
            async with trio.open_nursery() as nursery:

                async def fail() -> None:
                    with pytest.raises(error):
                        await send()

                nursery.start_soon(fail)
                await trio.sleep(1)
                if end == "abandoned":
                    wire.abandon()
                else:
                    reset(far)
        assert wire.broken
        assert wire.send_nowait(b"x") == 0
        with pytest.raises(ConnectionLostError):
            await wire.send(b"x")


@pytest.mark.parametrize("kind", SOCKETS)
async def test_addresses(kind: str):
    async with pair(kind) as (wire, far):
        below = far.transport_stream if kind in SECURED else far
        assert wire.peer == below.socket.getsockname()
        assert wire.local == below.socket.getpeername()
        reset(far)


async def test_no_addresses():
    async with pair("memory") as (wire, _):
        assert wire.peer is wire.local is None


@pytest.mark.parametrize("kind", KINDS)
async def test_closing_twice_and_after_a_loss(kind: str):
    async with pair(kind) as (wire, far):
        await trio.aclose_forcefully(far)
        await wire.aclose_lingering()
        await wire.aclose()
        assert wire.broken
        with pytest.raises(ConnectionLostError):
            await wire.send(b"x")


@pytest.mark.parametrize("kind", SOCKETS)
async def test_the_last_words_arrive_whatever_the_peer_was_saying(kind: str):
    async with pair(kind) as (wire, far), trio.open_nursery() as nursery:
        await far.send_all(b"x" * 10000)  # never read
        await wire.send(b"last words")
        nursery.start_soon(wire.aclose_lingering)
        await wait_all_tasks_blocked()
        await far.send_all(b"x" * 10000)  # to a closed socket this would be answered with RST
        await wait_all_tasks_blocked()
        assert await far.receive_some() == b"last words"
        assert await far.receive_some() == b""  # over TLS: close_notify
        await far.aclose()


@pytest.mark.parametrize("kind", SOCKETS)
async def test_lingering_is_bounded_in_time_and_shielded(kind: str, autojump_clock):
    async with pair(kind) as (wire, _):
        with trio.CancelScope() as scope:
            scope.cancel()
            await wire.aclose_lingering(within=3)
        assert trio.current_time() == 3


@pytest.mark.parametrize("kind", SOCKETS)
async def test_lingering_is_bounded_in_octets(kind: str):
    async with pair(kind) as (wire, far), trio.open_nursery() as nursery:
        nursery.start_soon(lambda: wire.aclose_lingering(within=60, drop=100_000))
        with contextlib.suppress(trio.BrokenResourceError):
            while True:
                await far.send_all(b"x" * 65536)
        while not wire.broken:
            await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("kind", SOCKETS)
async def test_lingering_ends_when_it_is_interrupted(kind: str):
    async with pair(kind) as (wire, _), trio.open_nursery() as nursery:
        nursery.start_soon(lambda: wire.aclose_lingering(within=60))
        while not wire.is_receiving:
            await trio.lowlevel.checkpoint()
        wire.interrupt()


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("turns", range(6))
@pytest.mark.parametrize(("way", "error"), [("interrupt", Interrupted), ("expire", SMTPTimeoutError)])
async def test_a_wait_ends_at_whatever_turn_it_is_ended(tls: bool, turns: int, way: str, error: type[Exception]):
    # Under TLS a receive takes turns of the scheduler before it waits for the socket; one of them lost the wake-up.
    keeper = Timekeeper()
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    async with trio.open_nursery() as nursery, listener:
        nursery.start_soon(keeper.run)
        client = open_wire(await open_stream_to_socket_listener(listener), keeper.timer(lambda: client.expire()))
        server = open_wire(await listener.accept())
        if tls:

            async def serve() -> None:
                nonlocal server
                server = await server.start_tls(server_context(), server_side=True)

            async with trio.open_nursery() as handshakes:
                handshakes.start_soon(serve)
                client = await client.start_tls(client_context(), server_side=False, server_hostname=NAME)
        ended: list[Exception] = []

        async def receive() -> None:
            try:
                await client.receive()
            except (Interrupted, SMTPTimeoutError) as exc:
                ended.append(exc)

        with trio.fail_after(5):
            async with trio.open_nursery() as readers:
                readers.start_soon(receive)
                while not client.is_receiving:
                    await trio.lowlevel.checkpoint()
                for _ in range(turns):
                    await trio.lowlevel.checkpoint()
                getattr(client, way)()
        assert [type(exc) for exc in ended] == [error]
        assert not client.broken
        await server.send(b"still there")
        assert await client.receive() == b"still there"
        await client.aclose()
        await server.aclose()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("server_side", [True, False])
@pytest.mark.parametrize("kind", ["memory", "timed"])
@pytest.mark.parametrize("way", ["expire", "interrupt", "abandon"])
async def test_the_old_wire_ends_the_wait_of_the_new_one(kind: str, way: str, server_side: bool):
    """A timer's callback, or another task, need not know that TLS was started meanwhile."""
    async with pair(kind) as (old, far):
        if (kind, way) == ("memory", "expire"):  # without a socket there is no timer
            return
        far = far_end(far, "TLSv1_3", server_side=not server_side)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(far.do_handshake)
            context = server_context() if server_side else client_context()
            name = None if server_side else NAME
            new = await old.start_tls(context, server_side=server_side, server_hostname=name)
        assert old.tls is None
        assert new.tls is not None

        async def receive() -> None:
            with pytest.raises(SMTPTimeoutError if way == "expire" else Interrupted):
                await new.receive()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            while not old.is_receiving:
                await trio.lowlevel.checkpoint()
            getattr(old, way)()
        assert not new.broken
        await new.aclose()


@pytest.mark.parametrize("server_side", [True, False])
@pytest.mark.parametrize("kind", ["memory", "timed"])
@pytest.mark.parametrize("way", ["interrupt", "abort", "cancel"])
async def test_a_handshake_can_be_ended_from_outside(kind: str, way: str, server_side: bool):
    async with pair(kind) as (wire, far):
        far = far_end(far, "TLSv1_3", server_side=not server_side)
        context = server_context() if server_side else client_context()
        scope = trio.CancelScope()

        async def start() -> None:
            nonlocal wire
            with scope:
                wire = await wire.start_tls(
                    context, server_side=server_side, server_hostname=None if server_side else NAME
                )

        async def begin() -> None:
            while not wire.is_receiving:
                await trio.lowlevel.checkpoint()
            await wait_all_tasks_blocked()
            if way == "abort":
                wire.abort()
                await far.do_handshake()
            elif way == "cancel":
                scope.cancel()
            else:
                wire.interrupt()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(begin)
            if way == "interrupt":
                with pytest.raises(Interrupted):
                    await start()
            elif way == "abort":
                with contextlib.suppress(ConnectionLostError):
                    await start()
                nursery.cancel_scope.cancel()
            else:
                await start()
        assert wire.broken
        with pytest.raises(ConnectionLostError):
            await wire.send(b"x")


@pytest.mark.parametrize("kind", KINDS)
async def test_after_abort_nothing_is_said(kind: str):
    async with pair(kind) as (wire, far):
        wire.abort()
        assert wire.broken
        assert "broken" in repr(wire)
        assert wire.send_nowait(b"x") == 0
        with pytest.raises(ConnectionLostError):
            await wire.send(b"x")
        await wire.aclose()
        assert await (far.transport_stream if kind in SECURED else far).receive_some() == b""


@pytest.mark.parametrize("kind", KINDS)
async def test_how_a_wire_shows(kind: str):
    async with pair(kind) as (wire, _):
        assert re.fullmatch(r"<(Socket|TLSSocket|Stream)Wire to (None|\('127.0.0.1', \d+\)): open>", repr(wire))


@pytest.mark.parametrize("kind", ["memory", "socket"])
async def test_only_tls_can_be_adopted(kind: str):
    async with pair(kind) as (wire, _):
        with pytest.raises(TypeError, match=r"not on a trio\.SSLStream"):
            await wire.adopt_tls(server_side=True)
        assert not wire.broken
