# The stream below SSLStream: it is a stream like any other, and counts records however they are cut.
from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_smtp._wire.descriptor import BULK_SIZE, RECEIVE_SIZE, DescriptorStream


def descriptor_pair() -> tuple[DescriptorStream, trio.SocketStream]:
    ours, theirs = trio.socket.socketpair()
    return DescriptorStream(ours), trio.SocketStream(theirs)


def record(size: int) -> bytes:
    return b"\x17\x03\x03" + size.to_bytes(2, "big") + bytes(size)


async def test_octets_both_ways_and_the_end():
    stream, far = descriptor_pair()
    async with stream, far:
        await far.send_all(b"there")
        assert await stream.receive_some() == b"there"
        await stream.wait_send_all_might_not_block()
        await stream.send_all(b"and back")
        assert await far.receive_some() == b"and back"
        await far.aclose()
        assert await stream.receive_some() == b""


async def test_more_than_the_socket_takes_at_once_and_bulk_reads():
    stream, far = descriptor_pair()
    content = bytes(range(256)) * 20_000
    async with stream, far, trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_all, content)
        got = bytearray()
        while len(got) < len(content):
            got += await far.receive_some()
        assert got == content
        nursery.start_soon(far.send_all, content)
        await wait_all_tasks_blocked()
        got.clear()
        sizes = []
        while len(got) < len(content):
            data = await stream.receive_some()
            sizes.append(len(data))
            got += data
        assert got == content
        assert sizes[0] <= RECEIVE_SIZE
        assert max(sizes) <= BULK_SIZE


async def test_a_peer_that_is_gone_is_a_broken_stream():
    stream, far = descriptor_pair()
    async with stream:
        await far.aclose()
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_all(b"x")


async def test_it_can_be_told_not_to_wait():
    stream, far = descriptor_pair()
    async with stream, far:
        stream.waits = False
        with pytest.raises(trio.WouldBlock):
            await stream.receive_some()
        await far.send_all(b"there")
        assert await stream.receive_some() == b"there"


@pytest.mark.parametrize("max_bytes", [1, 3, 5, 7, 1000])
async def test_it_is_quiet_after_one_record_and_not_after_two(max_bytes: int):
    stream, far = descriptor_pair()
    async with stream, far:
        wire = record(10) + record(0) + record(300)
        await far.send_all(wire)
        assert not stream.is_quiet  # something is in the socket
        ends = [15, 20, 325]  # of the records
        read = 0
        while read < len(wire):
            before = read
            read += len(await stream.receive_some(max_bytes))
            begun = sum(start < read and end > before for start, end in zip([0, *ends], ends, strict=False))
            assert stream.is_quiet == (read == len(wire) and begun <= 1)
