# One try of a message, between the caller that waits for its outcome and the worker that sends it.
#
#   WAITING ── a worker has it ──→ BEGUN ── its outcome is set ──→ DONE
#      └──────────── refused, withdrawn or never begun ───────────────↑
#
# A pool that closes sends away those that are WAITING. One that is BEGUN may be between two connections: it goes on.
#
# Guarantees: the outcome is set once, whatever happens to the worker, so a caller always hears. A new try is a new
# Attempt; whether there is one is decided elsewhere (retry.py).
#
# There is one way to be cancelled, cancel(), for a caller that was. It asks first: nothing more of the message is sent,
# but a reply to an end of message that has left is still awaited, for the grace. Then it ends the wait that the worker
# is in for this message alone, and waits for what the worker makes of that. If no worker has begun with the message, or
# others are in flight with it, there is no such wait: the caller goes at once.
#
# A caller that just got its outcome often sends again, so the worker can let it run first: let_caller_run(), one turn
# of the scheduler for each, in this order. A checkpoint does not give the order: Trio runs a batch of tasks in any.
#
# It does not know who sends, nor on what. One task at a time waits for the outcome, so it is woken directly: an Event
# would cost as much as the rest of this object.
from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Final, Protocol

import trio

from .._client.report import DeliveryReport
from .._protocol.errors import PoolClosedError
from .._wire.waits import Interrupted
from .loan import Loan


class AttemptState(Enum):
    """Where an attempt is."""

    WAITING = "waiting"
    BEGUN = "begun"
    DONE = "done"


class Cancellation(Enum):
    """What its caller wants.

    NO: the message to be sent. ASKED: nothing more of it to be sent. OVERDUE: not even to wait for a reply.
    """

    NO = "no"
    ASKED = "asked"
    OVERDUE = "overdue"


_WAITING: Final = AttemptState.WAITING
_BEGUN: Final = AttemptState.BEGUN
_DONE: Final = AttemptState.DONE
_NO: Final = Cancellation.NO


class Exchange(Protocol):
    """What a worker waits in for this message alone: a connection with nothing else in flight."""

    def abandon(self) -> None:
        """End the wait in progress, or the next one; a send that is ended so breaks the connection."""

    def abort(self) -> None:
        """Let nothing more be sent or awaited after that."""


@contextmanager
def lent_scope() -> Iterator[trio.CancelScope]:
    """Around a worker that serves attempts, one after the other: a scope for each to cancel while it is attached.

    Errors that come with the cancellation, in a group, are dropped: they are of its caller's code, and its caller has
    gone.
    """
    try:
        with trio.CancelScope() as scope:
            yield scope
    except Exception:
        if not scope.cancelled_caught:
            raise


class Attempt:
    """One try of a message.

    Args:
        report: the message, and what has become of it so far.
        fresh: it has met a connection's end, and is better off on a new one.
        number: which message of the pool it is a try of.
        loan: the caller wants a connection, and does the rest.

    Attributes:
        is_alone: it is to be sent with no other in flight.
        state: WAITING, BEGUN or DONE.
        cancellation: what its caller wants.
        error: DONE: what ended it; ``None`` if it reached its end.
    """

    __slots__ = (
        "_exchange",
        "_resting",
        "_scope",
        "_waiter",
        "cancellation",
        "error",
        "fresh",
        "is_alone",
        "loan",
        "number",
        "report",
        "state",
    )

    def __init__(
        self, report: DeliveryReport, *, fresh: bool = False, number: int = 0, loan: Loan | None = None
    ) -> None:
        self.report: DeliveryReport = report
        self.number: int = number
        self.fresh: bool = fresh
        self.loan: Loan | None = loan
        self.is_alone: bool = loan is not None
        self.state: AttemptState = _WAITING
        self.cancellation: Cancellation = _NO
        self.error: Exception | None = None
        self._exchange: Exchange | None = None
        self._scope: trio.CancelScope | None = None
        self._waiter: trio.lowlevel.Task | None = None  # the caller, until it has run with the outcome
        self._resting: trio.lowlevel.Task | None = None  # the worker that lets it do so

    def __repr__(self) -> str:
        wish = "" if self.cancellation is _NO else f", cancellation {self.cancellation.value}"
        error = "" if self.error is None else f", {self.error!r}"
        return f"<Attempt {self.state.value}{wish}{error}>"

    # -- the worker's side

    @property
    def is_wanted(self) -> bool:
        """Its caller wants the message to be sent."""
        return self.cancellation is _NO

    def isolate(self) -> None:
        """Let it be sent with no other in flight, from now on."""
        self.is_alone = True

    def attach(self, exchange: Exchange | None, scope: trio.CancelScope | None = None) -> None:
        """A worker sends it now.

        Args:
            exchange: what :meth:`cancel` may end; ``None`` while others' messages are in flight there.
            scope: of :func:`lent_scope`, for :meth:`cancel` to cancel instead.
        """
        self.state = _BEGUN
        self._exchange = exchange
        if scope is not None:
            self._scope = scope
        if exchange is not None and self.cancellation is Cancellation.OVERDUE:
            exchange.abandon()  # the last of several in flight, and its caller has gone

    def detach(self) -> None:
        """A worker has had it, and it needs another connection: what was begun goes on."""
        self.state = _BEGUN
        self._exchange = self._scope = None

    async def run_cancellable(self, work: Callable[[], Awaitable[object]]) -> None:
        """Do what only a cancel scope can end: waiting for the rate limit, the caller's iterable.

        Raises:
            Interrupted: the attempt was cancelled.
        """
        if self.cancellation is not _NO:
            raise Interrupted
        with trio.CancelScope() as scope:
            self._scope = scope
            try:
                await work()
            finally:
                self._scope = None
        if scope.cancelled_caught:
            raise Interrupted

    @property
    def may_go_elsewhere(self) -> bool:
        """It has failed, is still wanted, can be sent again, and the server never answered its MAIL, or said 421.

        So nothing of it can have been accepted.
        """
        if not self.is_wanted or self.report.is_spent:
            return False
        transaction = self.report.transaction
        if transaction is None or transaction.farewell is not None:
            return True
        return not (transaction.answered or transaction.ended)

    def close(self) -> None:
        """Tell its caller that the pool was cancelled, and what is known of its message."""
        error = PoolClosedError("the pool was cancelled")
        self.report.explain(error)
        self.finish(error)

    def finish(self, error: Exception | None = None) -> None:
        """Set the outcome, if it is not set, and wake the caller."""
        if self.state is _DONE:
            return
        self.state = _DONE
        self.error = error
        self._exchange = self._scope = None
        if self._waiter is not None:
            trio.lowlevel.reschedule(self._waiter)

    async def let_caller_run(self) -> None:
        """After :meth:`finish`: return when the caller has had its turn, or after a turn if it is not waiting."""
        if self._waiter is None:
            await trio.lowlevel.checkpoint()
        else:
            self._resting = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._stop_resting)

    def _stop_resting(self, raise_cancel: object) -> trio.lowlevel.Abort:
        self._resting = None
        return trio.lowlevel.Abort.SUCCEEDED

    # -- the caller's side

    async def wait(self) -> None:
        """Wait for the outcome; no checkpoint if it is set."""
        if self.state is not _DONE:
            self._waiter = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._stop_waiting)
            self._waiter = None
            if self._resting is not None:
                trio.lowlevel.reschedule(self._resting)  # it runs after us, when we have sent again perhaps
                self._resting = None

    def _stop_waiting(self, raise_cancel: object) -> trio.lowlevel.Abort:
        self._waiter = None
        return trio.lowlevel.Abort.SUCCEEDED

    async def cancel(self, grace: float) -> bool:
        """End it, since its caller was cancelled. To be called in a shield.

        Args:
            grace: seconds for the reply to an end of message that has left.

        Returns:
            Whether the message was sent all the same.
        """
        self.cancellation = Cancellation.ASKED
        if self.report.has_left:
            # The reply is all there is to wait for, and the worker may be cancelled together with the caller and be
            # waiting for it already: an interruption would take the reply from both.
            with trio.move_on_after(grace):
                await self.wait()
            if self._exchange is not None:
                self._exchange.abort()  # it has had its time
        if self.state is not _DONE and self.end_wait():
            await self.wait()
        return self.state is _DONE and self.error is None and not self.report.remaining

    def end_wait(self) -> bool:
        """Let the worker come to an end with it as fast as what was sent allows; whether there is one at it."""
        self.cancellation = Cancellation.OVERDUE
        if self._scope is not None:
            self._scope.cancel(reason="the caller was cancelled")
        elif self._exchange is not None:
            self._exchange.abandon()
        else:
            return False
        return True
