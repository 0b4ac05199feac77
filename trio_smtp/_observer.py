# A trace function and the one who calls it, the same for a server, a client, a pool and an outbox.
#
# Guarantee: what the function raises is logged once, and goes no further. It is never taken for something that happened
# to a message or a connection. A cancellation is no Exception, and goes its way.
from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from ._logging import logger

E = TypeVar("E")


class Observer(Generic[E]):
    """Calls a trace function with events.

    Args:
        function: gets them.
        whose: ``"server"``, ``"client"``, ``"pool"`` or ``"outbox"``, for the log.
        what: the function's name there.

    Attributes:
        function: as given.
    """

    __slots__ = ("_has_failed", "_what", "_whose", "function")

    def __init__(self, function: Callable[[E], None], whose: str, what: str = "trace function") -> None:
        self.function: Callable[[E], None] = function
        self._whose: str = whose
        self._what: str = what
        self._has_failed: bool = False

    def __repr__(self) -> str:
        return f"<Observer of the {self._whose}: {self.function!r}{', has failed' * self._has_failed}>"

    def tell(self, event: E) -> None:
        """Call the function with an event."""
        try:
            self.function(event)
        except Exception:
            self.note_failure()

    def note_failure(self) -> None:
        """The function has raised: to be called where that was caught.

        It is for a caller that has many events, and calls the function by itself to save the frame of :meth:`tell`.
        """
        if not self._has_failed:  # it may well fail for each message
            logger.exception("%s: the %s failed; further failures are not logged", self._whose, self._what)
        self._has_failed = True
