# The metrics there are: names, labels and what they count. docs/observing.md and the Grafana board are checked against
# this table.
#
# Guarantee: no label has more than a few values, whatever peers do: see words.py.
from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final


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
        otel: its name in OpenTelemetry.
    """

    name: str
    kind: Kind
    labels: tuple[str, ...]
    text: str

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


def _seconds(name: str, labels: tuple[str, ...], text: str) -> Metric:
    return Metric(f"{name}_seconds", Kind.HISTOGRAM, labels, text)


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
    _counter("smtp_server_hook_failures", ("hook",), "Hooks that raised or took too long; a Reject is no failure."),
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
)
BY_NAME: Final = {metric.name: metric for metric in METRICS}
