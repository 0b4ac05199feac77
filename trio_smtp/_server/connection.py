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
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias

import trio

from .._protocol.errors import (
    ConnectionLostError,
    SMTPTimeoutError,
    TLSError,
)
from .._protocol.replies import Reply
from .._protocol.server.events import (
    FLUSH,
    NEED_DATA,
    Authenticate,
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
from .._wire.timekeeper import Timekeeper
from .._wire.waits import Interrupted
from .certificates import certificate_identity
from .judgement import CLEANUP_LIMIT, Judgement
from .limits import is_within
from .outcomes import SHUTTING_DOWN, UNAVAILABLE
from .service import Service

logger = logging.getLogger("trio_smtp")

LAST_WORDS_LIMIT: Final = 0.5  # seconds for the 421 of a connection whose task is cancelled
EARLY_TALK_WAIT: Final = 0.1  # seconds that reject_early_talkers listens before it greets
_TIMEOUT: Final = Reply(421, "timeout exceeded", "4.4.2", close=True)
_EARLY_TALKER: Final = Reply(554, "you talk before the greeting", "5.5.1", close=True)

current_connection: contextvars.ContextVar[Connection | None] = contextvars.ContextVar(
    "trio_smtp_connection", default=None
)


class Connection(Judgement):
    """The task of one connection.

    Args:
        service: what the server's connections share.
        stream: the connected stream, owned from now on.
        keeper: expires its time limits; its task must be running.
        context: TLS starts with it at once (RFC 8314); ``None`` for a session that begins in clear.
    """

    __slots__ = (
        "__weakref__",
        "_command_end",
        "_command_limit",
        "_context",
        "_cut_off",
        "_introduced",
        "_on",
        "_refused_chunks",
        "_shaken",
        "_waiting",
    )

    def __init__(
        self, service: Service, stream: trio.abc.Stream, keeper: Timekeeper, context: ssl.SSLContext | None = None
    ) -> None:
        super().__init__(service, stream, keeper)
        self._context = context
        self._shaken = isinstance(stream, trio.SSLStream)  # its handshake was done by whoever made it
        self._mute = context is not None
        self._cut_off = False  # the scope was cancelled because the server is shutting down
        self._introduced = False  # on_connect was reached, so that on_close is due
        self._waiting = False  # for a command
        self._refused_chunks = 0  # the latest for which the peer's time was set
        self._command_limit = math.inf if self._config.command_timeout is None else self._config.command_timeout
        self._command_end = math.inf  # of the command that is coming in; infinite before its first octet is awaited
        if service.handlers is None:
            service.handlers = _handlers_of(service)
        self._on: Mapping[type, EventHandler | None] = service.handlers

    # ---- from the first byte to the last

    async def run(self) -> None:
        """Serve the connection. Raises nothing but cancellation."""
        token = current_connection.set(self)
        if self._config.session_timeout is not None:
            self._end = self._now() + self._config.session_timeout
        cancelled = True
        try:
            while True:  # again after a hook that took too long
                with trio.CancelScope() as self._scope:
                    if self._introduced or await self._open():
                        await self._converse()
                    break
                if self._cut_off:
                    if self._outcome is not None and isinstance(self._event, Data):
                        await self._conclude()  # on_data was not to be cancelled: what it has taken is not sent again
                    break
                self._in_hook = False
                if self._outcome is None:
                    self._outcome = (self._timed_out(),)
            cancelled = False
        except Exception as exc:
            cancelled = False
            self._give_up(exc)
        finally:
            # All of it is shielded, and bounded.
            await self._end_session(cancelled)  # noqa: ASYNC102
            current_connection.reset(token)

    def _give_up(self, reason: Exception) -> None:
        if isinstance(reason, SMTPTimeoutError):
            self._say_last_word(_TIMEOUT)
        elif isinstance(reason, Interrupted):
            self._say_last_word(SHUTTING_DOWN)
        elif isinstance(reason, ConnectionLostError):
            self._protocol.lose_peer()
        elif isinstance(reason, TLSError):
            logger.debug("session %s: %s", self.session.id, reason, extra=self._facts())
            self._protocol.abandon()
        else:
            logger.error("session %s: internal error", self.session.id, exc_info=reason, extra=self._facts())
            self._say_last_word(UNAVAILABLE)

    async def _end_session(self, cancelled: bool) -> None:
        self._in_hook = False
        self._timer.set(math.inf)
        self._end = math.inf  # the last word has a time limit of its own
        if cancelled or self._cut_off:
            self._say_last_word(SHUTTING_DOWN)
        if self._protocol.replies:
            with trio.move_on_after(LAST_WORDS_LIMIT if cancelled else 2 * CLEANUP_LIMIT, shield=True):
                await self._flush_quietly()
        await self._close_session()
        if self._protocol.quit or self._protocol.peer_gone or cancelled:
            await self._transport.aclose()
        else:
            await self._transport.aclose_lingering()
        self._timer.close()

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

    # ---- the beginning

    async def _open(self) -> bool:
        service = self._service
        if logger.isEnabledFor(logging.DEBUG):
            self._protocol.trace = self._trace
        self._decide_trust()
        if self.session.proxy is not None and self._context is None and (data := self._transport.receive_nowait()):
            self._protocol.receive_data(data)  # what shares a segment with the PROXY header is no early talking
        self._introduced = True
        refusal = None
        if service.hooks.on_connect is not None:
            refusal = await self._ask_on_connect(service.hooks.on_connect)
        refused = refusal is not None and not refusal.is_success
        if self._context is not None:
            if refused:
                self._protocol.abandon()
                return False
            await self._start_tls(self._context)
        elif not refused and self._config.reject_early_talkers and await self._talks_early():
            refusal = _EARLY_TALKER
        self._protocol.greet(refusal)
        return True

    def _decide_trust(self) -> None:
        """Let XCLIENT be used by the networks that may, and by nobody whom they name: he may be at the other end."""
        networks = self._config.xclient_from
        self._protocol.trusted = bool(networks) and is_within(self.session.host, networks)

    async def _talks_early(self) -> bool:
        try:
            data = await self._transport.receive(trio.current_time() + EARLY_TALK_WAIT)
        except SMTPTimeoutError:
            return False
        self._protocol.receive_data(data)
        return bool(data)

    async def _start_tls(self, context: ssl.SSLContext) -> None:
        deadline = self._deadline(self._config.tls_handshake_timeout)
        if self._shaken:
            self._transport = await self._transport.adopt_tls(server_side=True, deadline=deadline)
        else:
            self._transport = await self._transport.start_tls(context, server_side=True, deadline=deadline)
        tls = self._transport.tls
        assert tls is not None
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
                self._sent = 0
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
            elif self._stopping and event.__class__ is Mail:
                protocol.answer(SHUTTING_DOWN)
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
            if protocol.refused_chunks != self._refused_chunks:  # each has its own time, not what a message has left
                self._refused_chunks = protocol.refused_chunks
                self._budget = self._data_limit
            await self._receive_content()
            return
        self._waiting = True
        data = await self._transport.receive(self._deadline(self._config.command_timeout))
        self._waiting = False
        protocol.receive_data(data)

    async def _on_introduction(self, event: Introduction) -> None:
        """XCLIENT: it is as if the client that was named had just connected."""
        self._protocol.accept()
        self.session._reintroduce(event.attributes)
        self._decide_trust()
        hook = self._service.hooks.on_connect
        self._protocol.greet(None if hook is None else await self._ask_on_connect(hook))

    async def _on_starttls(self, event: StartTLS) -> None:
        self._mute = True
        self._protocol.accept()
        if self.session.envelope is not None:
            await self._end_transaction()
        await self._flush()
        assert self._service.ssl_context is not None
        await self._start_tls(self._service.ssl_context)

    # ---- from outside

    @property
    def asks_a_hook(self) -> bool:
        """Whether one of the application's hooks is running."""
        return self._event is not None or self._telling

    def begin_shutdown(self) -> None:
        """Say 421 now if nothing is in progress, else as soon as nothing is."""
        self._stopping = True
        if self._pausing is not None:
            self._pausing.cancel(reason="shutdown")
        if self._mute or (self._waiting and self._protocol.envelope is None):  # during a handshake nothing is said
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
            self._cut_off = True
            self._scope.cancel(reason="shutdown")


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
