# What a pool says of itself in numbers.
from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStatistics:
    """A pool at one moment, and what it has done so far.

    Attributes:
        connections: connections open or being opened.
        idle: connections with nothing to do.
        limit: how many connections are allowed; less than ``max_connections`` while a server refuses more.
        waiting: messages without a connection: their callers are in line, or wait for one that is being opened.
        in_flight: messages on a connection, or between two tries.
        sent: messages accepted for at least one recipient.
        failed: messages that ended in an error, refusals included.
        retried: tries beyond the first of each message.
        opened: connections opened or tried so far.
    """

    connections: int
    idle: int
    limit: int
    waiting: int
    in_flight: int
    sent: int
    failed: int
    retried: int
    opened: int
