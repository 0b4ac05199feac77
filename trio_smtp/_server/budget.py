# How long a client may take for a message: a pure number, which knows no clock and no task.
#
# Postfix's rule: the time that is left grows with the octets that arrive, up to the limit. A client that is slow but
# steady gets through; one that trickles runs out of time, however long its message is.
from __future__ import annotations

import math
from collections.abc import Callable

from .stress import Stress


class DataBudget:
    """The seconds that a client may still take for one message.

    Args:
        limit: seconds at the beginning, and at most; infinite for no limit.
        rate: octets that earn one second; ``None``: any octet earns the whole limit.
        stress: makes the limit shorter.
    """

    __slots__ = ("_limit", "_rate", "_since", "_stress", "_wasted")

    def __init__(self, limit: float, rate: float | None, stress: Stress) -> None:
        self._limit: float = limit
        self._rate: float | None = rate
        self._stress: Stress = stress
        self._since: float = math.inf  # when the wait in progress began; infinite without one
        self._wasted: float = 0.0  # seconds waited so far that no octets have earned

    def deadline(self, now: float) -> float:
        """When the time is used up if nothing arrives; a wait begins `now`."""
        self._since = now
        limit = self._limit
        if self._stress.limit < limit:
            limit = self._stress.limit
        return now + limit - self._wasted

    def spend(self, seconds: float, octets: int) -> None:
        """Note a wait and what arrived in it, also if the wait was given up."""
        wasted = self._wasted + seconds
        if octets:
            wasted = 0.0 if self._rate is None else wasted - octets / self._rate
        self._wasted = wasted if wasted > 0.0 else 0.0
        self._since = math.inf

    def stalled(self, now: float) -> float:
        """The seconds that no octets have earned, with the wait in progress; 0 if there is none."""
        return max(self._wasted + now - self._since, 0.0)

    @property
    def left(self) -> float:
        """The seconds, without stress."""
        return self._limit - self._wasted

    def __repr__(self) -> str:
        return f"<DataBudget {self.left:g} of {self._limit:g} s left>"


class ChunkBudgets:
    """The seconds that a client may take for BDAT chunks that were refused: for each the time of a message.

    Args:
        new_budget: makes one.
    """

    __slots__ = ("_latest", "_new_budget", "_number")

    def __init__(self, new_budget: Callable[[], DataBudget]) -> None:
        self._new_budget: Callable[[], DataBudget] = new_budget
        self._number: int = 0
        self._latest: DataBudget = new_budget()

    def of(self, number: int) -> DataBudget:
        """The budget of a chunk: of the latest one, which is the session's `number`-th."""
        if number != self._number:
            self._number, self._latest = number, self._new_budget()
        return self._latest

    def __repr__(self) -> str:
        return f"<ChunkBudgets: {self._latest!r} for chunk {self._number}>"
