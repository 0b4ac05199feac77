# `trio-smtp serve`: a server that stores, prints or discards messages, until a signal ends it.
from __future__ import annotations

import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import click
import trio

import trio_smtp

from .certificates import load_again
from .descriptors import make_room_for
from .errors import Status, reason, run
from .limits import limit_options
from .metrics import place, serving_metrics
from .options import auth_options, host_words, network, octal, verbose_option
from .serve_plan import DEFAULT_PORT, Plan, Service, make_plan
from .signals import ENDING, WATCHED, Wishes, write_statistics
from .sockets import Listener, name_of, open_shared, place_words
from .workers import Orders, Parent


@click.command(short_help="Receive mail.")
@click.option(
    "--host", metavar="HOST", default="127.0.0.1", show_default=True, help="Address or name to listen on; * for all."
)
@click.option(
    "--port",
    metavar="PORT",
    type=click.IntRange(0, 65535),
    help=f"Port; 0 picks a free one.  [default: {DEFAULT_PORT}, or none with --unix or --inherit]",
)
@click.option("--unix", metavar="PATH", help="Listen on a UNIX socket; its file is made and removed.")
@click.option(
    "--unix-mode",
    metavar="MODE",
    type=octal,
    default="600",
    show_default=True,
    help="Permissions of its file, in octal.",
)
@click.option("--inherit", is_flag=True, help="Listen on the sockets of a service manager (systemd's LISTEN_FDS).")
@click.option("--maildir", metavar="DIR", help="Store messages in this Maildir; created if missing.")
@click.option("--print", "show", is_flag=True, help="Show messages on standard output (the default).")
@click.option("--raw", is_flag=True, help="Show them as they came: every field, all parts, nothing decoded.")
@click.option("--discard", "forget", is_flag=True, help="Accept messages and discard them.")
@click.option("--outbox", metavar="URL", help="Put messages into this outbox: sqlite:FILE or redis://HOST:PORT/DB.")
@click.option(
    "--dsn", is_flag=True, help='With --outbox: offer DSN. Reports are made by "outbox work --report-from ADDRESS".'
)
@click.option("--tls-cert", metavar="FILE", help="Certificate chain (PEM); offers STARTTLS.")
@click.option("--tls-key", metavar="FILE", help="Its private key (PEM); may be in the certificate's file.")
@click.option("--tls-self-signed", is_flag=True, help="Offer STARTTLS with a throw-away certificate.")
@click.option("--tls-cert-out", metavar="FILE", help='Write the throw-away certificate to FILE, for "send --ca FILE".')
@click.option("--implicit-tls", is_flag=True, help="Start TLS at once, without STARTTLS (as on port 465).")
@click.option("--require-tls", is_flag=True, help="Refuse mail before TLS.")
@auth_options("Refuse mail from clients that have not logged in as this user.")
@click.option("--allow-insecure-auth", is_flag=True, help="Allow passwords without TLS, in clear.")
@click.option("--hostname", metavar="NAME", help="Name in the greeting and in Received lines.")
@click.option("--lmtp", is_flag=True, help="Speak LMTP (RFC 2033).")
@limit_options
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
@click.option(
    "--metrics",
    type=place,
    metavar="[HOST:]PORT",
    help="Serve metrics for Prometheus; on 127.0.0.1 unless HOST is given. Worker 2 has the next port, and so on.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document per line instead of text.")
@click.option("-q", "--quiet", is_flag=True, help="No line for each message that is stored or discarded.")
@verbose_option
def serve(**options: Any) -> None:
    """Receive mail, until Ctrl-C or SIGTERM.

    Every client may send to every address. Nothing is relayed: messages are stored (--maildir), printed (--print) or
    discarded (--discard). With --outbox they are kept for "trio-smtp outbox work", which does relay them, and answered
    250 once they are durable.

    The first Ctrl-C or SIGTERM ends the server gracefully: it accepts no new connections and finishes the messages that
    are being received. The second ends it at once. SIGHUP loads the files of --tls-cert and --tls-key again, which
    happens within a minute too if they have changed. SIGUSR1 writes statistics to the log.
    """
    serve_by(make_plan(**options))


def serve_by(plan: Plan, *, connections: int = 0) -> None:
    """Serve by a plan, until a signal ends it; then exit.

    Args:
        plan: what to serve, and by how many processes.
        connections: how many more each process has, beside those that it accepts.

    Raises:
        CommandError: a process cannot serve.
    """
    if plan.config.max_connections is not None:
        make_room_for(plan.config.max_connections + connections)
    plan.output.take_log()
    try:
        if plan.workers == 1:
            plan.output.start()
            run(_serve, plan)
        else:
            _serve_with_workers(plan)
    finally:
        plan.output.close()


async def _serve(plan: Plan) -> Status:
    listeners = await plan.places.open()

    def tell_listening() -> None:
        names = [name_of(listener) for listener in listeners]
        _tell_listening(plan, names)
        _tell_metrics(plan)
        _show_hint(plan, names)

    await _serve_until_told(
        plan,
        listeners,
        Wishes.obey,
        listening=tell_listening,
        ending=lambda: plan.tell("ending: messages that are being received may finish", {"event": "ending"}),
    )
    _tell_ended(plan)
    return Status.OK


def _serve_with_workers(plan: Plan) -> None:
    shared = open_shared(plan.places)

    async def work(orders: Orders) -> Status:
        plan.output.start(forked=True)
        plan.totals.count_as(orders.number)
        _renew_certificate(plan)
        obey = partial(_obey_parent, orders)
        await _serve_until_told(plan, shared.open_in_worker(), obey, listening=orders.ready, worker=orders.number)
        return Status.OK

    plan.output.share()
    names = [name_of(listener) for listener in shared.sockets]
    can_reload = plan.certificate is not None
    parent = Parent(plan.workers, shared.close, partial(run, work), plan.output, plan.tell, can_reload=can_reload)
    pids = parent.start()
    if pids:  # else a signal was faster
        _tell_listening(plan, names)
        _tell_metrics(plan)
        plan.tell(f"workers: processes {', '.join(map(str, pids))}", {"event": "workers", "pids": pids})
        _show_hint(plan, names)
    status = parent.watch()
    _tell_ended(plan)
    sys.exit(int(status))


def _renew_certificate(plan: Plan) -> None:
    """In a worker: what its parent has loaded at its own start may have been renewed since."""
    if plan.certificate is None or plan.ssl_context is None:
        return
    try:
        load_again(plan.ssl_context, *plan.certificate)
    except (OSError, ValueError) as exc:
        plan.output.err.put(f"trio-smtp: the certificate in {plan.certificate[0]} stays as it was: {reason(exc)}")


def _tell_ended(plan: Plan) -> None:
    totals = plan.totals
    counts = {"messages": totals.messages, "octets": totals.octets, "seconds": round(totals.seconds, 3)}
    plan.tell(f"ended: {totals}", {"event": "ended", **counts})


def _tell_listening(plan: Plan, names: Sequence[Any]) -> None:
    for name in names:
        words = f"listening on {place_words(name)} ({plan.summary})"
        place = {"path": name} if isinstance(name, str) else {"host": name[0], "port": name[1]}
        plan.tell(words, {"event": "listening", **place})


def _tell_metrics(plan: Plan) -> None:
    if plan.metrics is not None:
        for worker in range(1, plan.workers + 1):
            url = plan.metrics.url(worker)
            plan.tell(f"metrics on {url}", {"event": "metrics", "url": url})


def _show_hint(plan: Plan, names: Sequence[Any]) -> None:
    if plan.hint and sys.stdout.isatty() and not isinstance(names[0], str):
        host, port, *_ = names[0]
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        plan.output.out.put(plan.hint.replace("HOST:PORT", host_words(host, port)))


async def _serve_until_told(
    plan: Plan,
    listeners: Sequence[Listener],
    obey: Callable[[Wishes], Awaitable[None]],
    *,
    listening: Callable[[], None],
    ending: Callable[[], None] = lambda: None,
    worker: int = 1,
) -> None:
    """Serve until `obey` has heard that the end is wished for."""
    with serving_metrics(plan.metrics, worker) as trace:
        async with plan.opening(plan, worker, trace) as service:
            config = service.config if trace is None else replace(service.config, trace=trace)
            service = replace(service, config=config)
            await _serve_with(plan, service, listeners, obey, listening=listening, ending=ending)


async def _serve_with(
    plan: Plan,
    service: Service,
    listeners: Sequence[Listener],
    obey: Callable[[Wishes], Awaitable[None]],
    *,
    listening: Callable[[], None],
    ending: Callable[[], None],
) -> None:
    server = trio_smtp.Server(
        service.handler, config=service.config, ssl_context=plan.ssl_context, implicit_tls=plan.implicit_tls
    )
    wishes = Wishes(
        can_reload=plan.certificate is not None,
        statistics=lambda: write_statistics(server.statistics(), plan.totals),
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(obey, wishes)  # listens before start() returns
        await nursery.start(server.serve_listeners, listeners)
        for chore in plan.chores:
            nursery.start_soon(chore)
        if plan.certificate is not None and plan.ssl_context is not None:
            watch = partial(trio_smtp.watch_certificates, plan.ssl_context, *plan.certificate, signals=wishes.reloads)
            nursery.start_soon(watch)
        listening()
        await wishes.end.wait()
        ending()
        nursery.start_soon(_cancel_after, wishes.at_once, nursery.cancel_scope)
        await server.shutdown(grace=plan.grace)
        nursery.cancel_scope.cancel(reason="the server has ended")


async def _cancel_after(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel(reason="a second signal")


async def _obey_parent(orders: Orders, wishes: Wishes) -> None:
    """Obey the parent. A signal to this worker alone counts too, but its SIGTERM never ends it at once."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(orders.obey, wishes)
        nursery.start_soon(wishes.obey, WATCHED - ENDING)
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            async for _ in signals:
                wishes.end.set()
