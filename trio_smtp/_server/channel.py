# The octets and the time of one connection: what is sent, what is received, and how long each may take.
#
# Guarantees: every wait for the peer has a deadline, the session's end at the latest. Nothing is said in clear once
# TLS is due. STARTTLS changes the wire in one place, start_tls().
#
# It knows neither hooks nor messages, only since when replies may be waiting (held_since): sending ends that, so it is
# kept here; how long is too long is for the HookCaller to say. A shutdown it knows, because every wait for the peer
# must heed it: none begins after Shutdown.END, and no reply is kept back after Shutdown.DRAIN.
from __future__ import annotations

import math
import ssl
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Final

import trio

from .._protocol.errors import ConnectionLostError, SMTPTimeoutError
from .._protocol.replies import Reply
from .._protocol.server.config import ServerConfig
from .._protocol.server.protocol import ServerProtocol
from .._protocol.server.states import Ending
from .._wire.opening import open_wire
from .._wire.timekeeper import Timer
from .._wire.tls import TLSInfo
from .._wire.waits import Interrupted
from .._wire.wire import Wire
from .outcomes import SHUTDOWN, Farewell
from .shutdown import Shutdown
from .stress import Stress

MAX_DELAY: Final = 10.0  # seconds that one reply is kept back at most
TURN: Final = 2048  # octets of replies that a session sends before others have their turn, while it has input
_NO: Final = Shutdown.NO
_END: Final = Shutdown.END


class Handshake(Enum):
    """Whether TLS stands between us and the next word."""

    NOT_DUE = "words may be said"
    DUE = "it comes before the first word"
    IN_PROGRESS = "from STARTTLS's 220, or from an implicit handshake's beginning, until it has succeeded"


class Channel:
    """One connection's wire, protocol and time.

    Args:
        config: the limits.
        protocol: fed and emptied here.
        stream: the connected stream, owned from now on.
        timer: expires the waits; its callback must call :meth:`expire` while no hook runs by itself.
        awaits_tls: a handshake comes before the first word.
        stress: says how long to wait for a command, and makes other waits shorter.

    Attributes:
        wire: the connection; another object after :meth:`start_tls`.
        now: Trio's clock.
        end: when the session's time is over.
        held_since: since when replies may have been waiting to be sent; infinite if none can.
        handshake: whether TLS comes before the next word.
        shutdown: how far a shutdown of the server has come.
        farewell: how the session ends when a wait is interrupted.
    """

    __slots__ = (
        "_command_began",
        "_config",
        "_delay",
        "_sent",
        "_stress",
        "end",
        "farewell",
        "handshake",
        "held_since",
        "now",
        "protocol",
        "shutdown",
        "timer",
        "wire",
    )

    def __init__(
        self,
        config: ServerConfig,
        protocol: ServerProtocol,
        stream: trio.abc.Stream,
        timer: Timer,
        *,
        awaits_tls: bool = False,
        stress: Stress,
    ) -> None:
        self._config: ServerConfig = config
        self.protocol: ServerProtocol = protocol
        self.timer: Timer = timer
        self.wire: Wire = open_wire(stream, timer)
        # trio.current_time() looks the clock up every time
        self.now: Callable[[], float] = trio.lowlevel.current_clock().current_time
        self.end: float = math.inf
        self.held_since: float = math.inf
        self.handshake: Handshake = Handshake.DUE if awaits_tls else Handshake.NOT_DUE
        self.shutdown: Shutdown = _NO
        self._command_began: float = math.inf  # the wait for the one that is coming in; infinite before it
        self._stress: Stress = stress
        self.farewell: Farewell = SHUTDOWN
        self._sent: int = 0  # octets, since others had their turn
        self._delay: trio.CancelScope | None = None  # around a reply that is kept back

    def __repr__(self) -> str:
        return f"<Channel over {self.wire!r}, {self.shutdown.name}>"

    # ---- octets

    async def flush(self) -> bool:
        """Send the replies; returns whether that took time. Cancelled before it begins, it keeps them.

        Raises:
            SMTPTimeoutError: the peer did not take them in time.
            ConnectionLostError: the connection was lost.
        """
        self.held_since = self._command_began = math.inf  # what was answered: the next command has all its time
        protocol, wire = self.protocol, self.wire
        if not protocol.replies:
            return False
        if not wire.is_immediate:  # cancelled as soon as it begins, a send would take these replies with it
            await trio.lowlevel.checkpoint_if_cancelled()
        data = protocol.queue.take()
        size = len(data)
        sent = wire.send_nowait(data)
        self._sent += size
        if sent < size:
            await wire.send(data[sent:], self.deadline(self._config.command_timeout))
        if self._sent > TURN:  # nothing above waits while there is input and the socket takes the replies
            self._sent = 0
            await trio.lowlevel.checkpoint()
            return True
        return sent < size

    async def flush_quietly(self) -> None:
        """Send the replies; a peer that does not take them is lost."""
        try:
            await self.flush()
        except (ConnectionLostError, SMTPTimeoutError):
            self.protocol.lose_peer()

    def receive(self, deadline: float, now: float) -> Awaitable[bytes | bytearray]:
        """Wait for octets until `deadline`, or until the session's end; ``b""`` when the peer has closed its side.

        A plain function, so that a wait has no frame more than the wire's own.

        Raises:
            Interrupted: the server's shutdown does not let the session wait any more.
            SMTPTimeoutError: the time is over, or was over `now`: a peer that always has something to read would
                otherwise win the race against the timer.
            ConnectionLostError: the connection was lost.
        """
        if self.shutdown >= _END:
            raise Interrupted
        if self.end < deadline:
            deadline = self.end
        if deadline <= now:
            raise SMTPTimeoutError("the command, the message or the session has lasted too long")
        self._sent = 0
        return self.wire.receive(deadline)

    def receive_command(self) -> Awaitable[bytes | bytearray]:
        """Send the replies, then wait for the next command, or for the rest of it; otherwise as :meth:`receive`.

        The time is that of the whole command, however it is cut, in a shutdown too. In lock-step this is all that there
        is between two commands: replies that leave at once take no coroutine of their own.
        """
        protocol = self.protocol
        if protocol.replies:
            if not self.wire.is_immediate:
                return self._flush_and_receive_command()
            self.held_since = self._command_began = math.inf
            data = protocol.queue.take()
            sent = self.wire.send_nowait(data)
            if sent < len(data):
                return self._flush_and_receive_command(data[sent:])
        if self.shutdown >= _END:
            raise Interrupted
        now = self.now()
        if self._command_began == math.inf or not protocol.has_input:
            self._command_began = now
        deadline = self._command_began + self._stress.command_limit
        if self.end < deadline:
            deadline = self.end
        if deadline <= now:
            raise SMTPTimeoutError("the command or the session has lasted too long")
        self._sent = 0
        return self.wire.receive(deadline)

    async def _flush_and_receive_command(self, rest: bytes = b"") -> bytes | bytearray:
        if rest:
            await self.wire.send(rest, self.deadline(self._config.command_timeout))
        await self.flush()
        return await self.receive_command()

    def hold_from(self, now: float) -> None:
        """Note that the replies to come are not sent at once: a hook is asked `now`."""
        if now < self.held_since:
            self.held_since = now

    # ---- time

    def limit_session(self, seconds: float | None) -> None:
        """End the session in so many seconds; ``None``: lift its limit."""
        self.end = math.inf if seconds is None else self.now() + seconds

    def deadline(self, limit: float | None) -> float:
        """When `limit` seconds are over, or what stress leaves of them, or the session's time."""
        if limit is None or self._stress.limit < limit:
            limit = self._stress.limit
        return min(self.now() + limit, self.end)

    def hurry(self) -> None:
        """Let the wait for the peer that is in progress last no longer than one that begins now."""
        self.wire.shorten(self.now() + self._stress.limit)

    def waited_for_command(self, now: float) -> float:
        """For how many seconds the peer has kept us waiting for the command that is coming in."""
        return now - self._command_began if self._command_began < math.inf else 0.0

    async def hold_back(self) -> None:
        """Keep the next reply back from a peer that makes many mistakes. The session's time goes on.

        Raises:
            SMTPTimeoutError: that is over.
        """
        delay = self.protocol.take_penalty() * (self._config.error_delay or 0)
        if self.shutdown is not _NO:
            return
        self._delay = trio.CancelScope(deadline=self.deadline(min(delay, MAX_DELAY)))
        try:
            with self._delay:
                await trio.sleep_forever()
        finally:
            self._delay = None
        if self.now() >= self.end:
            raise SMTPTimeoutError("the session has lasted too long")

    @property
    def is_held_back(self) -> bool:
        """Whether a reply is kept back in :meth:`hold_back`."""
        return self._delay is not None

    def expire(self) -> None:
        """End the wait in progress, if there is one, with :class:`SMTPTimeoutError`."""
        self.wire.expire()

    # ---- TLS

    def expect_tls(self) -> None:
        """STARTTLS is accepted: say nothing but its reply before the handshake."""
        self.handshake = Handshake.IN_PROGRESS

    async def start_tls(self, context: ssl.SSLContext, *, is_done: bool = False) -> TLSInfo:
        """Shake hands, unless that was done when the stream was made. Cancelled, it leaves the connection broken.

        Raises:
            Interrupted: the server is shutting down.
            TLSError: the handshake failed.
            SMTPTimeoutError: it took too long.
            ConnectionLostError: the connection was lost.
        """
        if self.shutdown is not _NO and not is_done:
            raise Interrupted
        self.handshake = Handshake.IN_PROGRESS
        deadline = self.deadline(self._config.tls_handshake_timeout)
        if is_done:
            self.wire = await self.wire.adopt_tls(server_side=True, deadline=deadline)
        else:
            self.wire = await self.wire.start_tls(context, server_side=True, deadline=deadline)
        self.handshake = Handshake.NOT_DUE
        assert self.wire.tls is not None
        return self.wire.tls

    # ---- the end

    def begin_shutdown(self, level: Shutdown) -> None:
        """Note how far the server's shutdown has come, and end a delay."""
        if level > self.shutdown:
            self.shutdown = level
        if self._delay is not None:
            self._delay.cancel(reason="shutdown")

    def leave(self, farewell: Farewell) -> None:
        """End the wait for the peer that is in progress, and the session with it."""
        self.farewell = farewell
        self.wire.abandon()

    def say_last_word(self, reply: Reply) -> None:
        """Let `reply` be the last one, unless the last word was said already, or it would be said in clear."""
        if self.handshake is not Handshake.NOT_DUE:
            self.protocol.end_silently()
        else:
            self.protocol.close(reply)

    def stop_clocks(self) -> None:
        """Lift all limits: what is left to do has limits of its own."""
        self.timer.set(math.inf)
        self.end = math.inf
        self.wire.forget_interruption()

    async def aclose(self, *, cancelled: bool) -> None:
        """Close the wire; unless its task is cancelled, wait for the peer to read the last word. Shielded, bounded."""
        if cancelled or self.protocol.ending is not Ending.NONE or not self.farewell.lingers:
            await self.wire.aclose()
        else:
            await self.wire.aclose_lingering()
        self.timer.close()
