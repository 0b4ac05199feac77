# One connection from its first byte to its last: the only place where a session's bytes, hooks and time meet.
#
# Theory of operation. The loop asks the protocol for the next event, lets a hook judge it, and tells the protocol;
# replies leave together when the input is used up. No cancel scope is opened per command: a single timer says how long
# the peer may take, or how long the hook in progress may. A hook that takes too long is cancelled by cancelling the
# scope around the whole loop, which is then entered again: all that matters is in objects, nothing in lost frames.
#
# Rule: what a peer does ends at most its own session. What a hook does, too. Only cancellation from outside gets past.
from __future__ import annotations

import contextvars
import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias

import trio

from .._protocol.errors import (
    ConnectionLostError,
    MessageAbortedError,
    MessageTooLargeError,
    RemoteProtocolError,
    SMTPError,
    SMTPTimeoutError,
    TLSError,
)
from .._protocol.replies import Reply
from .._protocol.sasl import UnverifiedError
from .._protocol.server import ServerProtocol
from .._protocol.server_body import BARE_NEWLINE, TOO_LARGE
from .._protocol.server_events import (
    BODY_END,
    FLUSH,
    NEED_DATA,
    Authenticate,
    Command,
    Data,
    Expand,
    Extra,
    Hello,
    Introduction,
    Mail,
    Rcpt,
    Signal,
    StartTLS,
    Verify,
)
from .._protocol.server_tables import TOO_MANY_FAILURES_OF_HOST
from .._stream import Interrupted, Transport
from .._timekeeper import Timekeeper
from .body import Body
from .certificates import certificate_identity
from .handler import Hook
from .limits import is_within
from .outcomes import LOCAL_ERROR, UNAVAILABLE, leaves_of, lmtp_outcome, message_outcome, rejection_in, reply_or_none
from .service import Service
from .session import Session

logger = logging.getLogger("trio_smtp")

CLEANUP_LIMIT: Final = 10.0  # seconds for on_reset and on_close
LAST_WORDS_LIMIT: Final = 0.5  # seconds for the 421 of a connection whose task is cancelled
MAX_DELAY: Final = 10.0  # seconds that one reply is kept back at most
EARLY_TALK_WAIT: Final = 0.1  # seconds that reject_early_talkers listens before it greets
TURNS: Final = 16  # lots of pipelined commands that are answered before other sessions have their turn
_SHUTTING_DOWN: Final = Reply(421, "the server is shutting down", "4.3.2", close=True)
_TIMEOUT: Final = Reply(421, "timeout exceeded", "4.4.2", close=True)
_EARLY_TALKER: Final = Reply(554, "you talk before the greeting", "5.5.1", close=True)

current_connection: contextvars.ContextVar[Connection | None] = contextvars.ContextVar(
    "trio_smtp_connection", default=None
)


class Connection:
    """The task of one connection.

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
        if service.handlers is None:
            service.handlers = _handlers_of(service)
        self._on: Mapping[type, EventHandler | None] = service.handlers
        self.session = Session(self._protocol, self._transport.peer, self._transport.local)
        self._scope = trio.CancelScope()  # around everything but the good-bye
        self._hook_scope = trio.CancelScope()  # around the loop; cancelled when a hook's time is up
        self._pausing = trio.CancelScope()  # around a delay
        self._hook_deadline = math.inf
        self._in_hook = False  # a hook is running by itself, not waiting for the peer
        self._event: Command | None = None  # that the hook in progress is about
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

    # ---- from the first byte to the last

    async def run(self) -> None:
        """Serve the connection. Raises nothing but cancellation."""
        token = current_connection.set(self)
        if self._config.session_timeout is not None:
            self._end = self._now() + self._config.session_timeout
        cancelled = True
        try:
            with self._scope:
                await self._serve()
            cancelled = False
        except Exception:
            cancelled = False
            logger.exception("session %s: internal error", self.session.id, extra=self._facts())
            self._say_last_word(UNAVAILABLE)
        finally:
            self._in_hook = False
            self._timer.set(math.inf)
            self._end = math.inf  # the last word has a time limit of its own
            if cancelled or self._scope.cancelled_caught:
                self._say_last_word(_SHUTTING_DOWN)
            if self._protocol.replies:
                with trio.move_on_after(LAST_WORDS_LIMIT if cancelled else 2 * CLEANUP_LIMIT, shield=True):
                    await self._flush_quietly()
            # What follows is shielded and bounded each by itself.
            await self._close_session()  # noqa: ASYNC102
            if self._protocol.quit or self._protocol.peer_gone or cancelled:
                await self._transport.aclose()
            else:
                await self._transport.aclose_lingering()  # noqa: ASYNC102
            self._timer.close()
            current_connection.reset(token)

    async def _serve(self) -> None:
        try:
            if not await self._open():
                return
            while True:
                with trio.CancelScope() as self._hook_scope:
                    await self._converse()
                    return
                self._in_hook = False
                if self._outcome is None:
                    self._outcome = (self._timed_out(),)
        except SMTPTimeoutError:
            self._say_last_word(_TIMEOUT)
        except Interrupted:
            self._say_last_word(_SHUTTING_DOWN)
        except TLSError as exc:
            logger.debug("session %s: %s", self.session.id, exc, extra=self._facts())
            self._protocol.abandon()
        except ConnectionLostError:
            self._protocol.lose_peer()

    def _say_last_word(self, reply: Reply) -> None:
        if self._mute:
            self._protocol.abandon()
        else:
            self._protocol.close(reply)

    async def _flush_quietly(self) -> None:
        try:
            await self._flush()
        except (ConnectionLostError, SMTPTimeoutError):
            self._protocol.lose_peer()

    async def _close_session(self) -> None:
        """Tell the application that it is over: whatever has happened, once, and for a limited time."""
        self._protocol.abandon()
        if not self._introduced:
            return
        if self.session.envelope is not None:
            await self._end_transaction()
        hook = self._service.hooks.on_close
        if hook is not None:
            await self._notify("on_close", hook, CLEANUP_LIMIT, shield=True)

    def _facts(self) -> dict[str, object]:
        return {"smtp_session": self.session.id, "smtp_peer": self.session.peer}

    # ---- the beginning

    async def _open(self) -> bool:
        service = self._service
        if logger.isEnabledFor(logging.DEBUG):
            self._protocol.trace = self._trace
        if self._config.xclient_from:
            peer = self.session.peer
            self._protocol.trusted = is_within(peer[0] if peer else None, self._config.xclient_from)
        self._introduced = True
        refusal = None
        if service.hooks.on_connect is not None:
            refusal = await self._ask_on_connect(service.hooks.on_connect)
        refused = refusal is not None and not refusal.is_success
        if service.implicit_tls:
            if refused:
                self._protocol.abandon()
                return False
            await self._start_tls()
        elif not refused and self._config.reject_early_talkers and await self._talks_early():
            refusal = _EARLY_TALKER
        self._protocol.greet(refusal)
        return True

    async def _ask_on_connect(self, hook: Hook) -> Reply | None:
        limit = self._config.handler_timeout
        with trio.CancelScope() as scope:
            scope.deadline = math.inf if limit is None else trio.current_time() + limit
            try:
                return reply_or_none(await hook(self.session))
            except Exception as exc:
                reply = rejection_in(exc)
                if reply is None:
                    self._log_failure("on_connect", exc)
                return reply or UNAVAILABLE
            except BaseExceptionGroup as exc:
                raise self._without_failures("on_connect", exc) from None
        self._log_timeout("on_connect")
        return UNAVAILABLE

    async def _talks_early(self) -> bool:
        try:
            data = await self._transport.receive(trio.current_time() + EARLY_TALK_WAIT)
        except SMTPTimeoutError:
            return False
        self._protocol.receive_data(data)
        return bool(data)

    async def _start_tls(self) -> None:
        context = self._service.ssl_context
        assert context is not None
        tls = await self._transport.start_tls(
            context, server_side=True, deadline=self._deadline(self._config.tls_handshake_timeout)
        )
        self._mute = False
        self.session.tls = tls
        self._protocol.start_tls()
        self._protocol.external_identity = certificate_identity(tls)
        hook = self._service.hooks.on_tls
        if hook is not None:
            await self._notify("on_tls", hook, self._config.handler_timeout)

    # ---- the loop

    async def _converse(self) -> None:
        protocol = self._protocol
        session = self.session
        hooks = self._on
        if self._outcome is not None:
            await self._conclude()
        turns = 0  # since others had theirs
        while True:
            if session.envelope is None and protocol.envelope is not None:
                session.envelope = protocol.envelope
                self._service.statistics.transactions += 1
            event = protocol.next_event()
            if session.envelope is not protocol.envelope:
                await self._end_transaction()
            if event is NEED_DATA:
                if protocol.replies:
                    self._command_end = math.inf  # something was answered: the next command has all its time
                    await self._flush()
                if self._stopping or protocol.in_message:
                    await self._receive_rarely()
                    continue
                turns = 0
                now = self._now()
                if self._command_end == math.inf or not protocol.has_input:
                    self._command_end = now + self._command_limit
                limit = self._command_end if self._command_end < self._end else self._end
                if limit <= now:  # a peer that always has something to read would win the race against the timer
                    raise SMTPTimeoutError("the command or the session has lasted too long")
                self._waiting = True
                data = await self._transport.receive(limit)
                self._waiting = False
                protocol.receive_data(data)
            elif isinstance(event, Signal):
                if event is Signal.PAUSE:
                    await self._pause()
                    continue
                await self._flush()
                if event is not FLUSH:
                    if event is Signal.EOF:
                        protocol.lose_peer()
                    return
                self._command_end = math.inf
                turns += 1
                if turns % TURNS == 0:  # nothing above waits while the socket takes the replies
                    await trio.lowlevel.checkpoint()
            elif (hook := hooks[event.__class__]) is None:
                protocol.accept()
            else:
                await hook(self, event)

    async def _receive_rarely(self) -> None:
        """Receive what is not simply the next command: the rest of a message that nobody reads, or a last one."""
        protocol = self._protocol
        if self._ending or (self._stopping and protocol.envelope is None):
            raise Interrupted
        if protocol.in_message:
            await self._receive_content()
            return
        self._waiting = True
        data = await self._transport.receive(self._deadline(self._config.command_timeout))
        self._waiting = False
        protocol.receive_data(data)

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

    async def _flush(self) -> None:
        if not self._protocol.replies:
            return
        if self._transport.direct is None:  # cancelled as soon as it begins, a send would take these replies with it
            await trio.lowlevel.checkpoint_if_cancelled()
        data = self._protocol.data_to_send()
        sent = self._transport.send_nowait(data)
        if sent < len(data):
            await self._transport.send(data[sent:], self._deadline(self._config.command_timeout))

    def _deadline(self, limit: float | None) -> float:
        return self._end if limit is None else min(self._now() + limit, self._end)

    # ---- commands

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

    async def _on_introduction(self, event: Introduction) -> None:
        """XCLIENT: it is as if the client that was named had just connected."""
        self._protocol.accept()
        self.session._reintroduce(event.attributes)
        hook = self._service.hooks.on_connect
        self._protocol.greet(None if hook is None else await self._ask_on_connect(hook))

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

    async def _on_starttls(self, event: StartTLS) -> None:
        self._mute = True
        self._protocol.accept()
        if self.session.envelope is not None:
            await self._end_transaction()
        await self._flush()
        await self._start_tls()

    async def _judge(self, event: Command, hook: Hook | None, *args: object) -> None:
        """Ask the hook about an event, and tell the protocol."""
        self._event = event
        if hook is None:
            self._outcome = (None,)
        else:
            limit = self._config.handler_timeout
            self._hook_deadline = math.inf if limit is None else self._now() + limit
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
            if self._hook_scope.cancel_called:  # too late to be cancelled, and a cancelled scope is of no more use
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
                protocol.answer(reply)

    async def _conclude_message(self, event: Data, outcome: object) -> None:
        if self._body is not None:
            self._body.detach()
        error, self._body, self._body_error = self._body_error, None, None
        if isinstance(error, ConnectionLostError):
            raise error.__cause__ or error
        convert = lmtp_outcome if self._config.lmtp else message_outcome
        self._protocol.conclude(self._checked(event, convert, outcome))

    def _conclude_auth(self, event: Authenticate, outcome: object) -> None:
        protocol = self._protocol
        reply: Reply | None = None
        identity: object = None
        if isinstance(outcome, Reply):
            reply = self._checked(event, reply_or_none, outcome)
            identity = event.credentials.username if reply.is_success else None
        elif outcome:
            identity = event.credentials.username if outcome is True else outcome
        else:
            protocol.refuse_credentials()
            self._count_auth_failure()
            return
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
        except (TypeError, ValueError) as exc:
            self._log_failure(_hook_of(event), exc)
            return LOCAL_ERROR

    # ---- the message

    async def _next_chunk(self) -> bytes:
        """The next octets of the message for the hook in progress, ``b""`` at its end."""
        if self._body_error is not None:
            raise self._body_error
        protocol = self._protocol
        if protocol.awaits_start:
            protocol.start_body()
        while True:
            event = protocol.next_event()
            if isinstance(event, bytes):
                return event
            if event is BODY_END:
                if protocol.body_fault is None:
                    return b""
                raise self._spoil(RemoteProtocolError("the message has a bare CR or LF"))
            if event is Signal.BODY_TOO_LARGE:
                limit = self._config.max_message_size
                raise self._spoil(MessageTooLargeError(f"the message has more than {limit} octets"))
            if event is Signal.BODY_ABORTED:
                raise self._spoil(MessageAbortedError("the client gave the message up"))
            await self._wait_in_hook(event)

    async def _wait_in_hook(self, event: object) -> None:
        """Receive for a hook; the time does not count as the hook's."""
        began = self._now()
        self._in_hook = False
        try:
            if event is Signal.PAUSE:
                await self._pause()
                return
            await self._flush()
            if event is NEED_DATA:
                if self._ending:
                    raise Interrupted
                await self._receive_content()
            elif event is not FLUSH:
                raise ConnectionLostError("the client closed the connection")
        except (ConnectionLostError, SMTPTimeoutError, Interrupted) as exc:
            raise self._spoil(ConnectionLostError(f"the message was cut off: {exc or 'shutting down'}")) from exc
        finally:
            self._in_hook = True
            self._hook_deadline += self._now() - began
            self._timer.set(self._hook_deadline)

    def _spoil(self, error: SMTPError) -> SMTPError:
        self._body_error = error
        return error

    async def _end_transaction(self) -> None:
        """Note that the transaction is over, and tell the application if its message was not accepted."""
        statistics = self._service.statistics
        statistics.octets += self._protocol.octets
        self._protocol.octets = 0
        try:
            if self._protocol.accepted:
                statistics.messages += 1
            elif (hook := self._service.hooks.on_reset) is not None:
                # Shielded, so that a session that is cancelled meanwhile has not begun it in vain, nor twice.
                await self._notify("on_reset", hook, CLEANUP_LIMIT, shield=True)
        finally:
            self.session.envelope = None

    # ---- hooks that are only told

    async def _notify(self, what: str, hook: Hook, limit: float | None, *, shield: bool = False) -> None:
        with trio.CancelScope(shield=shield) as scope:
            scope.deadline = math.inf if limit is None else trio.current_time() + limit
            try:
                await hook(self.session)
            except Exception as exc:
                self._log_failure(what, exc)
            except BaseExceptionGroup as exc:
                raise self._without_failures(what, exc) from None
        if scope.cancelled_caught:
            self._log_timeout(what)

    def _log_failure(self, what: str, exc: Exception) -> None:
        self._service.statistics.failed_hooks += 1
        logger.error("session %s: %s failed", self.session.id, what, exc_info=exc, extra=self._facts())

    def _log_timeout(self, what: str) -> None:
        self._service.statistics.failed_hooks += 1
        logger.error("session %s: %s took too long and was cancelled", self.session.id, what, extra=self._facts())

    def _trace(self, direction: str, line: bytes) -> None:
        text = line.decode("ascii", "backslashreplace").rstrip()
        logger.debug("session %s %s %s", self.session.id, direction, text, extra=self._facts())

    # ---- from outside

    def _expired(self) -> None:
        if self._in_hook:
            self._hook_scope.cancel(reason="handler_timeout")
        else:
            self._transport.expire()

    def begin_shutdown(self) -> None:
        """Say 421 now if nothing is in progress, else as soon as nothing is."""
        self._stopping = True
        self._pausing.cancel(reason="shutdown")
        if self._waiting and self._protocol.envelope is None:
            self._transport.interrupt()

    def end_soon(self) -> None:
        """The grace is over for the session whose hook has asked for it: 421 when that hook has ended."""
        self._stopping = self._ending = True

    def end_now(self) -> None:
        """The grace is over: say 421 whatever is in progress."""
        self._stopping = self._ending = True
        if self._waiting or self._transport.is_receiving:
            self._transport.interrupt()
        else:
            self._scope.cancel(reason="shutdown")


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


EventHandler: TypeAlias = Callable[[Connection, Any], Awaitable[None]]


def _handlers_of(service: Service) -> Mapping[type, EventHandler | None]:
    """What to do about each event; ``None`` accepts it at once, where the application has no hook for it."""
    hooks = service.hooks
    return {
        Hello: hooks.on_hello and Connection._on_hello,
        Mail: hooks.on_mail and Connection._on_mail,
        Rcpt: hooks.on_rcpt and Connection._on_rcpt,
        Verify: hooks.on_vrfy and Connection._on_vrfy,
        Expand: hooks.on_expn and Connection._on_expn,
        Extra: hooks.on_command and Connection._on_extra,
        Introduction: Connection._on_introduction,
        Authenticate: Connection._on_auth,
        Data: Connection._on_data,
        StartTLS: Connection._on_starttls,
    }
