# What a pool knows of its servers: how many connections they bear, which hosts to leave alone, and when to try again to
# keep some warm.
#
# Guarantees: each of these has one writer, this class, which is told of facts: a connection opened, closed or failed, a
# message came to its end. It does not know what tells it; of those that obey the limit it knows the number.
from __future__ import annotations

from collections import Counter
from typing import Final, Protocol

from .._client.log import logger
from .._protocol.errors import SMTPError
from .config import PoolConfig
from .feedback import Feedback
from .hosts import Hosts, Route
from .retry import is_of_the_wire

_LEAST_DELAY: Final = 0.1  # seconds, of warming
_MOST_DELAY: Final = 60.0


class Crew(Protocol):
    """Those that connect to the servers."""

    @property
    def connections(self) -> int:
        """How many they are."""
        ...

    def set_limit(self, limit: int) -> None:
        """Let there be so many at most."""


class ServerHealth:
    """The state of the servers, as far as it was met.

    Args:
        hosts: the servers.
        config: the pool's.
        crew: those that connect; told when there may be more or fewer of them.

    Attributes:
        warming_delay: seconds before the next try to open a connection that no message needs.
    """

    __slots__ = ("_connected", "_crew", "_feedback", "_hosts", "_retry_delay", "warming_delay")

    def __init__(self, hosts: Hosts, config: PoolConfig, crew: Crew) -> None:
        self._hosts: Hosts = hosts
        self._feedback: Feedback = Feedback(config.max_connections)
        self._crew: Crew = crew
        self._retry_delay: float = config.retry_delay
        self._connected: Counter[Route] = Counter()
        self.warming_delay: float = 0.0

    def __str__(self) -> str:
        return str(self._hosts)

    async def routes(self) -> list[Route]:
        """Hosts and ports to try, one after the other."""
        return await self._hosts.routes()

    def connected(self, route: Route) -> None:
        """A connection was opened."""
        self._connected[route] += 1
        self._hosts.succeeded(route)

    def disconnected(self, route: Route) -> None:
        """A connection that was opened is of no more use."""
        self._connected[route] -= 1

    def message_done(self) -> None:
        """A transaction came to its end, whatever the answer: the servers bear this number of connections."""
        self.warming_delay = 0.0
        if self._feedback.is_reduced and self._feedback.succeeded():
            self._tell_limit()

    def connection_failed(self, route: Route | None = None, error: SMTPError | None = None) -> None:
        """A connection was refused, could not be made, or was ended by a 421.

        Args:
            route: the host that is to blame, unless it has another connection.
            error: what it failed with; one that is not about reaching the server does not lower the limit.
        """
        if route is not None and not self._connected[route]:
            self._hosts.failed(route)
        if (error is None or is_of_the_wire(error)) and self._feedback.failed(self._crew.connections):
            self._tell_limit()

    def warming_failed(self, lived: float = 0.0) -> None:
        """A connection that no message needed could not be made, or has lived so long and sent nothing: try later.

        The delays grow, unless it has lived for longer than that.
        """
        delay = min(max(self.warming_delay * 2, self._retry_delay, _LEAST_DELAY), _MOST_DELAY)
        self.warming_delay = delay if lived < delay else 0.0

    def _tell_limit(self) -> None:
        limit = self._feedback.limit
        logger.debug("pool: at most %d connections", limit)
        self._crew.set_limit(limit)
