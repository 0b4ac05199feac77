# How `trio-smtp outbox` prints messages: those that can be read, and what is left of one that cannot.
from __future__ import annotations

import json
from typing import Any

from trio_smtp.outbox import DamagedEntry, Entry

from .errors import one_line
from .output import say
from .send import reply_fields


def list_entry(entry: Entry, as_json: bool) -> None:
    """Print an entry as one line."""
    if as_json:
        say(json.dumps(entry_as_json(entry)))
        return
    first, *others = entry.recipients
    more = f" and {len(others)} more" if others else ""
    aside = f", set aside: {entry.set_aside}" if entry.set_aside else ""
    say(one_line(f"{entry.id}  {entry.state:<9}  <{entry.sender}> to <{first}>{more}, {entry.size} octets{aside}"))


def show_damaged(damaged: DamagedEntry, as_json: bool) -> None:
    """Print what is there of an entry that cannot be read."""
    if as_json:
        facts = {"id": damaged.id, "damaged": damaged.reason, "kept": damaged.kept, "size": damaged.size}
        say(json.dumps(facts))
        return
    size = "no content" if damaged.size is None else f"{damaged.size} octets"
    for line in (f"id       {damaged.id}", f"damaged  {damaged.reason}", f"size     {size}"):
        say(one_line(line))
    for name, text in damaged.kept.items():
        say(one_line(f"{name:<7}  {text}"))


def show_entry(entry: Entry, as_json: bool) -> None:
    """Print all that is known of an entry."""
    if as_json:
        say(json.dumps(entry_as_json(entry)))
        return
    facts = [f"id       {entry.id}", f"state    {entry.state}", f"from     <{entry.sender}>"]
    facts += [f"key      {entry.key}"] * (entry.key is not None)
    facts += [f"size     {entry.size} octets", f"created  {entry.created:%Y-%m-%d %H:%M:%S} UTC"]
    facts += [f"settled  {entry.settled:%Y-%m-%d %H:%M:%S} UTC"] if entry.settled is not None else []
    facts += [f"set aside: {entry.set_aside}"] * bool(entry.set_aside)
    for address, recipient in entry.recipients.items():
        words = f"to       <{address}>: {recipient.state}, attempts: {recipient.attempts}"
        if recipient.next_attempt is not None:
            words += f", next: {recipient.next_attempt:%Y-%m-%d %H:%M:%S} UTC"
        if recipient.reply is not None or recipient.error:
            words += f" ({recipient.reply if recipient.reply is not None else recipient.error})"
        facts.append(words)
    facts += ["last attempt:", *(f"  {line}" for line in entry.last_attempt)] if entry.last_attempt else []
    for line in facts:
        say("  " * line.startswith("  ") + one_line(line))


def entry_as_json(entry: Entry) -> dict[str, Any]:
    """The same as a document."""
    return {
        "id": entry.id,
        "key": entry.key,
        "state": entry.state,
        "sender": entry.sender,
        "recipients": {
            address: {
                "state": recipient.state,
                "reply": reply_fields(recipient.reply),
                "attempts": recipient.attempts,
                "next_attempt": None if recipient.next_attempt is None else recipient.next_attempt.isoformat(),
                "error": recipient.error,
            }
            for address, recipient in entry.recipients.items()
        },
        "size": entry.size,
        "created": entry.created.isoformat(),
        "settled": None if entry.settled is None else entry.settled.isoformat(),
        "priority": entry.priority,
        "last_attempt": entry.last_attempt,
        "set_aside": entry.set_aside,
    }
