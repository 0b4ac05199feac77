# How many connections a server bears, learnt from what it says: Postfix's concurrency feedback.
#
# Only what concerns connections counts: a refused or failed connection, a 421. Each such failure takes off at once
# what it weighs, each delivered message gives back 1/N, so that a pool that has learnt its limit probes it about
# once per N messages and not at every one (https://www.postfix.org/SCHEDULER_README.html, 1/N positive feedback).
from __future__ import annotations


class Feedback:
    """The number of connections to have.

    Args:
        most: the configured maximum, where it starts.

    Attributes:
        limit: the number now, 1 at least.
    """

    __slots__ = ("_credit", "_most", "limit")

    def __init__(self, most: int) -> None:
        self._most = most
        self._credit = 0.0
        self.limit = most

    def failed(self, connections: int) -> bool:
        """A connection was refused while there were so many (this one included); whether the limit has changed."""
        self._credit = 0.0
        limit = max(1, min(self.limit, connections) - 1)
        changed = limit != self.limit
        self.limit = limit
        return changed

    def succeeded(self) -> bool:
        """A message was delivered; whether the limit has changed."""
        if self.limit >= self._most:
            return False
        self._credit += 1 / self.limit
        if self._credit < 1:
            return False
        self._credit = 0.0
        self.limit += 1
        return True
