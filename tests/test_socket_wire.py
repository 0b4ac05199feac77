# A plain socket as a wire: reads of a big message, and wake-ups that meet the socket's own.
from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked
from wire_pairs import pair, reset

from trio_smtp import ConnectionLostError, SMTPTimeoutError
from trio_smtp._wire.descriptor import BULK_SIZE, RECEIVE_SIZE
from trio_smtp._wire.socket_wire import SocketWire
from trio_smtp._wire.waits import Interrupted


@pytest.mark.parametrize("kind", ["socket", "timed"])
async def test_bulk_reads(kind: str):
    async with pair(kind) as (wire, far), trio.open_nursery() as nursery:
        content = bytes(range(256)) * 4096
        nursery.start_soon(far.send_all, content)
        await wait_all_tasks_blocked()
        got = bytearray()
        sizes = []
        while len(got) < len(content):
            data = await wire.receive()
            sizes.append(len(data))
            got += data
        assert got == content
        assert sizes[0] <= RECEIVE_SIZE
        assert max(sizes) <= BULK_SIZE


async def test_a_full_read_with_nothing_behind_it():
    async with pair("timed") as (wire, far):
        await far.send_all(b"x" * RECEIVE_SIZE)
        got = 0
        while got < RECEIVE_SIZE:
            got += len(await wire.receive())
        assert isinstance(wire, SocketWire)
        wire._was_full = True  # as after a full read
        async with trio.open_nursery() as nursery:

            async def receive():
                assert await wire.receive() == b"y"

            nursery.start_soon(receive)
            await wait_all_tasks_blocked()
            await far.send_all(b"y")


@pytest.mark.parametrize("kind", ["timed", "server_tls"])
@pytest.mark.parametrize("way", ["expire", "abandon"])
async def test_a_wake_up_that_comes_together_with_room_to_send_is_not_lost(
    kind: str, way: str, monkeypatch: pytest.MonkeyPatch
):
    async with pair(kind) as (wire, far):
        wait = trio.lowlevel.wait_writable

        async def wait_and_be_woken(fd: int) -> None:
            await wait(fd)
            getattr(wire, way)()

        async def read() -> None:
            await trio.testing.wait_all_tasks_blocked()
            await far.receive_some()

        with monkeypatch.context() as patch, trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                patch.setattr(trio.lowlevel, "wait_writable", wait_and_be_woken)
                nursery.start_soon(read)
                with pytest.raises(SMTPTimeoutError if way == "expire" else Interrupted):
                    await wire.send(b"x" * 50_000_000)
        assert wire.broken


async def test_what_is_there_already():
    async with pair("socket") as (wire, far):
        assert wire.receive_nowait() is None
        assert await wire.receive_pending() is None
        await far.send_all(b"there")
        assert wire.receive_nowait() == b"there"
        await far.send_all(b"more")
        assert await wire.receive_pending() == b"more"
        await far.aclose()
        assert wire.receive_nowait() == b""
    async with pair("socket") as (wire, far):
        reset(far)
        with pytest.raises(ConnectionLostError):
            wire.receive_nowait()
        assert wire.broken
        assert wire.receive_nowait() is None


async def test_what_the_socket_takes_without_waiting():
    async with pair("socket") as (wire, far):
        assert wire.send_nowait(b"there") == 5
        assert await far.receive_some() == b"there"
        while wire.send_nowait(b"x" * 1_000_000):
            pass
        assert not wire.broken
        reset(far)
        with pytest.raises(ConnectionLostError):
            wire.send_nowait(b"x")
        assert wire.broken


async def test_a_socket_that_somebody_else_closed_is_lost():
    async with pair("socket") as (wire, _), trio.open_nursery() as nursery:

        async def receive():
            with pytest.raises(ConnectionLostError, match="closed"):
                await wire.receive()

        nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        assert wire._waits.socket is not None
        trio.lowlevel.notify_closing(wire._waits.socket)
    assert wire.broken
