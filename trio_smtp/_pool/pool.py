# The pool's public face: the caller's side of a message, from the call to its result or its error.
from __future__ import annotations

import email.message
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import trio

from .._client.cleanup import ShieldedCleanup
from .._client.client import message_envelope
from .._client.config import ClientConfig
from .._client.content import ContentLike
from .._client.message import Message, Params
from .._client.opening import Opening, TLSMode
from .._client.report import DeliveryReport, SendResult
from .._nursery import open_bare_nursery
from .._protocol.errors import Delivery, SMTPError
from .._protocol.proxy import ProxyHeader
from .._protocol.sasl import Auth
from .bulk import J, Outcomes, send_many
from .config import PoolConfig
from .desk import Desk, closed_error
from .errand import Errand
from .hosts import Hosts, HostsLike
from .retry import Retry

_SLACK = 5.0  # seconds beyond end_grace in which a connection's task must have come to its end


@asynccontextmanager
async def open_pool(
    host: HostsLike,
    port: int | None = None,
    *,
    config: PoolConfig | None = None,
    client_config: ClientConfig | None = None,
    max_connections: int | None = None,
    tls: TLSMode = "auto",
    ssl_context: ssl.SSLContext | None = None,
    auth: Auth | tuple[str, str] | None = None,
    local_hostname: str | None = None,
    allow_insecure_auth: bool = False,
    lmtp: bool = False,
    proxy_header: ProxyHeader | None = None,
) -> AsyncIterator[Pool]:
    """Open a pool of connections, for any number of tasks to send messages through.

    Connections are opened when there are messages to send, kept while they are good, and closed with QUIT.

    Args:
        host: a host's name; or several, or pairs of name and port, in order of preference; or an async callable that
            returns one of these and is asked for each new connection.
        port: 465 with ``tls="implicit"``, 24 with ``lmtp=True``, else 25, if not given.
        config: limits, retries and the like.
        client_config: of each connection.
        max_connections: instead of the configuration's.
        tls, ssl_context, auth, local_hostname, allow_insecure_auth, lmtp, proxy_header: as :func:`open_client`. A token
            provider is asked once for all connections.

    Leaving the block waits for messages in flight; callers still waiting for a connection get ``PoolClosedError``. An
    exception of the block comes out as it is. Cancelled, messages whose end has been handed over still get
    ``end_grace`` seconds for their reply; the others are given up.
    """
    settings = PoolConfig() if config is None else config
    if max_connections is not None:
        settings = replace(settings, max_connections=max_connections)
    opening = Opening(
        tls=tls,
        ssl_context=ssl_context,
        auth=auth,
        local_hostname=local_hostname,
        allow_insecure_auth=allow_insecure_auth,
        lmtp=lmtp,
        proxy_header=proxy_header,
        config=ClientConfig() if client_config is None else client_config,
    )
    hosts = Hosts(host, opening.port(port), settings.host_retry)

    def leave(nursery: trio.Nursery, failure: BaseException | None) -> None:
        desk.close()
        if failure is not None and not isinstance(failure, Exception):
            nursery.cancel_scope.cancel(reason="the pool's block was cancelled")

    async with open_bare_nursery(_stop) as keepers, open_bare_nursery(leave) as nursery:
        desk = Desk(hosts, opening, settings, nursery)
        keepers.start_soon(desk.timekeeper.run)
        if settings.min_idle:
            keepers.start_soon(desk.keep_warm)
        yield Pool(desk)


def _stop(nursery: trio.Nursery, failure: BaseException | None) -> None:
    nursery.cancel_scope.cancel()


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStatistics:
    """A pool at one moment, and what it has done so far.

    Attributes:
        connections: connections open or being opened.
        idle: those of them that have nothing to do.
        limit: how many there may be; less than ``max_connections`` while a server refuses more.
        waiting: callers waiting for a connection.
        in_flight: messages being sent, or waiting for another try.
        sent: messages accepted for somebody.
        failed: messages that ended in an error, refusals included.
        retried: tries beyond the first of each message.
        opened: connections opened or tried so far.
    """

    connections: int
    idle: int
    limit: int
    waiting: int
    in_flight: int
    sent: int
    failed: int
    retried: int
    opened: int


class Pool:
    """Connections to a server, shared by any number of tasks; made by :func:`open_pool`."""

    __slots__ = ("_all_done", "_calls", "_desk", "_failed", "_retried", "_sent")

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._all_done: trio.Event | None = None
        self._calls = 0
        self._sent = 0
        self._failed = 0
        self._retried = 0

    def __repr__(self) -> str:
        desk = self._desk
        return (
            f"<trio_smtp.Pool {desk.hosts}: {desk.connections} of {desk.limit} connections ({len(desk.idle)} idle), "
            f"{self._calls - desk.waiting} in flight, {desk.waiting} waiting{', closed' if desk.is_closing else ''}>"
        )

    async def send(
        self,
        sender: str,
        recipients: Iterable[str],
        content: ContentLike,
        *,
        mail_params: Params | None = None,
        rcpt_params: Mapping[str, Params] | None = None,
    ) -> SendResult:
        """Send one message, on a connection that is idle or new, or wait for one.

        The message is tried again by itself where nothing can have been accepted and the content can be produced again:
        on a new connection, at most ``connect_retries`` times, after growing delays.

        Args: as :meth:`Client.send`.

        Raises:
            PoolFullError: more than ``max_waiting`` callers would wait.
            PoolClosedError: the pool's block was left.
            SMTPError: as :meth:`Client.send`; also what :func:`open_client` raises, with ``delivery == "not_sent"``.

        Cancellation: while waiting it leaves no trace. In the middle of a message the connection is given up. After
        the end of the message: waits for the reply for at most ``end_grace`` seconds and returns the result if it
        comes, else raises ``trio.Cancelled`` with the fate of the message unknown.
        """
        return await self.deliver(Message(sender, recipients, content, mail_params, rcpt_params))

    async def send_message(
        self,
        message: email.message.Message[Any, Any],
        *,
        sender: str | None = None,
        recipients: Iterable[str] | None = None,
        mail_params: Params | None = None,
        rcpt_params: Mapping[str, Params] | None = None,
    ) -> SendResult:
        """Send an ``EmailMessage`` to whom its header says, as :meth:`Client.send_message`; see :meth:`send`."""
        sender, recipients = message_envelope(message, sender, recipients)
        return await self.send(sender, recipients, message, mail_params=mail_params, rcpt_params=rcpt_params)

    def send_many(self, jobs: Iterable[J] | AsyncIterable[J]) -> AbstractAsyncContextManager[Outcomes[J]]:
        """Send any number of messages in bounded memory: ``async with pool.send_many(jobs) as outcomes``.

        Args:
            jobs: an iterable or async iterable of ``(sender, recipients, content)`` or ``EmailMessage``, taken as
                connections get free.

        The block's value is an async iterable of :class:`Outcome`, as they come, not in the order of the jobs. What
        a message raises is in its outcome; what `jobs` raises comes out of the iteration, after the outcomes
        of the messages before it. Leaving the block early gives up what is being sent, as cancellation does.
        """
        return send_many(self.deliver, jobs, 2 * self._desk.config.max_connections * self._desk.config.pipeline_depth)

    def statistics(self) -> PoolStatistics:
        """The pool's state and what it has done so far."""
        desk = self._desk
        return PoolStatistics(
            connections=desk.connections,
            idle=len(desk.idle),
            limit=desk.limit,
            waiting=desk.waiting,
            in_flight=self._calls - desk.waiting,
            sent=self._sent,
            failed=self._failed,
            retried=self._retried,
            opened=desk.opened,
        )

    async def drain(self) -> None:
        """Wait until no message is waiting or in flight. The pool stays usable; cancellation changes nothing."""
        await trio.lowlevel.checkpoint()
        while self._calls:
            if self._all_done is None:
                self._all_done = trio.Event()
            await self._all_done.wait()

    # -- one message

    async def deliver(self, message: Message, *, patient: bool = False) -> SendResult:
        """:meth:`send` for a message that was checked (internal)."""
        await trio.lowlevel.checkpoint_if_cancelled()
        self._calls += 1
        report = DeliveryReport(message)
        try:
            try:
                await self._deliver(report, patient)
            except Exception as exc:
                result = report.outcome(exc)
            else:
                result = report.outcome(None)
        except Exception:
            self._failed += 1
            raise
        else:
            self._sent += 1
            return result
        finally:
            self._calls -= 1
            if not self._calls and self._all_done is not None:
                self._all_done.set()
                self._all_done = None

    async def _deliver(self, report: DeliveryReport, patient: bool) -> None:
        """Try, until nobody remains or an error says that it is of no use; the message knows the rest."""
        errand = Errand(report)
        retry = Retry(self._desk.config)
        while True:
            await self._desk.hand_over(errand, patient=patient)
            await self._hear_outcome(errand)
            error = errand.error
            delay = None
            if error is None:
                if report.refused and not errand.abandoned:
                    delay = retry.after_refusal(report)
                if delay is None:
                    return
                report.readmit_temporary()
            else:
                delay = retry.after_error(error, report)
                if delay is None:
                    raise error
                assert isinstance(error, SMTPError)
                report.begin_again(error)
                errand.fresh = True
            await self._pause(delay, error)
            errand.again()

    async def _hear_outcome(self, errand: Errand) -> None:
        """Wait for the outcome of one try.

        Cancelled here, the try is given up, unless the end of the message has left; then its reply may still
        come, and if it does this returns.
        """
        end_grace = self._desk.opening.config.end_grace

        async def give_up() -> bool:
            errand.abandoned = True
            if errand.has_left:
                # Its reply is all there is to wait for, and the connection's task may be cancelled together with us and
                # be waiting for it already: an interruption would take the reply from both.
                with trio.move_on_after(end_grace):
                    await errand.wait()
                if errand.connection is not None:
                    errand.connection.abort()  # it has had its time
            if not errand.is_finished and errand.abandon():
                await errand.wait()
            return errand.is_finished and errand.error is None and not errand.report.remaining

        async with ShieldedCleanup(end_grace + _SLACK, give_up, trio.Cancelled):
            await errand.wait()

    async def _pause(self, delay: float, error: Exception | None) -> None:
        """Wait before the next try; the pool's closing ends it."""
        desk = self._desk
        self._retried += 1
        desk.trace("retry", trio.current_time() - delay, error=error)
        with trio.move_on_after(delay):
            await desk.closed.wait()
        if desk.is_closing:
            if isinstance(error, SMTPError) and error.delivery is Delivery.UNKNOWN:
                raise error
            raise closed_error() from error
