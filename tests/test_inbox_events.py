# trio_smtp.inbox: events, and listeners that keep up or do not.
from __future__ import annotations

import json

import pytest
import trio
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from trio_smtp.inbox import _events
from trio_smtp.inbox._events import Events, TooManyError


async def take(listener):
    return json.loads(await listener.next())


async def test_all_listeners_hear_what_happens_while_they_listen():
    events = Events()
    events.publish("new", 0)
    with events.listen() as one, events.listen() as two:
        assert "2 listeners" in repr(events)
        events.publish("new", {"ID": "é"})
        with assert_checkpoints():
            assert await take(one) == {"Type": "new", "Data": {"ID": "é"}}
        assert await take(two) == {"Type": "new", "Data": {"ID": "é"}}
    assert "0 listeners" in repr(events)


async def test_a_listener_waits_for_the_next(autojump_clock):
    events, heard = Events(), []
    with events.listen() as listener:
        async with trio.open_nursery() as nursery:

            async def hear():
                for _ in range(2):
                    heard.append(await take(listener))  # noqa: PERF401 - one by one

            nursery.start_soon(hear)
            await wait_all_tasks_blocked()
            events.publish("new", 1)
            await wait_all_tasks_blocked()
            assert [each["Data"] for each in heard] == [1]
            events.publish("new", 2)
        assert [each["Data"] for each in heard] == [1, 2]
        with trio.move_on_after(1) as scope:
            await listener.next()
        assert scope.cancelled_caught


async def test_a_listener_that_does_not_keep_up_is_told_to_load_anew():
    events = Events()
    with events.listen() as listener:
        for number in range(_events.MAX_WAITING + 3):
            events.publish("new", number)
        assert await take(listener) == {"Type": "prune", "Data": None}
        assert [(await take(listener))["Data"] for _ in range(2)] == [_events.MAX_WAITING + 1, _events.MAX_WAITING + 2]


async def test_very_many_changes_at_once_are_one_event():
    events = Events()
    with events.listen() as listener:
        events.publish_each("read", ["a", "b"], Read=True)
        assert await take(listener) == {"Type": "read", "Data": {"ID": "a", "Read": True}}
        assert (await take(listener))["Data"]["ID"] == "b"
        events.publish_each("delete", ["x"] * (_events.MAX_SINGLE + 1))
        assert await take(listener) == {"Type": "prune", "Data": None}


async def test_no_more_listeners_than_the_limit():
    events = Events()
    listeners = [events.listen().__enter__() for _ in range(_events.MAX_LISTENERS)]
    with pytest.raises(TooManyError):
        events.listen()
    listeners[0].__exit__(None, None, None)
    with events.listen():
        pass
