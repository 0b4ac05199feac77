# A message that its sender pushes piece by piece: the envelope at the beginning of a block, the end at its end.
#
# Guarantee: leaving the block by an exception never delivers a truncated message. An error that the block raised about
# something else passes through as it is.
from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from .._protocol.errors import LocalProtocolError, SMTPError
from .._protocol.replies import Reply
from .._public import NoPublicConstructor
from .body import BodyWriter
from .connection import ClientConnection
from .content import Source
from .message import Message
from .report import DeliveryReport, SendResult
from .sending import next_transfer
from .transfer import Transfer


class OutgoingMessage(metaclass=NoPublicConstructor):
    """A message that is being sent piece by piece; see :meth:`Client.transaction`.

    Attributes:
        refused: recipients the server has refused, with the replies.
        accepted: recipients it has accepted so far.
        result: the :class:`SendResult`, once the block was left.
    """

    __slots__ = ("_is_open", "_transfer", "_writer", "accepted", "refused", "result")

    _transfer: Transfer
    _writer: BodyWriter
    accepted: list[str]
    refused: dict[str, Reply]
    result: SendResult | None

    @classmethod
    def _create(cls, transfer: Transfer, writer: BodyWriter) -> OutgoingMessage:
        self = cls.__new__(cls)
        self._transfer = transfer
        self._writer = writer
        self._is_open = True
        self.accepted = list(transfer.transaction.accepted)
        self.refused = dict(transfer.transaction.refused)
        self.result = None
        return self

    def __repr__(self) -> str:
        state = "done" if self.result is not None else "in progress"
        return (
            f"<trio_smtp.OutgoingMessage from {self._transfer.message.sender!r}: {len(self.accepted)} recipients "
            f"accepted, {len(self.refused)} refused, {state}>"
        )

    async def send_all(self, chunk: bytes | bytearray) -> None:
        """Send the next piece of the message's text; waits while the server cannot take more.

        Args:
            chunk: cut anywhere.

        Raises:
            TypeError: the chunk is not bytes.
            LocalProtocolError: the block of the transaction was left; a NUL, with ``nul="reject"``, or a bare CR or LF,
                with ``newlines="reject"``.
            ExtensionNotSupportedError: 8-bit octets, and 8BITMIME is not offered, or ``BODY=7BIT`` was given.
            MessageRefusedError: the server has refused the message already.
            MessageTooLargeError: with this piece it is larger than the server's SIZE.
            ConnectionLostError, SMTPTimeoutError, RemoteProtocolError: the connection is broken; nothing was delivered.

        Cancellation in the middle of a piece closes the connection; nothing is delivered.
        """
        if not self._is_open:
            raise LocalProtocolError("send_all() after the end of the message: it belongs into the transaction's block")
        try:
            goes_on = await self._writer.write(chunk)
        except SMTPError as exc:
            self._transfer.explain(exc)
            raise
        if not goes_on or self._transfer.transaction.reply is not None:
            raise self._transfer.refusal_error()

    def _close(self) -> None:
        """The block was left."""
        self._is_open = False

    def _conclude(self, result: SendResult) -> None:
        self.result = result


@asynccontextmanager
async def push(connection: ClientConnection, message: Message) -> AsyncIterator[OutgoingMessage]:
    """Send a message whose text the block gives to :meth:`OutgoingMessage.send_all`; its own content is not used.

    Raises: as :meth:`Client.transaction`.
    """
    report = DeliveryReport(message, attempts=1)
    await trio.lowlevel.checkpoint_if_cancelled()
    transfer = await next_transfer(connection, report)
    transaction = transfer.transaction
    if len(transaction.recipients) < len(report.remaining):
        raise LocalProtocolError(f"the server takes {len(transaction.recipients)} of the recipients at a time")
    source = Source(None, eight_bit=None)
    with transfer.concluding():
        if not await transfer.send_envelope(transfer.encoder.envelope(source, None)):
            await transfer.await_end()
            raise transfer.refusal_error()
        writer = transfer.open_writer(source)
        outgoing = OutgoingMessage._create(transfer, writer)
        async with transfer.giving_up():
            try:
                yield outgoing
            except SMTPError as exc:
                report.blame_caller(exc)
                raise
            finally:
                outgoing._close()
            # send_all() has raised for that, and the block went on nevertheless.
            if transaction.reply is not None or transaction.farewell is not None:
                raise transfer.refusal_error()
            await trio.lowlevel.checkpoint_if_cancelled()
            await writer.finish()
        await transfer.await_end()
    outgoing._conclude(report.result())
