# A server that keeps what it gets, and fails where it is told to: what a test sees of it. It runs a SinkHandler.
from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Final, Literal, TypeAlias

import trio

import trio_smtp
from trio_smtp import Reply, Stage

from ._certificates import Certificates
from ._points import FaultPoint, PointStage
from ._server import RunningServer, ServerTLS, Wrap, config_or, run_server
from ._sink_handler import Keep, PrivateSinkHandler, ReceivedMessage, SinkHandler

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
    _handler: SinkHandler

    @classmethod
    def _create_for(cls, handler: SinkHandler, auth: SinkAuth, *args: Any, **kwargs: Any) -> Sink:
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

        Raises:
            TypeError: `count` is no number.
        """
        if isinstance(count, bool) or not isinstance(count, int):
            raise TypeError(f"count must be a whole number, not {count!r:.80}")
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
        handler = SinkHandler(**options)
    elif auth == "any":
        config = replace(config, allow_insecure_auth=True)
        handler = PrivateSinkHandler(None, **options)
    elif isinstance(auth, tuple) and [type(each) for each in auth] == [str, str]:
        config = replace(config, auth="required", allow_insecure_auth=tls == "none")
        handler = PrivateSinkHandler(auth, **options)
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
