# Transport: ends, resets, time limits, a broken send, and closing so that the last words arrive.
from __future__ import annotations

import contextlib
import socket
import ssl
import struct
from typing import Any

import pytest
import trio
from tls_support import NAME, client_context, server_context
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from trio_smtp import ConnectionLostError, SMTPTimeoutError, TLSError
from trio_smtp._wire import tls as _tls
from trio_smtp._wire.descriptor import BULK_SIZE, RECEIVE_SIZE
from trio_smtp._wire.timekeeper import Timekeeper
from trio_smtp._wire.tls import watch_server_name
from trio_smtp._wire.transport import Interrupted, Transport


@contextlib.asynccontextmanager
async def pair(kind: str, version: str = "TLSv1_3"):
    """A transport and the stream at its other end: ``memory``, ``socket``, ``timed``, ``tls`` or ``sealed``.

    ``timed`` and ``sealed`` have a timer, without which TLS is trio.SSLStream's.
    """
    keeper = Timekeeper()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper.run)
        far: Any
        if kind == "memory":
            near, far = memory_stream_pair()
            transport = Transport(near)
        else:
            listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
            far = await trio.testing.open_stream_to_socket_listener(listener)
            timer = keeper.timer(lambda: transport.expire()) if kind in ("timed", "sealed") else None
            transport = Transport(await listener.accept(), timer)
            await listener.aclose()
        if kind in ("tls", "sealed"):
            context = client_context()
            context.minimum_version = context.maximum_version = getattr(ssl.TLSVersion, version)
            far = trio.SSLStream(far, context, server_hostname=NAME)
            async with trio.open_nursery() as handshakes:
                handshakes.start_soon(far.do_handshake)
                await transport.start_tls(server_context(), server_side=True)
        yield transport, far
        await transport.aclose()
        await trio.aclose_forcefully(far)
        nursery.cancel_scope.cancel()


def reset(stream) -> None:
    below = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
    below.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    below.socket.close()


KINDS = ["memory", "socket", "timed", "tls", "sealed"]
SOCKETS = KINDS[1:]
SECURED = ["tls", "sealed"]


@pytest.mark.parametrize("kind", KINDS)
async def test_octets_both_ways_and_the_end(kind: str):
    async with pair(kind) as (transport, far):
        await far.send_all(b"there")
        assert await transport.receive() == b"there"
        await transport.send(b"and back")
        assert await far.receive_some() == b"and back"
        await far.aclose()
        assert await transport.receive() == b""
        assert not transport.broken


@pytest.mark.parametrize("kind", SOCKETS)
async def test_a_reset_is_a_lost_connection(kind: str):
    async with pair(kind) as (transport, far):
        reset(far)
        with pytest.raises(ConnectionLostError) as caught:
            await transport.receive()
        assert isinstance(caught.value.__cause__, OSError | trio.BrokenResourceError)
        assert transport.broken
        with pytest.raises(ConnectionLostError):
            await transport.send(b"x")


@pytest.mark.parametrize("kind", SECURED)
async def test_tls_that_ends_without_close_notify_is_the_end(kind: str):
    async with pair(kind) as (transport, far):
        await far.send_all(b"last")
        await far.transport_stream.aclose()
        assert await transport.receive() == b"last"
        assert await transport.receive() == b""
        assert not transport.broken


@pytest.mark.parametrize("kind", KINDS)
async def test_a_wait_ends_at_its_deadline_and_the_connection_is_intact(kind: str, autojump_clock):
    async with pair(kind) as (transport, far):
        with pytest.raises(SMTPTimeoutError):
            await transport.receive(trio.current_time() + 5)
        assert trio.current_time() == 5
        assert not transport.broken
        await far.send_all(b"late")
        assert await transport.receive(trio.current_time() + 5) == b"late"


@pytest.mark.parametrize("kind", KINDS)
async def test_interrupt_ends_this_wait_or_the_next(kind: str):
    async with pair(kind) as (transport, far):
        transport.interrupt()
        with pytest.raises(Interrupted):
            await transport.receive()
        async with trio.open_nursery() as nursery:

            async def receive():
                with pytest.raises(Interrupted):
                    await transport.receive()

            nursery.start_soon(receive)
            await wait_all_tasks_blocked()
            assert transport.is_receiving
            transport.interrupt()
        transport.interrupt()
        transport.forget_interruption()
        await far.send_all(b"x")
        assert await transport.receive() == b"x"
        assert not transport.broken


@pytest.mark.parametrize("kind", SOCKETS)
@pytest.mark.parametrize("end", ["cancelled", "timeout", "abandoned", "reset"])
async def test_a_send_that_did_not_end_breaks_the_connection(kind: str, end: str, autojump_clock):
    async with pair(kind) as (transport, far):

        async def send() -> None:
            await transport.send(b"x" * 20_000_000, trio.current_time() + 5)

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
                    transport.abandon()
                else:
                    reset(far)
        assert transport.broken
        assert transport.send_nowait(b"x") == 0
        with pytest.raises(ConnectionLostError):
            await transport.send(b"x")


@pytest.mark.parametrize("kind", ["socket", "timed"])
async def test_bulk_reads(kind: str):
    async with pair(kind) as (transport, far), trio.open_nursery() as nursery:
        content = bytes(range(256)) * 4096
        nursery.start_soon(far.send_all, content)
        await wait_all_tasks_blocked()
        got = bytearray()
        sizes = []
        while len(got) < len(content):
            data = await transport.receive()
            sizes.append(len(data))
            got += data
        assert got == content
        assert sizes[0] <= RECEIVE_SIZE
        assert max(sizes) <= BULK_SIZE


async def test_a_full_read_with_nothing_behind_it():
    async with pair("timed") as (transport, far):
        await far.send_all(b"x" * RECEIVE_SIZE)
        got = 0
        while got < RECEIVE_SIZE:
            got += len(await transport.receive())
        transport.direct.more = True  # as after a full read
        async with trio.open_nursery() as nursery:

            async def receive():
                assert await transport.receive() == b"y"

            nursery.start_soon(receive)
            await wait_all_tasks_blocked()
            await far.send_all(b"y")


@pytest.mark.parametrize("kind", SOCKETS)
async def test_addresses(kind: str):
    async with pair(kind) as (transport, far):
        below = far.transport_stream if kind in SECURED else far
        assert transport.peer == below.socket.getsockname()
        assert transport.local == below.socket.getpeername()
        reset(far)


async def test_no_addresses():
    async with pair("memory") as (transport, _):
        assert transport.peer is transport.local is None


@pytest.mark.parametrize("how", ["garbage", "end", "timeout"])
async def test_a_handshake_that_fails_breaks_the_connection(how: str, autojump_clock):
    async with pair("timed") as (transport, far):
        error: type[Exception] = TLSError
        if how == "garbage":
            await far.send_all(b"EHLO x\r\n")
        elif how == "end":
            await far.aclose()
        else:
            error = SMTPTimeoutError
        with pytest.raises(error):
            await transport.start_tls(server_context(), server_side=True, deadline=trio.current_time() + 5)
        assert transport.broken
        assert transport.tls is None
        await transport.aclose_lingering()


# ---- a seal: TLS without a stream


async def ciphertext(far: trio.SSLStream, data: bytes | None) -> bytes:
    """What `far` would send, caught on its way; ``None`` is its close_notify."""
    caught = bytearray()
    below = far.transport_stream

    class Catcher(trio.abc.SendStream):
        async def send_all(self, data: bytes) -> None:  # type: ignore[override]
            caught.extend(data)

        async def wait_send_all_might_not_block(self) -> None: ...

        async def aclose(self) -> None: ...

    far.transport_stream = Catcher()
    await (far.aclose() if data is None else far.send_all(data))
    far.transport_stream = below
    return bytes(caught)


async def test_a_record_that_comes_octet_by_octet():
    async with pair("sealed") as (transport, far), trio.open_nursery() as nursery:
        wire = await ciphertext(far, b"whole")

        async def receive():
            assert await transport.receive() == b"whole"

        nursery.start_soon(receive)
        for octet in wire:
            await wait_all_tasks_blocked()
            assert transport.is_receiving
            await far.transport_stream.send_all(bytes([octet]))


async def test_records_that_are_there_together_are_one_chunk():
    async with pair("sealed") as (transport, far):
        await far.send_all(b"x" * 50_000)
        await wait_all_tasks_blocked()
        assert await transport.receive() == b"x" * 50_000


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
async def test_a_good_bye_is_the_end_whatever_follows_it(version: str):
    async with pair("sealed", version) as (transport, far), far.transport_stream as wire:
        await wire.send_all(await ciphertext(far, b"last") + await ciphertext(far, None))
        with trio.fail_after(5):
            assert await transport.receive() == b"last"
            assert await transport.receive() == b""
        assert not transport.broken
    async with pair("sealed", version) as (transport, far), far.transport_stream as wire:
        await wire.send_all(await ciphertext(far, None) + b"more")
        assert await transport.receive() == b""
        await transport.send(b"and good-bye")
        assert not transport.broken


async def test_what_came_with_the_end_of_the_handshake_is_not_waited_for():
    async with pair("timed") as (transport, far):
        below = far
        far = trio.SSLStream(far, client_context(), server_hostname=NAME)
        held = bytearray()

        class Corked(trio.abc.Stream):
            """Keeps the end of the handshake back, until there is something behind it."""

            def __init__(self) -> None:
                self.sends = 0

            async def send_all(self, data: bytes) -> None:  # type: ignore[override]
                self.sends += 1
                held.extend(data)
                if self.sends != 2:
                    await below.send_all(bytes(held))
                    held.clear()

            async def wait_send_all_might_not_block(self) -> None: ...

            async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
                return await below.receive_some(max_bytes)

            async def aclose(self) -> None: ...

        far.transport_stream = Corked()

        async def speak() -> None:
            await far.do_handshake()
            await far.send_all(b"EHLO client.test\r\n")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(speak)
            await transport.start_tls(server_context(), server_side=True)
        assert far.transport_stream.sends == 3
        assert await transport.receive() == b"EHLO client.test\r\n"


@pytest.mark.parametrize("way", ["expire", "interrupt"])
async def test_a_wake_up_that_comes_together_with_half_a_record_is_not_lost(way: str, monkeypatch: pytest.MonkeyPatch):
    async with pair("sealed") as (transport, far):
        wire = await ciphertext(far, b"whole")
        wait = trio.lowlevel.wait_readable

        async def wait_and_be_woken(fd: int) -> None:
            await wait(fd)
            getattr(transport, way)()  # the task is on its way already: nobody waits for the socket

        with monkeypatch.context() as patch, trio.fail_after(5):
            patch.setattr(trio.lowlevel, "wait_readable", wait_and_be_woken)
            await far.transport_stream.send_all(wire[:9])
            with pytest.raises(SMTPTimeoutError if way == "expire" else Interrupted):
                await transport.receive()
        await far.transport_stream.send_all(wire[9:])
        assert await transport.receive() == b"whole"


@pytest.mark.parametrize("kind", ["timed", "sealed"])
@pytest.mark.parametrize("way", ["expire", "abandon"])
async def test_a_wake_up_that_comes_together_with_room_to_send_is_not_lost(
    kind: str, way: str, monkeypatch: pytest.MonkeyPatch
):
    async with pair(kind) as (transport, far):
        wait = trio.lowlevel.wait_writable

        async def wait_and_be_woken(fd: int) -> None:
            await wait(fd)
            getattr(transport, way)()

        async def read() -> None:
            await trio.testing.wait_all_tasks_blocked()
            await far.receive_some()

        with monkeypatch.context() as patch, trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                patch.setattr(trio.lowlevel, "wait_writable", wait_and_be_woken)
                nursery.start_soon(read)
                with pytest.raises(SMTPTimeoutError if way == "expire" else Interrupted):
                    await transport.send(b"x" * 50_000_000)
        assert transport.broken


async def test_a_damaged_record_loses_the_connection():
    async with pair("sealed") as (transport, far):
        wire = bytearray(await ciphertext(far, b"whole"))
        wire[-1] ^= 1
        await far.transport_stream.send_all(wire)
        with pytest.raises(ConnectionLostError):
            await transport.receive()
        assert transport.broken
        with pytest.raises(trio.BrokenResourceError) as caught:
            await far.receive_some()
        assert "BAD_RECORD_MAC" in str(caught.value.__cause__)  # it was told


async def test_the_peer_is_told_why_the_handshake_failed():
    async with pair("timed") as (transport, far):
        context = client_context()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        ours = server_context()
        ours.minimum_version = ssl.TLSVersion.TLSv1_3
        far = trio.SSLStream(far, context, server_hostname=NAME)

        async def speak() -> None:
            with pytest.raises(trio.BrokenResourceError) as caught:
                await far.do_handshake()
            assert "ALERT_PROTOCOL_VERSION" in str(caught.value.__cause__)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(speak)
            with pytest.raises(TLSError, match="UNSUPPORTED_PROTOCOL"):
                await transport.start_tls(ours, server_side=True)


async def test_what_tls_says_of_itself_is_bounded(monkeypatch: pytest.MonkeyPatch):
    async with pair("sealed") as (transport, far):
        monkeypatch.setattr(_tls, "_HELD_LIMIT", 0)  # the session tickets wait for our first words
        await far.send_all(b"x")
        with pytest.raises(ConnectionLostError):
            await transport.receive()


async def test_tickets_beyond_what_may_wait_are_sent_at_once():
    async with pair("timed") as (transport, far):
        far = trio.SSLStream(far, client_context(), server_hostname=NAME)
        ours = server_context()
        ours.num_tickets = 100  # a few are as long where the client has a certificate with a long signature

        async def speak() -> None:
            await far.do_handshake()
            await far.send_all(b"hello")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(speak)
            await transport.start_tls(ours, server_side=True)
            assert await transport.receive() == b"hello"


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
async def test_sessions_of_either_version_and_the_name_that_was_asked_for(version: str):
    async with pair("timed") as (transport, far):
        context = client_context()
        context.minimum_version = context.maximum_version = getattr(ssl.TLSVersion, version)
        ours = server_context()
        watch_server_name(ours)
        far = trio.SSLStream(far, context, server_hostname=NAME)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(far.do_handshake)
            tls = await transport.start_tls(ours, server_side=True)
        assert tls.version.replace(".", "_") == version
        assert tls.server_name == NAME
        for size in (1, 16384, 16385, 300_000):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(transport.send, b"s" * size)
                got = 0
                while got < size:
                    got += len(await far.receive_some())
                assert got == size
                nursery.start_soon(far.send_all, b"r" * size)
                got = 0
                while got < size:
                    got += len(await transport.receive())
                assert got == size


# ---- closing


@pytest.mark.parametrize("kind", KINDS)
async def test_closing_twice_and_after_a_loss(kind: str):
    async with pair(kind) as (transport, far):
        await trio.aclose_forcefully(far)
        await transport.aclose_lingering()
        await transport.aclose()
        assert transport.broken
        with pytest.raises(ConnectionLostError):
            await transport.send(b"x")


@pytest.mark.parametrize("kind", SOCKETS)
async def test_the_last_words_arrive_whatever_the_peer_was_saying(kind: str):
    async with pair(kind) as (transport, far), trio.open_nursery() as nursery:
        await far.send_all(b"x" * 10000)  # never read
        await transport.send(b"last words")
        nursery.start_soon(transport.aclose_lingering)
        await wait_all_tasks_blocked()
        await far.send_all(b"x" * 10000)  # to a closed socket this would be answered with RST
        await wait_all_tasks_blocked()
        assert await far.receive_some() == b"last words"
        assert await far.receive_some() == b""  # over TLS: close_notify
        await far.aclose()


@pytest.mark.parametrize("kind", SOCKETS)
async def test_lingering_is_bounded_in_time_and_shielded(kind: str, autojump_clock):
    async with pair(kind) as (transport, _):
        with trio.CancelScope() as scope:
            scope.cancel()
            await transport.aclose_lingering(within=3)
        assert trio.current_time() == 3


@pytest.mark.parametrize("kind", SOCKETS)
async def test_lingering_is_bounded_in_octets(kind: str):
    async with pair(kind) as (transport, far), trio.open_nursery() as nursery:
        nursery.start_soon(lambda: transport.aclose_lingering(within=60, drop=100_000))
        with contextlib.suppress(trio.BrokenResourceError):
            while True:
                await far.send_all(b"x" * 65536)
        while not transport.broken:
            await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("kind", SOCKETS)
async def test_lingering_ends_when_it_is_interrupted(kind: str):
    async with pair(kind) as (transport, _), trio.open_nursery() as nursery:
        nursery.start_soon(lambda: transport.aclose_lingering(within=60))
        while not transport.is_receiving:
            await trio.lowlevel.checkpoint()
        transport.interrupt()
