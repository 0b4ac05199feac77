# Requests that share the work of one: those that wait while others are being done are done together, next.
#
# The first who asks leads: its task has a group done, wakes the others of the group, and hands the lead to the first of
# those that have come meanwhile. What a group is done by is a function, and what came of a request is written on it.
#
# Where the answer may be long in coming, and need not be known, a task of its own leads (serve()): then whoever is
# cancelled leaves at once.
from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Final, Generic, TypeVar

import trio

_GATHER: Final = 2  # scheduler passes before a group is closed: what is about to ask as well shares it


class _Phase(Enum):
    WAITING = "it may be withdrawn"
    BEGUN = "it is being done"
    DONE = "there is an answer"


class _Leader(Enum):
    NOBODY = "the next who asks will lead"
    CALLER = "one of those who ask leads, or is about to"
    TASK = "serve() does"


class Request:
    """Something that is asked for, with others or alone.

    Args:
        weight: how much of a group's limit it takes.
        size: about how many octets it has.
    """

    __slots__ = ("phase", "size", "task", "weight")

    def __init__(self, weight: int = 1, size: int = 0) -> None:
        self.weight: Final = weight
        self.size: Final = size
        self.phase = _Phase.WAITING
        self.task: trio.lowlevel.Task | None = None  # who waits for it

    def wake(self) -> None:
        """Let the task that waits go on."""
        if self.task is not None:
            trio.lowlevel.reschedule(self.task)
            self.task = None


R = TypeVar("R", bound=Request)


class Combiner(Generic[R]):
    """Has requests done in groups, one group at a time.

    Args:
        run: does a group; what it raises is raised by the one that leads, so what came of the others must be known by
            then. It is shielded, unless :meth:`serve` leads.
        most: the weight of a group.
        size: octets of a group: a large request does not delay those that came before it.
    """

    def __init__(self, run: Callable[[list[R]], Awaitable[None]], most: int, size: int) -> None:
        self._run: Final = run
        self._most: Final = most
        self._size: Final = size
        self._waiting: deque[R] = deque()
        self._leader = _Leader.NOBODY
        self._idle: trio.Event | None = None  # on which serve() waits for a request

    @trio.lowlevel.enable_ki_protection  # an interrupt while it leads would leave the others without a leader
    async def ask(self, request: R) -> None:
        """Return once it is done.

        Cancellation: before it is begun, it is withdrawn. Once it is begun, its answer is waited for, unless
        :meth:`serve` leads: then it may be done or not.
        """
        if self._leader is _Leader.NOBODY:
            await trio.lowlevel.checkpoint_if_cancelled()  # what leads cannot be withdrawn
        self._waiting.append(request)
        if self._idle is not None:
            self._idle.set()
            self._idle = None
        if self._leader is not _Leader.NOBODY:
            await self._wait(request)
        if request.phase is _Phase.WAITING:
            self._leader = _Leader.CALLER
            try:
                with trio.CancelScope(shield=True):
                    await self._lead()
            finally:
                self._hand_over()

    @trio.lowlevel.enable_ki_protection
    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Lead until cancelled; then those who ask lead again. To be started before any of them does."""
        self._leader = _Leader.TASK
        try:
            task_status.started()
            while True:
                if not self._waiting:
                    self._idle = trio.Event()
                    await self._idle.wait()
                await self._lead()
        finally:
            self._idle = None
            self._hand_over()

    async def _wait(self, request: R) -> None:
        """Until there is an answer, or the lead is this task's."""

        def abort(_: object) -> trio.lowlevel.Abort:
            if request.phase is _Phase.WAITING:
                self._waiting.remove(request)
            elif self._leader is not _Leader.TASK:
                return trio.lowlevel.Abort.FAILED
            request.task = None
            return trio.lowlevel.Abort.SUCCEEDED

        request.task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(abort)

    async def _lead(self) -> None:
        """Have the next group done."""
        for _ in range(_GATHER):
            await trio.lowlevel.cancel_shielded_checkpoint()
        group = self._next_group()
        if not group:  # all of them were withdrawn
            return
        try:
            await self._run(group)
        finally:
            for request in group:
                request.phase = _Phase.DONE
                request.wake()

    def _hand_over(self) -> None:
        """Let the first of those who wait lead."""
        if self._waiting:
            self._leader = _Leader.CALLER
            self._waiting[0].wake()
        else:
            self._leader = _Leader.NOBODY

    def _next_group(self) -> list[R]:
        group: list[R] = []
        weight = size = 0
        while self._waiting:
            first = self._waiting[0]
            weight += first.weight
            size += first.size
            if group and (weight > self._most or size > self._size):
                break
            first.phase = _Phase.BEGUN
            group.append(self._waiting.popleft())
        return group
