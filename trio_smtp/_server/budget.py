# How long a client may take for a message: a pure number, which knows no clock and no task.
#
# Postfix's rule: the time that is left grows with the octets that arrive, up to the limit. A client that is slow but
# steady gets through; one that trickles runs out of time, however long its message is.
from __future__ import annotations


class DataBudget:
    """The seconds that a client may still take for one message.

    Args:
        limit: seconds at the beginning, and at most; infinite for no limit.
        rate: octets that earn one second; ``None``: any octet earns the whole limit.

    Attributes:
        left: the seconds.
    """

    __slots__ = ("_limit", "_rate", "left")

    def __init__(self, limit: float, rate: float | None) -> None:
        self._limit: float = limit
        self._rate: float | None = rate
        self.left: float = limit

    def deadline(self, now: float) -> float:
        """When the time is used up if nothing arrives."""
        return now + self.left

    def spend(self, seconds: float, octets: int) -> None:
        """Note a wait and what arrived in it, also if the wait was given up."""
        earned = 0.0
        if octets:
            earned = self._limit if self._rate is None else octets / self._rate
        left = self.left - seconds + earned
        self.left = left if left < self._limit else self._limit

    def __repr__(self) -> str:
        return f"<DataBudget {self.left:g} of {self._limit:g} s left>"
