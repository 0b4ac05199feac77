"""Starts in a sliding window: never more than so many in any window of that length."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_smtp._pool.ratelimit import RateLimit


@pytest.mark.parametrize("pause", [0, 0.5, 0.9, 1.5])
async def test_no_window_has_more_starts_than_allowed(pause: float, autojump_clock: MockClock) -> None:
    limit, starts = RateLimit(3, 1.0), []
    for number in range(12):
        if number % 4 == 1:
            await trio.sleep(pause)
        await limit.start()
        starts.append(trio.current_time())
    assert all(later - earlier > 1.0 for earlier, later in zip(starts, starts[3:], strict=False))
    assert starts[2] - starts[0] <= pause + 1e-9  # and those that may start do


async def test_first_come_first_served_and_a_cancelled_wait_counts_for_nothing(autojump_clock: MockClock) -> None:
    limit, order = RateLimit(1, 10.0), []

    async def start(name: str) -> None:
        await limit.start()
        order.append((name, round(trio.current_time() - began)))

    began = trio.current_time()
    await start("first")
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            nursery.start_soon(start, "second")
            await wait_all_tasks_blocked()
            nursery.start_soon(start, "third")
            scope.cancel()
            await limit.start()
    assert scope.cancelled_caught
    assert order == [("first", 0), ("second", 10), ("third", 20)]
