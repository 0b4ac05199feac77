# Which worker sends which message: attempts on one side, the tasks of connections on the other, and their number.
#
# A message finds its worker in one synchronous step: an idle one (the one used last, so that the others may grow old);
# or one that opens a connection for no other message; or, if the limiter has a token, a new one that opens one. Else
# its caller waits in a memory channel of capacity 0, first come, first served. A worker that is free, or has opened its
# connection, takes the attempt that has waited longest. So a connection that is being opened belongs to no message: if
# its caller is cancelled, or served by another worker first, the next one has it, or it becomes idle.
#
#   ahead     given back by a worker whose connection is of no more use, or a connection is being opened for it
#   in line   its caller waits in the channel: there are as many workers as there may be, and none is idle
#
# Nothing is queued without a caller that waits for it, and cancelling a call withdraws its message. A token is held on
# behalf of each worker and given back at its end; whenever there is a token and a message waits, a worker is started.
#
# Rule: every change of which workers are idle or opening, which attempts they were given, who waits and how many
# workers there may be happens in this file, in functions without a checkpoint; queue() is the one wait. It does not
# know what a worker does: only how to start one, and how to tell it to look around.
from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, Protocol

import trio

from .._protocol.errors import Delivery, PoolClosedError, PoolFullError
from .attempt import Attempt, AttemptState
from .trace import Tracer

_SILENT: Final = Tracer(None)


class Wakeable(Protocol):
    """The task of a connection: a worker, as far as it is known here."""

    def wake(self) -> None:
        """Look around, if you are idle; give up, if you are opening a connection. Synchronous."""


class Dispatcher:
    """Brings attempts and workers together.

    Args:
        max_connections: the number of workers to begin with; :meth:`set_limit` changes it.
        min_idle: workers to keep even if no message needs them.
        max_waiting: callers that may wait in line; ``None``: no limit.
        tracer: is told how long they did.
        hire: makes a worker and starts its task. That opens a connection and must call :meth:`opened`, or
            :meth:`opening_failed`; and :meth:`ended` when it ends.

    Attributes:
        limit: how many workers there may be now.
        has_too_many: there are more.
        in_line: callers in line; not one whose attempt was taken and which has yet to run.
        is_closing: no further message is taken.
        closed: set when that begins.
    """

    __slots__ = (
        "_ahead",
        "_assigned",
        "_attempts",
        "_callers",
        "_hire",
        "_idle",
        "_limiter",
        "_max_waiting",
        "_min_idle",
        "_opening",
        "_shortage",
        "_tracer",
        "_workers",
        "closed",
        "has_too_many",
        "in_line",
        "is_closing",
        "limit",
    )

    def __init__(
        self,
        hire: Callable[[], Wakeable],
        *,
        max_connections: int,
        min_idle: int = 0,
        max_waiting: int | None = None,
        tracer: Tracer = _SILENT,
    ) -> None:
        self._hire: Callable[[], Wakeable] = hire
        self._min_idle: int = min_idle
        self._max_waiting: int | None = max_waiting
        self._tracer: Tracer = tracer
        self._workers: set[Wakeable] = set()
        self._opening: dict[Wakeable, None] = {}  # those without a connection yet, in the order of their beginning
        self._idle: list[Wakeable] = []  # the one used last is at the end
        self._ahead: deque[Attempt] = deque()  # not in line
        self._assigned: dict[Wakeable, Attempt] = {}  # given to workers that were idle and have not run since
        self._limiter: trio.CapacityLimiter = trio.CapacityLimiter(max_connections)
        self._callers, self._attempts = trio.open_memory_channel[Attempt](0)
        self._shortage: trio.Event = trio.Event()  # there are fewer workers than min_idle
        self.limit: int = max_connections
        self.has_too_many: bool = False
        self.in_line: int = 0
        self.is_closing: bool = False
        self.closed: trio.Event = trio.Event()

    def __repr__(self) -> str:
        closing = ", closing" if self.is_closing else ""
        workers = f"{self.connections} of {self.limit} workers ({self.idle} idle)"
        return f"<Dispatcher {workers}, {self.waiting} waiting{closing}>"

    @property
    def connections(self) -> int:
        """Workers, whether their connection is open or being opened."""
        return len(self._workers)

    @property
    def idle(self) -> int:
        """Those that have nothing to do."""
        return len(self._idle)

    @property
    def waiting(self) -> int:
        """Messages without a connection: those in line, and those ahead."""
        return self.in_line + len(self._ahead)

    @property
    def can_spare(self) -> bool:
        """There are more workers than must be kept."""
        return len(self._workers) > self._min_idle

    @property
    def is_awaited(self) -> bool:
        """A message waits for a connection that is being opened."""
        return bool(self._ahead)

    # -- callers

    def submit(self, attempt: Attempt) -> bool:
        """Give an attempt to a worker that is idle or opens a connection, or may be started; else it is to queue.

        Raises:
            PoolClosedError: nothing was sent.
        """
        if self.is_closing:
            raise closed_error()
        if self._idle and not (attempt.fresh and self._may_expect):
            self._assign(attempt)
            return True
        if not self._may_expect:
            return False
        self._expect(attempt)
        return True

    def withdraw(self, attempt: Attempt) -> bool:
        """Its caller was cancelled: whether the attempt was ahead, and no worker will have it from now on."""
        if attempt not in self._ahead:
            return False
        self._ahead.remove(attempt)
        self._rebalance()
        return True

    async def queue(self, attempt: Attempt, *, patient: bool = False) -> None:
        """Wait until a worker takes an attempt that could not be submitted. Cancellation withdraws it.

        Args:
            attempt: the attempt.
            patient: wait even beyond ``max_waiting``.

        Raises:
            PoolFullError, PoolClosedError: nothing was sent.
        """
        if not patient and self._max_waiting is not None and self.in_line >= self._max_waiting:
            raise PoolFullError(f"{self.in_line} messages wait for a connection already", delivery=Delivery.NOT_SENT)
        started = trio.current_time() if self._tracer.is_on else 0.0
        self.in_line += 1
        was_taken = False
        try:
            await self._callers.send(attempt)
            was_taken = True
        except trio.BrokenResourceError:
            raise closed_error() from None
        finally:
            if not was_taken:  # otherwise take() has counted it
                self.in_line -= 1
        self._tracer.tell("wait", started, message=attempt.number)

    # -- workers

    def opened(self, worker: Wakeable) -> None:
        """It has its connection, and looks for work."""
        del self._opening[worker]

    def opening_failed(self, worker: Wakeable) -> Attempt | None:
        """It could not open its connection, and is about to end: the attempt that was to have it, if one was."""
        is_promised = len(self._ahead) >= len(self._opening)
        del self._opening[worker]
        return self._ahead.popleft() if is_promised and self._ahead else None

    def take(self) -> Attempt | None:
        """The attempt that has waited longest, if there may be as many workers as there are."""
        if self.has_too_many:
            return None
        if not self._ahead:
            return self._take_from_line() if self.in_line else None
        attempt = self._ahead.popleft()
        if self.in_line or self.is_closing:
            self._rebalance()  # a worker opens a connection for none
        return attempt

    def give_back(self, attempts: Iterable[Attempt]) -> None:
        """A worker's connection is of no more use for these: they are the first to be taken."""
        self._ahead.extendleft(reversed(list(attempts)))
        self._rebalance()

    def park(self, worker: Wakeable) -> None:
        """A worker has nothing to do from now on; it is woken when it has."""
        self._idle.append(worker)

    def unpark(self, worker: Wakeable) -> Attempt | None:
        """A worker is not idle from now on; the attempt that it was given while it was, if it was given one."""
        attempt = self._assigned.pop(worker, None)
        if attempt is None and worker in self._idle:
            self._idle.remove(worker)
        return attempt

    def ended(self, worker: Wakeable) -> None:
        """A worker's task is at its end: take its token back, and see who needs it."""
        if worker in self._workers:
            self._workers.remove(worker)
            self._opening.pop(worker, None)
            self._limiter.release_on_behalf_of(worker)
            self.has_too_many = len(self._workers) > self.limit
        self._rebalance()

    # -- the number of workers

    def set_limit(self, limit: int) -> None:
        """Let there be so many workers at most; those that are too many end when they are free."""
        self.limit = limit
        self._limiter.total_tokens = limit
        self.has_too_many = len(self._workers) > limit
        self._rebalance()

    async def shortage(self) -> None:
        """Wait until there are fewer workers than ``min_idle``."""
        self._shortage = trio.Event()
        await self._shortage.wait()

    def fill(self) -> None:
        """Start workers until there are ``min_idle``, or as many as there may be."""
        while not self.is_closing and len(self._workers) < self._min_idle and self._may_grow:
            self._grow()

    @property
    def _may_grow(self) -> bool:
        return self._limiter.available_tokens > 0

    @property
    def _may_expect(self) -> bool:
        """There is a connection being opened for no message, or may be one."""
        return len(self._ahead) < len(self._opening) or self._may_grow

    def _grow(self) -> None:
        """Start a worker."""
        worker = self._hire()
        self._limiter.acquire_on_behalf_of_nowait(worker)
        self._workers.add(worker)
        self._opening[worker] = None

    def _expect(self, attempt: Attempt) -> None:
        """Let an attempt have a connection that is being opened, or is from now on."""
        if len(self._ahead) >= len(self._opening):
            self._grow()
        self._ahead.append(attempt)

    def _assign(self, attempt: Attempt) -> None:
        """Give an attempt to the worker that was used last."""
        worker = self._idle.pop()
        self._assigned[worker] = attempt
        worker.wake()

    def _take_from_line(self) -> Attempt | None:
        if self.is_closing:
            return None
        try:
            attempt = self._attempts.receive_nowait()
        except trio.WouldBlock:  # a caller that was cancelled and has not run since
            return None
        self.in_line -= 1
        return attempt

    def _rebalance(self) -> None:
        """Start workers for messages that wait, or wake them; end those that are not needed; see to ``min_idle``."""
        while len(self._ahead) > len(self._opening) and self._may_grow:
            self._grow()
        while len(self._ahead) > len(self._opening) and self._idle:
            self._assign(self._ahead.popleft())
        if self.is_closing:
            for worker in list(self._opening)[len(self._ahead) :]:
                worker.wake()
            return
        while self.in_line and self._may_expect and (attempt := self._take_from_line()) is not None:
            self._expect(attempt)
        if len(self._workers) < self._min_idle:
            self._shortage.set()

    # -- the end

    def close(self) -> None:
        """Take no further message, send the callers away that wait, and let workers end that none needs.

        A message that was begun, and needs another connection, has it.
        """
        self.is_closing = True
        self.closed.set()
        self._attempts.close()
        for attempt in [attempt for attempt in self._ahead if attempt.state is AttemptState.WAITING]:
            self._ahead.remove(attempt)
            attempt.finish(closed_error())
        opened = [worker for worker in self._workers if worker not in self._opening]
        self._idle.clear()
        for worker in opened:
            worker.wake()
        self._rebalance()


def closed_error() -> PoolClosedError:
    """The error for messages that come too late."""
    return PoolClosedError("the pool is closed", delivery=Delivery.NOT_SENT)
