# The task of one connection: it opens the connection, takes attempts, and keeps the connection while it is good; it is
# its only owner.
#
# States. A worker is in one of four, and wake(), which the dispatcher calls, means something in three of them:
#
#   OPENING   opens its connection, for any message or for none      the opening is given up
#   BUSY      sends, closes, or looks for work                       nothing: it looks for itself before it rests
#   RESTING   idle; lets the caller that it has served run           it goes on as BUSY
#   PARKED    idle; reads from the connection                        the reading is interrupted; it goes on as BUSY
#
#                        ┌───────────── an attempt, or the pool closes ─────────────┐
#                        ▼                                                          │
#   OPENING ─→ BUSY: take, send ─→ nothing to take ─→ RESTING ─→ PARKED ────────────┤
#      │                 │                                          │               │
#      ▼                 ▼                                          ▼               │
#   the end     connection of no more use: the end     FIN, 421, octets, too long, too old: BUSY, and closes it
#
# A connection that is being opened belongs to no message (dispatcher.py). If it cannot be opened, the error is that of
# the message that was to have it, if one was. A message that needs another connection is given back.
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
#   and is finished or given back before the next one is taken, or in the `finally` of run(): every caller hears.
# * A connection is used by this task alone. After any failure in the middle of a dialogue it is broken, and no further
#   attempt is taken.
# * Exceptions of one attempt end that attempt. What comes out of run() is Cancelled, Ctrl-C or a bug.
#
# What may happen at each checkpoint.
#
# * Opening: the server may fail; the pool may close, which cancels it if no message waits for it.
# * Waiting for the rate limit, the caller's iterable or its `before_end`: the attempt may be cancelled, which cancels
#   the scope around it, for the rate limit that of Attempt.run_cancellable, else that of run(), one for many messages.
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

from contextlib import suppress
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
from .._protocol.errors import SMTPError, SMTPTimeoutError, Stage
from .._wire.waits import Interrupted
from .attempt import Attempt, AttemptState, Cancellation, lent_scope
from .config import PoolConfig
from .connector import Connector, PooledConnection
from .dispatcher import Dispatcher
from .health import ServerHealth
from .loan import Loan
from .pipeline import Pipeline
from .ratelimit import RateLimit
from .retry import DEAD, farewell_at
from .riding import Riding
from .trace import Tracer, fate_by, fate_since

_CLOSING: Final = 5.0  # seconds; closing a broken connection takes none


class WorkerState(Enum):
    """What a worker does; see above."""

    OPENING = "opening"
    BUSY = "busy"
    RESTING = "resting"
    PARKED = "parked"


_BUSY: Final = WorkerState.BUSY
_RESTING: Final = WorkerState.RESTING
_PARKED: Final = WorkerState.PARKED
_NO: Final = Cancellation.NO


class Worker:
    """The task of one connection.

    Args:
        dispatcher: where attempts come from.
        connector: where connections come from.
        health: is told how the server bears it.
        riding: which hosts bear several messages in flight.
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
        "_opening",
        "_rate_limit",
        "_riding",
        "_start",
        "_state",
        "_tracer",
    )

    def __init__(
        self,
        dispatcher: Dispatcher,
        connector: Connector,
        health: ServerHealth,
        riding: Riding,
        config: PoolConfig,
        rate_limit: RateLimit | None,
        tracer: Tracer,
    ) -> None:
        self._dispatcher: Dispatcher = dispatcher
        self._connector: Connector = connector
        self._health: ServerHealth = health
        self._riding: Riding = riding
        self._config: PoolConfig = config
        self._rate_limit: RateLimit | None = rate_limit
        self._tracer: Tracer = tracer
        self._state: WorkerState = WorkerState.OPENING
        self._attempt: Attempt | None = None
        self._connection: PooledConnection | None = None
        self._opening: trio.CancelScope = trio.CancelScope()
        self._start: float | None = None  # counted by the rate limit, for the first message

    def __repr__(self) -> str:
        return f"<Worker {self._state.value}: {self._connection!r}>"

    async def run(self) -> None:
        """Open a connection, and send messages until there are none and it is of no more use."""
        dispatcher = self._dispatcher
        reason = ""
        serve = self._serve_with_others if self._config.pipeline_depth > 1 and self._rate_limit is None else self._serve
        try:
            connection = await self._open()
            if connection is None:
                return
            attempt = dispatcher.take()
            self._attempt = attempt
            if attempt is None:
                self._return_start()
            while not reason:
                with lent_scope() as scope:
                    while True:
                        if attempt is not None:
                            await serve(attempt, connection, scope)
                            if attempt.cancellation is not _NO:
                                break  # so is the scope, perhaps
                        if reason := self._why_close(connection):
                            break
                        attempt = dispatcher.take()
                        if attempt is not None:
                            self._attempt = attempt
                        else:
                            attempt = await self._rest(connection)
                if scope.cancelled_caught and attempt is not None:
                    attempt.finish(Interrupted())
                attempt = None  # its outcome is set, or others have it
            await self._close(connection, reason)
        finally:
            for owed in (self._attempt, dispatcher.unpark(self)):
                if owed is not None and owed.state is not AttemptState.DONE:
                    owed.close()
            if self._connection is not None:
                self._connection.abort()
                with trio.move_on_after(_CLOSING, shield=True):
                    await self._close(self._connection, "the pool was cancelled")
            self._return_start()
            dispatcher.ended(self)

    def wake(self) -> None:
        """Look around: there is an attempt, or the pool is closing and none needs the connection being opened."""
        state = self._state
        if state is WorkerState.OPENING:
            self._opening.cancel(reason="the pool is closing")
            return
        self._state = _BUSY
        if state is _PARKED:
            assert self._connection is not None
            self._connection.wake()

    # -- messages

    async def _serve(self, attempt: Attempt, connection: PooledConnection, scope: trio.CancelScope | None) -> None:
        """Send a message, or give it back where the connection turns out dead or the server's limits ask for another.

        Its outcome is set, unless it was given back, or this task or `scope`, which is around this, is being cancelled.
        """
        if attempt.loan is not None:
            await self._lend(attempt, attempt.loan, connection)
            return
        report = attempt.report
        try:
            while report.remaining:
                if connection.has_limits and connection.client.allowance.is_used_up(report):
                    connection.retire("it is used up")
                if connection.retired or connection.client.is_broken:
                    self._give_back([attempt])
                    return
                if self._rate_limit is not None:
                    await self._wait_for_start(attempt, connection, self._rate_limit)
                if scope is not None or report.message.at_hand:
                    await self._send(attempt, connection, scope)
                else:
                    await attempt.run_cancellable(partial(self._send, attempt, connection, None))
        except Exception as exc:
            attempt.finish(exc)
        else:
            attempt.finish()

    async def _lend(self, attempt: Attempt, loan: Loan, connection: PooledConnection) -> None:
        """Let the attempt's caller have the connection, until it gives it back. That it has it is the outcome."""
        client = connection.client
        if connection.has_limits and client.allowance.is_used_up(attempt.report):
            connection.retire("it is used up")
        elif attempt.fresh and connection.may_be_stale:
            connection.retire("another one has died")
        if connection.retired or client.is_broken:
            self._give_back([attempt])
            return
        try:
            if self._rate_limit is not None:
                await self._wait_for_start(attempt, connection, self._rate_limit)
            if not attempt.is_wanted:
                raise Interrupted
        except Exception as exc:
            attempt.finish(exc)
            return
        loan.lend(connection)
        attempt.finish()
        await loan.come_back()
        client.check()
        if client.protocol.farewell is not None:
            self._health.connection_failed()
        elif not client.is_broken and client.protocol.state is not State.READY:
            with suppress(SMTPError):  # it is broken then, and closed before anything else
                await client.exchange(RSET, client.config.command_timeout)

    def _give_back(self, attempts: list[Attempt]) -> None:
        """They need another connection, if their callers are there still."""
        self._attempt = None
        wanted = [attempt for attempt in attempts if attempt.is_wanted]
        for attempt in attempts:
            if attempt in wanted:
                attempt.detach()
            else:
                attempt.finish(Interrupted())
        self._dispatcher.give_back(wanted)

    async def _wait_for_start(self, attempt: Attempt, connection: PooledConnection, rate_limit: RateLimit) -> None:
        """Wait until the message may be begun."""
        if self._start is not None:
            self._start = None  # counted before the connection was opened
            return
        await attempt.run_cancellable(rate_limit.start)
        if not connection.client.has_just_answered:
            connection.suspect()

    async def _send(self, attempt: Attempt, connection: PooledConnection, scope: trio.CancelScope | None) -> None:
        """Send on this connection. If it was idle, its death before any answer costs nothing."""
        if not attempt.is_wanted:
            raise Interrupted
        report = attempt.report
        may_be_stale = connection.count_message()
        report.count_attempt()
        attempt.attach(connection, None if report.message.at_hand else scope)
        is_traced = self._tracer.is_on
        started = trio.current_time() if is_traced else 0.0
        had = len(report.accepted) if is_traced else 0
        failure: BaseException | None = None
        try:
            await deliver(connection.client, report, stop_at_limit=connection.has_limits)
        except DEAD as exc:
            failure = exc
            self._note_farewell(report, may_be_stale)
            if not (may_be_stale and attempt.may_go_elsewhere) or report.is_caller_error(exc):
                raise
        except BaseException as exc:
            failure = exc
            self._note_farewell(report, may_be_stale)
            raise
        finally:
            if is_traced:
                fate = fate_since(report, had) if failure is None else fate_by(failure, report.transaction)
                self._tracer.tell("send", started, connection.number, error=failure, message=attempt.number, fate=fate)
        if failure is not None:
            report.forget_transaction()  # it came to nothing
            return
        if may_be_stale and not report.is_spent and is_about_connection(report.error):
            report.readmit_temporary()
            connection.retire("the server takes no more on it")
            return
        if report.remaining:
            report.uncount_attempt()  # it goes on with the others on another connection: that is no further try
        if connection.client.protocol.farewell is None:
            self._health.message_done()
        else:
            self._health.connection_failed()

    def _note_farewell(self, report: DeliveryReport, may_be_stale: bool) -> None:
        """Count a 421 that ended the session as a failed connection, unless it crossed our MAIL."""
        stage = farewell_at(report)
        if stage is not None and not (may_be_stale and stage is Stage.MAIL):
            self._health.connection_failed()

    async def _serve_with_others(self, attempt: Attempt, connection: PooledConnection, scope: trio.CancelScope) -> None:
        """Serve a message, and others in flight with it where ``pipeline_depth`` and the connection allow it."""
        client, riding = connection.client, self._riding
        if (
            not connection.sent
            or attempt.is_alone
            or not client.protocol.pipelining
            or not client.has_just_answered
            or not riding.is_borne_by(connection.route)
        ):
            await self._serve(attempt, connection, scope)
            return

        def take() -> Attempt | None:
            if self._why_close(connection) or not riding.is_borne_by(connection.route):
                return None
            return self._dispatcher.take()

        pipeline = Pipeline(connection, self._config.pipeline_depth, take, self._health, riding, self._tracer)
        try:
            await pipeline.run(attempt)
            self._attempt = pipeline.latest
            if client.protocol.farewell is not None and pipeline.farewell_at is not Stage.MAIL:
                self._health.connection_failed()  # at MAIL it may have had its messages
            while pipeline.to_send_alone:
                if connection.retired or connection.client.is_broken:
                    self._give_back(pipeline.take_all_alone())
                else:
                    self._attempt = alone = pipeline.take_alone()
                    await self._serve(alone, connection, None)
        finally:
            for alone in pipeline.take_all_alone():  # unless this task is being cancelled, there is none
                alone.close()

    # -- the connection

    def _why_close(self, connection: PooledConnection) -> str:
        """Why this connection is not to be used for another message; ``""`` if it may be."""
        if reason := connection.why_close():
            return reason
        if self._dispatcher.is_closing:
            return "the pool is closing"
        return "there are too many" if self._dispatcher.has_too_many else ""

    async def _open(self) -> PooledConnection | None:
        """Open the connection; ``None``: it could not be, or is not wanted any more."""
        dispatcher = self._dispatcher
        try:
            with self._opening:
                if self._rate_limit is not None and dispatcher.is_awaited:
                    # Before it is opened: no task reads from it, meanwhile, to see what the server does.
                    self._start = await self._rate_limit.start()
                    if not dispatcher.is_awaited:
                        self._return_start()
                        return None
                self._connection = await self._connector.connect()
        except Exception as exc:
            attempt = dispatcher.opening_failed(self)
            if attempt is not None:
                attempt.finish(exc)
            else:
                self._note_failure(exc)
            return None
        except BaseException:
            attempt = dispatcher.opening_failed(self)
            if attempt is not None:
                attempt.close()
            raise
        if self._connection is not None:
            dispatcher.opened(self)
            self._state = _BUSY
        return self._connection

    def _note_failure(self, error: Exception) -> None:
        """No message was to have the connection, which could not be opened."""
        if isinstance(error, SMTPError | OSError):
            logger.debug("pool: no connection to keep: %s", error)
        else:  # of the host callable or a token provider
            logger.error("pool: no connection to keep", exc_info=error)
        self._health.warming_failed()

    def _return_start(self) -> None:
        """No message is begun by the start that was counted, if one was."""
        if self._start is not None:
            assert self._rate_limit is not None
            self._rate_limit.take_back(self._start)
            self._start = None

    async def _rest(self, connection: PooledConnection) -> Attempt | None:
        """Be idle until there is an attempt; ``None``: there is something else to see to."""
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
            reason = connection.why_close() or ("it was idle" if dispatcher.can_spare else "")
        finally:
            self._state = _BUSY
            self._attempt = attempt = dispatcher.unpark(self)
        if not reason:
            return attempt
        if connection.client.is_broken and not connection.sent and attempt is None:
            self._health.warming_failed(trio.current_time() - connection.opened_at)
        connection.retire(reason)
        if attempt is not None:
            connection.abort()  # a message waits: no QUIT
            self._give_back([attempt])
        return None

    async def _close(self, connection: PooledConnection, reason: str) -> None:
        """Say QUIT if the server will listen, and close; never raises."""
        self._connection = None
        await self._connector.close(connection, reason)
