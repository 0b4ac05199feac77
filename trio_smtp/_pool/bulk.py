# Many messages through a pool, in bounded memory: as many tasks as can be of use, each with one message at a time.
from __future__ import annotations

import email.message
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeAlias, TypeVar

import trio

from .._client.client import message_envelope
from .._client.content import ContentLike
from .._client.message import Message
from .._client.report import SendResult
from .._nursery import open_bare_nursery

Job: TypeAlias = "tuple[str, Iterable[str], ContentLike] | email.message.Message[Any, Any]"
J = TypeVar("J", bound="tuple[str, Iterable[str], ContentLike] | email.message.Message[Any, Any]")


class Deliver(Protocol):
    """:meth:`Pool.deliver`."""

    def __call__(self, message: Message, *, patient: bool = False) -> Awaitable[SendResult]: ...


@dataclass(slots=True)
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


class Outcomes(Generic[J]):
    """The outcomes of ``send_many``, as they come: ``async for outcome in outcomes``."""

    __slots__ = ("_jobs", "_outcomes")

    def __init__(self, outcomes: trio.MemoryReceiveChannel[Outcome[J]], jobs: _Jobs[J]) -> None:
        self._outcomes = outcomes
        self._jobs = jobs

    def __aiter__(self) -> Outcomes[J]:
        return self

    async def __anext__(self) -> Outcome[J]:
        try:
            return await self._outcomes.receive()
        except trio.EndOfChannel:
            if self._jobs.error is not None:
                error, self._jobs.error = self._jobs.error, None
                raise error from None
            raise StopAsyncIteration from None


class _End:
    """Instead of a job: there are no more. Not ``None``, which somebody's iterable may yield by mistake."""


_END: Final = _End()


class _Jobs(Generic[J]):
    """The jobs, one at a time, to whoever asks; after an error there are none."""

    __slots__ = ("_asynchronous", "_at_end", "_synchronous", "_turn", "error")

    def __init__(self, jobs: Iterable[J] | AsyncIterable[J]) -> None:
        self._synchronous = None if isinstance(jobs, AsyncIterable) else iter(jobs)
        self._asynchronous = aiter(jobs) if isinstance(jobs, AsyncIterable) else None
        self._turn = trio.Lock()
        self._at_end = False
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


@asynccontextmanager
async def send_many(deliver: Deliver, jobs: Iterable[J] | AsyncIterable[J], tasks: int) -> AsyncIterator[Outcomes[J]]:
    """:meth:`Pool.send_many`, with this many messages at a time."""
    source = _Jobs(jobs)
    send, receive = trio.open_memory_channel[Outcome[J]](0)
    try:
        async with open_bare_nursery(_stop) as nursery:
            with send:
                for _ in range(tasks):
                    nursery.start_soon(_work, deliver, source, send.clone())
            with receive:
                yield Outcomes(receive, source)
    finally:
        await source.aclose()  # the tasks have ended: nobody is in the middle of it


def _stop(nursery: trio.Nursery, failure: BaseException | None) -> None:
    nursery.cancel_scope.cancel(reason="the block of send_many was left")


async def _work(deliver: Deliver, source: _Jobs[J], outcomes: trio.MemorySendChannel[Outcome[J]]) -> None:
    with outcomes:
        while not isinstance(job := await source.next(), _End):
            outcome = Outcome(job)
            try:
                outcome.result = await deliver(_outgoing(job), patient=True)
            except Exception as exc:
                outcome.error = exc
            try:
                await outcomes.send(outcome)
            except trio.BrokenResourceError:
                return  # the block was left


def _outgoing(job: Job) -> Message:
    if isinstance(job, email.message.Message):
        sender, recipients = message_envelope(job, None, None)
        return Message(sender, recipients, job)
    if not isinstance(job, tuple) or len(job) != 3:
        raise TypeError(f"a job is (sender, recipients, content) or an EmailMessage, not {type(job).__name__}")
    return Message(*job)
