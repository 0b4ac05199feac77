"""At most n starts in any window of s seconds."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_smtp._pool.ratelimit import RateLimit


@pytest.mark.parametrize(("starts", "seconds"), [(1, 1.0), (3, 0.7), (10, 60.0)])
async def test_no_window_has_more_starts(autojump_clock: MockClock, starts: int, seconds: float) -> None:
    limit = RateLimit(starts, seconds)
    times: list[float] = []
    for number in range(4 * starts):
        await limit.start()
        times.append(trio.current_time())
        if number % 3 == 0:
            await trio.sleep(seconds / 5)
    assert all(later - sooner > seconds for sooner, later in zip(times, times[starts:], strict=False))
    assert times[-1] < 5 * seconds * 4


async def test_the_first_to_ask_is_the_first_to_start(autojump_clock: MockClock) -> None:
    limit = RateLimit(1, 10)
    order: list[int] = []

    async def start(number: int) -> None:
        await limit.start()
        order.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(start, number)
            await wait_all_tasks_blocked()
    assert order == [0, 1, 2, 3]


async def test_a_cancelled_start_is_not_counted(autojump_clock: MockClock) -> None:
    limit = RateLimit(1, 10)
    await limit.start()
    with trio.move_on_after(5) as scope:
        await limit.start()
    assert scope.cancelled_caught
    await limit.start()
    assert trio.current_time() == pytest.approx(10, abs=0.01)
    assert repr(limit) == "<RateLimit 1 in 10 s>"


async def test_a_start_that_is_taken_back_is_not_counted(autojump_clock: MockClock) -> None:
    limit = RateLimit(2, 10)
    await limit.start()
    await trio.sleep(1)
    start = await limit.start()
    limit.take_back(start)
    limit.take_back(start)
    await limit.start()
    assert trio.current_time() == pytest.approx(1)
    await limit.start()
    assert trio.current_time() == pytest.approx(10, abs=0.01)
