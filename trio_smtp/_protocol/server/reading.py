# What a session reads next: a command, a line of an AUTH exchange, octets of a message, or nothing more.
#
# READ has the reader for each state, and each reader returns an event for the caller, or None when there was something
# to do that the caller need not know of. A command line is looked at as a whole before it comes to a command, so that
# no command has to think of CR, LF and NUL.
from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, TypeAlias

from ..replies import Reply
from .auth import say
from .events import EOF, NEED_DATA, Event, Signal
from .fixed_replies import BARE_LINE, BARE_LINE_CLOSE, CONTROL, OUT_OF_TURN, TLS_UNEXPECTED
from .input import TLS_HANDSHAKE, LineTooLong
from .states import COMMAND_STATES, State
from .transfer import read_dropped, read_message

if TYPE_CHECKING:
    from .protocol import ServerProtocol

Reader: TypeAlias = "Callable[[ServerProtocol], Event | None]"

_control_in = re.compile(rb"[\x00-\x1f\x7f]").search


def read_command(protocol: ServerProtocol) -> Event | None:
    """The next event between messages."""
    source = protocol.input
    try:
        line = source.next_line()
    except LineTooLong as exc:
        protocol.reply(_too_long(exc, exc.auth))
        return None
    if line is None:
        return EOF if source.eof else NEED_DATA
    if line[-2:] == b"\r\n":
        line = line[:-2]
    elif _may_end_with_lf(protocol, line):
        line = line[:-1]
    else:
        protocol.reply(_bare_line(protocol, line))
        return None
    if protocol.queue.transcript is not None:
        protocol.queue.transcript.note_command(line, authenticated=protocol.auth.authenticated)
    if _control_in(line):
        line = line.rstrip(b" \t")  # RFC 5321 §4.1.1: tolerate trailing white space
        if _control_in(line):
            protocol.reply(_text_fault(protocol, line))
            return None
    verb, _, argument = line.partition(b" ")
    steps = protocol.rules.steps[protocol.state]
    if verb not in steps:
        verb = verb.upper()
    if protocol.profile.must_take_turns and verb != b"BDAT" and protocol.talks_out_of_turn():
        protocol.reply(OUT_OF_TURN)  # a chunk's octets come with BDAT
        return None
    if verb in steps:
        return protocol.take(steps[verb], argument)
    protocol.reply(protocol.profile.refuse_unknown(verb))
    return None


def read_response(protocol: ServerProtocol) -> Event | None:
    """The next event while a line of an AUTH exchange is awaited."""
    source, auth = protocol.input, protocol.auth
    try:
        line = source.next_line(True)
    except LineTooLong as exc:
        auth.give_up()
        say(protocol, _too_long(exc, True))
        return None
    if line is None:
        return EOF if source.eof else NEED_DATA
    if line[-2:] != b"\r\n" and not _may_end_with_lf(protocol, line):
        auth.give_up()
        say(protocol, _bare_line(protocol, line))
        return None
    if protocol.queue.transcript is not None:
        protocol.queue.transcript.note_response()
    taken = auth.receive_line(line[: -2 if line[-2:] == b"\r\n" else -1])
    if isinstance(taken, Reply):
        say(protocol, taken)
        return None
    protocol.await_answer(taken)
    return taken


def read_nothing(protocol: ServerProtocol) -> Event | None:
    """The next event when the last word has been said."""
    return Signal.CLOSE


READ: Final[Mapping[State, Reader]] = {  # before the greeting nothing is read
    **dict.fromkeys(COMMAND_STATES, read_command),
    State.AUTH: read_response,
    State.BODY: read_message,
    State.DROPPING: read_dropped,
    State.CLOSED: read_nothing,
}


def _may_end_with_lf(protocol: ServerProtocol, line: bytes) -> bool:
    """Whether a line without CR is taken, as some devices send it. A message's end needs CR LF in any case."""
    return protocol.profile.config.lenient_addresses and line[-1:] == b"\n" and line[0] != TLS_HANDSHAKE


def _too_long(exc: LineTooLong, is_auth: bool) -> Reply:
    enhanced = "5.5.6" if is_auth else "5.5.2"  # RFC 4954 §4, RFC 5321 §4.5.3.1.9
    return Reply(500, "line too long", enhanced, close=exc.endless)


def _bare_line(protocol: ServerProtocol, line: bytes) -> Reply:
    """What is wrong with a line that does not end with CR LF."""
    if line[0] == TLS_HANDSHAKE:
        return TLS_UNEXPECTED
    return BARE_LINE_CLOSE if protocol.profile.config.bare_newlines == "reject" else BARE_LINE


def _text_fault(protocol: ServerProtocol, line: bytes) -> Reply:
    """What is wrong with a line that has a control character in it."""
    if line[0] == TLS_HANDSHAKE:
        return TLS_UNEXPECTED
    is_rejected = b"\r" in line and protocol.profile.config.bare_newlines == "reject"
    return BARE_LINE_CLOSE if is_rejected else CONTROL
