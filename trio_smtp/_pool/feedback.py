# How many connections a server accepts, learnt from its answers: Postfix's concurrency feedback.
#
# Only what concerns connections counts: a refused or failed connection, a 421. Each such failure lowers the limit at
# once, each message that reaches its end raises it by 1/N, so that a pool that has learnt its limit tests it about once
# per N messages (https://www.postfix.org/SCHEDULER_README.html, 1/N positive feedback).
from __future__ import annotations


class Feedback:
    """The number of connections to have.

    Args:
        most: the configured maximum, where it starts.

    Attributes:
        limit: the number now, 1 at least.
        is_reduced: it is less than the maximum.
    """

    __slots__ = ("_credit", "_most", "is_reduced", "limit")

    def __init__(self, most: int) -> None:
        self._most: int = most
        self._credit: float = 0.0
        self.limit: int = most
        self.is_reduced: bool = False

    def __repr__(self) -> str:
        return f"<Feedback {self.limit} of {self._most} connections>"

    def failed(self, connections: int) -> bool:
        """A connection was refused while there were so many (this one included); whether the limit has changed."""
        self._credit = 0.0
        limit = max(1, min(self.limit, connections) - 1)
        changed = limit != self.limit
        self.limit = limit
        self.is_reduced = limit < self._most
        return changed

    def succeeded(self) -> bool:
        """A message was delivered; whether the limit has changed."""
        if not self.is_reduced:
            return False
        self._credit += 1 / self.limit
        if self._credit < 1:
            return False
        self._credit = 0.0
        self.limit += 1
        self.is_reduced = self.limit < self._most
        return True
