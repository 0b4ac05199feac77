# One connection's task: it takes messages, opens a connection when it has one to send and none to send it on, keeps the
# connection while it is good, and is its only owner.
#
#   a message ─→ connect ─→ send ─→ a next message?  yes ─→ send …
#                                   no, and the connection is good ─→ idle, a reader parked on it
#                                        a message comes: send;  octets, FIN, too long, too old: close, the task ends
#
# Idle means parked in Transport.receive(), which sees a FIN, a 421 or garbage at once, under TLS too, and is woken for
# a message by interrupt(). Between looking for the next message and standing in the list of the idle there is no
# checkpoint, so no caller can find neither an idle connection nor room for a new one, and then wait in vain.
from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from .._client.connection import ClientConnection, deadline_after
from .._client.log import logger
from .._client.opening import open_connection
from .._client.sending import deliver, is_used_up
from .._protocol.errors import (
    AuthenticationError,
    ConnectError,
    ConnectionLostError,
    Delivery,
    PoolClosedError,
    RemoteProtocolError,
    SMTPError,
    SMTPTimeoutError,
    Stage,
)
from .._wire.transport import Interrupted
from .errand import Errand
from .hosts import Route
from .pipeline import Pipeline
from .retry import is_passing

if TYPE_CHECKING:
    from .._client.report import DeliveryReport
    from .desk import Desk

_AGE_JITTER: Final = 0.1  # of max_age
_CLOSING: Final = 5.0  # seconds; closing a broken connection takes none


class Slot:
    """The task of one connection, and of the next one when that has had its day.

    Attributes:
        connection: the connection, while there is one.
        route: where it leads.
        warming: around the opening of a connection that nobody waits for.
    """

    __slots__ = (
        "_dies_at",
        "_is_parked",
        "_may_be_stale",
        "_next",
        "_number",
        "_opened_at",
        "_pool",
        "_sent",
        "connection",
        "route",
        "warming",
    )

    def __init__(self, pool: Desk) -> None:
        self._pool = pool
        self._next: Errand | None = None
        self._is_parked = False
        self._number = 0
        self._opened_at = 0.0
        self._dies_at = math.inf
        self._sent = 0  # messages on this connection
        self._may_be_stale = False  # it has been idle, or had a message
        self.connection: ClientConnection | None = None
        self.route: Route | None = None
        self.warming = trio.CancelScope()

    async def run(self, errand: Errand | None) -> None:
        """Send messages until there are none and the connection is gone; without one, open a connection to have it."""
        pool = self._pool
        may_share = pool.config.pipeline_depth > 1 and pool.rate_limit is None
        try:
            if errand is None:
                await self._warm_up()
            else:
                await self._serve(errand)
            while True:
                if self.connection is not None and (reason := self._why_close(self.connection)):
                    await self._close(reason)
                errand = pool.take()
                if errand is None:
                    if self.connection is None:
                        return
                    errand = await self._park(self.connection)
                if errand is not None:
                    await (self._serve_with_others if may_share else self._serve)(errand)
        finally:
            self._leave_idle()
            if self._next is not None:  # given to us in the turn in which the pool was cancelled
                self._next.finish(PoolClosedError("the pool was cancelled", delivery=Delivery.NOT_SENT))
            if self.connection is not None:
                self.connection.abort()
                with trio.move_on_after(_CLOSING, shield=True):
                    await self._close("the pool was cancelled")
            pool.slot_ended(self)

    def assign(self, errand: Errand | None) -> None:
        """Wake an idle connection's task, with a message or to look around."""
        assert self.connection is not None
        self._next = errand
        if self._is_parked:
            self.connection.wire.interrupt()

    # -- messages

    async def _serve_with_others(self, errand: Errand) -> None:
        """Serve a message, and others in flight with it where ``pipeline_depth`` and the connection allow it."""
        pool, connection = self._pool, self.connection
        if connection is None or not connection.protocol.pipelining or not connection.has_just_answered:
            await self._serve(errand)
            return

        def take() -> Errand | None:
            more = None if self._why_close(connection) else pool.take()
            self._sent += more is not None
            return more

        started = trio.current_time()
        self._sent += 1
        connection.wire.forget_interruption()
        pipeline = Pipeline(connection, pool.config.pipeline_depth, take)
        try:
            await pipeline.run(errand)
            pool.trace("send", started, self._number, detail="pipeline")
            if connection.protocol.farewell is not None:
                pool.connection_failed()
            elif not connection.is_broken:
                pool.message_done()
            while pipeline.again:
                await self._serve(pipeline.again.pop(0))
        finally:
            for alone in [errand, *pipeline.again]:  # unless this task is being cancelled, there is none
                if not alone.is_finished:
                    alone.finish(PoolClosedError("the pool was cancelled", delivery=Delivery.NOT_SENT))

    async def _serve(self, errand: Errand) -> None:
        """One try of a message; whatever happens, its outcome is set."""
        try:
            await self._try(errand)
        except Exception as exc:
            errand.finish(exc)
        except BaseException:  # this task is being cancelled, and the caller may be elsewhere
            error = PoolClosedError("the pool was cancelled")
            errand.report.explain(error)
            errand.finish(error)
            raise
        else:
            errand.finish()

    async def _try(self, errand: Errand) -> None:
        report, rate_limit = errand.report, self._pool.rate_limit
        while report.remaining:  # again where an idle connection turned out dead, or its server's limits were reached
            if rate_limit is not None:  # before a connection is opened, which nobody would watch in the meantime
                await _cancellable(errand, rate_limit.start)
            if self.connection is not None and (self.connection.is_broken or is_used_up(self.connection, report)):
                await self._close("it is used up")
            if self.connection is None:
                await _cancellable(errand, self._open)
            if report.message.content.at_hand:
                await self._send(errand)
            else:
                await _cancellable(errand, lambda: self._send(errand))

    async def _send(self, errand: Errand) -> None:
        """Send on the connection there is. On one that was idle, its death before any answer costs nothing."""
        connection, report, pool = self.connection, errand.report, self._pool
        assert connection is not None
        if errand.abandoned:
            raise Interrupted
        may_be_stale, self._may_be_stale = self._may_be_stale, True
        self._sent += 1
        report.count_attempt()
        connection.wire.forget_interruption()  # of an errand whose caller gave up when its last reply came
        errand.connection = connection
        is_traced = pool.config.trace is not None
        started = trio.current_time() if is_traced else 0.0
        failure: BaseException | None = None
        try:
            await deliver(connection, report, stop_at_limit=True)
        except (ConnectionLostError, SMTPTimeoutError, RemoteProtocolError) as exc:
            failure = exc
            if not may_be_stale or errand.abandoned or report.is_spent or not _is_unanswered(report):
                raise
        except BaseException as exc:
            failure = exc
            raise
        finally:
            errand.connection = None
            if is_traced:
                pool.trace("send", started, self._number, error=failure)
        if failure is not None:
            report.forget_transaction()  # it came to nothing
            return
        if report.remaining:
            report.uncount_attempt()  # it goes on with the others on another connection: that is no further try
        if connection.protocol.farewell is None:
            pool.message_done()
        elif may_be_stale and _was_closed_while_idle(report):
            report.readmit_temporary()
        else:
            pool.connection_failed()

    # -- the connection

    async def _open(self) -> None:
        """Connect to the first host that will have us.

        Raises:
            SMTPError: the last one's.
        """
        pool = self._pool
        error: SMTPError | None = None
        for route in await pool.hosts.routes():
            started = trio.current_time()
            number = pool.count_connection()
            tell = partial(pool.trace, connection=number, detail=_name(route))
            try:
                self.connection = await open_connection(pool.opening, *route, wrap=pool.wrap, tell=tell)
            except SMTPError as exc:
                pool.trace("connect", started, number, detail=_name(route), error=exc)
                pool.connection_failed(route if not isinstance(exc, AuthenticationError) else None, exc)
                if isinstance(exc, AuthenticationError) and not is_passing(exc):
                    raise
                error = exc
                continue
            pool.trace("connect", started, number, detail=_name(route))
            pool.hosts.succeeded(route)
            self.route, self._number, self._sent = route, number, 0
            self._may_be_stale = False
            self._opened_at = trio.current_time()
            age = pool.config.max_age
            self._dies_at = math.inf if age is None else self._opened_at + age * random.uniform(1 - _AGE_JITTER, 1)
            return
        raise error if error is not None else ConnectError("there is no host to connect to")

    async def _warm_up(self) -> None:
        try:
            with self.warming:
                await self._open()
        except Exception as exc:  # of the host callable or a token provider, too: nobody waits for this connection
            if isinstance(exc, SMTPError | OSError):
                logger.debug("pool: no connection to keep: %s", exc)
            else:
                logger.exception("pool: no connection to keep")
            self._pool.warming_failed()

    def _why_close(self, connection: ClientConnection) -> str:
        """Why this connection is not to be used for another message; ``""`` if it may be."""
        pool = self._pool
        if connection.is_broken:
            return "it was lost"
        most = pool.config.max_messages
        if (most is not None and self._sent >= most) or connection.is_exhausted:
            return "it has had its messages"
        if self._dies_at < math.inf and trio.current_time() >= self._dies_at:
            return "it is old"
        if pool.is_closing:
            return "the pool is closing"
        return "there are too many" if pool.has_too_many else ""

    async def _park(self, connection: ClientConnection) -> Errand | None:
        """Wait with the connection for a message; ``None`` if it must look around, maybe without the connection."""
        pool, transport = self._pool, connection.wire
        try:
            pool.idle.append(self)
            self._may_be_stale = True
            # Whoever has just got his result may have another message, and is about to run: waiting for him costs 3 µs
            # a turn, waking the reader 15. Two turns, since Trio runs the tasks of one turn in any order.
            for _ in range(2):
                await trio.lowlevel.checkpoint()
                if self._next is not None or self not in pool.idle:
                    return self._take_next()
            idle_since = trio.current_time()
            transport.forget_interruption()
            self._is_parked = True
            data: bytes | bytearray = b""
            try:
                data = await transport.receive(min(deadline_after(pool.config.idle_timeout), self._dies_at))
                reason = "the server spoke" if data else "the server closed it"
            except Interrupted:
                reason = ""
            except SMTPTimeoutError:
                reason = "" if pool.keeps_warm and trio.current_time() < self._dies_at else "it was idle"
            except ConnectionLostError:
                reason = "it was lost"
        finally:
            self._is_parked = False
            self._leave_idle()
        if reason:
            if reason != "it was idle":
                connection.abort()
                if not self._sent and self._next is None:
                    pool.warming_failed(trio.current_time() - self._opened_at)
            logger.debug("%s: idle for %.1f s: %s %r", connection.name, trio.current_time() - idle_since, reason, data)
            await self._close(reason)
        return self._take_next()

    def _leave_idle(self) -> None:
        if self in self._pool.idle:
            self._pool.idle.remove(self)

    def _take_next(self) -> Errand | None:
        """The message that was assigned while we were idle, if one was."""
        errand, self._next = self._next, None
        return errand

    async def _close(self, reason: str) -> None:
        """Say QUIT if there is anybody to hear it and nobody waits for us, and close; never raises."""
        connection, self.connection = self.connection, None
        assert connection is not None
        self._pool.trace("retire", self._opened_at, self._number, detail=reason)
        if self._next is not None:
            connection.abort()
        await connection.aclose()


async def _cancellable(errand: Errand, work: Callable[[], Awaitable[None]]) -> None:
    """Do what only a cancel scope can end; the caller's :meth:`Errand.abandon` ends it.

    Raises:
        Interrupted: it did.
    """
    if errand.abandoned:
        raise Interrupted
    with trio.CancelScope() as scope:
        errand.scope = scope
        try:
            await work()
        finally:
            errand.scope = None
    if scope.cancelled_caught:
        raise Interrupted


def _is_unanswered(report: DeliveryReport) -> bool:
    """Nothing of the transaction that failed can have been accepted, since the server never answered its MAIL."""
    transaction = report.transaction
    return transaction is None or not (transaction.answered or transaction.ended)


def _was_closed_while_idle(report: DeliveryReport) -> bool:
    """MAIL was answered by a 421: it said farewell to an idle connection, and our MAIL crossed it on its way."""
    error = report.error
    return error is not None and error.stage is Stage.MAIL and error.reply is not None and error.reply.code == 421


def _name(route: Route) -> str:
    host, port = route
    return host if port is None else f"{host}:{port}"
