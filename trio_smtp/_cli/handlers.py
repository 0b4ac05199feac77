# The handlers of `serve` and `demo`: they pass each message to a store and report it.
#
# A store is a coroutine function that takes a message's received fields and content. It returns the number of octets
# once the message is stored: `Maildir.store`, `Printer.store` or `discard`. `Private` stands around any handler: a
# server offers AUTH only if its handler has `on_auth`.
from __future__ import annotations

import errno
from collections.abc import AsyncIterable, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

import click
import trio

import trio_smtp

from . import display
from .maildir import short, unique_ids
from .received import ReceivedFields, protocol_name

Store: TypeAlias = Callable[[ReceivedFields, AsyncIterable[bytes]], Awaitable[int]]

_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@dataclass(frozen=True, kw_only=True, slots=True)
class Received:
    """A message that a handler has accepted.

    Attributes:
        queue_id: as in the reply; for a Maildir, the unique part of the file name; ``""`` if another server chose it.
        sender: the reverse path, ``""`` for the null sender.
        recipients: the forward paths.
        size: octets of content.
        peer: the client's address, ``""`` if it has none.
        protocol: ``ESMTPS``, for example.
        identity: the user that the client logged in as, or ``None``.
        reply: the next server's, if the message went on to one.
    """

    queue_id: str
    sender: str
    recipients: tuple[str, ...]
    size: int
    peer: str
    protocol: str
    identity: str | None
    reply: str | None = None


def received(
    session: trio_smtp.Session,
    envelope: trio_smtp.Envelope,
    *,
    size: int,
    lmtp: bool,
    queue_id: str = "",
    recipients: Sequence[str] | None = None,
    reply: str | None = None,
) -> Received:
    """What is to be reported of a message; all its recipients have it unless some are named."""
    if recipients is None:
        recipients = [recipient.address for recipient in envelope.recipients]
    return Received(
        queue_id=queue_id,
        sender=envelope.sender.address,
        recipients=tuple(recipients),
        size=size,
        peer=str(session.peer[0]) if session.peer else "",
        protocol=_protocol(session, envelope, lmtp=lmtp),
        identity=_identity(session),
        reply=reply,
    )


def _protocol(session: trio_smtp.Session, envelope: trio_smtp.Envelope, *, lmtp: bool) -> str:
    return protocol_name(
        esmtp=session.esmtp,
        lmtp=lmtp,
        tls=session.tls is not None,
        authenticated=session.identity is not None,
        smtputf8=envelope.sender.smtputf8,
    )


def _identity(session: trio_smtp.Session) -> str | None:
    return None if session.identity is None else str(session.identity)


class Mailbox(trio_smtp.Handler):
    """Accepts every message, stores it, reports it, and answers with its id.

    Args:
        store: stores a message.
        hostname: this server's name, for ``Received``.
        lmtp: the server speaks LMTP.
        report: called for each stored message, before the client gets its reply.
    """

    def __init__(
        self,
        store: Store,
        *,
        hostname: str,
        lmtp: bool = False,
        report: Callable[[Received], None] = lambda received: None,
    ) -> None:
        self._store = store
        self._hostname = hostname
        self._lmtp = lmtp
        self._report = report
        self._ids = unique_ids()

    async def on_data(self, session: trio_smtp.Session, envelope: trio_smtp.Envelope, body: trio_smtp.Body) -> str:
        """Store the message; 452 when the disk is full."""
        fields = self._fields(session, envelope)
        try:
            size = await self._store(fields, body)
        except OSError as exc:
            if exc.errno in _DISK_FULL:
                raise trio_smtp.Reject(452, "insufficient system storage", "4.3.1") from exc
            raise
        self._report(received(session, envelope, queue_id=fields.queue_id, size=size, lmtp=self._lmtp))
        return fields.queue_id

    def _fields(self, session: trio_smtp.Session, envelope: trio_smtp.Envelope) -> ReceivedFields:
        tls = session.tls
        return ReceivedFields(
            queue_id=next(self._ids),
            hostname=self._hostname,
            hello=session.hello or "",
            peer=session.peer[0] if session.peer else None,
            protocol=_protocol(session, envelope, lmtp=self._lmtp),
            tls=f"{tls.version} {tls.cipher}" if tls else "",
            sender=envelope.sender.address,
            recipients=[recipient.address for recipient in envelope.recipients],
            date=datetime.now().astimezone(),
            identity=_identity(session),
        )


class Private:
    """A handler for clients that log in: the hooks of another one, and a login.

    Args:
        handler: the other one.
        users: name to password.
    """

    def __init__(self, handler: Any, *, users: Mapping[str, str]) -> None:
        self._users = dict(users)
        for name in dir(handler):
            hook = getattr(handler, name) if name.startswith("on_") else None
            # The defaults stay away: with a hook for VRFY, say, EHLO would offer it.
            if hook is not None and getattr(hook, "__func__", None) is not getattr(trio_smtp.Handler, name):
                setattr(self, name, hook)

    async def on_auth(self, session: trio_smtp.Session, credentials: trio_smtp.Credentials) -> bool:
        """Whether the password is correct. An unknown user takes as long and gets the same reply."""
        return credentials.check_password(self._users.get(credentials.username))


def guarded(handler: Any, users: Mapping[str, str]) -> Any:
    """A handler, behind a login if there are users: name to password."""
    return Private(handler, users=users) if users else handler


async def discard(fields: ReceivedFields, content: AsyncIterable[bytes]) -> int:
    """A store that discards messages."""
    size = 0
    async for chunk in content:
        size += len(chunk)
    return size


Form: TypeAlias = Callable[[ReceivedFields, bytearray], str]


class Printer:
    """A store that prints messages, each in one piece.

    Args:
        write: takes text, without waiting for a reader.
        form: makes the text. It is called in a thread.
    """

    def __init__(self, write: Callable[[str], None], form: Form) -> None:
        self._write = write
        self._form = form

    async def store(self, fields: ReceivedFields, content: AsyncIterable[bytes]) -> int:
        """Collect the whole message, then print it."""
        collected = bytearray()
        async for chunk in content:
            collected += chunk
        self._write(await trio.to_thread.run_sync(self._form, fields, collected))
        return len(collected)


def raw_form(fields: ReceivedFields, content: bytearray) -> str:
    """A message as it would be stored, below its id."""
    return f"----- {fields.queue_id} -----\n{display.raw(fields.to_bytes() + content)}"


def readable_form(fields: ReceivedFields, content: bytearray, *, colour: bool) -> str:
    """A message for people, below a line that says how it came."""
    peer = f" from {fields.peer}" if fields.peer else ""
    login = f" as {fields.identity}" if fields.identity else ""
    how = f"{fields.protocol}{peer}{login}"
    head = f"----- {short(fields.queue_id)} {fields.date:%H:%M:%S}, {len(content):,} octets, {how}"
    recipients = ", ".join(f"<{address}>" for address in fields.recipients)
    return "\n".join(
        [
            click.style(display.safe(head), bold=True) if colour else display.safe(head),
            display.field("Envelope", f"<{fields.sender}> to {recipients}", colour=colour),
            display.show(content, colour=colour),
            "\n",
        ]
    )
