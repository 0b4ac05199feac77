# `trio-smtp relay`: a server that hands each message on to another one while it receives it.
#
# It listens as `serve` does and sends as `send` does, so its options are theirs: those for the other server begin with
# "--to". What the other server offers is asked once, at the start, so that no more is offered than can be kept.
from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial
from typing import Any, Final, Literal

import click

import trio_smtp

from .descriptors import make_room_for
from .errors import Status, describe, run
from .metrics import Trace, serving_metrics
from .options import Target, client_options, host_port, target
from .output import say
from .serve import _serve as serve_until_signal
from .serve import serve
from .serve_plan import Plan, make_plan

# Options of `serve` that say what becomes of messages, with the values for one that keeps none; and those for which a
# relay has no use.
_KEEPING: Final[dict[str, Any]] = {
    "maildir": None,
    "show": False,
    "raw": False,
    "forget": True,
    "quiet": True,
    "workers": 1,
}
_SENDING: Final = click.command()(client_options(lambda: None)).params
_STORE_WORDS: Final = "messages are thrown away"
_HANDLER_TIMEOUT: Final = 900.0  # seconds; the other server has 600 for its last reply
# Left out of the offer if the other server does not have them.
_BY_THE_OTHER: Final = ("8BITMIME", "SMTPUTF8", "BINARYMIME")


def _to_option(option: click.Parameter) -> click.Option:
    """An option of `send` under the name that it has here."""
    renamed = copy.copy(option)
    assert isinstance(renamed, click.Option)
    renamed.name = f"to_{option.name}"
    renamed.opts = [f"--to-{name.removeprefix('--')}" for name in option.opts if name.startswith("--")]
    return renamed


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
            help="Connections to it, one for each message that is on its way.",
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
    return [*to, *(option for option in serve.params if option.name not in _KEEPING)]


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
    their way. The second ends it at once.
    """
    sending = {str(option.name): options.pop(f"to_{option.name}") for option in _SENDING}
    plan = make_plan(**_KEEPING, **options)
    there = target(server=to, **sending)
    make_room_for(plan.config.max_connections)
    plan.output.take_log()
    try:
        plan.output.start()
        run(_relay_until_signal, plan, there, to_connections, unknown)
    finally:
        plan.output.close()


relay = click.Command(
    "relay",
    params=_options(),
    callback=_relay,
    help=_relay.__doc__,
    short_help="Hand mail on to another server.",
)


async def _relay_until_signal(
    plan: Plan, there: Target, connections: int, unknown: Literal["refuse", "accept"]
) -> Status:
    offered = await _ask(there)
    with serving_metrics(plan.metrics) as count:
        config = trio_smtp.PoolConfig(max_connections=connections, trace=partial(_notice, there, count))
        async with trio_smtp.open_pool(there.host, there.port, config=config, **there.options) as pool:
            relaying = replace(
                plan,
                handler=_guarded(trio_smtp.forward(pool, unknown=unknown), plan.handler),
                config=_config(plan.config, offered),
                summary=plan.summary.replace(_STORE_WORDS, f"messages go to {there.words}"),
            )
            return await serve_until_signal(relaying)


def _notice(there: Target, count: Trace | None, event: trio_smtp.TraceEvent) -> None:
    if count is not None:
        count(event)
    _report(there, event)


async def _ask(there: Target) -> trio_smtp.Extensions | None:
    """What the other server offers; ``None`` if it cannot be reached now."""
    try:
        async with trio_smtp.open_client(there.host, there.port, **there.options) as client:
            return client.extensions
    except trio_smtp.SMTPError as exc:
        say(f"trio-smtp: {describe(exc, there.words)}; mail is refused for now (451) until that changes", err=True)
        return None


def _config(config: trio_smtp.ServerConfig, offered: trio_smtp.Extensions | None) -> trio_smtp.ServerConfig:
    """What is offered here, when that is offered there."""
    config = replace(config, handler_timeout=_HANDLER_TIMEOUT)
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


def _guarded(relaying: trio_smtp.Handler, plan_handler: trio_smtp.Handler) -> Any:
    """The relay, behind the login of the plan, if there is one."""
    on_auth = getattr(plan_handler, "on_auth", None) if type(plan_handler).on_auth is not _NO_LOGIN else None
    return relaying if on_auth is None else _Guarded(relaying, on_auth)


_NO_LOGIN: Final = trio_smtp.Handler.on_auth


class _Guarded:
    """A relay with a login: a server offers AUTH only if its handler has the hook."""

    def __init__(self, relaying: trio_smtp.Handler, on_auth: Any) -> None:
        self.on_auth = on_auth
        for name in ("on_mail", "on_rcpt", "on_data", "on_reset", "on_close"):
            setattr(self, name, getattr(relaying, name))


def _report(there: Target, event: trio_smtp.TraceEvent) -> None:
    """A connection that could not be made is told of: clients hear 451 only."""
    if event.name == "connect" and isinstance(event.error, trio_smtp.SMTPError):
        say(f"trio-smtp: {describe(event.error, there.words)}", err=True)
