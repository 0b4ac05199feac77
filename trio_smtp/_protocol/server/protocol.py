# A server's side of one SMTP or LMTP session: bytes in, events out, replies back in, bytes out.
#
# Theory of operation. `receive_data` only stores; `next_event` reads one command (or a piece of a message) and either
# answers it itself (bad syntax, wrong order, limits, NOOP) or returns an event; the caller then says `accept()`,
# `answer(reply)` or, for a message, `conclude(reply)`, and gets the bytes from `data_to_send`. Replies gather until
# a Signal asks for them to be sent.
#
# What is read next depends on the state alone (reading.py). Which command is allowed where, and where it leads, is in
# the one table of commands.py; what else moves a session is in states.py. Each part of a session has one owner. This
# class holds them together, and the commands' functions find them here:
#
#     LineReader      the input                     IncomingTransfer  the message in progress
#     ReplyQueue      the replies                   Authentication    AUTH
#     Offences        errors and what they cost     Relay             XCLIENT and XFORWARD
#
# Rule 1: `state` is written by accept(), take() and move(), from those tables.
# Rule 2: a command that fails changes nothing, but a message that fails ends its transaction.
# Rule 3: all that is said goes through reply(); a reply that closes ends the session there and then.
# Rule 4: this file does not know about sockets, tasks, time or TLS beyond a bool.
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from ..envelope import Envelope
from ..replies import Reject, Reply
from .auth import Authentication
from .events import FLUSH, PAUSE, Command, Data, Event, Mail, Rcpt, Signal
from .fixed_replies import AUTH_REFUSED, TOO_MANY_ERRORS
from .input import LineReader
from .message import Verdict
from .offences import Offences
from .reading import READ
from .relay import NO_RELAY, Relay
from .reply_queue import ReplyQueue
from .rows import NO_STEP, Junk, Rules, Step
from .states import MOVES, Ending, Occurrence, State
from .transcript import Transcript, Write
from .transfer import IncomingTransfer, abort_message

if TYPE_CHECKING:
    from .profile import ServerProfile

_NEVER: Final = Junk.NEVER
_AGAIN: Final = Junk.AGAIN
_NO_ADDRESSEES: Final[list[str]] = []  # of all sessions before their first transaction, which begins a list of its own


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
        transfer: the message in progress, or the chunk that is dropped.
        auth: AUTH.
        relay: what a trusted relay says.
        rules: which commands and parameters there are, with TLS or without.
        step: the command that was read last, in its state.
        state: where the session is.
        hello: the name given with EHLO, HELO or LHLO; ``None`` before, and after STARTTLS.
        esmtp: EHLO or LHLO was used.
        tls: TLS is active.
        envelope: the transaction, from MAIL's acceptance to its end.
        addressees: addresses of its recipients as they were accepted: the application may change the envelope.
        accepted: whether the transaction that ended last ended with its message accepted.
        transaction_count: transactions begun.
        ending: why the session ended.
        notice: what the log should say of the session; ``None`` before there is anything, ``""`` once it was taken.
    """

    __slots__ = (
        "_pending",
        "_put_off",
        "accepted",
        "addressees",
        "auth",
        "ending",
        "envelope",
        "esmtp",
        "hello",
        "input",
        "notice",
        "offences",
        "profile",
        "queue",
        "relay",
        "replies",
        "rules",
        "state",
        "step",
        "tls",
        "transaction_count",
        "transfer",
    )

    def __init__(self, profile: ServerProfile, *, tls: bool = False, external_identity: str | None = None) -> None:
        config = profile.config
        self.profile: ServerProfile = profile
        self.input: LineReader = LineReader(config.max_command_line, config.max_auth_line)
        self.queue: ReplyQueue = ReplyQueue(enhanced=profile.enhanced, max_octets=config.max_reply_buffer)
        self.replies: Sequence[bytes] = self.queue.waiting
        self.offences: Offences = Offences(config)
        self.transfer: IncomingTransfer = IncomingTransfer()
        self.auth: Authentication = Authentication(self.offences, external_identity)
        self.relay: Relay = NO_RELAY
        self.state: State = State.CONNECTED
        self.step: Step = NO_STEP
        self._pending: Command | None = None  # the event that waits for its answer
        self._put_off: tuple[Step, bytes] | None = None  # the command that ended a message, not taken yet
        self.hello: str | None = None
        self.esmtp: bool = False
        self.tls: bool = tls
        self.rules: Rules = profile.rules_for(tls)
        self.envelope: Envelope | None = None
        self.addressees: list[str] = _NO_ADDRESSEES
        self.accepted: bool = False
        self.transaction_count: int = 0
        self.ending: Ending = Ending.NONE
        self.notice: str | None = None

    def __repr__(self) -> str:
        return f"<ServerProtocol {self.state.name}: {self._pending or 'nothing to answer'}>"

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

    @property
    def is_being_read(self) -> bool:
        """Whether the application has a message that it is not done with."""
        message = self.transfer.message
        return message is not None and message.verdict is None

    @property
    def awaits_start(self) -> bool:
        """Whether :meth:`start_body` is due before the message can be read."""
        return self._pending.__class__ is Data

    @property
    def body_fault(self) -> Reply | None:
        """What is wrong with the message that has come to its end, as the reply that will refuse it."""
        message = self.transfer.message
        return message.fault if message is not None else None

    @property
    def authenticated(self) -> bool:
        """Whether an AUTH command has succeeded."""
        return self.auth.authenticated

    @property
    def xclient(self) -> Mapping[str, str | None]:
        """What XCLIENT has said of the client, attribute to value or ``None``."""
        return self.relay.xclient

    @property
    def forwarded(self) -> Mapping[str, str | None]:
        """What XFORWARD has said of the next message, likewise; forgotten with its transaction, and by RSET, EHLO,
        STARTTLS and XCLIENT before it.
        """
        return self.relay.forwarded

    @property
    def quit(self) -> bool:
        """Whether the client has said QUIT."""
        return self.ending is Ending.QUIT

    @property
    def peer_gone(self) -> bool:
        """Whether the connection was lost, so that nothing more can be said."""
        return self.ending is Ending.PEER_GONE

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
            reply = Reply(220, reply.lines)  # RFC 5321 §4.2: no other success greets
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
        self._pending = self._put_off = None
        if self.offences.penalty:  # the last word is not kept back
            self.take_penalty()
        self.move(Occurrence.END)

    # ---- events

    def next_event(self) -> Event:
        """The next thing for the caller to do.

        Raises:
            RuntimeError: the last event was not answered.
        """
        if self._pending is not None:
            raise RuntimeError(f"{self._pending} was not answered")
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
        event = self._pending
        if event is None:
            raise RuntimeError("there is no command to answer")
        self._pending = None
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
        event = self._pending
        if event is None:
            raise RuntimeError("there is no command to answer")
        self._pending = None
        row = self.step.row
        final = reply if row.on_refusal is None else row.on_refusal(self, event, reply)
        if final is not None:
            self.reply(final)

    def refuse_credentials(self) -> None:
        """Answer Authenticate with the one reply for every reason (535)."""
        self.answer(AUTH_REFUSED)

    def start_body(self) -> None:
        """The application wants the message: ask for it, unless it comes in chunks by itself."""
        if self._pending.__class__ is not Data:
            raise RuntimeError("there is no message to read")
        self.accept()

    def conclude(self, reply: Verdict) -> None:
        """Say what became of the message: one reply, or (LMTP) one for each recipient address.

        What is left of the message is dropped, and the reply goes out after its end. A message that could not be
        had whole or has bare newlines is refused, whatever `reply` says.
        """
        event, message = self._pending, self.transfer.message
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

    def penalize(self, units: int) -> None:
        """Let the reply that is due wait for at least so many units, maybe none."""
        self.offences.penalize(units)

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
        if row.aborts_message and self.is_being_read:
            self._put_off = step, argument
            return abort_message(self)
        if row.junk is not _NEVER and (row.junk is not _AGAIN or self.hello is not None):
            self.offences.count_junk()
        if taken.__class__ is row.event:
            self._pending = taken
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
        self._pending = event

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
            envelope = self.envelope
            utf8 = envelope is not None and envelope.sender.smtputf8
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

    def begin_transaction(self, event: Mail, reply: Reply) -> Reply:
        """MAIL was accepted."""
        self.envelope = Envelope(event.sender)
        self.addressees = []
        self.transaction_count += 1
        return reply

    def add_recipient(self, event: Rcpt, reply: Reply) -> Reply:
        """RCPT was accepted."""
        assert self.envelope is not None
        self.envelope.recipients.append(event.recipient)
        self.addressees.append(event.recipient.address)
        return reply

    def end_transaction(self, *, accepted: bool) -> None:
        """Forget the transaction, the message in progress, and what XFORWARD has said."""
        self.transfer.end()
        if self.relay.forwarded:
            self.relay.forget_forwarded()
        if self.envelope is not None:
            self.envelope = None
            self.accepted = accepted

    def talks_out_of_turn(self) -> bool:
        """Whether a client that was not offered PIPELINING has said more before what it said last was answered."""
        return bool(self.input) and not (self.esmtp and "PIPELINING" in self.profile.extensions)

    def say_goodbye(self, event: None, reply: Reply) -> Reply:
        """End the session because of QUIT."""
        self.end_transaction(accepted=False)
        self.ending = Ending.QUIT
        return reply
