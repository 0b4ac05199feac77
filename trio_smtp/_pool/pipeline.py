# Several messages in flight on one connection (pipeline_depth), each with its own certainty.
#
# A message's text waits for the replies to its envelope, but the next message's envelope rides behind the end of the
# last one (RFC 2920 §3.1): one round trip for each. With CHUNKING and early_text whole messages follow each other,
# MAIL RCPT… BDAT LAST text, so a round trip carries up to `depth` of them; see transfer.py on why only then. Replies
# come in order, and each belongs to one transaction, so when the connection fails each message knows for itself whether
# the server may have it.
#
# What a refused BDAT leaves behind is for the server to choose (RFC 3030 §2). A server that keeps the transaction
# refuses the MAIL behind it and takes the RCPT and the text: one sender's message goes to another's recipients. So RSET
# stands before every MAIL that follows an unanswered BDAT LAST: six octets, and no round trip.
#
# Only messages that fit are taken: at hand, small, in one transaction. A cancelled caller cannot stop its message
# without stopping the others. If the message has left, the caller waits for the reply for its grace, and goes; the
# reply is read all the same. If it has not, it is never sent. When it is the only one in flight, its wait is ended: so
# it is while its `before_end` runs, since every reply to those before it has come.
#
# An envelope that rode behind an unanswered end may be refused or lost for that alone: riding.py says what is learnt.
# That message, and one that met a 421 before its end, were refused by none: they are sent again alone, and take no try.
from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

import trio

from .._client.connection import ClientConnection
from .._client.encoder import ONE_WRITE, TransactionEncoder
from .._client.exchanges import begin_transcript
from .._client.refusals import is_about_connection
from .._client.transfer import open_content
from .._protocol.client.commands import Verb, bdat, data
from .._protocol.client.protocol import Event
from .._protocol.client.transaction import Transaction
from .._protocol.errors import ConnectionLostError, SMTPError, SMTPTimeoutError, Stage
from .._wire.waits import Interrupted
from .attempt import Attempt, AttemptState
from .connector import PooledConnection
from .flying import Flying, Parts, is_answered, own_error, refused_for_order, was_not_tried
from .health import ServerHealth
from .riding import Riding, Sign
from .trace import Tracer, fate_by, fate_of

_RECIPIENTS: Final = 100  # of one message; more commands than fit into the buffers would stand still
_ENDS: Final = (Verb.END, Verb.LAST)
_DONE: Final = AttemptState.DONE


class Pipeline:
    """The messages in flight on one connection.

    Args:
        connection: reusable, with PIPELINING, and one that has just answered.
        depth: how many there may be.
        take: the next attempt, if there is one and the connection may be used for it.
        health: is told of each message that came to its end.
        riding: is told what the host does with an envelope behind an unanswered end.
        tracer: is told of each message, however it ended.

    Attributes:
        to_send_alone: attempts that cannot be sent with others: too large for this, with a `before_end` where all is
            one write, with recipients who were too many for one transaction, without a connection that is good, on one
            that ended with a 421 before their end was answered, or refused or lost as riders.
        farewell_at: where a message was when the server ended the session with a 421.
        latest: the last one that was answered.
    """

    __slots__ = (
        "_client",
        "_connection",
        "_depth",
        "_flight",
        "_health",
        "_riding",
        "_take",
        "_tracer",
        "_written",
        "farewell_at",
        "latest",
        "to_send_alone",
    )

    def __init__(
        self,
        connection: PooledConnection,
        depth: int,
        take: Callable[[], Attempt | None],
        health: ServerHealth,
        riding: Riding,
        tracer: Tracer,
    ) -> None:
        self._connection: PooledConnection = connection
        self._client: ClientConnection = connection.client
        self._depth: int = depth
        self._take: Callable[[], Attempt | None] = take
        self._health: ServerHealth = health
        self._riding: Riding = riding
        self._tracer: Tracer = tracer
        self._flight: deque[Flying] = deque()
        self._written: int = 0  # how many of them, from the oldest on, were handed to the wire
        self.to_send_alone: deque[Attempt] = deque()
        self.farewell_at: Stage | None = None
        self.latest: Attempt | None = None

    def __repr__(self) -> str:
        return f"<Pipeline {len(self._flight)} of {self._depth} in flight, {len(self.to_send_alone)} to be sent alone>"

    def take_alone(self) -> Attempt:
        """The first of those that are to be sent alone, which from now on is the caller's to see to."""
        return self.to_send_alone.popleft()

    def take_all_alone(self) -> list[Attempt]:
        """The same for all of them."""
        taken = list(self.to_send_alone)
        self.to_send_alone.clear()
        return taken

    async def run(self, attempt: Attempt) -> None:
        """Send this message and those that can be had meanwhile: each has its outcome, or is to be sent alone."""
        try:
            await (self._run_whole if self._client.sends_early_text else self._run_riding)(attempt)
        except (SMTPError, Interrupted) as exc:
            self._fail(exc)
        except trio.Cancelled as exc:  # the whole pool is: what has left may still be answered
            with trio.move_on_after(self._client.config.end_grace, shield=True):
                try:
                    while self._written and self._flight[0].attempt.report.has_left:
                        await self._hear()
                except (SMTPError, Interrupted):
                    pass
            self._fail(exc)
            raise
        except BaseException as exc:  # Ctrl-C: what was made for sending may never have been
            self._fail(exc)
            raise
        finally:
            self._client.check()

    def _fail(self, exc: BaseException) -> None:
        """The connection is of no use any more: each message in flight has its outcome, or is to be sent alone."""
        if isinstance(exc, SMTPError):
            self._client.place(exc)
            self._learn_from_failure(exc)
        self._connection.abort()
        failed = [flying for flying in self._flight if flying.attempt.state is not _DONE]
        self._flight.clear()
        transactions: list[Transaction | None] = []
        for flying in failed:
            attempt = flying.attempt
            report, transaction = attempt.report, attempt.report.transaction
            transactions.append(transaction)
            if transaction is not None and transaction.reply is not None:
                report.settle(transaction)  # a reply that was read beats a loss noticed later
                attempt.finish()
            elif isinstance(exc, SMTPError) and was_not_tried(flying):
                self._send_again(attempt)
            else:
                attempt.finish(own_error(exc, attempt))
        for flying, transaction in zip(failed, transactions, strict=True):  # when every caller has its outcome
            attempt = flying.attempt
            self._note_end(flying, attempt.error if attempt.state is _DONE else exc, transaction)

    def _learn_from_failure(self, exc: SMTPError) -> None:
        """Say what the connection's end tells of the server; see :meth:`_hear` for a 421."""
        rider = next((flying for flying in self._flight if flying.is_rider), None)
        if rider is None or is_answered(rider) or self._client.protocol.farewell is not None:
            return
        is_forgotten = rider is self._flight[0] and isinstance(exc, SMTPTimeoutError)
        self._note_sign(Sign.FORGOTTEN if is_forgotten else Sign.LOST)

    def _note_sign(self, sign: Sign) -> None:
        self._riding.saw(sign, self._connection.route, self._connection.number)

    def _send_again(self, attempt: Attempt) -> None:
        """Leave a message to be sent alone, as if this had not been tried."""
        attempt.report.forget_transaction()
        attempt.isolate()
        self._set_aside(attempt)

    def _set_aside(self, attempt: Attempt) -> None:
        """Let a message that was in flight wait. Meanwhile others are sent, which its caller must not interrupt."""
        attempt.attach(None)
        self.to_send_alone.append(attempt)

    def _note_end(self, flying: Flying, error: BaseException | None, transaction: Transaction | None) -> None:
        """A message's transaction is over, by its end or by an error: for the trace, and the limit of connections."""
        client, report = self._client, flying.attempt.report
        if client.witness is not None and transaction is not None:
            client.witness.end_message(transaction, error, chunking=client.uses_chunking, origin=report.origin)
        if self._tracer.is_on:
            if error is not None or transaction is None:
                fate = fate_by(error or Interrupted(), transaction)
            else:
                fate = fate_of(transaction)
            self._tracer.tell(
                "send",
                flying.since,
                self._connection.number,
                detail="pipeline",
                error=error,
                message=flying.attempt.number,
                fate=fate,
            )
        if error is None and self._client.protocol.farewell is None:
            self._health.message_done()

    # -- whole messages, one behind the other

    async def _run_whole(self, attempt: Attempt | None) -> None:
        flight = self._flight
        while True:
            wire: list[bytes] = []
            while (parts := await self._enter_next(attempt)) is not None:
                wire += (self._client.encode(parts.commands), parts.text, parts.tail)
                attempt = self._take_next()
            await self._write(b"".join(wire))
            if not flight:
                return
            first = flight[0]
            while flight and flight[0] is first:
                await self._hear()
            attempt = self._take_next()

    # -- the next envelope behind the end of the last message

    async def _run_riding(self, attempt: Attempt | None) -> None:
        end_of_last = b""
        while (parts := await self._enter_next(attempt)) is not None:
            self._written = 0
            await self._write(end_of_last + self._client.encode(parts.commands))
            end_of_last = await self._end_of_last(parts)
            attempt = self._take_next()
        self._written = 0
        await self._write(end_of_last)
        while self._flight:
            await self._hear()

    async def _end_of_last(self, parts: Parts) -> bytes:
        """Wait for the replies to the envelope sent last: the message's text and end, or nothing if it is refused."""
        flight, client = self._flight, self._client
        current = flight[-1].attempt
        transaction = current.report.transaction
        assert transaction is not None
        while client.protocol.outstanding and flight and flight[-1].attempt is current:
            await self._hear()
        if not (flight and flight[-1].attempt is current):
            return b""  # DATA was refused
        is_refused = transaction.reply is not None or transaction.all_refused
        if is_refused and client.uses_chunking:
            self._conclude(transaction)
            return b""
        if not is_refused and current.report.message.before_end is not None and not await self._announce_end(current):
            return b""
        if not await client.look(transaction):
            raise ConnectionLostError("the server gave the message up")  # and said so: that is settled
        if not current.is_wanted:
            raise Interrupted  # after 354 there is no other way to end it
        if is_refused:  # RFC 2920 §3.1: 354 with no recipient; end it at once, and expect a refusal
            return parts.encoder.end((), b".\r\n")
        return parts.encoder.end((parts.text,), parts.tail)

    async def _announce_end(self, attempt: Attempt) -> bool:
        """Await the caller's ``before_end``, with nothing else in flight; whether the end is to be sent.

        Raises:
            Interrupted: the attempt was cancelled.
        """
        try:
            await attempt.run_cancellable(attempt.report.announce_end)
        except Interrupted:
            raise
        except Exception as exc:
            if not self._client.uses_chunking:
                self._connection.abort()  # after 354 there is no other way; with BDAT, RSET stands before the next MAIL
            flying = self._flight[0]
            attempt.finish(exc)
            self._forget_first()
            self._note_end(flying, exc, attempt.report.transaction)
            return False
        return True

    # -- what both do

    def _take_next(self) -> Attempt | None:
        if len(self._flight) >= self._depth or self.to_send_alone or self._client.allowance.is_exhausted:
            return None
        return self._take()

    async def _write(self, octets: bytes) -> None:
        if octets:
            await self._client.write(octets, self._client.config.data_timeout)
        self._written = len(self._flight)

    async def _enter_next(self, attempt: Attempt | None) -> Parts | None:
        """:meth:`_enter` for the first message from this one on that can be sent; ``None`` if there is none."""
        while attempt is not None:
            parts = await self._enter(attempt)
            if parts is not None:
                return parts
            attempt = self._take_next()
        return None

    async def _enter(self, attempt: Attempt) -> Parts | None:
        """Make what is sent of a message, which is in flight then; ``None`` if it is not sent, or not here."""
        if attempt.is_alone and self._flight:
            self.to_send_alone.append(attempt)
            return None
        if not self._flight:
            self._client.wire.forget_interruption()  # of a caller that gave up when its last reply came
            self.to_send_alone.append(attempt)  # it stays there, whatever ends look(), so that its caller hears
            try:
                await self._client.look()
            except (SMTPError, Interrupted):
                return None
            self.to_send_alone.pop()
        if not attempt.is_wanted:  # its caller may be gone already: from here on there is no checkpoint
            attempt.finish(Interrupted())
            return None
        flying = Flying(attempt, trio.current_time() if self._tracer.is_on else 0.0, bool(self._flight))
        try:
            parts = await self._encode(attempt, behind_end=flying.is_rider)
        except Exception as exc:  # it cannot be made octets: that is this message's error, and no other's
            attempt.report.forget_transaction()
            attempt.finish(exc)
            self._note_end(flying, exc, None)
            return None
        if parts is None:
            self.to_send_alone.append(attempt)
            return None
        self._launch(flying)
        return parts

    async def _encode(self, attempt: Attempt, *, behind_end: bool) -> Parts | None:
        """What is sent of a message; ``None`` if it is too large, or for too many, to be sent with others."""
        client, report = self._client, attempt.report
        limits = client.extensions.limits
        limit = 0 if limits.rcptdomainmax is not None else client.allowance.most_recipients or _RECIPIENTS
        if not report.message.content.at_hand or len(report.remaining) > limit:
            return None
        if client.sends_early_text and report.message.before_end is not None:
            return None  # others would wait for it
        source = await open_content(client, report.message)
        if source.whole is None or len(source.whole) > ONE_WRITE:
            return None
        transaction = Transaction(report.remaining, lmtp=client.lmtp)
        report.track(transaction)
        if report.message.transcript is not None:
            begin_transcript(report.message.transcript, client, transaction)
        encoder = TransactionEncoder(client, report.message, transaction)
        text, tail, size = encoder.whole(source.whole)
        if client.witness is not None:
            client.witness.note_text(transaction, size)
        commands = encoder.envelope(source, size, behind_end=behind_end)
        if client.sends_early_text:
            commands.append(bdat(transaction, size, last=True))
        elif not client.uses_chunking:
            commands.append(data(transaction))
        client.allowance.count(report.message, transaction.recipients)
        return Parts(encoder, commands, text, tail)

    def _launch(self, flying: Flying) -> None:
        """A message is in flight from now on."""
        flight = self._flight
        attempt = flying.attempt
        attempt.report.count_attempt()
        self._connection.count_message()
        attempt.attach(None if flying.is_rider else self._connection)
        if flying.is_rider:
            flight[0].attempt.attach(None)
        flight.append(flying)

    async def _hear(self) -> None:
        """Hear one reply; if it is a message's last, its fate is known."""
        client = self._client
        command, reply = await self._event(client.reply_timeout)
        protocol, waiting = client.protocol, client.protocol.outstanding
        transaction, is_at_end = command.transaction, command.verb in _ENDS
        if reply is protocol.farewell and not is_at_end and self._flight[0].is_rider:
            self._note_sign(Sign.REFUSED)
        if transaction is None:
            return
        if transaction.farewell is not None:
            self.farewell_at = transaction.stage
            raise client.farewell_error(transaction)
        is_last = is_at_end and not (waiting and waiting[0] is command)
        if is_last or (command.verb is Verb.DATA and not transaction.go_ahead):
            self._conclude(transaction)

    def _conclude(self, transaction: Transaction) -> None:
        """The first message in flight is decided. It stays in flight until its outcome is set, lest that be lost."""
        flying = self._flight[0]
        attempt, report = flying.attempt, flying.attempt.report
        is_out_of_order = flying.is_rider and refused_for_order(transaction)
        if is_out_of_order:
            self._note_sign(Sign.REFUSED)
        elif flying.is_rider and transaction.accepted:
            self._note_sign(Sign.TAKEN)
        if is_out_of_order and attempt.is_wanted:
            self._send_again(attempt)
        else:
            self._client.allowance.record(report, transaction)
            if is_about_connection(report.error):
                report.readmit_temporary()
            if report.remaining and attempt.is_wanted:
                report.uncount_attempt()  # it goes on, with those who were too many for one transaction
                self._set_aside(attempt)
            else:
                attempt.finish()
                self.latest = attempt
        self._forget_first()
        if len(self._flight) == 1:
            self._flight[0].attempt.attach(self._connection)
        self._note_end(flying, None, transaction)

    def _forget_first(self) -> None:
        self._flight.popleft()
        self._written -= 1

    async def _event(self, timeout: float | None) -> Event:
        try:
            return await self._client.next_event(timeout)
        except SMTPError as exc:
            self._client.place(exc)
            raise
