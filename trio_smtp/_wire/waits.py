# The waits of one connection for its peer: which one is in progress, and what ends it.
#
# STARTTLS replaces a wire by another one and hands this on. So a timer's callback, or an interruption by another task,
# that still goes to the old wire ends the connection's wait all the same. wire.py has the theory.
from __future__ import annotations

import math
from enum import Enum
from typing import Final

import trio

from .._protocol.errors import SMTPTimeoutError
from .timekeeper import Timer


class Interrupted(Exception):
    """A wait for the peer was ended by :meth:`Wire.interrupt` or :meth:`Wire.abandon`.

    The connection is intact, unless it was a send that was abandoned.
    """


class Waiting(Enum):
    """What the connection's task waits for."""

    NOTHING = "nothing"
    RECEIVE = "octets"
    SEND = "room to send"


NOTHING: Final = Waiting.NOTHING
RECEIVE: Final = Waiting.RECEIVE
SEND: Final = Waiting.SEND


class Waits:
    """The waits of one connection; one at a time is in progress.

    Args:
        socket: the socket that the connection ends in, if any.
        timer: expires the waits; its callback must call :meth:`expire`. Not used without a socket.

    Attributes:
        reason: ends the wait in progress, or the next receive.
        scope: around the wait in progress, if it has one.
        waiting: the wait in progress; NOTHING also from the time when it was told to end. Written by the wires, since a
            call for it, twice a wait, would cost more than the rest of this.
    """

    __slots__ = ("reason", "scope", "socket", "timer", "waiting")

    def __init__(self, socket: trio.socket.SocketType | None, timer: Timer | None) -> None:
        self.socket = socket
        self.timer: Timer | None = timer if socket is not None else None
        self.reason: Exception | None = None
        self.scope: trio.CancelScope | None = None
        self.waiting: Waiting = NOTHING

    def __repr__(self) -> str:
        return f"<Waits for {self.waiting.value}>"

    # -- the wait in progress

    def scope_until(self, deadline: float) -> trio.CancelScope:
        """A scope for a wait in which the task does not only wait for the socket; `deadline` ends it."""
        if self.timer is not None:
            self.timer.set(deadline)
            deadline = math.inf
        self.scope = scope = trio.CancelScope(deadline=deadline)
        return scope

    def end(self) -> None:
        """No wait is in progress any more."""
        self.waiting = NOTHING
        self.scope = None

    # -- ending it from outside

    def expire(self) -> None:
        """End the wait in progress, if any, with :class:`SMTPTimeoutError`."""
        if self.timer is not None and self.waiting is not NOTHING:
            self._wake(SMTPTimeoutError("the peer took too long"))

    def shorten(self, deadline: float) -> None:
        """Let the wait in progress, if any, end at `deadline` at the latest, with :class:`SMTPTimeoutError`."""
        if self.waiting is NOTHING:
            return
        if self.timer is not None:
            if deadline < self.timer.deadline:
                self.timer.set(deadline)
        elif self.scope is not None and deadline < self.scope.deadline:
            self.scope.deadline = deadline

    def interrupt(self) -> None:
        """End the receive in progress, or the next one, with :class:`Interrupted`. A send is left alone."""
        if self.waiting is RECEIVE:
            self._wake(Interrupted())
        else:
            self.reason = Interrupted()

    def abandon(self) -> None:
        """End the wait in progress, or the next receive, with :class:`Interrupted`."""
        if self.waiting is not NOTHING:
            self._wake(Interrupted())
        else:
            self.reason = Interrupted()

    def _wake(self, reason: Exception) -> None:
        self.reason = reason
        self.waiting = NOTHING
        if self.scope is not None:
            self.scope.cancel(reason=str(reason))
        elif self.socket is not None:
            trio.lowlevel.notify_closing(self.socket)

    # -- why it ended

    def heed_reason(self) -> None:
        """Raise a stored :class:`Interrupted`. A stored time-out came together with the last octets and is void."""
        reason, self.reason = self.reason, None
        if isinstance(reason, Interrupted):
            raise reason

    def woken(self) -> trio.ClosedResourceError:
        """What to raise where a wait's scope was cancelled: for the reason that is stored, else by its deadline.

        It is what a task gets that notify_closing() wakes, so that both ways have one handler, which takes the reason.
        The reason itself cannot be raised there: a time-out is an OSError, which would pass for a lost connection.
        """
        if self.reason is None:
            self.reason = SMTPTimeoutError("the peer took too long")
        return trio.ClosedResourceError("the wait was ended")

    def take_reason(self) -> Exception | None:
        """The error for a wait that ended with ClosedResourceError; ``None`` if the stream was closed by others."""
        reason, self.reason = self.reason, None
        return reason

    # -- the end

    def close(self) -> None:
        """Stop the timer and close the socket, if there is one."""
        if self.timer is not None:
            self.timer.close()
        if self.socket is not None:
            self.socket.close()
