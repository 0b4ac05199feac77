# DATA and BDAT at a server: from the command to the reply at the message's end (RFC 5321 section 4.1.1.4, RFC 3030).
#
# Rule: the octets that a client has announced are read, whatever becomes of them, or the connection is closed.
from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from ..replies import Reply
from .core import ServerCore, Taken
from .events import Data, Event, Signal, State
from .message import IncomingMessage, Progress, Verdict
from .tables import END_WITH_DOT, MISPLACED, OUT_OF_TURN, TLS_FIRST, TOO_MANY_ERRORS

TINY_CHUNK: Final = 16  # octets; fewer, but in the last chunk, are junk: each costs as much as a command
_BDAT = re.compile(rb"([0-9]{1,20})(?: +(LAST))?", re.IGNORECASE)


class TransferCommands(ServerCore):
    """DATA, BDAT and the message."""

    __slots__ = ()

    def start_body(self) -> None:
        """The application wants the message: ask for it, unless it comes in chunks by itself."""
        event, self._pending = self._pending, None
        if not isinstance(event, Data) or self._message is None:
            raise RuntimeError("there is no message to read")
        if not event.chunking:
            self._write(END_WITH_DOT)
        self._message.reading = True

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
        return self._message.fault if self._message is not None else None

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
            # Nothing of it is read, so this is the end; an application that waits for the chunk hears why.
            is_awaited = self._message is not None and self._message.served
            self._reply(Reply(552, "the chunk is larger than a message may be", "5.3.4", close=True))
            return Signal.BODY_TOO_LARGE if is_awaited else None
        refusal = TLS_FIRST if self._must_start_tls else MISPLACED[self.state].get(b"BDAT")
        if refusal is not None:  # RFC 3030 §2: the octets come all the same
            self._drop, self._drop_reply = size, refusal
            self.refused_chunks += 1
            return None
        if size < TINY_CHUNK and not last:
            self._count_junk()
        message = self._message
        if message is not None:
            message.begin_chunk(size, last)
            message.reading = True
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
            self._reply(Reply(250, f"{message.received} octets received", "2.0.0"))
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
        envelope, fault = self.envelope, message.fault
        assert envelope is not None
        if fault is not None and (not isinstance(verdict, Reply) or verdict.is_success):
            verdict = fault
        if not self._profile.config.lmtp or not message.is_over:  # RFC 2033 §4.2: a BDAT before the last has one reply
            if not isinstance(verdict, Reply):
                raise TypeError("only LMTP has a reply for each recipient")
            replies: Sequence[Reply] = (verdict,)
        else:
            replies = self._replies_for_each(verdict)
        best = worst = replies[0]
        if len(replies) > 1:
            best, worst = min(replies, key=_code), max(replies, key=_code)
        self._count_message(best, worst)
        if self._errs_too_often:
            replies = (TOO_MANY_ERRORS,)
        for reply in replies:
            self._write(reply, utf8=envelope.sender.smtputf8)
        if self._must_take_turns and not self.is_closed and self._talks_out_of_turn():
            self._reply(OUT_OF_TURN)

    def _count_message(self, best: Reply, worst: Reply) -> None:
        accepted = best.is_success
        self._end_transaction(accepted=accepted)
        if accepted:
            self._errors = self._junk = 0
        elif worst.is_permanent:
            self._count_error()  # one message, one error, although LMTP has a reply for each recipient

    def _replies_for_each(self, verdict: Verdict) -> Sequence[Reply]:
        if isinstance(verdict, Reply):
            return (verdict,) * len(self._addressees)
        missing = Reply(451, "no word about this recipient", "4.3.0")
        return [verdict.get(address, missing) for address in self._addressees]  # RFC 2033 §4.2


def _code(reply: Reply) -> int:
    return reply.code
