# OpenTelemetry's side: the numbers of the tally as observable instruments, and a span for each message.
#
# Events tell of what is over, so spans are made when they end, with the time at which they began. A pool's message is
# told of after its tries, and a try after the client's transactions for it: they are kept until then, and become
# children.
#
# Guarantee: what is kept of messages that are never told of, of a pool that was cancelled for example, is bounded.
from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Histogram, MeterProvider, Observation, get_meter
from opentelemetry.trace import (
    Span,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    TracerProvider,
    get_tracer,
    set_span_in_context,
)

from trio_smtp import ClientEvent, ServerEvent, TraceEvent, __version__
from trio_smtp.outbox import OutboxEvent

from ._metrics import METRICS, Kind, Metric
from ._tally import Labels, Tally, delivery_word
from ._words import outcome_word

SCOPE: Final = "trio_smtp"
RECEIVE: Final = "smtp.receive"
TRANSACTION: Final = "smtp.transaction"
SEND: Final = "smtp.send"
ATTEMPT: Final = "smtp.attempt"
_OF_SPANS: Final = ("message", "send", "connect", "retire")  # events that are spans, or belong to one
_PROTOCOL: Final = {"network.protocol.name": "smtp"}
MAX_KEPT: Final = 10_000  # messages whose tries are kept, and as many whose transactions are

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True)
class _Transaction:
    """A client's transaction for a pool's message, kept until that message's try is over."""

    event: ClientEvent
    ended: int  # nanoseconds since the epoch

    @property
    def began(self) -> int:
        return self.ended - _nanoseconds(self.event.seconds)


@dataclass(frozen=True)
class _Try:
    """A try of a pool's message, kept until the message is over."""

    event: TraceEvent
    ended: int  # nanoseconds since the epoch
    attributes: Mapping[str, str | int]
    transactions: Sequence[_Transaction]

    @property
    def began(self) -> int:
        # As of a message and its tries: see _end_message().
        own = self.ended - _nanoseconds(self.event.seconds)
        return min([own, *(each.began for each in self.transactions)])


class _Kept(Generic[K, V]):
    """Lists of what waits for something else to end, by what that is.

    Of more than MAX_KEPT the oldest is given up.
    """

    def __init__(self) -> None:
        self._lists: dict[K, list[V]] = {}

    def add(self, key: K, value: V) -> None:
        """Keep one more."""
        if len(self._lists) >= MAX_KEPT and key not in self._lists:
            del self._lists[next(iter(self._lists))]
        self._lists.setdefault(key, []).append(value)

    def take(self, key: K) -> list[V]:
        """Those of one key, which are not kept any more."""
        return self._lists.pop(key, [])


class _Recorder:
    """A histogram of OpenTelemetry with its attributes."""

    __slots__ = ("_attributes", "_histogram")

    def __init__(self, histogram: Histogram, attributes: Mapping[str, str]) -> None:
        self._histogram: Histogram = histogram
        self._attributes: Mapping[str, str] = attributes

    def observe(self, seconds: float) -> None:
        """One more."""
        self._histogram.record(seconds, self._attributes)


class OpenTelemetry:
    """The ``trace`` of servers, clients, pools and outboxes that makes OpenTelemetry's metrics and spans.

    A span for each message that a server has received (``smtp.receive``), that a client has sent in a transaction
    (``smtp.transaction``), and that was given to a pool (``smtp.send``, a child of the caller's span), with a child for
    each try (``smtp.attempt``), whose children are the transactions on the pool's connections. docs/observing.md lists
    attributes and metrics. It is called by the tasks of one Trio run.

    Args:
        tracer_provider: makes the spans; by default the global one.
        meter_provider: makes the metrics; by default the global one.
    """

    def __init__(
        self, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
    ) -> None:
        self._tracer: Tracer = get_tracer(SCOPE, __version__, tracer_provider)
        self._tally = Tally(self._make)
        self._takes = self._tally.takes
        self._spans = _Spans(self._tracer)
        self._histograms: dict[str, Histogram] = {}
        meter = get_meter(SCOPE, __version__, meter_provider)
        for metric in METRICS:
            if metric.kind is Kind.HISTOGRAM:
                made = meter.create_histogram(metric.otel, unit="s", description=metric.text)
                self._histograms[metric.name] = made
            elif metric.kind is Kind.COUNTER:
                meter.create_observable_counter(metric.otel, [self._observer(metric)], description=metric.text)
            else:
                meter.create_observable_up_down_counter(metric.otel, [self._observer(metric)], description=metric.text)

    def __repr__(self) -> str:
        return f"<trio_smtp.telemetry.OpenTelemetry: {self._tally!r}>"

    def __call__(self, event: ServerEvent | ClientEvent | TraceEvent | OutboxEvent) -> None:
        """Count an event, and make a span if it is a message's.

        Raises:
            KeyError: it is none.
        """
        self._takes[type(event)][event[0]](event)
        if event[0] in _OF_SPANS and not isinstance(event, OutboxEvent):
            self._spans.take(event)

    def _make(self, metric: Metric, labels: Labels) -> _Recorder:
        return _Recorder(self._histograms[metric.name], dict(zip(metric.labels, labels, strict=True)))

    def _observer(self, metric: Metric) -> Callable[[CallbackOptions], Iterator[Observation]]:
        def observe(options: CallbackOptions) -> Iterator[Observation]:
            for labels, value in self._tally.values()[metric.name].items():
                yield Observation(value, dict(zip(metric.labels, labels, strict=True)))

        return observe


class _Spans:
    """Spans from events.

    Args:
        tracer: makes them.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._tries: _Kept[tuple[object, int], _Try] = _Kept()  # of a pool and a message, so far
        self._transactions: _Kept[tuple[object, int], _Transaction] = _Kept()  # likewise, of the try in progress
        self._hosts: dict[object, dict[int, str]] = {}  # of pools that tell: connection, to where it leads

    def take(self, event: ServerEvent | ClientEvent | TraceEvent) -> None:
        """Make a span of an event if there is one to be made."""
        if isinstance(event, TraceEvent):
            self._take_pools(event)
        elif event.name == "message":
            now = time.time_ns()
            if isinstance(event, ServerEvent):
                began = now - _nanoseconds(event.seconds)
                self._make(RECEIVE, SpanKind.SERVER, event, _of_session(event), began, now)
            elif event.pool_message is not None and event.pool_message[0] in self._hosts:
                self._transactions.add(event.pool_message, _Transaction(event, now))
            else:
                self._make(TRANSACTION, SpanKind.CLIENT, event, _PROTOCOL, now - _nanoseconds(event.seconds), now)

    def _make(
        self,
        name: str,
        kind: SpanKind,
        event: ServerEvent | ClientEvent,
        attributes: Mapping[str, str | int],
        began: int,
        ended: int,
        context: Context | None = None,
    ) -> None:
        more: dict[str, str | int] = {
            "smtp.verb": event.verb,
            "smtp.reply.code": event.code,
            "smtp.message.size": event.octets,
            "smtp.outcome": outcome_word(event.code),
        }
        span = self._tracer.start_span(name, context, kind, {**attributes, **more}, start_time=began)
        is_refused = kind is SpanKind.CLIENT and event.code >= 400
        _judge(span, event.error, event.code if is_refused else 0)
        span.end(ended)

    def _take_pools(self, event: TraceEvent) -> None:
        key = (event.pool, event.message)
        if event.name == "connect" and event.error is None:
            self._hosts.setdefault(event.pool, {})[event.connection] = event.detail
        elif event.name == "retire":
            hosts = self._hosts.get(event.pool, {})
            hosts.pop(event.connection, None)
            if not hosts:
                self._hosts.pop(event.pool, None)
        elif event.name == "send":
            host = self._hosts.get(event.pool, {}).get(event.connection, "")
            attributes = _PROTOCOL | _of_host(host) | {"smtp.pool.connection": event.connection}
            self._tries.add(key, _Try(event, time.time_ns(), attributes, self._transactions.take(key)))
        elif event.name == "message":
            self._end_message(event, self._tries.take(key))

    def _end_message(self, event: TraceEvent, tries: list[_Try]) -> None:
        now = time.time_ns()
        number: Mapping[str, str | int] = {"smtp.pool.message": event.message, "smtp.attempts": len(tries)}
        # Tries were told of a moment after their end, and this is: none may seem to begin before its message.
        began = min([now - _nanoseconds(event.seconds), *(each.began for each in tries)])
        message = self._start(SEND, SpanKind.INTERNAL, event, began, number)
        context = set_span_in_context(message)
        for each in tries:
            child = self._start(ATTEMPT, SpanKind.CLIENT, each.event, each.began, each.attributes, context)
            within = set_span_in_context(child)
            for told in each.transactions:
                self._make(TRANSACTION, SpanKind.CLIENT, told.event, _PROTOCOL, told.began, told.ended, within)
            _judge(child, each.event.error, each.event.code)
            child.end(each.ended)
        _judge(message, event.error, event.code)
        message.end(now)

    def _start(
        self,
        name: str,
        kind: SpanKind,
        event: TraceEvent,
        began: int,
        attributes: Mapping[str, str | int],
        context: Context | None = None,
    ) -> Span:
        more: dict[str, str | int] = {"smtp.delivery": delivery_word(event), "smtp.reply.code": event.code}
        return self._tracer.start_span(name, context, kind, {**attributes, **more}, start_time=began)


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)


def _judge(span: Span, error: BaseException | None, code: int) -> None:
    """Say that it failed, if it did."""
    if error is not None:
        span.set_attribute("error.type", type(error).__qualname__)
        span.set_status(Status(StatusCode.ERROR, str(error)))
    elif code >= 400:
        span.set_attribute("error.type", str(code))
        span.set_status(Status(StatusCode.ERROR))


def _of_session(event: ServerEvent) -> dict[str, str | int]:
    session: Any = event.session
    attributes: dict[str, str | int] = {**_PROTOCOL, "smtp.session.id": session.id}
    if session.peer is not None:
        attributes |= {"network.peer.address": session.peer[0], "network.peer.port": session.peer[1]}
    return attributes


def _of_host(name: str) -> dict[str, str | int]:
    """A pool's host, with its port if it has one; an IPv6 address or a path as it is."""
    host, colon, port = name.rpartition(":")
    if colon and port.isdigit() and ":" not in host:
        return {"server.address": host, "server.port": int(port)}
    return {"server.address": name} if name else {}
