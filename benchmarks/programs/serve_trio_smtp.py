# Under test: our server. Its hook reads the message and discards it.
#
# The variants are told of what happens: "trace" by a function that does nothing, "prometheus" and "opentelemetry" by
# trio_smtp.telemetry, with the metrics of the one and the spans of the other, which are made and thrown away.
from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import trio

import trio_smtp

from .arguments import listening


class Inbox(trio_smtp.Handler):
    """Accepts everything."""

    async def on_data(self, session: trio_smtp.Session, envelope: trio_smtp.Envelope, body: trio_smtp.Body) -> str:
        """Read the message to its end."""
        async for _ in body:
            pass
        return "ABC1"


UNLIMITED = trio_smtp.ServerConfig(
    hostname="mx.test.example",
    max_connections=None,
    max_connections_per_host=None,
    max_messages=None,
    max_junk_commands=None,
    max_message_size=None,
)


def _nothing(event: trio_smtp.ServerEvent) -> None:
    pass


def _trace(variant: str) -> Callable[[trio_smtp.ServerEvent], None] | None:
    if variant == "prometheus":
        from trio_smtp.telemetry import Prometheus

        return Prometheus()
    if variant == "opentelemetry":
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.trace import TracerProvider

        from trio_smtp.telemetry import OpenTelemetry

        return OpenTelemetry(TracerProvider(), MeterProvider())
    return _nothing if variant == "trace" else None


def main() -> None:
    """Serve until the process is stopped."""
    arguments = listening()
    server = trio_smtp.Server(
        Inbox(),
        config=replace(UNLIMITED, trace=_trace(arguments.variant)),
        ssl_context=arguments.context,
        implicit_tls=arguments.tls == "implicit",
    )
    trio.run(partial(server.serve, arguments.port, host="127.0.0.1"))


if __name__ == "__main__":
    main()
