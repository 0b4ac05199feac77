# `trio-smtp relay`: a server that hands each message on to another one while it receives it.
#
# It listens as `serve` does and sends as `send` does, so its options are theirs: those for the other server begin with
# "--to". What the other server offers is asked once by each process, at its start, so that no more is offered than can
# be kept. Each process has its own pool.
from __future__ import annotations

import copy
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Literal

import click
import trio

import trio_smtp

from .errors import describe
from .metrics import Trace
from .options import Target, client_options, host_port, target
from .relaying import Relaying
from .serve import serve, serve_by
from .serve_plan import Plan, Service, make_plan

# Options of `serve` that say what becomes of messages, with the values for one that keeps none.
_KEEPING: Final[dict[str, Any]] = {"maildir": None, "show": False, "raw": False, "forget": True, "outbox": None}
_WORDS: Final = {  # of its other options, where they mean something else here
    "hostname": "Name in the greeting.",
    "workers": "Serve with N processes that share the port. Limits apply to each process, but --to-connections are"
    " shared out.",
    "handler_timeout": "Longest wait for the other server's reply.  [default: 900]",
    "quiet": "No line for each message that the other server has accepted.",
}
_SENDING: Final = click.command()(client_options(lambda: None)).params
_OPTION: Final = re.compile(rf"--(?=(?:{'|'.join(option.opts[0].removeprefix('--') for option in _SENDING)})\b)")
_STORE_WORDS: Final = "messages are thrown away"
_HANDLER_TIMEOUT: Final = 900.0  # seconds; the other server has 600 for its last reply
_PATIENCE: Final = 20.0  # seconds that the other server has to say what it offers; workers have 30 to start
# Left out of the offer if the other server does not have them.
_BY_THE_OTHER: Final = ("8BITMIME", "SMTPUTF8", "BINARYMIME")


@dataclass(frozen=True, kw_only=True)
class _Route:
    """Where messages go.

    Attributes:
        target: the other server.
        connections: to it, of all processes together.
        unknown: what a client is told if it does not answer the end of a message.
    """

    target: Target
    connections: int
    unknown: Literal["refuse", "accept"]

    def share(self, worker: int, workers: int) -> int:
        """How many connections a process may have."""
        return self.connections // workers + (worker <= self.connections % workers)

    def describe(self, error: trio_smtp.SMTPError) -> str:
        """One line about an error of the connection to the other server."""
        return f"trio-smtp: {_in_our_words(describe(error, self.target.words))}"


def _in_our_words(text: str) -> str:
    """A text about options of `send`, with the names that they have here."""
    return _OPTION.sub("--to-", text)


def _to_option(option: click.Parameter) -> click.Option:
    """An option of `send` under the name that it has here."""
    renamed = copy.copy(option)
    assert isinstance(renamed, click.Option)
    renamed.name = f"to_{option.name}"
    renamed.opts = [_in_our_words(name) for name in option.opts if name.startswith("--")]
    renamed.help = _in_our_words(renamed.help or "")
    return renamed


def _own_option(option: click.Parameter) -> click.Parameter:
    """An option of `serve` with the words for what it means here."""
    words = _WORDS.get(option.name or "")
    if words is None:
        return option
    reworded = copy.copy(option)
    assert isinstance(reworded, click.Option)
    reworded.help = words
    return reworded


def _options() -> list[click.Parameter]:
    to: list[click.Parameter] = [
        click.Option(
            ["--to"],
            required=True,
            metavar="HOST:PORT",
            type=host_port,
            help="The server that gets the messages; [ADDRESS]:PORT for IPv6, unix:PATH for a UNIX socket.",
        ),
        *(_to_option(option) for option in _SENDING),
        click.Option(
            ["--to-connections"],
            type=click.IntRange(1),
            default=20,
            show_default=True,
            metavar="N",
            help="Connections to it, of all workers together: one for each message that is on its way.",
        ),
        click.Option(
            ["--unknown"],
            type=click.Choice(["refuse", "accept"]),
            default="refuse",
            show_default=True,
            help="What a client is told if the other server does not answer the end of a message. refuse: 451; it sends"
            " again, and the message may arrive twice. accept: 250; it may be lost.",
        ),
    ]
    return [*to, *(_own_option(option) for option in serve.params if option.name not in _KEEPING)]


def _relay(
    *,
    to: tuple[str, int | None],
    to_connections: int,
    unknown: Literal["refuse", "accept"],
    **options: Any,
) -> None:
    """Hand messages on to another server while they are received, until Ctrl-C or SIGTERM.

    Each MAIL, each RCPT and each message gets the other server's answer, so that a message is accepted when that server
    has it. Nothing is stored, nothing is changed, and no Received line is added.

    Every client may send to every address that the other server accepts from here: listen where only those reach it who
    may relay, or ask for a login (--auth).

    The first Ctrl-C or SIGTERM ends it gracefully: it accepts no new connections and finishes the messages that are on
    their way. The second ends it at once. SIGHUP loads the files of --tls-cert and --tls-key again, which happens
    within a minute too if they have changed. SIGUSR1 writes statistics to the log.
    """
    sending = {str(option.name): options.pop(f"to_{option.name}") for option in _SENDING}
    if to_connections < options["workers"]:
        raise click.UsageError("--to-connections are shared out among the workers: there must be one for each.")
    if options["handler_timeout"] is None:
        options["handler_timeout"] = _HANDLER_TIMEOUT
    plan = make_plan(**_KEEPING, **options)
    try:
        there = target(server=to, **sending)
    except click.UsageError as exc:
        raise click.UsageError(_in_our_words(exc.message)) from exc
    route = _Route(target=there, connections=to_connections, unknown=unknown)
    plan = replace(
        plan,
        opening=partial(_with_pool, route),
        summary=plan.summary.replace(_STORE_WORDS, f"messages go to {there.words}"),
    )
    serve_by(plan, connections=to_connections)


relay = click.Command(
    "relay",
    params=_options(),
    callback=_relay,
    help=_relay.__doc__,
    short_help="Hand mail on to another server.",
)


@asynccontextmanager
async def _with_pool(route: _Route, plan: Plan, worker: int, trace: Trace | None) -> AsyncIterator[Service]:
    """In each process: ask what the other server offers, and open a pool for it."""
    there = route.target
    offered = await _ask(route, plan)
    config = trio_smtp.PoolConfig(
        max_connections=route.share(worker, plan.workers), trace=partial(_notice, route, plan, trace)
    )
    async with trio_smtp.open_pool(
        there.host, there.port, config=config, client_config=replace(there.config, trace=trace), **there.options
    ) as pool:
        handler = Relaying(trio_smtp.forward(pool, unknown=route.unknown), plan.report, lmtp=plan.config.lmtp)
        yield replace(plan.service(handler), config=_config(plan.config, offered))


async def _ask(route: _Route, plan: Plan) -> trio_smtp.Extensions | None:
    """What the other server offers; ``None`` if it cannot be reached now."""
    there = route.target
    offered: trio_smtp.Extensions | None = None
    words = f"trio-smtp: {there.words} does not say within {_PATIENCE:g} s what it offers"
    with trio.move_on_after(_PATIENCE):
        try:
            async with trio_smtp.open_client(there.host, there.port, config=there.config, **there.options) as client:
                offered = client.extensions
        except trio_smtp.SMTPError as exc:
            words = route.describe(exc)
    if offered is None:
        plan.output.err.put(f"{words}; mail is refused for now (451) until that changes")
    return offered


def _notice(route: _Route, plan: Plan, trace: Trace | None, event: trio_smtp.TraceEvent) -> None:
    """Count what happens in the pool. A connection that could not be made is told of: clients hear 451 only."""
    if trace is not None:
        trace(event)
    if event.name == "connect" and isinstance(event.error, trio_smtp.SMTPError):
        plan.output.err.put(route.describe(event.error))


def _config(config: trio_smtp.ServerConfig, offered: trio_smtp.Extensions | None) -> trio_smtp.ServerConfig:
    """What is offered here, when that is offered there."""
    if offered is None:
        return config
    missing = [keyword for keyword in _BY_THE_OTHER if keyword not in offered]
    sizes = [size for size in (config.max_message_size, offered.size) if size]
    return replace(
        config,
        enabled_extensions=("DSN",) if "DSN" in offered else (),
        disabled_extensions=(*config.disabled_extensions, *missing),
        max_message_size=min(sizes) if sizes else None,
    )
