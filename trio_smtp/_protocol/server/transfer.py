# DATA and BDAT at a server: from the command to the reply at the message's end (RFC 5321 section 4.1.1.4, RFC 3030).
#
# Rule: the octets that a client has announced are read, whatever becomes of them, or the connection is closed.
from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from ..replies import Reject, Reply
from .events import EOF, NEED_DATA, Data, Event, Signal
from .fixed_replies import OUT_OF_TURN, TOO_MANY_ERRORS
from .message import CHUNK_TAKEN, FINISHED, IncomingMessage, Verdict
from .rows import Take, Taken
from .states import Occurrence, State

if TYPE_CHECKING:
    from .config import ServerConfig
    from .input import LineReader
    from .protocol import ServerProtocol

TINY_CHUNK: Final = 16  # octets; fewer, but in the last chunk, are junk: each costs as much as a command
_CHUNK = re.compile(rb"([0-9]{1,20})(?: +(LAST))?", re.IGNORECASE)
_DATA: Final = Data()
_BDAT: Final = Data(chunking=True)


class IncomingTransfer:
    """What comes of messages in one session: the one in progress, or the octets of a chunk to drop.

    Attributes:
        message: from its Data event to the end of its transaction; ``None`` at other times.
        state_before: the session's, before the chunk that is dropped, or was dropped last.
        refused_chunks: BDAT chunks whose octets were, or are being, dropped because they are not wanted.
    """

    __slots__ = ("_drop", "_drop_reply", "_octets", "message", "refused_chunks", "state_before")

    def __init__(self) -> None:
        self._octets: int = 0  # of messages that are over, since they were asked for
        self._drop: int = 0  # octets still to come of the chunk that was refused, and then
        self._drop_reply: Reply | None = None
        self.message: IncomingMessage | None = None
        self.refused_chunks: int = 0
        self.state_before: State = State.CONNECTED

    def begin(self, source: LineReader, config: ServerConfig, *, binary: bool, chunking: bool) -> IncomingMessage:
        """A message begins.

        Args:
            source: where its octets come from.
            config: the limits.
            binary: BODY=BINARYMIME.
            chunking: it comes by BDAT.
        """
        message = IncomingMessage(
            source, config.bare_newlines, config.nul, config.max_message_size, binary=binary, chunking=chunking
        )
        self.message = message
        return message

    @property
    def is_being_read(self) -> bool:
        """Whether the application has a message that it is not done with."""
        return self.message is not None and self.message.verdict is None

    @property
    def fault(self) -> Reply | None:
        """What is wrong with the message that has come to its end, as the reply that will refuse it."""
        return self.message.fault if self.message is not None else None

    def end(self) -> None:
        """The message in progress is over."""
        assert self.message is not None
        self._octets += self.message.content.received
        self.message = None

    @property
    def octets(self) -> int:
        """Octets of the messages that ended since :meth:`take_octets` was called last."""
        return self._octets

    def take_octets(self) -> int:
        """Octets of the messages that ended since it was asked last."""
        octets, self._octets = self._octets, 0
        return octets

    def refuse(self, size: int, reply: Reply, state: State) -> None:
        """The octets of a chunk are to be dropped, and answered with `reply`; then the session is in `state` again."""
        self._drop, self._drop_reply, self.state_before = size, reply, state
        self.refused_chunks += 1

    def drop(self, source: LineReader) -> Reply | None:
        """Drop what is there of the refused chunk; the reply when it was all."""
        if self._drop:
            self._drop -= len(source.take(self._drop))
        return None if self._drop else self._drop_reply

    def finish(self, protocol: ServerProtocol, message: IncomingMessage, verdict: Verdict) -> None:
        """The message is over, or will not be read on: give its replies and end its transaction."""
        utf8 = protocol.transactions.utf8
        if message.fault is not None and (not isinstance(verdict, Reply) or verdict.is_success):
            verdict = message.fault
        if protocol.profile.config.lmtp and message.is_over:  # RFC 2033 §4.2: a BDAT before the last has one reply
            replies = _replies_for_each(verdict, protocol.transactions.addressees)
            best, worst = min(replies, key=_code), max(replies, key=_code)
        elif isinstance(verdict, Reply):
            replies, best, worst = (verdict,), verdict, verdict
        else:
            raise TypeError("only LMTP has a reply for each recipient")
        accepted = best.is_success
        protocol.end_transaction(accepted=accepted)
        protocol.move(Occurrence.MESSAGE_END)
        offences = protocol.offences
        if accepted:
            offences.forgive()
        elif worst.is_permanent:
            offences.count_error()  # one message, one error, although LMTP has a reply for each recipient
        if offences.too_many:
            replies = (TOO_MANY_ERRORS,)
        for reply in replies:
            protocol.reply(reply, utf8=utf8, counted=False)
        if protocol.profile.must_take_turns and not protocol.is_closed and protocol.talks_out_of_turn():
            protocol.reply(OUT_OF_TURN)


# ---- the commands


def take_data(protocol: ServerProtocol, argument: bytes) -> Taken:
    """``DATA``"""
    if argument.strip():
        return Reply(501, "DATA takes no argument", "5.5.4")
    if protocol.transactions.binary:  # RFC 3030 §3
        return Reply(503, "BODY=BINARYMIME needs BDAT", "5.5.1")
    protocol.transfer.begin(protocol.input, protocol.profile.config, binary=False, chunking=False)
    return _DATA


def take_bdat(protocol: ServerProtocol, argument: bytes) -> Taken:
    """``BDAT octets [LAST]``"""
    size, last = _parse_chunk(argument)
    config = protocol.profile.config
    if config.max_message_size is not None and size > config.max_message_size:
        return _refuse_large(protocol)
    if size < TINY_CHUNK and not last:
        protocol.offences.count_junk()
    message = protocol.transfer.message
    if message is not None:
        message.begin_chunk(size, last)
        protocol.move(Occurrence.CHUNK_BEGIN)
        return None
    message = protocol.transfer.begin(protocol.input, config, binary=protocol.transactions.binary, chunking=True)
    message.begin_chunk(size, last)
    return _BDAT


def refuse_bdat(reply: Reply) -> Take:
    """BDAT where it is not allowed: the octets come all the same (RFC 3030 section 2)."""

    def refuse(protocol: ServerProtocol, argument: bytes) -> Taken:
        size, _ = _parse_chunk(argument)
        limit = protocol.profile.config.max_message_size
        if limit is not None and size > limit:
            return _refuse_large(protocol)
        protocol.transfer.refuse(size, reply, protocol.state)
        protocol.move(Occurrence.CHUNK_REFUSED)
        return None

    return refuse


def _parse_chunk(argument: bytes) -> tuple[int, bool]:
    match = _CHUNK.fullmatch(argument.strip(b" "))
    if match is None:  # how many octets follow cannot be known, so there is no way to stay in step
        raise Reject(501, "syntax: BDAT octets [LAST]", "5.5.4", close=True)
    return int(match[1]), match[2] is not None


def _refuse_large(protocol: ServerProtocol) -> Taken:
    # Nothing of the chunk is read, so this is the end; an application that waits for it hears why.
    reply = Reply(552, "the chunk is larger than a message may be", "5.3.4", close=True)
    if not protocol.transfer.is_being_read:
        return reply
    protocol.reply(reply)
    return Signal.BODY_TOO_LARGE


def refuse_message(protocol: ServerProtocol, event: Data, reply: Reply) -> Reply:
    """The application refuses DATA itself."""
    protocol.end_transaction(accepted=False)
    protocol.move(Occurrence.MESSAGE_END)
    protocol.queue.demand_flush()
    return reply


def abort_message(protocol: ServerProtocol) -> Signal:
    """The client gives the message up between two chunks."""
    protocol.end_transaction(accepted=False)
    protocol.move(Occurrence.MESSAGE_END)
    return Signal.BODY_ABORTED


# ---- the octets


def read_message(protocol: ServerProtocol) -> Event | None:
    """The next event while octets belong to the message."""
    message = protocol.transfer.message
    assert message is not None
    event = message.next()
    if event is CHUNK_TAKEN:
        protocol.move(Occurrence.CHUNK_END)
        protocol.reply(Reply(250, f"{message.content.received} octets received", "2.0.0"))
        return None
    if event is FINISHED:
        assert message.verdict is not None
        protocol.transfer.finish(protocol, message, message.verdict)
        return None
    return event


def read_dropped(protocol: ServerProtocol) -> Event | None:
    """The next event while octets belong to a chunk that was refused."""
    reply = protocol.transfer.drop(protocol.input)
    if reply is None:
        return EOF if protocol.input.eof else NEED_DATA
    protocol.move(Occurrence.CHUNK_DROPPED)
    protocol.reply(reply)
    return None


def _replies_for_each(verdict: Verdict, addressees: Sequence[str]) -> Sequence[Reply]:
    if isinstance(verdict, Reply):
        return (verdict,) * len(addressees)
    missing = Reply(451, "no word about this recipient", "4.3.0")
    return [verdict.get(address, missing) for address in addressees]  # RFC 2033 §4.2


def _code(reply: Reply) -> int:
    return reply.code
