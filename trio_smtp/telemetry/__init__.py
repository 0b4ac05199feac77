"""What servers, clients, pools and outboxes do, as Prometheus metrics, OpenTelemetry metrics and spans; extra
``telemetry``.

Each object is a ``trace`` function: for a :class:`ServerConfig`, a :class:`ClientConfig`, a :class:`PoolConfig` and an
:class:`OutboxConfig`, any number of them, at once. docs/observing.md lists the metrics and spans.
"""

from .._public import needs_extra as _needs_extra
from .._public import show_as_public as _show_as_public

with _needs_extra("trio_smtp.telemetry", "telemetry"):
    from ._opentelemetry import OpenTelemetry as OpenTelemetry
    from ._prometheus import Prometheus as Prometheus

__all__ = ["OpenTelemetry", "Prometheus"]

_show_as_public(__name__, __all__, globals())
