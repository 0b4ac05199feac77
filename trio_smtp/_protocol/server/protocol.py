# A server's side of one SMTP or LMTP session: bytes in, events out, replies back in, bytes out.
#
# Theory of operation. `receive_data` only stores; `next_event` parses one command (or a piece of a message) and either
# answers it itself (bad syntax, wrong order, limits, NOOP) or returns an event; the caller then says `accept()`,
# `answer(reply)` or, for a message, `conclude(reply)`, and gets the bytes from `data_to_send`. Replies gather until
# a Signal asks for them to be sent.
#
# Rule 1: ALLOWED is the whole of the order of commands; what is not in there gets the reply of MISPLACED.
# Rule 2: a command that fails changes nothing, but a message that fails ends its transaction.
# Rule 3: this file does not know about sockets, tasks, time or TLS beyond a bool.
from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from ..envelope import Envelope
from ..parameters import parse_mail, parse_rcpt
from ..replies import Reject, Reply
from .auth import REFUSED
from .core import Taken
from .events import (
    CLOSED,
    FLUSH,
    Authenticate,
    Command,
    Event,
    Expand,
    Extra,
    Hello,
    Introduction,
    Mail,
    Rcpt,
    Signal,
    StartTLS,
    State,
    Verify,
)
from .input import TLS_HANDSHAKE, Overlong
from .login import LoginCommands
from .profile import ServerProfile
from .relay import RelayCommands
from .tables import (
    ALLOWED,
    AUTH_FIRST,
    BARE_LINE,
    BARE_LINE_CLOSE,
    CONTROL,
    DEFAULTS,
    FOREIGN,
    FOREIGN_REPLY,
    HELLO,
    HELLO_FIRST,
    LHLO_FIRST,
    MISPLACED,
    NEEDS_TLS,
    NESTED,
    NOT_IMPLEMENTED,
    NOT_NOW,
    OK,
    OUT_OF_TURN,
    TLS_FIRST,
    TLS_REPLY,
    TOO_MANY_MESSAGES,
    TOO_MANY_RECIPIENTS,
    UNIMPLEMENTED,
    UNKNOWN,
    UTF8_LOOKUP,
    VRFY,
)
from .transfer import TransferCommands

_control_in = re.compile(rb"[\x00-\x1f\x7f]").search
_HELLO_NAME = re.compile(rb"[\x21-\x7e]{1,255}")


class ServerProtocol(LoginCommands, RelayCommands, TransferCommands):
    """One session; its attributes are those of :class:`ServerCore`.

    Args:
        profile: what the server says and allows.
        tls: TLS is active from the start.
    """

    __slots__ = ("_commands",)

    def __init__(self, profile: ServerProfile, *, tls: bool = False) -> None:
        super().__init__(profile, tls=tls)
        if profile.commands is None:
            profile.commands = _commands_of(profile)
        self._commands: dict[bytes, Callable[[ServerProtocol, bytes], Taken]] = profile.commands

    # ---- answers

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
            event, self._pending = self._pending, None
            if isinstance(event, Verify | Expand):
                self._answer_lookup(event, reply)
            else:
                self._reply(reply)

    def refuse_credentials(self) -> None:
        """Answer Authenticate with the one reply for every reason (535)."""
        self.answer(REFUSED)

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
                if self.penalty:
                    return Signal.PAUSE
                self._flush = False
                return FLUSH
            if self.state is CLOSED:
                return Signal.CLOSE
            message = self._message
            if message is not None and message.reading:
                event = self._next_of_message(message)
            elif self._drop_reply is not None:
                event = self._drop_chunk(self._drop_reply)
            else:
                line = self._input.next_line(self._auth is not None)
                if line is None:
                    return self._starved()
                event = self._next_command(line)
            if event is not None:
                return event

    def _next_command(self, line: bytes | Overlong) -> Event | None:
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
            if line[0] == TLS_HANDSHAKE:
                return TLS_REPLY
            if self._profile.config.bare_newlines == "reject":
                return BARE_LINE_CLOSE
            self._auth = None
            return BARE_LINE
        line = line[:-2]
        if self._auth is not None:
            return self._continue_auth(line)
        verb, _, argument = line.partition(b" ")
        row = ALLOWED[self.state]
        if verb not in row:
            verb = verb.upper()
        self._verb = verb
        if self.trace is not None:
            self._trace_command(verb, line)
        if _control_in(line):
            line = line.rstrip(b" \t")  # RFC 5321 §4.1.1: tolerate trailing white space
            if _control_in(line):
                return self._take_garbage(line)
            verb, _, argument = line.partition(b" ")
            self._verb = verb = verb.upper()
        if self._must_take_turns and verb != b"BDAT" and self._talks_out_of_turn():  # a chunk's octets come with it
            return OUT_OF_TURN
        take = self._commands.get(verb)
        if take is None:
            return self._take_unknown(verb)
        if self._must_start_tls and verb in NEEDS_TLS:
            return TLS_FIRST
        if verb not in row:
            misplaced = MISPLACED[self.state].get(verb)
            if misplaced is not None:
                return LHLO_FIRST if misplaced is HELLO_FIRST and self._profile.config.lmtp else misplaced
        try:
            return take(self, argument)
        except Reject as exc:
            return exc.reply

    def _take_garbage(self, line: bytes) -> Reply:
        if line[0] == TLS_HANDSHAKE:
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
        if self._profile.judges_hello and self._message is not None and self._message.served:
            # A refused EHLO changes nothing (RFC 5321 §4.1.4), but whether it is one cannot be asked while the
            # application is busy with the message, and once that is given up, it is too late.
            return NESTED
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
        lines = None if reply is DEFAULTS[Hello] else reply.lines
        hello = self._profile.hello_reply(lines, self.esmtp, self.tls, self._mechanisms(), self.trusted)
        self._reply(hello, enhanced=False)  # RFC 2034 §4
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
        if limit is not None and len(self._addressees) >= limit:
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
        address, _, parameter = argument.strip().rpartition(b" ")
        smtputf8 = bool(address) and parameter.upper() == b"SMTPUTF8" and "SMTPUTF8" in self._profile.extensions
        try:
            text = (address if smtputf8 else argument).decode("utf-8").strip()
        except UnicodeDecodeError:
            text = ""
        if not text:
            return Reply(501, f"syntax: {self._verb.decode()} address", "5.5.4")
        if not smtputf8 and not text.isascii():
            return UTF8_LOOKUP
        if self._message is not None:  # between chunks the application is busy with the message
            return VRFY
        return event(text, smtputf8)

    def _take_extra(self, argument: bytes) -> Taken:
        self._flush = True
        if self._message is not None:  # between chunks the application is busy with the message
            return NOT_NOW
        try:
            return Extra(self._verb.decode(), argument.decode("utf-8").strip())
        except UnicodeDecodeError:
            return Reply(501, "the argument is not UTF-8", "5.5.2")

    def _take_quit(self, argument: bytes) -> Taken:
        if aborted := self._abort_message():
            return aborted
        self._end_transaction(accepted=False)
        self.quit = True
        self._write(self._profile.farewell)
        self.state = CLOSED
        return None

    def _succeed_mail(self, event: Mail, reply: Reply) -> None:
        self.envelope = Envelope(event.sender)
        self._addressees = []
        self.transaction_count += 1
        self.state = State.MAIL
        self._reply(reply)

    def _succeed_rcpt(self, event: Rcpt, reply: Reply) -> None:
        assert self.envelope is not None
        self.envelope.recipients.append(event.recipient)
        self._addressees.append(event.recipient.address)
        self.state = State.RCPT
        self._reply(reply)

    def _succeed_starttls(self, event: StartTLS, reply: Reply) -> None:
        self._end_transaction(accepted=False)
        self.state = State.GREETED
        self._reply(reply, enhanced=False)

    def _answer_lookup(self, event: Verify | Expand, reply: Reply) -> None:
        self._reply(reply, utf8=True if event.smtputf8 else None)

    def _succeed_extra(self, event: Extra, reply: Reply) -> None:
        self._reply(reply)


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
    b"XCLIENT": ServerProtocol._take_xclient,
    b"XFORWARD": ServerProtocol._take_xforward,
}
_KEYWORD_OF: Final = {
    b"STARTTLS": "STARTTLS",
    b"AUTH": "AUTH",
    b"BDAT": "CHUNKING",
    b"XCLIENT": "XCLIENT",
    b"XFORWARD": "XFORWARD",
    b"EXPN": "EXPN",  # VRFY is always there (RFC 5321 §4.5.1)
}
_SUCCEED: Final[dict[type[Command], Callable[[ServerProtocol, Any, Reply], None]]] = {
    Hello: ServerProtocol._succeed_hello,
    StartTLS: ServerProtocol._succeed_starttls,
    Authenticate: ServerProtocol._succeed_auth,
    Mail: ServerProtocol._succeed_mail,
    Rcpt: ServerProtocol._succeed_rcpt,
    Verify: ServerProtocol._answer_lookup,
    Expand: ServerProtocol._answer_lookup,
    Introduction: ServerProtocol._succeed_xclient,
    Extra: ServerProtocol._succeed_extra,
}


def _commands_of(profile: ServerProfile) -> dict[bytes, Callable[[ServerProtocol, bytes], Taken]]:
    """The commands that a server has at all; one that is switched off is unknown, not refused."""
    absent = {verb for verb, keyword in _KEYWORD_OF.items() if keyword not in profile.extensions}
    absent |= {verb for verb in HELLO if verb.decode() not in profile.hello_verbs}
    taken = {verb: take for verb, take in _TAKE.items() if verb not in absent}
    return {**dict.fromkeys(profile.extra_commands, ServerProtocol._take_extra), **taken}
