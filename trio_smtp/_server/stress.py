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

import math
from collections.abc import Iterable
from typing import Final, Protocol, TypeVar

# The share of the slots that is taken, and the longest wait from then on, in seconds.
SHORTER_WAITS: Final = ((0.75, 60.0), (0.9, 20.0), (1.0, 10.0))
FEW_SLOTS: Final = 20  # with fewer of them, waits are not made shorter: a few clients are no attack
NEWCOMER: Final = 0.5  # seconds in which a connection cannot have been of use yet, and need not make room
PATIENCE: Final = 5.0  # seconds that a transaction may keep a full server waiting


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

    __slots__ = ("_command_timeout", "_slots", "begins_at", "command_limit", "limit")

    def __init__(self, slots: int | None = None, command_timeout: float = math.inf) -> None:
        self._command_timeout: float = command_timeout
        self.command_limit: float = command_timeout
        self._slots: int = slots if slots is not None and slots >= FEW_SLOTS else 0
        self.begins_at: float = self._slots * SHORTER_WAITS[0][0] if self._slots else math.inf
        self.limit: float = math.inf

    def __repr__(self) -> str:
        return f"<Stress of {self._slots} slots: {self.limit:g} s>"

    def note(self, taken: int) -> bool:
        """Note how many slots are taken; returns whether waits are shorter than before."""
        before, self.limit = self.limit, math.inf
        if self._slots:
            for share, seconds in SHORTER_WAITS:
                if taken >= share * self._slots:
                    self.limit = seconds
        self.command_limit = min(self.limit, self._command_timeout)
        return self.limit < before


class Occupant(Protocol):
    """A connection that has a slot."""

    @property
    def useless_since(self) -> float:
        """When it was of use for the last time, or began; infinite while it is of use."""

    def has_stalled_for(self, now: float) -> float:
        """For how many seconds its peer has kept a transaction waiting; 0 while it does not."""


Connection = TypeVar("Connection", bound=Occupant)


def choose(connections: Iterable[Connection], now: float) -> Connection | None:
    """The connection that is to make room for another one, ``None`` if each has more right to its slot."""
    oldest, since = None, now - NEWCOMER
    slowest, waited = None, PATIENCE
    for connection in connections:
        useless_since = connection.useless_since
        if useless_since <= since:
            oldest, since = connection, useless_since
        elif oldest is None and useless_since == math.inf and (stalled := connection.has_stalled_for(now)) > waited:
            slowest, waited = connection, stalled
    return oldest or slowest
