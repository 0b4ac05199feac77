# `trio-smtp serve`: a server that keeps, shows or forgets what it gets, until a signal ends it.
from __future__ import annotations

import json
import shlex
import signal
import ssl
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import trio

import trio_smtp

from .certificates import load_certificate, make_certificate
from .errors import CommandError, Status, one_line, reason, run
from .handlers import Mailbox, Printer, PrivateMailbox, Received, Store, discard
from .maildir import Maildir
from .options import auth_options, credentials, host_words, network, size, verbose_option
from .output import say, share_output
from .workers import AVAILABLE, Orders, Parent, Tell, open_sockets

_WILDCARDS = frozenset({"", "*"})


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What the options asked for, checked and opened."""

    host: str | None
    port: int
    handler: trio_smtp.Handler
    config: trio_smtp.ServerConfig
    ssl_context: ssl.SSLContext | None
    implicit_tls: bool
    grace: float
    workers: int
    summary: str
    hint: str
    tell: Tell


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
@click.option("--maildir", metavar="DIR", help="Put messages into this Maildir, made if missing.")
@click.option("--print", "show", is_flag=True, help="Print messages to standard output (the default).")
@click.option("--discard", "forget", is_flag=True, help="Accept messages and throw them away.")
@click.option("--tls-cert", metavar="FILE", help="Certificate chain, PEM: offers STARTTLS.")
@click.option("--tls-key", metavar="FILE", help="Its private key, PEM; may be in the certificate's file.")
@click.option("--tls-self-signed", is_flag=True, help="Offer STARTTLS with a throw-away certificate.")
@click.option("--tls-cert-out", metavar="FILE", help='Write the throw-away certificate to FILE, for "send --ca FILE".')
@click.option("--implicit-tls", is_flag=True, help="Start TLS at once, without STARTTLS (as on port 465).")
@click.option("--require-tls", is_flag=True, help="Refuse mail before STARTTLS.")
@auth_options("Refuse mail from anybody who has not logged in as this user.")
@click.option("--allow-insecure-auth", is_flag=True, help="Allow passwords to cross the network in clear.")
@click.option("--hostname", metavar="NAME", help="Name in the greeting and in Received lines.")
@click.option(
    "--max-size", type=size, metavar="SIZE", default="32M", show_default=True, help="Largest message: 500000, 64K, 10M."
)
@click.option("--lmtp", is_flag=True, help="Speak LMTP (RFC 2033).")
@click.option(
    "--proxy-protocol-from",
    type=network,
    metavar="NET",
    multiple=True,
    help="Expect a PROXY header from load balancers in this network; may be repeated.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    metavar="N",
    help="Serve with N processes that share the port. Limits hold for each of them.",
)
@click.option(
    "--grace",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="At the end, wait so long for messages that are being received.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document per line instead of text.")
@verbose_option
def serve(**options: Any) -> None:
    """Receive mail, until Ctrl-C or SIGTERM.

    Anybody who can connect may send to any address: nothing is relayed, messages are only kept (--maildir), shown
    (--print) or thrown away (--discard).

    The first Ctrl-C or SIGTERM ends the server gracefully: no new connections, messages being received are finished.
    The second one ends it at once.
    """
    plan = _make_plan(**options)
    if plan.workers == 1:
        run(_serve, plan)
    else:
        _serve_with_workers(plan)


def _make_plan(
    *,
    host: str,
    port: int,
    grace: float,
    workers: int,
    as_json: bool,
    hostname: str | None,
    max_size: int,
    lmtp: bool,
    proxy_protocol_from: tuple[str, ...],
    require_tls: bool,
    implicit_tls: bool,
    allow_insecure_auth: bool,
    auth: str | None,
    password_file: str | None,
    maildir: str | None,
    show: bool,
    forget: bool,
    **tls: Any,
) -> _Plan:
    if (maildir is not None) + show + forget > 1:
        raise click.UsageError("--maildir, --print and --discard exclude each other.")
    if as_json and maildir is None and not forget:
        raise click.UsageError("--json needs --maildir or --discard: printed messages are not JSON.")
    if workers > 1 and not AVAILABLE:
        raise click.UsageError("--workers needs a system on which processes can be forked.")
    user = credentials(auth, password_file)
    with_tls = bool(tls["tls_cert"] or tls["tls_self_signed"])
    if (implicit_tls or require_tls) and not with_tls:
        raise click.UsageError("--implicit-tls and --require-tls need --tls-cert or --tls-self-signed.")
    if user is not None and not with_tls and not allow_insecure_auth:
        raise click.UsageError(
            "--auth without TLS would let passwords cross the network in clear:"
            " add --tls-self-signed or --tls-cert (or --allow-insecure-auth if you mean it)."
        )
    if allow_insecure_auth and user is None:
        raise click.UsageError("--allow-insecure-auth is of no use without --auth.")
    try:
        config = trio_smtp.ServerConfig(
            auth="required" if user is not None else "optional",
            allow_insecure_auth=allow_insecure_auth,
            max_message_size=max_size,
            require_tls=require_tls,
            lmtp=lmtp,
            proxy_protocol_from=proxy_protocol_from,
            hostname=trio_smtp.ServerConfig().hostname if hostname is None else hostname,
        )
    except (TypeError, ValueError) as exc:
        raise click.UsageError(f"{exc}.") from exc
    names = [name for name in (host, config.hostname) if name not in _WILDCARDS]
    context, tls_words = _tls(names=names, implicit=implicit_tls, **tls)
    tell = _say_json if as_json else _say_text
    store, store_words = _store(maildir, forget)
    report = partial(_report, tell)
    handler = (
        Mailbox(store, hostname=config.hostname, lmtp=lmtp, report=report)
        if user is None
        else PrivateMailbox(store, users=dict([user]), hostname=config.hostname, lmtp=lmtp, report=report)
    )
    return _Plan(
        host=None if host in _WILDCARDS else host,
        port=port,
        handler=handler,
        config=config,
        ssl_context=context,
        implicit_tls=implicit_tls,
        grace=grace,
        workers=workers,
        summary=", ".join(
            [
                "LMTP" if lmtp else "SMTP",
                tls_words,
                *["AUTH required"] * (user is not None),
                store_words,
                *[f"{workers} workers"] * (workers > 1),
            ]
        ),
        hint=_hint(
            lmtp=lmtp,
            tls="implicit" if implicit_tls else "starttls" if with_tls else "none",
            ca=tls["tls_cert_out"] or "",
            self_signed=tls["tls_self_signed"],
            user=user[0] if user is not None else "",
        ),
        tell=tell,
    )


def _store(maildir: str | None, forget: bool) -> tuple[Store, str]:
    if maildir is not None:
        try:
            return Maildir(maildir).store, f"messages go to {maildir}"
        except OSError as exc:
            raise CommandError(f"cannot use {maildir} as a Maildir: {exc.strerror}", Status.SYSTEM) from exc
    if forget:
        return discard, "messages are thrown away"
    return Printer(sys.stdout).store, "messages are printed"


def _tls(
    *,
    names: list[str],
    implicit: bool,
    tls_cert: str | None,
    tls_key: str | None,
    tls_self_signed: bool,
    tls_cert_out: str | None,
) -> tuple[ssl.SSLContext | None, str]:
    kind = "TLS" if implicit else "STARTTLS"
    if tls_cert and tls_self_signed:
        raise click.UsageError("--tls-cert and --tls-self-signed exclude each other.")
    if tls_key and not tls_cert:
        raise click.UsageError("--tls-key needs --tls-cert.")
    if tls_cert_out and not tls_self_signed:
        raise click.UsageError("--tls-cert-out needs --tls-self-signed.")
    if tls_cert:
        try:
            return load_certificate(tls_cert, tls_key), kind
        except (OSError, ValueError) as exc:
            files = tls_cert if tls_key is None else f"{tls_cert} and {tls_key}"
            raise CommandError(f"cannot use {files} for TLS: {reason(exc)}", Status.NO_INPUT) from exc
    if not tls_self_signed:
        return None, "no TLS"
    certificate = make_certificate(names)
    if tls_cert_out:
        try:
            Path(tls_cert_out).write_text(certificate.pem, encoding="ascii")
        except OSError as exc:
            raise CommandError(f"cannot write {tls_cert_out}: {exc.strerror}", Status.SYSTEM) from exc
    return certificate.server_context, f"{kind} with a throw-away certificate"


async def _serve(plan: _Plan) -> Status:
    try:
        listeners = await trio.open_tcp_listeners(plan.port, host=plan.host)
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


def _serve_with_workers(plan: _Plan) -> None:
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


def _cannot_listen(plan: _Plan, error: OSError) -> CommandError:
    where = f"{'every address' if plan.host is None else plan.host}, port {plan.port}"
    return CommandError(f"cannot listen on {where}: {reason(error)}", Status.SYSTEM)


def _tell_listening(plan: _Plan, names: Sequence[Any]) -> None:
    for host, port, *_ in names:
        words = f"listening on {host_words(host, port)} ({plan.summary})"
        plan.tell(words, {"event": "listening", "host": host, "port": port})


def _show_hint(plan: _Plan, names: Sequence[Any]) -> None:
    if plan.tell is _say_text and sys.stdout.isatty():  # somebody is there who may want to see it work
        host, port, *_ = names[0]
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        say(plan.hint.replace("HOST:PORT", host_words(host, port)))


def _hint(*, lmtp: bool, tls: str, ca: str, self_signed: bool, user: str) -> str:
    """How to send a message to this server, as a command that works as it stands."""
    words = ["trio-smtp send --server HOST:PORT"]
    if tls == "implicit" or (tls == "starttls" and (user or ca)):
        words.append(f"--tls {tls}")
        if ca:
            words.append(f"--ca {shlex.quote(ca)}")
        elif self_signed:
            return "to send to it, let it write its certificate with --tls-cert-out FILE, for trio-smtp send --ca FILE"
    elif tls == "starttls":
        words.append("--tls opportunistic")
    if user:
        words.append(f"--auth {shlex.quote(user)}" + " --allow-insecure-auth" * (tls == "none"))
    words += ["--lmtp"] * lmtp
    return f"to send to it: echo Hello | {' '.join(words)} --from me@example.com --to you@example.com"


async def _serve_until_told(
    plan: _Plan,
    listeners: list[trio.SocketListener],
    obey: Callable[[trio.Event, trio.Event], Awaitable[None]],
    *,
    listening: Callable[[], None],
    ending: Callable[[], None] = lambda: None,
) -> None:
    """Serve until `obey` sets the first of its events, end gracefully, and at once when it sets the second."""
    server = trio_smtp.Server(
        plan.handler, config=plan.config, ssl_context=plan.ssl_context, implicit_tls=plan.implicit_tls
    )
    end, at_once = trio.Event(), trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(obey, end, at_once)  # is at its place when start() returns, which takes longer
        await nursery.start(server.serve_listeners, listeners)
        listening()
        await end.wait()
        ending()
        nursery.start_soon(_cancel_after, at_once, nursery.cancel_scope)
        await server.shutdown(grace=plan.grace)
        nursery.cancel_scope.cancel(reason="the server has ended")


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
    """Its parent, and whoever wants this worker alone to go: that one has as much time as any."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(orders.obey, end, at_once)
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            async for _ in signals:
                end.set()


def _report(tell: Tell, received: Received) -> None:
    recipients = ", ".join(f"<{address}>" for address in received.recipients)
    login = f" as {received.identity}" if received.identity else ""
    peer = f" from {received.peer}" if received.peer else ""
    tell(
        f"{time.strftime('%H:%M:%S')} {received.queue_id}: <{received.sender}> to {recipients},"
        f" {received.size} octets, {received.protocol}{peer}{login}",
        {"event": "message", **asdict(received)},
    )


def _say_text(text: str, event: Mapping[str, Any]) -> None:
    say(one_line(text))


def _say_json(text: str, event: Mapping[str, Any]) -> None:
    say(json.dumps(event))
