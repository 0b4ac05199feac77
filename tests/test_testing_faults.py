# trio_smtp.testing: streams that fail at an octet.
from __future__ import annotations

import math

import pytest
import trio
from trio.testing import (
    MockClock,
    check_two_way_stream,
    memory_stream_pair,
    open_stream_to_socket_listener,
    wait_all_tasks_blocked,
)

from trio_smtp.testing import Cut, FaultyStream, Split, Stall


def pair(**faults):
    near, far = memory_stream_pair()
    return FaultyStream(near, **faults), far


async def rest_of(stream):
    data = bytearray()
    while chunk := await stream.receive_some():
        data += chunk
    return bytes(data)


async def send_each(stream, pieces):
    for piece in pieces:
        await stream.send_all(piece)


@pytest.mark.parametrize("size", [None, 1000])
async def test_it_is_a_stream_like_any(size):
    faults = {} if size is None else {"send": Split(size), "receive": Split(size)}

    async def make():
        near, far = memory_stream_pair()
        return FaultyStream(near, **faults), FaultyStream(far, **faults)

    await check_two_way_stream(make, None)


async def test_split_pieces():
    near, far = pair(receive=[Split(5), Split(3)])
    await far.send_all(b"abcdefgh")
    assert [await near.receive_some() for _ in range(3)] == [b"abc", b"def", b"gh"]
    await far.send_all(b"ijk")
    assert [await near.receive_some(2), await near.receive_some()] == [b"ij", b"k"]
    with pytest.raises(ValueError, match="at least one octet"):
        Split(0)


@pytest.mark.parametrize(
    ("after", "passes"),
    [(0, b""), (3, b"abc"), (8, b"abcdefgh"), (b"d", b"abcd"), (b"cde", b"abcde"), (b"gh", b"abcdefgh")],
)
@pytest.mark.parametrize("step", [1, 2, 3, 8])
async def test_a_cut_while_sending(after, passes, step):
    near, far = pair(send=Cut(after=after))
    with pytest.raises(trio.BrokenResourceError, match="as the test wanted"):
        await send_each(near, [b"abcdefgh"[at : at + step] for at in range(0, 8, step)])
    assert await rest_of(far) == passes
    with pytest.raises(trio.BrokenResourceError):
        await near.send_all(b"more")
    with pytest.raises(trio.BrokenResourceError):
        await near.wait_send_all_might_not_block()
    assert await near.receive_some() == b""


@pytest.mark.parametrize(
    ("after", "passes"),
    [(0, b""), (3, b"abc"), (8, b"abcdefgh"), (b"d", b"abcd"), (b"cde", b"abcde"), (b"gh", b"abcdefgh")],
)
@pytest.mark.parametrize("step", [1, 2, 3, 8])
@pytest.mark.parametrize("reset", [False, True])
async def test_a_cut_while_receiving(after, passes, step, reset):
    near, far = pair(receive=Cut(after=after, reset=reset))
    got = bytearray()
    for at in range(0, 8, step):
        if len(got) < len(passes):
            await far.send_all(b"abcdefgh"[at : at + step])
            got += await near.receive_some()
    assert got == passes
    if reset:
        with pytest.raises(trio.BrokenResourceError):
            await near.receive_some()
    assert reset or await near.receive_some() == b""
    with pytest.raises(trio.BrokenResourceError):
        await near.send_all(b"more")


async def test_a_pattern_that_begins_more_than_once():
    near, far = pair(send=Cut(after=b"aab"))
    with pytest.raises(trio.BrokenResourceError):
        await send_each(near, [b"a", b"a", b"a", b"bc"])
    assert await rest_of(far) == b"aaab"


async def test_a_cut_wakes_who_waits_in_the_other_direction():
    near, _ = pair(send=Cut())
    async with trio.open_nursery() as nursery:

        async def receive() -> None:
            assert await near.receive_some() == b""

        nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BrokenResourceError):
            await near.send_all(b"x")


async def test_a_stall_that_passes(autojump_clock: MockClock):
    near, far = pair(
        send=Stall(after=2, seconds=30), receive=[Stall(after=1, seconds=40), Stall(after=b"y", seconds=5)]
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(near.send_all, b"abcd")
        await wait_all_tasks_blocked()
        assert await far.receive_some() == b"ab"
    assert trio.current_time() == pytest.approx(30)
    assert await far.receive_some() == b"cd"
    await far.send_all(b"xyz")
    assert [await near.receive_some() for _ in range(3)] == [b"x", b"y", b"z"]
    assert trio.current_time() == pytest.approx(75)


async def test_a_stall_for_ever_can_be_cancelled(autojump_clock: MockClock):
    near, far = pair(send=Stall(after=2), receive=Stall())
    assert Stall().seconds == math.inf
    await far.send_all(b"x")
    for call in (lambda: near.send_all(b"abcd"), near.receive_some):
        with trio.move_on_after(1000) as scope:
            await call()
        assert scope.cancelled_caught
    assert await far.receive_some() == b"ab"


async def test_closing_ends_a_stall():
    near, _ = pair(receive=Stall())
    async with trio.open_nursery() as nursery:

        async def receive() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await near.receive_some()

        nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        await near.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await near.send_all(b"x")


async def test_a_stall_and_then_a_cut_in_one_write(autojump_clock: MockClock):
    near, far = pair(send=[Cut(after=b"cd"), Stall(after=2, seconds=10)])
    with pytest.raises(trio.BrokenResourceError):
        await near.send_all(b"abcdef")
    assert trio.current_time() == pytest.approx(10)
    assert await rest_of(far) == b"abcd"


async def test_a_reset_over_tcp():
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        near = FaultyStream(await open_stream_to_socket_listener(listener), send=Cut(after=1, reset=True))
        far = await listener.accept()
        with pytest.raises(trio.BrokenResourceError):
            await near.send_all(b"ab")
        with pytest.raises(trio.BrokenResourceError):
            await rest_of(far)
        await far.aclose()
