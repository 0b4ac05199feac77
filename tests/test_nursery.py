"""The nursery whose body's exception comes out bare."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio

from trio_smtp._nursery import Leave, open_bare_nursery


def cancel(nursery: trio.Nursery, error: BaseException | None) -> None:
    nursery.cancel_scope.cancel()


def leave_alone(nursery: trio.Nursery, error: BaseException | None) -> None:
    pass


async def fail() -> None:
    raise ZeroDivisionError


async def test_the_end_of_the_block_calls_leave_and_waits_for_the_tasks() -> None:
    told: list[BaseException | None] = []
    done = trio.Event()

    async def task() -> None:
        await release.wait()
        done.set()

    def leave(nursery: trio.Nursery, error: BaseException | None) -> None:
        told.append(error)
        release.set()

    release = trio.Event()
    async with open_bare_nursery(leave) as nursery:
        nursery.start_soon(task)
    assert told == [None]
    assert done.is_set()


async def run(leave: Leave, *tasks: Callable[[], Awaitable[None]], error: Exception | None = None) -> None:
    async with open_bare_nursery(leave) as nursery:
        for task in tasks:
            nursery.start_soon(task)
        if error is not None:
            raise error
        await trio.sleep_forever()


async def test_an_exception_of_the_body_is_bare() -> None:
    error = ValueError("body")
    with pytest.raises(ValueError, match="body") as caught:
        await run(cancel, trio.sleep_forever, error=error)
    assert caught.value is error


@pytest.mark.parametrize("error", [None, ValueError("body")])
async def test_an_exception_of_a_task_is_in_a_group_and_goes_before_the_body_s(error: Exception | None) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        await run(leave_alone, fail, error=error)
    assert [type(each) for each in caught.value.exceptions] == [ZeroDivisionError]


async def test_cancellation_from_outside_is_cancellation() -> None:
    with trio.CancelScope() as scope:
        async with open_bare_nursery(cancel) as nursery:
            nursery.start_soon(trio.sleep_forever)
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
