"""A server and a pool that tell Prometheus, and then OpenTelemetry, what they do.

``pip install 'trio-smtp[telemetry]'``; the spans also need ``opentelemetry-sdk``.
"""

import importlib.util
import sys
import urllib.request
from collections.abc import Callable
from functools import partial
from typing import Any

import trio
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.parser import text_string_to_metric_families

import trio_smtp
from trio_smtp.telemetry import OpenTelemetry, Prometheus

MESSAGES = 3


async def exchange_mail(trace: Callable[[Any], None]) -> None:
    """A server, and a pool that sends it some messages.

    One object is told by both, and by the pool's connections.
    """
    server = trio_smtp.Server(
        trio_smtp.Discard(), config=trio_smtp.ServerConfig(trace=trace)
    )
    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(server.serve, 0, host="127.0.0.1"))
        async with trio_smtp.open_pool(
            "127.0.0.1",
            listener.socket.getsockname()[1],
            tls="none",
            config=trio_smtp.PoolConfig(trace=trace),
            client_config=trio_smtp.ClientConfig(trace=trace),
        ) as pool:
            for number in range(MESSAGES):
                await pool.send(
                    "me@example.com",
                    ["you@example.com"],
                    b"Subject: %d\r\n\r\nHello!\r\n" % number,
                )
        await server.shutdown()
        nursery.cancel_scope.cancel()


async def show_metrics() -> None:
    """Count, and ask for the numbers as Prometheus does: over HTTP."""
    registry = CollectorRegistry()
    # Any free port; Prometheus needs to know yours.
    http, thread = start_http_server(0, "127.0.0.1", registry)
    try:
        await exchange_mail(Prometheus(registry))
        text = await trio.to_thread.run_sync(
            scrape, f"http://127.0.0.1:{http.server_port}/metrics"
        )
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name in (
                "smtp_server_messages_total",
                "smtp_pool_messages_total",
                "smtp_client_commands_total",
            ):
                print(sample.name, *sorted(sample.labels.values()), int(sample.value))


def scrape(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


async def show_spans() -> None:
    """Print a span for each message, its tries, and what the server made of it."""
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

    provider = TracerProvider()
    console = ConsoleSpanExporter(
        out=sys.stdout, formatter=lambda span: span.to_json(indent=None) + "\n"
    )
    provider.add_span_processor(SimpleSpanProcessor(console))
    tracer = provider.get_tracer("newsletter")
    with tracer.start_as_current_span("newsletter"):  # yours, around the call of send()
        await exchange_mail(OpenTelemetry(provider))


async def main() -> None:
    await show_metrics()
    if importlib.util.find_spec("opentelemetry.sdk") is None:
        print("no spans: opentelemetry-sdk is not installed")
    else:
        await show_spans()


if __name__ == "__main__":
    trio.run(main)
