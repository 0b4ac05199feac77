# The plan of `trio-smtp serve`: its options, checked, and the files and directories that they name, opened.
from __future__ import annotations

import inspect
import json
import shlex
import ssl
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, TypeAlias, TypeVar

import click

import trio_smtp
from trio_smtp.outbox import OutboxConfig

from .errors import CommandError, Status, one_line
from .handlers import Mailbox, Printer, Received, Store, discard, guarded, raw_form, readable_form
from .limits import config_of, is_loopback
from .maildir import Maildir, short
from .metrics import Place, Trace
from .options import credentials
from .outbox import open_store
from .output import Output, has_colour
from .queueing import Queue
from .serve_tls import TLSOptions
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


# ---- the options in groups, each with what it builds

_Group = TypeVar("_Group")


def _take(group: type[_Group], options: dict[str, Any]) -> _Group:
    """Take the options of a group, which are named as its fields, out of all."""
    return group(**{name: options.pop(name) for name in inspect.signature(group).parameters})


@dataclass(frozen=True, kw_only=True)
class _Listening:
    """Where to listen."""

    host: str
    port: int | None
    unix: str | None
    unix_mode: int
    inherit: bool

    def places(self) -> Places:
        """The places, if they can be some."""
        if not self.host:  # a variable that is not set, in a script
            raise click.UsageError(f"--host is empty: it is an address or a name, or {_EVERYWHERE} for all addresses.")
        port = DEFAULT_PORT if self.port is None and self.unix is None and not self.inherit else self.port
        host = None if self.host == _EVERYWHERE else self.host
        return Places(host=host, port=port, unix=self.unix, unix_mode=self.unix_mode, inherit=self.inherit)


@dataclass(frozen=True, kw_only=True)
class _Storing:
    """What becomes of messages, and what is said of them."""

    maildir: str | None
    show: bool
    raw: bool
    forget: bool
    outbox: str | None
    dsn: bool
    quiet: bool

    @property
    def is_reported(self) -> bool:
        """There is a line for each message, which is not shown anyway."""
        return not self.quiet and (self.raw or self.forget or self.maildir is not None or self.outbox is not None)

    def check(self, *, as_json: bool) -> None:
        """Check that the options agree."""
        if (self.maildir is not None) + (self.show or self.raw) + self.forget > 1:
            raise click.UsageError("--maildir, --print (or --raw) and --discard exclude each other.")
        if self.outbox is not None and (self.maildir is not None or self.show or self.raw or self.forget):
            raise click.UsageError("--outbox excludes --maildir, --print and --discard.")
        is_printed = self.maildir is None and not self.forget and self.outbox is None
        if is_printed and as_json:
            raise click.UsageError("--json needs --maildir or --discard (or --outbox): printed messages are not JSON.")
        if is_printed and self.quiet:
            raise click.UsageError("--quiet needs --maildir or --discard (or --outbox): else messages are printed.")
        if self.dsn and self.outbox is None:
            raise click.UsageError("--dsn needs --outbox: else nothing is sent that could be reported on.")

    def open(self, output: Output) -> tuple[Opening, str, list[Chore]]:
        """What each process opens, that in words, and what is to be done beside."""
        if self.outbox is not None:
            return partial(_with_outbox, self.outbox), f"messages go to {self.outbox}", []
        if self.maildir is not None:
            try:
                box = Maildir(self.maildir)
            except OSError as exc:
                raise CommandError(f"cannot use {self.maildir} as a Maildir: {exc.strerror}", Status.SYSTEM) from exc
            return partial(_with_store, box.store), f"messages go to {self.maildir}", [box.keep_clean]
        if self.forget:
            return partial(_with_store, discard), "messages are thrown away", []
        form = raw_form if self.raw else partial(readable_form, colour=has_colour(sys.stdout))
        return partial(_with_store, Printer(output.out.put, form).store), "messages are printed", []


@dataclass(frozen=True, kw_only=True)
class _Login:
    """Who may send."""

    auth: str | None
    password_file: str | None
    allow_insecure_auth: bool

    def user(self) -> tuple[str, str] | None:
        """Name and password, which may have to be read."""
        return credentials(self.auth, self.password_file)

    def check(self, user: tuple[str, str] | None, tls: TLSOptions) -> None:
        """Check that the password does not travel in clear, unless that is wanted."""
        if user is not None and not tls.wanted and not self.allow_insecure_auth:
            raise click.UsageError(
                "--auth without TLS would send passwords in clear:"
                " add --tls-self-signed or --tls-cert (or --allow-insecure-auth if you mean it)."
            )
        if user is None and self.allow_insecure_auth:
            raise click.UsageError("--allow-insecure-auth needs --auth.")


@dataclass(frozen=True, kw_only=True)
class _Speaking:
    """What the server says of itself, and how it speaks."""

    hostname: str | None
    lmtp: bool
    proxy_protocol_from: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Running:
    """The processes."""

    grace: float
    workers: int
    as_json: bool
    metrics: Place | None

    def check(self) -> None:
        """Check that there can be so many."""
        if self.workers > 1 and not AVAILABLE:
            raise click.UsageError("--workers needs a system that can fork processes.")
        if self.metrics is not None and not self.metrics.port and self.workers > 1:
            raise click.UsageError("--metrics needs a port other than 0 with --workers: each worker has the next one.")

    def reporting(self) -> tuple[Output, Tell]:
        """Where everything is written, and how the user is told."""
        output = Output(_left_out_json if self.as_json else _left_out_text)
        return output, partial(_tell_json if self.as_json else _tell_text, output)


# ---- the plan


def make_plan(**options: Any) -> Plan:
    """The plan for the options of `trio-smtp serve`.

    Raises:
        click.UsageError: the options contradict each other.
        CommandError: a file or directory cannot be used.
    """
    listening, storing, tls = _take(_Listening, options), _take(_Storing, options), _take(TLSOptions, options)
    login, speaking, running = _take(_Login, options), _take(_Speaking, options), _take(_Running, options)
    places = listening.places()
    storing.check(as_json=running.as_json)
    running.check()
    user = login.user()
    tls.check()
    login.check(user, tls)
    is_local = not places.inherit and (places.port is None or is_loopback(listening.host))
    config = _make_config(options, speaking, tls, login, is_local=is_local, has_user=user is not None, dsn=storing.dsn)
    names = [name for name in (listening.host, config.hostname) if name != _EVERYWHERE]
    context, tls_words = tls.open(names)
    output, tell = running.reporting()
    totals = Totals(running.workers)
    opening, store_words, chores = storing.open(output)
    summary = ["LMTP" if speaking.lmtp else "SMTP", tls_words]
    summary += ["AUTH required"] * (user is not None)
    summary += [store_words]
    summary += [f"{running.workers} workers"] * (running.workers > 1)
    return Plan(
        places=places,
        users=dict([user]) if user is not None else {},
        report=partial(_report, totals, tell if storing.is_reported else None),
        config=config,
        ssl_context=context,
        certificate=tls.certificate,
        implicit_tls=tls.implicit_tls,
        grace=running.grace,
        workers=running.workers,
        summary=", ".join(summary),
        hint="" if running.as_json else _hint(tls, lmtp=speaking.lmtp, user=user[0] if user is not None else ""),
        chores=chores,
        totals=totals,
        output=output,
        tell=tell,
        metrics=running.metrics,
        opening=opening,
    )


def _make_config(
    limits: Mapping[str, Any],
    speaking: _Speaking,
    tls: TLSOptions,
    login: _Login,
    *,
    is_local: bool,
    has_user: bool,
    dsn: bool,
) -> trio_smtp.ServerConfig:
    """The server's configuration, with the options of limits.py."""
    given, others = config_of(limits, is_local=is_local)
    if others:
        raise TypeError(f"there are no such options: {', '.join(others)}")
    if speaking.hostname is not None:
        given["hostname"] = speaking.hostname
    if dsn:
        given["enabled_extensions"] = ("DSN",)
    try:
        return trio_smtp.ServerConfig(
            auth="required" if has_user else "optional",
            allow_insecure_auth=login.allow_insecure_auth,
            require_tls=tls.require_tls,
            lmtp=speaking.lmtp,
            proxy_protocol_from=speaking.proxy_protocol_from,
            **given,
        )
    except (TypeError, ValueError) as exc:
        raise click.UsageError(f"{exc}.") from exc


@asynccontextmanager
async def _with_store(store: Store, plan: Plan, worker: int, trace: Trace | None) -> AsyncIterator[Service]:
    yield plan.service(Mailbox(store, hostname=plan.config.hostname, lmtp=plan.config.lmtp, report=plan.report))


@asynccontextmanager
async def _with_outbox(url: str, plan: Plan, worker: int, trace: Trace | None) -> AsyncIterator[Service]:
    async with open_store(url, OutboxConfig(trace=trace)) as outbox:
        inner = outbox.handler(received_by=plan.config.hostname)
        yield plan.service(Queue(inner, plan.report, lmtp=plan.config.lmtp))


def _hint(tls: TLSOptions, *, lmtp: bool, user: str) -> str:
    """A command that sends a message to this server, complete but for its address."""
    kind = tls.kind
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
