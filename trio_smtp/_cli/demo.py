# `trio-smtp demo`: server, pool and Maildir in one process, over real sockets and TLS, with a check of the result.
from __future__ import annotations

import json
import re
import secrets
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, NamedTuple

import click
import trio

import trio_smtp

from .certificates import ThrowAwayCertificate, make_certificate
from .errors import CommandError, Status, one_line, run, status_of
from .handlers import Mailbox, Received, guarded
from .maildir import Maildir
from .options import verbose_option
from .output import say
from .progress import show_progress
from .samples import Sample, load_samples

_USER: Final = "demo"
# Our own trace lines and nothing else, since the message must follow.
_TRACE = re.compile(
    rb"Return-Path: [^\r\n]*\r\n(?:Delivered-To: [^\r\n]*\r\n)+Received: [^\r\n]*\r\n(?:\t[^\r\n]*\r\n)+"
)
_SECURE: Final = frozenset({"ESMTPSA", "UTF8SMTPSA"})  # with TLS and a login


class _Job(NamedTuple):
    sender: str
    recipients: tuple[str, ...]
    content: bytes


@dataclass(kw_only=True)
class _Tally:
    """The counts so far."""

    seconds: float = 0.0
    messages: int = 0
    recipients: int = 0
    octets: int = 0
    received: dict[str, Received] = field(default_factory=dict)
    stored: list[tuple[str, bytes]] = field(default_factory=list)  # queue id from the reply, and content sent
    failures: list[str] = field(default_factory=list)
    status: Status = Status.OK

    def fail(self, words: str, status: Status) -> None:
        self.failures.append(one_line(words))
        self.status = self.status or status


@click.command(short_help="See it work: server, TLS, login, pool and Maildir.")
@click.option("--maildir", metavar="DIR", help="Where to store the messages; by default a new temporary directory.")
@click.option(
    "--count",
    metavar="N",
    type=click.IntRange(1, 100_000),
    default=50,
    show_default=True,
    help="Send each message N times.",
)
@click.option(
    "--connections",
    metavar="N",
    type=click.IntRange(1, 50),
    default=5,
    show_default=True,
    help="Maximum of the pool's connections.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON document.")
@verbose_option
def demo(*, maildir: str | None, count: int, connections: int, as_json: bool) -> None:
    """Send mail to yourself: server, TLS, login, pool and Maildir in one go.

    Starts a server on a free loopback port, with a throw-away certificate. Sends messages of different kinds to it
    through a pool of connections, with STARTTLS, a verified certificate and a login. Checks that the files in the
    Maildir are byte for byte what was sent.
    """
    run(partial(_demo, maildir, count=count, connections=connections, as_json=as_json))


async def _demo(directory: str | None, *, count: int, connections: int, as_json: bool) -> Status:
    try:
        maildir = Maildir(directory or tempfile.mkdtemp(prefix="trio-smtp-demo-"))
    except OSError as exc:
        raise CommandError(f"cannot use {directory} as a Maildir: {exc.strerror}", Status.SYSTEM) from exc
    samples = load_samples()
    certificate = make_certificate()
    password = secrets.token_urlsafe(16)
    tally = _Tally()
    mailbox = Mailbox(
        maildir.store,
        hostname="localhost",
        report=lambda received: tally.received.update({received.queue_id: received}),
    )
    server = trio_smtp.Server(
        guarded(mailbox, {_USER: password}),
        config=trio_smtp.ServerConfig(hostname="localhost", auth="required"),
        ssl_context=certificate.server_context,
    )
    async with trio.open_nursery() as nursery:
        listeners: list[trio.SocketListener] = await nursery.start(partial(server.serve, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        if not as_json:
            say(f"Server on 127.0.0.1:{port}: STARTTLS, throw-away certificate, AUTH required")
        await _send_all(tally, samples * count, port, connections, certificate, password, quiet=as_json)
        await server.shutdown(grace=5)
    await trio.to_thread.run_sync(_check, tally, maildir)
    (_print_json if as_json else _print_summary)(tally, maildir, len(samples), count)
    return tally.status


async def _send_all(
    tally: _Tally,
    samples: Sequence[Sample],
    port: int,
    connections: int,
    certificate: ThrowAwayCertificate,
    password: str,
    *,
    quiet: bool,
) -> None:
    jobs = (_Job(sample.sender, sample.recipients, sample.content) for sample in samples)
    started = trio.current_time()
    with show_progress("Sending", len(samples), quiet=quiet) as advance:
        async with (
            trio_smtp.open_pool(
                "127.0.0.1",
                port,
                tls="starttls",
                ssl_context=certificate.client_context(),
                auth=(_USER, password),
                local_hostname="localhost",
                max_connections=connections,
            ) as pool,
            pool.send_many(jobs) as outcomes,
        ):
            async for outcome in outcomes:
                _count(tally, outcome)
                advance()
    tally.seconds = trio.current_time() - started


def _count(tally: _Tally, outcome: trio_smtp.Outcome[_Job]) -> None:
    job, result = outcome.job, outcome.result
    if result is None:
        error = outcome.error
        if not isinstance(error, trio_smtp.SMTPError):
            raise error or AssertionError("an outcome has a result or an error")
        tally.fail(f"from {job.sender}: {error}", status_of(error))
        return
    for address, reply in result.refused.items():
        tally.fail(f"to {address}: {reply}", Status.PARTIAL)
    tally.messages += 1
    tally.recipients += len(result.accepted)
    tally.octets += len(job.content)
    tally.stored.append((result.reply.text.rpartition(" ")[2], job.content))


def _check(tally: _Tally, maildir: Maildir) -> None:
    """Check the files: each message once, complete, and no others."""
    for queue_id, content in tally.stored:
        try:
            found = maildir.file_of(queue_id).read_bytes()
        except OSError as exc:
            tally.fail(f"{queue_id} was accepted but is missing: {exc.strerror}", Status.DATA)
            continue
        trace = _TRACE.match(found)
        if trace is None or found[trace.end() :] != content:
            tally.fail(f"{queue_id} is not what was sent", Status.DATA)
    if len(tally.received) != len(tally.stored) or tally.received.keys() != {queue_id for queue_id, _ in tally.stored}:
        tally.fail("the server has stored other messages than were sent", Status.DATA)
    if any(received.protocol not in _SECURE for received in tally.received.values()):
        tally.fail("a message arrived without TLS or without a login", Status.DATA)


def _print_summary(tally: _Tally, maildir: Maildir, kinds: int, count: int) -> None:
    rate, speed = (total / max(tally.seconds, 1e-6) for total in (tally.messages, tally.octets))
    rows = {
        "Messages": f"{tally.messages:,} accepted of {kinds * count:,} ({kinds} kinds, {count} times)",
        "Recipients": f"{tally.recipients:,}",
        "Octets": f"{tally.octets:,}",
        "Time": f"{tally.seconds:.2f} s: {rate:,.0f} messages/s, {speed / 1e6:.1f} MB/s",
        "Maildir": f"{maildir.path}",
    }
    for name, value in rows.items():
        say(f"{name:<11}{value}")
    if not tally.failures:
        say(f"{'Check':<11}every file is byte for byte what was sent, after its trace lines")
        return
    for failure in tally.failures[:10]:
        say(f"trio-smtp: {failure}", err=True)
    if len(tally.failures) > 10:
        say(f"trio-smtp: and {len(tally.failures) - 10} more", err=True)


def _print_json(tally: _Tally, maildir: Maildir, kinds: int, count: int) -> None:
    summary: dict[str, Any] = {
        "messages": tally.messages,
        "sent": kinds * count,
        "recipients": tally.recipients,
        "octets": tally.octets,
        "seconds": round(tally.seconds, 3),
        "maildir": str(maildir.path),
        "verified": not tally.failures,
        "failures": tally.failures,
        "status": int(tally.status),
    }
    say(json.dumps(summary))
