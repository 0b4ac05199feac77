# A message between its caller and the task of a connection: handed over, done, and its outcome.
#
# One try each time it is handed over; whether there is another is the caller's side's business (retry.py). Whatever
# happens to the task, the outcome is set, so that a caller always hears. A caller who is cancelled waits for the reply
# to what has left, for a while; then he says abandon(), which ends whatever wait the task is in for his message alone,
# and waits for the outcome of that, which is as near as the task can make it. Where the task has not begun with his
# message, or has others in flight with it, he does not: of a message that was abandoned nothing more is sent.
from __future__ import annotations

import trio

from .._client.connection import ClientConnection
from .._client.report import DeliveryReport


class Errand:
    """One message to be sent by a connection's task.

    Attributes:
        report: the message, and what has become of it so far.
        error: what ended the latest try, ``None`` if it reached its end.
        abandoned: the caller does not want it any more.
        forsaken: and he waits no longer for a reply to it.
        fresh: it has met a connection's end, and is better off on a new one.
        connection: the one it is being sent on, with nobody else's message in flight.
        scope: around what only a cancel scope can end: connecting, waiting for the rate limit, the caller's iterable.
    """

    __slots__ = ("_done", "abandoned", "connection", "error", "forsaken", "fresh", "report", "scope")

    def __init__(self, report: DeliveryReport) -> None:
        self.report = report
        self.error: Exception | None = None
        self.abandoned = False
        self.forsaken = False
        self.fresh = False
        self.connection: ClientConnection | None = None
        self.scope: trio.CancelScope | None = None
        self._done = trio.Event()

    def again(self) -> None:
        """Get ready for another try."""
        self.error = None
        self._done = trio.Event()

    def finish(self, error: Exception | None = None) -> None:
        """Set the outcome of this try and wake the caller."""
        self.error = error
        self.connection = None
        self._done.set()

    @property
    def is_finished(self) -> bool:
        """The outcome of this try is set."""
        return self._done.is_set()

    async def wait(self) -> None:
        """Wait for the outcome of this try."""
        await self._done.wait()

    @property
    def has_left(self) -> bool:
        """The end of the message is on its way, or may be: there is a reply to wait for."""
        return self.report.has_left

    def abandon(self) -> bool:
        """Let the task come to an end with it as fast as what was already sent allows; whether there is one at it."""
        self.abandoned = self.forsaken = True
        if self.scope is not None:
            self.scope.cancel(reason="the caller was cancelled")
        elif self.connection is not None:
            self.connection.wire.abandon()
        else:
            return False
        return True
