# The plan of `trio-smtp serve`: its options, checked, and the files and directories that they name, opened.
from __future__ import annotations

import json
import shlex
import ssl
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import click

import trio_smtp
from trio_smtp.outbox import OutboxConfig

from .certificates import load_certificate, make_certificate
from .errors import CommandError, Status, one_line, reason
from .handlers import Mailbox, Printer, Received, Store, discard, guarded, raw_form, readable_form
from .limits import config_of, is_loopback
from .maildir import Maildir, short
from .metrics import Place, Trace
from .options import credentials
from .outbox import open_store
from .output import Output, has_colour
from .queueing import Queue
from .sockets import Places
from .totals import Totals
from .workers import AVAILABLE, Tell

Chore: TypeAlias = Callable[[], Awaitable[None]]
# Of a process: the plan, the process's number, and what counts for its metrics, if they are served.
Opening: TypeAlias = "Callable[[Plan, int, Trace | None], AbstractAsyncContextManager[Service]]"

DEFAULT_PORT = 2525
_EVERYWHERE = "*"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to serve, and how.

    Attributes:
        places: where to listen.
        users: name to password of those who may send; empty if nobody has to log in.
        report: to be called for each message that was accepted.
        config: of the server.
        ssl_context: for STARTTLS or implicit TLS; ``None`` for neither.
        certificate: the files of certificate and key, where they may be renewed; else ``None``.
        implicit_tls: TLS starts at once.
        grace: seconds to wait at the end for messages that are being received.
        workers: number of processes.
        summary: the plan in words.
        hint: a command that sends to this server; its address is ``HOST:PORT``. Empty if there is no use for one.
        chores: what each process does beside serving, until cancelled.
        totals: what was accepted.
        output: where everything is written.
        tell: reports to the user.
        metrics: where each process serves its metrics, or ``None``.
        opening: what each process opens for the time of serving, such as an outbox; its value is what it serves.
    """

    places: Places
    users: Mapping[str, str]
    report: Callable[[Received], None]
    config: trio_smtp.ServerConfig
    ssl_context: ssl.SSLContext | None
    certificate: tuple[str, str | None] | None
    implicit_tls: bool
    grace: float
    workers: int
    summary: str
    hint: str
    chores: Sequence[Chore]
    totals: Totals
    output: Output
    tell: Tell
    metrics: Place | None
    opening: Opening

    def service(self, handler: Any) -> Service:
        """What to serve with a handler, which may be any object that has hooks."""
        return Service(handler=guarded(handler, self.users), config=self.config)


@dataclass(frozen=True, kw_only=True)
class Service:
    """What a process serves.

    Attributes:
        handler: of each message.
        config: of the server.
    """

    handler: Any
    config: trio_smtp.ServerConfig


@dataclass(frozen=True, kw_only=True)
class _TLSOptions:
    tls_cert: str | None
    tls_key: str | None
    tls_self_signed: bool
    tls_cert_out: str | None

    @property
    def wanted(self) -> bool:
        return bool(self.tls_cert or self.tls_self_signed)


def make_plan(
    *,
    host: str,
    port: int | None,
    unix: str | None,
    unix_mode: int,
    inherit: bool,
    grace: float,
    workers: int,
    as_json: bool,
    hostname: str | None,
    lmtp: bool,
    proxy_protocol_from: tuple[str, ...],
    require_tls: bool,
    implicit_tls: bool,
    allow_insecure_auth: bool,
    auth: str | None,
    password_file: str | None,
    maildir: str | None,
    show: bool,
    raw: bool,
    quiet: bool,
    forget: bool,
    outbox: str | None,
    dsn: bool,
    metrics: Place | None,
    **other: Any,
) -> Plan:
    """The plan for the options of `trio-smtp serve`.

    Raises:
        click.UsageError: the options contradict each other.
        CommandError: a file or directory cannot be used.
    """
    if port is None and unix is None and not inherit:
        port = DEFAULT_PORT
    if not host:  # a variable that is not set, in a script
        raise click.UsageError(f"--host is empty: it is an address or a name, or {_EVERYWHERE} for all addresses.")
    is_local = not inherit and (port is None or is_loopback(host))
    limits, tls_options = config_of(other, is_local=is_local)
    tls = _TLSOptions(**tls_options)
    _check_stores(maildir=maildir, show=show, raw=raw, forget=forget, outbox=outbox, as_json=as_json, quiet=quiet)
    if dsn and outbox is None:
        raise click.UsageError("--dsn needs --outbox: else nothing is sent that could be reported on.")
    if workers > 1 and not AVAILABLE:
        raise click.UsageError("--workers needs a system that can fork processes.")
    if metrics is not None and not metrics.port and workers > 1:
        raise click.UsageError("--metrics needs a port other than 0 with --workers: each worker has the next one.")
    user = credentials(auth, password_file)
    if (implicit_tls or require_tls) and not tls.wanted:
        raise click.UsageError("--implicit-tls and --require-tls need --tls-cert or --tls-self-signed.")
    _check_auth(user, tls=tls, allow_insecure_auth=allow_insecure_auth)
    settings: dict[str, Any] = {"hostname": hostname} if hostname is not None else {}
    if dsn:
        settings["enabled_extensions"] = ("DSN",)
    try:
        config = trio_smtp.ServerConfig(
            auth="required" if user is not None else "optional",
            allow_insecure_auth=allow_insecure_auth,
            require_tls=require_tls,
            lmtp=lmtp,
            proxy_protocol_from=proxy_protocol_from,
            **limits,
            **settings,
        )
    except (TypeError, ValueError) as exc:
        raise click.UsageError(f"{exc}.") from exc
    names = [name for name in (host, config.hostname) if name != _EVERYWHERE]
    context, tls_words = _open_tls(tls, names=names, implicit=implicit_tls)
    output = Output(_left_out_json if as_json else _left_out_text)
    tell = partial(_tell_json if as_json else _tell_text, output)
    totals = Totals(workers)
    opening, store_words, chores = _open_store(maildir, outbox, output, forget=forget, raw=raw)
    is_reported = not quiet and (raw or forget or maildir is not None or outbox is not None)  # else it is shown
    report = partial(_report, totals, tell if is_reported else None)
    summary = ["LMTP" if lmtp else "SMTP", tls_words]
    summary += ["AUTH required"] * (user is not None)
    summary += [store_words]
    summary += [f"{workers} workers"] * (workers > 1)
    kind = "implicit" if implicit_tls else "starttls" if tls.wanted else "none"
    return Plan(
        places=Places(
            host=None if host == _EVERYWHERE else host, port=port, unix=unix, unix_mode=unix_mode, inherit=inherit
        ),
        users=dict([user]) if user is not None else {},
        report=report,
        config=config,
        ssl_context=context,
        certificate=None if tls.tls_cert is None else (tls.tls_cert, tls.tls_key),
        implicit_tls=implicit_tls,
        grace=grace,
        workers=workers,
        summary=", ".join(summary),
        hint="" if as_json else _hint(tls, kind=kind, lmtp=lmtp, user=user[0] if user is not None else ""),
        chores=chores,
        totals=totals,
        output=output,
        tell=tell,
        metrics=metrics,
        opening=opening,
    )


@asynccontextmanager
async def _with_store(store: Store, plan: Plan, worker: int, trace: Trace | None) -> AsyncIterator[Service]:
    yield plan.service(Mailbox(store, hostname=plan.config.hostname, lmtp=plan.config.lmtp, report=plan.report))


@asynccontextmanager
async def _with_outbox(url: str, plan: Plan, worker: int, trace: Trace | None) -> AsyncIterator[Service]:
    async with open_store(url, OutboxConfig(trace=trace)) as outbox:
        inner = outbox.handler(received_by=plan.config.hostname)
        yield plan.service(Queue(inner, plan.report, lmtp=plan.config.lmtp))


def _check_stores(
    *, maildir: str | None, show: bool, raw: bool, forget: bool, outbox: str | None, as_json: bool, quiet: bool
) -> None:
    if (maildir is not None) + (show or raw) + forget > 1:
        raise click.UsageError("--maildir, --print (or --raw) and --discard exclude each other.")
    if outbox is not None and (maildir is not None or show or raw or forget):
        raise click.UsageError("--outbox excludes --maildir, --print and --discard.")
    if maildir is not None or forget or outbox is not None:
        return
    if as_json:
        raise click.UsageError("--json needs --maildir or --discard (or --outbox): printed messages are not JSON.")
    if quiet:
        raise click.UsageError("--quiet needs --maildir or --discard (or --outbox): else messages are printed.")


def _check_auth(user: tuple[str, str] | None, *, tls: _TLSOptions, allow_insecure_auth: bool) -> None:
    if user is not None and not tls.wanted and not allow_insecure_auth:
        raise click.UsageError(
            "--auth without TLS would send passwords in clear:"
            " add --tls-self-signed or --tls-cert (or --allow-insecure-auth if you mean it)."
        )
    if user is None and allow_insecure_auth:
        raise click.UsageError("--allow-insecure-auth needs --auth.")


def _open_store(
    maildir: str | None, outbox: str | None, output: Output, *, forget: bool, raw: bool
) -> tuple[Opening, str, list[Chore]]:
    if outbox is not None:
        return partial(_with_outbox, outbox), f"messages go to {outbox}", []
    if maildir is not None:
        try:
            box = Maildir(maildir)
        except OSError as exc:
            raise CommandError(f"cannot use {maildir} as a Maildir: {exc.strerror}", Status.SYSTEM) from exc
        return partial(_with_store, box.store), f"messages go to {maildir}", [box.keep_clean]
    if forget:
        return partial(_with_store, discard), "messages are thrown away", []
    form = raw_form if raw else partial(readable_form, colour=has_colour(sys.stdout))
    return partial(_with_store, Printer(output.out.put, form).store), "messages are printed", []


def _open_tls(tls: _TLSOptions, *, names: list[str], implicit: bool) -> tuple[ssl.SSLContext | None, str]:
    kind = "TLS" if implicit else "STARTTLS"
    if tls.tls_cert and tls.tls_self_signed:
        raise click.UsageError("--tls-cert and --tls-self-signed exclude each other.")
    if tls.tls_key and not tls.tls_cert:
        raise click.UsageError("--tls-key needs --tls-cert.")
    if tls.tls_cert_out and not tls.tls_self_signed:
        raise click.UsageError("--tls-cert-out needs --tls-self-signed.")
    if tls.tls_cert:
        return _load_certificate(tls.tls_cert, tls.tls_key), kind
    if not tls.tls_self_signed:
        return None, "no TLS"
    certificate = make_certificate(names)
    if tls.tls_cert_out:
        try:
            Path(tls.tls_cert_out).write_text(certificate.pem, encoding="ascii")
        except OSError as exc:
            raise CommandError(f"cannot write {tls.tls_cert_out}: {exc.strerror}", Status.SYSTEM) from exc
    return certificate.server_context, f"{kind} with a throw-away certificate"


def _load_certificate(certificate: str, key: str | None) -> ssl.SSLContext:
    try:
        return load_certificate(certificate, key)
    except (OSError, ValueError) as exc:
        files = certificate if key is None else f"{certificate} and {key}"
        raise CommandError(f"cannot use {files} for TLS: {reason(exc)}", Status.NO_INPUT) from exc


def _hint(tls: _TLSOptions, *, kind: str, lmtp: bool, user: str) -> str:
    """A command that sends a message to this server, complete but for its address."""
    words = ["trio-smtp send --server HOST:PORT"]
    if kind == "implicit" or (kind == "starttls" and (user or tls.tls_cert_out)):
        words.append(f"--tls {kind}")
        if tls.tls_cert_out:
            words.append(f"--ca {shlex.quote(tls.tls_cert_out)}")
        elif tls.tls_self_signed:
            return "to send to it, write its certificate with --tls-cert-out FILE, for trio-smtp send --ca FILE"
    elif kind == "starttls":
        words.append("--tls opportunistic")
    if user:
        words.append(f"--auth {shlex.quote(user)}" + " --allow-insecure-auth" * (kind == "none"))
    words += ["--lmtp"] * lmtp
    return f"to send to it: echo Hello | {' '.join(words)} --from me@example.com --to you@example.com"


def _report(totals: Totals, tell: Tell | None, received: Received) -> None:
    totals.add(received.size)
    if tell is None:
        return
    recipients = ", ".join(f"<{address}>" for address in received.recipients)
    queue_id = f" {short(received.queue_id)}:" if received.queue_id else ""
    login = f" as {received.identity}" if received.identity else ""
    peer = f" from {received.peer}" if received.peer else ""
    reply = f": {received.reply}" if received.reply is not None else ""
    event = asdict(received)
    del event["reply" if received.reply is None else "queue_id"]
    tell(
        f"{time.strftime('%H:%M:%S')}{queue_id} <{received.sender}> to {recipients},"
        f" {received.size} octets, {received.protocol}{peer}{login}{reply}",
        {"event": "message", **event},
    )


def _tell_text(output: Output, text: str, event: Mapping[str, Any]) -> None:
    output.out.put(one_line(text))


def _tell_json(output: Output, text: str, event: Mapping[str, Any]) -> None:
    output.out.put(json.dumps(event))


def _left_out_text(lines: int) -> str:
    return f"trio-smtp: {lines:,} lines were left out, since they were not read in time"


def _left_out_json(lines: int) -> str:
    return json.dumps({"event": "left out", "lines": lines})
