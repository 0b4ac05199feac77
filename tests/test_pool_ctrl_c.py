"""Ctrl-C in the middle of anything the pool does: all ends at once, and what was said until then is true."""

from __future__ import annotations

import sys
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE, CO_GENERATOR
from types import FrameType

import outcome
import pytest
import trio
import trio.testing
from pool_server import network, pool_of

import trio_smtp
from trio_smtp import PoolConfig

STEP = 7  # calls from one point to the next


class Interruption:
    """Raises KeyboardInterrupt where Python would: as the n-th function of client and pool begins.

    Not in a coroutine or a generator: a trace function cannot tell its beginning from its going on.
    """

    def __init__(self, calls: int) -> None:
        self._left = calls
        self.place = ""

    def enter(self, frame: FrameType, event: str, argument: object) -> None:
        path = frame.f_code.co_filename
        if (
            not self.place
            and not frame.f_code.co_flags & (CO_COROUTINE | CO_GENERATOR | CO_ASYNC_GENERATOR)
            and ("trio_smtp/_pool/" in path or "trio_smtp/_client/" in path)
        ):
            self._left -= 1
            if not self._left:
                self.place = f"{path}:{frame.f_lineno}"
                raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("depth", "offers"), [(1, ("PIPELINING",)), (4, ("PIPELINING",)), (4, ("PIPELINING", "CHUNKING"))]
)
def test_ctrl_c_anywhere(depth: int, offers: tuple[str, ...]) -> None:
    sent: list[bytes] = []
    accepted: list[bytes] = []
    took = 0.0

    async def one(pool: trio_smtp.Pool, number: int) -> None:
        for i in range(3):
            text = b"%d of %d\r\n" % (i, number)
            await pool.send("a@x.test", ["b@y.test"], text)
            sent.append(text)

    async def play(interruption: Interruption) -> None:
        nonlocal took
        started = trio.current_time()
        tracer = sys.gettrace()
        config = PoolConfig(max_connections=2, pipeline_depth=depth)
        with pytest.MonkeyPatch.context() as monkeypatch:
            try:
                async with network(monkeypatch) as net:
                    net.offers, net.accepted, net.delay = offers, accepted, 0.01
                    async with pool_of(config) as pool:
                        await pool.send("a@x.test", ["b@y.test"], b"first\r\n")
                        sys.settrace(interruption.enter)
                        async with trio.open_nursery() as nursery:
                            for number in range(4):
                                nursery.start_soon(one, pool, number)
            finally:
                sys.settrace(tracer)
                took = trio.current_time() - started

    calls = 0
    while True:
        calls += STEP
        sent.clear()
        accepted.clear()
        interruption = Interruption(calls)
        ended = outcome.capture(trio.run, play, interruption, clock=trio.testing.MockClock(autojump_threshold=0))  # type: ignore[arg-type]
        if isinstance(ended, outcome.Error) and not is_ctrl_c(ended.error):
            ended.unwrap()
        assert took < 1, interruption.place
        assert set(sent) <= set(accepted)
        assert len(accepted) == len(set(accepted))
        if not interruption.place:
            break
    assert calls > 40 * STEP


def is_ctrl_c(exc: BaseException) -> bool:
    """And nothing else but what follows from it."""
    leaves = [exc]
    while groups := [leaf for leaf in leaves if isinstance(leaf, BaseExceptionGroup)]:
        leaves = [leaf for leaf in leaves if leaf not in groups]
        leaves += [leaf for group in groups for leaf in group.exceptions]
    assert all(isinstance(leaf, KeyboardInterrupt | trio.Cancelled | trio_smtp.PoolClosedError) for leaf in leaves)
    return any(isinstance(leaf, KeyboardInterrupt) for leaf in leaves)
