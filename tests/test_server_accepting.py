"""Accepting connections: what a listener may raise, and who is told that it works."""

from __future__ import annotations

import errno
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_smtp._server.accepting import accept_all


class Listener(trio.abc.Listener[Any]):
    """Raises or returns one thing after the other, and then waits."""

    def __init__(self, *steps: Any) -> None:
        self.steps = list(steps)
        self.closed = False

    async def accept(self) -> Any:
        await trio.lowlevel.checkpoint()
        if not self.steps:
            await trio.sleep_forever()
        step = self.steps.pop(0)
        if isinstance(step, Exception):
            raise step
        return step

    async def aclose(self) -> None:
        self.closed = True
        await trio.lowlevel.checkpoint()


async def accept(listener: Listener) -> list[tuple[object, float]]:
    """What is accepted and when, until there is no more."""
    accepted: list[tuple[object, float]] = []
    ready: list[bool] = []

    async def serve(stream: object) -> None:
        await trio.lowlevel.checkpoint()
        accepted.append((stream, round(trio.current_time() - began, 3)))

    began = trio.current_time()
    async with trio.open_nursery() as connections, trio.open_nursery() as nursery:
        nursery.start_soon(accept_all, [listener], serve, connections, lambda: ready.append(True))
        while listener.steps:
            await trio.sleep(0.01)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert ready == [True]
    assert listener.closed
    return accepted


async def test_each_connection_has_a_task(autojump_clock: MockClock) -> None:
    accepted = await accept(Listener("one", "two"))
    assert [stream for stream, _ in accepted] == ["one", "two"]


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS])
async def test_where_the_host_is_short_of_something_it_tries_again(
    code: int, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    accepted = await accept(Listener(OSError(code, "short"), OSError(code, "short"), "one"))
    assert accepted == [("one", 0.2)]
    assert caplog.text.count("accept failed") == 1  # a minute


@pytest.mark.parametrize("error", [OSError(errno.EBADF, "bad"), ValueError("bad")])
async def test_any_other_error_comes_out(error: Exception) -> None:
    listener = Listener(error)
    with pytest.RaisesGroup(type(error), flatten_subgroups=True):
        async with trio.open_nursery() as connections:
            await accept_all([listener], trio.sleep, connections, lambda: None)  # type: ignore[arg-type]
    assert listener.closed
