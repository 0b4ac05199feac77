# The pool's public face: the caller's side of a message, from the call to its result or its error.
#
# A call makes an Attempt for each try, gives it to the dispatcher, waits for its outcome, and decides with retry.py
# whether there is another. It guarantees that each call returns or raises once, and that what it says of the message is
# true of all its tries. It does not know connections.
from __future__ import annotations

import email.message
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from threading import local
from typing import Any, Final

import trio

from .._client.client import message_envelope
from .._client.content import ContentLike
from .._client.message import Message, Params
from .._client.report import DeliveryReport, SendResult
from .._client.signing import Signing
from .._client.steps import Steps, given_params
from .._protocol.errors import (
    Delivery,
    SMTPError,
)
from .._public import NoPublicConstructor
from .attempt import Attempt
from .bulk import J, Outcomes, send_many
from .config import PoolConfig
from .connector import Connector
from .dispatcher import Dispatcher, closed_error
from .health import ServerHealth
from .loan import Loan, errand
from .retry import DEAD, Retry
from .statistics import PoolStatistics
from .stepped import SteppedMessage
from .trace import Tracer, fate_by

_SLACK: Final = 5.0  # seconds beyond end_grace in which a worker must have come to its end


class _Here(local):
    """The dispatcher, in the thread of the run of Trio that has opened the pool, and nothing in another one.

    A thread has one run at a time. To look here is no call, unlike to ask which run it is.
    """

    dispatcher: Dispatcher


class Pool(metaclass=NoPublicConstructor):
    """Connections to a server, shared by any number of tasks; made by :func:`open_pool`.

    The tasks are those of the run of Trio in which it was opened. Another thread sends by ``trio.from_thread.run``; in
    a run of its own, what waits for the pool raises RuntimeError.
    """

    __slots__ = (
        "__weakref__",
        "_all_done",
        "_begun",
        "_calls",
        "_config",
        "_connector",
        "_dispatcher",
        "_end_grace",
        "_failed",
        "_health",
        "_here",
        "_retried",
        "_sent",
        "_signing",
        "_tracer",
    )

    _all_done: trio.Event | None
    _begun: int
    _calls: int
    _config: PoolConfig
    _connector: Connector
    _dispatcher: Dispatcher
    _end_grace: float
    _failed: int
    _health: ServerHealth
    _here: _Here
    _retried: int
    _sent: int
    _signing: Signing | None
    _tracer: Tracer

    @classmethod
    def _create(
        cls,
        dispatcher: Dispatcher,
        health: ServerHealth,
        connector: Connector,
        config: PoolConfig,
        tracer: Tracer,
        end_grace: float,
        signing: Signing | None,
    ) -> Pool:
        self = cls.__new__(cls)
        self._dispatcher = dispatcher
        self._here = _Here()
        self._here.dispatcher = dispatcher
        self._health = health
        self._connector = connector
        self._config = config
        self._tracer = tracer
        self._end_grace = end_grace
        self._signing = signing
        self._all_done = None
        self._begun = self._calls = self._sent = self._failed = self._retried = 0
        tracer.belong_to(self)
        return self

    def __repr__(self) -> str:
        now = self._dispatcher
        return (
            f"<trio_smtp.Pool {self._health}: {now.connections} of {now.limit} connections ({now.idle} idle), "
            f"{self._calls - now.waiting} in flight, {now.waiting} waiting{', closed' if now.is_closing else ''}>"
        )

    async def send(
        self,
        sender: str,
        recipients: Iterable[str],
        content: ContentLike,
        *,
        mail_params: Params | None = None,
        rcpt_params: Mapping[str, Params] | None = None,
        before_end: Callable[[], Awaitable[object]] | None = None,
        transcript: Callable[[str], None] | None = None,
    ) -> SendResult:
        """Send one message on an idle or a new connection, or wait for one.

        If nothing can have been accepted and the content can be produced again, the message is tried again on a new
        connection, at most ``connect_retries`` times, after growing delays.

        Arguments are those of :meth:`Client.send`. Each try awaits `before_end`, once, and what it raises is not tried
        again. Each is in the `transcript`.

        Raises:
            PoolFullError: more than ``max_waiting`` callers would wait.
            PoolClosedError: the pool's block was left or cancelled; ``delivery`` is the fate of the message.
            SMTPError: as :meth:`Client.send`; also what :func:`open_client` raises, with ``delivery == "not_sent"``.
            Exception: what `before_end`, or an async iterable, raises.

        Cancellation: while it waits, its message is withdrawn. In the middle of a message the connection is closed.
        After the end of the message: waits for the reply for at most ``end_grace`` seconds and returns the result if it
        comes, else raises ``trio.Cancelled``, and the fate of the message is unknown.
        """
        message = Message(sender, recipients, content, mail_params, rcpt_params, before_end, self._signing, transcript)
        await trio.lowlevel.checkpoint_if_cancelled()
        return await self._deliver(message)

    async def send_message(
        self,
        message: email.message.Message[Any, Any],
        *,
        sender: str | None = None,
        recipients: Iterable[str] | None = None,
        mail_params: Params | None = None,
        rcpt_params: Mapping[str, Params] | None = None,
        before_end: Callable[[], Awaitable[object]] | None = None,
        transcript: Callable[[str], None] | None = None,
    ) -> SendResult:
        """Send an ``EmailMessage`` to the recipients that it names, as :meth:`Client.send_message`.

        Arguments are those of :meth:`Client.send_message`.

        Raises and cancellation: as :meth:`send`.
        """
        sender, recipients = message_envelope(message, sender, recipients)
        return await self.send(
            sender,
            recipients,
            message,
            mail_params=mail_params,
            rcpt_params=rcpt_params,
            before_end=before_end,
            transcript=transcript,
        )

    def send_many(self, jobs: Iterable[J] | AsyncIterable[J]) -> AbstractAsyncContextManager[Outcomes[J]]:
        """Send any number of messages in bounded memory: ``async with pool.send_many(jobs) as outcomes``.

        Args:
            jobs: an iterable or async iterable of ``(sender, recipients, content)`` or ``EmailMessage``, taken as
                connections become free.

        The block's value is an async iterable of :class:`Outcome`, as they come, not in the order of the jobs. What
        a message raises is in its outcome; what `jobs` raises comes out of the iteration, after the outcomes
        of the messages before it.

        Leaving the block without having asked for an outcome sends all jobs, and raises the errors as a group. Leaving
        it after some outcomes were read gives up the rest: no further job is taken, and what is being sent is ended, as
        cancellation does.

        Raises:
            TypeError: `jobs` is not iterable; on entering the block.
            ExceptionGroup: what messages, the first 1000 of them, and `jobs` have raised; on leaving a block that asked
                for no outcome.
            trio.ClosedResourceError: from the iteration, once the block was left.
        """
        tasks = self._config.max_connections * self._config.pipeline_depth
        return send_many(self._deliver, jobs, tasks, self._signing)

    def statistics(self) -> PoolStatistics:
        """The pool's state and what it has done so far."""
        now = self._dispatcher
        return PoolStatistics(
            connections=now.connections,
            idle=now.idle,
            limit=now.limit,
            waiting=now.waiting,
            in_flight=self._calls - now.waiting,
            sent=self._sent,
            failed=self._failed,
            retried=self._retried,
            opened=self._connector.opened,
        )

    async def drain(self) -> None:
        """Wait until no message is waiting or in flight. The pool stays usable; cancellation changes nothing."""
        await trio.lowlevel.checkpoint()
        self._check_run()
        while self._calls:
            if self._all_done is None:
                self._all_done = trio.Event()
            await self._all_done.wait()

    def _check_run(self) -> None:
        if not hasattr(self._here, "dispatcher"):
            raise _elsewhere()

    # -- one message

    async def _deliver(self, message: Message, *, patient: bool = False) -> SendResult:
        """Try until no recipient remains or an error says that it is of no use: :meth:`send` for a checked message.

        Args:
            message: what to send.
            patient: wait even beyond ``max_waiting``.
        """
        try:
            dispatcher = self._here.dispatcher
        except AttributeError:
            raise _elsewhere() from None
        error: Exception | None = None
        retry: Retry | None = None
        self._calls += 1
        self._begun += 1
        number = self._begun
        report = DeliveryReport(message, origin=(self, number))
        started = trio.current_time() if self._tracer.is_on else 0.0
        try:
            attempt: Attempt | None = Attempt(report, number=number)
            while attempt is not None:
                if not dispatcher.submit(attempt):
                    await dispatcher.queue(attempt, patient=patient)
                try:
                    await attempt.wait()
                except trio.Cancelled:  # noqa: ASYNC103 - met again at the caller's next checkpoint
                    if dispatcher.withdraw(attempt):
                        raise
                    if not await self._give_up(attempt):  # noqa: ASYNC102 - shielded and bounded
                        raise
                if attempt.error is None and not report.refused:
                    break
                retry = retry or Retry(self._config)
                attempt = await self._next_attempt(attempt, retry)
        except Exception as exc:
            error = exc
        except BaseException as exc:
            fate = fate_by(exc, report.transaction)
            self._tracer.tell("message", started, error=exc, message=number, fate=fate)
            raise
        finally:
            self._end_call()
        try:
            result = report.outcome(error)
        except Exception as exc:
            self._failed += 1
            fate = fate_by(exc, report.transaction)
            failure = None if fate[0] is Delivery.REFUSED else exc
            self._tracer.tell("message", started, error=failure, message=number, fate=fate)
            raise
        self._sent += 1
        if self._tracer.is_on:
            self._tracer.tell("message", started, message=number, fate=(None, result.reply.code))
        return result

    def _end_call(self) -> None:
        self._calls -= 1
        if self._all_done is not None and not self._calls:
            self._all_done.set()
            self._all_done = None

    async def _give_up(self, attempt: Attempt) -> bool:
        """Cancelled in the middle of a try: give it up; whether the message was sent all the same."""
        with trio.move_on_after(self._end_grace + _SLACK, shield=True):
            return await attempt.cancel(self._end_grace)
        return False

    async def _next_attempt(self, last: Attempt, retry: Retry) -> Attempt | None:
        """What follows a try that left recipients without the message: another one, after a delay, or none.

        Raises:
            Exception: the error of the last one, where another would be of no use.
            PoolClosedError: the pool was closed meanwhile.
        """
        report, error = last.report, last.error
        if error is None:
            delay = retry.after_refusal(report) if last.is_wanted else None
            if delay is None:
                return None
            report.readmit_temporary()
        else:
            delay = retry.after_error(error, report)
            if delay is None:
                raise error
            assert isinstance(error, SMTPError)
            report.begin_again(error)
        await self._pause(delay, error, last.number)
        return Attempt(report, fresh=last.fresh or error is not None, number=last.number, loan=last.loan)

    # -- a message in steps

    async def _begin(self, sender: str, params: Mapping[str, str | None]) -> SteppedMessage:
        """Begin a message whose recipients and text come later: MAIL, on a connection of its own until it is closed.

        A connection that turns out to be dead, or to have had its share, costs nothing: MAIL is said on another.

        Args:
            sender: the reverse path.
            params: of MAIL, as a client has given them; see :func:`given_params`.

        Raises:
            PoolFullError, PoolClosedError: nothing was sent.
            SMTPError: as :meth:`send`, with ``delivery == "not_sent"``. A refusal is no error: see ``reply``.

        Cancellation: the connection is closed, if MAIL is on its way.
        """
        tries = self._config.connect_retries
        fresh = False
        self._begun += 1
        number = self._begun
        while True:
            loan = await self._borrow(fresh=fresh)
            assert loan.connection is not None
            client = loan.connection.client
            steps = Steps(client, sender, given_params(params, client), origin=(self, number))
            message = SteppedMessage(loan, steps, self._tracer, number, self._count)
            try:
                await message.begin()
            except DEAD as exc:
                message.close()
                if not (loan.may_be_stale and tries):
                    exc.delivery = Delivery.NOT_SENT
                    raise
            except BaseException:
                message.close()
                raise
            else:
                if not (loan.may_be_stale and tries and message.is_about_connection):
                    return message
                loan.connection.abort()
                message.close()
            tries -= 1
            fresh = True

    async def _borrow(self, *, fresh: bool) -> Loan:
        """A connection to be given back."""
        self._check_run()
        await trio.lowlevel.checkpoint_if_cancelled()
        loan, retry = Loan(self._end_call), Retry(self._config)
        attempt = Attempt(errand(), fresh=fresh, loan=loan)
        self._calls += 1
        try:
            while True:
                if not self._dispatcher.submit(attempt):
                    await self._dispatcher.queue(attempt)
                await attempt.wait()
                if attempt.error is None:
                    return loan
                following = await self._next_attempt(attempt, retry)
                assert following is not None
                attempt = following
        except BaseException as exc:
            loan.give_back()
            if isinstance(exc, trio.Cancelled) and not self._dispatcher.withdraw(attempt):
                await self._give_up(attempt)  # noqa: ASYNC102 - shielded and bounded
            raise

    def _count(self, error: Exception | None) -> None:
        """A message in steps came to its end, or to this error."""
        if error is None:
            self._sent += 1
            self._health.message_done()
        else:
            self._failed += 1

    async def _pause(self, delay: float, error: Exception | None, number: int) -> None:
        """Wait before the next try of this message; the pool's closing ends it."""
        self._retried += 1
        self._tracer.note("retry", delay, error=error, message=number)
        with trio.move_on_after(delay):
            await self._dispatcher.closed.wait()
        if self._dispatcher.is_closing:
            if isinstance(error, SMTPError) and error.delivery is Delivery.UNKNOWN:
                raise error
            raise closed_error() from error


def _elsewhere() -> RuntimeError:
    """The error for a task of another run: it would wake the pool's tasks in its own, where they must not run."""
    return RuntimeError(
        "the pool was opened in another run of Trio, in another thread:"
        " trio.from_thread.run(pool.send, ..., trio_token=...) sends there"
    )
