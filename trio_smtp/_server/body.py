# A message on its way to on_data: pulled chunk by chunk, so that a slow hook slows the client down.
#
# Guarantee: when the message cannot be had whole, reading raises, and goes on raising; what the hook then returns is
# not accepted. While a read waits for the peer, the hook's own time stands still.
from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import trio

from .._protocol.errors import (
    ConnectionLostError,
    MessageAbortedError,
    MessageTooLargeError,
    RemoteProtocolError,
    SMTPError,
    SMTPTimeoutError,
)
from .._protocol.server.events import BODY_END, FLUSH, NEED_DATA, Event, Signal
from .._public import NoPublicConstructor
from .._wire.waits import Interrupted

if TYPE_CHECKING:
    from .budget import DataBudget
    from .channel import Channel

_CUT_OFF: Final = (ConnectionLostError, SMTPTimeoutError, Interrupted)


class Clock(Protocol):
    """The time of the hook that reads."""

    def suspend(self, now: float) -> None:
        """The hook waits for the peer from `now` on."""

    def resume(self, now: float) -> None:
        """The wait is over."""


class Body(metaclass=NoPublicConstructor):
    """The octets of a message: ``async for chunk in body``, or ``await body.read()``.

    Lines end with CR LF and dots are removed. Each chunk is taken from the connection only when it is asked for.
    When the message cannot be had whole, reading raises, every time, and nothing is taken as accepted:

    Raises:
        ConnectionLostError: the client vanished or stalled past its time, what it sent between two chunks ended the
            session, or ``shutdown``'s grace is over.
        MessageAbortedError: it gave the message up (RSET between two BDAT chunks).
        MessageTooLargeError: more than ``max_message_size`` octets.
        RemoteProtocolError: a bare CR or LF, or a NUL; known at the end of the message.
        trio.ClosedResourceError: ``on_data`` has returned.

    Cancelling a read leaves the rest of the message to be dropped.

    Attributes:
        received: octets handed out so far.
    """

    __slots__ = ("_budget", "_channel", "_clock", "_error", "_limit", "received")

    _budget: DataBudget
    _channel: Channel | None  # None once on_data has returned
    _clock: Clock
    _error: SMTPError | None
    _limit: int | None
    received: int

    @classmethod
    def _create(cls, channel: Channel, clock: Clock, budget: DataBudget, limit: int | None) -> Body:
        """Make one for a message that has been announced.

        Args:
            channel: where it comes from.
            clock: of the hook that will read it.
            budget: how long the client may take.
            limit: octets of a message, for the error's text.
        """
        self = cls.__new__(cls)
        self._channel = channel
        self._clock = clock
        self._budget = budget
        self._limit = limit
        self._error = None
        self.received = 0
        return self

    def _detach(self) -> SMTPError | None:
        """``on_data`` has returned: give nothing any more. Returns what was wrong with the message."""
        error, self._error, self._channel = self._error, None, None
        return error

    def __repr__(self) -> str:
        end = "" if self._channel is not None else ", detached"
        fault = "" if self._error is None else f", {self._error}"
        return f"<Body, {self.received} octets so far{end}{fault}>"

    def __aiter__(self) -> Body:
        return self

    async def __anext__(self) -> bytes:
        channel = self._channel
        if channel is None:
            raise trio.ClosedResourceError("the message is gone: on_data has returned")
        if self._error is not None:
            raise self._error
        protocol = channel.protocol
        if protocol.pending is not None:  # Data: the hook wants the message
            protocol.accept()
        while True:
            event = protocol.next_event()
            if event is NEED_DATA:
                data: bytes | bytearray = b""
                began = channel.now()
                self._clock.suspend(began)
                try:
                    if protocol.replies and await channel.flush():
                        began = channel.now()
                    data = await channel.receive(self._budget.deadline(began), began)
                except _CUT_OFF as exc:
                    raise self._cut_off(exc) from exc
                finally:  # a hook that gives its own reading up and tries again does not give the peer more time
                    ended = channel.now()
                    self._budget.spend(ended - began, len(data))
                    self._clock.resume(ended)
                protocol.receive_data(data)
            elif event is BODY_END:
                fault = protocol.transfer.fault
                if fault is None:
                    raise StopAsyncIteration
                raise self._spoil(RemoteProtocolError(fault.text, reply=fault))
            elif isinstance(event, bytes):
                self.received += len(event)
                return event
            else:
                await self._obey(channel, event)

    async def read(self) -> bytes:
        """All of the message that is left, ``b""`` at its end.

        It is held in memory: at most ``ServerConfig.max_message_size`` octets for each session, and twice as many
        while the pieces are joined. Larger ones are for ``async for``. Errors and cancellation as in the class.
        """
        chunks = [chunk async for chunk in self]
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def _obey(self, channel: Channel, event: Event) -> None:
        """Do what is neither octets nor simply receiving."""
        if event is Signal.BODY_TOO_LARGE:
            raise self._spoil(MessageTooLargeError(f"the message has more than {self._limit} octets"))
        if event is Signal.BODY_ABORTED:
            raise self._spoil(MessageAbortedError("the client gave the message up"))
        self._clock.suspend(channel.now())
        try:
            await _send(channel, event)
        except _CUT_OFF as exc:
            raise self._cut_off(exc) from exc
        finally:
            self._clock.resume(channel.now())

    def _cut_off(self, reason: Exception) -> SMTPError:
        assert self._channel is not None
        return self._spoil(ConnectionLostError(f"the message was cut off: {str(reason) or self._channel.farewell.why}"))

    def _spoil(self, error: SMTPError) -> SMTPError:
        self._error = error
        return error


async def _send(channel: Channel, event: Event) -> None:
    """Send what is to be sent between two chunks; raises if that was the last."""
    if event is Signal.PAUSE:
        await channel.hold_back()
        return
    await channel.flush()
    if event is FLUSH:
        return
    if event is Signal.CLOSE:  # the last word has been said: to a chunk without sense, or one junk too many
        raise ConnectionLostError("the session was ended by an error reply")
    raise ConnectionLostError("the client closed the connection")
