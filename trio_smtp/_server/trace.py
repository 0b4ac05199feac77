# What happens in a session, told to `ServerConfig.trace`.
#
# Guarantee: without such a function nothing here is made. What the function raises is logged once for a server, and
# goes no further.
#
# The protocol tells a Witness of each command line and each reply, as it tells the log's Transcript, which a Witness
# has inside if there is one; the tasks of the session tell it of the rest. It makes the events of that: which reply
# answers which command, and which are about a message. It changes nothing.
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

import trio

from .._protocol.errors import ConnectionLostError, SMTPTimeoutError, TLSError
from .._protocol.replies import Reply
from .._protocol.sasl import SERVER_MECHANISMS
from .._protocol.server.observation import ServerEvent
from .._protocol.server.protocol import ServerProtocol
from .._protocol.server.rows import CommandRow
from .._protocol.server.transcript import Notes
from .._wire.tls import TLSInfo
from .._wire.waits import Interrupted
from .log import logger

if TYPE_CHECKING:
    from .session import Session

_MESSAGE_VERBS: Final = ("DATA", "BDAT")


class Tracer:
    """Calls ``ServerConfig.trace``.

    Args:
        function: gets the events.
    """

    __slots__ = ("_function", "_has_failed")

    def __init__(self, function: Callable[[ServerEvent], None]) -> None:
        self._function: Callable[[ServerEvent], None] = function
        self._has_failed: bool = False

    def tell(self, event: ServerEvent) -> None:
        """Tell of one thing that is over."""
        try:
            self._function(event)
        except Exception:
            if not self._has_failed:  # it may well fail for each command
                logger.exception("server: the trace function failed; further failures are not logged")
            self._has_failed = True


class _Message:
    """A message that on_data was asked about."""

    __slots__ = ("began", "has_text", "replies", "verb")

    def __init__(self, verb: str, began: float) -> None:
        self.verb = verb
        self.began = began
        self.has_text: bool = verb == "BDAT"  # its content was asked for, or comes by itself
        self.replies: list[Reply] = []  # to its end


class Witness:
    """What one session does, as events.

    Args:
        tracer: told of them.
        session: which it is.
        protocol: the session's. What it tells of commands and replies now, it tells this object from now on, which
            passes it on.
    """

    def __init__(self, tracer: Tracer, session: Session, protocol: ServerProtocol) -> None:
        self._tell: Callable[[ServerEvent], None] = tracer.tell
        self._session = session
        self._protocol = protocol
        self._transcript: Notes | None = protocol.queue.transcript
        self._verbs: Mapping[bytes, CommandRow] = protocol.profile.commands
        self._now: Callable[[], float] = trio.lowlevel.current_clock().current_time
        self._began: float = self._now()
        self._is_greeted: bool = False
        self._verb: str | None = None  # of the command that is not answered yet
        self._latest: str = ""  # verb
        self._command_began: float = 0.0
        self._command_size: int = 0
        self._mechanism: str = ""
        self._message: _Message | None = None
        self._octets: int = 0  # of messages
        self._last_code: int = 0
        self._waited: float = 0.0  # for message data, by the hook that runs
        self._reason: BaseException | None = None
        protocol.queue.record(self)

    # ---- the protocol's

    def note_command(self, line: bytes, *, authenticated: bool) -> None:
        """A command line has come, outside an AUTH exchange."""
        if self._transcript is not None:
            self._transcript.note_command(line, authenticated=authenticated)
        if self._message is not None and self._message.replies:  # the session has not heard of its end yet
            self._tell_message(self._message, self._protocol.transfer.octets)
        verb, _, argument = line.partition(b" ")
        if verb not in self._verbs:
            verb = verb.rstrip(b"\t").upper()
        self._verb = self._latest = self._verbs[verb].verb if verb in self._verbs else ""
        self._command_began = self._now()
        self._command_size = len(line) + 2
        if verb == b"AUTH":
            name = argument.strip().partition(b" ")[0].upper().decode("ascii", "replace")
            self._mechanism = name if name in SERVER_MECHANISMS else ""

    def note_response(self) -> None:
        """A line of an AUTH exchange has come."""
        if self._transcript is not None:
            self._transcript.note_response()

    def note_reply(self, reply: Reply, wire: bytes) -> None:
        """A reply was given."""
        if self._transcript is not None:
            self._transcript.note_reply(reply, wire)
        code = self._last_code = reply.code
        message = self._message
        if (
            message is not None
            and message.has_text
            and self._protocol.envelope is None
            and self._latest in _MESSAGE_VERBS
        ):  # what became of the message, and not of a command or a chunk
            message.replies.append(reply)
            self._verb = None
        elif not self._is_greeted:
            self._note_greeting(code, reply.text)
        elif code != 334 and (self._verb is not None or code != 421):
            if code == 354 and message is not None:
                message.has_text = True
            self._answer(reply)

    def _note_greeting(self, code: int, text: str) -> None:
        self._is_greeted = True
        self._tell(ServerEvent("connect", self._session, self._now() - self._began, code=code, detail=text))

    def _answer(self, reply: Reply) -> None:
        verb, self._verb = self._verb or "", None
        size, self._command_size = self._command_size, 0
        seconds = self._now() - self._command_began if size else 0.0
        self._tell(ServerEvent("command", self._session, seconds, verb, reply.code, size, reply.text))
        if verb == "AUTH":
            self._tell(ServerEvent("auth", self._session, seconds, verb, reply.code, detail=self._mechanism))

    # ---- the session's

    def note_tls(self, began: float, tls: TLSInfo | None, error: BaseException | None = None) -> None:
        """A handshake that began then is over."""
        detail = f"{tls.version} {tls.cipher}" if tls is not None else ""
        seconds = self._now() - began
        self._tell(ServerEvent("tls", self._session, seconds, self._latest, detail=detail, error=error))

    def begin_message(self, *, chunking: bool) -> None:
        """``on_data`` is asked about a message."""
        self._message = _Message("BDAT" if chunking else "DATA", self._now())

    def note_wait(self, seconds: float) -> None:
        """A hook has waited for message data."""
        self._waited += seconds

    def end_message(self, octets: int) -> None:
        """A transaction is over, with a message of so many octets if it had one."""
        self._octets += octets
        if self._message is not None:
            self._tell_message(self._message, octets)

    def _tell_message(self, message: _Message, octets: int) -> None:
        self._message = None
        if not message.has_text:
            return
        replies = message.replies
        code, detail = 0, "given up"
        if replies:
            best = replies[0] if len(replies) == 1 else min(replies, key=_code)
            code, detail = best.code, best.text
        if len(replies) > 1:
            taken = sum(reply.is_success for reply in replies)
            detail = f"{taken} of {len(replies)} recipients"
        error = self._reason if not replies else None
        seconds = self._now() - message.began
        self._tell(ServerEvent("message", self._session, seconds, message.verb, code, octets, detail, error))

    def note_hook(self, name: str, began: float, outcome: object = None, error: BaseException | None = None) -> None:
        """A hook that was called at `began` has ended."""
        waited, self._waited = self._waited, 0.0
        code = outcome.code if isinstance(outcome, Reply) else 0
        seconds = self._now() - began - waited
        self._tell(ServerEvent("hook", self._session, seconds, code=code, detail=name, error=error))

    def note_reason(self, reason: BaseException) -> None:
        """What ends the session."""
        self._reason = reason

    def close(self, *, cancelled: bool, farewell: str) -> None:
        """The session has ended.

        Args:
            cancelled: from outside.
            farewell: why, where the server did not let it wait any more.
        """
        if not self._is_greeted:
            self._note_greeting(0, "")
        why = "cancelled" if cancelled else self._why(farewell)
        error = self._reason if why in ("lost", "timeout", "tls", "error") else None
        seconds = self._now() - self._began
        self._tell(ServerEvent("close", self._session, seconds, "", self._last_code, self._octets, why, error))

    def _why(self, farewell: str) -> str:
        reason = self._reason
        if self._protocol.quit:
            return "quit"
        if isinstance(reason, SMTPTimeoutError):
            return "timeout"
        if isinstance(reason, TLSError):
            return "tls"
        if isinstance(reason, ConnectionLostError) or self._protocol.peer_gone:
            return "lost"
        if isinstance(reason, Interrupted):
            return farewell
        return "refused" if reason is None else "error"


def witness_of(protocol: ServerProtocol) -> Witness | None:
    """Who is told of a session, if it is traced, and has begun."""
    notes = protocol.queue.transcript
    return notes if isinstance(notes, Witness) else None


def _code(reply: Reply) -> int:
    return reply.code
