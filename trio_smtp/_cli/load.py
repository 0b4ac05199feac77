# `trio-smtp load`: measures how fast a server accepts messages from a pool.
#
# There are as many tasks as connections, each with one message at a time. So no task waits for a connection, and the
# time of a message is that of the server and the network. Nothing is retried; failures are counted.
from __future__ import annotations

import json
import math
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import click
import trio

import trio_smtp

from .descriptors import make_room_for
from .errors import CommandError, Status, describe, one_line, run, status_of
from .metrics import Place, Trace, metrics_option, telling_metrics
from .options import Target, client_options, server_option, size, target, verbose_option
from .output import say
from .progress import show_progress
from .send import overall

_LEAST: Final = 128  # octets: room for the header
_PERCENTILES: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
_HOPELESS: Final = (
    trio_smtp.ConnectError,
    trio_smtp.TLSError,
    trio_smtp.AuthenticationError,
    trio_smtp.LocalProtocolError,
)


@dataclass(kw_only=True)
class _Tally:
    """The counts so far."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)  # of accepted messages
    errors: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)  # the first error of each kind, in words
    statuses: dict[Status, None] = field(default_factory=dict)
    in_a_row: int = 0  # failures since the last message that was accepted

    def accept(self, seconds: float) -> None:
        self.in_a_row = 0
        self.latencies.append(seconds)
        self.statuses[Status.OK] = None

    def fail(self, error: trio_smtp.SMTPError, words: str) -> None:
        kind = type(error).__name__ + ("" if error.reply is None else f" {error.reply.code}")
        self.errors[kind] += 1
        self.in_a_row += 1
        self.examples.setdefault(kind, one_line(words))
        self.statuses[status_of(error)] = None


@dataclass(frozen=True, kw_only=True)
class _Plan:
    target: Target
    sender: str
    recipient: str
    messages: int
    connections: int
    content: bytes
    give_up_after: int
    as_json: bool
    metrics: Place | None


@click.command(short_help="Measure a server: many messages at once.")
@server_option
@click.option(
    "--messages", metavar="N", type=click.IntRange(1), default=1000, show_default=True, help="Number of messages."
)
@click.option(
    "--connections",
    metavar="N",
    type=click.IntRange(1, 10_000),
    default=5,
    show_default=True,
    help="Number of connections.",
)
@click.option(
    "--size", "octets", metavar="SIZE", type=size, default="4K", show_default=True, help="Size of each message."
)
@click.option("--from", "sender", metavar="ADDRESS", default="load@localhost", show_default=True, help="The sender.")
@click.option(
    "--to", "recipient", metavar="ADDRESS", default="load@localhost", show_default=True, help="The recipient."
)
@click.option(
    "--give-up-after",
    metavar="N",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    help="End after so many failures in a row.",
)
@client_options
@metrics_option
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON document.")
@verbose_option
def load(
    *,
    messages: int,
    connections: int,
    octets: int,
    sender: str,
    recipient: str,
    give_up_after: int,
    as_json: bool,
    metrics: Place | None,
    **server: Any,
) -> None:
    """Send many messages to a server of yours, and measure the time of each.

    Prints the messages per second, the time from MAIL to the reply to the end of the message (for the first message on
    each connection, with the time to connect), and the errors.
    """
    if octets < _LEAST:
        raise click.UsageError(f"--size must be at least {_LEAST}: a message has a header.")
    plan = _Plan(
        target=target(**server),
        sender=sender,
        recipient=recipient,
        messages=messages,
        connections=connections,
        content=_message(octets),
        give_up_after=give_up_after,
        as_json=as_json,
        metrics=metrics,
    )
    make_room_for(connections)
    run(_load, plan)


def _message(octets: int) -> bytes:
    header = b"From: load@localhost\r\nTo: load@localhost\r\nSubject: load\r\n\r\n"
    lines = b"x" * 76 + b"\r\n"
    body = octets - len(header) - 2
    text = (lines * (body // len(lines) + 1))[:body]
    return header + text.removesuffix(b"\r").ljust(body, b"x") + b"\r\n"


async def _load(plan: _Plan) -> Status:
    tally = _Tally()
    started = trio.current_time()
    # Ctrl-C cancels. Messages that were sent completely still get their reply, and the summary counts them.
    with telling_metrics(plan.metrics) as trace, trio.open_signal_receiver(signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_at_signal, signals, nursery.cancel_scope)
            await _send_all(plan, tally, trace)
            nursery.cancel_scope.cancel(reason="all is sent")
    tally.seconds = trio.current_time() - started
    gave_up = tally.in_a_row >= plan.give_up_after
    interrupted = not gave_up and tally.errors.total() + len(tally.latencies) < plan.messages
    status = Status.INTERRUPTED if interrupted else overall(list(tally.statuses))
    (_print_json if plan.as_json else _print_summary)(plan, tally, status)
    if gave_up:
        say(f"trio-smtp: gave up after {tally.in_a_row:,} failures in a row", err=True)
    if interrupted:
        raise KeyboardInterrupt
    return status


async def _cancel_at_signal(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    await anext(signals)
    scope.cancel(reason="a signal")


async def _send_all(plan: _Plan, tally: _Tally, trace: Trace | None) -> None:
    with show_progress("Sending", plan.messages, quiet=plan.as_json) as advance:
        config = trio_smtp.PoolConfig(
            max_connections=plan.connections, max_messages=None, connect_retries=0, trace=trace
        )
        async with (
            trio_smtp.open_pool(
                plan.target.host,
                plan.target.port,
                config=config,
                client_config=replace(plan.target.config, trace=trace),
                **plan.target.options,
            ) as pool,
            trio.open_nursery() as nursery,
        ):
            turns = iter(range(plan.messages))
            for _ in range(min(plan.connections, plan.messages)):
                nursery.start_soon(_send_some, pool, plan, tally, turns, advance)


async def _send_some(
    pool: trio_smtp.Pool, plan: _Plan, tally: _Tally, turns: Iterator[int], advance: Callable[[], None]
) -> None:
    for _ in turns:
        if tally.in_a_row >= plan.give_up_after:
            return
        started = trio.current_time()
        try:
            await pool.send(plan.sender, [plan.recipient], plan.content)
        except trio_smtp.SMTPError as exc:
            words = describe(exc, plan.target.words)
            if isinstance(exc, _HOPELESS) and not tally.latencies:
                raise CommandError(words, status_of(exc)) from exc
            tally.fail(exc, words)
        else:
            tally.accept(trio.current_time() - started)
        advance()


def _percentiles(latencies: Sequence[float]) -> dict[str, float]:
    """Percentiles by nearest rank, so each is the time of one message."""
    ranked = sorted(latencies)
    return {name: ranked[math.ceil(part * len(ranked)) - 1] for name, part in _PERCENTILES.items()} if ranked else {}


def _print_summary(plan: _Plan, tally: _Tally, status: Status) -> None:
    accepted = len(tally.latencies)
    rate = accepted / max(tally.seconds, 1e-6)
    say(f"{'Messages':<11}{accepted:,} accepted of {plan.messages:,}, {len(plan.content):,} octets each")
    say(f"{'Time':<11}{tally.seconds:.2f} s: {rate:,.0f} messages/s, {rate * len(plan.content) / 1e6:.1f} MB/s")
    if tally.latencies:
        times = ", ".join(f"{name} {1000 * value:.1f} ms" for name, value in _percentiles(tally.latencies).items())
        say(f"{'Latency':<11}{times}")
    for kind, count in tally.errors.most_common():
        say(f"trio-smtp: {count:,} times {kind}, first: {tally.examples[kind]}", err=True)


def _print_json(plan: _Plan, tally: _Tally, status: Status) -> None:
    summary: dict[str, Any] = {
        "messages": plan.messages,
        "accepted": len(tally.latencies),
        "connections": plan.connections,
        "size": len(plan.content),
        "seconds": round(tally.seconds, 3),
        "messages_per_second": round(len(tally.latencies) / max(tally.seconds, 1e-6), 1),
        "latency": {name: round(value, 6) for name, value in _percentiles(tally.latencies).items()},
        "errors": dict(tally.errors.most_common()),
        "status": int(status),
    }
    say(json.dumps(summary))
