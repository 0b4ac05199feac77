# A message on its way from the connection to the hook that reads it, chunk by chunk, and whatever can befall it.
#
# When it cannot be had whole, reading raises, and goes on raising: what a hook then returns is accepted by nobody.
from __future__ import annotations

from .._protocol.errors import (
    ConnectionLostError,
    MessageAbortedError,
    MessageTooLargeError,
    RemoteProtocolError,
    SMTPError,
    SMTPTimeoutError,
)
from .._protocol.server_events import (
    BODY_END,
    FLUSH,
    NEED_DATA,
    Signal,
)
from .._stream import Interrupted
from .dialogue import Dialogue


class Intake(Dialogue):
    """Reading messages."""

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
            await self._wait_in_hook(event)

    async def _wait_in_hook(self, event: object) -> None:
        """Receive for a hook; the time does not count as the hook's."""
        began = self._now()
        self._in_hook = False
        try:
            if event is Signal.PAUSE:
                await self._pause()
                return
            await self._flush()
            if event is NEED_DATA:
                if self._ending:
                    raise Interrupted
                await self._receive_content()
            elif event is not FLUSH:
                raise ConnectionLostError("the client closed the connection")
        except (ConnectionLostError, SMTPTimeoutError, Interrupted) as exc:
            raise self._spoil(ConnectionLostError(f"the message was cut off: {exc or 'shutting down'}")) from exc
        finally:
            self._in_hook = True
            self._hook_deadline += self._now() - began
            self._timer.set(self._hook_deadline)

    def _spoil(self, error: SMTPError) -> SMTPError:
        self._body_error = error
        return error
