# What a sink does in its sessions: it keeps what it gets, and fails where a fault point says so.
from __future__ import annotations

import email
import email.policy
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Any, TypeAlias

import trio

import trio_smtp
from trio_smtp import Reply, Stage

from ._points import FaultPoint, Moment, asked_by_address
from ._server import current_stream


@dataclass(frozen=True, kw_only=True)
class ReceivedMessage:
    """A message that a :class:`Sink` has accepted.

    Attributes:
        sender: the reverse path, ``""`` for the null sender.
        recipients: those who were accepted, in order.
        content: header and text, as they came, with CR LF and without the dots of the transfer.
        envelope: sender and recipients with the parameters of MAIL and RCPT.
        queue_id: what the client was told.
        identity: what the client had logged in as, or ``None``.
        tls: a :class:`trio_smtp.TLSInfo`, or ``None``.
        hello: the name that the client gave.
        peer: its host and port; ``None`` through memory.
    """

    sender: str
    recipients: tuple[str, ...]
    content: bytes
    envelope: trio_smtp.Envelope = field(repr=False)
    queue_id: str
    identity: object
    tls: trio_smtp.TLSInfo | None
    hello: str | None
    peer: tuple[str, int] | None

    @property
    def message(self) -> EmailMessage:
        """The content, parsed anew at each look, for ``message["Subject"]`` or ``message.get_content()``.

        Its lines end with LF, as is usual in Python.
        """
        return email.message_from_bytes(self.content.replace(b"\r\n", b"\n"), policy=email.policy.default)


Keep: TypeAlias = Callable[[trio_smtp.Session, ReceivedMessage], Awaitable[str]]
"""An async function that keeps a message itself, and returns the id that the reply names."""


class SinkHandler(trio_smtp.Handler):
    def __init__(self, *, lmtp: bool, keep: Keep | None, address_faults: bool) -> None:
        self.points: list[FaultPoint] = []
        self.messages: list[ReceivedMessage] = []
        self.arrived: trio.Event = trio.Event()  # replaced with each message
        self._keep = self._keep_in_memory if keep is None else keep
        self._address_faults = address_faults
        self._lmtp = lmtp
        self._count = 0

    async def on_connect(self, session: trio_smtp.Session) -> Reply | None:
        return await self._reach(Moment(Stage.GREETING))

    async def on_hello(self, session: trio_smtp.Session, name: str) -> Reply | None:
        return await self._reach(Moment(Stage.HELLO))

    async def on_mail(self, session: trio_smtp.Session, sender: trio_smtp.Sender) -> Reply | None:
        return await self._reach(Moment(Stage.MAIL, sender.address, sender.address))

    async def on_rcpt(self, session: trio_smtp.Session, recipient: trio_smtp.Recipient) -> Reply | None:
        sender = session.envelope.sender.address if session.envelope is not None else None
        return await self._reach(Moment(Stage.RCPT, recipient.address, sender, (recipient.address,)))

    async def on_data(
        self, session: trio_smtp.Session, envelope: trio_smtp.Envelope, body: trio_smtp.Body
    ) -> Reply | str | Mapping[str, Reply | str | None]:
        sender, recipients = envelope.sender.address, tuple(each.address for each in envelope.recipients)
        reply = await self._reach(Moment(Stage.DATA, None, sender, recipients))
        if reply is not None:
            return reply
        chunks: list[bytes] = []
        async for chunk in body:
            if not chunks:
                reply = await self._reach(Moment(Stage.BODY, None, sender, recipients))
                if reply is not None:
                    return reply
            chunks.append(chunk)
        return await self._end(session, envelope, b"".join(chunks))

    async def _reach(self, moment: Moment) -> Reply | None:
        point = self._point(moment)
        return None if point is None else await point._happen(current_stream.get())

    def _point(self, moment: Moment) -> FaultPoint | None:
        point = next((point for point in self.points if point._take(moment)), None)
        return asked_by_address(moment) if point is None and self._address_faults else point

    async def _end(
        self, session: trio_smtp.Session, envelope: trio_smtp.Envelope, content: bytes
    ) -> Reply | str | Mapping[str, Reply | str | None]:
        sender = envelope.sender.address
        recipients = tuple(recipient.address for recipient in envelope.recipients)
        self._count += 1
        queue_id: str | None = None  # once it is kept
        refused: dict[str, Reply] = {}

        async def keep() -> str:
            message = ReceivedMessage(
                sender=sender,
                recipients=tuple(address for address in recipients if address not in refused),
                content=content,
                envelope=envelope,
                queue_id=f"{self._count:04}" if self._count >= 100 else str(self._count),  # "100" looks like a reply
                identity=session.identity,
                tls=session.tls,
                hello=session.hello,
                peer=session.peer,
            )
            return await self._keep(session, message)

        for address in recipients if self._lmtp else (None,):
            point = self._point(Moment(Stage.END, address, sender, recipients if address is None else (address,)))
            if point is None:
                continue
            if point.keep and queue_id is None:
                queue_id = await keep()
            reply = await point._happen(current_stream.get())
            if reply is not None and (address is None or point.cut):
                return reply
            if reply is not None and address is not None:
                refused[address] = reply
        if queue_id is None and len(refused) < len(recipients):
            queue_id = await keep()
        if not self._lmtp and queue_id is not None:
            return queue_id
        return {address: refused.get(address, queue_id) for address in recipients}

    async def _keep_in_memory(self, session: trio_smtp.Session, message: ReceivedMessage) -> str:
        self.messages.append(message)
        self.arrived.set()
        self.arrived = trio.Event()
        return message.queue_id


class PrivateSinkHandler(SinkHandler):
    """A server offers AUTH exactly when its handler has this hook."""

    def __init__(self, user: tuple[str, str] | None, **options: Any) -> None:
        super().__init__(**options)
        self._user = user

    async def on_auth(self, session: trio_smtp.Session, credentials: trio_smtp.Credentials) -> Reply | bool:
        reply = await self._reach(Moment(Stage.AUTH))
        if reply is not None:
            return reply
        if self._user is None:
            return True
        user, password = self._user
        return credentials.check_password(password if credentials.username == user else None)
