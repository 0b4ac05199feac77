# `trio-smtp serve`: a server that keeps, shows or forgets what it gets, until a signal ends it.
from __future__ import annotations

import json
import signal
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import click
import trio

import trio_smtp

from .certificates import load_certificate, make_certificate
from .errors import CommandError, Status, one_line, reason, run
from .handlers import Mailbox, Printer, PrivateMailbox, Received, Store, discard
from .maildir import Maildir
from .options import auth_options, credentials, network, size, verbose_option
from .output import say

_WILDCARDS = frozenset({"", "*"})
_Tell: TypeAlias = Callable[[str, Mapping[str, Any]], None]  # the line for a person, the event for a program


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
    summary: str
    tell: _Tell


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
    run(_serve, _make_plan(**options))


def _make_plan(
    *,
    host: str,
    port: int,
    grace: float,
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
        summary=", ".join(
            ["LMTP" if lmtp else "SMTP", tls_words, *["AUTH required"] * (user is not None), store_words]
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
        where = f"{'every address' if plan.host is None else plan.host}, port {plan.port}"
        raise CommandError(f"cannot listen on {where}: {reason(exc)}", Status.SYSTEM) from exc
    server = trio_smtp.Server(
        plan.handler, config=plan.config, ssl_context=plan.ssl_context, implicit_tls=plan.implicit_tls
    )
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            await nursery.start(server.serve_listeners, listeners)
            for listener in listeners:
                host, port = listener.socket.getsockname()[:2]
                where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
                plan.tell(f"listening on {where} ({plan.summary})", {"event": "listening", "host": host, "port": port})
            await anext(signals)
            plan.tell("ending: messages that are being received may finish", {"event": "ending"})
            nursery.start_soon(_end_at_once, signals, nursery.cancel_scope)
            await server.shutdown(grace=plan.grace)
            nursery.cancel_scope.cancel(reason="the server has ended")
    plan.tell("ended", {"event": "ended"})
    return Status.OK


async def _end_at_once(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    """The second signal."""
    await anext(signals)
    scope.cancel(reason="a second signal")


def _report(tell: _Tell, received: Received) -> None:
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
