# A server that keeps what it gets, and fails where it is told to.
from __future__ import annotations

import email
import email.policy
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from email.message import EmailMessage
from functools import partial
from typing import Any, Final, Literal, TypeAlias

import trio

import trio_smtp
from trio_smtp import Reply, Stage

from ._certificates import Certificates
from ._points import FaultPoint, Moment, PointStage, asked_by_address
from ._server import RunningServer, ServerTLS, Wrap, config_or, current_stream, run_server

# Nothing that would slow a test down or get in its way: no penalties, no limits on time or on connections.
_CONFIG: Final = trio_smtp.ServerConfig(
    hostname="sink.test",
    handler_timeout=None,
    session_timeout=None,
    error_delay=None,
    max_auth_failures_per_host=None,
    max_connections=None,
    max_connections_per_host=None,
)


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
SinkAuth: TypeAlias = tuple[str, str] | Literal["any"] | None
"""A user name and a password that clients need, or ``"any"``, or none."""


class Sink(RunningServer):
    """A server that accepts and keeps everything, unless it is told otherwise; made by :func:`open_sink`.

    Attributes:
        messages: what it has accepted, in order; yours to clear. Empty where `keep` was given.
        points: its fault points, the first that applies goes before the others; yours to change.
    """

    messages: list[ReceivedMessage]
    points: list[FaultPoint]
    _auth: SinkAuth
    _handler: _Handler

    @classmethod
    def _create_for(cls, handler: _Handler, auth: SinkAuth, *args: Any, **kwargs: Any) -> Sink:
        """Make one around its handler; the further arguments are those of any :class:`RunningServer`."""
        self = cls._create(*args, **kwargs)
        self.messages = handler.messages
        self.points = handler.points
        self._handler = handler
        self._auth = auth
        return self

    def __repr__(self) -> str:
        return f"<trio_smtp.testing.Sink {self.host}:{self.port}: {len(self.messages)} messages>"

    @property
    def client_options(self) -> dict[str, Any]:
        """As of any :class:`RunningServer`, and ``auth``, if it asks for a login."""
        options = super().client_options
        if isinstance(self._auth, tuple):
            options |= {"auth": self._auth, "allow_insecure_auth": self.tls == "none"}
        return options

    async def wait_for(self, count: int = 1) -> list[ReceivedMessage]:
        """Wait until there are so many messages, and return all that are there.

        A checkpoint; cancelling it changes nothing.
        """
        await trio.lowlevel.checkpoint()
        while len(self.messages) < count:
            await self._handler.arrived.wait()
        return list(self.messages)

    def refuse(
        self,
        stage: PointStage | Stage,
        code: int = 550,
        text: str = "refused, as the test wanted",
        enhanced: str | None = None,
        *,
        close: bool = False,
        address: str | None = None,
        sender: str | None = None,
        recipient: str | None = None,
        share: float = 1,
        seed: int | None = None,
        rate: tuple[int, float] | None = None,
        times: int | None = None,
    ) -> FaultPoint:
        """Answer a 4xx or 5xx reply at a stage.

        ``sink.refuse("rcpt", 550, "no such user", "5.1.1", address="nobody@example.com")``;
        ``sink.refuse("mail", 451, "come back later", times=1)`` is a greylist.

        Args:
            stage: ``"greeting"``, ``"hello"``, ``"auth"``, ``"mail"``, ``"rcpt"``, ``"data"`` (before anything was
                transferred), ``"body"`` (amid the content) or ``"end"``.
            code: of the reply.
            text: of the reply.
            enhanced: its enhanced code.
            close: close the connection then, as a 421 does.
            address: only to this sender (``"mail"``) or recipient (``"rcpt"``; ``"end"`` with LMTP).
            sender: only for messages whose sender matches this pattern (``"*@example.com"``), from ``"mail"`` on.
            recipient: only to recipients that match this pattern, from ``"rcpt"`` on; where all are answered at once,
                if there is one.
            share: in what part of all cases, at random: ``0.1`` for one in ten.
            seed: of this randomness, so that a run can be had again.
            rate: ``(n, seconds)``: only to what comes beyond n in any time of this length: a rate limit.
            times: how often; ``None`` for always.

        Raises:
            ValueError: that could never happen.
        """
        return self._add(
            FaultPoint._create(
                stage,
                reply=Reply(code, text, enhanced, close=close),
                address=address,
                sender=sender,
                recipient=recipient,
                share=share,
                seed=seed,
                rate=rate,
                times=times,
            )
        )

    def cut(
        self,
        stage: PointStage | Stage,
        *,
        address: str | None = None,
        sender: str | None = None,
        recipient: str | None = None,
        share: float = 1,
        seed: int | None = None,
        rate: tuple[int, float] | None = None,
        times: int | None = None,
        keep: bool = False,
    ) -> FaultPoint:
        """Cut the connection off at a stage, before the reply; the other arguments are those of :meth:`refuse`.

        Args:
            stage: where. A client that has written a message in one piece has written all of it at ``"body"``, too.
            address: whose.
            sender: of which senders, a pattern.
            recipient: of which recipients, a pattern.
            share: in what part of all cases.
            seed: of this randomness.
            rate: beyond how many in how many seconds.
            times: how often; ``None`` for always.
            keep: with ``"end"``, keep the message all the same: the client cannot know.

        Raises:
            ValueError: that could never happen.
        """
        return self._add(
            FaultPoint._create(
                stage,
                cut=True,
                keep=keep,
                address=address,
                sender=sender,
                recipient=recipient,
                share=share,
                seed=seed,
                rate=rate,
                times=times,
            )
        )

    def stall(
        self,
        stage: PointStage | Stage,
        seconds: float = math.inf,
        *,
        address: str | None = None,
        sender: str | None = None,
        recipient: str | None = None,
        share: float = 1,
        seed: int | None = None,
        rate: tuple[int, float] | None = None,
        times: int | None = None,
        keep: bool = False,
    ) -> FaultPoint:
        """Let a client wait for the reply at a stage; the other arguments are those of :meth:`refuse`.

        Args:
            stage: where.
            seconds: by Trio's clock, so that ``trio.testing.MockClock`` makes it short; then things go on.
            address: whose.
            sender: of which senders, a pattern.
            recipient: of which recipients, a pattern.
            share: in what part of all cases.
            seed: of this randomness.
            rate: beyond how many in how many seconds.
            times: how often; ``None`` for always.
            keep: with ``"end"``, keep the message before.

        Raises:
            ValueError: that could never happen.
        """
        return self._add(
            FaultPoint._create(
                stage,
                seconds=seconds,
                keep=keep,
                address=address,
                sender=sender,
                recipient=recipient,
                share=share,
                seed=seed,
                rate=rate,
                times=times,
            )
        )

    def accept_all(self) -> None:
        """Forget all fault points."""
        self.points.clear()

    def _add(self, point: FaultPoint) -> FaultPoint:
        if point.stage is Stage.AUTH and self._auth is None:
            raise ValueError("a client cannot log in to a sink that was opened without auth")
        if point.stage is Stage.END and point.address is not None and not self.server.config.lmtp:
            raise ValueError("only LMTP answers for each recipient at the end")
        self.points.append(point)
        return point


class _Handler(trio_smtp.Handler):
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


class _PrivateHandler(_Handler):
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


@asynccontextmanager
async def open_sink(
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    tls: ServerTLS = "none",
    certificates: Certificates | None = None,
    auth: SinkAuth = None,
    config: trio_smtp.ServerConfig | None = None,
    wrap: Wrap = lambda stream: stream,
    keep: Keep | None = None,
    address_faults: bool = False,
) -> AsyncIterator[Sink]:
    """Run a server that keeps what it gets, on a free loopback port, until the end of the block.

    Your program connects to ``sink.host`` and ``sink.port``, a test of yours with ``sink.client_options`` beside, or
    through memory with ``stream=sink.connect()``. What was accepted is in ``sink.messages``, also after the block. At
    the end of the block, or when it is cancelled, connections end as when any server is cancelled.

    Args:
        host: where to listen.
        port: 0 for any free one.
        tls: ``"none"``, ``"starttls"`` or ``"implicit"``.
        certificates: for TLS; made for `host` and its address if not given.
        auth: user name and password without which no mail is taken; or ``"any"``: whatever login a client tries
            succeeds, in clear too, and none is needed.
        config: instead of the sink's own, which lifts the limits that get in the way of tests; with ``lmtp=True`` it
            speaks LMTP.
        wrap: called with the server's end of each connection; returns what is served in its place, such as a
            :class:`FaultyStream`.
        keep: see :data:`Keep`; called with the session and each message. Then ``sink.messages`` stays empty.
        address_faults: let addresses ask for faults: ``450-rcpt@…``, ``550-end@…``, ``stall10-data@…``, ``cut-body@…``
            (a code, ``stall`` and seconds, or ``cut``; then the stage). A sender's apply from ``mail`` on, a
            recipient's from ``rcpt``; ``450-rcpt+anything@…`` is the same.

    Raises:
        ModuleNotFoundError: with TLS, trustme is missing; ``pip install 'trio-smtp[testing]'`` brings it.
        OSError: the port cannot be had.
        TypeError: `auth` is of another kind.
    """
    config = config_or(_CONFIG, config)
    options: dict[str, Any] = {"lmtp": config.lmtp, "keep": keep, "address_faults": address_faults}
    if auth is None:
        handler = _Handler(**options)
    elif auth == "any":
        config = replace(config, allow_insecure_auth=True)
        handler = _PrivateHandler(None, **options)
    elif isinstance(auth, tuple) and [type(each) for each in auth] == [str, str]:
        config = replace(config, auth="required", allow_insecure_auth=tls == "none")
        handler = _PrivateHandler(auth, **options)
    else:
        raise TypeError(f"auth is a tuple of user name and password, 'any' or None, not {type(auth).__name__}")
    async with run_server(
        partial(Sink._create_for, handler, auth),
        handler,
        host=host,
        port=port,
        config=config,
        tls=tls,
        certificates=certificates,
        wrap=wrap,
    ) as sink:
        yield sink
