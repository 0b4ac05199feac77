# The text of a message on its way into DATA or BDAT, in blocks, whatever the pieces it comes in.
#
# Small pieces are collected, large ones are cut, neither is copied without need. The last block is kept back until
# finish(): the octets that end a message leave in one send with it, and from that send on its fate is unknown until the
# server answers. With BDAT the server answers each block; a few may be in flight.
# Not known here: the envelope, and what a failure means for the message (transfer.py).
from __future__ import annotations

from typing import Final

from .._protocol.client.commands import bdat
from .._protocol.client.transaction import Transaction
from .._protocol.errors import (
    ConnectionLostError,
    Delivery,
    ExtensionNotSupportedError,
    SMTPError,
    SMTPTimeoutError,
    Stage,
)
from .._protocol.newlines import NewlineEncoder
from .._protocol.nul import treat_nul
from .connection import ClientConnection
from .encoder import TransactionEncoder
from .mail_parameters import too_large

BLOCK: Final = 1 << 18  # octets in one send, and so in what data_timeout bounds
_WINDOW: Final = 8  # BDAT chunks in flight; their replies fit into any socket's buffer


class BodyWriter:
    """Write one message's text.

    Args:
        connection: after 354, or after RCPT with BDAT.
        transaction: the message.
        encoder: ends the message.
        lines: makes pieces fit for the wire; ``None`` if they are already.
        eight_bit: MAIL has announced octets above 127.
        max_size: octets that the server takes, as RFC 1870 counts them, without stuffed dots; ``None`` for any number.
    """

    __slots__ = (
        "_connection",
        "_eight_bit",
        "_encoder",
        "_error",
        "_lines",
        "_max_size",
        "_pending",
        "_size",
        "_total",
        "_transaction",
    )

    def __init__(
        self,
        connection: ClientConnection,
        transaction: Transaction,
        encoder: TransactionEncoder,
        lines: NewlineEncoder | None,
        *,
        eight_bit: bool = True,
        max_size: int | None = None,
    ) -> None:
        self._connection = connection
        self._transaction = transaction
        self._encoder = encoder
        self._lines = lines
        self._eight_bit = eight_bit
        self._pending: list[bytes | memoryview] = []
        self._size = 0  # octets of those
        self._max_size = max_size
        self._error: SMTPError | None = None  # of a piece; the rest alone is not the message
        self._total = 0  # octets that came without `lines`, which counts for itself

    async def write(self, piece: bytes | bytearray) -> bool:
        """Take the next piece; whether the server wants more (it may have refused in the middle).

        Raises:
            TypeError: the piece is no bytes.
            LocalProtocolError: a NUL, with ``nul="reject"``; a bare CR or LF, with ``newlines="reject"``.
            ExtensionNotSupportedError: 8-bit octets that MAIL has not announced.
            MessageTooLargeError: with this piece the message is larger than the server takes.
            ConnectionLostError, SMTPTimeoutError: the connection is broken.
        """
        if not isinstance(piece, bytes | bytearray):
            raise TypeError(f"message text comes as bytes, not {type(piece).__name__}")
        if self._error is not None:
            raise self._error
        try:
            data = self._encode(piece)
        except SMTPError as exc:
            self._error = exc
            raise
        return await self.write_encoded(data)

    def _encode(self, piece: bytes | bytearray) -> bytes:
        if not self._eight_bit and not piece.isascii():  # RFC 6152 §3: the server may do with them what it likes
            raise ExtensionNotSupportedError(
                "the stream has 8-bit octets: that needs 8BITMIME, which was not announced, or is not offered",
                stage=Stage.BODY,
                delivery=Delivery.NOT_SENT,
            )
        if self._lines is not None:
            data = self._lines.encode(treat_nul(piece, self._connection.config.nul))
        else:
            data = bytes(piece)
            self._total += len(data)
        self._check_size()
        return data

    def _check_size(self) -> None:
        size = self._total if self._lines is None else self._lines.size
        if self._max_size is not None and size > self._max_size:
            raise too_large(size, self._max_size, Stage.BODY)

    async def write_encoded(self, data: bytes) -> bool:
        """:meth:`write` for octets that are fit for the wire."""
        if self._size + len(data) > BLOCK:
            view = memoryview(data)
            while self._size + len(view) > BLOCK:
                room = BLOCK - self._size
                self._pending.append(view[:room])
                view = view[room:]
                if not await self._flush():
                    return False
            self._pending.append(view)
            self._size = len(view)
        elif data:
            self._pending.append(data)
            self._size += len(data)
        return True

    async def finish(self, tail: bytes | None = None) -> None:
        """Write the last block and the end of the message; the reply is for the caller to wait for.

        Nothing is written if the server has refused the message meanwhile.

        Args:
            tail: what ends the text, where there are no `lines` to say it.

        Raises: as :meth:`write`.
        """
        if self._error is not None:
            raise self._error
        if tail is None:
            tail = self._lines.finish() if self._lines is not None else b""
            self._check_size()  # with the last line end, which the text may have lacked
        transaction = self._transaction
        if not await self._connection.look(transaction):
            return
        pieces, self._pending = self._pending, []
        await self._send(self._encoder.end(pieces, tail))

    async def _flush(self) -> bool:
        connection = self._connection
        pieces = self._pending
        if connection.uses_chunking:
            pieces = [connection.encode((bdat(self._transaction, BLOCK),)), *pieces]
        self._pending, self._size = [], 0
        await self._send(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if connection.uses_chunking:
            protocol = connection.protocol
            if not protocol.pipelining or len(protocol.outstanding) >= _WINDOW:
                await connection.drain()
        elif not await connection.look(self._transaction):
            return False
        return self._transaction.reply is None and not connection.is_broken

    async def _send(self, data: bytes | memoryview) -> None:
        if self._connection.witness is not None:
            octets = self._total if self._lines is None else self._lines.size
            self._connection.witness.note_text(self._transaction, octets)
        await write_text(self._connection, self._transaction, data)


async def write_text(connection: ClientConnection, transaction: Transaction, data: bytes | memoryview) -> None:
    """Hand over a block of a message. Returns normally if it could not be, but the server's refusal could be read.

    Raises:
        ConnectionLostError, SMTPTimeoutError: the connection is broken.
    """
    try:
        await connection.write(data, connection.config.data_timeout)
    except (ConnectionLostError, SMTPTimeoutError) as exc:
        if transaction.reply is not None:
            return
        if transaction.farewell is not None:
            raise connection.farewell_error(transaction) from exc.__cause__
        raise
