# A server's side of one SMTP or LMTP session: bytes in, events out, replies back in, bytes out.
#
# Theory of operation. `receive_data` only stores; `next_event` parses one command (or a piece of a message) and either
# answers it itself (bad syntax, wrong order, limits, NOOP) or returns an event; the caller then says `accept()`,
# `answer(reply)` or, for a message, `conclude(reply)`, and gets the bytes from `data_to_send`. Replies gather until
# a Signal asks for them to be sent.
#
# Rule 1: NEXT is the whole of the order of commands; what is no key there gets the reply of MISPLACED.
# Rule 2: a command that fails changes nothing, but a message that fails ends its transaction.
# Rule 3: this file does not know about sockets, tasks, time or TLS beyond a bool.
from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final, TypeAlias

from .envelope import Envelope
from .parameters import parse_mail, parse_rcpt
from .replies import Reject, Reply
from .sasl import SERVER_MECHANISMS, Credentials, ServerContext, UnverifiedError
from .server_auth import REFUSED, SUCCESS, AuthDialogue
from .server_events import (
    Authenticate,
    Command,
    Data,
    Event,
    Expand,
    Hello,
    Mail,
    Rcpt,
    Signal,
    StartTLS,
    State,
    Verify,
)
from .server_lines import LineReader, Overlong
from .server_message import IncomingMessage, Progress, Verdict
from .server_profile import ServerProfile
from .server_tables import (
    AUTH_FIRST,
    BARE_LINE,
    BARE_LINE_CLOSE,
    CONTROL,
    DEFAULTS,
    END_WITH_DOT,
    FOREIGN,
    FOREIGN_REPLY,
    HELLO,
    HELLO_FIRST,
    LHLO_FIRST,
    MISPLACED,
    NEEDS_TLS,
    NEXT,
    NOT_IMPLEMENTED,
    OK,
    TLS_FIRST,
    TLS_REPLY,
    TOO_MANY_ERRORS,
    TOO_MANY_FAILURES,
    TOO_MANY_MESSAGES,
    TOO_MANY_RECIPIENTS,
    UNIMPLEMENTED,
    UNKNOWN,
    VRFY,
)

_control_in = re.compile(rb"[\x00-\x1f\x7f]").search
_HELLO_NAME = re.compile(rb"[\x21-\x7e]{1,255}")
_BDAT = re.compile(rb"([0-9]{1,20})(?: +(LAST))?", re.IGNORECASE)

Taken: TypeAlias = "Command | Signal | Reply | None"


class ServerProtocol:
    """One session.

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
        quit: the client has said QUIT.
        peer_gone: the connection was lost, so that nothing more can be said.
        external_identity: whom the client's TLS certificate names, for EXTERNAL.
        trusted: the peer may use XCLIENT.
        trace: called with each command line and reply, secrets masked, when set.
    """

    __slots__ = (
        "_auth",
        "_auth_failures",
        "_commands",
        "_drop",
        "_drop_reply",
        "_enhanced",
        "_errors",
        "_flush",
        "_input",
        "_junk",
        "_message",
        "_must_start_tls",
        "_out",
        "_pending",
        "_profile",
        "_verb",
        "accepted",
        "authenticated",
        "envelope",
        "esmtp",
        "external_identity",
        "hello",
        "peer_gone",
        "quit",
        "state",
        "tls",
        "trace",
        "transaction_count",
        "trusted",
    )

    def __init__(self, profile: ServerProfile, *, tls: bool = False) -> None:
        self._profile = profile
        self._commands = _commands_of(profile)
        self._input = LineReader(profile.config.max_command_line, profile.config.max_auth_line)
        self._out: list[bytes] = []
        self._enhanced = profile.enhanced
        self._flush = False
        self._pending: Command | None = None
        self._verb = b""  # of the command that is being taken
        self._auth: AuthDialogue | None = None
        self._errors = 0
        self._junk = 0
        self._auth_failures = 0
        self._message: IncomingMessage | None = None
        self._drop = 0  # octets still to come of a BDAT chunk that nobody wants, and then
        self._drop_reply: Reply | None = None
        self.state = State.CONNECTED
        self.hello: str | None = None
        self.esmtp = False
        self.tls = tls
        self._must_start_tls = profile.config.require_tls and not tls
        self.authenticated = False
        self.envelope: Envelope | None = None
        self.accepted = False
        self.transaction_count = 0
        self.quit = False
        self.peer_gone = False
        self.external_identity: str | None = None
        self.trusted = False
        self.trace: Callable[[str, bytes], None] | None = None

    # ---- bytes

    def receive_data(self, data: bytes | bytearray) -> None:
        """Take what the peer sent; ``b""`` says that it has closed its side."""
        self._input.feed(data)

    @property
    def has_input(self) -> bool:
        """Whether bytes were received that no event has used yet."""
        return bool(self._input)

    def data_to_send(self) -> bytes:
        """The replies so far; the caller sends them in one piece."""
        out = self._out
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        return data

    @property
    def has_output(self) -> bool:
        """Whether :meth:`data_to_send` would return something."""
        return bool(self._out)

    @property
    def is_closed(self) -> bool:
        """Whether the last word has been said."""
        return self.state is State.CLOSED

    @property
    def in_message(self) -> bool:
        """Whether the next bytes belong to a message."""
        return self._message is not None and self._message.reading

    @property
    def awaits_start(self) -> bool:
        """Whether :meth:`start_body` is due before the message can be read."""
        return isinstance(self._pending, Data)

    # ---- replies

    def greet(self, reply: Reply | None = None) -> None:
        """Send the greeting, or refuse the connection with a 4xx or 5xx reply."""
        self.state = State.GREETED
        if reply is None:
            reply = Reply(220, self._profile.greeting)
        elif reply.is_success:
            reply = Reply(220, reply.lines)  # RFC 5321 §4.2: no other success greets
        else:
            self.state = State.CLOSED  # RFC 5321 §3.1 would wait for QUIT; nobody does
        self._write(reply, enhanced=not reply.is_success)

    def accept(self) -> None:
        """Answer the event with the usual success."""
        event, self._pending = self._pending, None
        if event is None:
            raise RuntimeError("there is no command to answer")
        kind = event.__class__
        _SUCCEED[kind](self, event, DEFAULTS[kind])

    def answer(self, reply: Reply) -> None:
        """Answer the event: anything but 2xx refuses it and changes nothing."""
        if reply.is_success:
            event, self._pending = self._pending, None
            if event is None:
                raise RuntimeError("there is no command to answer")
            _SUCCEED[event.__class__](self, event, reply)
        elif self._auth is not None:
            self._pending = None
            self._answer_auth(reply)
        else:
            self._pending = None
            self._reply(reply)

    def close(self, reply: Reply) -> None:
        """Say a last word (421), unless the last word has been said."""
        if self.state is not State.CLOSED:
            self.abandon()
            self._write(reply)

    def lose_peer(self) -> None:
        """The connection is lost: drop the replies that nobody will read, and end the session."""
        self.peer_gone = True
        self._out.clear()
        self.abandon()

    def abandon(self) -> None:
        """End the session without another word."""
        self._end_transaction(accepted=False)
        self._pending = None
        self.state = State.CLOSED

    def start_tls(self) -> None:
        """TLS is active now; forget what was said before (RFC 3207 section 4.2)."""
        self.tls = True
        self._must_start_tls = False
        self.state = State.GREETED
        self.hello = None
        self.esmtp = False
        self.authenticated = False

    # ---- events

    def next_event(self) -> Event:
        """The next thing for the caller to do.

        Raises:
            RuntimeError: the last event was not answered.
        """
        if self._pending is not None:
            raise RuntimeError(f"{self._pending} was not answered")
        while True:
            if self._flush:
                self._flush = False
                return Signal.FLUSH
            if self.state is State.CLOSED:
                return Signal.CLOSE
            message = self._message
            if message is not None and message.reading:
                event = self._next_of_message(message)
            elif self._drop_reply is not None:
                event = self._drop_chunk(self._drop_reply)
            else:
                event = self._next_command()
            if event is not None:
                return event

    def _starved(self) -> Signal:
        return Signal.EOF if self._input.eof else Signal.NEED_DATA

    def _next_command(self) -> Event | None:
        line = self._input.next_line(self._auth is not None)
        if line is None:
            return self._starved()
        if isinstance(line, Overlong):
            self._refuse_overlong(line)
            return None
        taken = self._take_line(line)
        if isinstance(taken, Reply):
            self._reply(taken)
            return None
        if not isinstance(taken, Signal):
            self._pending = taken
        return taken

    def _refuse_overlong(self, line: Overlong) -> None:
        enhanced = "5.5.6" if self._auth is not None or line.auth else "5.5.2"  # RFC 4954 §4, RFC 5321 §4.5.3.1.9
        self._auth = None
        self._reply(Reply(500, "line too long", enhanced, close=line.endless))

    def _take_line(self, line: bytes) -> Taken:
        # The two checks of the whole line come first, so that nothing below has to think of CR, LF and NUL.
        if not line.endswith(b"\r\n"):
            if self._profile.config.bare_newlines == "reject":
                return BARE_LINE_CLOSE
            self._auth = None
            return BARE_LINE
        line = line[:-2]
        if self._auth is not None:
            return self._continue_auth(line)
        verb, _, argument = line.partition(b" ")
        row = NEXT[self.state]
        if verb not in row:
            verb = verb.upper()
        self._verb = verb
        if self.trace is not None:
            self._trace_command(verb, line)
        if _control_in(line):
            return self._take_garbage(line)
        take = self._commands.get(verb)
        if take is None:
            return self._take_unknown(verb)
        if self._must_start_tls and verb in NEEDS_TLS:
            return TLS_FIRST
        if verb not in row:
            misplaced = MISPLACED[self.state][verb]
            return LHLO_FIRST if misplaced is HELLO_FIRST and self._profile.config.lmtp else misplaced
        try:
            return take(self, argument)
        except Reject as exc:
            return exc.reply

    def _take_garbage(self, line: bytes) -> Reply:
        if line[0] == 0x16:  # the first octet of a TLS handshake
            return TLS_REPLY
        return BARE_LINE_CLOSE if b"\r" in line and self._profile.config.bare_newlines == "reject" else CONTROL

    def _take_unknown(self, verb: bytes) -> Reply:
        if verb in FOREIGN:
            return FOREIGN_REPLY
        if verb[:1] == b"\x16":
            return TLS_REPLY
        if verb in UNIMPLEMENTED or (verb == b"EHLO" and not self._profile.config.lmtp):  # RFC 2033 §4.1: EHLO is 500
            return NOT_IMPLEMENTED
        return UNKNOWN

    # ---- commands

    def _take_hello(self, argument: bytes) -> Taken:
        name = argument.strip(b" ")
        if _HELLO_NAME.fullmatch(name) is None:
            return Reply(501, f"syntax: {self._verb.decode()} hostname", "5.5.4")
        if aborted := self._abort_message():
            return aborted
        if self.hello is not None:
            self._count_junk()
        return Hello(self._verb.decode(), name.decode("ascii"))

    def _succeed_hello(self, event: Hello, reply: Reply) -> None:
        self._end_transaction(accepted=False)  # RFC 5321 §4.1.4: EHLO clears like RSET
        self.hello = event.name
        self.esmtp = event.verb != "HELO"
        self.state = State.READY
        lines = [self._profile.config.hostname] if reply is DEFAULTS[Hello] else list(reply.lines)
        if self.esmtp:
            lines += self._profile.keywords(self.tls, self._mechanisms(), self.trusted)
        self._reply(Reply(250, lines), enhanced=False)  # RFC 2034 §4
        self._flush = True

    def _take_starttls(self, argument: bytes) -> Taken:
        if argument.strip():
            return Reply(501, "STARTTLS takes no argument", "5.5.4")
        if self.tls:
            return Reply(503, "TLS is active already", "5.5.1")
        if self._input:  # CVE-2011-0411: what came before the handshake must not be read as if it came inside
            return Reply(554, "nothing may follow STARTTLS", "5.5.1", close=True)
        return self._abort_message() or StartTLS()

    def _take_mail(self, argument: bytes) -> Taken:
        config = self._profile.config
        if config.auth == "required" and not self.authenticated:
            return AUTH_FIRST
        if config.max_messages is not None and self.transaction_count >= config.max_messages:
            return TOO_MANY_MESSAGES
        return Mail(parse_mail(argument, self._profile.parameters(self.tls)))

    def _take_rcpt(self, argument: bytes) -> Taken:
        envelope = self.envelope
        assert envelope is not None
        limit = self._profile.config.max_recipients
        if limit is not None and len(envelope.recipients) >= limit:
            return TOO_MANY_RECIPIENTS
        parameters = self._profile.parameters(self.tls)
        return Rcpt(parse_rcpt(argument, parameters, smtputf8=envelope.sender.smtputf8))

    def _take_reset(self, argument: bytes) -> Taken:
        if argument.strip():
            return Reply(501, "RSET takes no argument", "5.5.4")
        if aborted := self._abort_message():
            return aborted
        self._end_transaction(accepted=False)
        self._count_junk()
        return OK

    def _take_noop(self, argument: bytes) -> Taken:
        self._flush = True
        self._count_junk()
        return OK

    def _take_help(self, argument: bytes) -> Taken:
        self._count_junk()
        verbs = sorted(verb.decode() for verb in self._commands)
        return Reply(214, "commands: " + " ".join(verbs), "2.0.0")

    def _take_vrfy(self, argument: bytes) -> Taken:
        return self._take_lookup(argument, Verify)

    def _take_expn(self, argument: bytes) -> Taken:
        return self._take_lookup(argument, Expand)

    def _take_lookup(self, argument: bytes, event: type[Verify | Expand]) -> Taken:
        self._flush = True
        self._count_junk()
        try:
            text = argument.decode("utf-8").strip()
        except UnicodeDecodeError:
            text = ""
        if not text:
            return Reply(501, f"syntax: {self._verb.decode()} address", "5.5.4")
        if self._message is not None:  # between chunks the application is busy with the message
            return VRFY
        return event(text)

    def _take_quit(self, argument: bytes) -> Taken:
        if aborted := self._abort_message():
            return aborted
        self._end_transaction(accepted=False)
        self.quit = True
        self._write(Reply(221, f"{self._profile.config.hostname} closing connection", "2.0.0"))
        self.state = State.CLOSED
        return None

    def _succeed_mail(self, event: Mail, reply: Reply) -> None:
        self.envelope = Envelope(event.sender)
        self.transaction_count += 1
        self.state = State.MAIL
        self._reply(reply)

    def _succeed_rcpt(self, event: Rcpt, reply: Reply) -> None:
        assert self.envelope is not None
        self.envelope.recipients.append(event.recipient)
        self.state = State.RCPT
        self._reply(reply)

    def _succeed_starttls(self, event: StartTLS, reply: Reply) -> None:
        self._end_transaction(accepted=False)
        self.state = State.GREETED
        self._reply(reply, enhanced=False)

    def _succeed_lookup(self, event: Command, reply: Reply) -> None:
        self._reply(reply)

    def _succeed_auth(self, event: Authenticate, reply: Reply) -> None:
        self._answer_auth(SUCCESS)

    # ---- AUTH

    def _mechanisms(self) -> tuple[str, ...]:
        profile = self._profile
        if "AUTH" not in profile.extensions or not (self.tls or profile.config.allow_insecure_auth):
            return ()
        if self.external_identity is None and "EXTERNAL" in profile.mechanisms:
            return tuple(name for name in profile.mechanisms if name != "EXTERNAL")
        return profile.mechanisms

    def _take_auth(self, argument: bytes) -> Taken:
        config = self._profile.config
        if self.authenticated:
            return Reply(503, "already authenticated", "5.5.1")  # RFC 4954 §4
        if not self.esmtp:
            return HELLO_FIRST
        if not (self.tls or config.allow_insecure_auth):
            return Reply(538, "encryption is required for authentication", "5.7.11")  # RFC 4954 §6
        words = argument.split()
        if not 1 <= len(words) <= 2:
            return Reply(501, "syntax: AUTH mechanism [initial-response]", "5.5.4")
        name = words[0].upper().decode("ascii", "replace")
        if name not in self._mechanisms():
            return Reply(504, "unrecognized authentication type", "5.5.4")
        context = ServerContext(
            hostname=config.hostname,
            secret=config.scram_secret,
            scram_iterations=config.scram_iterations,
            external_identity=self.external_identity,
        )
        self._auth = AuthDialogue(SERVER_MECHANISMS[name](context))
        return self._step_auth(self._auth.begin(words[1] if len(words) == 2 else None))

    def _continue_auth(self, line: bytes) -> Taken:
        assert self._auth is not None
        if self.trace is not None:
            self.trace("<", b"***")
        return self._step_auth(self._auth.receive_line(line))

    def _step_auth(self, step: Reply | Credentials) -> Taken:
        if isinstance(step, Credentials):
            return Authenticate(step)
        if step.code == 334:
            self._flush = True
            return step
        return self._end_auth(step)

    def _end_auth(self, reply: Reply) -> Reply:
        self._auth = None
        if reply.is_success:
            self.authenticated = True
            return reply
        self._auth_failures += 1
        limit = self._profile.config.max_auth_failures
        return reply if limit is None or self._auth_failures <= limit else TOO_MANY_FAILURES

    def _answer_auth(self, reply: Reply) -> None:
        assert self._auth is not None
        try:
            next_reply = self._auth.verdict(reply)
        except UnverifiedError as exc:
            self._reply(self._end_auth(exc.reply))
            raise
        if next_reply.code == 334:
            self._flush = True
            self._reply(next_reply)
        else:
            self._reply(self._end_auth(next_reply))

    def refuse_credentials(self) -> None:
        """Answer Authenticate with the one reply for every reason (535)."""
        self.answer(REFUSED)

    # ---- messages

    def start_body(self) -> None:
        """The application wants the message: ask for it, unless it comes in chunks by itself."""
        event, self._pending = self._pending, None
        if not isinstance(event, Data) or self._message is None:
            raise RuntimeError("there is no message to read")
        if not event.chunking:
            self._write(END_WITH_DOT)
        self._message.start()

    def conclude(self, reply: Verdict) -> None:
        """Say what became of the message: one reply, or (LMTP) one for each recipient address.

        What is left of the message is dropped, and the reply goes out after its end. A message that could not be
        had whole or has bare newlines is refused, whatever `reply` says.
        """
        event, message = self._pending, self._message
        if message is None:
            return  # the client gave it up
        message.served = False
        if isinstance(event, Data):  # the application has not looked at it
            if not event.chunking and isinstance(reply, Reply) and not reply.is_success:
                self._pending = None
                self._end_transaction(accepted=False)
                self._reply(reply)
                self._flush = True
                return
            self.start_body()
        message.verdict = reply
        if message.is_over:
            self._finish_message(message, reply)

    @property
    def body_fault(self) -> Reply | None:
        """What is wrong with the message that has come to its end, as the reply that will refuse it."""
        return self._message.body.fault if self._message is not None else None

    def _new_message(self, *, chunking: bool) -> IncomingMessage:
        assert self.envelope is not None
        binary = self.envelope.sender.body == "BINARYMIME"
        self._message = IncomingMessage(self._input, self._profile.config, binary=binary, chunking=chunking)
        return self._message

    def _take_data(self, argument: bytes) -> Taken:
        if argument.strip():
            return Reply(501, "DATA takes no argument", "5.5.4")
        assert self.envelope is not None
        if self.envelope.sender.body == "BINARYMIME":  # RFC 3030 §3
            return Reply(503, "BODY=BINARYMIME needs BDAT", "5.5.1")
        self._new_message(chunking=False)
        return Data()

    def _take_bdat(self, argument: bytes) -> Taken:
        match = _BDAT.fullmatch(argument.strip(b" "))
        if match is None:  # how many octets follow is anybody's guess, so there is no way to stay in step
            return Reply(501, "syntax: BDAT octets [LAST]", "5.5.4", close=True)
        size, last = int(match[1]), match[2] is not None
        limit = self._profile.config.max_message_size
        if limit is not None and size > limit:
            return Reply(552, "the chunk is larger than a message may be", "5.3.4", close=True)
        refusal = TLS_FIRST if self._must_start_tls else MISPLACED[self.state].get(b"BDAT")
        if refusal is not None:  # RFC 3030 §2: the octets come all the same
            self._drop, self._drop_reply = size, refusal
            return None
        if not size and not last:
            self._count_junk()
        message = self._message
        if message is not None:
            message.begin_chunk(size, last)
            message.start()
            return None
        self._new_message(chunking=True).begin_chunk(size, last)
        self.state = State.CHUNKING
        return Data(chunking=True)

    def _drop_chunk(self, reply: Reply) -> Signal | None:
        if self._drop:
            data = self._input.take(self._drop)
            if not data:
                return self._starved()
            self._drop -= len(data)
        if not self._drop:
            self._drop_reply = None
            self._reply(reply)
        return None

    def _next_of_message(self, message: IncomingMessage) -> Event | None:
        event = message.next()
        if not isinstance(event, Progress):
            return event
        if event is Progress.CHUNK_TAKEN:
            self._reply(Reply(250, f"{message.body.received} octets received", "2.0.0"))
        elif event is Progress.FINISHED:
            assert message.verdict is not None
            self._finish_message(message, message.verdict)
        return None

    def _abort_message(self) -> Signal | None:
        """Before a command that ends the transaction between two chunks: the application must hear of it first."""
        if self._message is None or not self._message.served:
            return None
        self._end_transaction(accepted=False)
        self._input.unread()
        return Signal.BODY_ABORTED

    def _finish_message(self, message: IncomingMessage, verdict: Verdict) -> None:
        envelope, fault = self.envelope, message.body.fault
        assert envelope is not None
        if fault is not None and (not isinstance(verdict, Reply) or verdict.is_success):
            verdict = fault
        replies = self._final_replies(verdict, envelope)
        codes = [reply.code for reply in replies]
        accepted = min(codes) < 300
        self._end_transaction(accepted=accepted)
        if accepted:
            self._errors = self._junk = 0
        elif max(codes) >= 500:
            self._errors += 1  # one message, one error, although LMTP has a reply for each recipient
        for reply in replies:
            self._write(reply, utf8=envelope.sender.smtputf8)

    def _final_replies(self, verdict: Verdict, envelope: Envelope) -> Sequence[Reply]:
        if not self._profile.config.lmtp:
            if not isinstance(verdict, Reply):
                raise TypeError("only LMTP has a reply for each recipient")
            return (verdict,)
        if isinstance(verdict, Reply):
            return (verdict,) * len(envelope.recipients)
        missing = Reply(451, "no word about this recipient", "4.3.0")
        return [verdict.get(recipient.address, missing) for recipient in envelope.recipients]  # RFC 2033 §4.2

    def _end_transaction(self, *, accepted: bool) -> None:
        if self.envelope is not None:
            self.envelope = None
            self.accepted = accepted
            self.state = State.READY
        self._message = None

    # ---- writing

    def _count_junk(self) -> None:
        self._junk += 1
        limit = self._profile.config.max_junk_commands
        if limit is not None and self._junk > limit:
            self._errors += 1

    def _reply(self, reply: Reply, enhanced: bool = True) -> None:
        limit = self._profile.config.max_errors
        if reply.code >= 500:
            self._errors += 1
        if self._errors and limit is not None and self._errors > limit:
            reply, enhanced = TOO_MANY_ERRORS, True
        self._write(reply, enhanced)

    def _write(self, reply: Reply, enhanced: bool = True, *, utf8: bool | None = None) -> None:
        if utf8 is None:
            utf8 = self.envelope is not None and self.envelope.sender.smtputf8
        wire = reply.to_bytes(enhanced and self._enhanced, utf8)
        if self.trace is not None:
            self.trace(">", b"334 ***" if reply.code == 334 else wire)
        self._out.append(wire)
        if reply.close or reply.code == 421:
            self.abandon()

    def _trace_command(self, verb: bytes, line: bytes) -> None:
        assert self.trace is not None
        if verb == b"AUTH":
            line = b" ".join(line.split()[:2]) + b" ***"
        self.trace("<", line)


_TAKE: Final[dict[bytes, Callable[[ServerProtocol, bytes], Taken]]] = {
    b"EHLO": ServerProtocol._take_hello,
    b"HELO": ServerProtocol._take_hello,
    b"LHLO": ServerProtocol._take_hello,
    b"STARTTLS": ServerProtocol._take_starttls,
    b"AUTH": ServerProtocol._take_auth,
    b"MAIL": ServerProtocol._take_mail,
    b"RCPT": ServerProtocol._take_rcpt,
    b"DATA": ServerProtocol._take_data,
    b"BDAT": ServerProtocol._take_bdat,
    b"RSET": ServerProtocol._take_reset,
    b"NOOP": ServerProtocol._take_noop,
    b"HELP": ServerProtocol._take_help,
    b"VRFY": ServerProtocol._take_vrfy,
    b"EXPN": ServerProtocol._take_expn,
    b"QUIT": ServerProtocol._take_quit,
}
_KEYWORD_OF: Final = {b"STARTTLS": "STARTTLS", b"AUTH": "AUTH", b"BDAT": "CHUNKING"}
_SUCCEED: Final[dict[type[Command], Callable[[ServerProtocol, Any, Reply], None]]] = {
    Hello: ServerProtocol._succeed_hello,
    StartTLS: ServerProtocol._succeed_starttls,
    Authenticate: ServerProtocol._succeed_auth,
    Mail: ServerProtocol._succeed_mail,
    Rcpt: ServerProtocol._succeed_rcpt,
    Verify: ServerProtocol._succeed_lookup,
    Expand: ServerProtocol._succeed_lookup,
}


@lru_cache(maxsize=64)
def _commands_of(profile: ServerProfile) -> dict[bytes, Callable[[ServerProtocol, bytes], Taken]]:
    """The commands that a server has at all; one that is switched off is unknown, not refused."""
    absent = {verb for verb, keyword in _KEYWORD_OF.items() if keyword not in profile.extensions}
    absent |= {verb for verb in HELLO if verb.decode() not in profile.hello_verbs}
    if not profile.expand:
        absent.add(b"EXPN")
    return {verb: take for verb, take in _TAKE.items() if verb not in absent}
