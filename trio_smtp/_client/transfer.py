# One transaction of a message over one connection: the envelope, the text, the end, and the wait for the replies.
#
# In how many round trips, by what the server offers:
#
#     PIPELINING:                 MAIL RCPT… DATA, then text     2
#     PIPELINING and CHUNKING:    MAIL RCPT…, then BDAT… text    2
#     neither:                    each command by itself
#     early_text, PIPELINING and CHUNKING, a small text, and the server has just answered:
#                                 MAIL RCPT… BDAT LAST text      1
#
# No text leaves before a recipient was accepted: a server may refuse BDAT without recipients and not swallow the chunk
# (RFC 3030 §2 forbids it), and then it takes the text for commands. The last form is for servers that are known to be
# right. There the end of the message leaves before anything is answered. On a connection that turns out to be dead that
# would leave its fate unknown, so after an idle spell MAIL goes first.
#
# What may happen at each checkpoint:
#     content being opened    nothing was sent: any error leaves the connection as it was
#     envelope, text          a failure or a cancellation: not delivered. With DATA the connection ends; with BDAT an
#                             error is followed by RSET, and the connection lives on
#     before_end              the same: nothing that ends the message was made for sending
#     after the end           a failure leaves the fate unknown. A cancellation waits for the reply, up to end_grace
# Which it was is read from the transaction's facts, never from where in this file the exception came by.
from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import aclosing, contextmanager, nullcontext, suppress
from typing import Any, Final

import trio

from .._protocol.client.commands import RSET, Command, Verb, bdat, data, end
from .._protocol.client.protocol import State
from .._protocol.client.transaction import Transaction
from .._protocol.errors import RemoteProtocolError, SMTPError
from .._wire.waits import Interrupted
from .body import BLOCK, BodyWriter, write_text
from .cleanup import ShieldedCleanup
from .connection import ClientConnection
from .content import Source
from .encoder import ONE_WRITE, TransactionEncoder
from .exchanges import begin_transcript
from .message import Message
from .report import DeliveryReport, refusal

_CLOSED: Final = State.CLOSED
_BODY: Final = State.BODY
_DATA: Final = Verb.DATA
_GROUP: Final = 200  # commands in one write: their replies fit into the buffers, so that neither side blocks the other


async def open_content(connection: ClientConnection, message: Message) -> Source:
    """The message's content, made ready for this server.

    Raises:
        LocalProtocolError: an ``EmailMessage`` that cannot be written.
        OSError: of reading a file.
    """
    return await message.content.open(
        eight_bit=connection.offers_8bit,
        utf8=connection.offers_utf8 and (message.needs_utf8 or message.content.prefers_utf8),
        add_missing=connection.config.add_missing,
    )


def tell_end(
    connection: ClientConnection,
    transaction: Transaction,
    error: BaseException | None,
    origin: tuple[object, int] | None = None,
) -> None:
    """Tell the witness that a transaction is over; the first time counts.

    Args:
        connection: has the witness, if there is one.
        transaction: which.
        error: what ended it, if no reply did.
        origin: as :meth:`ClientWitness.end_message`.
    """
    if connection.witness is not None:
        connection.witness.end_message(transaction, error, chunking=connection.uses_chunking, origin=origin)


class Transfer:
    """A message's transaction with these recipients: what is sent when, and what is waited for. Used once.

    Args:
        connection: a reusable one.
        report: the message's; the transaction is noted there.
        recipients: the first of those who remain.
        transaction: theirs, if it was begun.

    Attributes:
        encoder: makes what is sent.
        message: what is sent.
        transaction: its facts.
    """

    __slots__ = ("_connection", "_report", "encoder", "message", "transaction")

    def __init__(
        self,
        connection: ClientConnection,
        report: DeliveryReport,
        recipients: Sequence[str],
        transaction: Transaction | None = None,
    ) -> None:
        self._connection: Final = connection
        self._report: Final = report
        self.message: Final[Message] = report.message
        self.transaction: Final = transaction or Transaction(recipients, lmtp=connection.lmtp)
        self.encoder: Final = TransactionEncoder(connection, self.message, self.transaction)
        report.track(self.transaction)
        if self.message.transcript is not None:
            begin_transcript(self.message.transcript, connection, self.transaction)

    def __repr__(self) -> str:
        return f"<Transfer of {self.message!r} on {self._connection!r}: {self.transaction!r}>"

    # -- all of it

    async def run(self) -> None:
        """Send the message and wait for the replies.

        Raises:
            ExtensionNotSupportedError, MessageTooLargeError, LocalProtocolError: nothing was sent.
            ConnectionLostError, SMTPTimeoutError, RemoteProtocolError: the connection is broken.
            OSError: of reading the content, or what an async iterable raised.

        Cancellation: as :meth:`await_end` once the end has left; before, the message is given up.
        """
        source = self.message.content.ready or await open_content(self._connection, self.message)
        if source.whole is not None:
            await self._send_whole(source, source.whole)
        else:
            await self._send_stream(source)
        await self.await_end()

    def is_decided_despite(self, error: SMTPError) -> bool:
        """Whether a reply has decided the message, which beats an error that was noticed later.

        If not, the error is explained, unless the caller's own code raised it.
        """
        if self._report.is_caller_error(error):
            return False
        if self.transaction.reply is not None:
            return True
        self.explain(error)
        return False

    def refusal_error(self) -> SMTPError:
        """The error for a transaction that the server has refused, or given up with a 421."""
        if self.transaction.reply is None and self.transaction.farewell is not None:
            error: SMTPError = self._connection.farewell_error(self.transaction)
            self.explain(error)
            return error
        return refusal(self.transaction)

    def explain(self, error: SMTPError) -> None:
        """Let an error say where the session is and what has become of each recipient."""
        self._connection.place(error)
        self._report.explain(error)

    @contextmanager
    def concluding(self) -> Iterator[None]:
        """Around a text that comes from outside, and the wait for its reply; then the facts are in the report.

        What is raised in it comes out of it, but an error that was noticed after a reply had decided the message.
        """
        connection, transaction, report = self._connection, self.transaction, self._report
        try:
            yield
        except SMTPError as exc:
            if not self.is_decided_despite(exc) or not transaction.ended:
                tell_end(connection, transaction, exc, report.origin)
                raise
        except BaseException as exc:
            tell_end(connection, transaction, exc, report.origin)
            raise
        finally:
            connection.check()
        tell_end(connection, transaction, None, report.origin)
        report.settle(transaction)  # recipients who were too many are refused: this text cannot be sent again

    async def _send_whole(self, source: Source, octets: bytes) -> None:
        connection, transaction, encoder = self._connection, self.transaction, self.encoder
        text, tail, size = encoder.whole(octets)
        if connection.witness is not None:
            connection.witness.note_text(transaction, size)
        commands = encoder.envelope(source, size)
        is_early = connection.sends_early_text and size <= ONE_WRITE and len(commands) < _GROUP
        if is_early and self.message.before_end is not None and connection.has_just_answered:
            await self._report.announce_end()
            await connection.look()  # it may have taken a while
        if is_early and connection.has_just_answered:
            connection.allowance.count(self.message, transaction.recipients)
            commands.append(bdat(transaction, size, last=True))
            await write_text(connection, transaction, connection.encode(commands) + text + tail)
            return
        if not await self.send_envelope(commands):
            return
        if len(text) > BLOCK:
            writer = BodyWriter(connection, transaction, encoder, None)
            if await writer.write_encoded(text):
                if self.message.before_end is not None:
                    await self._announce_end()
                await writer.finish(tail)
            return
        if self.message.before_end is not None:
            await self._announce_end()
        if await connection.look(transaction):
            await write_text(connection, transaction, encoder.end((text,), tail))

    async def _send_stream(self, source: Source) -> None:
        assert source.chunks is not None
        size = source.raw_size if self.message.is_binary else source.size
        if not await self.send_envelope(self.encoder.envelope(source, size)):
            return
        writer = self.open_writer(source)
        self._report.stream()
        chunks: Any = aiter(source.chunks)
        async with self.giving_up(), aclosing(chunks) if hasattr(chunks, "aclose") else nullcontext():
            while (piece := await self._next_piece(chunks)) is not None:
                if not await writer.write(piece):
                    break
            else:
                await self._report.announce_end()
                await writer.finish()

    async def _next_piece(self, chunks: Any) -> bytes | None:
        """The next piece of a stream, ``None`` after the last."""
        try:
            piece: bytes | None = await anext(chunks)
        except StopAsyncIteration:
            return None
        except SMTPError as exc:  # of a message that is being received, for example
            self._report.blame_caller(exc)
            raise
        if piece is None:
            raise TypeError("message text comes as bytes, not NoneType")
        return piece

    # -- the parts

    async def send_envelope(self, commands: list[Command]) -> bool:
        """Send the envelope, and DATA unless the text goes by BDAT; whether the text is to follow.

        If not, the transaction's facts say why, and nothing is owed to the server.
        """
        connection, transaction = self._connection, self.transaction
        protocol = connection.protocol
        connection.allowance.count(self.message, transaction.recipients)
        if not connection.uses_chunking:
            commands.append(data(transaction))
        step = _GROUP if protocol.pipelining else 1
        for at in range(0, len(commands), step):
            group = commands[at : at + step]
            is_over = transaction.reply is not None or protocol.state is _CLOSED
            if at and (is_over or (group[0].verb is _DATA and transaction.all_refused)):
                return False
            await connection.write(connection.encode(group), connection.config.command_timeout)
            await connection.drain()
            if protocol.unread and not protocol.outstanding:  # a 421 on their heels?
                await connection.hear_unasked(transaction)
        if transaction.reply is not None or protocol.state is _CLOSED:
            return False
        if not transaction.refused or not transaction.all_refused:
            return True
        if transaction.go_ahead:  # RFC 2920 §3.1: 354 with no recipient; end it at once, and expect a refusal
            await connection.exchange(end(transaction, b".\r\n"), connection.config.end_timeout)
        return False

    def open_writer(self, source: Source) -> BodyWriter:
        """A writer for text that comes in pieces."""
        connection, encoder = self._connection, self.encoder
        return BodyWriter(
            connection,
            self.transaction,
            encoder,
            encoder.stream_encoder(),
            eight_bit=encoder.takes_eight_bit(source),
            max_size=connection.extensions.size,
        )

    async def await_end(self) -> None:
        """Wait for all replies of the transaction.

        Cancellation after the end of the message has left: waits on, shielded, for at most ``end_grace``. If the reply
        comes, this returns normally; the cancellation is then met at the caller's next checkpoint.
        """
        connection, transaction = self._connection, self.transaction
        protocol = connection.protocol
        async with ShieldedCleanup(connection.config.end_grace, self._await_reply, trio.Cancelled, Interrupted):
            await connection.drain()
        if transaction.reply is None and (protocol.farewell is not None or transaction.farewell is not None):
            raise connection.farewell_error(transaction)
        if protocol.unread:  # a reply too many: this connection is over
            try:
                protocol.hear_unasked()
            except RemoteProtocolError:
                if transaction.reply is None:
                    raise

    async def _await_reply(self) -> bool:
        """After a cancellation: wait for the reply to the message nevertheless; returns whether it came."""
        connection, transaction = self._connection, self.transaction
        if transaction.ended and not connection.is_broken:
            with suppress(SMTPError, Interrupted):
                await connection.drain()
        return transaction.ended and transaction.reply is not None

    async def _announce_end(self) -> None:
        """Await the caller's ``before_end``, if there is one; if it raises, the message is given up."""
        try:
            await self._report.announce_end()
        except Exception:  # as giving_up() does, which takes four calls more where nothing is raised
            with trio.move_on_after(self._connection.config.quit_timeout, shield=True):
                await self._forget()
            raise

    def giving_up(self) -> ShieldedCleanup:
        """Around the writing of a message's text: an exception in it gives the message up, and goes on.

        With BDAT the server can be told to forget the message. With DATA it cannot, and the connection ends. So it does
        after a cancellation, which has no time for more.
        """
        return ShieldedCleanup(self._connection.config.quit_timeout, self._forget, Exception)

    async def _forget(self) -> bool:
        """Have the server forget the message, or end the connection."""
        connection = self._connection
        if connection.protocol.state is _BODY or connection.is_broken:
            connection.abort()
            return False
        try:
            await connection.drain()
            await connection.exchange(RSET, connection.config.command_timeout)
        except SMTPError:  # the exception that gave the message up is the one to be raised
            connection.abort()
        return False
