# The task of one connection: it takes attempts, opens a connection when there is one to send and none to send it on,
# keeps the connection while it is good, and is its only owner.
#
# States. A worker is in one of four, and wake(), which the dispatcher calls, means something in three of them:
#
#   BUSY      sends, connects, closes, or looks for work             nothing: it looks for itself before it rests
#   WARMING   opens a connection that no message needs               the opening is given up
#   RESTING   idle; lets the caller that it has served run           it goes on as BUSY
#   PARKED    idle; reads from the connection                        the reading is interrupted; it goes on as BUSY
#
#                     ┌─────────────── an attempt, or the pool closes ───────────────┐
#                     ▼                                                              │
#   start ─→ BUSY: take, connect, send ─→ nothing to take ─→ RESTING ─→ PARKED ──────┤
#     └────→ WARMING ──↑      │                                           │          │
#                             ▼                                           ▼          │
#             no connection and nothing to take: the end     FIN, 421, octets, too long, too old: BUSY, and closes it
#
# RESTING: a caller that just got its result often sends again. Waiting a turn for it costs 3 µs, waking the reader 15.
# PARKED: only a reader sees a FIN or a 421 at once, under TLS too.
#
# Invariants.
#
# * No checkpoint between take() and park(); else a caller could find no idle worker and no room for a new one, queue,
#   and never be woken.
# * The dispatcher knows a worker as idle in RESTING and PARKED only, and forgets that before it calls wake(); unpark()
#   comes first after either, whatever ended it, and says which attempt was given meanwhile.
# * `_attempt` is the attempt whose outcome this task owes. It is set in the same step in which the attempt was taken,
#   and is finished before the next one is taken, or in the `finally` of run(): every caller hears.
# * A connection is used by this task alone. After any failure in the middle of a dialogue it is broken; a broken one
#   is closed before the next attempt is taken.
# * Exceptions of one attempt end that attempt. What comes out of run() is Cancelled, Ctrl-C or a bug.
#
# What may happen at each checkpoint.
#
# * Connecting, waiting for the rate limit, reading the caller's iterable: the attempt may be cancelled, which cancels
#   the scope around it (Attempt.run_cancellable); the server may fail, which is the attempt's error.
# * Waiting for replies to a message alone on the connection: the attempt may be cancelled. Before the end of the
#   message has left, the wait is interrupted at once, and the connection is broken. Afterwards its caller waits for the
#   grace; then the connection is aborted, and the fate of the message is unknown.
# * The same with other messages in flight: see pipeline.py. The caller goes, the wait goes on.
# * RESTING, PARKED: an attempt may be given, the pool may close.
# * Anywhere: the pool may be cancelled. A reply to an end of message that has left is still awaited, shielded, by what
#   sends it; then what is owed becomes PoolClosedError, with what is known of the message, and the connection is closed
#   without a word. The caller may have been cancelled in the same turn: it has the same grace.
# * Closing: takes at most quit_timeout, and 2 s more under TLS, shielded, and never raises. With an attempt given
#   meanwhile, no QUIT is said.
from __future__ import annotations

from enum import Enum
from functools import partial
from typing import Final

import trio

from .._client.log import logger
from .._client.refusals import is_about_connection
from .._client.report import DeliveryReport
from .._client.sending import deliver
from .._protocol.client.commands import RSET
from .._protocol.client.protocol import State
from .._protocol.errors import (
    ConnectionLostError,
    PoolClosedError,
    RemoteProtocolError,
    SMTPError,
    SMTPTimeoutError,
    Stage,
)
from .._wire.waits import Interrupted
from .attempt import Attempt, AttemptState, Cancellation
from .config import PoolConfig
from .connector import Connector, PooledConnection
from .dispatcher import Dispatcher
from .health import ServerHealth
from .loan import Loan
from .pipeline import Pipeline
from .ratelimit import RateLimit
from .trace import Tracer

_CLOSING: Final = 5.0  # seconds; closing a broken connection takes none
_DEAD: Final = (ConnectionLostError, SMTPTimeoutError, RemoteProtocolError)


class WorkerState(Enum):
    """What a worker does; see above."""

    BUSY = "busy"
    WARMING = "warming"
    RESTING = "resting"
    PARKED = "parked"


_BUSY: Final = WorkerState.BUSY
_RESTING: Final = WorkerState.RESTING
_PARKED: Final = WorkerState.PARKED
_DONE: Final = AttemptState.DONE
_WANTED: Final = Cancellation.NO


class Worker:
    """The task of one connection, and of the next one when that is closed.

    Args:
        dispatcher: where attempts come from.
        connector: where connections come from.
        health: is told how the server bears it.
        config: the pool's.
        rate_limit: for every message, before it is begun; shared by all workers.
        tracer: is told what happens.
    """

    __slots__ = (
        "_attempt",
        "_config",
        "_connection",
        "_connector",
        "_dispatcher",
        "_health",
        "_rate_limit",
        "_state",
        "_tracer",
        "_warming",
    )

    def __init__(
        self,
        dispatcher: Dispatcher,
        connector: Connector,
        health: ServerHealth,
        config: PoolConfig,
        rate_limit: RateLimit | None,
        tracer: Tracer,
    ) -> None:
        self._dispatcher: Dispatcher = dispatcher
        self._connector: Connector = connector
        self._health: ServerHealth = health
        self._config: PoolConfig = config
        self._rate_limit: RateLimit | None = rate_limit
        self._tracer: Tracer = tracer
        self._state: WorkerState = _BUSY
        self._attempt: Attempt | None = None
        self._connection: PooledConnection | None = None
        self._warming: trio.CancelScope | None = None

    def __repr__(self) -> str:
        return f"<Worker {self._state.value}: {self._connection!r}>"

    async def run(self, attempt: Attempt | None) -> None:
        """Send messages until there are none and the connection is gone.

        Args:
            attempt: the first one; ``None``: open a connection to have it.
        """
        dispatcher = self._dispatcher
        serve = self._serve_with_others if self._config.pipeline_depth > 1 and self._rate_limit is None else self._serve
        try:
            if attempt is None:
                await self._warm_up()
            else:
                self._attempt = attempt
                await self._serve(attempt)
            while True:
                connection = self._connection
                if connection is not None and (reason := self._why_close(connection)):
                    await self._close(reason)
                    connection = None
                attempt = dispatcher.take()
                if attempt is not None:
                    self._attempt = attempt
                elif connection is None:
                    return
                else:
                    attempt = await self._rest(connection)
                if attempt is not None:
                    await serve(attempt)
        finally:
            for owed in (self._attempt, dispatcher.unpark(self)):
                if owed is not None and owed.state is not _DONE:
                    _close_attempt(owed)
            if self._connection is not None:
                self._connection.abort()
                with trio.move_on_after(_CLOSING, shield=True):
                    await self._close("the pool was cancelled")
            dispatcher.ended(self)

    def wake(self) -> None:
        """Look around: there is an attempt, or the pool is closing."""
        state, self._state = self._state, _BUSY
        if state is _PARKED:
            assert self._connection is not None
            self._connection.wake()
        elif self._warming is not None:
            self._warming.cancel(reason="the pool is closing")

    # -- messages

    async def _serve(self, attempt: Attempt) -> None:
        """Send a message: on one connection, or on several where one turns out dead or the server's limits ask for it.

        Its outcome is set, unless this task is being cancelled.
        """
        if attempt.loan is not None:
            await self._lend(attempt, attempt.loan)
            return
        report, rate_limit = attempt.report, self._rate_limit
        try:
            while report.remaining:
                if rate_limit is not None:  # before a connection is opened, which has no reader in the meantime
                    await attempt.run_cancellable(rate_limit.start)
                connection = self._connection
                if connection is None or connection.client.is_broken or connection.has_limits:
                    connection = await self._find_connection(attempt)
                if report.message.at_hand:
                    await self._send(attempt, connection)
                else:
                    await attempt.run_cancellable(partial(self._send, attempt, connection))
        except Exception as exc:
            attempt.finish(exc)
        else:
            attempt.finish()

    async def _lend(self, attempt: Attempt, loan: Loan) -> None:
        """Let the attempt's caller have the connection, until it gives it back. That it has it is the outcome."""
        try:
            if self._rate_limit is not None:
                await attempt.run_cancellable(self._rate_limit.start)
            connection = self._connection
            if attempt.fresh and connection is not None and connection.may_be_stale:
                await self._close("a message met its end")
                connection = None
            if connection is None or connection.client.is_broken or connection.has_limits:
                connection = await self._find_connection(attempt)
            if attempt.cancellation is not _WANTED:
                raise Interrupted
            loan.lend(connection)
        except Exception as exc:
            attempt.finish(exc)
            return
        attempt.finish()
        await loan.come_back()
        client = connection.client
        client.check()
        if client.protocol.farewell is not None:
            self._health.connection_failed()
        elif not client.is_broken and client.protocol.state is not State.READY:
            try:
                await client.exchange(RSET, client.config.command_timeout)
            except SMTPError:
                pass  # it is broken now, and closed before anything else

    async def _find_connection(self, attempt: Attempt) -> PooledConnection:
        """The connection there is, if it may be used for this message, or a new one."""
        connection = self._connection
        attempt.pause()
        if connection is not None:
            if not connection.client.is_broken and not connection.client.allowance.is_used_up(attempt.report):
                return connection
            await self._close("it is used up")
        await attempt.run_cancellable(self._connect)
        assert self._connection is not None
        return self._connection

    async def _send(self, attempt: Attempt, connection: PooledConnection) -> None:
        """Send on this connection. If it was idle, its death before any answer costs nothing."""
        if attempt.cancellation is not _WANTED:
            raise Interrupted
        report = attempt.report
        may_be_stale = connection.count_message()
        report.count_attempt()
        attempt.begin(connection)
        is_traced = self._tracer.is_on
        started = trio.current_time() if is_traced else 0.0
        failure: BaseException | None = None
        try:
            await deliver(connection.client, report, stop_at_limit=True)
        except _DEAD as exc:
            failure = exc
            self._note_farewell(report, may_be_stale)
            if not (may_be_stale and _may_go_elsewhere(attempt)) or report.is_caller_error(exc):
                raise
        except BaseException as exc:
            failure = exc
            self._note_farewell(report, may_be_stale)
            raise
        finally:
            if is_traced:
                self._tracer.tell("send", started, connection.number, error=failure)
        if failure is not None:
            report.forget_transaction()  # it came to nothing
            return
        if may_be_stale and not report.is_spent and is_about_connection(report.error):
            report.readmit_temporary()
            await self._close("the server takes no more on it")
            return
        if report.remaining:
            report.uncount_attempt()  # it goes on with the others on another connection: that is no further try
        if connection.client.protocol.farewell is None:
            self._health.message_done()
        else:
            self._health.connection_failed()

    def _note_farewell(self, report: DeliveryReport, may_be_stale: bool) -> None:
        """Count a 421 that ended the session as a failed connection, unless it crossed our MAIL."""
        stage = _farewell_at(report)
        if stage is not None and not (may_be_stale and stage is Stage.MAIL):
            self._health.connection_failed()

    async def _serve_with_others(self, attempt: Attempt) -> None:
        """Serve a message, and others in flight with it where ``pipeline_depth`` and the connection allow it."""
        connection = self._connection
        if connection is None or not connection.client.protocol.pipelining or not connection.client.has_just_answered:
            await self._serve(attempt)
            return

        def take() -> Attempt | None:
            more = None if self._why_close(connection) else self._dispatcher.take()
            if more is not None:
                connection.count_message()
            return more

        connection.count_message()
        pipeline = Pipeline(connection, self._config.pipeline_depth, take, self._health, self._tracer)
        try:
            await pipeline.run(attempt)
            self._attempt = pipeline.latest
            if connection.client.protocol.farewell is not None:
                self._health.connection_failed()
            while pipeline.again:
                self._attempt = alone = pipeline.again.pop(0)
                await self._serve(alone)
        finally:
            for alone in pipeline.again:  # unless this task is being cancelled, there is none
                _close_attempt(alone)

    # -- the connection

    def _why_close(self, connection: PooledConnection) -> str:
        """Why this connection is not to be used for another message; ``""`` if it may be."""
        if reason := connection.why_close():
            return reason
        if self._dispatcher.is_closing:
            return "the pool is closing"
        return "there are too many" if self._dispatcher.has_too_many else ""

    async def _connect(self) -> None:
        self._connection = await self._connector.connect()

    async def _warm_up(self) -> None:
        if self._dispatcher.is_closing:
            return
        self._state = WorkerState.WARMING
        try:
            with trio.CancelScope() as self._warming:
                await self._connect()
        except Exception as exc:  # of the host callable or a token provider, too: no caller waits for this connection
            if isinstance(exc, SMTPError | OSError):
                logger.debug("pool: no connection to keep: %s", exc)
            else:
                logger.exception("pool: no connection to keep")
            self._health.warming_failed()
        finally:
            self._warming = None
            self._state = _BUSY

    async def _rest(self, connection: PooledConnection) -> Attempt | None:
        """Be idle until there is an attempt; ``None``: there is something else to see to, maybe no connection."""
        dispatcher = self._dispatcher
        reason = ""
        served, self._attempt = self._attempt, None
        self._state = _RESTING
        try:
            dispatcher.park(self)
            if served is not None:
                await served.let_caller_run()
                served = None  # do not keep its message while idle
            if self._state is _RESTING:
                self._state = _PARKED
                reason = await connection.watch()
        except SMTPTimeoutError:
            reason = "it was idle" if connection.is_old or dispatcher.can_spare else ""
        finally:
            self._state = _BUSY
            self._attempt = attempt = dispatcher.unpark(self)
        if reason:
            if connection.client.is_broken and not connection.sent and attempt is None:
                self._health.warming_failed(trio.current_time() - connection.opened_at)
            if attempt is not None:
                connection.abort()  # it waits for this: no QUIT
            await self._close(reason)
        return attempt

    async def _close(self, reason: str) -> None:
        """Say QUIT if the server will listen, and close; never raises."""
        connection, self._connection = self._connection, None
        assert connection is not None
        await self._connector.close(connection, reason)


def _close_attempt(attempt: Attempt) -> None:
    """Tell a caller that the pool was cancelled, and what is known of its message."""
    error = PoolClosedError("the pool was cancelled")
    attempt.report.explain(error)
    attempt.finish(error)


def _may_go_elsewhere(attempt: Attempt) -> bool:
    """The message that failed is still wanted, can be sent again, and the server never answered its MAIL, or said 421.

    So nothing of it can have been accepted.
    """
    report = attempt.report
    if attempt.cancellation is not _WANTED or report.is_spent:
        return False
    transaction = report.transaction
    if transaction is None or transaction.farewell is not None:
        return True
    return not (transaction.answered or transaction.ended)


def _farewell_at(report: DeliveryReport) -> Stage | None:
    """Where the message was when the server ended the session with a 421; ``None``: it did not."""
    transaction = report.transaction
    return None if transaction is None or transaction.farewell is None else transaction.stage
