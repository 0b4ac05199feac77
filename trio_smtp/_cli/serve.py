# `trio-smtp serve`: a server that stores, prints or discards messages, until a signal ends it.
from __future__ import annotations

import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import click
import trio

import trio_smtp

from .descriptors import make_room_for
from .errors import CommandError, Status, reason, run
from .options import auth_options, host_words, network, size, verbose_option
from .outbox import open_store
from .output import say, share_output
from .queueing import Queue
from .serve_plan import Plan, make_plan
from .workers import Orders, Parent, open_sockets


@click.command(short_help="Receive mail.")
@click.option(
    "--host", metavar="HOST", default="127.0.0.1", show_default=True, help="Address or name to listen on; * for all."
)
@click.option(
    "--port",
    metavar="PORT",
    type=click.IntRange(0, 65535),
    default=2525,
    show_default=True,
    help="Port; 0 picks a free one.",
)
@click.option("--maildir", metavar="DIR", help="Store messages in this Maildir; created if missing.")
@click.option("--print", "show", is_flag=True, help="Print messages to standard output (the default).")
@click.option("--discard", "forget", is_flag=True, help="Accept messages and discard them.")
@click.option("--outbox", metavar="URL", help="Put messages into this outbox: sqlite:FILE or redis://HOST:PORT/DB.")
@click.option("--tls-cert", metavar="FILE", help="Certificate chain (PEM); offers STARTTLS.")
@click.option("--tls-key", metavar="FILE", help="Its private key (PEM); may be in the certificate's file.")
@click.option("--tls-self-signed", is_flag=True, help="Offer STARTTLS with a throw-away certificate.")
@click.option("--tls-cert-out", metavar="FILE", help='Write the throw-away certificate to FILE, for "send --ca FILE".')
@click.option("--implicit-tls", is_flag=True, help="Start TLS at once, without STARTTLS (as on port 465).")
@click.option("--require-tls", is_flag=True, help="Refuse mail before TLS.")
@auth_options("Refuse mail from clients that have not logged in as this user.")
@click.option("--allow-insecure-auth", is_flag=True, help="Allow passwords without TLS, in clear.")
@click.option("--hostname", metavar="NAME", help="Name in the greeting and in Received lines.")
@click.option(
    "--max-size", type=size, metavar="SIZE", default="32M", show_default=True, help="Largest message: 500000, 64K, 10M."
)
@click.option("--lmtp", is_flag=True, help="Speak LMTP (RFC 2033).")
@click.option(
    "--lenient", is_flag=True, help="Take what some devices send: addresses without < > or a domain, bare line feeds."
)
@click.option(
    "--proxy-protocol-from",
    type=network,
    metavar="NET",
    multiple=True,
    help="Expect a PROXY header from proxies in this network; may be repeated.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    metavar="N",
    help="Serve with N processes that share the port. Limits apply to each process.",
)
@click.option(
    "--grace",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="At the end, wait this long for messages that are being received.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document per line instead of text.")
@verbose_option
def serve(**options: Any) -> None:
    """Receive mail, until Ctrl-C or SIGTERM.

    Every client may send to every address. Nothing is relayed: messages are stored (--maildir), printed (--print) or
    discarded (--discard). With --outbox they are kept for "trio-smtp outbox work", which does relay them, and answered
    250 once they are durable.

    The first Ctrl-C or SIGTERM ends the server gracefully: it accepts no new connections and finishes the messages that
    are being received. The second ends it at once.
    """
    plan = make_plan(**options)
    make_room_for(plan.config.max_connections)
    if plan.workers == 1:
        run(_serve, plan)
    else:
        _serve_with_workers(plan)


async def _serve(plan: Plan) -> Status:
    try:
        listeners = await trio_smtp.open_tcp_listeners(plan.port, host=plan.host)
    except OSError as exc:
        raise _cannot_listen(plan, exc) from exc

    def tell_listening() -> None:
        names = [listener.socket.getsockname() for listener in listeners]
        _tell_listening(plan, names)
        _show_hint(plan, names)

    await _serve_until_told(
        plan,
        listeners,
        _obey_signals,
        listening=tell_listening,
        ending=lambda: plan.tell("ending: messages that are being received may finish", {"event": "ending"}),
    )
    plan.tell("ended", {"event": "ended"})
    return Status.OK


def _serve_with_workers(plan: Plan) -> None:
    try:
        sockets = open_sockets(plan.host, plan.port)
    except OSError as exc:
        raise _cannot_listen(plan, exc) from exc

    async def work(orders: Orders) -> Status:
        listeners = [trio.SocketListener(trio.socket.from_stdlib_socket(listener)) for listener in sockets]
        await _serve_until_told(plan, listeners, partial(_obey_parent, orders), listening=orders.ready)
        return Status.OK

    share_output()
    parent = Parent(plan.workers, sockets, partial(run, work), plan.tell)
    pids = parent.start()
    names = [listener.getsockname() for listener in sockets]
    _tell_listening(plan, names)
    plan.tell(f"workers: processes {', '.join(map(str, pids))}", {"event": "workers", "pids": pids})
    _show_hint(plan, names)
    status = parent.watch()
    plan.tell("ended", {"event": "ended"})
    sys.exit(int(status))


def _cannot_listen(plan: Plan, error: OSError) -> CommandError:
    where = f"{'every address' if plan.host is None else plan.host}, port {plan.port}"
    return CommandError(f"cannot listen on {where}: {reason(error)}", Status.SYSTEM)


def _tell_listening(plan: Plan, names: Sequence[Any]) -> None:
    for host, port, *_ in names:
        words = f"listening on {host_words(host, port)} ({plan.summary})"
        plan.tell(words, {"event": "listening", "host": host, "port": port})


def _show_hint(plan: Plan, names: Sequence[Any]) -> None:
    if plan.hint and sys.stdout.isatty():
        host, port, *_ = names[0]
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        say(plan.hint.replace("HOST:PORT", host_words(host, port)))


async def _serve_until_told(
    plan: Plan,
    listeners: list[trio.SocketListener],
    obey: Callable[[trio.Event, trio.Event], Awaitable[None]],
    *,
    listening: Callable[[], None],
    ending: Callable[[], None] = lambda: None,
) -> None:
    """Serve until `obey` sets its first event, then end gracefully; end at once when it sets the second."""
    server = trio_smtp.Server(
        plan.handler, config=plan.config, ssl_context=plan.ssl_context, implicit_tls=plan.implicit_tls
    )
    end, at_once = trio.Event(), trio.Event()
    async with _attached_outbox(plan), trio.open_nursery() as nursery:
        nursery.start_soon(obey, end, at_once)  # listens before start() returns
        await nursery.start(server.serve_listeners, listeners)
        listening()
        await end.wait()
        ending()
        nursery.start_soon(_cancel_after, at_once, nursery.cancel_scope)
        await server.shutdown(grace=plan.grace)
        nursery.cancel_scope.cancel(reason="the server has ended")


@asynccontextmanager
async def _attached_outbox(plan: Plan) -> AsyncIterator[None]:
    """Open the plan's outbox, if it has one, for the time of serving."""
    if plan.outbox is None:
        yield
        return
    assert isinstance(plan.handler, Queue)
    async with open_store(plan.outbox) as outbox:
        plan.handler.attach(outbox.handler(received_by=plan.config.hostname))
        yield


async def _cancel_after(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel(reason="a second signal")


async def _obey_signals(end: trio.Event, at_once: trio.Event) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        await anext(signals)
        end.set()
        await anext(signals)
        at_once.set()


async def _obey_parent(orders: Orders, end: trio.Event, at_once: trio.Event) -> None:
    """Obey the parent. A SIGTERM sent to this worker alone ends it gracefully too."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(orders.obey, end, at_once)
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            async for _ in signals:
                end.set()
