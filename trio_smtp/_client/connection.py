# One connection to a server, from the greeting on: commands and replies, with time limits.
#
# ClientProtocol says what may be sent and what a reply means; the wire moves the octets; this file lets the two meet
# and knows the time. What is built on it (opening, sending, the pool) uses exchange(), write() and drain().
#
# Guarantees. After any operation the connection is either reusable or broken: check() breaks one that has a command
# unanswered. It breaks in abort() and nowhere else, and start_tls() and adopt_tls() are the only places where the wire
# changes. A reply is never taken for the answer to another command.
# Not known here: what a message is (transfer.py), and what is written down of the dialogue (dialogue.py).
from __future__ import annotations

import math
import ssl
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final

import trio

from .._protocol.client.commands import QUIT, STAGES, Command, Verb
from .._protocol.client.protocol import STAGES_BETWEEN, ClientProtocol, Event, State
from .._protocol.client.transaction import Transaction
from .._protocol.errors import ConnectionLostError, RemoteProtocolError, SMTPError, SMTPTimeoutError, Stage
from .._protocol.extensions import Extensions
from .._protocol.replies import Reply
from .._wire.waits import Interrupted
from .._wire.wire import Wire
from .allowance import Allowance
from .config import ClientConfig
from .dialogue import Dialogue
from .trace import ClientWitness

_CLOSED: Final = State.CLOSED
_ENDS: Final = (Verb.END, Verb.LAST)
_LAST_WORDS: Final = 1.0  # seconds for each reply that is there to be read when a send has failed
_REST_OF_REPLY: Final = 1.0  # seconds for what is still to come of a refusal in the middle of a message
RECENT: Final = 1.0  # seconds: a server that answered so lately is taken to be there still


def deadline_after(timeout: float | None) -> float:
    """The moment `timeout` seconds from now, in Trio's clock."""
    return math.inf if timeout is None else trio.current_time() + timeout


class ClientConnection:
    """A dialogue with one server.

    Args:
        wire: owned from now on.
        config: time limits.
        lmtp: speak LMTP.
        name: what log records call it.
        number: which connection of the pool it is, from 1 on.
        witness: told of what happens, if anything is.

    Attributes:
        name, witness: as given.
        wire: the stream with its deadlines; another one once TLS was started.
        protocol: the session's state machine.
        dialogue: what is written down of it.
        allowance: what the server still takes on this connection.
        greeting: the server's 220.
        extensions: what its latest answer to EHLO or LHLO offered.
        offers_size, offers_8bit, offers_utf8: whether SIZE, 8BITMIME, SMTPUTF8 are among the extensions.
        uses_chunking: messages go by BDAT.
        sends_early_text: a small message's text goes with its envelope, before a recipient was accepted.
    """

    __slots__ = (
        "_answered_at",
        "_now",
        "allowance",
        "config",
        "dialogue",
        "extensions",
        "greeting",
        "lmtp",
        "name",
        "offers_8bit",
        "offers_size",
        "offers_utf8",
        "protocol",
        "sends_early_text",
        "uses_chunking",
        "wire",
        "witness",
    )

    def __init__(
        self,
        wire: Wire,
        config: ClientConfig,
        *,
        lmtp: bool = False,
        name: str = "",
        number: int = 1,
        witness: ClientWitness | None = None,
    ) -> None:
        self.wire = wire
        self.witness: Final = witness
        self.config: Final = config
        self.lmtp: Final = lmtp
        self.name: Final = name
        self.dialogue: Final = Dialogue(name, number, wire.peer, witness)
        self.protocol: Final = ClientProtocol(max_reply_size=config.max_reply_size)
        self.allowance: Final = Allowance()
        self.greeting: Reply | None = None
        # trio.current_time() looks the clock up every time
        self._now: Final[Callable[[], float]] = trio.lowlevel.current_clock().current_time
        self._answered_at = -math.inf
        self.learn(Extensions())

    def __repr__(self) -> str:
        return f"<ClientConnection {self.name}: {'broken' if self.is_broken else self.protocol.state.value}>"

    # -- state

    @property
    def is_broken(self) -> bool:
        """Nothing more can be sent."""
        return self.wire.broken or self.protocol.state is _CLOSED

    @property
    def has_just_answered(self) -> bool:
        """The server was alive a moment ago."""
        return self._now() - self._answered_at < RECENT

    @property
    def reply_timeout(self) -> float | None:
        """For the reply that is due: to the end of a message, or to another command (RFC 5321 section 4.5.3.2)."""
        outstanding = self.protocol.outstanding
        if outstanding and outstanding[0].verb in _ENDS:
            return self.config.end_timeout
        return self.config.command_timeout

    @property
    def stage(self) -> Stage | None:
        """Where the session is: the stage of the oldest command that has no reply, or of the message's text."""
        protocol = self.protocol
        if protocol.outstanding:
            return STAGES[protocol.outstanding[0].verb]
        return STAGES_BETWEEN.get(protocol.state)

    def place(self, error: SMTPError) -> None:
        """Let an error say where the session is, unless it says so already."""
        if error.stage is None:
            error._place(self.stage)

    def learn(self, extensions: Extensions) -> None:
        """Go by what the server offers from now on."""
        self.extensions = extensions
        self.allowance.learn(extensions.limits)
        self.offers_size = "SIZE" in extensions
        self.offers_8bit = "8BITMIME" in extensions
        self.offers_utf8 = "SMTPUTF8" in extensions
        self.uses_chunking = self.config.chunking and "CHUNKING" in extensions
        self.protocol.learn(pipelining=self.config.pipelining and "PIPELINING" in extensions)
        self.sends_early_text = self.config.early_text and self.uses_chunking and self.protocol.pipelining

    def abort(self) -> None:
        """Send nothing more: an unknown number of octets is on the wire, or a command will never be answered."""
        self.wire.abort()

    def check(self) -> None:
        """Break the connection if it is in the middle of something that will not be finished."""
        if not self.protocol.is_reusable:
            self.abort()

    # -- dialogue

    async def hear_greeting(self, timeout: float | None) -> Reply:
        """Wait for the server's greeting.

        Raises: as :meth:`next_event`.
        """
        _, reply = await self.next_event(timeout)
        self.greeting = reply
        return reply

    def encode(self, commands: Sequence[Command]) -> bytes:
        """The octets of commands, which from now on count as sent."""
        self.dialogue.note_commands(commands)
        return self.protocol.send(*commands)

    async def write(self, data: bytes | memoryview, timeout: float | None) -> None:
        """Hand octets over.

        Raises:
            ConnectionLostError, SMTPTimeoutError: the connection is broken. What the server said before was heard.
        """
        wire = self.wire
        was_broken = wire.broken
        try:
            sent = wire.send_nowait(data)  # nearly always all of it: then there is no deadline to be set
            if sent < len(data) or wire.broken:
                await wire.send(memoryview(data)[sent:] if sent else data, self._deadline(timeout))
        except (ConnectionLostError, SMTPTimeoutError) as exc:
            failure: SMTPError = exc
        else:
            return
        if not was_broken:
            await self._hear_last_words()
            if self.protocol.farewell is not None:
                raise self.farewell_error() from failure.__cause__
        self.dialogue.note_reason(failure)
        raise failure from failure.__cause__

    async def _hear_last_words(self) -> None:
        """A server that gives up answers, says why, and closes: then a send fails before that was read."""
        with suppress(SMTPError):
            while True:
                await self.next_event(_LAST_WORDS)

    async def exchange(self, command: Command, timeout: float | None) -> Reply:
        """Send one command and wait for its reply, whatever it says.

        Raises:
            ConnectionLostError, SMTPTimeoutError, RemoteProtocolError: the connection is broken.
        """
        try:
            if self.protocol.unread and not self.protocol.outstanding:
                await self.hear_unasked(None)
            await self.write(self.encode((command,)), timeout)
            return (await self.next_event(timeout))[1]
        except SMTPError as exc:
            if exc.stage is None:
                exc._place(STAGES[command.verb])
            self.dialogue.note_reason(exc)
            raise
        finally:
            if self.protocol.outstanding:
                self.abort()

    async def next_event(self, timeout: float | None) -> Event:
        """Wait for the next reply, with the command it answers.

        Raises:
            ConnectionLostError, SMTPTimeoutError, RemoteProtocolError: the connection is broken.
            Interrupted: the wire was.
        """
        protocol = self.protocol
        event = protocol.next_event()
        if event is None:
            # One deadline for the whole reply: a server that drips octets does not move it.
            deadline = self._deadline(timeout)
            while event is None:
                if protocol.state is _CLOSED:
                    raise self.farewell_error()
                try:
                    self._take(await self.wire.receive(deadline))
                except SMTPTimeoutError:
                    raise self._timeout_error(timeout) from None
                event = protocol.next_event()
        if self.dialogue.is_noted:
            self.dialogue.note_reply(*event)
        return event

    async def drain(self) -> None:
        """Read replies until every command has its own, or the server has said 421; each in its ``reply_timeout``.

        Raises: as :meth:`next_event`.
        """
        protocol, dialogue = self.protocol, self.dialogue
        outstanding, is_noted = protocol.outstanding, dialogue.is_noted
        timeout: float | None = None
        deadline: float | None = None  # of the reply that is being waited for
        while outstanding and protocol.state is not _CLOSED:
            event = protocol.next_event(skip=not is_noted) if protocol.unread else None
            if event is not None:
                deadline = None
                if is_noted:
                    dialogue.note_reply(*event)
                continue
            if deadline is None:
                timeout = self.reply_timeout
                deadline = self._deadline(timeout)
            try:
                self._take(await self.wire.receive(deadline))
            except SMTPTimeoutError:
                raise self._timeout_error(timeout) from None

    def _take(self, data: bytes | bytearray) -> None:
        """Give the protocol what was waited for; no octets: the server has closed the connection."""
        if not data:
            raise self._closed_error()
        self._answered_at = self._now()
        self.protocol.receive_data(data)

    def _closed_error(self) -> ConnectionLostError:
        self.abort()
        error = ConnectionLostError("the server closed the connection")
        self.dialogue.note_reason(error)
        return error

    async def look(self, transaction: Transaction | None = None) -> bool:
        """Read what the server has said while nothing was asked; returns whether to go on.

        A reply too many would otherwise be taken for the next command's, and each one after it for another's. So look
        before MAIL, and before the end of a message. Does not wait for the server, and is no checkpoint on a socket in
        clear.

        Args:
            transaction: the message whose text is being sent. If the server has refused it in the middle, the result
                is ``False``; without one, whatever the server has said is an error.

        Raises:
            ConnectionLostError: the server has closed the connection, or said 421.
            RemoteProtocolError: it has said something else.
            SMTPTimeoutError: TLS had something to say, and the server does not take it.
            Interrupted: the wire was.
        """
        protocol, wire = self.protocol, self.wire
        if protocol.outstanding or wire.broken or protocol.state is _CLOSED:
            return True
        try:
            if wire.is_immediate:
                data: bytes | bytearray | None = wire.receive_nowait()
            else:
                timeout = self.config.command_timeout
                try:
                    data = await wire.receive_pending(self._deadline(timeout))
                except SMTPTimeoutError:
                    raise self._timeout_error(timeout) from None
            if data:
                protocol.receive_data(data)
            elif not protocol.unread:
                if data is None:
                    return True
                raise self._closed_error()
            return True if not protocol.unread else await self.hear_unasked(transaction)
        except SMTPError as exc:
            if transaction is None:  # between messages
                exc._place(Stage.MAIL)
            self.dialogue.note_reason(exc)
            raise

    async def hear_unasked(self, transaction: Transaction | None) -> bool:
        """Take what the server has said while nothing was asked: ``False`` if it refuses the message in the middle.

        What has come may be the beginning of that refusal. Then the rest is awaited, for a moment.

        Args:
            transaction: as :meth:`look`.

        Raises: as :meth:`look`, in all other cases.
        """
        protocol = self.protocol
        if transaction is not None:
            with suppress(ConnectionLostError, SMTPTimeoutError):
                await self.next_event(_REST_OF_REPLY)
            if transaction.reply is not None:
                return False
        protocol.hear_unasked()
        self.abort()
        raise self.farewell_error(transaction)

    def farewell_error(self, transaction: Transaction | None = None) -> ConnectionLostError:
        """The error for a command, or a message, that the server's 421 left undecided."""
        protocol, stage = self.protocol, self.stage
        with suppress(RemoteProtocolError):  # what has come behind it counts, and what is noted of it is noted
            protocol.next_event(skip=True)
        reply = protocol.farewell
        if transaction is not None and transaction.farewell is not None:
            stage = transaction.stage
        error = ConnectionLostError(f"the server closed the session: {reply}", reply=reply, stage=stage)
        self.dialogue.note_reason(error)
        return error

    def _deadline(self, timeout: float | None) -> float:
        return math.inf if timeout is None else self._now() + timeout

    def _timeout_error(self, timeout: float | None) -> SMTPTimeoutError:
        self.abort()
        waiting = self.protocol.outstanding
        what = waiting[0].verb.value if waiting else "the message"
        stage = STAGES[waiting[0].verb] if waiting else None
        error = SMTPTimeoutError(f"no reply to {what} within {timeout:g} seconds", stage=stage)
        self.dialogue.note_reason(error)
        return error

    # -- TLS

    async def start_tls(self, context: ssl.SSLContext, server_hostname: str) -> None:
        """Shake hands, within ``tls_handshake_timeout``, and forget what was learnt in clear.

        An error leaves the connection broken.

        Raises:
            TLSError, SMTPTimeoutError, ConnectionLostError: the handshake failed.
        """
        handshake = self.wire.start_tls(
            context,
            server_side=False,
            server_hostname=server_hostname.removesuffix("."),  # of an absolute name (RFC 6066 §3: without the dot)
            deadline=self._deadline(self.config.tls_handshake_timeout),
        )
        await self._change_wire(handshake)
        self.protocol.tls_started()

    async def adopt_tls(self) -> None:
        """Go by what TLS says of a stream that is under TLS already; shake hands if that was not done.

        Raises: as :meth:`start_tls`.
        """
        deadline = self._deadline(self.config.tls_handshake_timeout)
        await self._change_wire(self.wire.adopt_tls(server_side=False, deadline=deadline))

    async def _change_wire(self, handshake: Awaitable[Wire]) -> None:
        began = self._now()
        try:
            self.wire = await handshake
        except BaseException as exc:
            self.dialogue.note_tls(began, None, exc)
            raise
        self.dialogue.note_tls(began, self.wire.tls)

    # -- the end

    async def aclose(self) -> None:
        """Say QUIT if the server will listen, and close. Bounded by ``quit_timeout``, shielded; never raises."""
        with trio.move_on_after(self.config.quit_timeout, shield=True):
            await self.quit()
        try:
            await self.wire.aclose()
        finally:
            self.dialogue.close()

    async def quit(self) -> None:
        """Say QUIT and wait for the answer, if the server will listen. Never raises an :class:`SMTPError`."""
        if self.is_broken or not self.protocol.is_reusable:
            self.abort()
            return
        try:
            await self.exchange(QUIT, self.config.quit_timeout)
        except (SMTPError, Interrupted):
            pass  # RFC 5321 §4.1.1.10 wants us to wait for the 221; nothing depends on it
