# Asking an application's hooks: one at a time, each for a limited time, and what its failure means.
#
# A hook that is asked about a command runs without a cancel scope of its own: a scope per hook costs more than most
# hooks do. One scope is around the whole session loop; when a hook's time is up, it is cancelled, and the loop is
# entered again in a new one (connection.py). So the event that is being asked about, and an outcome that the protocol
# has not been told, are attributes here, not locals of a frame that is lost.
#
# The hook's clock runs only while the hook runs by itself: a Body stops it while it waits for the peer.
#
# It does not know which hook goes with which event, nor what an outcome means: that is the EventRow's (event_rows.py).
from __future__ import annotations

import math
from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import trio

from .._protocol.envelope import Envelope
from .._protocol.errors import MessageTooLargeError, RemoteProtocolError, SMTPError
from .._protocol.replies import Reply
from .._protocol.server.events import Data, Event
from .._protocol.server.fixed_replies import TOO_LARGE
from .body import Body
from .budget import DataBudget
from .channel import Channel
from .context import ServerContext
from .handler_check import Hook
from .log import log_error
from .outcomes import LOCAL_ERROR, UNAVAILABLE, leaves_of, rejection_in, reply_or_none
from .session import Session

if TYPE_CHECKING:
    from .event_rows import EventRow
    from .trace import Witness

HOLD_LIMIT: Final = 5.0  # seconds; with older replies to a group of commands unsent, no further hook is asked
CLEANUP_LIMIT: Final = 10.0  # seconds for on_reset and on_close
_TIME_IS_UP: Final = "handler_timeout"


class HookState(Enum):
    """What the application is doing for a session."""

    NONE = "nothing"
    ASKED = "a hook that was asked about a command runs by itself"
    SUSPENDED = "that hook waits for the peer"
    TOLD = "a hook that no command is about runs, in a scope of its own"


_NONE: Final = HookState.NONE
_ASKED: Final = HookState.ASKED
_UNKNOWN: Final = object()  # the outcome, before the hook has ended


class HookCaller:
    """The application's side of one session.

    Args:
        context: what the server's connections share.
        channel: the connection.
        session: what hooks get to see of it.

    Attributes:
        context: as given.
        channel: as given.
        session: as given.
        state: whether a hook runs, and how.
        body: the message that ``on_data`` reads, or has read, until its transaction ends.
        used_at: when the session was of use for the last time: when ``on_connect`` was reached, or with its last
            accepted message; infinite before.
        witness: told of what hooks do, if anything is.
    """

    __slots__ = (
        "_close_is_due",
        "_deadline",
        "_event",
        "_fault",
        "_limit",
        "_outcome",
        "_row",
        "_runs_since",
        "_scope",
        "_spent_for",
        "_waited",
        "_waits_since",
        "body",
        "channel",
        "context",
        "session",
        "state",
        "used_at",
        "witness",
    )

    def __init__(self, context: ServerContext, channel: Channel, session: Session) -> None:
        limit = context.config.handler_timeout
        self.context: ServerContext = context
        self.channel: Channel = channel
        self.session: Session = session
        self.state: HookState = _NONE
        self.body: Body | None = None
        self._limit: float = math.inf if limit is None else limit
        self._deadline: float = math.inf
        self._runs_since: float = 0.0  # by itself: the hook that was asked last
        self._waits_since: float = 0.0  # for the peer: the hook in progress
        self._waited: float = 0.0  # for the peer, before that: the hook that was asked last
        self.used_at: float = math.inf
        self._close_is_due: bool = False  # on_connect was reached, so on_close is to be told
        self.witness: Witness | None = None
        self._row: EventRow | None = None  # of the event that the hook in progress is about
        self._event: Event | None = None
        self._outcome: object = _UNKNOWN
        self._scope: trio.CancelScope | None = None
        self._spent_for: str = ""  # why the scope was cancelled
        self._fault: BaseException | None = None  # what the hook in progress has failed with

    def __repr__(self) -> str:
        hook = f" {self._row.name}" if self._row is not None and self.state is not _NONE else ""
        return f"<HookCaller of {self.session.id}: {self.state.name}{hook}>"

    def watch(self, witness: Witness) -> None:
        """Tell this one what hooks do from now on."""
        self.witness = witness

    # ---- the scope

    def open_scope(self) -> trio.CancelScope:
        """A scope to enter around all that is to be cancelled when a hook's time is up."""
        self._scope = trio.CancelScope()
        self._spent_for = ""
        return self._scope

    def cancel(self, reason: str) -> None:
        """Cancel what is in progress."""
        self._spent_for = reason
        if self._scope is not None:
            self._scope.cancel(reason=reason)

    def expire(self) -> bool:
        """The timer: cancel the hook if it runs by itself; returns whether it does."""
        if self.state is not _ASKED:
            return False
        self.cancel(_TIME_IS_UP)
        return True

    def stop(self) -> None:
        """The session is over: no hook runs any more."""
        self.state = _NONE

    # ---- a hook that is asked about a command

    async def ask(self, row: EventRow, event: Event) -> None:
        """Ask the hook about an event, and tell the protocol.

        Cancelled by :meth:`expire` or :meth:`cancel`, the event, and the outcome if there is one, stay: see
        :meth:`time_out` and :meth:`conclude`.
        """
        channel = self.channel
        if row.refusal is not None and (refusal := row.refusal(self)) is not None:
            channel.protocol.answer(refusal)
            return
        began = channel.now()
        if began - channel.held_since > HOLD_LIMIT or (row.sends_first and channel.protocol.replies):
            if self.witness is not None:
                self.witness.note_delay(began)
            await channel.flush()
            began = channel.now()
        channel.hold_from(began)
        assert row.hook is not None
        self._row, self._event = row, event
        self._runs_since, self._waited = began, 0.0
        arguments = row.arguments(self, event)
        self._deadline = began + self._limit
        channel.timer.set(self._deadline)
        self._fault = None
        self.state = _ASKED
        try:
            said = await row.hook(self.session, *arguments)
            outcome = row.convert(self, said)
        except Exception as exc:
            outcome = self._failure(row.name, exc)
            # Nobody is told of 451 where the client is gone, or has given its message up.
            said = None if outcome is LOCAL_ERROR and self._fault is None else outcome
        except BaseException as exc:
            self._note_interruption(row.name, began, exc, self._waited, is_late=self._spent_for == _TIME_IS_UP)
            raise
        if self._fault is not None:
            self._note_end(row.name, began, said, self._waited)
        elif self.witness is not None:
            self.witness.note_hook(row.name, began, self._waited, said)
        self._outcome = outcome
        self.state = _NONE
        if self._spent_for:  # too late to be cancelled, and a cancelled scope is of no more use
            await trio.lowlevel.checkpoint()
        self.conclude()

    def suspend(self, now: float) -> None:
        """The hook waits for the peer: its time stands still."""
        if self.state is _ASKED:
            self.state = HookState.SUSPENDED
            self._waits_since = now

    def resume(self, now: float) -> None:
        """It runs by itself again."""
        if self.state is HookState.SUSPENDED:
            self.state = _ASKED
            wait = now - self._waits_since
            self._deadline += wait
            self._waited += wait
            self._runs_since = now
            self.channel.timer.set(self._deadline)

    def announce_message(self, event: Data) -> tuple[Envelope | None, Body]:
        """What ``on_data`` gets: the envelope and the message, with time of its own."""
        context = self.context
        if self.witness is not None:
            self.witness.begin_message(self._runs_since, chunking=event.chunking)
        self.body = Body._create(self.channel, self, context.new_budget(), context.config.max_message_size)
        return self.session.envelope, self.body

    @property
    def budget(self) -> DataBudget | None:
        """The time that is left for that message, also when the hook has ended before it."""
        return self.body._budget if self.body is not None else None

    # ---- its outcome

    @property
    def has_outcome(self) -> bool:
        """Whether there is an outcome that the protocol has not been told."""
        return self._outcome is not _UNKNOWN

    @property
    def has_taken_message(self) -> bool:
        """Whether that is on_data's."""
        return self.has_outcome and isinstance(self._event, Data)

    def conclude(self) -> None:
        """Tell the protocol what the hook has said of the event."""
        row, event, outcome = self._row, self._event, self._outcome
        assert row is not None
        self._event, self._outcome = None, _UNKNOWN
        row.conclude(self, event, outcome)

    def time_out(self) -> None:
        """The hook was cancelled because its time was up: that is its outcome, unless it has returned nevertheless."""
        self.state = _NONE
        if self._outcome is _UNKNOWN:
            assert self._row is not None
            self._log_timeout(self._row.name)
            self._outcome = self._failure_reply()

    def convert(self, converter: Callable[[object], Any], outcome: object) -> Any:
        """A part of an outcome converted; one that cannot be is the hook's failure, and costs that part alone."""
        try:
            return converter(outcome)
        except Exception as exc:
            assert self._row is not None
            self._report_failure(self._row.name, exc)
            return LOCAL_ERROR

    def _failure(self, name: str, exc: Exception) -> Reply:
        reply = rejection_in(exc)
        if reply is not None:
            return reply
        self._report_failure(name, exc)
        return self._failure_reply()

    def _failure_reply(self) -> Reply:
        """A faulty body takes precedence over 451."""
        error = self._body_error
        if isinstance(error, MessageTooLargeError):
            return TOO_LARGE
        fault = error.reply if isinstance(error, RemoteProtocolError) else None
        return fault or LOCAL_ERROR

    @property
    def _body_error(self) -> SMTPError | None:
        return self.body._error if self.body is not None else None

    # ---- hooks that no command is about

    async def ask_on_connect(self) -> Reply | None:
        """Ask ``on_connect`` for the greeting; a failure refuses the client."""
        self.used_at = self.channel.now()
        self._close_is_due = True
        hook = self.context.hooks.on_connect
        if hook is None:
            return None
        reply: Reply | None = await self._call("on_connect", partial(_ask_for_reply, hook), self._limit, UNAVAILABLE)
        return reply

    async def tell_on_tls(self) -> None:
        """Tell the application that a handshake is done."""
        if self.context.hooks.on_tls is not None:
            await self._call("on_tls", self.context.hooks.on_tls, self._limit)

    async def tell_on_close(self) -> None:
        """Tell the application that the session is over, if it has heard of it. Shielded and bounded."""
        if self._close_is_due and self.context.hooks.on_close is not None:
            await self._call("on_close", self.context.hooks.on_close, CLEANUP_LIMIT, shield=True)

    async def _call(
        self, name: str, hook: Hook, limit: float, otherwise: Reply | None = None, *, shield: bool = False
    ) -> Any:
        """Run a hook in a scope of its own; returns its outcome, or `otherwise` if it fails or takes too long."""
        began = self.channel.now()
        outcome: object = otherwise
        self._fault = None
        with trio.CancelScope(deadline=began + limit, shield=shield) as scope:
            self.state = HookState.TOLD
            try:
                outcome = await hook(self.session)
            except Exception as exc:
                self._report_failure(name, exc)
            except BaseException as exc:
                self._note_interruption(name, began, exc, is_late=scope.cancel_called)
                raise
            finally:
                self.state = _NONE
            self._note_end(name, began, outcome)
        if scope.cancelled_caught:
            self._log_timeout(name)
        return outcome

    # ---- transactions

    def begin_transaction(self, envelope: Envelope) -> None:
        """MAIL was accepted."""
        self.context.counters.begin_transaction()
        self.session._begin_transaction(envelope)

    async def end_transaction(self) -> None:
        """The transaction is over: tell the application if its message was not accepted.

        Shielded and bounded, so that a session that is cancelled meanwhile has not begun that in vain, nor twice.
        """
        protocol = self.channel.protocol
        octets = protocol.transfer.take_octets()
        self.context.counters.end_transaction(octets, accepted=protocol.transactions.accepted)
        if self.witness is not None:
            self.witness.end_message(octets)
        self.body = None
        try:
            if protocol.transactions.accepted:
                self.used_at = self._runs_since
            elif self.context.hooks.on_reset is not None:
                await self._call("on_reset", self.context.hooks.on_reset, CLEANUP_LIMIT, shield=True)
        finally:
            self.session._end_transaction()

    # ---- records

    def _note_end(self, name: str, began: float, said: object, waited: float = 0.0) -> None:
        """A hook has ended: count it if it has failed, and tell what looks; both by the same fault."""
        if self._fault is not None:
            self.context.counters.fail_hook()
        if self.witness is not None:
            self.witness.note_hook(name, began, waited, said, self._fault)

    def _note_interruption(
        self, name: str, began: float, exc: BaseException, waited: float = 0.0, *, is_late: bool
    ) -> None:
        """A hook was cancelled: where it failed on the way, log the failures and raise the cancellation alone."""
        end = exc
        if isinstance(exc, BaseExceptionGroup):
            failures, rest = exc.split(Exception)
            if failures is not None:
                self._report_failure(name, failures)
            if rest is not None:
                end = rest
        if self._fault is None and (is_late or not all(isinstance(leaf, trio.Cancelled) for leaf in leaves_of(end))):
            self._fault = end
        self._note_end(name, began, None, waited)
        if end is not exc:
            raise end from None

    def _report_failure(self, name: str, exc: Exception) -> None:
        """Log what a hook has failed with; that its message cannot be had whole is the client's failure."""
        error = self._body_error
        if all(leaf is error for leaf in leaves_of(exc)):
            return
        if self._fault is None:
            self._fault = exc
        log_error(self.session, f"{name} failed", exc)

    def _log_timeout(self, name: str) -> None:
        log_error(self.session, f"{name} took too long and was cancelled")


async def _ask_for_reply(hook: Hook, session: Session) -> Reply | None:
    """What ``on_connect`` says, by returning or by raising."""
    try:
        return reply_or_none(await hook(session))
    except Exception as exc:
        reply = rejection_in(exc)
        if reply is None:
            raise
        return reply
