# One connection to a server, from the greeting on: commands and replies, with time limits and the truth about failures.
#
# Theory of operation. The machine in _protocol.client says what may be sent and what a reply means; a Wire moves the
# octets; this file lets the two meet, and knows the time. What is built on it (opening, sending, the pool) uses
# exchange(), write() and drain(). After any operation the connection is either reusable or broken, and says so:
# whoever fails in mid-dialogue calls check(), which breaks a connection that has a command unanswered.
# This file does not know what a message is (sending.py does).
from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

import trio

from .._protocol.client.commands import QUIT, STAGES, Command
from .._protocol.client.protocol import ClientProtocol, Event, State
from .._protocol.client.transaction import Transaction
from .._protocol.errors import ConnectionLostError, RemoteProtocolError, SMTPError, SMTPTimeoutError, Stage
from .._protocol.extensions import Extensions
from .._protocol.replies import Reply
from .._wire.waits import Interrupted
from .._wire.wire import Wire
from .config import ClientConfig
from .log import is_on, logger

_CLOSED: Final = State.CLOSED
_REST_OF_REPLY: Final = 1.0  # seconds for what is still to come of a refusal in the middle of a message
RECENT: Final = 1.0  # seconds: a server that answered so lately is taken to be there still


def deadline_after(timeout: float | None) -> float:
    """The moment `timeout` seconds from now, in Trio's clock."""
    return math.inf if timeout is None else trio.current_time() + timeout


class Connection:
    """A dialogue with one server.

    Args:
        transport: the stream; owned from now on.
        config: time limits.
        lmtp: speak LMTP.
        name: what log records call it.

    Attributes:
        greeting: the server's 220.
        extensions: what its latest answer to EHLO or LHLO offered.
        esmtp: it understood EHLO.
        transactions: MAIL commands sent.
        domains: of the recipients named in RCPT so far, where the server's LIMITS count them.
        most_recipients: of one transaction, by LIMITS or by experience; ``None`` if nothing is known.
        offers_size, offers_8bit, offers_utf8: whether SIZE, 8BITMIME, SMTPUTF8 are among the extensions.
        uses_chunking: messages go by BDAT.
    """

    __slots__ = (
        "_answered_at",
        "config",
        "domains",
        "esmtp",
        "extensions",
        "greeting",
        "lmtp",
        "most_recipients",
        "name",
        "offers_8bit",
        "offers_size",
        "offers_utf8",
        "protocol",
        "transactions",
        "transport",
        "uses_chunking",
    )

    def __init__(self, transport: Wire, config: ClientConfig, *, lmtp: bool = False, name: str = "") -> None:
        self.transport = transport
        self.config = config
        self.lmtp = lmtp
        self.name = name
        self.protocol = ClientProtocol(lmtp=lmtp, max_reply_size=config.max_reply_size)
        self.greeting: Reply | None = None
        self.learn(Extensions())
        self.esmtp = False
        self.transactions = 0
        self.domains: set[str] = set()
        self._answered_at = -math.inf

    def __repr__(self) -> str:
        return f"<Connection {self.name}: {'broken' if self.is_broken else self.protocol.state.value}>"

    # -- state

    @property
    def is_broken(self) -> bool:
        """Nothing more can be sent."""
        return self.transport.broken or self.protocol.state is _CLOSED

    @property
    def has_just_answered(self) -> bool:
        """The server was alive a moment ago."""
        return trio.current_time() - self._answered_at < RECENT

    @property
    def is_exhausted(self) -> bool:
        """The server takes no further MAIL on this connection (RFC 9422 section 4.1)."""
        limit = self.extensions.limits.mailmax
        return limit is not None and self.transactions >= limit

    def learn(self, extensions: Extensions) -> None:
        """Go by what the server offers from now on."""
        self.extensions = extensions
        self.most_recipients = extensions.limits.rcptmax
        self.offers_size = "SIZE" in extensions
        self.offers_8bit = "8BITMIME" in extensions
        self.offers_utf8 = "SMTPUTF8" in extensions
        self.uses_chunking = self.config.chunking and "CHUNKING" in extensions
        self.protocol.pipelining = self.config.pipelining and "PIPELINING" in extensions

    def check(self) -> None:
        """Break the connection if it is in the middle of something that nobody will finish."""
        if not self.protocol.is_reusable:
            self.transport.abort()

    # -- dialogue

    def encode(self, commands: Iterable[Command]) -> bytes:
        """The octets of commands, which from now on count as sent."""
        if is_on():
            commands = list(commands)
            for command in commands:
                logger.debug("%s C: %s", self.name, command)
        return b"".join(map(self.protocol.send, commands))

    async def write(self, data: bytes | memoryview, timeout: float | None) -> None:
        """Hand octets over.

        Raises:
            ConnectionLostError, SMTPTimeoutError: the connection is broken.
        """
        transport = self.transport
        sent = transport.send_nowait(data)  # nearly always all of it: then there is no deadline to be set
        if sent < len(data) or transport.broken:
            await transport.send(memoryview(data)[sent:] if sent else data, deadline_after(timeout))

    async def exchange(self, command: Command, timeout: float | None) -> Reply:
        """Send one command and wait for its reply, whatever it says.

        Raises:
            ConnectionLostError, SMTPTimeoutError, RemoteProtocolError: the connection is broken.
        """
        try:
            await self.write(self.encode((command,)), timeout)
            return (await self.next_event(timeout))[1]
        except SMTPError as exc:
            if exc.stage is None:
                exc.stage = STAGES.get(command.verb)
            raise
        finally:
            if self.protocol.outstanding:
                self.transport.abort()

    async def next_event(self, timeout: float | None) -> Event:
        """Wait for the next reply, with the command it answers.

        Raises:
            ConnectionLostError, SMTPTimeoutError, RemoteProtocolError: the connection is broken.
            Interrupted: the transport was.
        """
        protocol = self.protocol
        event = protocol.next_event()
        if event is None:
            # One deadline for the whole reply: a server that drips octets does not move it.
            deadline = deadline_after(timeout)
            while event is None:
                await self._receive(deadline, timeout)
                event = protocol.next_event()
        if is_on():
            logger.debug("%s S: %s", self.name, _loggable(event[1]))
        return event

    async def _receive(self, deadline: float, timeout: float | None) -> None:
        """Wait for octets and give them to the machine."""
        protocol = self.protocol
        if protocol.state is _CLOSED:
            raise self.farewell_error()
        try:
            data = await self.transport.receive(deadline)
        except SMTPTimeoutError:
            self.transport.abort()
            raise self._too_late(timeout) from None
        if not data:
            self.transport.abort()
            raise ConnectionLostError("the server closed the connection")
        self._answered_at = trio.current_time()
        protocol.receive_data(data)

    async def drain(self, timeout: float | None) -> None:
        """Read replies until every command has its own, or the server has said 421."""
        protocol = self.protocol
        outstanding, next_event, log = protocol.outstanding, protocol.next_event, is_on()
        deadline: float | None = None  # of the reply that is being waited for
        while outstanding and protocol.state is not _CLOSED:
            event = next_event()
            if event is None:
                if deadline is None:
                    deadline = deadline_after(timeout)
                await self._receive(deadline, timeout)
            else:
                deadline = None
                if log:
                    logger.debug("%s S: %s", self.name, _loggable(event[1]))

    async def look(self, transaction: Transaction | None = None) -> bool:
        """Where nothing is asked: hear what the server has said all the same; whether there is reason to go on.

        A reply too many would otherwise be taken for the next command's, and each one after it for another's. So look
        before MAIL, and before the end of a message (DESIGN section 4). Does not wait for the server, and no checkpoint
        on a socket in clear.

        Args:
            transaction: the message whose text is being sent; ``False`` if the server has refused it in the middle.

        Raises:
            ConnectionLostError: the server has closed the connection, or said 421.
            RemoteProtocolError: it has said something else.
            SMTPTimeoutError: TLS had something to say, and the server does not take it.
            Interrupted: the transport was.
        """
        protocol, transport = self.protocol, self.transport
        if protocol.outstanding or transport.broken or protocol.state is _CLOSED:
            return True
        if transport.is_immediate:
            data: bytes | bytearray | None = transport.receive_nowait()
        else:
            timeout = self.config.command_timeout
            try:
                data = await transport.receive_pending(deadline_after(timeout))
            except SMTPTimeoutError:
                transport.abort()
                raise self._too_late(timeout) from None
        if data:
            protocol.receive_data(data)
        elif protocol.is_clean:
            if data is None:
                return True
            transport.abort()
            raise ConnectionLostError("the server closed the connection")
        if transaction is None:
            protocol.next_event()
        else:
            try:
                await self.next_event(_REST_OF_REPLY)
            except (ConnectionLostError, SMTPTimeoutError):
                pass
            if transaction.reply is not None:
                return False
        transport.abort()
        if protocol.farewell is not None:
            raise self.farewell_error()
        raise RemoteProtocolError("the server spoke before it was asked")

    def farewell_error(self) -> ConnectionLostError:
        """The error for a command that the server's 421 left unanswered."""
        reply = self.protocol.farewell
        return ConnectionLostError(f"the server closed the session: {reply}", reply=reply, stage=self.stage)

    @property
    def stage(self) -> Stage | None:
        """Where the session is: the stage of the oldest command that has no reply, or of the message's text."""
        protocol = self.protocol
        if protocol.outstanding:
            return STAGES.get(protocol.outstanding[0].verb)
        return Stage.BODY if protocol.state in (State.BODY, State.CHUNKS) else None

    def _too_late(self, timeout: float | None) -> SMTPTimeoutError:
        waiting = self.protocol.outstanding
        what = waiting[0].verb.value if waiting else "the message"
        stage = STAGES.get(waiting[0].verb) if waiting else None
        return SMTPTimeoutError(f"no reply to {what} within {timeout:g} seconds", stage=stage)

    # -- the end

    async def aclose(self) -> None:
        """Say QUIT if the server will listen, and close. Bounded by ``quit_timeout``, shielded; never raises."""
        with trio.move_on_after(self.config.quit_timeout, shield=True):
            await self.quit()
        await self.transport.aclose()

    async def quit(self) -> None:
        """Say QUIT and wait for the answer, if the server will listen. Never raises an :class:`SMTPError`."""
        if self.is_broken or not self.protocol.is_reusable:
            self.transport.abort()
            return
        try:
            await self.exchange(QUIT, self.config.quit_timeout)
        except (SMTPError, Interrupted):
            pass  # RFC 5321 §4.1.1.10 wants us to wait for the 221; nothing depends on it


def _loggable(reply: Reply) -> Reply | str:
    """A reply as it may be logged: challenges belong to the secrets of AUTH."""
    return "334 ***" if reply.code == 334 else reply
