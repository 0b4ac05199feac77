# The bytes and the time of one connection: what is sent, what is received, and how long each may take.
#
# A single timer says how long the peer may take, or how long the hook in progress may; no cancel scope is opened per
# command. This file does not know what a hook is, beyond that one may be running.
from __future__ import annotations

import logging
import math
from typing import Final

import trio

from .._protocol.errors import (
    ConnectionLostError,
    SMTPError,
    SMTPTimeoutError,
)
from .._protocol.replies import Reply
from .._protocol.server import ServerProtocol
from .._protocol.server_events import (
    Command,
)
from .._stream import Transport
from .._timekeeper import Timekeeper
from .body import Body
from .service import Service
from .session import Session

logger = logging.getLogger("trio_smtp")

MAX_DELAY: Final = 10.0  # seconds that one reply is kept back at most


class Dialogue:
    """A connection's transport, protocol and clock; its hooks are :class:`.judgement.Judgement`'s business.

    Args:
        service: what the server's connections share.
        stream: the connected stream, owned from now on.
        keeper: expires its time limits; its task must be running.
    """

    def __init__(self, service: Service, stream: trio.abc.Stream, keeper: Timekeeper) -> None:
        self._service = service
        self._config = service.config
        self._timer = keeper.timer(self._expired)
        self._transport = Transport(stream, self._timer)
        self._now = trio.lowlevel.current_clock().current_time  # trio.current_time() looks the clock up every time
        self._protocol = ServerProtocol(service.profile)
        self.session = Session(self._protocol, self._transport.peer, self._transport.local)
        self._scope = trio.CancelScope()  # around everything but the good-bye
        self._hook_scope = trio.CancelScope()  # around the loop; cancelled when a hook's time is up
        self._pausing = trio.CancelScope()  # around a delay
        self._hook_deadline = math.inf
        self._in_hook = False  # a hook is running by itself, not waiting for the peer
        self._event: Command | None = None  # that the hook in progress is about
        self._telling = False  # a hook that no command is about is in progress
        self._outcome: tuple[object] | None = None  # of that hook, not yet told to the protocol
        self._waiting = False  # for a command
        self._stopping = service.closing  # shutdown: 421 as soon as no transaction is in progress
        self._ending = False  # its grace is over: 421 now
        self._introduced = False  # on_connect was reached, so that on_close is due
        # nothing may be said in clear: between STARTTLS's 220 and the handshake's end, and before an implicit one's
        self._mute = service.implicit_tls
        self._end = math.inf
        self._command_limit = math.inf if self._config.command_timeout is None else self._config.command_timeout
        self._command_end = math.inf  # of the command that is coming in; infinite before its first octet is awaited
        # a message in transit
        self._body: Body | None = None
        self._body_error: SMTPError | None = None
        self._data_limit = math.inf if self._config.data_timeout is None else self._config.data_timeout
        self._budget = self._data_limit  # seconds that the peer may still take for it

    # ---- bytes

    async def _flush(self) -> None:
        if not self._protocol.replies:
            return
        if self._transport.direct is None:  # cancelled as soon as it begins, a send would take these replies with it
            await trio.lowlevel.checkpoint_if_cancelled()
        data = self._protocol.data_to_send()
        sent = self._transport.send_nowait(data)
        if sent < len(data):
            await self._transport.send(data[sent:], self._deadline(self._config.command_timeout))

    async def _flush_quietly(self) -> None:
        try:
            await self._flush()
        except (ConnectionLostError, SMTPTimeoutError):
            self._protocol.lose_peer()

    def _deadline(self, limit: float | None) -> float:
        return self._end if limit is None else min(self._now() + limit, self._end)

    async def _receive_content(self) -> None:
        """Receive octets of a message; the time that is left for it grows with what arrives (Postfix's rule)."""
        limit = self._config.data_timeout
        began = self._now()
        if began >= self._end:
            raise SMTPTimeoutError("the session has lasted too long")
        data: bytes | bytearray = b""
        try:
            data = await self._transport.receive(min(began + self._budget, self._end))
        finally:  # a hook that gives its own reading up and tries again does not give the peer more time
            if limit is not None:
                rate = self._config.min_data_rate
                earned = len(data) / rate if rate is not None else limit if data else 0
                self._budget = min(limit, self._budget - (self._now() - began) + earned)
        self._protocol.receive_data(data)

    async def _pause(self) -> None:
        """Keep the reply back from a peer that makes many mistakes; its session's time goes on."""
        delay = self._config.error_delay or 0
        units = self._protocol.take_penalty()
        with trio.CancelScope() as self._pausing:
            self._pausing.deadline = min(self._now() + min(units * delay, MAX_DELAY), self._end)
            if self._stopping:
                return
            await trio.sleep_forever()
        if self._now() >= self._end:
            raise SMTPTimeoutError("the session has lasted too long")

    def _say_last_word(self, reply: Reply) -> None:
        if self._mute:
            self._protocol.abandon()
        else:
            self._protocol.close(reply)

    # ---- records

    def _facts(self) -> dict[str, object]:
        return {"smtp_session": self.session.id, "smtp_peer": self.session.peer}

    def _trace(self, direction: str, line: bytes) -> None:
        text = line.decode("ascii", "backslashreplace").rstrip()
        logger.debug("session %s %s %s", self.session.id, direction, text, extra=self._facts())

    def _log_failure(self, what: str, exc: Exception) -> None:
        self._service.statistics.failed_hooks += 1
        logger.error("session %s: %s failed", self.session.id, what, exc_info=exc, extra=self._facts())

    def _log_timeout(self, what: str) -> None:
        self._service.statistics.failed_hooks += 1
        logger.error("session %s: %s took too long and was cancelled", self.session.id, what, extra=self._facts())

    # ---- time

    def _expired(self) -> None:
        if self._in_hook:
            self._hook_scope.cancel(reason="handler_timeout")
        else:
            self._transport.expire()
