# `--metrics` of `trio-smtp serve` and others: Prometheus' metrics of a process over HTTP, as long as it works.
#
# The HTTP server is Prometheus' own, in a thread; it shares nothing with the SMTP server but numbers. Each worker has
# its own numbers, and so a port of its own: the first worker's is the one that was asked for, the next one's the next.
from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import click

from .errors import CommandError, Status, reason
from .options import host_words
from .output import say

Trace: TypeAlias = Callable[[Any], None]

LOOPBACK = "127.0.0.1"


@dataclass
class Place:
    """Where metrics are to be had.

    Attributes:
        host: the address.
        port: the first worker's; 0 picks a free one, which it is from then on.
    """

    host: str
    port: int

    def url(self, worker: int = 1) -> str:
        """Where those of a worker are, the first being 1."""
        return f"http://{host_words(self.host, self.port + worker - 1)}/metrics"


def place(text: str) -> Place:
    """Parse ``[HOST:]PORT``.

    Raises:
        click.BadParameter: it is something else.
    """
    host, _, port = text.rpartition(":")
    if not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise click.BadParameter(f"{text!r} is not PORT or HOST:PORT")
    return Place(host.removeprefix("[").removesuffix("]") or LOOPBACK, int(port))


metrics_option = click.option(
    "--metrics",
    type=place,
    metavar="[HOST:]PORT",
    help="Meanwhile, serve metrics for Prometheus; on 127.0.0.1 unless HOST is given.",
)


@contextmanager
def telling_metrics(where: Place | None) -> Iterator[Trace | None]:
    """:func:`serving_metrics`, and say on standard error where they are."""
    with serving_metrics(where) as trace:
        if where is not None:
            say(f"metrics on {where.url()}", err=True)
        yield trace


@contextmanager
def serving_metrics(where: Place | None, worker: int = 1) -> Iterator[Trace | None]:
    """Serve the metrics of this process during the block, whose value is the function that counts.

    Args:
        where: ``None`` serves none.
        worker: its number, the first being 1.

    Raises:
        CommandError: the port is in use, or a library is missing.
    """
    if where is None:
        yield None
        return
    try:
        from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server

        from trio_smtp.telemetry import Prometheus
    except ModuleNotFoundError as exc:
        words = f"--metrics needs {exc.name}; install it with: pip install 'trio-smtp[telemetry]'"
        raise CommandError(words, Status.USAGE) from exc
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    trace = Prometheus(registry)
    port = where.port + worker - 1 if where.port else 0
    try:
        server, thread = start_http_server(port, where.host, registry)
    except (OSError, OverflowError) as exc:
        raise CommandError(
            f"cannot serve metrics on {host_words(where.host, port)}: {reason(exc)}", Status.SYSTEM
        ) from exc
    try:
        if not where.port:
            where.port = server.server_port
        yield trace
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
