# `trio-smtp outbox`: messages into an outbox, a worker that sends them, and a look at what is in it.
from __future__ import annotations

import dataclasses
import json
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, get_args

import click
import trio

import trio_smtp
from trio_smtp.outbox import (
    Action,
    Outbox,
    OutboxConfig,
    OutboxEvent,
    OutboxStatistics,
    State,
    StoreError,
    open_outbox,
)

from .dsn import dsn_options, dsn_parameters
from .entries import list_entry, show_damaged, show_entry
from .errors import CommandError, Commands, Status, describe, one_line, run, status_of
from .metrics import Place, Trace, metrics_option, telling_metrics
from .options import Target, client_options, server_option, target, verbose_option
from .output import say

_WATCH: Final = 1.0  # seconds between two looks of status --watch


@dataclass(kw_only=True)
class _Store:
    """The options of the group: which outbox, and how to print."""

    url: str
    as_json: bool


def _json_option(command: Any) -> Any:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")(command)


@click.group(cls=Commands, short_help="Keep mail until it is sent.")
@click.option(
    "--store",
    "url",
    required=True,
    metavar="URL",
    envvar="TRIO_SMTP_OUTBOX",
    help="The outbox: sqlite:FILE, or redis://HOST:PORT/DB. Also from the variable TRIO_SMTP_OUTBOX.",
)
@_json_option
@click.pass_context
def outbox(ctx: click.Context, *, url: str, as_json: bool) -> None:
    """Keep mail in a store until it is sent, whatever crashes in between.

    "put" writes a message down; "work" sends what is due, in any number of processes; "status", "list" and "show" tell
    what has become of it. What may have been delivered, without a reply that says so, is in doubt: see "resolve".
    """
    ctx.obj = _Store(url=url, as_json=as_json)


@outbox.command(short_help="Write a message down, to be sent.")
@click.option("--from", "sender", required=True, metavar="ADDRESS", help='Sender of the envelope; "" for none.')
@click.option("--to", "recipients", required=True, multiple=True, metavar="ADDRESS", help="Recipient; may be repeated.")
@click.option("--key", metavar="KEY", help="A message whose key is known is not put again.")
@click.option("--priority", type=int, default=0, metavar="N", show_default=True, help="Higher goes first.")
@dsn_options
@_json_option
@click.argument("file", required=False, metavar="[FILE]")
@click.pass_obj
def put(store: _Store, /, *, file: str | None, as_json: bool, **options: Any) -> None:
    """Write the message in FILE, or on standard input, into the outbox, and print its id.

    It is on the disk when the id is printed. What --notify, --ret and --envid ask for goes along to a server that
    offers DSN (RFC 3461); to another, the message goes without it.
    """
    options |= dsn_parameters(options.pop("notify"), options.pop("ret"), options.pop("envid"), options["recipients"])
    _run(store, as_json, partial(_put, options=options, file=file))


async def _put(outbox: Outbox, as_json: bool, *, options: dict[str, Any], file: str | None) -> None:
    if file in (None, "-"):
        content = await trio.to_thread.run_sync(sys.stdin.buffer.read, abandon_on_cancel=True)
    else:
        try:
            content = await trio.Path(file).read_bytes()
        except OSError as exc:
            raise CommandError(f"cannot read {file}: {exc.strerror}", Status.NO_INPUT) from exc
    ticket = await outbox.put(options.pop("sender"), options.pop("recipients"), content, **options)
    if as_json:
        say(json.dumps(dataclasses.asdict(ticket)))
    else:
        say(ticket.id if ticket.is_new else f"{ticket.id} (put before)")


@outbox.command(short_help="Send what is due, until a signal.")
@server_option
@click.option("--connections", metavar="N", type=click.IntRange(1, 10_000), default=5, show_default=True)
@click.option(
    "--lease",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    help="Another worker takes over what this one was sending if it is not heard of for so long.",
)
@click.option(
    "--retry-delays",
    metavar="SECONDS,...",
    default="60,300,900,3600,14400",
    show_default=True,
    help="Between tries; the last repeats.",
)
@click.option(
    "--on-doubt",
    type=click.Choice(["hold", "retry"]),
    default="hold",
    show_default=True,
    help="What may have been delivered is held for you, or sent again.",
)
@click.option("--rate-limit", metavar="N/SECONDS", help="Never more starts in so many seconds, over all workers.")
@click.option("--domain-rate-limit", metavar="N/SECONDS", help="The same for each recipients' domain.")
@click.option(
    "--report-from",
    metavar="ADDRESS",
    help="Tell senders by a delivery report from this address what was refused, or has expired.",
)
@client_options
@metrics_option
@_json_option
@verbose_option
@click.pass_obj
def work(
    store: _Store,
    /,
    *,
    connections: int,
    lease: float,
    retry_delays: str,
    on_doubt: str,
    rate_limit: str | None,
    domain_rate_limit: str | None,
    metrics: Place | None,
    report_from: str | None,
    as_json: bool,
    **server: Any,
) -> None:
    """Send what is due to a server, until Ctrl-C or SIGTERM.

    Any number of workers may run at once. At the end, messages whose end has been sent get some seconds for their
    reply, the others go back to the queue, and the exit status is 0.
    """
    try:
        config = OutboxConfig(
            lease=lease,
            retry_delays=tuple(float(delay) for delay in retry_delays.split(",")),
            on_doubt="retry" if on_doubt == "retry" else "hold",
            rate_limit=_rate(rate_limit),
            domain_rate_limit=_rate(domain_rate_limit),
            report_from=report_from,
        )
    except ValueError as exc:
        raise click.UsageError(f"{exc}.") from exc
    there = target(**server)
    run(partial(_work, store, config, there, connections=connections, metrics=metrics, as_json=as_json))


def _rate(words: str | None) -> tuple[int, float] | None:
    if words is None:
        return None
    messages, slash, seconds = words.partition("/")
    if not slash:
        raise ValueError(f"{words!r} is not N/SECONDS, such as 100/60")
    return int(messages), float(seconds)


async def _work(
    store: _Store,
    config: OutboxConfig,
    server: Target,
    *,
    connections: int,
    metrics: Place | None,
    as_json: bool,
) -> Status:
    with telling_metrics(metrics) as count:
        told = partial(_tell_event, count, as_json or store.as_json)
        async with (
            open_store(store.url, dataclasses.replace(config, trace=told)) as outbox,
            trio_smtp.open_pool(
                server.host,
                server.port,
                config=trio_smtp.PoolConfig(max_connections=connections, trace=count),
                client_config=dataclasses.replace(server.config, trace=count),
                **server.options,
            ) as pool,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(_cancel_at_signal, nursery.cancel_scope)
            await outbox.work(pool)
    return Status.OK


async def _cancel_at_signal(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        await anext(signals)
        scope.cancel(reason="a signal")


def _tell_event(count: Trace | None, as_json: bool, event: OutboxEvent) -> None:
    if count is not None:
        count(event)
    if event.name in ("begin", "mark"):
        return
    facts = event._asdict() | {
        "states": dict(event.states),
        "error": None if event.error is None else one_line(str(event.error)),
    }
    if as_json:
        say(json.dumps({"event": facts.pop("name"), "id": facts.pop("entry"), **facts}))
    else:
        said = f": {facts['error']}" if event.error is not None else ""
        say(one_line(f"{event.entry or 'store'}: {event.state or event.name}{said}"))


@outbox.command(short_help="How many are in each state.")
@click.option("--watch", is_flag=True, help="Go on, until Ctrl-C.")
@_json_option
@click.pass_obj
def status(store: _Store, /, *, watch: bool, as_json: bool) -> None:
    """Print how many messages are queued, being sent, sent, refused, in doubt, expired and discarded."""
    _run(store, as_json, partial(_status, watch=watch))


async def _status(outbox: Outbox, as_json: bool, *, watch: bool) -> None:
    shown: OutboxStatistics | None = None
    while True:
        numbers = await outbox.statistics()
        if numbers != shown:
            _show_numbers(numbers, as_json, again=shown is not None)
            shown = numbers
        if not watch:
            return
        await trio.sleep(_WATCH)


def _show_numbers(numbers: OutboxStatistics, as_json: bool, *, again: bool) -> None:
    facts = dataclasses.asdict(numbers)
    if as_json:
        say(json.dumps(facts))
        return
    lines = [f"{name.replace('_', ' '):<10}{number:>9}" for name, number in facts.items()]
    if again and sys.stdout.isatty():
        lines[0] = f"\x1b[{len(lines)}A{lines[0]}"  # over the last ones
    for line in lines:
        say(line)


@outbox.command("list", short_help="The messages, or those in one state.")
@click.option("--state", type=click.Choice([state.value for state in State]), help="Only those in this state.")
@_json_option
@click.pass_obj
def list_entries(store: _Store, /, *, state: str | None, as_json: bool) -> None:
    """Print one line for each message, in the order in which they were put; with --json, one document each.

    Those that are damaged in the store are named at the end, as an error.
    """
    _run(store, as_json, partial(_list, state=state))


async def _list(outbox: Outbox, as_json: bool, *, state: str | None) -> None:
    async with outbox.entries(state) as entries:
        async for entry in entries:
            list_entry(entry, as_json)


@outbox.command(short_help="One message, with its last attempt.")
@_json_option
@click.argument("entry_id", metavar="ID")
@click.pass_obj
def show(store: _Store, /, *, entry_id: str, as_json: bool) -> None:
    """Print what is known of a message: each recipient's state and reply, and how the last attempt went.

    Of one that is damaged in the store, print what is left of it; that is an error.
    """
    _run(store, as_json, partial(_show, entry_id=entry_id))


async def _show(outbox: Outbox, as_json: bool, *, entry_id: str) -> None:
    try:
        entry = await outbox.get(entry_id)
    except StoreError as exc:
        for damaged in exc.damaged:
            show_damaged(damaged, as_json)
        raise
    show_entry(entry, as_json)


@outbox.command(short_help="Say what became of a message in doubt.")
@click.option("--to", "recipients", multiple=True, metavar="ADDRESS", help="Only this recipient; may be repeated.")
@_json_option
@click.argument("entry_id", metavar="ID")
@click.argument("action", type=click.Choice(get_args(Action)))
@click.pass_obj
def resolve(store: _Store, /, *, entry_id: str, action: Action, recipients: tuple[str, ...], as_json: bool) -> None:
    """Settle a message in doubt: it was sent; or retry: send it again; or discard: leave it, in doubt or queued.

    "retry" also brings a message back that was set aside as damaged, and has been repaired.
    """
    _run(store, as_json, partial(_resolve, entry_id=entry_id, action=action, recipients=recipients or None))


async def _resolve(
    outbox: Outbox, as_json: bool, *, entry_id: str, action: Action, recipients: Iterable[str] | None
) -> None:
    show_entry(await outbox.resolve(entry_id, action, recipients=recipients), as_json)


@outbox.command(short_help="Delete a message that is damaged.")
@_json_option
@click.argument("entry_id", metavar="ID")
@click.pass_obj
def forget(store: _Store, /, *, entry_id: str, as_json: bool) -> None:
    """Delete a message that is damaged in the store, so that it cannot be read, with its key.

    It is not sent. Look at what is left of it first, by "show"; with --json, print its id.
    """
    _run(store, as_json, partial(_forget, entry_id=entry_id))


async def _forget(outbox: Outbox, as_json: bool, *, entry_id: str) -> None:
    await outbox.forget(entry_id)
    if as_json:
        say(json.dumps({"id": entry_id, "forgotten": True}))
    else:
        say(one_line(f"{entry_id} is forgotten"))


# -- what they share


def _run(store: _Store, as_json: bool, command: Callable[..., Any]) -> None:
    async def opened() -> Status:
        async with open_store(store.url) as outbox:
            await command(outbox, as_json or store.as_json)
        return Status.OK

    run(opened)


@asynccontextmanager
async def open_store(url: str, config: OutboxConfig | None = None) -> AsyncIterator[Outbox]:
    """The outbox; what goes wrong with it, or is asked of it in vain, is an error of one line."""
    try:
        async with open_outbox(url, config=config) as outbox:
            yield outbox
    except ModuleNotFoundError as exc:
        raise CommandError(str(exc), Status.USAGE) from exc
    except LookupError as exc:
        raise CommandError(str(exc.args[0] if exc.args else exc), Status.USAGE) from exc
    except StoreError as exc:
        hint = ' ("show ID" prints what is left, "forget ID" deletes it)' if exc.damaged else ""
        raise CommandError(f"{exc}{hint}", Status.SYSTEM) from exc
    except trio_smtp.SMTPError as exc:
        raise CommandError(describe(exc, "outbox"), status_of(exc)) from exc
    except ValueError as exc:
        raise CommandError(str(exc), Status.USAGE) from exc
