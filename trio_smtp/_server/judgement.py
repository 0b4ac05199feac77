# An application's hooks and what they say: how each is asked, for how long, and what its answer or failure means.
#
# A hook that takes too long is cancelled by cancelling the scope around the whole session loop, which is then entered
# again (connection.py): so what is being asked, and the answer that was not told yet, are attributes, not locals.
from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import trio

from .._protocol.envelope import Envelope
from .._protocol.errors import ConnectionLostError, MessageTooLargeError, RemoteProtocolError
from .._protocol.replies import Reply
from .._protocol.sasl import UnverifiedError
from .._protocol.server.chunks import BARE_NEWLINE, TOO_LARGE
from .._protocol.server.events import (
    Authenticate,
    Command,
    Data,
    Expand,
    Extra,
    Hello,
    Mail,
    Rcpt,
    Verify,
)
from .._protocol.server.fixed_replies import TOO_MANY_FAILURES_OF_HOST
from .._wire.timekeeper import Timekeeper
from .body import Body
from .handler import Hook
from .intake import Intake
from .outcomes import LOCAL_ERROR, UNAVAILABLE, leaves_of, lmtp_outcome, message_outcome, rejection_in, reply_or_none
from .service import Service

logger = logging.getLogger("trio_smtp")

HOLD_LIMIT: Final = 5.0  # seconds; with older replies to a group of commands unsent, no further hook is asked
CLEANUP_LIMIT: Final = 10.0  # seconds for on_reset and on_close


class Judgement(Intake):
    """Asking hooks; its arguments are those of :class:`.dialogue.Dialogue`."""

    __slots__ = ("_body", "_event", "_outcome", "_scope", "_telling")
    _scope: trio.CancelScope  # around all that is done, but the good-bye; cancelled when a hook's time is up

    def __init__(self, service: Service, stream: trio.abc.Stream, keeper: Timekeeper) -> None:
        super().__init__(service, stream, keeper)
        self._event: Command | None = None  # that the hook in progress is about
        self._outcome: tuple[object] | None = None  # of that hook, not yet told to the protocol
        self._telling = False  # a hook that no command is about is in progress
        self._body: Body | None = None  # that on_data has

    def _expired(self) -> None:
        """The timer: how long the hook in progress may take, or else how long the peer may."""
        if self._in_hook:
            self._scope.cancel(reason="handler_timeout")
        else:
            super()._expired()

    async def _judge(self, event: Command, hook: Hook | None, *args: object) -> None:
        """Ask the hook about an event, and tell the protocol."""
        if hook is None:
            self._event = event
            self._outcome = (None,)
        else:
            began = self._now()
            if began - self._held_since > HOLD_LIMIT:
                await self._flush()
                began = self._now()
            if self._held_since > began:
                self._held_since = began
            self._event = event
            limit = self._config.handler_timeout
            self._hook_deadline = math.inf if limit is None else began + limit
            self._timer.set(self._hook_deadline)
            self._in_hook = True
            try:
                outcome = await hook(self.session, *args)
            except Exception as exc:
                outcome = self._failure(exc)
            except BaseExceptionGroup as exc:
                raise self._without_failures(_hook_of(event), exc) from None
            self._in_hook = False
            self._outcome = (outcome,)
            if self._scope.cancel_called:  # too late to be cancelled, and a cancelled scope is of no more use
                await trio.lowlevel.checkpoint()
        await self._conclude()

    def _failure(self, exc: Exception) -> Reply:
        reply = rejection_in(exc)
        if reply is not None:
            return reply
        if any(leaf is not self._body_error for leaf in leaves_of(exc)):
            self._log_failure(_hook_of(self._event), exc)
        return self._failure_reply()

    def _timed_out(self) -> Reply:
        self._log_timeout(_hook_of(self._event))
        return self._failure_reply()

    def _failure_reply(self) -> Reply:
        """What to say when a hook has failed: that the message is no good, if it is not, however the hook took it."""
        if isinstance(self._body_error, MessageTooLargeError):
            return TOO_LARGE
        return BARE_NEWLINE if isinstance(self._body_error, RemoteProtocolError) else LOCAL_ERROR

    def _without_failures(self, what: str, group: BaseExceptionGroup[BaseException]) -> BaseException:
        """Log what else went wrong in a hook that was cancelled, so that only the cancellation gets past."""
        failures, rest = group.split(Exception)
        if failures is not None:
            self._log_failure(what, failures)
        return rest if rest is not None else group

    # ---- what becomes of the answer

    async def _conclude(self) -> None:
        """Tell the protocol what the hook has said of the event."""
        event, (outcome,) = self._event, self._outcome or (None,)
        self._event = self._outcome = None
        protocol = self._protocol
        if isinstance(event, Data):
            await self._conclude_message(event, outcome)
        elif isinstance(event, Authenticate):
            self._conclude_auth(event, outcome)
        else:
            reply = self._checked(event, reply_or_none, outcome)
            if reply is None:
                protocol.accept()
            else:
                if reply.close and reply.is_success and isinstance(event, Mail):  # it both begins and ends one
                    self.session.envelope = Envelope(event.sender)
                    self._service.statistics.transactions += 1
                protocol.answer(reply)

    async def _conclude_message(self, event: Data, outcome: object) -> None:
        if self._body is not None:
            self._body.detach()
        error, self._body, self._body_error = self._body_error, None, None
        if isinstance(error, ConnectionLostError) and not self._protocol.is_closed:
            raise error.__cause__ or error
        convert = lmtp_outcome if self._config.lmtp else message_outcome
        self._protocol.conclude(self._checked(event, convert, outcome))

    def _conclude_auth(self, event: Authenticate, outcome: object) -> None:
        protocol = self._protocol
        reply: Reply | None = None
        identity: object = None
        if not isinstance(outcome, Reply):
            verdict = self._checked(event, bool, outcome)  # an application's own object may fail here
            if verdict is False:
                protocol.refuse_credentials()
                self._count_auth_failure()
                return
            if verdict is not True:
                outcome = verdict
        if isinstance(outcome, Reply):
            reply = self._checked(event, reply_or_none, outcome)
            identity = event.credentials.username if reply.is_success else None
        else:
            identity = event.credentials.username if outcome is True else outcome
        self.session._identity = identity
        try:
            if reply is None:
                protocol.accept()
            else:
                protocol.answer(reply)
        except UnverifiedError as exc:
            logger.error("session %s: %s", self.session.id, exc, extra=self._facts())
            return
        if identity is not None:
            self._service.auth_failures.forget(self.session.host)
        elif reply is not None and reply.is_permanent:
            self._count_auth_failure()

    def _count_auth_failure(self) -> None:
        failures = self._service.auth_failures.add(self.session.host, self._now())
        if failures and not self._protocol.is_closed:
            self._protocol.penalize(failures - 1)

    def _checked(self, event: Command | None, convert: Callable[[object], Any], outcome: object) -> Any:
        try:
            return convert(outcome)
        except Exception as exc:
            self._log_failure(_hook_of(event), exc)
            return LOCAL_ERROR

    # ---- hooks that are asked about a command

    async def _on_hello(self, event: Hello) -> None:
        await self._judge(event, self._service.hooks.on_hello, event.name)

    async def _on_mail(self, event: Mail) -> None:
        await self._judge(event, self._service.hooks.on_mail, event.sender)

    async def _on_rcpt(self, event: Rcpt) -> None:
        await self._judge(event, self._service.hooks.on_rcpt, event.recipient)

    async def _on_vrfy(self, event: Verify) -> None:
        await self._judge(event, self._service.hooks.on_vrfy, event.argument)

    async def _on_expn(self, event: Expand) -> None:
        await self._judge(event, self._service.hooks.on_expn, event.argument)

    async def _on_extra(self, event: Extra) -> None:
        await self._judge(event, self._service.hooks.on_command, event.verb, event.argument)

    async def _on_auth(self, event: Authenticate) -> None:
        if self._service.auth_failures.is_reached(self.session.host, self._now()):
            self._protocol.answer(TOO_MANY_FAILURES_OF_HOST)
            return
        await self._judge(event, self._service.hooks.on_auth, event.credentials)

    async def _on_data(self, event: Data) -> None:
        self._body_error = None
        self._budget = self._data_limit
        if self._protocol.replies:
            await self._flush()
        self._body = Body(self._next_chunk)
        await self._judge(event, self._service.hooks.on_data, self.session.envelope, self._body)

    # ---- hooks that are asked or told outside a command

    async def _ask_on_connect(self, hook: Hook) -> Reply | None:
        limit = self._config.handler_timeout
        with trio.CancelScope() as scope:
            scope.deadline = math.inf if limit is None else trio.current_time() + limit
            self._telling = True
            try:
                return reply_or_none(await hook(self.session))
            except Exception as exc:
                reply = rejection_in(exc)
                if reply is None:
                    self._log_failure("on_connect", exc)
                return reply or UNAVAILABLE
            except BaseExceptionGroup as exc:
                raise self._without_failures("on_connect", exc) from None
            finally:
                self._telling = False
        self._log_timeout("on_connect")
        return UNAVAILABLE

    async def _notify(self, what: str, hook: Hook, limit: float | None, *, shield: bool = False) -> None:
        with trio.CancelScope(shield=shield) as scope:
            scope.deadline = math.inf if limit is None else trio.current_time() + limit
            self._telling = True
            try:
                await hook(self.session)
            except Exception as exc:
                self._log_failure(what, exc)
            except BaseExceptionGroup as exc:
                raise self._without_failures(what, exc) from None
            finally:
                self._telling = False
        if scope.cancelled_caught:
            self._log_timeout(what)

    async def _end_transaction(self) -> None:
        """Note that the transaction is over, and tell the application if its message was not accepted."""
        statistics = self._service.statistics
        statistics.octets += self._protocol.take_octets()
        try:
            if self._protocol.accepted:
                statistics.messages += 1
            elif (hook := self._service.hooks.on_reset) is not None:
                # Shielded, so that a session that is cancelled meanwhile has not begun it in vain, nor twice.
                await self._notify("on_reset", hook, CLEANUP_LIMIT, shield=True)
        finally:
            self.session.envelope = None


_HOOKS: Final[Mapping[type, str]] = {
    Hello: "on_hello",
    Mail: "on_mail",
    Rcpt: "on_rcpt",
    Verify: "on_vrfy",
    Expand: "on_expn",
    Extra: "on_command",
    Authenticate: "on_auth",
    Data: "on_data",
}


def _hook_of(event: Command | None) -> str:
    """The name of the hook that judges an event, for logs."""
    return _HOOKS.get(type(event), "a hook")
