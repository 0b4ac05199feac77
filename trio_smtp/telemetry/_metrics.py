# The metrics there are: names, labels and what they count. docs/observing.md and the Grafana board are checked against
# this table.
#
# Guarantee: no label has more than a few values, whatever peers do: see _words.py.
from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

# Bounds of histograms in seconds: from a pipelined command to the ten minutes that RFC 5321 §4.5.3.2.6 gives the end of
# a message; and from a message that is sent at once to the five days that §4.5.4.1 has it kept.
BUCKETS: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0),
)
DAYS: Final = (
    0.1,
    0.5,
    1.0,
    5.0,
    10.0,
    30.0,
    60.0,
    300.0,
    900.0,
    3600.0,
    14400.0,
    43200.0,
    86400.0,
    172800.0,
    432000.0,
)


class Kind(Enum):
    """What a metric is."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: as Prometheus shows it.
        kind: what it is.
        labels: the names of its labels.
        text: what it counts.
        buckets: a histogram's bounds.
        otel: its name in OpenTelemetry.
    """

    name: str
    kind: Kind
    labels: tuple[str, ...]
    text: str
    buckets: tuple[float, ...] = BUCKETS

    @property
    def otel(self) -> str:
        """``smtp_server_hook_seconds`` is ``smtp.server.hook.duration``."""
        smtp, part, rest = self.name.removesuffix("_total").split("_", 2)
        if rest.endswith("_seconds"):
            rest = rest.removesuffix("_seconds") + ".duration"
        return f"{smtp}.{part}.{rest}"


def _counter(name: str, labels: tuple[str, ...], text: str) -> Metric:
    return Metric(f"{name}_total", Kind.COUNTER, labels, text)


def _gauge(name: str, text: str) -> Metric:
    return Metric(name, Kind.GAUGE, (), text)


def _seconds(name: str, labels: tuple[str, ...], text: str, buckets: tuple[float, ...] = BUCKETS) -> Metric:
    return Metric(f"{name}_seconds", Kind.HISTOGRAM, labels, text, buckets)


def _of_both(part: str) -> tuple[Metric, ...]:
    prefix = f"smtp_{part}"
    return (
        _counter(f"{prefix}_connections", (), "Connections that were opened."),
        _gauge(f"{prefix}_connections_open", "Connections that are open."),
        _counter(f"{prefix}_connections_closed", ("reason",), "Connections that have ended."),
        _counter(f"{prefix}_commands", ("verb", "code"), "Commands that were answered."),
        _counter(f"{prefix}_logins", ("mechanism", "code"), "AUTH exchanges."),
        _seconds(f"{prefix}_handshake", ("outcome",), "TLS handshakes."),
        _counter(f"{prefix}_messages", ("outcome", "code"), "Messages that have come to an end."),
        _seconds(f"{prefix}_message", ("outcome",), "How long messages took."),
        _counter(f"{prefix}_message_octets", (), "Octets of the content of messages."),
        _counter(f"{prefix}_recipients", ("outcome",), "RCPT commands that were answered."),
    )


METRICS: Final[tuple[Metric, ...]] = (
    *_of_both("server"),
    _counter("smtp_server_connections_refused", ("reason",), "Connections that got no session."),
    _seconds("smtp_server_hook", ("hook",), "How long hooks ran, without their waiting for message data."),
    _counter(
        "smtp_server_hook_failures",
        ("hook",),
        "Hooks that raised, took too long or returned what they may not; a Reject or a lost client is no failure.",
    ),
    *_of_both("client"),
    _seconds("smtp_client_connect", ("outcome",), "From the beginning of connecting to the greeting."),
    _gauge("smtp_pool_connections", "Connections that are open or being opened."),
    _gauge("smtp_pool_idle", "Connections that wait for a message."),
    _gauge("smtp_pool_waiting", "Messages that wait for a connection."),
    _gauge("smtp_pool_in_flight", "Messages that were begun and have not ended."),
    _counter("smtp_pool_messages", ("delivery",), "Messages that have come to an end, each counted once."),
    _seconds("smtp_pool_message", ("delivery",), "From the call of send() to its end, tries and waits included."),
    _counter("smtp_pool_attempts", ("delivery",), "Tries of messages."),
    _counter("smtp_pool_retries", (), "Messages that were to be tried again after a delay."),
    _seconds(
        "smtp_pool_wait", (), "How long messages waited for a connection; those that did not wait are not counted."
    ),
    _seconds("smtp_pool_connect", ("host", "outcome"), "Opening a connection, TLS and login included."),
    _counter("smtp_pool_connections_retired", (), "Connections that were closed."),
    _counter("smtp_outbox_entries", (), "Messages that were put."),
    _counter("smtp_outbox_attempts", ("state",), "Tries that are over, by the entry's state afterwards."),
    _seconds("smtp_outbox_attempt", ("state",), "How long tries took."),
    _counter("smtp_outbox_recipients", ("state",), "Recipients that came into a state other than queued and sending."),
    _seconds("smtp_outbox_entry", ("state",), "From put() until all recipients were settled.", DAYS),
    _counter("smtp_outbox_claims_lost", (), "Entries that another worker took over, since this one was too slow."),
    _counter("smtp_outbox_store_failures", (), "Uses of the store that failed, and were tried again."),
)
BY_NAME: Final = {metric.name: metric for metric in METRICS}
