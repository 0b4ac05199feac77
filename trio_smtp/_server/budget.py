# How long a client may take for a message: a pure number, which knows no clock and no task.
#
# Postfix's rule: the time that is left grows with the octets that arrive, up to the limit. A client that is slow but
# steady gets through; one that trickles runs out of time, however long its message is.
from __future__ import annotations

from .stress import Stress


class DataBudget:
    """The seconds that a client may still take for one message.

    Args:
        limit: seconds at the beginning, and at most; infinite for no limit.
        rate: octets that earn one second; ``None``: any octet earns the whole limit.
        stress: makes the limit shorter.

    Attributes:
        since: when the latest wait began.
        wasted: seconds waited so far that no octets have earned.
    """

    __slots__ = ("_limit", "_rate", "_stress", "since", "wasted")

    def __init__(self, limit: float, rate: float | None, stress: Stress) -> None:
        self._limit: float = limit
        self._rate: float | None = rate
        self._stress: Stress = stress
        self.since: float = 0.0
        self.wasted: float = 0.0

    def deadline(self, now: float) -> float:
        """When the time is used up if nothing arrives; a wait begins `now`."""
        self.since = now
        limit = self._limit
        if self._stress.limit < limit:
            limit = self._stress.limit
        return now + limit - self.wasted

    def spend(self, seconds: float, octets: int) -> None:
        """Note a wait and what arrived in it, also if the wait was given up."""
        wasted = self.wasted + seconds
        if octets:
            wasted = 0.0 if self._rate is None else wasted - octets / self._rate
        self.wasted = wasted if wasted > 0.0 else 0.0

    @property
    def left(self) -> float:
        """The seconds, without stress."""
        return self._limit - self.wasted

    def __repr__(self) -> str:
        return f"<DataBudget {self.left:g} of {self._limit:g} s left>"
