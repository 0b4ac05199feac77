# Stress: what a server that is nearly full does for the clients that still come.
#
# Two rules, both named in docs/supported.md.
#
# 1. As slots run short, the server waits for its peers for a shorter time (SHORTER_WAITS). That is the limit of each
#    wait for a command, a handshake or a reply to be taken, and what the time left for message data is cut to.
# 2. When there is no slot left, one connection makes room for each that comes: the one that has been of no use for the
#    longest time. Of use is a connection while a transaction or a hook is in progress, and when a message is accepted.
#    If all are of use, it is the transaction whose peer has kept the server waiting for the longest time, if that is
#    more than PATIENCE; octets of a message that come at `min_data_rate` count as no waiting.
#
# Which connections there are and how one is ended is not known here.
from __future__ import annotations

import heapq
import math
from collections.abc import Iterable
from typing import Final, Generic, Protocol, TypeVar

# The share of the slots that is taken, and the longest wait from then on, in seconds.
SHORTER_WAITS: Final = ((0.75, 60.0), (0.9, 20.0), (1.0, 10.0))
FEW_SLOTS: Final = 20  # with fewer of them, waits are not made shorter: a few clients are no attack
NEWCOMER: Final = 0.5  # seconds in which a connection cannot have been of use yet, and need not make room
PATIENCE: Final = 3.0  # seconds that a transaction may keep a full server waiting
MANY: Final = 32  # connections that are chosen at one time
LOOK: Final = 0.05  # seconds between two looks at all of them


class Stress:
    """How long a server waits for its peers, by how many of its slots are taken.

    Args:
        slots: how many there are, or ``None``.
        command_timeout: how long it waits for a command without stress; infinite for no limit.

    Attributes:
        limit: seconds; infinite without stress.
        command_limit: the same for a command, at most `command_timeout`.
        begins_at: slots taken, from which on there is any.
    """

    __slots__ = ("_command_timeout", "_hurried_at", "_slots", "begins_at", "command_limit", "limit")

    def __init__(self, slots: int | None = None, command_timeout: float = math.inf) -> None:
        self._command_timeout: float = command_timeout
        self.command_limit: float = command_timeout
        self._slots: int = slots if slots is not None and slots >= FEW_SLOTS else 0
        self._hurried_at: dict[float, float] = {}  # when waits were made so short
        self.begins_at: float = self._slots * SHORTER_WAITS[0][0] if self._slots else math.inf
        self.limit: float = math.inf

    def __repr__(self) -> str:
        return f"<Stress of {self._slots} slots: {self.limit:g} s>"

    def note(self, taken: int, now: float) -> bool:
        """Note how many slots are taken; returns whether the waits in progress are to be made shorter.

        So they are when the limit has become shorter, but not again within a second: a client could make it so by
        closing one connection and opening another.
        """
        before, self.limit = self.limit, math.inf
        if self._slots:
            for share, seconds in SHORTER_WAITS:
                if taken >= share * self._slots:
                    self.limit = seconds
        self.command_limit = min(self.limit, self._command_timeout)
        if self.limit >= before or now - self._hurried_at.get(self.limit, -math.inf) < 1:
            return False
        self._hurried_at[self.limit] = now
        return True


class Occupant(Protocol):
    """A connection that has a slot."""

    @property
    def useless_since(self) -> float:
        """When it was of use for the last time, or began; infinite while it is of use."""

    def has_stalled_for(self, now: float) -> float:
        """For how many seconds its peer has kept a transaction waiting; 0 while it does not."""


Connection = TypeVar("Connection", bound=Occupant)


class Room(Generic[Connection]):
    """Which connections make room, one after the other.

    To look at all of them takes a millisecond for 1000, longer than to serve a message. So MANY are chosen at one time,
    and what was looked at is looked at again after LOOK.
    """

    __slots__ = ("_has_more", "_looks_at", "candidates")

    def __init__(self) -> None:
        self.candidates: dict[Connection, None] = {}
        self._has_more: bool = False  # there were more of them at the latest look
        self._looks_at: float = -math.inf

    def __repr__(self) -> str:
        return f"<Room: {len(self.candidates)} candidates>"

    def choose(self, connections: Iterable[Connection], now: float) -> Connection | None:
        """The connection that is to make room for another one, ``None`` if each has more right to its slot."""
        while True:
            if now >= self._looks_at or (self._has_more and not self.candidates):
                self._look(connections, now)
            while self.candidates:
                connection = next(iter(self.candidates))
                self.forget(connection)
                if connection.useless_since <= now - NEWCOMER or connection.has_stalled_for(now) > PATIENCE:
                    return connection
            if not self._has_more:
                return None

    def forget(self, connection: Connection) -> None:
        """The connection has ended, or will."""
        self.candidates.pop(connection, None)

    def _look(self, connections: Iterable[Connection], now: float) -> None:
        self._looks_at = now + LOOK
        found = [
            (since, number, connection)
            for number, connection in enumerate(connections)
            if (since := connection.useless_since) <= now - NEWCOMER
        ]
        if not found:
            found = [
                (-stalled, number, connection)
                for number, connection in enumerate(connections)
                if (stalled := connection.has_stalled_for(now)) > PATIENCE
            ]
        self._has_more = len(found) > MANY
        self.candidates = {connection: None for _, _, connection in heapq.nsmallest(MANY, found)}
