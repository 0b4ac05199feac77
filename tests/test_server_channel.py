# The octets and the time of a connection by themselves: no hook, no loop.
from __future__ import annotations

import math
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from tls_support import client_context, server_context
from trio.testing import lockstep_stream_pair, memory_stream_pair, wait_all_tasks_blocked

from trio_smtp import ConnectionLostError, Reply, ServerConfig, SMTPTimeoutError
from trio_smtp._protocol.server.events import NEED_DATA
from trio_smtp._protocol.server.profile import ServerProfile
from trio_smtp._protocol.server.protocol import ServerProtocol
from trio_smtp._protocol.server.states import Ending
from trio_smtp._server.channel import MAX_DELAY, TURN, Channel, Handshake
from trio_smtp._server.shutdown import Shutdown
from trio_smtp._server.stress import Stress
from trio_smtp._wire.timekeeper import Timekeeper
from trio_smtp._wire.waits import Interrupted

BYE = Reply(421, "bye", "4.3.2", close=True)


@asynccontextmanager
async def channel_pair(pair=memory_stream_pair, *, awaits_tls=False, **options):
    """A channel, and the client's stream."""
    config = ServerConfig(hostname="mx.test", **options)
    near, far = pair()
    keeper = Timekeeper()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper.run)
        channel: Any = None
        timer = keeper.timer(lambda: channel.expire())
        stress = Stress(config.max_connections, config.command_timeout or math.inf)
        protocol = ServerProtocol(ServerProfile(config))
        channel = Channel(config, protocol, far, timer, awaits_tls=awaits_tls, stress=stress)
        yield channel, near
        await channel.aclose(cancelled=True)
        nursery.cancel_scope.cancel()


async def socket_pair():
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        near = await trio.open_tcp_stream(*listener.socket.getsockname())
        return near, await listener.accept()


# ---- octets


async def test_flush_sends_all_replies_together():
    async with channel_pair() as (channel, near):
        assert not await channel.flush()
        channel.protocol.greet()
        await channel.flush()
        assert (await near.receive_some()).startswith(b"220 mx.test")
        assert not channel.protocol.replies


async def test_flush_that_is_cancelled_at_once_keeps_the_replies():
    async with channel_pair() as (channel, _):
        channel.protocol.greet()
        with trio.CancelScope() as scope:
            scope.cancel()
            await channel.flush()
        assert scope.cancelled_caught
        assert channel.protocol.replies
        assert not channel.wire.broken


async def test_flush_to_a_peer_that_does_not_read_ends_in_time(autojump_clock):
    async with channel_pair(lockstep_stream_pair, command_timeout=7) as (channel, _):
        channel.protocol.greet()
        with pytest.raises(SMTPTimeoutError):
            await channel.flush()
        assert trio.current_time() == 7


async def test_flush_quietly_loses_a_peer_that_is_gone():
    async with channel_pair() as (channel, near):
        await near.aclose()
        channel.protocol.greet()
        await channel.flush_quietly()
        assert channel.protocol.ending is Ending.PEER_GONE


async def test_a_socket_that_takes_all_costs_no_time_until_others_have_their_turn():
    near, far = await socket_pair()
    async with channel_pair(lambda: (near, far), max_junk_commands=None) as (channel, _):
        turns = 0
        channel.protocol.greet()
        await channel.flush()
        for _ in range(3 * TURN // len(b"250 2.0.0 OK\r\n")):
            channel.protocol.receive_data(b"NOOP\r\n")
            channel.protocol.next_event()
            turns += await channel.flush()
        assert turns == 2
        await near.aclose()


# ---- waiting for the peer


async def test_receive_until_the_deadline(autojump_clock):
    async with channel_pair() as (channel, near):
        with pytest.raises(SMTPTimeoutError):
            await channel.receive(5, 0)
        assert trio.current_time() == 5
        await near.send_all(b"NOOP\r\n")
        assert await channel.receive(math.inf, 5) == b"NOOP\r\n"


async def test_receive_until_the_sessions_end(autojump_clock):
    async with channel_pair() as (channel, _):
        channel.limit_session(3)
        with pytest.raises(SMTPTimeoutError):
            await channel.receive(math.inf, 0)
        assert trio.current_time() == 3


async def test_time_that_is_over_is_not_won_back_by_octets_that_are_there():
    async with channel_pair() as (channel, near):
        await near.send_all(b"NOOP\r\n")
        with pytest.raises(SMTPTimeoutError, match="too long"):
            await channel.receive(5, 5)


@pytest.mark.parametrize(("level", "waits"), [(Shutdown.DRAIN, True), (Shutdown.END, False), (Shutdown.CUT_OFF, False)])
@pytest.mark.parametrize("waits_for", ["octets", "a command"])
async def test_no_wait_begins_once_a_shutdown_ends_it(level, waits, waits_for):
    async with channel_pair() as (channel, near):

        async def receive():
            return await (channel.receive_command() if waits_for == "a command" else channel.receive(math.inf, 0))

        await near.send_all(b"NOOP\r\n")
        channel.begin_shutdown(level)
        if waits:
            assert await receive() == b"NOOP\r\n"
        else:
            with pytest.raises(Interrupted):
                await receive()


async def test_a_shutdown_only_goes_up():
    async with channel_pair() as (channel, _):
        channel.begin_shutdown(Shutdown.END)
        channel.begin_shutdown(Shutdown.DRAIN)
        assert channel.shutdown is Shutdown.END
        assert repr(channel).endswith("END>")


# ---- waiting for a command


@pytest.mark.parametrize("pair", ["memory", "socket"])
async def test_replies_are_sent_before_a_command_is_waited_for(pair):
    near, far = memory_stream_pair() if pair == "memory" else await socket_pair()
    async with channel_pair(lambda: (near, far)) as (channel, _):
        channel.protocol.greet()
        await near.send_all(b"NOOP\r\n")
        assert await channel.receive_command() == b"NOOP\r\n"
        assert (await near.receive_some()).startswith(b"220")
        await near.aclose()


async def test_replies_that_the_socket_does_not_take_at_once(monkeypatch):
    near, far = await socket_pair()
    async with channel_pair(lambda: (near, far)) as (channel, _):
        send_nowait = type(channel.wire).send_nowait

        def send_little(wire, data):
            monkeypatch.undo()
            return send_nowait(wire, data[:3])

        monkeypatch.setattr(type(channel.wire), "send_nowait", send_little)
        channel.protocol.greet()
        await near.send_all(b"NOOP\r\n")
        assert await channel.receive_command() == b"NOOP\r\n"
        assert (await near.receive_some()).startswith(b"220 mx.test")
        await near.aclose()


async def take_events(channel):
    """Answer what is there, to the last whole line."""
    while channel.protocol.next_event() is not NEED_DATA:
        await channel.flush()


async def test_a_command_has_its_time_however_it_is_cut(autojump_clock):
    async with channel_pair(command_timeout=10) as (channel, near):
        channel.protocol.greet()
        for letter in b"NOO":
            await near.send_all(bytes([letter]))
            channel.protocol.receive_data(await channel.receive_command())
            await take_events(channel)
            await trio.sleep(3)
        with pytest.raises(SMTPTimeoutError):
            await channel.receive_command()
        assert trio.current_time() == 10


async def test_what_was_answered_leaves_the_next_command_all_its_time(autojump_clock):
    async with channel_pair(command_timeout=10) as (channel, near):
        channel.protocol.greet()
        for _ in range(3):
            await near.send_all(b"NOOP\r\nNO")  # with the beginning of the next
            channel.protocol.receive_data(await channel.receive_command())
            await take_events(channel)
            await trio.sleep(9)
            channel.protocol.receive_data(b"OP\r\n")
            await take_events(channel)
        with pytest.raises(SMTPTimeoutError):
            await channel.receive_command()
        assert trio.current_time() == 27 + 10


async def test_a_lost_connection():
    near, far = await socket_pair()
    async with channel_pair(lambda: (near, far)) as (channel, _):
        await trio.aclose_forcefully(far)
        with pytest.raises(ConnectionLostError):
            await channel.receive(math.inf, 0)
        await near.aclose()


async def test_stopped_clocks_expire_nothing_and_forget_an_interruption(autojump_clock):
    async with channel_pair() as (channel, near):
        channel.limit_session(3)
        channel.wire.interrupt()
        channel.stop_clocks()
        await near.send_all(b"x")
        assert await channel.receive(math.inf, 100) == b"x"


# ---- delays


@pytest.mark.parametrize(("penalty", "delay"), [(1, 2), (3, 6), (100, MAX_DELAY)])
async def test_hold_back(penalty, delay, autojump_clock):
    async with channel_pair(error_delay=2) as (channel, _):
        channel.protocol.offences.penalize(penalty)
        await channel.hold_back()
        assert trio.current_time() == delay
        assert not channel.is_held_back


async def test_the_sessions_end_ends_a_delay(autojump_clock):
    async with channel_pair(error_delay=2) as (channel, _):
        channel.limit_session(1)
        channel.protocol.offences.penalize(1)
        with pytest.raises(SMTPTimeoutError, match="session"):
            await channel.hold_back()
        assert trio.current_time() == 1


@pytest.mark.parametrize("when", ["before", "meanwhile"])
async def test_a_shutdown_ends_a_delay(when, autojump_clock):
    async with channel_pair(error_delay=2) as (channel, _), trio.open_nursery() as nursery:
        channel.protocol.offences.penalize(1)
        if when == "before":
            channel.begin_shutdown(Shutdown.DRAIN)
        nursery.start_soon(channel.hold_back)
        await wait_all_tasks_blocked()
        assert channel.is_held_back == (when == "meanwhile")
        channel.begin_shutdown(Shutdown.DRAIN)
        await wait_all_tasks_blocked()
        assert not channel.is_held_back
        assert trio.current_time() == 0


async def test_a_delay_that_is_cancelled_is_over():
    async with channel_pair() as (channel, _):
        channel.protocol.offences.penalize(1)
        with trio.CancelScope() as scope:
            scope.cancel()
            await channel.hold_back()
        assert not channel.is_held_back


async def test_replies_are_held_from_the_first_hook_on():
    async with channel_pair() as (channel, _):
        assert channel.held_since == math.inf
        channel.hold_from(3)
        channel.hold_from(4)
        assert channel.held_since == 3
        await channel.flush()
        assert channel.held_since == math.inf


# ---- TLS, and the last word


async def test_the_wire_after_start_tls():
    async with channel_pair() as (channel, near), trio.open_nursery() as nursery:
        tls = trio.SSLStream(near, client_context(), server_hostname="mx.test")
        nursery.start_soon(tls.do_handshake)
        channel.expect_tls()
        info = await channel.start_tls(server_context())
        assert info.version == "TLSv1.3"
        assert channel.handshake is Handshake.NOT_DUE
        channel.protocol.greet()
        nursery.start_soon(channel.flush)
        assert (await tls.receive_some()).startswith(b"220")


async def test_no_handshake_begins_during_a_shutdown():
    async with channel_pair(awaits_tls=True) as (channel, _):
        channel.begin_shutdown(Shutdown.DRAIN)
        with pytest.raises(Interrupted):
            await channel.start_tls(server_context())
        assert channel.handshake is Handshake.DUE


async def test_a_handshake_has_its_time(autojump_clock):
    async with channel_pair(tls_handshake_timeout=4) as (channel, _):
        with pytest.raises(SMTPTimeoutError):
            await channel.start_tls(server_context())
        assert trio.current_time() == 4


@pytest.mark.parametrize("awaits_tls", [False, True])
async def test_the_last_word_is_said_once_and_never_in_clear_before_tls(awaits_tls):
    async with channel_pair(awaits_tls=awaits_tls) as (channel, _):
        channel.say_last_word(BYE)
        channel.say_last_word(BYE)
        assert channel.protocol.is_closed
        assert b"".join(channel.protocol.replies) == (b"" if awaits_tls else b"421 4.3.2 bye\r\n")
