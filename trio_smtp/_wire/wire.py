# A wire: one connection as the server, the client and the pool see it, in octets, deadlines and errors of our own.
#
# The wires
#
#   SocketWire      a plain socket in clear. It reads and writes the descriptor itself.
#   TLSSocketWire   a server's TLS on such a socket: a TLSEngine over the SocketWire.
#   StreamWire      any other trio.abc.Stream: one in memory, a caller's own, and every trio.SSLStream, whether a client
#                   started it or it was given.
#
#   opening.open_wire() chooses. STARTTLS is a change of object: start_tls() returns the new wire, and the old one must
#   not be used any more. Both have the same Waits, so expire(), interrupt() and abandon() may go to either.
#
# Who may call what
#
#   One task at a time waits in a wire: in a receive, a send, a handshake, or closing. expire(), interrupt(), abandon(),
#   forget_interruption() and abort() are synchronous and may be called by any task of the same Trio run.
#
# States
#
#   open         octets go both ways.
#   ended        receive() has returned b"": the peer sends no more. It may still read, so this is not `broken`. TLS
#                without close_notify ends in the same way; SMTP's own framing shows what was cut off.
#   interrupted  Waits.reason is set. The receive in progress, or the next one, takes it and raises; then it is open.
#   broken       a send or a handshake did not return, the connection was reset, or abort() was called. Final: send()
#                raises, and aclose() says nothing more. A receive that timed out, was cancelled or was interrupted
#                breaks nothing.
#
# Invariants
#
#   1. `broken` never goes back to False. A wire above another one has no copy of its own.
#   2. After a send that did not return, the connection is broken: an unknown number of octets is on the wire.
#   3. Waits.waiting is RECEIVE or SEND only while a task is in that wait and has not been told to end it.
#   4. A reason ends one wait. A time-out that a receive finds at its beginning is void: the last octets came in time.
#   5. A receive that raises takes no plaintext, unless it breaks the connection. What was read is returned, or is kept
#      by OpenSSL.
#   6. A TLSSocketWire whose send_nowait() did not take the data sends the same data next, or nothing.
#
# How a wait ends from outside
#
#   A cancel scope per wait costs much (docs/speed.md). A session spends its life in SocketWire.receive(), which does
#   nothing but wait for its socket. So there a Timekeeper's timer is the deadline, and trio.lowlevel.notify_closing()
#   ends the wait: it wakes the task with ClosedResourceError and does nothing to the socket. All other waits have a
#   scope: a send that the socket does not take at once, a receive without a timer, trio.SSLStream's handshake, any
#   stream. In most of them the task may be waiting for its turn instead of for the socket. (A server's handshake on a
#   socket is such receives and sends of the SocketWire.)
#
#   notify_closing() can be lost. If the socket has woken the task, but the task has not run yet, nothing waits for the
#   socket any more. The same is true at a checkpoint that is not a wait for the socket. So:
#
#   * The reason is stored before the wake-up. If octets were there, receive() returns them, and the next receive finds
#     the reason: it raises an Interrupted, and drops a time-out. forget_interruption() drops either.
#   * A receive that would wait again must look at the reason first: after a read that found nothing (SocketWire starts
#     over), and after less than a record (TLSSocketWire).
#   * No deadline is lost for good: the next wait sets the timer again, and a time that has passed expires at once.
#
# What may happen at each checkpoint
#
#   wait_readable   octets, the end or a reset; a reason (ClosedResourceError, or the scope); cancellation. Nothing was
#                   read before.
#   checkpoint()    after a full read, instead of wait_readable, where there is a timer: cancellation. A reason is
#                   only stored.
#   wait_writable   room; a reason or the deadline, through the scope; cancellation. All but the first break it.
#   in SSLStream    all of these, on either way, and turns of the scheduler.
#   No checkpoint   in send() as long as the socket takes everything: a task that is cancelled, or was told to end its
#                   wait, has sent it.
#
# No wire knows what SMTP is. What goes wrong becomes ConnectionLostError, TLSError or SMTPTimeoutError.
from __future__ import annotations

import abc
import math
import ssl
from typing import Any, ClassVar, TypeAlias

import trio

from .._protocol.errors import ConnectionLostError, SMTPTimeoutError
from .tls import TLSInfo
from .waits import NOTHING, RECEIVE, Interrupted, Waits

Octets: TypeAlias = bytes | bytearray | memoryview


class Wire(abc.ABC):
    """One connection; made by :func:`.opening.open_wire`, or by the wire that it replaces.

    Attributes:
        is_immediate: nothing but a socket is below: :meth:`send` is a checkpoint only where the socket does not take
            everything at once, and the `_nowait` methods can tell.
        tls: what TLS says of the connection, ``None`` in clear.
    """

    __slots__ = ("_waits", "tls")

    is_immediate: ClassVar[bool] = False

    def __init__(self, waits: Waits, tls: TLSInfo | None = None) -> None:
        self._waits = waits
        self.tls: TLSInfo | None = tls

    def __repr__(self) -> str:
        state = "broken" if self.broken else "open"
        return f"<{type(self).__name__} to {self.peer}: {state}>"

    # -- state

    @property
    @abc.abstractmethod
    def broken(self) -> bool:
        """Nothing more can be sent: an unknown number of octets is on the wire, or the connection is lost."""

    @property
    def is_receiving(self) -> bool:
        """A task waits for the peer, in :meth:`receive` or in a handshake."""
        return self._waits.waiting is RECEIVE

    @property
    def peer(self) -> tuple[str, int] | None:
        """Host and port of the other end, or ``None`` where there is none (memory and UNIX streams)."""
        socket = self._waits.socket
        return _host_and_port(socket.getpeername) if socket is not None else None

    @property
    def local(self) -> tuple[str, int] | None:
        """Host and port of this end."""
        socket = self._waits.socket
        return _host_and_port(socket.getsockname) if socket is not None else None

    # -- octets

    @abc.abstractmethod
    async def receive(self, deadline: float = math.inf) -> bytes | bytearray:
        """Wait for octets; ``b""`` means that the peer sends no more. Cancelled, it has taken nothing.

        Raises:
            SMTPTimeoutError: `deadline` (Trio's clock) has passed.
            Interrupted: :meth:`interrupt` or :meth:`abandon` was called.
            ConnectionLostError: the connection was reset.
        """

    def receive_nowait(self) -> bytes | bytearray | None:
        """What is there already, ``b""`` at the end; ``None`` if nothing is, or if the wire cannot tell.

        Raises:
            ConnectionLostError: the connection was lost.
        """
        return None

    async def receive_pending(self, deadline: float = math.inf) -> bytes | bytearray | None:
        """What the peer has said already, on any wire; ``None`` if nothing, ``b""`` at the end.

        Does not wait for the peer, unless TLS has to say something that the peer does not take: until `deadline`. No
        checkpoint on a wire that is immediate.

        Raises: as :meth:`receive`.
        """
        return self.receive_nowait()

    def send_nowait(self, data: Octets) -> int:
        """Give the socket what it takes without waiting; how many octets of `data` that was, 0 if the wire cannot.

        The rest, if there is one, goes to :meth:`send` before anything else is sent.

        Raises:
            ConnectionLostError: the connection was lost.
        """
        return 0

    @abc.abstractmethod
    async def send(self, data: Octets, deadline: float = math.inf) -> None:
        """Send everything. Not always a checkpoint; cancelled in the middle, it leaves the connection broken.

        Raises:
            SMTPTimeoutError: `deadline` has passed; the connection is broken.
            Interrupted: :meth:`abandon` was called; the connection is broken.
            ConnectionLostError: the connection was lost.
        """

    # -- from other tasks

    def expire(self) -> None:
        """End the wait in progress, if any, with :class:`SMTPTimeoutError`: the timer's callback."""
        self._waits.expire()

    @property
    def is_waiting(self) -> bool:
        """A task waits for the peer, for octets or for room to send."""
        return self._waits.waiting is not NOTHING

    def shorten(self, deadline: float) -> None:
        """Let the wait in progress, if any, end at `deadline` at the latest."""
        self._waits.shorten(deadline)

    def interrupt(self) -> None:
        """End the receive in progress, or the next one, with :class:`Interrupted`. A send is left alone."""
        self._waits.interrupt()

    def abandon(self) -> None:
        """End the wait in progress, or the next receive, with :class:`Interrupted`; a send is broken by it."""
        self._waits.abandon()

    def forget_interruption(self) -> None:
        """Let an :meth:`interrupt` or :meth:`abandon` that came together with the last octets not end the next wait."""
        self._waits.reason = None

    @abc.abstractmethod
    def abort(self) -> None:
        """Mark the connection broken: no send begins any more, and :meth:`aclose` says nothing. A wait goes on."""

    # -- TLS

    @abc.abstractmethod
    async def start_tls(
        self,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        server_hostname: str | None = None,
        deadline: float = math.inf,
    ) -> Wire:
        """Shake hands; the wire to use from now on. What goes wrong, cancellation too, leaves the connection broken.

        Raises:
            TLSError: the handshake failed; ``__cause__`` says why.
            SMTPTimeoutError: `deadline` has passed.
            Interrupted: :meth:`interrupt` or :meth:`abandon` was called.
            ConnectionLostError: the peer went away in the middle of the handshake.
        """

    async def adopt_tls(self, *, server_side: bool, deadline: float = math.inf) -> Wire:
        """Shake hands on the :class:`trio.SSLStream` that was given, if that was not done; as :meth:`start_tls`."""
        raise TypeError(f"{self!r} is not on a trio.SSLStream")

    # -- the end

    @abc.abstractmethod
    async def aclose(self, within: float = 2.0) -> None:
        """Close; over TLS say so first, for at most `within` seconds, shielded. Never raises."""

    @abc.abstractmethod
    async def aclose_lingering(self, within: float = 2.0, drop: int = 1 << 20) -> None:
        """Close so that a peer that is still sending gets our last words.

        A socket closed with unread input sends RST, and the peer's kernel throws away what it has not read. So say
        that no more will come, and drop what comes, for at most `within` seconds and `drop` octets, shielded. Under
        TLS, that is after close_notify, and what comes is dropped without decrypting it. Never raises.
        """

    async def _drop_input(self, octets: int) -> None:
        socket = self._waits.socket
        try:
            if socket is not None:
                socket.shutdown(trio.socket.SHUT_WR)
            while octets > 0 and (data := await self.receive()):
                octets -= len(data)
        except (ConnectionLostError, SMTPTimeoutError, Interrupted, OSError):
            pass


def _host_and_port(name: Any) -> tuple[str, int] | None:
    try:
        address = name()
    except OSError:  # the peer is already gone
        return None
    return (address[0], address[1]) if isinstance(address, tuple) else None
