# Which hosts bear envelopes that ride behind the unanswered end of a message (pipeline_depth), as they have shown.
#
# RFC 2920 §3.1 allows it, and servers break: some refuse what shares a packet with the end, some throw it away, some
# die of it. One sign is enough: from then on the host has one message at a time on a connection. It holds for the life
# of the pool, unless more than 1000 hosts have given one. A connection that is lost, or stalls before the reply to the
# end, may have other reasons: that is a sign only if no envelope that rode was ever taken there.
from __future__ import annotations

from enum import Enum
from typing import Final

from .._client.log import logger
from .hosts import Route, name_of
from .trace import Tracer

_MOST_HOSTS: Final = 1000  # that are remembered: an application may name new ones for ever


class Sign(Enum):
    """What a server did with an envelope that rode behind an unanswered end."""

    TAKEN = "took it"
    REFUSED = "refused it as out of order, or ended the session"
    FORGOTTEN = "answered the end, and never the envelope"
    LOST = "died or stalled with it"


class Riding:
    """What the hosts of a pool have shown.

    Args:
        tracer: is told of each host that does not bear it, once.
    """

    __slots__ = ("_bears", "_tracer")

    def __init__(self, tracer: Tracer) -> None:
        self._tracer: Tracer = tracer
        self._bears: dict[Route, bool] = {}

    def __repr__(self) -> str:
        bearing = sum(self._bears.values())
        return f"<Riding: {bearing} hosts bear it, {len(self._bears) - bearing} do not>"

    def is_borne_by(self, route: Route) -> bool:
        """Whether envelopes may ride there."""
        return self._bears.get(route, True)

    def saw(self, sign: Sign, route: Route, connection: int) -> None:
        """A host has shown what it does with one.

        Args:
            sign: what it did.
            route: the host.
            connection: the number of the connection.
        """
        known = self._bears.get(route)
        if sign is Sign.TAKEN:
            if known is None:
                self._note(route, bears=True)
            return
        if known is False or (sign is Sign.LOST and known):
            return
        self._note(route, bears=False)
        host = name_of(route)
        facts = {"smtp_connection": connection}
        logger.info(
            "pool: %s does not bear an envelope behind the end of a message: it %s", host, sign.value, extra=facts
        )
        self._tracer.note("alone", connection=connection, detail=host)

    def _note(self, route: Route, *, bears: bool) -> None:
        self._bears[route] = bears
        if len(self._bears) > _MOST_HOSTS:
            bearing = (known for known, bears_it in self._bears.items() if bears_it)
            del self._bears[next(bearing, next(iter(self._bears)))]  # of the others there is something to be lost
