# What happens in a pool, as values: for logs, metrics and tests. No event is made unless a function was given for it.
from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

import trio

from .._client.report import DeliveryReport
from .._observer import Observer
from .._protocol.client.transaction import Transaction
from .._protocol.errors import Delivery, SMTPError

TraceName: TypeAlias = Literal["wait", "tls", "auth", "connect", "send", "message", "retry", "retire", "alone"]
"""The names of a :class:`TraceEvent`."""

Fate: TypeAlias = tuple[Delivery | None, int]  # the fields `delivery` and `code`


class TraceEvent(NamedTuple):
    """One thing that happened in a pool.

    Attributes:
        name: ``"wait"`` (a message was given to a connection after waiting for one), ``"tls"`` and
            ``"auth"`` (this part of connecting is over), ``"connect"`` (connecting as a whole is), ``"send"`` (a
            message's transaction is over), ``"message"`` (a whole message is, with all its tries), ``"retry"`` (a
            message will be tried again after `seconds`), ``"retire"`` (a connection is closed; `seconds` is its age),
            ``"alone"`` (a host does not bear envelopes behind the end of a message, and has one message at a time from
            now on).
        seconds: how long it took.
        connection: which connection, counted from 1; 0 for none.
        detail: the host, or why a connection was retired.
        error: what went wrong, or ``None``; a refusal is an answer, and no error here.
        pool: the :class:`Pool`.
        message: which message, counted from 1; 0 for none.
        delivery: of ``"send"`` and ``"message"``: what has become of it; ``None`` if a server has taken it.
        code: of ``"send"`` and ``"message"``: of the reply that says so; 0 if there was none.
    """

    name: TraceName
    seconds: float
    connection: int = 0
    detail: str = ""
    error: BaseException | None = None
    pool: Any = None
    message: int = 0
    delivery: Delivery | None = None
    code: int = 0


class Tracer:
    """Makes events for ``PoolConfig.trace``.

    Args:
        function: gets them; ``None``: none is made.

    Attributes:
        is_on: there is a function.
    """

    __slots__ = ("_observer", "_pool", "is_on")

    def __init__(self, function: Callable[[TraceEvent], None] | None) -> None:
        self._observer: Observer[TraceEvent] | None = None if function is None else Observer(function, "pool")
        self._pool: object = None
        self.is_on: bool = function is not None

    def belong_to(self, pool: object) -> None:
        """Name this pool in events from now on."""
        self._pool = pool

    def tell(
        self,
        name: TraceName,
        started: float,
        connection: int = 0,
        *,
        detail: str = "",
        error: BaseException | None = None,
        message: int = 0,
        fate: Fate = (None, 0),
    ) -> None:
        """Tell of something that began at `started` and is over."""
        if self._observer is not None:
            seconds = trio.current_time() - started
            self.note(name, seconds, connection, detail=detail, error=error, message=message, fate=fate)

    def note(
        self,
        name: TraceName,
        seconds: float = 0.0,
        connection: int = 0,
        *,
        detail: str = "",
        error: BaseException | None = None,
        message: int = 0,
        fate: Fate = (None, 0),
    ) -> None:
        """Tell of something that takes so long, or no time."""
        if self._observer is not None:
            event = TraceEvent(name, seconds, connection, detail, error, self._pool, message, *fate)
            self._observer.tell(event)


def fate_by(error: BaseException, transaction: Transaction | None) -> Fate:
    """What has become of a message that an error ended, in the middle of this transaction."""
    if isinstance(error, SMTPError) and error.delivery is not None:
        return error.delivery, 0 if error.reply is None else error.reply.code
    return Delivery.NOT_SENT if transaction is None else transaction.delivery, 0


def fate_of(transaction: Transaction) -> Fate:
    """What has become of a transaction that is over."""
    reply = transaction.reply or transaction.farewell
    if reply is None and transaction.refused:
        reply = next(iter(transaction.refused.values()))
    return transaction.delivery, 0 if reply is None else reply.code


def fate_since(report: DeliveryReport, accepted: int) -> Fate:
    """What has become of a try that came to its end.

    Args:
        report: the message's.
        accepted: recipients who had the message before.
    """
    if len(report.accepted) > accepted and report.reply is not None:
        return None, report.reply.code
    reply = report.error.reply if report.error is not None else None
    return Delivery.REFUSED, 0 if reply is None else reply.code
