# Several messages in flight on one connection (pipeline_depth), each with its own certainty.
#
# With CHUNKING whole messages follow each other, MAIL RCPT… BDAT LAST text, so a round trip carries up to `depth` of
# them. With DATA the go-ahead must be waited for, but the next message's envelope rides behind the end of the last one
# (RFC 2920 §3.1): one round trip for each. Replies come in order, and each belongs to one transaction, so when the
# connection fails every message knows for itself whether the server may have it.
#
# What a refused BDAT leaves behind is for the server to choose (RFC 3030 §2). Where it keeps the transaction it refuses
# the MAIL behind it, takes the RCPT and the text, and one sender's message goes to another's recipients. So RSET stands
# before every MAIL that follows an unanswered BDAT LAST: six octets, and no round trip.
#
# Only messages that fit are taken: at hand, small, in one transaction. A caller who is cancelled cannot stop his
# message without stopping the others. If it has left he waits for its reply as long as any other, and then the reply is
# nobody's; if not, it never leaves. Once his message is the only one in flight, the connection ends with it.
from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

import trio

from .._client.connection import ClientConnection
from .._client.sending import settle
from .._client.transfer import ONE_WRITE, Transfer, open_content
from .._protocol.client.commands import RSET, Verb, bdat, data, end
from .._protocol.client.protocol import Event
from .._protocol.client.transaction import Transaction
from .._protocol.errors import ConnectionLostError, PoolClosedError, SMTPError
from .._wire.transport import Interrupted
from .errand import Errand

_RECIPIENTS: Final = 100  # of one message; more commands than fit into the buffers would stand still


class Pipeline:
    """The messages in flight on one connection.

    Args:
        connection: reusable, with PIPELINING, and one that has just answered.
        depth: how many there may be.
        take: the next message, if there is one and the connection may be used for it.

    Attributes:
        again: messages to be sent alone: too large for this, with recipients who were too many for one transaction, or
            without a connection that is good.
    """

    def __init__(self, connection: ClientConnection, depth: int, take: Callable[[], Errand | None]) -> None:
        self._connection = connection
        self._depth = depth
        self._take = take
        self._flight: deque[Errand] = deque()
        self._written = 0  # so many of them, from the first on, as far as they were begun
        self.again: list[Errand] = []

    async def run(self, errand: Errand) -> None:
        """Send this message and those that can be had meanwhile; the outcome of each is set, or it is in `again`."""
        try:
            await (self._run_bdat if self._connection.uses_chunking else self._run_data)(errand)
        except (SMTPError, Interrupted) as exc:
            self._fail(exc)
        except trio.Cancelled as exc:  # the whole pool is: what has left may still be answered
            with trio.move_on_after(self._connection.config.end_grace, shield=True):
                try:
                    while self._written and self._flight[0].has_left:
                        await self._hear()
                except (SMTPError, Interrupted):
                    pass
            self._fail(exc)
            raise
        except BaseException as exc:  # Ctrl-C: what was made for sending may never have been
            self._fail(exc)
            raise
        finally:
            self._connection.check()

    def _fail(self, exc: BaseException) -> None:
        """The connection is of no use any more: tell everybody what that means for him."""
        self._connection.abort()
        while self._flight:
            errand = self._flight.popleft()
            transaction = errand.report.transaction
            if errand.is_finished:
                continue
            if transaction is not None and transaction.reply is not None:
                errand.report.settle(transaction)  # a reply that was read beats a loss noticed later
                errand.finish()
            else:
                errand.finish(_own(exc, errand))

    # -- whole messages, one behind the other

    async def _run_bdat(self, errand: Errand | None) -> None:
        flight = self._flight
        while True:
            wire: list[bytes] = []
            while (begun := await self._begin_next(errand)) is not None:
                wire += begun
                errand = self._take_next()
            await self._write(wire)
            if not flight:
                return
            first = flight[0]
            while flight and flight[0] is first:
                await self._hear()
            errand = self._take_next()

    # -- the next envelope behind the end of the last message

    async def _run_data(self, errand: Errand | None) -> None:
        flight = self._flight
        end_of_last: list[bytes] = []
        while (begun := await self._begin_next(errand)) is not None:
            commands, text, tail = begun
            self._written = 0
            await self._write([*end_of_last, commands])
            current = flight[-1]
            transaction = current.report.transaction
            assert transaction is not None
            while not transaction.go_ahead and flight and flight[-1] is current:
                await self._hear()
            end_of_last = []
            if transaction.go_ahead:
                if not await self._connection.look(transaction):
                    raise ConnectionLostError("the server gave the message up")  # and said so: that is settled
                if current.abandoned:
                    raise Interrupted  # after 354 there is no other way to end it
                if transaction.all_refused:
                    text, tail = b"", b".\r\n"
                end_of_last = [text, self._connection.encode((end(transaction, tail),))]
            errand = self._take_next()
        self._written = 0
        await self._write(end_of_last)
        while flight:
            await self._hear()

    # -- what both do

    def _take_next(self) -> Errand | None:
        if len(self._flight) >= self._depth or self.again or self._connection.is_exhausted:
            return None
        return self._take()

    async def _write(self, pieces: list[bytes]) -> None:
        if pieces:
            await self._connection.write(b"".join(pieces), self._connection.config.data_timeout)
        self._written = len(self._flight)

    async def _begin_next(self, errand: Errand | None) -> list[bytes] | None:
        """:meth:`_begin` for the first message from this one on that can be sent; ``None`` if there is none."""
        while errand is not None:
            begun = await self._begin(errand)
            if begun is not None:
                return begun
            errand = self._take_next()
        return None

    async def _begin(self, errand: Errand) -> list[bytes] | None:
        """Make a message's octets, which then count as sent; ``None`` if it is not sent, or not here."""
        connection, report = self._connection, errand.report
        message = report.message
        if not self._flight:
            self.again.append(errand)  # unless the connection turns out good
            try:
                await connection.look()
            except (SMTPError, Interrupted):
                return None
            self.again.pop()
        if errand.abandoned:  # his caller may be gone already: from here on there is no checkpoint
            errand.finish(Interrupted())
            return None
        limit = connection.most_recipients or _RECIPIENTS
        if connection.extensions.limits.rcptdomainmax is not None:
            limit = 0
        source = None
        try:
            if message.content.at_hand and len(report.remaining) <= limit:
                source = await open_content(connection, message)
            if source is None or source.whole is None or len(source.whole) > ONE_WRITE:
                self.again.append(errand)
                return None
            transfer = Transfer(connection, report, report.remaining)
            text, tail, size = transfer.encode_whole(source.whole)
            commands = transfer.envelope(source, size)
        except Exception as exc:  # a message that cannot be made octets is its sender's misfortune, and nobody else's
            report.forget_transaction()
            errand.finish(exc)
            return None
        self._flight.append(errand)
        transaction = transfer.transaction
        report.count_attempt()
        connection.wire.forget_interruption()  # of one whose reply came first, or who is no longer alone
        self._flight[0].connection = connection if len(self._flight) == 1 else None
        if connection.uses_chunking:
            if len(self._flight) > 1 and commands[0] is not RSET:
                commands.insert(0, RSET)
            commands.append(bdat(transaction, size, last=True))
            return [connection.encode(commands), text, tail]
        commands.append(data(transaction))
        return [connection.encode(commands), text, tail]

    async def _hear(self) -> None:
        """Hear one reply; if it is a message's last, its fate is settled."""
        connection = self._connection
        timeout = connection.config.end_timeout
        command, _ = await self._event(timeout)
        transaction = command.transaction
        if transaction is None:
            return
        waiting = connection.protocol.outstanding
        over = command.verb in (Verb.END, Verb.LAST) and not (waiting and waiting[0] is command)
        if over or (command.verb is Verb.DATA and not transaction.go_ahead):
            self._settle(self._flight[0], transaction)
            self._flight.popleft()
            self._written -= 1
            if len(self._flight) == 1:
                self._flight[0].connection = connection
                if self._flight[0].forsaken:
                    connection.wire.abandon()

    async def _event(self, timeout: float | None) -> Event:
        try:
            return await self._connection.next_event(timeout)
        except SMTPError as exc:
            self._connection.place(exc)
            raise

    def _settle(self, errand: Errand, transaction: Transaction) -> None:
        report = errand.report
        settle(self._connection, report, transaction)
        if report.remaining and not errand.abandoned:
            report.uncount_attempt()  # it goes on, with those who were too many for one transaction
            self.again.append(errand)
        else:
            errand.finish()


def _own(exc: BaseException, errand: Errand) -> Exception:
    """What ended the connection, as this message's own error."""
    if isinstance(exc, Interrupted) and errand.abandoned:
        return exc
    if isinstance(exc, SMTPError):
        error: SMTPError = type(exc)(str(exc), reply=exc.reply, stage=exc.stage)
        error.__cause__ = exc.__cause__
    else:
        error = PoolClosedError("the pool was cancelled")
    errand.report.explain(error)
    return error
