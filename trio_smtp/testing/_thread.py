# A Trio loop in a thread of its own, for tests that are not async: unittest, Django, anything that blocks.
#
# The loop lives as long as the block of `run_in_thread`, and holds an async context manager open. Only its thread
# touches what is in there; callers hand functions over and wait for what they return.
from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, Generic, TypeVar

import trio

from .._public import NoPublicConstructor
from ._points import FaultPoint
from ._server import ServerTLS
from ._sink import Sink, open_sink
from ._sink_handler import ReceivedMessage

_T = TypeVar("_T")
_Result = TypeVar("_Result")


class TrioThread(Generic[_T], metaclass=NoPublicConstructor):
    """A thread that runs Trio, and what is open there; made by :func:`run_in_thread`.

    Attributes:
        value: what the async context manager gave. Use it by :meth:`run` and :meth:`run_sync` only.
    """

    value: _T
    _has_ended: bool
    _token: trio.lowlevel.TrioToken
    _end: trio.Event

    @classmethod
    def _create(cls, value: _T, token: trio.lowlevel.TrioToken, end: trio.Event) -> TrioThread[_T]:
        self = cls.__new__(cls)
        self.value, self._token, self._end = value, token, end
        self._has_ended = False
        return self

    def __repr__(self) -> str:
        return f"<trio_smtp.testing.TrioThread with {self.value!r}>"

    def run(self, function: Callable[..., Awaitable[_Result]], *args: object, timeout: float | None = None) -> _Result:
        """Call an async function in the thread, and wait for its result.

        Args:
            function: what to call.
            args: its arguments.
            timeout: seconds after which it is cancelled; ``None`` waits for ever.

        Raises:
            TimeoutError: it took longer.
            TypeError: `timeout` is no number.
            RuntimeError: a task of Trio's has called it, which would block all others.
            trio.RunFinishedError: the block was left, or the thread has ended by itself.
        """
        if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, int | float)):
            raise TypeError(f"timeout must be a number of seconds or None, not {timeout!r:.80}")

        async def call() -> _Result:
            with trio.fail_after(float("inf") if timeout is None else timeout):
                return await function(*args)

        self._check_open()
        try:
            return trio.from_thread.run(call, trio_token=self._token)
        except trio.TooSlowError as exc:
            raise TimeoutError(f"not within {timeout} s") from exc

    def run_sync(self, function: Callable[..., _Result], *args: object) -> _Result:
        """Call a function in the thread, and wait for its result.

        Raises:
            RuntimeError: as of :meth:`run`.
            trio.RunFinishedError: the block was left, or the thread has ended by itself.
        """
        self._check_open()
        return trio.from_thread.run_sync(function, *args, trio_token=self._token)

    def _check_open(self) -> None:
        _check_blocking(repr(self.value))
        if self._has_ended:
            raise trio.RunFinishedError(f"the block was left in which {self.value!r} could be used")


def _check_blocking(what: str) -> None:
    """Raise a RuntimeError in a task of Trio's, and in what it calls: waiting for another thread blocks all tasks."""
    if trio.lowlevel.in_trio_task():
        raise RuntimeError(f"{what} is in a thread of its own, for tests that are not async; others use 'async with'")


@contextmanager
def run_in_thread(manager: AbstractAsyncContextManager[_T]) -> Iterator[TrioThread[_T]]:
    """Open an async context manager in a thread that runs Trio, until the end of the block.

    ``with run_in_thread(open_server(handler)) as thread: use_it(thread.value.port)``

    Args:
        manager: such as that of :func:`open_server` or :func:`open_script`.

    Raises:
        RuntimeError: a task of Trio's has called it, which would block all others.
        Exception: what opening it, or closing it, raises.
    """
    _check_blocking("what run_in_thread() opens")
    opened: Future[TrioThread[_T]] = Future()
    ended: Future[None] = Future()

    async def hold() -> None:
        async with manager as value:
            end = trio.Event()
            opened.set_result(TrioThread._create(value, trio.lowlevel.current_trio_token(), end))
            await end.wait()

    def run() -> None:
        try:
            trio.run(hold)
        except BaseException as exc:  # noqa: ASYNC103 - the thread that waits gets it
            (ended if opened.done() else opened).set_exception(exc)
        else:
            ended.set_result(None)

    thread = threading.Thread(target=run, name="trio_smtp.testing", daemon=True)
    thread.start()
    running = opened.result()
    try:
        yield running
    finally:
        try:
            running.run_sync(running._end.set)
        except trio.RunFinishedError:  # it has failed by itself, and result() says with what
            pass
        thread.join()
        running._has_ended = True
        ended.result()


class ThreadedSink(metaclass=NoPublicConstructor):
    """A :class:`Sink` in a thread of its own, for tests that are not async; made by :func:`run_sink`.

    Attributes:
        host: the address it listens on.
        port: the port that was free.
        tls: ``"none"``, ``"starttls"`` or ``"implicit"``.
    """

    host: str
    port: int
    tls: ServerTLS
    _thread: TrioThread[Sink]

    @classmethod
    def _create(cls, thread: TrioThread[Sink]) -> ThreadedSink:
        self = cls.__new__(cls)
        self._thread = thread
        self.host, self.port, self.tls = thread.value.host, thread.value.port, thread.value.tls
        return self

    def __repr__(self) -> str:
        return f"<trio_smtp.testing.ThreadedSink {self.host}:{self.port}>"

    @property
    def messages(self) -> list[ReceivedMessage]:
        """A new list of what it has accepted so far, in order; also after the block."""
        messages = self._thread.value.messages
        return list(messages) if self._thread._has_ended else self._thread.run_sync(list, messages)

    def clear(self) -> None:
        """Forget the messages."""
        self._thread.run_sync(self._thread.value.messages.clear)

    def wait_for(self, count: int = 1, *, timeout: float = 30) -> list[ReceivedMessage]:
        """Wait until there are so many messages, and return all that are there.

        Raises:
            TimeoutError: there are fewer after so many seconds.
        """
        return self._thread.run(self._thread.value.wait_for, count, timeout=timeout)

    def refuse(self, *args: Any, **kwargs: Any) -> FaultPoint:
        """As :meth:`Sink.refuse`."""
        return self._thread.run_sync(lambda: self._thread.value.refuse(*args, **kwargs))

    def cut(self, *args: Any, **kwargs: Any) -> FaultPoint:
        """As :meth:`Sink.cut`."""
        return self._thread.run_sync(lambda: self._thread.value.cut(*args, **kwargs))

    def stall(self, *args: Any, **kwargs: Any) -> FaultPoint:
        """As :meth:`Sink.stall`."""
        return self._thread.run_sync(lambda: self._thread.value.stall(*args, **kwargs))

    def accept_all(self) -> None:
        """Forget all fault points."""
        self._thread.run_sync(self._thread.value.accept_all)


@contextmanager
def run_sink(**options: Any) -> Iterator[ThreadedSink]:
    """Run a :class:`Sink` in a thread of its own, for tests that are not async: unittest, Django.

    ``with run_sink() as sink: send_mail(sink.host, sink.port); [message] = sink.wait_for()``

    Args:
        options: those of :func:`open_sink`.

    Raises:
        Exception: as from :func:`open_sink`.
    """
    with run_in_thread(open_sink(**options)) as thread:
        yield ThreadedSink._create(thread)
