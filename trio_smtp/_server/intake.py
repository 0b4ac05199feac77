# A message on its way from the connection to the hook that reads it, chunk by chunk, and whatever can befall it.
#
# When it cannot be had whole, reading raises, and goes on raising: what a hook then returns is accepted by nobody.
from __future__ import annotations

import math

import trio

from .._protocol.errors import (
    ConnectionLostError,
    MessageAbortedError,
    MessageTooLargeError,
    RemoteProtocolError,
    SMTPError,
    SMTPTimeoutError,
)
from .._protocol.server.events import (
    BODY_END,
    FLUSH,
    NEED_DATA,
    Signal,
)
from .._wire.timekeeper import Timekeeper
from .._wire.waits import Interrupted
from .dialogue import Dialogue
from .service import Service


class Intake(Dialogue):
    """Reading messages; its arguments are those of :class:`.dialogue.Dialogue`."""

    __slots__ = ("_body_error", "_budget", "_data_limit", "_ending", "_hook_deadline", "_in_hook")

    def __init__(self, service: Service, stream: trio.abc.Stream, keeper: Timekeeper) -> None:
        super().__init__(service, stream, keeper)
        self._body_error: SMTPError | None = None
        self._data_limit = math.inf if self._config.data_timeout is None else self._config.data_timeout
        self._budget = self._data_limit  # seconds that the peer may still take for the message
        self._ending = False  # shutdown's grace is over: 421 now
        # the hook that reads
        self._in_hook = False  # it is running by itself, not waiting for the peer
        self._hook_deadline = math.inf

    async def _next_chunk(self) -> bytes:
        """The next octets of the message for the hook in progress, ``b""`` at its end."""
        if self._body_error is not None:
            raise self._body_error
        protocol = self._protocol
        if protocol.awaits_start:
            protocol.start_body()
        while True:
            event = protocol.next_event()
            if isinstance(event, bytes):
                return event
            if event is BODY_END:
                if protocol.body_fault is None:
                    return b""
                raise self._spoil(RemoteProtocolError("the message has a bare CR or LF"))
            if event is Signal.BODY_TOO_LARGE:
                limit = self._config.max_message_size
                raise self._spoil(MessageTooLargeError(f"the message has more than {limit} octets"))
            if event is Signal.BODY_ABORTED:
                raise self._spoil(MessageAbortedError("the client gave the message up"))
            try:
                if event is NEED_DATA:
                    await self._receive_content(for_hook=True)
                else:
                    await self._wait_for_hook(event)
            except (ConnectionLostError, SMTPTimeoutError, Interrupted) as exc:
                raise self._spoil(ConnectionLostError(f"the message was cut off: {exc or 'shutting down'}")) from exc

    async def _receive_content(self, *, for_hook: bool = False) -> None:
        """Receive octets of a message; the time that is left for it grows with what arrives (Postfix's rule).

        A hook's own time stands still meanwhile.
        """
        stopped = began = self._now()
        data: bytes | bytearray = b""
        self._in_hook = False
        try:
            if self._protocol.replies:
                await self._flush()
                began = self._now()
            if self._ending:
                raise Interrupted
            if began >= self._end:
                raise SMTPTimeoutError("the session has lasted too long")
            self._sent = 0
            data = await self._transport.receive(min(began + self._budget, self._end))
        finally:  # a hook that gives its own reading up and tries again does not give the peer more time
            now = self._now()
            limit = self._data_limit
            if limit < math.inf:
                rate = self._config.min_data_rate
                earned = len(data) / rate if rate is not None else limit if data else 0
                self._budget = min(limit, self._budget - (now - began) + earned)
            if for_hook:
                self._resume_hook(now - stopped)
        self._protocol.receive_data(data)

    async def _wait_for_hook(self, event: object) -> None:
        """Do for a hook what is not simply receiving; likewise."""
        stopped = self._now()
        self._in_hook = False
        try:
            if event is Signal.PAUSE:
                await self._pause()
                return
            await self._flush()
            if event is Signal.CLOSE:  # the last word has been said: to a chunk without sense, or one junk too many
                raise ConnectionLostError("the session was ended by an error reply")
            if event is not FLUSH:
                raise ConnectionLostError("the client closed the connection")
        finally:
            self._resume_hook(self._now() - stopped)

    def _resume_hook(self, stood_still: float) -> None:
        self._in_hook = True
        self._hook_deadline += stood_still
        self._timer.set(self._hook_deadline)

    def _spoil(self, error: SMTPError) -> SMTPError:
        self._body_error = error
        return error
