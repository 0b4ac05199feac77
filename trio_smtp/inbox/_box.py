# The inbox without its doors: what comes in is read and kept, what is asked for is found, and changes are told.
#
# The one place that ties a message's octets, what they say, its envelope, and the dialogue in which it came. It knows
# neither HTTP nor the sink.
from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

import trio

import trio_smtp
from trio_smtp.testing import ReceivedMessage

from ._dialogue import Dialogue
from ._events import Events
from ._query import Condition
from ._reading import Address, Part, Reading, read_message
from ._store import Entry, Kept, Store

_IN_THREAD: Final = 32 * 1024  # octets from which on a message is read in a thread


class Box:
    """Messages, and those who wait for them.

    Args:
        store: keeps the messages; closed by its owner.

    Attributes:
        store: as given, to look things up.
        events: what happens.
        accepted: messages since the start.
        accepted_octets: their content.
    """

    def __init__(self, store: Store) -> None:
        self.store: Store = store
        self.events: Events = Events()
        self.accepted: int = 0
        self.accepted_octets: int = 0
        self._arrived: trio.Event = trio.Event()  # replaced with each message
        self._arrivals: dict[str, ReceivedMessage] = {}  # of this run, without content

    def __repr__(self) -> str:
        return f"<Box with {self.store!r}>"

    # ---- in

    def note(self, session: trio_smtp.Session, side: str, line: str) -> None:
        """A line of a session's dialogue."""
        _dialogue(session).note(side, line)

    async def take(self, session: trio_smtp.Session, message: ReceivedMessage) -> str:
        """Keep a message; returns its id.

        Once it is kept, it is told to those who listen and wait. Cancelled before, it is not there.
        """
        reading = await _read(message.content)
        name = secrets.token_hex(11)
        message = replace(message, queue_id=name)
        created = time.time_ns() // 1_000_000
        summary = _summary(message, reading, created)
        dialogue = _dialogue(session)
        number, removed = self.store.add(_entry(message, reading, created, summary, dialogue.text))
        dialogue.keep(len(message.content), lambda text: self.store.set_transcript(number, text))
        self._arrivals[name] = replace(message, content=b"")
        self.accepted += 1
        self.accepted_octets += len(message.content)
        self.events.publish("new", {**summary, "Read": False})
        self._forget(removed)
        self._arrived.set()
        self._arrived = trio.Event()
        return name

    # ---- out

    def find(self, name: str, conditions: Sequence[Condition] = ()) -> Kept | None:
        """A message by its id; ``latest`` is the newest that meets the conditions."""
        wanted = self.store.newest(conditions) if name == "latest" else name
        return None if wanted is None else self.store.find(wanted)

    async def read(self, kept: Kept) -> tuple[Reading, bytes]:
        """What a message says, and its octets.

        Raises:
            LookupError: it is not there any more.
        """
        content = self.store.content(kept.number)
        return await _read(content), content

    def received(self, kept: Kept) -> ReceivedMessage:
        """A message as the test kit has it.

        Raises:
            LookupError: it is not there any more.
        """
        content = self.store.content(kept.number)
        known = self._arrivals.get(kept.id)
        return replace(known, content=content) if known is not None else _from_facts(kept, content)

    async def wait_for(self, matches: Callable[[Kept], bool]) -> Kept:
        """The newest message that a function accepts, of those that are there; else the first to come.

        A checkpoint; cancelling it changes nothing.
        """
        await trio.lowlevel.checkpoint()
        seen = 0
        while True:
            arrived = self._arrived
            found = self.store.newest_that(matches, after=seen)
            if found is not None:
                return found
            newest = self.store.find(self.store.newest() or "")
            seen = seen if newest is None else newest.number
            await arrived.wait()

    # ---- changes

    def mark(self, ids: Iterable[str], *, read: bool) -> None:
        """Mark messages as read or unread."""
        self.events.publish_each("read", self.store.mark(ids, read=read), Read=read)

    def delete(self, ids: Iterable[str]) -> None:
        """Remove messages."""
        self._forget(self.store.delete(ids))

    def _forget(self, ids: list[str]) -> None:
        for name in ids:
            self._arrivals.pop(name, None)
        self.events.publish_each("delete", ids)


def matcher(*, to: str = "", sender: str = "", subject: str = "") -> Callable[[Kept], bool]:
    """A function that accepts messages by their envelope and subject; what is empty, all of them have.

    Args:
        to: a recipient of the envelope; without a local part and a domain, a piece of one.
        sender: likewise, the sender of the envelope or the address of ``From``; or a piece of its name.
        subject: a piece of the subject. Case never counts.
    """
    to, sender, subject = to.strip().lower(), sender.strip().lower(), subject.strip().lower()

    def matches(kept: Kept) -> bool:
        author = kept.summary["From"]
        return (
            (not to or any(_is(to, each["Address"]) for each in kept.facts["Recipients"]))
            and (
                not sender
                or _is(sender, kept.facts["Sender"]["Address"])
                or _is(sender, author["Address"])
                or ("@" not in sender and sender in author["Name"].lower())
            )
            and subject in kept.summary["Subject"].lower()
        )

    return matches


def _is(wanted: str, address: str) -> bool:
    """Whether an address is the one that is wanted. ``b@x.test`` is not ``bob@x.test``, but ``@x.test`` is a piece."""
    address = address.lower()
    local_part, at, domain = wanted.rpartition("@")
    return wanted == address if at and local_part and domain else wanted in address


def _dialogue(session: trio_smtp.Session) -> Dialogue:
    dialogue = getattr(session.state, "dialogue", None)
    if not isinstance(dialogue, Dialogue):
        dialogue = session.state.dialogue = Dialogue()
    return dialogue


async def _read(content: bytes) -> Reading:
    if len(content) < _IN_THREAD:
        await trio.lowlevel.checkpoint()
        return read_message(content)
    return await trio.to_thread.run_sync(read_message, content)


def _facts(message: ReceivedMessage) -> dict[str, Any]:
    sender, tls = message.envelope.sender, message.tls
    accepted = set(message.recipients)
    recipients = [each for each in message.envelope.recipients if each.address in accepted]
    return {
        "Sender": {"Address": sender.address, "Params": sender.params},
        "Recipients": [{"Address": each.address, "Params": each.params} for each in recipients],
        "Hello": message.hello or "",
        "Peer": None if message.peer is None else list(message.peer),
        "Username": _username(message),
        "TLS": None if tls is None else {"Version": tls.version, "Cipher": tls.cipher, "ServerName": tls.server_name},
    }


def _summary(message: ReceivedMessage, reading: Reading, created: int) -> dict[str, Any]:
    """What Mailpit calls a MessageSummary, without ``Read``."""
    named = {each.address.lower() for each in (*reading.to, *reading.cc, *reading.bcc)}
    hidden = [Address("", each) for each in dict.fromkeys(message.recipients) if each.lower() not in named]
    author = reading.author or Address("", "")
    return {
        "ID": message.queue_id,
        "MessageID": reading.message_id,
        "From": author.to_json(),
        "To": [each.to_json() for each in reading.to],
        "Cc": [each.to_json() for each in reading.cc],
        "Bcc": [each.to_json() for each in (*reading.bcc, *hidden)],
        "ReplyTo": [each.to_json() for each in reading.reply_to],
        "Subject": reading.subject,
        "Created": moment(created),
        "Username": _username(message),
        "Tags": [],
        "Size": len(message.content),
        "Attachments": len(reading.attachments),
        "Snippet": reading.snippet,
    }


def _username(message: ReceivedMessage) -> str:
    return "" if message.identity is None or message.identity is True else str(message.identity)


def _entry(message: ReceivedMessage, reading: Reading, created: int, summary: dict[str, Any], transcript: str) -> Entry:
    def words(name: str) -> str:
        return " ".join(f"{each['Name']} <{each['Address']}>" for each in summary[name])

    author = f"{summary['From']['Name']} <{summary['From']['Address']}>"
    envelope = " ".join(f"<{each}>" for each in message.recipients)
    everybody = " ".join((author, words("To"), words("Cc"), words("Bcc"), words("ReplyTo"), message.sender))
    names = " ".join(part.file_name for part in reading.parts)
    return Entry(
        id=message.queue_id,
        created=created,
        attachments=len(reading.attachments),
        inline=len(reading.inline),
        message_id=reading.message_id,
        subject=reading.subject,
        to=f"{words('To')} {envelope}",
        author=f"{author} <{message.sender}>",
        cc=words("Cc"),
        bcc=words("Bcc"),
        reply_to=words("ReplyTo"),
        text=f"{reading.subject}\n{everybody}\n{names}\n{reading.text}",
        summary=summary,
        facts=_facts(message),
        content=message.content,
        transcript=transcript,
    )


def _from_facts(kept: Kept, content: bytes) -> ReceivedMessage:
    """A message of an earlier run. Parsed parameters of its envelope, and a client's certificate, were not kept."""
    facts = kept.facts
    sender = trio_smtp.Sender(facts["Sender"]["Address"], params=facts["Sender"]["Params"])
    recipients = [trio_smtp.Recipient(each["Address"], params=each["Params"]) for each in facts["Recipients"]]
    tls, peer = facts["TLS"], facts["Peer"]
    return ReceivedMessage(
        sender=sender.address,
        recipients=tuple(recipient.address for recipient in recipients),
        content=content,
        envelope=trio_smtp.Envelope(sender, recipients),
        queue_id=kept.id,
        identity=facts["Username"] or None,
        tls=None
        if tls is None
        else trio_smtp.TLSInfo(version=tls["Version"], cipher=tls["Cipher"], server_name=tls["ServerName"]),
        hello=facts["Hello"] or None,
        peer=None if peer is None else (peer[0], peer[1]),
    )


def moment(milliseconds: int) -> str:
    """A time as Mailpit writes it: ``2026-11-30T12:00:00.123Z``."""
    time = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def find_part(reading: Reading, part_id: str) -> Part | None:
    """An attachment or an inline part by its number."""
    return next((part for part in reading.parts if part.part_id == part_id), None)
