# Prometheus' side: the numbers of the tally, when a scrape asks for them.
from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import Final

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from trio_smtp import ClientEvent, ServerEvent, TraceEvent
from trio_smtp.outbox import OutboxEvent

from ._metrics import METRICS, Kind, Metric
from ._tally import Labels, Tally, Values


class Buckets:
    """A histogram with fixed buckets.

    Args:
        bounds: theirs, in seconds.
    """

    __slots__ = ("_bounds", "_counts", "_total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds: tuple[float, ...] = bounds
        self._counts: list[int] = [0] * (len(bounds) + 1)
        self._total: float = 0.0

    def observe(self, seconds: float) -> None:
        """One more."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._total += seconds

    def read(self) -> tuple[list[tuple[str, float]], float]:
        """The buckets, each with those before it, and the sum."""
        buckets: list[tuple[str, float]] = []
        count = 0
        counts, total = self._counts.copy(), self._total
        for bound, number in zip((*map(str, self._bounds), "+Inf"), counts, strict=True):
            count += number
            buckets.append((bound, count))
        return buckets, total


class Prometheus:
    """The ``trace`` of servers, clients, pools and outboxes that counts for Prometheus.

    It registers one collector, whose metrics begin with ``smtp_server_``, ``smtp_client_``, ``smtp_pool_`` and
    ``smtp_outbox_``; docs/observing.md lists them. Labels have few values, whatever peers send. It is called by the
    tasks of one Trio run and may be read by any thread.

    Args:
        registry: where the collector is registered; by default ``prometheus_client.REGISTRY``.

    Raises:
        ValueError: the registry has these metrics already. One object is enough for any number of servers and pools.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._histograms: dict[Metric, dict[Labels, Buckets]] = {}
        self._tally = Tally(self._make)
        self._takes = self._tally.takes
        self._commands = self._tally.commands
        self._hooks = self._tally.hooks
        self._registry: CollectorRegistry = REGISTRY if registry is None else registry
        self._registry.register(_Collector(self._tally, self._histograms))

    def __repr__(self) -> str:
        return f"<trio_smtp.telemetry.Prometheus: {self._tally!r}>"

    def __call__(self, event: ServerEvent | ClientEvent | TraceEvent | OutboxEvent) -> None:
        """Count an event.

        Raises:
            KeyError: it is none.
        """
        if event[0] == "command":  # most are, and a call less for each is felt
            self._commands[type(event)][event.verb, event.code] += 1
        elif event[0] == "hook" and event.error is None:
            self._hooks[event.detail].observe(event.seconds)
        else:
            self._takes[type(event)][event[0]](event)

    def _make(self, metric: Metric, labels: Labels) -> Buckets:
        made = Buckets(metric.buckets)
        by_labels = self._histograms.get(metric, {})
        self._histograms[metric] = {**by_labels, labels: made}  # a new dict: a scrape may be reading the old one
        return made


class _Collector(Collector):
    """What a registry asks; it holds no more than that needs.

    Args:
        tally: the counters and gauges.
        histograms: the histograms.
    """

    def __init__(self, tally: Tally, histograms: dict[Metric, dict[Labels, Buckets]]) -> None:
        self._tally = tally
        self._histograms = histograms

    def describe(self) -> Iterator[_Family]:
        """The names, so that a registry notices those that it has already."""
        return (_family(metric) for metric in METRICS)

    def collect(self) -> Iterator[_Family]:
        """All metrics with their values now."""
        values = self._tally.values()
        for metric in METRICS:
            family = _family(metric)
            if isinstance(family, HistogramMetricFamily):
                for labels, histogram in self._histograms.get(metric, {}).items():
                    buckets, total = histogram.read()
                    family.add_metric(labels, buckets, total)
            else:
                _fill(family, values[metric.name])
            yield family


_Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily
_FAMILIES: Final = {
    Kind.COUNTER: CounterMetricFamily,
    Kind.GAUGE: GaugeMetricFamily,
    Kind.HISTOGRAM: HistogramMetricFamily,
}


def _family(metric: Metric) -> _Family:
    family: _Family = _FAMILIES[metric.kind](metric.name, metric.text, labels=metric.labels)
    return family


def _fill(family: CounterMetricFamily | GaugeMetricFamily, values: Values) -> None:
    for labels, value in sorted(values.items()):
        family.add_metric(labels, value)
