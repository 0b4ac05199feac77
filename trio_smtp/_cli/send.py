# `trio-smtp send`: sends files or standard input to one server, over one connection.
from __future__ import annotations

import json
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import click

import trio_smtp

from .errors import CommandError, Status, describe, one_line, run, status_of
from .letters import Letter, from_files, quick
from .metrics import Place, metrics_option, telling_metrics
from .options import Target, client_options, server_option, target, verbose_option
from .output import say
from .sendmail import from_program, sendmail_options, submission


@dataclass(frozen=True, kw_only=True)
class _Plan:
    target: Target
    read: Callable[[], Awaitable[list[Letter]]]
    as_json: bool
    metrics: Place | None
    is_for_program: bool = False


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result for one message.

    Attributes:
        file: its name, as the user wrote it.
        status: its exit status.
        delivery: ``"accepted"`` (by at least one recipient), or the error's ``delivery``.
        accepted: address to the reply that accepted it.
        refused: address to the reply that refused it.
        unknown: addresses whose fate is unknown.
        error: one line, or ``None``.
    """

    file: str
    status: Status
    delivery: str
    accepted: dict[str, trio_smtp.Reply | None]
    refused: dict[str, trio_smtp.Reply]
    unknown: list[str]
    error: str | None


@click.command(short_help="Send mail.")
@server_option
@click.option(
    "-f", "-r", "--from", "sender", metavar="ADDRESS", help='Sender; "" for none; by default as the header says.'
)
@click.option(
    "--to",
    "recipients",
    multiple=True,
    metavar="ADDRESS",
    help="Recipient; may be repeated; by default as the header says.",
)
@click.option("--subject", metavar="TEXT", help="Send a message made here, with this subject.")
@click.option("--body", metavar="TEXT", help="Its text; by default standard input.")
@click.option("--attach", multiple=True, metavar="FILE", help="A file to attach to it; may be repeated.")
@client_options
@metrics_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document per message instead of text.")
@verbose_option
@sendmail_options
@click.argument("files", nargs=-1, metavar="[FILE]...")
def send(
    *,
    sender: str | None,
    recipients: tuple[str, ...],
    subject: str | None,
    body: str | None,
    attach: tuple[str, ...],
    as_json: bool,
    metrics: Place | None,
    files: tuple[str, ...],
    **server: Any,
) -> None:
    """Send one message from each FILE, or one from standard input (also "-").

    A message is a header, an empty line and text; line ends may be LF or CRLF. The header is sent unchanged. Without
    --from, the sender is the one in Sender or From; without --to, the recipients are those in To, Cc and Bcc, and Bcc
    is not sent.

    With --subject, --body or --attach, the message is made of these.

    Prints a line for each recipient: whether the server accepted the message; and a total, if there are several
    messages.

    With an option of sendmail, the arguments are recipients and not files, nothing is printed about those who have been
    accepted, and the message gets the fields From, Date and Message-ID if it lacks them.
    """
    given = submission(files, server)
    if files.count("-") > 1:
        raise click.UsageError('Standard input can be read only once: "-" is given twice.')
    read: Callable[[], Awaitable[list[Letter]]]
    if subject is None and body is None and not attach:
        read = (
            partial(from_files, files or ("-",), sender=sender, recipients=recipients)
            if given is None
            else partial(from_program, given, sender=sender, recipients=recipients)
        )
    elif given is not None:
        raise click.UsageError("--subject, --body and --attach make a message; sendmail's options are about another.")
    else:
        read = _quick(sender, recipients, subject=subject, body=body, attach=attach, files=files)
    run(
        _send,
        _Plan(
            target=target(**server),
            read=read,
            as_json=as_json,
            metrics=metrics,
            is_for_program=given is not None,
        ),
    )


def _quick(
    sender: str | None,
    recipients: tuple[str, ...],
    *,
    subject: str | None,
    body: str | None,
    attach: tuple[str, ...],
    files: tuple[str, ...],
) -> Callable[[], Awaitable[list[Letter]]]:
    if files:
        raise click.UsageError("--subject, --body and --attach make a message; with a FILE there is one already.")
    if sender is None or not recipients:
        raise click.UsageError("--subject, --body and --attach need --from and --to.")
    make = partial(quick, sender=sender, recipients=recipients, subject=subject or "", body=body, attachments=attach)

    async def letters() -> list[Letter]:
        return [await make()]

    return letters


async def _send(plan: _Plan) -> Status:
    letters = await plan.read()
    with telling_metrics(plan.metrics) as trace:
        return _told(plan, await _send_all(plan, letters, replace(plan.target.config, trace=trace)))


def _told(plan: _Plan, status: Status) -> Status:
    """The exit status; of sendmail, TRY_LATER says that it keeps the message and tries again."""
    return Status.REFUSED if plan.is_for_program and status is Status.TRY_LATER else status


async def _send_all(plan: _Plan, letters: Sequence[Letter], config: trio_smtp.ClientConfig) -> Status:
    outcomes: list[Outcome] = []
    try:
        async with trio_smtp.open_client(
            plan.target.host, plan.target.port, config=config, **plan.target.options
        ) as client:
            for letter in letters:
                try:
                    outcome = await _send_one(client, plan, letter)
                except KeyboardInterrupt:
                    _show_interrupted(plan, letters[len(outcomes) :])
                    raise
                outcomes.append(outcome)
                _show(plan, outcome)
    except trio_smtp.SMTPError as exc:
        # The error of a message is handled above. This one is about connecting, and nothing was sent.
        error = describe(exc, plan.target.words)
        if not plan.as_json:
            raise CommandError(error, _told(plan, status_of(exc))) from exc
        for letter in letters[len(outcomes) :]:
            outcomes.append(_failure(letter.name, exc, error))
            _show(plan, outcomes[-1])
    if len(outcomes) > 1 and not plan.as_json:
        say(total(outcomes))
    return overall([outcome.status for outcome in outcomes])


async def _send_one(client: trio_smtp.Client, plan: _Plan, letter: Letter) -> Outcome:
    name = letter.name
    try:
        result = await client.send(letter.sender or "", letter.recipients, letter.content)
    except trio_smtp.SMTPError as exc:
        return _failure(name, exc, describe(exc, plan.target.words))
    except OSError as exc:  # the file could be opened before the first message was sent
        return _unsent(name, Status.NO_INPUT, f"cannot read the file: {exc.strerror or exc}")
    return Outcome(
        file=name,
        status=Status.PARTIAL if result.refused else Status.OK,
        delivery="accepted",
        accepted={address: result.replies.get(address, result.reply) for address in result.accepted},
        refused=dict(result.refused),
        unknown=[],
        error=None,
    )


def _failure(name: str, error: trio_smtp.SMTPError, words: str) -> Outcome:
    return Outcome(
        file=name,
        status=status_of(error),
        delivery=str(error.delivery or trio_smtp.Delivery.NOT_SENT),
        accepted=dict.fromkeys(error.accepted),
        refused=dict(error.refused),
        unknown=list(error.unknown),
        error=one_line(words),
    )


def _show_interrupted(plan: _Plan, letters: Sequence[Letter]) -> None:
    """Report the messages that were left. The first was being sent, so its fate is unknown."""
    first, *others = letters
    words = "interrupted while sending; the message may have been delivered"
    _show(plan, _unsent(first.name, Status.INTERRUPTED, words, unknown=first.recipients))
    for letter in others:
        _show(plan, _unsent(letter.name, Status.INTERRUPTED, "interrupted before sending"))


def _unsent(name: str, status: Status, words: str, unknown: Sequence[str] = ()) -> Outcome:
    return Outcome(
        file=name,
        status=status,
        delivery=str(trio_smtp.Delivery.UNKNOWN if unknown else trio_smtp.Delivery.NOT_SENT),
        accepted={},
        refused={},
        unknown=list(unknown),
        error=one_line(words),
    )


def overall(statuses: Sequence[Status]) -> Status:
    """One status for several messages. UNKNOWN wins, since that message must not be sent again blindly."""
    if Status.UNKNOWN in statuses:
        return Status.UNKNOWN
    if len(set(statuses)) == 1:
        return statuses[0]
    if any(status in (Status.OK, Status.PARTIAL) for status in statuses):
        return Status.PARTIAL
    return statuses[0]


def total(outcomes: Sequence[Outcome]) -> str:
    """What became of several messages, in one line."""
    fates = Counter(
        "accepted in part"
        if outcome.accepted and outcome.status is not Status.OK
        else outcome.delivery.replace("_", " ")
        for outcome in outcomes
    )
    return f"{len(outcomes):,} messages: {', '.join(f'{count:,} {fate}' for fate, count in fates.most_common())}"


def _show(plan: _Plan, outcome: Outcome) -> None:
    if plan.as_json:
        say(json.dumps(_as_json(outcome)))
        return
    name = "standard input" if outcome.file == "-" else outcome.file
    err = plan.is_for_program  # its standard output may be a web page
    for address, reply in outcome.accepted.items():
        if not err:
            say(one_line(f"{name}: accepted for <{address}>" + (f" ({reply})" if reply else "")))
    for address, refusal in outcome.refused.items():
        say(one_line(f"{name}: refused for <{address}> ({refusal})"), err=err)
    for address in outcome.unknown:
        say(one_line(f"{name}: unknown for <{address}>: it may have been delivered"), err=err)
    if outcome.error is not None:
        say(one_line(f"trio-smtp: {name}: {outcome.error}"), err=True)


def _as_json(outcome: Outcome) -> dict[str, Any]:
    return {
        "file": outcome.file,
        "status": int(outcome.status),
        "delivery": outcome.delivery,
        "accepted": {address: reply_fields(reply) for address, reply in outcome.accepted.items()},
        "refused": {address: reply_fields(reply) for address, reply in outcome.refused.items()},
        "unknown": outcome.unknown,
        "error": outcome.error,
    }


def reply_fields(reply: trio_smtp.Reply | None) -> dict[str, Any] | None:
    """A reply for JSON."""
    if reply is None:
        return None
    return {"code": reply.code, "enhanced": reply.enhanced, "text": reply.text}
