# Many moving deadlines, one task: each expires on time, none twice, none after its end.
from __future__ import annotations

import math

import pytest
import trio

from trio_smtp._wire.timekeeper import _SLACK, Timekeeper


@pytest.fixture
async def keeper(nursery):
    keeper = Timekeeper()
    nursery.start_soon(keeper.run)
    await trio.testing.wait_all_tasks_blocked()
    return keeper


async def test_timers_expire_on_time_and_once(keeper, autojump_clock):
    fired = []
    timers = [keeper.timer(lambda n=n: fired.append((n, trio.current_time()))) for n in range(5)]
    for n, timer in enumerate(timers):
        timer.set(10 - n)
    await trio.sleep(20)
    assert fired == [(4, 6), (3, 7), (2, 8), (1, 9), (0, 10)]
    assert all(timer.deadline == math.inf for timer in timers)


async def test_a_deadline_may_move_later_and_earlier_and_away(keeper, autojump_clock):
    fired = []
    timer = keeper.timer(lambda: fired.append(trio.current_time()))
    timer.set(5)
    timer.set(50)
    await trio.sleep(10)
    assert fired == []
    timer.set(20)
    timer.set(15)
    await trio.sleep(10)
    assert fired == [15]
    timer.set(30)
    timer.set(math.inf)
    await trio.sleep(100)
    assert fired == [15]


async def test_a_callback_may_set_its_timer_again(keeper, autojump_clock):
    fired = []

    def again():
        fired.append(trio.current_time())
        if len(fired) < 3:
            timer.set(trio.current_time() + 1)

    timer = keeper.timer(again)
    timer.set(1)
    await trio.sleep(10)
    assert fired == [1, 2, 3]


async def test_a_deadline_in_the_past_expires_now(keeper, autojump_clock):
    fired = []
    await trio.sleep(10)
    keeper.timer(lambda: fired.append(trio.current_time())).set(3)
    await trio.sleep(1)
    assert fired == [10]


async def test_a_closed_timer_never_expires(keeper, autojump_clock):
    fired = []
    timer = keeper.timer(lambda: fired.append(1))
    timer.set(5)
    timer.close()
    timer.close()
    await trio.sleep(10)
    timer.set(11)
    await trio.sleep(10)
    assert fired == []


async def test_closed_timers_do_not_pile_up(keeper, autojump_clock):
    for _ in range(50 * _SLACK):
        timer = keeper.timer(lambda: None)
        timer.set(300)
        timer.close()
    assert len(keeper._heap) <= 3 * _SLACK


async def test_a_deadline_that_keeps_moving_earlier_does_not_pile_up(keeper, autojump_clock):
    timer = keeper.timer(lambda: None)
    for n in range(50 * _SLACK):
        timer.set(100_000 - n)
    assert len(keeper._heap) <= 3 * _SLACK


async def test_a_thousand_timers_in_disorder(keeper, autojump_clock):
    import random

    rng = random.Random(5)
    fired = []
    deadlines = {}
    for n in range(1000):
        timer = keeper.timer(lambda n=n: fired.append((trio.current_time(), n)))
        for _ in range(rng.randrange(1, 4)):
            deadlines[n] = rng.randrange(1, 500)
            timer.set(deadlines[n])
    await trio.sleep(600)
    assert sorted(n for _, n in fired) == list(range(1000))
    assert all(when == deadlines[n] for when, n in fired)


async def test_what_a_timer_calls_may_be_given_later(keeper, autojump_clock):
    fired = []
    timer = keeper.timer()
    timer.bind(lambda: fired.append(trio.current_time()))
    timer.set(3)
    await trio.sleep(5)
    assert fired == [3]
