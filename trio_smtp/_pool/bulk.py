# Many messages through a pool, in bounded memory: as many tasks as can be of use, each with one message at a time.
#
# The tasks are direct callers of the pool. Each puts its outcome into a deque, wakes the consumer if that waits, and
# goes on with the next job: two turns of the scheduler for each message, no rendezvous. What bounds the memory is the
# number of jobs taken whose outcome the consumer does not have: beyond it a task waits until one was taken.
#
# Guarantees: each job taken has one outcome, unless the block is left after some were read. It does not know how a
# message is sent.
from __future__ import annotations

import email.message
import reprlib
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Generic, Protocol, TypeAlias, TypeVar

import trio

from .._client.client import message_envelope
from .._client.content import ContentLike
from .._client.message import Message
from .._client.report import SendResult
from .._client.signing import Signing
from .._nursery import open_bare_nursery
from .._public import NoPublicConstructor

Job: TypeAlias = "tuple[str, Iterable[str], ContentLike] | email.message.Message[Any, Any]"
"""One message for :meth:`Pool.send_many`: sender, recipients and content, or a message object that names them."""
J = TypeVar("J", bound="tuple[str, Iterable[str], ContentLike] | email.message.Message[Any, Any]")


_MOST_ERRORS: Final = 1000  # that are raised where no outcome was read; the others are counted


class Deliver(Protocol):
    """Sends one message through the pool."""

    def __call__(self, message: Message, *, patient: bool = False) -> Awaitable[SendResult]: ...


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


class _Reading(Enum):
    """Whether outcomes were asked for, and may be."""

    NONE = "none was asked for"
    SOME = "some were"
    LEFT = "the block was left"


_NOT_YET: Final = _Reading.NONE


class Outcomes(Generic[J], metaclass=NoPublicConstructor):
    """The outcomes of ``send_many``, as they come: ``async for outcome in outcomes``; see :meth:`Pool.send_many`.

    Raises:
        Exception: what ``jobs`` has raised, in place of its next job.
        trio.ClosedResourceError: the block was left.

    Any number of tasks may iterate; each outcome goes to one of them. Cancelling one loses no outcome.
    """

    __slots__ = ("_arrival", "_most", "_open", "_reading", "_ready", "_room", "_source", "_tasks")

    _arrival: trio.Event | None  # made by a consumer that waits for an outcome
    _most: int  # jobs in `_open`
    _open: int  # jobs whose outcome was not taken
    _ready: deque[Outcome[J]]
    _reading: _Reading
    _room: trio.Event | None  # made by a task that waits until there are fewer open jobs
    _source: _Jobs[J]
    _tasks: int  # that have not ended

    @classmethod
    def _create(cls, source: _Jobs[J], most: int, tasks: int) -> Outcomes[J]:
        self = cls.__new__(cls)
        self._source = source
        self._most = most
        self._tasks = tasks
        self._open = 0
        self._ready = deque()
        self._reading = _Reading.NONE
        self._arrival = self._room = None
        return self

    def __repr__(self) -> str:
        ready = len(self._ready)
        return f"<trio_smtp.Outcomes: {ready} ready, {self._open - ready} being sent>"

    def __aiter__(self) -> Outcomes[J]:
        return self

    async def __anext__(self) -> Outcome[J]:
        if self._reading is _NOT_YET:
            self._reading = _Reading.SOME
        if self._ready:  # at most `_most` times without a turn for others
            await trio.lowlevel.checkpoint_if_cancelled()
        while not self._ready:
            if self._reading is _Reading.LEFT:
                raise trio.ClosedResourceError("the block of send_many was left")
            if not self._tasks:
                await trio.lowlevel.checkpoint()
                self._source.raise_error()
                raise StopAsyncIteration from None
            if self._arrival is None:
                self._arrival = trio.Event()
            await self._arrival.wait()
        if self._room is not None:
            self._room.set()
            self._room = None
        self._open -= 1
        return self._ready.popleft()

    async def _finish_unread(self) -> None:
        """Send all jobs, if no outcome was ever asked for, and raise what went wrong.

        Raises:
            ExceptionGroup: of messages, the first ones, and what the jobs have raised.
        """
        if self._reading is not _NOT_YET:
            return
        errors: list[Exception] = []
        failed = 0
        try:
            async for outcome in self:
                if outcome.error is not None:
                    failed += 1
                    if failed <= _MOST_ERRORS:
                        outcome.error.add_note(f"of the job {reprlib.repr(outcome.job)}")
                        errors.append(outcome.error)
        except Exception as exc:
            errors.append(exc)
        if errors:
            raise ExceptionGroup(f"{failed} messages of send_many have failed, whose outcomes were not read", errors)

    # -- the tasks' side

    async def _work(self, deliver: Deliver, signing: Signing | None) -> None:
        """Send job after job until there are none."""
        source = self._source
        try:
            while True:
                while self._open >= self._most:
                    if self._room is None:
                        self._room = trio.Event()
                    await self._room.wait()
                self._open += 1
                job: J | _End = _END
                if source.synchronous is None:
                    job = await source.next()
                elif not source.at_end:
                    try:
                        for job in source.synchronous:  # noqa: B007 - used below
                            break  # the first one that no other task has: next(), which is a call more for each message
                        else:
                            source.end()
                    except Exception as exc:
                        source.end(exc)
                if job is _END:
                    self._open -= 1
                    return
                result = error = None
                try:
                    result = await deliver(_message_of(job, signing), patient=True)
                except Exception as exc:
                    error = exc
                self._ready.append(Outcome(job, result, error))
                if self._arrival is not None:
                    self._tell_consumers()
        finally:
            self._tasks -= 1
            if not self._tasks:
                self._tell_consumers()

    def _tell_consumers(self) -> None:
        if self._arrival is not None:
            self._arrival.set()
            self._arrival = None

    def _leave(self) -> None:
        """There are no more: the block was left."""
        self._reading = _Reading.LEFT
        self._ready.clear()


class _End(Enum):
    """Instead of a job: there are no more. Not ``None``, which an iterable may yield by mistake."""

    END = "end"


_END: Final = _End.END


class _Jobs(Generic[J]):
    """The jobs, one at a time, for any task; after an error there are none.

    Attributes:
        synchronous: an iterator to take them from; ``None``: they are to be had from :meth:`next`.
        at_end: there are no more.
    """

    __slots__ = ("_asynchronous", "_error", "_turn", "at_end", "synchronous")

    def __init__(self, jobs: Iterable[J] | AsyncIterable[J]) -> None:
        # A message is an iterable too: of the names of its header fields.
        if isinstance(jobs, str | bytes | email.message.Message) or not isinstance(jobs, Iterable | AsyncIterable):
            raise TypeError(f"jobs must be an iterable or async iterable of jobs, not {type(jobs).__name__}")
        self._asynchronous = aiter(jobs) if isinstance(jobs, AsyncIterable) else None
        self._turn: trio.Lock = trio.Lock()
        self._error: Exception | None = None
        self.synchronous: Iterator[J] | None = None if isinstance(jobs, AsyncIterable) else iter(jobs)
        self.at_end: bool = False

    async def next(self) -> J | _End:
        """The next job of an async iterable, or the end."""
        assert self._asynchronous is not None
        async with self._turn:
            if not self.at_end:
                try:
                    return await anext(self._asynchronous)
                except StopAsyncIteration:
                    self.end()
                except Exception as exc:
                    self.end(exc)
            return _END

    def end(self, error: Exception | None = None) -> None:
        """There are no more jobs, or it was this that came instead."""
        self.at_end = True
        self._error = error

    def raise_error(self) -> None:
        """Raise what the iterable has raised, once."""
        error, self._error = self._error, None
        if error is not None:
            raise error from None

    async def aclose(self) -> None:
        """Let an async generator clean up."""
        aclose = getattr(self._asynchronous, "aclose", None)
        if aclose is not None:
            await aclose()


@asynccontextmanager
async def send_many(
    deliver: Deliver, jobs: Iterable[J] | AsyncIterable[J], tasks: int, signing: Signing | None = None
) -> AsyncIterator[Outcomes[J]]:
    """:meth:`Pool.send_many`, with this many messages at a time, signed if there is something to sign with."""
    source = _Jobs(jobs)
    outcomes: Outcomes[J] = Outcomes[J]._create(source, 2 * tasks, tasks)
    try:
        async with open_bare_nursery(_stop) as nursery:
            for _ in range(tasks):
                nursery.start_soon(outcomes._work, deliver, signing)
            try:
                yield outcomes
                await outcomes._finish_unread()
            finally:
                outcomes._leave()
    finally:
        await source.aclose()  # the tasks have ended: none is in the middle of it


def _stop(nursery: trio.Nursery, failure: BaseException | None) -> None:
    nursery.cancel_scope.cancel(reason="the block of send_many was left")


def _message_of(job: Job, signing: Signing | None) -> Message:
    match job:
        case tuple((sender, recipients, content)):
            return Message(sender, recipients, content, signing=signing)
        case email.message.Message():
            sender, recipients = message_envelope(job, None, None)
            return Message(sender, recipients, job, signing=signing)
        case _:
            raise TypeError(f"a job must be (sender, recipients, content) or an EmailMessage, not {type(job).__name__}")
