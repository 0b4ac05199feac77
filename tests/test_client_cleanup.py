"""What is still done when a wait ends by an exception."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from trio_smtp._client.cleanup import ShieldedCleanup


@pytest.mark.parametrize("succeeds", [True, False])
async def test_a_cleanup_that_succeeds_swallows_the_exception(succeeds: bool) -> None:
    async def cleanup() -> bool:
        await trio.lowlevel.checkpoint()
        return succeeds

    with trio.CancelScope() as scope:
        scope.cancel()
        swallowed = False
        async with ShieldedCleanup(1, cleanup, trio.Cancelled):
            await trio.sleep_forever()
        swallowed = True
    assert swallowed is succeeds


async def test_it_is_bounded(autojump_clock: MockClock) -> None:
    async def cleanup() -> bool:
        await trio.sleep_forever()
        return True

    started = trio.current_time()
    with pytest.raises(ValueError, match="failed"):
        async with ShieldedCleanup(3, cleanup, ValueError, KeyError):
            raise ValueError("failed")
    assert trio.current_time() - started == pytest.approx(3)


async def test_other_ends_start_nothing() -> None:
    async def cleanup() -> bool:
        raise AssertionError

    async with ShieldedCleanup(1, cleanup, ValueError):
        pass
    with pytest.raises(KeyError):
        async with ShieldedCleanup(1, cleanup, ValueError):
            raise KeyError
