# The bytes and the time of one connection: what is sent, what is received, and how long each may take.
#
# A single timer says how long the peer may take; no cancel scope is opened per command. This file does not know what a
# message or a hook is. Each layer above declares what it adds to a connection's state itself.
from __future__ import annotations

import logging
import math
from typing import Final

import trio

from .._protocol.errors import ConnectionLostError, SMTPTimeoutError
from .._protocol.replies import Reply
from .._protocol.server.protocol import ServerProtocol
from .._wire.opening import open_wire
from .._wire.timekeeper import Timekeeper
from .service import Service
from .session import Session

logger = logging.getLogger("trio_smtp")

MAX_DELAY: Final = 10.0  # seconds that one reply is kept back at most
TURN: Final = 2048  # octets of replies that a session sends before others have their turn, while it has input


class Dialogue:
    """A connection's transport, protocol and clock.

    Args:
        service: what the server's connections share.
        stream: the connected stream, owned from now on.
        keeper: expires its time limits; its task must be running.
    """

    # One dictionary for the attributes of all layers would be 1.3 KiB of an idle session's 8.
    __slots__ = (
        "_config",
        "_end",
        "_held_since",
        "_mute",
        "_now",
        "_pausing",
        "_protocol",
        "_sent",
        "_service",
        "_stopping",
        "_timer",
        "_transport",
        "session",
    )

    def __init__(self, service: Service, stream: trio.abc.Stream, keeper: Timekeeper) -> None:
        self._service = service
        self._config = service.config
        self._timer = keeper.timer(self._expired)
        self._transport = open_wire(stream, self._timer)
        self._now = trio.lowlevel.current_clock().current_time  # trio.current_time() looks the clock up every time
        self._protocol = ServerProtocol(service.profile)
        self.session = Session(self._protocol, self._transport.peer, self._transport.local)
        self._pausing: trio.CancelScope | None = None  # around a delay
        self._stopping = service.closing  # shutdown: 421 as soon as no transaction is in progress
        # nothing may be said in clear: between STARTTLS's 220 and the handshake's end, and before an implicit one's
        self._mute = False
        self._end = math.inf  # of the session's time
        self._sent = 0  # octets, since others had their turn
        self._held_since = math.inf  # no reply that was not sent yet is older; infinite when all were sent

    # ---- bytes

    async def _flush(self) -> None:
        self._held_since = math.inf
        if not self._protocol.replies:
            return
        if not self._transport.is_immediate:  # cancelled as soon as it begins, a send would take these replies with it
            await trio.lowlevel.checkpoint_if_cancelled()
        data = self._protocol.data_to_send()
        size = len(data)
        sent = self._transport.send_nowait(data)
        if sent < size:
            await self._transport.send(data[sent:], self._deadline(self._config.command_timeout))
        self._sent += size
        if self._sent > TURN:  # nothing above waits while there is input and the socket takes the replies
            self._sent = 0
            await trio.lowlevel.checkpoint()

    async def _flush_quietly(self) -> None:
        try:
            await self._flush()
        except (ConnectionLostError, SMTPTimeoutError):
            self._protocol.lose_peer()

    def _deadline(self, limit: float | None) -> float:
        return self._end if limit is None else min(self._now() + limit, self._end)

    async def _pause(self) -> None:
        """Keep the reply back from a peer that makes many mistakes; its session's time goes on."""
        delay = self._config.error_delay or 0
        units = self._protocol.take_penalty()
        with trio.CancelScope(deadline=min(self._now() + min(units * delay, MAX_DELAY), self._end)) as self._pausing:
            if self._stopping:
                return
            await trio.sleep_forever()
        self._pausing = None
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
        self._transport.expire()
