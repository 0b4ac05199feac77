# One connection from its first octet to its last: the only place where a session's octets, hooks and time meet.
#
# Who owns what. The Channel owns the wire, the protocol and the time; the HookCaller owns the hook in progress and its
# outcome; a Body, new for each message, owns the way of that message's octets to on_data; the Opening begins the
# session, and begins it again after STARTTLS and XCLIENT. This file owns the loop: it asks the protocol for the next
# event, lets the application judge it, and sends the replies when the input is used up.
#
# The phases (shutdown.py):
#
#     OPENING --> HANDSHAKE --> IDLE <--> HOOK <--> BODY            IDLE --STARTTLS--> HANDSHAKE --> IDLE
#     any of them --> HELD_BACK and back                            any of them --> CLOSING
#
# Only OPENING, IDLE and CLOSING are kept here, as _stage. The others are what the HookCaller (HOOK, BODY) and the
# Channel (HANDSHAKE, HELD_BACK) are doing, and are read from them when needed, which is only in a shutdown.
#
# Invariants.
#
# 1. One task runs the connection, and at most one hook of it runs at a time. Other tasks call begin_shutdown, end_soon
#    and end_now, the Timekeeper's task calls _expire: all synchronous, and all they do is end a wait.
# 2. What a peer does ends at most its own session. What a hook does, too. Only cancellation from outside gets past.
# 3. An event that next_event() has returned is answered before the next: by accept(), answer() or conclude(). Where a
#    hook is asked in between, the event stays in the HookCaller until then.
# 4. session.envelope follows protocol.transactions.envelope: a transaction that has begun is noted before the next
#    event is taken, one that has ended is told to the application before that event is acted upon. on_reset is called
#    once for each transaction whose message was not accepted; on_close once, if on_connect was reached.
# 5. Between STARTTLS's reply and the handshake's end, and before an implicit handshake's end, nothing is said.
#
# One timer, no cancel scope per command. The timer says how long the peer may take, or, while a hook runs by itself,
# how long that hook may. For the peer it ends the wait (SMTPTimeoutError out of receive). For a hook it cancels the
# scope around the whole loop: the frames of the loop and of the hook are lost, and run() enters the loop again in a
# new scope. Nothing is lost with the frames: the protocol, the session, the body and the event being asked about are
# attributes of objects. The cancelled hook has an outcome then, 451 or what is wrong with its message, and the loop
# begins by telling it to the protocol. A hook that returns although it was cancelled is in time: its outcome counts.
#
# At each checkpoint, what may happen besides what is waited for:
#
#     waiting for a command     the timer: 421, timeout exceeded. Shutdown: 421; in a transaction, at the grace's end.
#     a body waits for octets   the timer, or the end of a shutdown's grace: the body raises, now and later; the hook's
#                               outcome is not accepted, and the session ends with a 421 when the hook has ended.
#     a hook runs               the timer: the scope is cancelled, as above. The end of the grace: so too, but the loop
#                               is not entered again; a message that on_data has taken all the same is answered.
#                               on_connect and on_tls are bounded by a scope of their own instead of the timer.
#     sending                   the timer, or the end of the grace: the connection is broken, without another word.
#     held back                 any step of a shutdown ends the delay.
#     the handshake             any step of a shutdown, or the timer, ends it, without a word.
#     on_reset, on_close        nothing: they are shielded, and bounded by a scope of their own.
#     closing                   the end of the grace ends the wait for the peer to read our last word.
#
# Cancellation from outside may come at any of them but the shielded ones. It says 421 within LAST_WORDS_LIMIT, tells
# the application, closes, and goes on.
from __future__ import annotations

import contextvars
import math
import ssl
from collections.abc import Callable
from typing import Final

import trio

from .._protocol.errors import ConnectionLostError, SMTPTimeoutError, TLSError
from .._protocol.replies import Reply
from .._protocol.server.events import (
    FLUSH,
    NEED_DATA,
    Event,
    Mail,
    Signal,
    StartTLS,
    XClient,
)
from .._protocol.server.protocol import ServerProtocol
from .._protocol.server.states import MESSAGE_STATES
from .._wire.timekeeper import Timekeeper
from .._wire.waits import Interrupted
from .budget import ChunkBudgets, DataBudget
from .channel import Channel, Handshake
from .context import ServerContext
from .hooks import HookCaller, HookState
from .log import facts, log_error, log_notice, logger
from .opening import Opening
from .outcomes import MADE_ROOM, SHUTTING_DOWN, UNAVAILABLE, Farewell
from .session import Session
from .shutdown import ACTIONS, Action, Phase, Shutdown

FAREWELL_LIMIT: Final = 20.0  # seconds for a peer to take the last replies, where command_timeout is longer
LAST_WORDS_LIMIT: Final = 0.5  # seconds for the 421 of a connection whose task is cancelled
REFUSAL_LIMIT: Final = 1.0  # seconds to tell a client that there is no slot for it, and as many until it has read that
_TIMEOUT: Final = Reply(421, "timeout exceeded", "4.4.2", close=True)
_NO: Final = Shutdown.NO
_WAITS_FOR_PEER: Final = (HookState.NONE, HookState.SUSPENDED)  # if anything does

current_connection: contextvars.ContextVar[ServerConnection | None] = contextvars.ContextVar(
    "trio_smtp_connection", default=None
)


class ServerConnection:
    """One connection; its task calls :meth:`run`.

    Args:
        context: what the server's connections share.
        stream: the connected stream, owned from now on.
        keeper: expires its time limits; its task must be running.
        tls_context: TLS starts with it at once (RFC 8314); ``None`` for a session that begins in clear.

    Attributes:
        session: what hooks see of it.
    """

    __slots__ = (
        "__weakref__",
        "_caller",
        "_channel",
        "_chunks",
        "_context",
        "_opening",
        "_stage",
        "session",
    )

    def __init__(
        self,
        context: ServerContext,
        stream: trio.abc.Stream,
        keeper: Timekeeper,
        tls_context: ssl.SSLContext | None = None,
    ) -> None:
        config = context.config
        protocol = ServerProtocol(context.profile)
        self._context: ServerContext = context
        self._channel: Channel = Channel(
            config,
            protocol,
            stream,
            keeper.timer(self._expire),
            awaits_tls=tls_context is not None,
            stress=context.stress,
        )
        wire = self._channel.wire
        self.session: Session = Session._create(protocol, wire.peer, wire.local)
        self._caller: HookCaller = HookCaller(context, self._channel, self.session)
        self._opening: Opening = Opening(self._caller, tls_context, tls_is_done=isinstance(stream, trio.SSLStream))
        self._stage: Phase = Phase.OPENING
        self._chunks: ChunkBudgets | None = None  # once a chunk was refused
        if context.is_closing:
            self._channel.begin_shutdown(Shutdown.DRAIN)

    def __repr__(self) -> str:
        return f"<ServerConnection of {self.session!r}: {self.phase.name}, {self._channel.shutdown.name}>"

    # ---- from the first octet to the last

    async def run(self, ended: Callable[[ServerConnection], None]) -> None:
        """Serve the connection, and call `ended` in any case. Raises nothing but cancellation."""
        caller, channel = self._caller, self._channel
        token = current_connection.set(self)
        channel.limit_session(self._context.config.session_timeout)
        is_cancelled = False
        try:
            while True:
                with caller.open_scope():
                    if self._stage is not Phase.OPENING or await self._opening.open():
                        self._stage = Phase.IDLE
                        await self._converse()
                    break
                if channel.shutdown is Shutdown.CUT_OFF:
                    self._note_reason(Interrupted())
                    if caller.has_taken_message:  # on_data was not to be cancelled: what it has taken is not sent again
                        caller.conclude()
                    break
                caller.time_out()
        except Exception as exc:
            self._give_up(exc)
        except BaseException:  # from outside
            is_cancelled = True
            raise
        finally:
            try:
                await self._close(is_cancelled)  # noqa: ASYNC102 - shielded and bounded
            finally:
                if caller.witness is not None:
                    caller.witness.close(cancelled=is_cancelled, farewell=channel.farewell.why)
                current_connection.reset(token)
                ended(self)

    async def refuse(self, reply: Reply | None, *, lingers: bool) -> None:
        """Say why there is no session, instead of :meth:`run`, and close.

        Args:
            reply: what is said; ``None`` says nothing.
            lingers: once that was said, the client has time to read it.
        """
        self._stage = Phase.CLOSING
        channel = self._channel
        try:
            if reply is not None:
                channel.protocol.greet(reply)
                with trio.move_on_after(REFUSAL_LIMIT):
                    await channel.wire.send(channel.protocol.data_to_send())
                if lingers:
                    await channel.wire.aclose_lingering(REFUSAL_LIMIT)
        except ConnectionLostError:
            pass
        finally:
            await channel.aclose(cancelled=True)  # noqa: ASYNC102 - shielded and bounded

    def _give_up(self, reason: Exception) -> None:
        channel = self._channel
        self._note_reason(reason)
        if isinstance(reason, SMTPTimeoutError):
            channel.say_last_word(_TIMEOUT)
        elif isinstance(reason, Interrupted):
            channel.say_last_word(channel.farewell.reply)
        elif isinstance(reason, ConnectionLostError):
            channel.protocol.lose_peer()
        elif isinstance(reason, TLSError):
            logger.debug("session %s: %s", self.session.id, reason, extra=facts(self.session))
            channel.protocol.end_silently()
        else:
            log_error(self.session, "internal error", reason)
            channel.say_last_word(UNAVAILABLE)

    def _note_reason(self, reason: Exception) -> None:
        if self._caller.witness is not None:
            self._caller.witness.note_reason(reason)

    async def _close(self, is_cancelled: bool) -> None:
        """Say what is left to say, tell the application that it is over, and close; all for a limited time."""
        caller, channel = self._caller, self._channel
        self._stage = Phase.CLOSING
        caller.stop()
        channel.stop_clocks()
        if is_cancelled or channel.shutdown is Shutdown.CUT_OFF:
            channel.say_last_word(SHUTTING_DOWN)
        if channel.protocol.replies:
            with trio.move_on_after(LAST_WORDS_LIMIT if is_cancelled else FAREWELL_LIMIT, shield=True):
                await channel.flush_quietly()
        channel.protocol.end_silently()
        if self.session.envelope is not None:
            await caller.end_transaction()
        await caller.tell_on_close()
        await channel.aclose(cancelled=is_cancelled)

    # ---- the loop

    async def _converse(self) -> None:
        """Take events until the session ends. It may be cancelled at any checkpoint, and called again."""
        caller, channel, session = self._caller, self._channel, self.session
        protocol, rows = channel.protocol, self._context.rows
        if caller.has_outcome:
            caller.conclude()
        while True:
            if session.envelope is None and protocol.transactions.envelope is not None:
                caller.begin_transaction(protocol.transactions.envelope)
            event = protocol.next_event()
            if session.envelope is not protocol.transactions.envelope:
                await caller.end_transaction()
            if protocol.notice:
                log_notice(session, protocol.take_notice())
            if event is NEED_DATA:
                if channel.shutdown is not _NO and protocol.transactions.envelope is None:
                    await channel.flush()
                    raise Interrupted
                if protocol.state in MESSAGE_STATES:
                    await self._receive_unread()
                else:
                    protocol.receive_data(await channel.receive_command())
            elif event.__class__ is Mail and channel.shutdown is not _NO:
                protocol.answer(SHUTTING_DOWN)
            elif event.__class__ in rows:
                row = rows[event.__class__]
                if row is None:
                    protocol.accept()
                else:
                    await caller.ask(row, event)
            elif event.__class__ is StartTLS:
                await self._opening.start_tls()
            elif isinstance(event, XClient):
                await self._opening.start_over(event)
            elif not await self._obey(event):
                return

    async def _obey(self, event: Event) -> bool:
        """Do what the protocol asks for; returns whether the session goes on."""
        channel = self._channel
        if event is Signal.PAUSE:
            await channel.hold_back()
            return True
        await channel.flush()
        if event is FLUSH:
            return True
        if event is Signal.EOF:
            channel.protocol.lose_peer()
        return False

    async def _receive_unread(self) -> None:
        """Receive octets that no hook reads: the rest of a message, or a refused chunk."""
        channel = self._channel
        protocol = channel.protocol
        if protocol.replies:
            await channel.flush()
        now = channel.now()
        budget = self._caller.budget or self._chunk_budget()
        data: bytes | bytearray = b""
        try:
            data = await channel.receive(budget.deadline(now), now)
        finally:
            budget.spend(channel.now() - now, len(data))
        protocol.receive_data(data)

    def _chunk_budget(self) -> DataBudget:
        """For the refused chunk that is being dropped."""
        if self._chunks is None:
            self._chunks = ChunkBudgets(self._context.new_budget)
        return self._chunks.of(self._channel.protocol.transfer.refused_chunks)

    # ---- from outside

    @property
    def phase(self) -> Phase:
        """Where the connection is."""
        channel = self._channel
        if self._stage is Phase.CLOSING:
            return Phase.CLOSING
        if channel.is_held_back:
            return Phase.HELD_BACK
        if self._caller.state is not HookState.NONE:
            return Phase.BODY if self._caller.state is HookState.SUSPENDED else Phase.HOOK
        return Phase.HANDSHAKE if channel.handshake is Handshake.IN_PROGRESS else self._stage

    @property
    def runs_a_hook(self) -> bool:
        """Whether one of the application's hooks runs, waiting or not."""
        return self._caller.state is not HookState.NONE

    @property
    def useless_since(self) -> float:
        """Since when it has been of no use (stress.py); infinite while it is of use, or does not wait for its peer."""
        caller, channel = self._caller, self._channel
        if channel.protocol.transactions.envelope is not None or caller.state is not HookState.NONE or self._is_leaving:
            return math.inf
        return caller.used_at

    def has_stalled_for(self, now: float) -> float:
        """For how many seconds its peer has kept a transaction waiting; 0 while a hook runs by itself."""
        caller, channel = self._caller, self._channel
        if channel.protocol.transactions.envelope is None or caller.state not in _WAITS_FOR_PEER or self._is_leaving:
            return 0.0
        if channel.protocol.state not in MESSAGE_STATES and caller.state is HookState.NONE:
            return channel.waited_for_command(now)
        return (caller.budget or self._chunk_budget()).stalled(now)

    @property
    def _is_leaving(self) -> bool:
        """Whether it does not wait for its peer, or only to say goodbye."""
        return not self._channel.wire.is_waiting or self._stage is Phase.CLOSING

    def make_room(self, *, lingers: bool) -> None:
        """End the session, which waits for its peer, because another one needs the slot.

        Args:
            lingers: the client has time to read why.
        """
        self._channel.leave(Farewell(MADE_ROOM, "the server is full", lingers))

    def hurry(self) -> None:
        """Slots run short: let the wait for the peer that is in progress be as short as those that begin now."""
        if self._caller.state in _WAITS_FOR_PEER and self._stage is not Phase.CLOSING:
            self._channel.hurry()

    def begin_shutdown(self) -> None:
        """Say 421 now if nothing is in progress, else as soon as nothing is."""
        self._shut_down(Shutdown.DRAIN)

    def end_soon(self) -> None:
        """The grace is over for the session whose hook has asked for it: 421 when that hook has ended."""
        self._channel.begin_shutdown(Shutdown.END)

    def end_now(self) -> None:
        """The grace is over: say 421 whatever is in progress."""
        self._shut_down(Shutdown.END)

    def _shut_down(self, level: Shutdown) -> None:
        action = ACTIONS[level][self.phase]
        self._channel.begin_shutdown(level)
        wire = self._channel.wire
        if action is Action.INTERRUPT:
            wire.interrupt()
        elif action is Action.INTERRUPT_BETWEEN_TRANSACTIONS:
            if self._channel.protocol.transactions.envelope is None:
                wire.interrupt()
        elif action is Action.INTERRUPT_OR_CANCEL and wire.is_receiving:
            wire.interrupt()
        elif action is not Action.NOTHING:
            self._channel.begin_shutdown(Shutdown.CUT_OFF)
            self._caller.cancel("shutdown")

    def _expire(self) -> None:
        """The timer: the hook that runs by itself, or else the wait for the peer, has taken too long."""
        if not self._caller.expire():
            self._channel.expire()
