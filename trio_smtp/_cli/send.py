# `trio-smtp send`: sends files or standard input to one server, over one connection.
from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import trio

import trio_smtp

from .errors import CommandError, Status, describe, one_line, run, status_of
from .options import Target, client_options, server_option, target, verbose_option
from .output import say


@dataclass(frozen=True, kw_only=True)
class _Plan:
    target: Target
    sender: str
    recipients: tuple[str, ...]
    files: tuple[str, ...]
    as_json: bool


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
@click.option("--from", "sender", required=True, metavar="ADDRESS", help='Sender of the envelope; "" for none.')
@click.option("--to", "recipients", required=True, multiple=True, metavar="ADDRESS", help="Recipient; may be repeated.")
@client_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document per message instead of text.")
@verbose_option
@click.argument("files", nargs=-1, metavar="[FILE]...")
def send(*, sender: str, recipients: tuple[str, ...], as_json: bool, files: tuple[str, ...], **server: Any) -> None:
    """Send one message from each FILE, or one from standard input (also "-").

    A message is a header, an empty line and text; line ends may be LF or CRLF. The header is sent unchanged. Sender and
    recipients are those of --from and --to.

    Prints a line for each recipient: whether the server accepted the message.
    """
    if files.count("-") > 1:
        raise click.UsageError('Standard input can be read only once: "-" is given twice.')
    plan = _Plan(target=target(**server), sender=sender, recipients=recipients, files=files or ("-",), as_json=as_json)
    run(_send, plan)


async def _send(plan: _Plan) -> Status:
    contents = [(name, await _content(name)) for name in plan.files]
    outcomes: list[Outcome] = []
    try:
        async with trio_smtp.open_client(plan.target.host, plan.target.port, **plan.target.options) as client:
            for name, content in contents:
                try:
                    outcome = await _send_one(client, plan, name, content)
                except KeyboardInterrupt:
                    _show_interrupted(plan, contents[len(outcomes) :])
                    raise
                outcomes.append(outcome)
                _show(plan, outcome)
    except trio_smtp.SMTPError as exc:
        # The error of a message is handled above. This one is about connecting, and nothing was sent.
        error = describe(exc, plan.target.words)
        if not plan.as_json:
            raise CommandError(error, status_of(exc)) from exc
        for name, _ in contents[len(outcomes) :]:
            outcomes.append(_failure(name, exc, error))
            _show(plan, outcomes[-1])
    except UnicodeError as exc:  # the system's look-up of a host name with an empty or too long label
        raise CommandError(f"cannot connect to {plan.target.words}: {exc}", Status.NO_HOST) from exc
    return overall([outcome.status for outcome in outcomes])


async def _content(name: str) -> bytes | Path:
    """The path of a regular file, or the content of standard input or a pipe, which can be read only once."""
    if name == "-":
        if sys.stdin.isatty():
            say("trio-smtp: reading a message from the terminal; Ctrl-D ends it", err=True)
        return await trio.to_thread.run_sync(sys.stdin.buffer.read, abandon_on_cancel=True)
    try:
        return await trio.to_thread.run_sync(_path_or_octets, name, abandon_on_cancel=True)
    except OSError as exc:
        raise CommandError(f"cannot read {name}: {exc.strerror}", Status.NO_INPUT) from exc


def _path_or_octets(name: str) -> bytes | Path:
    with open(name, "rb") as file:
        # A pipe must be read whole here: an octet read as a test would be missing from the message.
        return Path(name) if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else file.read()


async def _send_one(client: trio_smtp.Client, plan: _Plan, name: str, content: bytes | Path) -> Outcome:
    try:
        result = await client.send(plan.sender, plan.recipients, content)
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


def _show_interrupted(plan: _Plan, contents: Sequence[tuple[str, bytes | Path]]) -> None:
    """Report the messages that were left. The first was being sent, so its fate is unknown."""
    (name, _), *others = contents
    words = "interrupted while sending; the message may have been delivered"
    _show(plan, _unsent(name, Status.INTERRUPTED, words, unknown=plan.recipients))
    for name, _ in others:
        _show(plan, _unsent(name, Status.INTERRUPTED, "interrupted before sending"))


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


def _show(plan: _Plan, outcome: Outcome) -> None:
    if plan.as_json:
        say(json.dumps(_as_json(outcome)))
        return
    name = "standard input" if outcome.file == "-" else outcome.file
    for address, reply in outcome.accepted.items():
        say(one_line(f"{name}: accepted for <{address}>" + (f" ({reply})" if reply else "")))
    for address, refusal in outcome.refused.items():
        say(one_line(f"{name}: refused for <{address}> ({refusal})"))
    for address in outcome.unknown:
        say(one_line(f"{name}: unknown for <{address}>: it may have been delivered"))
    if outcome.error is not None:
        say(one_line(f"trio-smtp: {name}: {outcome.error}"), err=True)


def _as_json(outcome: Outcome) -> dict[str, Any]:
    return {
        "file": outcome.file,
        "status": int(outcome.status),
        "delivery": outcome.delivery,
        "accepted": {address: _reply(reply) for address, reply in outcome.accepted.items()},
        "refused": {address: _reply(reply) for address, reply in outcome.refused.items()},
        "unknown": outcome.unknown,
        "error": outcome.error,
    }


def _reply(reply: trio_smtp.Reply | None) -> dict[str, Any] | None:
    if reply is None:
        return None
    return {"code": reply.code, "enhanced": reply.enhanced, "text": reply.text}
