# Many messages through a pool, in bounded memory: as many tasks as can be of use, each with one message at a time.
#
# The tasks are direct callers of the pool. Each puts its outcome into a deque, wakes the consumer if that waits, and
# goes on with the next job: two turns of the scheduler for each message, no rendezvous. What bounds the memory is the
# number of jobs taken whose outcome the consumer does not have: beyond it a task waits until one was taken.
#
# Guarantees: each job taken has one outcome, unless the block is left first. It does not know how a message is sent.
from __future__ import annotations

import reprlib
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.message import Message
from typing import Any, Final, Generic, Protocol, TypeAlias, TypeVar

import trio

from .._client.client import message_envelope
from .._client.content import ContentLike
from .._client.outgoing import Outgoing, SendResult
from .._nursery import open_bare_nursery

Job: TypeAlias = "tuple[str, Iterable[str], ContentLike] | Message[Any, Any]"
J = TypeVar("J", bound="tuple[str, Iterable[str], ContentLike] | Message[Any, Any]")


class Deliver(Protocol):
    """Sends one message through the pool."""

    def __call__(self, message: Outgoing, *, patient: bool = False) -> Awaitable[SendResult]: ...


@dataclass(slots=True, repr=False)
class Outcome(Generic[J]):
    """What became of one job of ``send_many``.

    Attributes:
        job: the job, as it was given.
        result: the result, or ``None``.
        error: what was raised instead, or ``None``.
    """

    job: J
    result: SendResult | None = None
    error: Exception | None = None

    def __repr__(self) -> str:
        what = f"error={self.error!r}" if self.result is None else f"result={self.result!r}"
        return f"<Outcome job={reprlib.repr(self.job)} {what}>"


class Outcomes(Generic[J]):
    """The outcomes of ``send_many``, as they come: ``async for outcome in outcomes``."""

    __slots__ = ("_work",)

    _work: _Work[J]

    def __init__(self) -> None:
        raise TypeError("outcomes are made by Pool.send_many()")

    @classmethod
    def _create(cls, work: _Work[J]) -> Outcomes[J]:
        self = object.__new__(cls)
        self._work = work
        return self

    def __repr__(self) -> str:
        return f"<trio_smtp.Outcomes: {self._work}>"

    def __aiter__(self) -> Outcomes[J]:
        return self

    async def __anext__(self) -> Outcome[J]:
        return await self._work.next_outcome()


class _End:
    """Instead of a job: there are no more. Not ``None``, which an iterable may yield by mistake."""


_END: Final = _End()


class _Jobs(Generic[J]):
    """The jobs, one at a time, for any task; after an error there are none.

    Attributes:
        asynchronous: they come from an async iterable.
        error: what the iterable raised.
    """

    __slots__ = ("_asynchronous", "_at_end", "_synchronous", "_turn", "error")

    def __init__(self, jobs: Iterable[J] | AsyncIterable[J]) -> None:
        self._synchronous = None if isinstance(jobs, AsyncIterable) else iter(jobs)
        self._asynchronous = aiter(jobs) if isinstance(jobs, AsyncIterable) else None
        self._turn: trio.Lock = trio.Lock()
        self._at_end: bool = False
        self.error: Exception | None = None

    async def next(self) -> J | _End:
        """The next job, or the end."""
        if self._at_end:
            return _END
        try:
            if self._synchronous is not None:
                return next(self._synchronous)
            assert self._asynchronous is not None
            async with self._turn:
                return _END if self._at_end else await anext(self._asynchronous)
        except (StopIteration, StopAsyncIteration):
            pass
        except Exception as exc:
            self.error = exc
        self._at_end = True
        return _END

    async def aclose(self) -> None:
        """Let an async generator clean up."""
        aclose = getattr(self._asynchronous, "aclose", None)
        if aclose is not None:
            await aclose()


class _Work(Generic[J]):
    """What the tasks of one ``send_many`` and its consumer share.

    Args:
        deliver: sends a message.
        jobs: what to send.
        tasks: how many there are, and so messages at a time.
        most: jobs taken without the consumer having the outcome.
    """

    __slots__ = ("_consumers", "_deliver", "_jobs", "_most", "_ready", "_stalled", "_taken", "_tasks", "_was_left")

    def __init__(self, deliver: Deliver, jobs: _Jobs[J], tasks: int, most: int) -> None:
        self._deliver: Deliver = deliver
        self._jobs: _Jobs[J] = jobs
        self._tasks: int = tasks  # that have not ended
        self._most: int = most
        self._taken: int = 0  # jobs without their outcomes, and those in `_ready`
        self._ready: deque[Outcome[J]] = deque()
        self._consumers: trio.lowlevel.ParkingLot = trio.lowlevel.ParkingLot()  # wait for an outcome
        self._stalled: trio.lowlevel.ParkingLot = trio.lowlevel.ParkingLot()  # tasks that wait for the consumer
        self._was_left: bool = False

    def __str__(self) -> str:
        ready = len(self._ready)
        return f"{ready} ready, {self._taken - ready} being sent"

    async def run(self) -> None:
        """One task: send job after job until there are none."""
        try:
            while True:
                while self._taken >= self._most:
                    await self._stalled.park()
                self._taken += 1
                job = await self._jobs.next()
                if isinstance(job, _End):
                    self._taken -= 1
                    return
                outcome = Outcome(job)
                try:
                    outcome.result = await self._deliver(_outgoing(job), patient=True)
                except Exception as exc:
                    outcome.error = exc
                self._ready.append(outcome)
                if self._consumers:
                    self._consumers.unpark()
        finally:
            self._tasks -= 1
            if not self._tasks:
                self._consumers.unpark_all()

    async def next_outcome(self) -> Outcome[J]:
        """The outcome that came first of those that nothing has taken.

        Raises:
            StopAsyncIteration: there are no more.
            Exception: what the iterable of jobs raised, once.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._ready:
            if self._was_left:
                raise trio.ClosedResourceError("the block of send_many was left")
            if not self._tasks:
                if self._jobs.error is not None:
                    error, self._jobs.error = self._jobs.error, None
                    raise error from None
                raise StopAsyncIteration from None
            await self._consumers.park()
        outcome = self._ready.popleft()
        self._taken -= 1
        if self._stalled:
            self._stalled.unpark()
        return outcome

    def leave(self) -> None:
        """There are no more outcomes: the block was left."""
        self._was_left = True
        self._ready.clear()


@asynccontextmanager
async def send_many(deliver: Deliver, jobs: Iterable[J] | AsyncIterable[J], tasks: int) -> AsyncIterator[Outcomes[J]]:
    """:meth:`Pool.send_many`, with this many messages at a time."""
    source = _Jobs(jobs)
    work = _Work(deliver, source, tasks, 2 * tasks)
    try:
        async with open_bare_nursery(_stop) as nursery:
            for _ in range(tasks):
                nursery.start_soon(work.run)
            try:
                yield Outcomes._create(work)
            finally:
                work.leave()
    finally:
        await source.aclose()  # the tasks have ended: none is in the middle of it


def _stop(nursery: trio.Nursery, failure: BaseException | None) -> None:
    nursery.cancel_scope.cancel(reason="the block of send_many was left")


def _outgoing(job: Job) -> Outgoing:
    if isinstance(job, Message):
        sender, recipients = message_envelope(job, None, None)
        return Outgoing(sender, recipients, job)
    if not isinstance(job, tuple) or len(job) != 3:
        raise TypeError(f"a job is (sender, recipients, content) or an EmailMessage, not {type(job).__name__}")
    return Outgoing(*job)
