# How a pool comes by a connection, and what it knows of one beyond the dialogue: its age, its use, where it leads.
#
# A PooledConnection is new for each connection, so there is nothing to be reset. It says why it is not to be used for
# another message; when to look, and what follows, is its worker's business (worker.py). It does not know the pool's
# messages or callers.
from __future__ import annotations

import math
import random
from functools import partial
from typing import Final

import trio

from .._client.connection import ClientConnection, deadline_after
from .._client.log import logger
from .._client.opening import Opening, open_connection
from .._protocol.errors import AuthenticationError, ConnectError, ConnectionLostError, SMTPError
from .._wire.opening import open_wire
from .._wire.timekeeper import Timekeeper
from .._wire.waits import Interrupted
from .._wire.wire import Wire
from .config import PoolConfig
from .health import ServerHealth
from .hosts import Route, name_of
from .retry import is_passing
from .trace import Tracer

_AGE_JITTER: Final = 0.1  # of max_age


class PooledConnection:
    """A connection, its age and its use.

    Args:
        client: the connection; owned from now on.
        route: where it leads.
        number: which connection of the pool, counted from 1.
        config: the pool's.

    Attributes:
        opened_at: when it was, in Trio's clock.
        retired: why it is to have no further transaction; ``""``: it may.
        sent: messages begun on it.
        may_be_stale: it has been idle, or had a message: it may have died without a sign.
        has_limits: the server's LIMITS may make it useless for a message (RFC 9422).
    """

    __slots__ = (
        "_config",
        "_dies_at",
        "client",
        "has_limits",
        "may_be_stale",
        "number",
        "opened_at",
        "retired",
        "route",
        "sent",
    )

    def __init__(self, client: ClientConnection, route: Route, number: int, config: PoolConfig) -> None:
        self.client: ClientConnection = client
        self.route: Route = route
        self.number: int = number
        self.opened_at: float = trio.current_time()
        self.sent: int = 0
        self.may_be_stale: bool = False
        limits = client.extensions.limits
        self.has_limits: bool = limits.mailmax is not None or limits.rcptdomainmax is not None
        self._config: PoolConfig = config
        self.retired: str = ""
        age = config.max_age
        self._dies_at: float = math.inf if age is None else self.opened_at + age * random.uniform(1 - _AGE_JITTER, 1)

    def __repr__(self) -> str:
        return f"<PooledConnection {self.number} to {name_of(self.route)}, {self.sent} messages: {self.client!r}>"

    # -- messages

    def count_message(self) -> bool:
        """A message is begun on it; whether it may be stale."""
        self.sent += 1
        may_be_stale, self.may_be_stale = self.may_be_stale, True
        self.client.wire.forget_interruption()  # of a caller that gave up when its last reply came
        return may_be_stale

    def suspect(self) -> None:
        """It was silent for a while: it may have died without a sign."""
        self.may_be_stale = True

    def retire(self, reason: str) -> None:
        """Use it for no further transaction."""
        self.retired = self.retired or reason

    def why_close(self) -> str:
        """Why it is not to be used for another message; ``""`` if it may be."""
        if self.retired:
            return self.retired
        if self.client.is_broken:
            return "it was lost"
        most = self._config.max_messages
        if (most is not None and self.sent >= most) or (self.has_limits and self.client.allowance.is_exhausted):
            return "it has had its messages"
        return "it is old" if self._dies_at < math.inf and self.is_old else ""

    @property
    def is_old(self) -> bool:
        """It has passed ``max_age``."""
        return trio.current_time() >= self._dies_at

    # -- idle

    async def watch(self) -> str:
        """Wait for the server to say or do something: why the connection must be closed; ``""`` if :meth:`wake` came.

        A FIN, a 421 or garbage is seen at once, under TLS too.

        Raises:
            SMTPTimeoutError: ``idle_timeout`` or ``max_age`` has passed.
        """
        since, client = trio.current_time(), self.client
        self.suspect()
        client.wire.forget_interruption()
        data: bytes | bytearray = b""
        try:
            data = await client.wire.receive(min(deadline_after(self._config.idle_timeout), self._dies_at))
            reason = "the server spoke" if data else "the server closed it"
        except Interrupted:
            return ""
        except ConnectionLostError:
            reason = "it was lost"
        client.dialogue.note_reason(ConnectionLostError(reason))
        facts = client.dialogue.facts()
        self.abort()
        logger.debug("%s: idle for %.1f s: %s %r", client.name, trio.current_time() - since, reason, data, extra=facts)
        return reason

    def wake(self) -> None:
        """End :meth:`watch`; the connection is as good as before."""
        self.client.wire.interrupt()

    # -- the end

    def abandon(self) -> None:
        """End the wait in progress, or the next one; a send that is ended so breaks the connection."""
        self.client.wire.abandon()

    def abort(self) -> None:
        """Send nothing more on it."""
        self.client.abort()


class Connector:
    """Opens a pool's connections.

    Args:
        opening: how.
        health: tells where to, and is told how it went.
        config: the pool's.
        tracer: is told of each try.
        timekeeper: ends the waits of the connections.

    Attributes:
        opened: connections opened or tried.
    """

    __slots__ = ("_config", "_health", "_opening", "_timekeeper", "_tracer", "opened")

    def __init__(
        self, opening: Opening, health: ServerHealth, config: PoolConfig, tracer: Tracer, timekeeper: Timekeeper
    ) -> None:
        self._opening: Opening = opening
        self._health: ServerHealth = health
        self._config: PoolConfig = config
        self._tracer: Tracer = tracer
        self._timekeeper: Timekeeper = timekeeper
        self.opened: int = 0

    async def connect(self) -> PooledConnection:
        """Connect to the first host that takes the connection.

        Raises:
            SMTPError: the last one's.
        """
        error: SMTPError | None = None
        for route in await self._health.routes():
            self.opened += 1
            started, number, host = trio.current_time(), self.opened, name_of(route)
            tell = partial(self._tracer.tell, connection=number, detail=host)
            try:
                client = await open_connection(self._opening, *route, wrap=self._wrap, tell=tell, number=number)
            except SMTPError as exc:
                error = exc
                self._tracer.tell("connect", started, number, detail=host, error=exc)
                is_login = isinstance(exc, AuthenticationError)
                self._health.connection_failed(None if is_login else route, exc)
                if is_login and not is_passing(exc):
                    raise
            else:
                self._tracer.tell("connect", started, number, detail=host)
                self._health.connected(route)
                return PooledConnection(client, route, number, self._config)
        raise error if error is not None else ConnectError("there is no host to connect to")

    async def close(self, connection: PooledConnection, reason: str) -> None:
        """Say QUIT if the server will listen, and close; never raises."""
        self._tracer.tell("retire", connection.opened_at, connection.number, detail=reason)
        self._health.disconnected(connection.route)
        await connection.client.aclose()

    def _wrap(self, stream: trio.abc.Stream) -> Wire:
        """A wire whose waits the timekeeper ends."""
        timer = self._timekeeper.timer()
        wire = open_wire(stream, timer)
        timer.bind(wire.expire)
        return wire
