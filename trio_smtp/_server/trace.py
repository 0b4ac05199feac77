# What happens in a session, told to `ServerConfig.trace`.
#
# Guarantee: without such a function nothing here is made. What the function raises is logged once for a server, and
# goes no further.
#
# The protocol tells a Witness of each command line and each reply, as it tells the log's Transcript, which a Witness
# has inside if there is one; the tasks of the session tell it of the rest. It makes the events of that: which reply
# answers which command, and which are about a message. It changes nothing.
from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

import trio

from .._observer import Observer
from .._protocol.errors import ConnectionLostError, SMTPTimeoutError, TLSError
from .._protocol.replies import Reply
from .._protocol.sasl import SERVER_MECHANISMS
from .._protocol.server.observation import ServerEvent, ServerEventName
from .._protocol.server.protocol import ServerProtocol
from .._protocol.server.states import Ending
from .._protocol.server.transcript import Notes
from .._wire.tls import TLSInfo
from .._wire.waits import Interrupted

if TYPE_CHECKING:
    from .session import Session

_MESSAGE_VERBS: Final = ("DATA", "BDAT")
_AFTER_VERB: Final = (b" ", b"")  # of four letters, as most are
_COMMAND: Final = "command"
_HOOK: Final = "hook"
_new: Final = tuple.__new__  # of a ServerEvent: its own takes twice as long, and a message makes ten events


class Tracer:
    """What the witnesses of a server's sessions share.

    Args:
        function: ``ServerConfig.trace``.

    Attributes:
        observer: calls it.
        verbs: the commands that the server has, in upper case and as clients write them, to the former.
    """

    __slots__ = ("observer", "verbs")

    def __init__(self, function: Callable[[ServerEvent], None]) -> None:
        self.observer: Observer[ServerEvent] = Observer(function, "server")
        self.verbs: dict[bytes, str] = {}

    def know(self, commands: Iterable[bytes]) -> None:
        """The commands that the server has."""
        if not self.verbs:
            self.verbs = {verb: verb.decode("ascii") for verb in commands}

    def tell_refusal(self, reason: str) -> None:
        """A connection got no session."""
        self.observer.tell(ServerEvent("refuse", code=421, detail=reason))


class _Message:
    """A message that on_data was asked about."""

    __slots__ = ("began", "ended", "has_text", "replies", "verb")

    def __init__(self, verb: str, began: float) -> None:
        self.verb = verb
        self.began = began
        self.ended: float | None = None  # when on_data ended, if the message was over then
        self.has_text: bool = verb == "BDAT"  # its content was asked for, or comes by itself
        self.replies: tuple[Reply, ...] = ()  # to its end


class Witness:
    """What one session does, as events.

    Args:
        tracer: told of them.
        session: which it is.
        protocol: the session's. What it tells of commands and replies now, it tells this object from now on, which
            passes it on.
    """

    def __init__(self, tracer: Tracer, session: Session, protocol: ServerProtocol) -> None:
        tracer.know(protocol.profile.commands)
        self._verbs = tracer.verbs
        self._observer = tracer.observer
        self._function = tracer.observer.function
        self._now = trio.lowlevel.current_clock().current_time
        self._session = session
        self._protocol = protocol
        self._transcript: Notes | None = protocol.queue.transcript
        protocol.queue.record(self)
        self._began: float = self._now()
        self._is_greeted: bool = False
        self._verb: str | None = None  # of the command that is not answered yet
        self._latest: str = ""  # verb
        # Most commands take no time that is worth a look at the clock: only a hook, AUTH and a message take some.
        self._command_began: float | None = None
        self._seen_at: float = self._began  # when a hook ended last, or a line of an AUTH exchange came
        self._command_size: int = 0
        self._mechanism: str = ""
        self._message: _Message | None = None
        self._octets: int = 0  # of messages
        self._last_code: int = 0
        self._reason: BaseException | None = None

    # ---- the protocol's

    def note_command(self, line: bytes, *, authenticated: bool) -> None:
        """A command line has come, outside an AUTH exchange."""
        if self._transcript is not None:
            self._transcript.note_command(line, authenticated=authenticated)
        message = self._message
        if message is not None and message.replies:  # the session has not heard of its end yet
            self._tell_message(message, self._protocol.transfer.octets)
            message = None
        self._command_began = None if message is None else self._now()
        word = line[:4]
        if word in self._verbs and line[4:5] in _AFTER_VERB and word != b"AUTH":
            self._verb = self._latest = self._verbs[word]
        else:
            self._note_unusual(line)
        self._command_size = len(line) + 2

    def _note_unusual(self, line: bytes) -> None:
        """A command that is not four letters in upper case, or AUTH."""
        word, _, argument = line.partition(b" ")
        verb = self._verbs.get(word.rstrip(b"\t").upper(), "")
        if verb == "AUTH":
            name = argument.strip().partition(b" ")[0].upper().decode("ascii", "replace")
            self._mechanism = name if name in SERVER_MECHANISMS else ""
            self._command_began = self._seen_at = self._now()
        self._verb = self._latest = verb

    def note_response(self) -> None:
        """A line of an AUTH exchange has come."""
        self._seen_at = self._now()
        if self._transcript is not None:
            self._transcript.note_response()

    def note_reply(self, reply: Reply, wire: bytes) -> None:
        """A reply was given."""
        if self._transcript is not None:
            self._transcript.note_reply(reply, wire)
        code = self._last_code = reply.code
        if not self._is_greeted:
            self._note_greeting(code, reply.text)
            return
        message = self._message
        if message is not None:
            # Whether the reply is what became of a message, and not of a command or a chunk.
            if message.has_text and self._latest in _MESSAGE_VERBS and self._protocol.transactions.envelope is None:
                message.replies += (reply,)
                self._verb = None
                return
            if code == 354:
                message.has_text = True
        verb = self._verb
        if code == 334 or (verb is None and code == 421):
            return
        self._verb = None
        began = self._command_began
        size, self._command_size = self._command_size, 0
        seconds = 0.0
        if began is not None and size:
            seconds = (self._seen_at if message is None else self._now()) - began
        text = "\n".join(reply.lines)  # reply.text, without a frame of its own
        try:
            self._function(_new(ServerEvent, (_COMMAND, self._session, seconds, verb or "", code, size, text, None)))
        except Exception:
            self._observer.note_failure()
        if verb == "AUTH":
            assert began is not None
            self._tell("auth", began, verb=verb, code=code, detail=self._mechanism)

    def _note_greeting(self, code: int, text: str) -> None:
        self._is_greeted = True
        self._tell("connect", self._began, code=code, detail=text)

    # ---- the session's

    def note_tls(self, began: float, tls: TLSInfo | None, error: BaseException | None = None) -> None:
        """A handshake that began then is over."""
        detail = f"{tls.version} {tls.cipher}" if tls is not None else ""
        self._tell("tls", began, verb=self._latest, detail=detail, error=error)

    def note_delay(self, began: float) -> None:
        """Older replies are sent before a hook is asked about the command; that began then."""
        self._command_began = began

    def begin_message(self, began: float, *, chunking: bool) -> None:
        """``on_data`` is called for a message, at `began`."""
        if self._command_began is None:
            self._command_began = began
        self._message = _Message("BDAT" if chunking else "DATA", began)

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
        error: BaseException | None = None
        if not replies:
            code, detail, error = 0, "given up", self._reason
        elif replies[1:]:
            code = min(reply.code for reply in replies)
            detail = f"{sum(reply.is_success for reply in replies)} of {len(replies)} recipients"
        else:
            code, detail = replies[0].code, "\n".join(replies[0].lines)
        seconds = (self._now() if message.ended is None else message.ended) - message.began
        event = ("message", self._session, seconds, message.verb, code, octets, detail, error)
        try:
            self._function(_new(ServerEvent, event))
        except Exception:
            self._observer.note_failure()

    def note_hook(
        self, name: str, began: float, waited: float, outcome: object = None, error: BaseException | None = None
    ) -> None:
        """A hook that was called at `began`, and has `waited` for message data, has ended."""
        now = self._seen_at = self._now()
        if self._command_began is None:
            self._command_began = began
        message = self._protocol.transfer.message
        if self._message is not None and message is not None and message.is_over:
            self._message.ended = now  # it is answered at once
        seconds = now - began - waited
        code = outcome.code if isinstance(outcome, Reply) else 0
        try:
            self._function(_new(ServerEvent, (_HOOK, self._session, seconds, "", code, 0, name, error)))
        except Exception:
            self._observer.note_failure()

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
        self._tell("close", self._began, code=self._last_code, octets=self._octets, detail=why, error=error)

    def _why(self, farewell: str) -> str:
        reason = self._reason
        if self._protocol.ending is Ending.QUIT:
            return "quit"
        if isinstance(reason, SMTPTimeoutError):
            return "timeout"
        if isinstance(reason, TLSError):
            return "tls"
        if isinstance(reason, ConnectionLostError) or self._protocol.ending is Ending.PEER_GONE:
            return "lost"
        if isinstance(reason, Interrupted):
            return farewell
        return "refused" if reason is None else "error"

    def _tell(
        self,
        name: ServerEventName,
        began: float,
        verb: str = "",
        code: int = 0,
        octets: int = 0,
        detail: str = "",
        error: BaseException | None = None,
    ) -> None:
        event = (name, self._session, self._now() - began, verb, code, octets, detail, error)
        self._observer.tell(_new(ServerEvent, event))
