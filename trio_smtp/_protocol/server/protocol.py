# A server's side of one SMTP or LMTP session: bytes in, events out, replies back in, bytes out.
#
# Theory of operation. `receive_data` only stores; `next_event` reads one command (or a piece of a message) and either
# answers it itself (bad syntax, wrong order, limits, NOOP) or returns an event; the caller then says `accept()` or
# `answer(reply)`, and gets the bytes from `data_to_send`. A caller that accepts a Data event gets the message's octets
# as events, and says what became of it, at its end or before: `conclude(reply)`. Replies gather until a Signal asks
# for them to be sent.
#
# What is read next depends on the state alone (reading.py). Which command is allowed where, and where it leads, is in
# the one table of commands.py; what else moves a session is in states.py. Each part of a session has one owner. This
# class holds them together, and the commands' functions find them here:
#
#     LineReader    the input                   Transactions      the envelope, from MAIL to the message's end
#     ReplyQueue    the replies                 IncomingTransfer  the message in progress
#     Offences      errors and what they cost   Authentication    AUTH
#                                               Relay             XCLIENT and XFORWARD
#
# Rule 1: `state` is written by accept(), take() and move(), from those tables.
# Rule 2: a command that fails changes nothing, but a message that fails ends its transaction.
# Rule 3: all that is said goes through reply(); a reply that closes ends the session there and then.
# Rule 4: this file does not know about sockets, tasks, time or TLS beyond a bool.
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from ..replies import Reject, Reply
from .auth import Authentication
from .events import FLUSH, PAUSE, Command, Data, Event, Signal
from .fixed_replies import TOO_MANY_ERRORS
from .input import LineReader
from .message import Verdict
from .offences import Offences
from .reading import READ
from .relay import NO_RELAY, Relay
from .reply_queue import ReplyQueue
from .rows import NO_STEP, Junk, Rules, Step
from .states import MOVES, Ending, Occurrence, State
from .transactions import Transactions
from .transcript import Transcript, Write
from .transfer import IncomingTransfer, abort_message

if TYPE_CHECKING:
    from .profile import ServerProfile

_NEVER: Final = Junk.NEVER
_AGAIN: Final = Junk.AGAIN


class ServerProtocol:
    """One session.

    Args:
        profile: what the server says and allows.
        tls: TLS is active from the start.
        external_identity: who the client's TLS certificate says it is, for EXTERNAL.

    Attributes:
        profile: as above.
        input: what was received and not used yet.
        queue: what was said and not sent yet.
        replies: the same as a list, to look at: empty when there is nothing to send.
        offences: errors, and what they cost.
        transactions: the envelope.
        transfer: the message in progress, or the chunk that is dropped.
        auth: AUTH.
        relay: what a trusted relay says.
        rules: which commands and parameters there are, with TLS or without.
        step: the command that was read last, in its state.
        pending: the event that waits for its answer, or ``None``.
        state: where the session is.
        hello: the name given with EHLO, HELO or LHLO; ``None`` before, and after STARTTLS.
        esmtp: EHLO or LHLO was used.
        tls: TLS is active.
        ending: why the session ended.
        notice: what the log should say of the session; ``None`` before there is anything, ``""`` once it was taken.
    """

    __slots__ = (
        "_put_off",
        "auth",
        "ending",
        "esmtp",
        "hello",
        "input",
        "notice",
        "offences",
        "pending",
        "profile",
        "queue",
        "relay",
        "replies",
        "rules",
        "state",
        "step",
        "tls",
        "transactions",
        "transfer",
    )

    def __init__(self, profile: ServerProfile, *, tls: bool = False, external_identity: str | None = None) -> None:
        config = profile.config
        self.profile: ServerProfile = profile
        self.input: LineReader = LineReader(config.max_command_line, config.max_auth_line)
        self.queue: ReplyQueue = ReplyQueue(enhanced=profile.enhanced, max_octets=config.max_reply_buffer)
        self.replies: Sequence[bytes] = self.queue.waiting
        self.offences: Offences = Offences(config)
        self.transactions: Transactions = Transactions()
        self.transfer: IncomingTransfer = IncomingTransfer()
        self.auth: Authentication = Authentication(self.offences, external_identity)
        self.relay: Relay = NO_RELAY
        self.state: State = State.CONNECTED
        self.step: Step = NO_STEP
        self.pending: Command | None = None
        self._put_off: tuple[Step, bytes] | None = None  # the command that ended a message, not taken yet
        self.hello: str | None = None
        self.esmtp: bool = False
        self.tls: bool = tls
        self.rules: Rules = profile.rules_for(tls)
        self.ending: Ending = Ending.NONE
        self.notice: str | None = None

    def __repr__(self) -> str:
        return f"<ServerProtocol {self.state.name}: {self.pending or 'nothing to answer'}>"

    # ---- bytes

    def receive_data(self, data: bytes | bytearray) -> None:
        """Take what the peer sent; ``b""`` says that it has closed its side."""
        self.input.feed(data)

    def data_to_send(self) -> bytes:
        """The replies so far; the caller sends them in one piece."""
        return self.queue.take()

    @property
    def has_input(self) -> bool:
        """Whether bytes were received that no event has used yet."""
        return bool(self.input) or self.input.is_skipping

    def transcribe(self, write: Write) -> None:
        """Have `write` called with each command line and reply from now on, secrets masked."""
        self.queue.record(Transcript(write, self.profile.commands))

    # ---- what the caller may ask

    @property
    def is_closed(self) -> bool:
        """Whether the last word has been said."""
        return self.state is State.CLOSED

    # ---- the beginning and the end

    def trust(self, trusted: bool) -> None:
        """Decide whether the peer may use XCLIENT and XFORWARD."""
        if trusted and self.relay is NO_RELAY:
            self.relay = Relay()
        if self.relay is not NO_RELAY:
            self.relay.trust(trusted)

    def greet(self, reply: Reply | None = None) -> None:
        """Send the greeting, or refuse the connection with a 4xx or 5xx reply."""
        if reply is None:
            reply = self.profile.greeting
        elif reply.is_success:
            reply = Reply(220, reply.lines, close=reply.close)  # RFC 5321 §4.2: no other success greets
        # RFC 5321 §3.1 would wait for QUIT after a refusal; clients close
        self.move(Occurrence.GREETING if reply.is_success else Occurrence.END)
        self.reply(reply, enhanced=not reply.is_success, counted=False)

    def start_tls(self, external_identity: str | None = None) -> None:
        """TLS is active now; forget what was said before (RFC 3207 section 4.2).

        Args:
            external_identity: who the client's TLS certificate says it is, for EXTERNAL.
        """
        self.tls = True
        self.rules = self.profile.rules_for(True)
        self.restart(external_identity)

    def close(self, reply: Reply) -> None:
        """Say a last word (421), unless the last word has been said."""
        if not self.is_closed:
            self.end_silently()
            self.reply(reply, counted=False)

    def lose_peer(self) -> None:
        """The connection is lost: drop the replies that cannot be sent, and end the session."""
        self.ending = Ending.PEER_GONE
        self.queue.drop()
        self.end_silently()

    def end_silently(self) -> None:
        """End the session without another word."""
        self.end_transaction(accepted=False)
        self.pending = self._put_off = None
        if self.offences.penalty:  # the last word is not kept back
            self.take_penalty()
        self.move(Occurrence.END)

    # ---- events

    def next_event(self) -> Event:
        """The next thing for the caller to do.

        Raises:
            RuntimeError: the last event was not answered.
        """
        if self.pending is not None:
            raise RuntimeError(f"{self.pending} was not answered")
        offences, queue = self.offences, self.queue
        while True:
            if offences.penalty:
                return PAUSE
            if queue.flush_due:
                queue.note_flush()
                return FLUSH
            if self._put_off is None:
                event = READ[self.state](self)
            else:  # the application knows now that its message is gone
                put_off, self._put_off = self._put_off, None
                event = self.take(*put_off)
            if event is not None:
                return event

    def accept(self, reply: Reply | None = None) -> None:
        """Answer the event with success: with `reply`, or with the usual one."""
        event = self.pending
        if event is None:
            raise RuntimeError("there is no command to answer")
        self.pending = None
        step = self.step
        row = step.row
        self.state = step.next_state
        if reply is None:
            reply = row.default_reply
        if row.on_success is not None and reply is not None:
            reply = row.on_success(self, event, reply)
        if reply is not None:
            self.reply(reply, row.success_enhanced)

    def answer(self, reply: Reply) -> None:
        """Answer the event: anything but 2xx refuses it and changes nothing."""
        if reply.is_success:
            self.accept(reply)
            return
        event = self.pending
        if event is None:
            raise RuntimeError("there is no command to answer")
        self.pending = None
        row = self.step.row
        final = reply if row.on_refusal is None else row.on_refusal(self, event, reply)
        if final is not None:
            self.reply(final)

    def conclude(self, reply: Verdict) -> None:
        """Say what became of the message: one reply, or (LMTP) one for each recipient address.

        What is left of the message is dropped, and the reply goes out after its end. A message that could not be
        had whole or has bare newlines is refused, whatever `reply` says.
        """
        event, message = self.pending, self.transfer.message
        if message is None:
            return  # the client gave it up
        if event is not None and isinstance(event, Data):  # the application has not looked at it
            if not event.chunking and isinstance(reply, Reply) and not reply.is_success:
                self.answer(reply)
                return
            self.accept()
        message.conclude(reply)
        if message.is_over:
            self.transfer.finish(self, message, reply)

    def take_penalty(self) -> int:
        """The units to wait for, which are then taken as waited for; the replies are to be sent after that."""
        self.queue.demand_flush()
        return self.offences.take_penalty()

    # ---- for the readers and the commands: what they say and change

    def take(self, step: Step, argument: bytes) -> Event | None:
        """Take a command, as its row says: an event for the caller, unless the command is done with by itself."""
        self.step = step
        row = step.row
        taken: Any  # isinstance() takes as long as the rest of this function
        try:
            taken = step.take(self, argument)
        except Reject as exc:
            taken = exc.reply
        if row.ends_group:
            self.queue.demand_flush()
        if taken.__class__ is Reply and taken.code >= 400:
            self.reply(taken)
            return None
        if row.aborts_message and self.transfer.is_being_read:
            self._put_off = step, argument
            return abort_message(self)
        if row.junk is not _NEVER and (row.junk is not _AGAIN or self.hello is not None):
            self.offences.count_junk()
        if taken.__class__ is row.event:
            self.pending = taken
            return taken
        if taken is None or isinstance(taken, Signal):
            return taken
        self.state = step.next_state
        if row.event is None and row.on_success is not None:
            taken = row.on_success(self, None, taken)
        self.reply(taken, row.success_enhanced)
        return None

    def note_unreadable(self, parameters: Mapping[str, str]) -> None:
        """Parameters of MAIL or RCPT were dropped. Of each session's the first are noted: a client can send many."""
        if self.notice is None:
            dropped = ", ".join(f"{keyword}={value!r:.200}" for keyword, value in parameters.items())
            self.notice = f"dropped parameters that cannot be read: {dropped}"

    def take_notice(self) -> str:
        """What the log should say, which is then taken as said."""
        notice, self.notice = self.notice or "", ""
        return notice

    def await_answer(self, event: Command) -> None:
        """An event comes of something else than a command line."""
        self.pending = event

    def reply(self, reply: Reply, enhanced: bool = True, utf8: bool | None = None, *, counted: bool = True) -> None:
        """Say something to the client.

        Args:
            reply: what is said; it ends the session where it closes.
            enhanced: with its enhanced status code, if those are offered.
            utf8: its text may be UTF-8; ``None``: where the transaction has SMTPUTF8.
            counted: a 5xx is an error of the client, and after too many there is another reply instead.
        """
        if counted:
            offences = self.offences
            if reply.code >= 500:
                offences.count_error()
            if offences.too_many:
                reply, enhanced = TOO_MANY_ERRORS, True
        if utf8 is None:
            utf8 = self.transactions.utf8
        self.queue.put(reply, enhanced, utf8)
        if reply.close or reply.code == 421:
            self.end_silently()

    def move(self, occurrence: Occurrence) -> None:
        """Change the state because of something else than a command's success."""
        state = MOVES[self.state][occurrence]
        self.state = self.transfer.state_before if state is None else state

    def restart(self, external_identity: str | None = None) -> None:
        """Forget what the client has said of itself."""
        self.hello = None
        self.esmtp = False
        self.auth.forget(external_identity)
        if self.relay is not NO_RELAY:
            self.relay.restart()

    def introduce(self, name: str, *, esmtp: bool) -> None:
        """Note what EHLO, LHLO or HELO has said; it clears like RSET (RFC 5321 section 4.1.4)."""
        self.end_transaction(accepted=False)
        self.hello = name
        self.esmtp = esmtp

    def end_transaction(self, *, accepted: bool) -> None:
        """Forget the transaction, the message in progress, and what XFORWARD has said."""
        if self.transfer.message is not None:
            self.transfer.end()
        if self.relay.forwarded:
            self.relay.forget_forwarded()
        if self.transactions.envelope is not None:
            self.transactions.end(accepted=accepted)

    def talks_out_of_turn(self) -> bool:
        """Whether a client that was not offered PIPELINING has said more before what it said last was answered."""
        return bool(self.input) and not (self.esmtp and "PIPELINING" in self.profile.extensions)

    def say_goodbye(self, event: None, reply: Reply) -> Reply:
        """End the session because of QUIT."""
        self.end_transaction(accepted=False)
        self.ending = Ending.QUIT
        return reply
