# What every command of a server's session stands on: the state, the input, the replies, and the end of a transaction.
#
# Rule: whatever is said to the client goes through _write, the one choke point; a reply that closes ends the session
# there and then. The commands themselves are in server.py (the order and the simple ones), server_login.py (AUTH) and
# server_transfer.py (DATA and BDAT), as classes on top of this one that ServerProtocol brings together.
from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, TypeAlias

from ..envelope import Envelope
from ..replies import Reply
from ..sasl import SERVER_MECHANISMS
from .auth import AuthDialogue
from .events import CLOSED, NEED_DATA, Command, Data, Signal, State
from .input import LineReader
from .message import IncomingMessage
from .profile import ServerProfile
from .tables import TOO_MANY_ERRORS

# What a command comes to: an event to ask about, a reply to give at once, or nothing more.
Taken: TypeAlias = "Command | Signal | Reply | None"

_MECHANISMS: Final = frozenset(name.encode() for name in SERVER_MECHANISMS)
_SAID: Final = ("HELO", "PROTO", "LOGIN")
_NOTHING: Final[Mapping[str, str | None]] = MappingProxyType({})  # for all sessions, most of which hear of nothing
MAX_REPLIES: Final = 256  # that gather before they are to be sent, however much is pipelined


class ServerCore:
    """The state of one session, and its last words.

    Args:
        profile: what the server says and allows.
        tls: TLS is active from the start.

    Attributes:
        state: where the session is.
        hello: the name given with EHLO, HELO or LHLO; ``None`` before, and after STARTTLS.
        esmtp: EHLO or LHLO was used.
        tls: TLS is active.
        authenticated: an AUTH command has succeeded.
        envelope: the transaction, from MAIL's acceptance to its end.
        accepted: whether the transaction that ended last ended with its message accepted.
        transaction_count: transactions begun.
        octets: octets of messages received; the caller may set it back.
        refused_chunks: BDAT chunks whose octets were, or are being, dropped because nobody wants them.
        replies: what :meth:`data_to_send` has not been asked for yet.
        quit: the client has said QUIT.
        penalty: units of ``error_delay`` that the next reply is to wait for.
        peer_gone: the connection was lost, so that nothing more can be said.
        external_identity: whom the client's TLS certificate names, for EXTERNAL.
        trusted: the peer may use XCLIENT and XFORWARD.
        introduced: what XCLIENT has said of the client, attribute to value or ``None``.
        forwarded: what XFORWARD has said of the next message, likewise; forgotten with its transaction, and by RSET,
            EHLO, STARTTLS and XCLIENT before it.
        trace: called with each command line and reply, secrets masked, when set.
    """

    __slots__ = (
        "_addressees",
        "_auth",
        "_auth_failures",
        "_distrusted",
        "_drop",
        "_drop_reply",
        "_enhanced",
        "_errors",
        "_flush",
        "_input",
        "_junk",
        "_message",
        "_must_start_tls",
        "_must_take_turns",
        "_pending",
        "_profile",
        "_unsent",
        "_verb",
        "accepted",
        "authenticated",
        "envelope",
        "esmtp",
        "external_identity",
        "forwarded",
        "hello",
        "introduced",
        "octets",
        "peer_gone",
        "penalty",
        "quit",
        "refused_chunks",
        "replies",
        "state",
        "tls",
        "trace",
        "transaction_count",
        "trusted",
    )

    def __init__(self, profile: ServerProfile, *, tls: bool = False) -> None:
        self._profile = profile
        self._input = LineReader(profile.config.max_command_line, profile.config.max_auth_line)
        self.replies: list[bytes] = []
        self._unsent = 0  # octets of them
        self._enhanced = profile.enhanced
        self._flush = False
        self._pending: Command | None = None
        self._verb = b""  # of the command that is being taken
        self._auth: AuthDialogue | None = None
        self._errors = 0
        self._junk = 0
        self._auth_failures = 0
        self._distrusted = False  # AUTH was traced: a line that is no command may belong to it
        self._message: IncomingMessage | None = None
        self._drop = 0  # octets still to come of a BDAT chunk that nobody wants, and then
        self._drop_reply: Reply | None = None
        self.refused_chunks = 0
        self.state = State.CONNECTED
        self.hello: str | None = None
        self.esmtp = False
        self.tls = tls
        self._must_start_tls = profile.config.require_tls and not tls
        self._must_take_turns = profile.config.reject_early_talkers  # except where PIPELINING was offered
        self.authenticated = False
        self.envelope: Envelope | None = None
        self._addressees: list[str] = []  # its recipients, as they were accepted: the application has the envelope
        self.accepted = False
        self.transaction_count = 0
        self.octets = 0
        self.quit = False
        self.peer_gone = False
        self.external_identity: str | None = None
        self.penalty = 0
        self.trusted = False
        self.introduced: Mapping[str, str | None] = _NOTHING
        self.forwarded: Mapping[str, str | None] = _NOTHING
        self.trace: Callable[[str, bytes], None] | None = None

    # ---- bytes

    def receive_data(self, data: bytes | bytearray) -> None:
        """Take what the peer sent; ``b""`` says that it has closed its side."""
        self._input.feed(data)

    @property
    def has_input(self) -> bool:
        """Whether bytes were received that no event has used yet."""
        return bool(self._input) or self._input.is_skipping

    def data_to_send(self) -> bytes:
        """The replies so far; the caller sends them in one piece."""
        out = self.replies
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        self._unsent = 0
        return data

    @property
    def is_closed(self) -> bool:
        """Whether the last word has been said."""
        return self.state is CLOSED

    @property
    def in_message(self) -> bool:
        """Whether the next bytes belong to a message, or to a chunk of one that nobody wants."""
        return (self._message is not None and self._message.reading) or self._drop_reply is not None

    @property
    def awaits_start(self) -> bool:
        """Whether :meth:`start_body` is due before the message can be read."""
        return isinstance(self._pending, Data)

    # ---- the beginning and the end

    def greet(self, reply: Reply | None = None) -> None:
        """Send the greeting, or refuse the connection with a 4xx or 5xx reply."""
        self.state = State.GREETED
        if reply is None:
            reply = self._profile.greeting
        elif reply.is_success:
            reply = Reply(220, reply.lines)  # RFC 5321 §4.2: no other success greets
        else:
            self.state = CLOSED  # RFC 5321 §3.1 would wait for QUIT; nobody does
        self._write(reply, enhanced=not reply.is_success)

    def close(self, reply: Reply) -> None:
        """Say a last word (421), unless the last word has been said."""
        if self.state is not CLOSED:
            self.abandon()
            self._write(reply)

    def lose_peer(self) -> None:
        """The connection is lost: drop the replies that nobody will read, and end the session."""
        self.peer_gone = True
        self.replies.clear()
        self.abandon()

    def abandon(self) -> None:
        """End the session without another word."""
        self._end_transaction(accepted=False)
        self._pending = None
        self.penalty = 0  # the last word is not kept back
        self.state = CLOSED

    def start_tls(self) -> None:
        """TLS is active now; forget what was said before (RFC 3207 section 4.2)."""
        self.tls = True
        self._must_start_tls = False
        self.state = State.GREETED
        self._forget()

    def _forget(self) -> None:
        self.hello = None
        self.esmtp = False
        self.authenticated = False
        self.forwarded = _NOTHING
        if self.introduced:  # who is at the other end stays, as with PROXY; what he said does not
            self.introduced = {name: value for name, value in self.introduced.items() if name not in _SAID}

    def _starved(self) -> Signal:
        return Signal.EOF if self._input.eof else NEED_DATA

    def _end_transaction(self, *, accepted: bool) -> None:
        if self._message is not None:
            self.octets += self._message.received
        # XFORWARD_README: for one transaction, also where that is given up before it has begun.
        self.forwarded = _NOTHING
        if self.envelope is not None:
            self.envelope = None
            self.accepted = accepted
            self.state = State.READY
        self._message = None

    def penalize(self, units: int) -> None:
        """Let the reply that is due wait for at least so many units, maybe none."""
        if units > self.penalty:
            self.penalty = units
            self._flush = True

    def take_penalty(self) -> int:
        """The units to wait for, which are then taken as waited for."""
        units, self.penalty = self.penalty, 0
        return units

    def _talks_out_of_turn(self) -> bool:
        """Whether a client that was not offered PIPELINING has said more before what it said last was answered."""
        return bool(self._input) and not (self.esmtp and "PIPELINING" in self._profile.extensions)

    # ---- writing

    def _count_junk(self) -> None:
        self._junk += 1
        limit = self._profile.config.max_junk_commands
        if limit is not None and self._junk > limit:
            self._count_error()

    def _count_error(self) -> None:
        self._errors += 1
        config = self._profile.config
        soft = config.soft_errors
        if soft is not None and self._errors > soft and config.max_errors is not None:
            self.penalize(1)

    @property
    def _errs_too_often(self) -> bool:
        limit = self._profile.config.max_errors
        return limit is not None and self._errors > limit

    def _reply(self, reply: Reply, enhanced: bool = True, *, utf8: bool | None = None) -> None:
        if reply.code >= 500:
            self._count_error()
        if self._errors and self._errs_too_often:
            reply, enhanced = TOO_MANY_ERRORS, True
        self._write(reply, enhanced, utf8=utf8)

    def _write(self, reply: Reply, enhanced: bool = True, *, utf8: bool | None = None) -> None:
        if utf8 is None:
            utf8 = self.envelope is not None and self.envelope.sender.smtputf8
        wire = reply.to_bytes(enhanced and self._enhanced, utf8)
        if self.trace is not None:
            self.trace(">", b"334 ***" if reply.code == 334 else wire)
        self.replies.append(wire)
        self._unsent += len(wire)
        if self._unsent >= self._profile.config.max_reply_buffer or len(self.replies) >= MAX_REPLIES:
            self._flush = True
        if reply.close or reply.code == 421:
            self.abandon()

    def _trace_command(self, verb: bytes, line: bytes) -> None:
        """Trace a line that is not inside an AUTH exchange; what may be a secret all the same is masked."""
        assert self.trace is not None
        words = line.split(None, 2)  # also at a TAB, which is no blank: what follows it is as secret
        if words and words[0][:4].upper() == b"AUTH":
            self._distrusted = True
            mechanism = words[1] if len(words) > 1 and len(words[0]) == 4 else b""
            line = b"AUTH " + (mechanism + b" ***" if mechanism.upper() in _MECHANISMS else b"***")
        elif self._distrusted and not self.authenticated and verb not in (self._profile.commands or ()):
            line = b"***"  # a client that did not wait for the answer to AUTH, or did not understand it: a password
        self.trace("<", line)
