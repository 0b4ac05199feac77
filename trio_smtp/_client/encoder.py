# One transaction of a message as commands and octets for one connection. Nothing here waits, and nothing is sent.
#
# Guarantee: what the message needs and the server does not offer is an error here, before MAIL.
# Not known here: when what is sent, and what came of it (transfer.py, and the pool's pipeline).
from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from .._protocol.addresses import wire_address
from .._protocol.client.commands import RSET, Command, bdat, end, mail, rcpt
from .._protocol.client.protocol import State
from .._protocol.client.transaction import Transaction
from .._protocol.dotstuff import DotEncoder, encode_message
from .._protocol.newlines import NewlineEncoder, encode_newlines
from .._protocol.nul import nul_error, treat_nul
from .connection import ClientConnection
from .content import Source
from .mail_parameters import mail_params, rcpt_params
from .message import Message

_READY: Final = State.READY
ONE_WRITE: Final = 1 << 15  # octets of text that are worth sending before the server has agreed to take them


class TransactionEncoder:
    """Makes what goes over the wire in one transaction.

    Args:
        connection: what the server offers, and its time to hear of it.
        message: what is sent.
        transaction: its facts.
    """

    __slots__ = ("_connection", "_message", "_transaction")

    def __init__(self, connection: ClientConnection, message: Message, transaction: Transaction) -> None:
        self._connection: Final = connection
        self._message: Final = message
        self._transaction: Final = transaction

    def __repr__(self) -> str:
        return f"<TransactionEncoder of {self._message!r}: {self._transaction!r}>"

    def whole(self, octets: bytes) -> tuple[bytes, bytes, int]:
        """The text of a message at hand, what comes after it, and its size in octets (RFC 1870).

        Raises:
            LocalProtocolError: a NUL, with ``nul="reject"``; a bare CR or LF, with ``newlines="reject"``.
        """
        if self._message.is_binary:
            return octets, b"", len(octets)
        connection = self._connection
        newlines = connection.config.newlines
        if b"\0" in octets:
            octets = bytes(treat_nul(octets, connection.config.nul))
        if connection.uses_chunking:
            text, tail = encode_newlines(octets, newlines)
            return text, tail, len(text) + len(tail)
        return encode_message(octets, newlines)

    def stream_encoder(self) -> NewlineEncoder | None:
        """What makes pieces of a text fit for the wire; ``None``: they go as they are."""
        if self._message.is_binary:
            return None
        connection = self._connection
        return (NewlineEncoder if connection.uses_chunking else DotEncoder)(connection.config.newlines)

    def takes_eight_bit(self, source: Source) -> bool:
        """Whether octets above 127 may come in the text, by what its MAIL has said."""
        given = self._message.mail_params
        if given and "BODY" in given:
            return str(given["BODY"]).upper() != "7BIT"
        return self._connection.offers_8bit if source.eight_bit is None else source.eight_bit

    def envelope(self, source: Source, size: int | None, *, behind_end: bool = False) -> list[Command]:
        """RSET if a transaction is open or may be, MAIL, and RCPT for each recipient of the transaction.

        Args:
            source: the content.
            size: of the text in octets, if known.
            behind_end: it is sent behind the end of another message, before the reply to that. After a BDAT that it
                refuses the server may keep that transaction (RFC 3030 section 2).

        Raises:
            LocalProtocolError: a NUL in a file, with ``nul="reject"``.
            ExtensionNotSupportedError, MessageTooLargeError: the server cannot take this message.
        """
        connection, message, transaction = self._connection, self._message, self._transaction
        if source.has_nul and not message.is_binary and connection.config.nul == "reject":
            raise nul_error()
        params, utf8 = mail_params(connection, message, source, size)
        is_plain, recipients = message.is_ascii, message.recipients
        has_utf8 = connection.offers_utf8
        sender = message.sender if is_plain else wire_address(message.sender, smtputf8=has_utf8)
        commands = [mail(transaction, sender, params, utf8=utf8)]
        if connection.protocol.state is not _READY or (behind_end and connection.uses_chunking):
            commands.insert(0, RSET)
        params = ""
        for written in transaction.recipients:
            address = recipients[written] if is_plain else wire_address(recipients[written], smtputf8=has_utf8)
            if message.rcpt_params is not None:
                params = rcpt_params(connection, message, written, utf8=utf8)
            commands.append(rcpt(transaction, written, address, params, utf8=utf8))
        return commands

    def end(self, pieces: Sequence[bytes | memoryview], tail: bytes) -> bytes:
        """The last of the text and the end of the message, which from now on counts as sent.

        Args:
            pieces: of the text.
            tail: what ends it.
        """
        connection, transaction = self._connection, self._transaction
        if connection.uses_chunking:
            size = sum(map(len, pieces)) + len(tail)
            return b"".join((connection.encode((bdat(transaction, size, last=True),)), *pieces, tail))
        return b"".join((*pieces, connection.encode((end(transaction, tail),))))
