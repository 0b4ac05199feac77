"""What a worker has room for: its places, what it takes ahead, and when it does not."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from trio_smtp.outbox._room import Room


@pytest.fixture
def room():
    return Room(3)


def take(room, *entries):
    return [room.take(entry) for entry in entries]


def be_quick(room):
    room.end("earlier")
    room.answer("earlier", trio.current_time())


async def test_there_are_so_many_places(room):
    assert room.free() == 3
    assert take(room, "a", "b", "c") == [True, True, True]
    assert room.free() == 0
    assert room.next() is None  # one is done with
    assert room.free() == 1


async def test_one_is_taken_ahead_for_each_that_waits_for_its_last_reply(room):
    be_quick(room)
    take(room, "a", "b", "c")
    room.mark("a")
    room.end("b")
    assert room.free() == 2
    assert take(room, "d", "e") == [False, False]
    assert room.free() == 0
    room.end("a")  # it is durable now
    assert room.free() == 0
    room.answer("a", trio.current_time())
    assert room.next() == "d"  # it has the place of the first
    room.answer("b", trio.current_time())
    assert room.next() == "e"
    assert room.next() is None
    assert room.free() == 1


async def test_none_is_taken_ahead_before_a_reply_came_soon(room):
    take(room, "a", "b", "c")
    room.end("a")
    assert room.free() == 0
    room.answer("a", trio.current_time())
    room.end("b")
    assert room.free() == 1  # ahead


async def test_a_late_reply_ends_it(room, autojump_clock):
    be_quick(room)
    take(room, "a", "b", "c")
    room.end("a")
    room.end("b")
    assert room.free() == 2
    await trio.sleep(1)
    room.answer("a", trio.current_time())
    assert room.free() == 0
    room.answer("c", trio.current_time())  # which never came so far: it says nothing of the server
    assert room.free() == 0


async def test_what_is_ahead_can_be_given_back(room):
    be_quick(room)
    take(room, "a", "b", "c")
    for key in "abc":
        room.end(key)
    take(room, "d", "e", "f")
    assert room.first_ahead() == "d"
    assert room.clear_ahead() == ["d", "e", "f"]
    assert room.first_ahead() is None
    assert room.free() == 0  # until a reply comes soon


async def test_what_is_not_written_down_has_a_limit(room):
    for _ in range(3):
        take(room, "a", "b", "c")
        assert [room.next() for _ in range(3)] == [None] * 3
    assert room.free() == 0
    room.release()
    assert room.free() == 1


async def test_waiting_ends_with_each_change(room):
    take(room, "a")
    for change in (lambda: room.mark("a"), room.next, room.release):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(room.wait)
            await trio.testing.wait_all_tasks_blocked()
            change()


async def test_a_slow_reply_does_not_leave_less_than_no_room(room, autojump_clock):
    be_quick(room)
    take(room, "a", "b", "c")
    for each in "abc":
        room.end(each)
    take(room, "d", "e")
    assert room.free() == 1
    await trio.sleep(1)
    room.answer("a", trio.current_time())
    assert room.next() == "d"
    assert room.free() == 0


async def test_one_that_is_over_before_its_end_left_says_nothing_of_the_server(room):
    take(room, "a", "b", "c")
    room.mark("a")
    room.answer("a", trio.current_time())
    room.end("b")
    assert room.free() == 0
