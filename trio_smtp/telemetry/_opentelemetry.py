# OpenTelemetry's side: the numbers of the tally as observable instruments, and a span for each message.
#
# Events tell of what is over, so spans are made when they end, with the time at which they began. A pool's message is
# told of after its tries: these are kept until then, and become its children.
from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

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


@dataclass(frozen=True)
class _Try:
    """A try of a pool's message, kept until the message is over."""

    event: TraceEvent
    ended: int  # nanoseconds since the epoch
    attributes: Mapping[str, str | int]

    @property
    def began(self) -> int:
        return self.ended - _nanoseconds(self.event.seconds)


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
    """The ``trace`` of servers, clients and pools that makes OpenTelemetry's metrics and spans.

    A span for each message that a server has received (``smtp.receive``), that a client has sent in a transaction
    (``smtp.transaction``), and that was given to a pool (``smtp.send``, a child of the caller's span), with a child for
    each try (``smtp.attempt``). docs/observing.md lists attributes and metrics. It is called by the tasks of one Trio
    run.

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

    def __call__(self, event: ServerEvent | ClientEvent | TraceEvent) -> None:
        """Count an event, and make a span if it is a message's.

        Raises:
            KeyError: it is none.
        """
        self._takes[type(event)][event[0]](event)
        if event[0] in _OF_SPANS:
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
        self._tries: dict[tuple[object, int], list[_Try]] = {}  # pool and message, to its tries so far
        self._hosts: dict[tuple[object, int], str] = {}  # pool and connection, to where it leads

    def take(self, event: ServerEvent | ClientEvent | TraceEvent) -> None:
        """Make a span of an event if there is one to be made."""
        if isinstance(event, TraceEvent):
            self._take_pools(event)
        elif event.name == "message":
            if isinstance(event, ServerEvent):
                self._end(RECEIVE, SpanKind.SERVER, event, _of_session(event))
            else:
                self._end(TRANSACTION, SpanKind.CLIENT, event, _PROTOCOL)

    def _end(
        self, name: str, kind: SpanKind, event: ServerEvent | ClientEvent, attributes: Mapping[str, str | int]
    ) -> None:
        now = time.time_ns()
        more: dict[str, str | int] = {
            "smtp.verb": event.verb,
            "smtp.reply.code": event.code,
            "smtp.message.size": event.octets,
            "smtp.outcome": outcome_word(event.code),
        }
        span = self._tracer.start_span(
            name, kind=kind, attributes={**attributes, **more}, start_time=now - _nanoseconds(event.seconds)
        )
        is_refused = kind is SpanKind.CLIENT and event.code >= 400
        _judge(span, event.error, event.code if is_refused else 0)
        span.end(now)

    def _take_pools(self, event: TraceEvent) -> None:
        key = (event.pool, event.connection)
        if event.name == "connect" and event.error is None:
            self._hosts[key] = event.detail
        elif event.name == "retire":
            self._hosts.pop(key, None)
        elif event.name == "send":
            attributes = _PROTOCOL | _of_host(self._hosts.get(key, "")) | {"smtp.pool.connection": event.connection}
            attempt = _Try(event, time.time_ns(), attributes)
            self._tries.setdefault((event.pool, event.message), []).append(attempt)
        elif event.name == "message":
            self._end_message(event, self._tries.pop((event.pool, event.message), []))

    def _end_message(self, event: TraceEvent, tries: list[_Try]) -> None:
        now = time.time_ns()
        number: Mapping[str, str | int] = {"smtp.pool.message": event.message, "smtp.attempts": len(tries)}
        # Tries were told of a moment after their end, and this is: none may seem to begin before its message.
        began = min([now - _nanoseconds(event.seconds), *(each.began for each in tries)])
        message = self._start(SEND, SpanKind.INTERNAL, event, began, number)
        context = set_span_in_context(message)
        for each in tries:
            child = self._start(ATTEMPT, SpanKind.CLIENT, each.event, each.began, each.attributes, context)
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
