# The client's half of the protocol: which command may follow which, and which reply belongs to which command.
#
# Commands go out through send(). Replies come in through receive_data(); next_event() hands them out, each with the
# command it answers. Replies are counted, never guessed (RFC 2920 §3.1). `state` is where the server will be once it
# has accepted everything sent so far. So a group of commands can be sent at once, and the next message behind the end
# of the last one. When the last reply is in, `state` is corrected by what the replies said.
#
# Rule 1: every change of state is looked up in a table of this file: _NEXT by the command that is sent, _REPLIES by the
# reply to it, _LEFT by what the refusal that ends a group leaves open at the server, _MOVES by what happens besides. A
# missing key is an error: ours (LocalProtocolError, before an octet is sent) or the server's (RemoteProtocolError, and
# the session is over).
# Rule 2: a reply to nothing is an error, except for a 421, which is kept as `farewell`. A 421 ends the session whatever
# it answers; replies to what was sent before it came are still taken, and open nothing again.
# Rule 3: what a reply says of a message is noted by the Transaction itself, by the method that _FACTS names.
# Not known here: sockets, TLS, time, what a message looks like.
from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import Enum, StrEnum
from typing import Final, TypeAlias

from ..errors import Delivery, LocalProtocolError, RemoteProtocolError, Stage
from ..replies import Reply
from ..reply_reader import ReplyReader
from .commands import CONNECT, STAGES, Command, Verb
from .transaction import Left, Transaction


class State(StrEnum):
    """Where the session is, or will be once everything sent is accepted."""

    WAIT = "waiting for a reply"  # to a command that must be the last of its group
    HELLO = "before EHLO"
    READY = "ready"
    MAIL = "after MAIL"
    RCPT = "after RCPT"
    BODY = "after 354"
    CHUNKS = "after BDAT"
    SPOILT = "in a failed transaction"  # only RSET helps
    AUTH = "in an AUTH exchange"
    TLS = "before the TLS handshake"
    CLOSED = "closed"


class Occurrence(Enum):
    """What changes the state besides commands and the replies to them."""

    HANDSHAKE = "the TLS handshake is done"
    GAVE_UP = "refused in mid-text"
    FAREWELL = "421"
    BREACH = "a breach of the protocol"


_ANYWHERE: Final = (Verb.NOOP, Verb.OTHER)


def _row(state: State, **moves: State) -> dict[Verb, State]:
    row = {Verb[name]: target for name, target in moves.items()}
    row.update(dict.fromkeys(_ANYWHERE, state))
    row.setdefault(Verb.QUIT, State.WAIT)
    return row


# (state, command) -> state, as if the command had been accepted. WAIT where nothing may follow before the reply: after
# these a group ends (RFC 2920 §3.1), and what comes next depends on the answer.
_NEXT: Final[dict[State, dict[Verb, State]]] = {
    State.WAIT: {},
    State.HELLO: _row(State.HELLO, EHLO=State.WAIT, HELO=State.WAIT, LHLO=State.WAIT, RSET=State.HELLO),
    State.READY: _row(
        State.READY,
        EHLO=State.WAIT,
        HELO=State.WAIT,
        LHLO=State.WAIT,
        STARTTLS=State.WAIT,
        AUTH=State.WAIT,
        MAIL=State.MAIL,
        RSET=State.READY,
    ),
    State.MAIL: _row(State.MAIL, RCPT=State.RCPT, RSET=State.READY),
    State.RCPT: _row(
        State.RCPT, RCPT=State.RCPT, DATA=State.WAIT, BDAT=State.CHUNKS, LAST=State.READY, RSET=State.READY
    ),
    State.BODY: {Verb.END: State.READY},
    State.CHUNKS: _row(State.CHUNKS, BDAT=State.CHUNKS, LAST=State.READY, RSET=State.READY),
    State.SPOILT: _row(State.SPOILT, RSET=State.READY),
    State.AUTH: {Verb.RESPONSE: State.WAIT},
    State.TLS: {},
    State.CLOSED: {},
}

# command -> {first digit of the reply -> state}. None leaves the state to what is known of the transaction.
_Outcomes: TypeAlias = dict[int, State | None]
_HELLO: Final[_Outcomes] = {2: State.READY, 4: State.HELLO, 5: State.HELLO}
_AUTH: Final[_Outcomes] = {2: State.READY, 3: State.AUTH, 4: State.READY, 5: State.READY}
_ORDINARY: Final[_Outcomes] = {2: None, 4: None, 5: None}
_REPLIES: Final[dict[Verb, _Outcomes]] = {
    **dict.fromkeys(Verb, _ORDINARY),
    Verb.CONNECT: {2: State.HELLO, 4: State.CLOSED, 5: State.CLOSED},
    Verb.EHLO: _HELLO,
    Verb.HELO: _HELLO,
    Verb.LHLO: _HELLO,
    Verb.STARTTLS: {2: State.TLS, 4: State.READY, 5: State.READY},
    Verb.AUTH: _AUTH,
    Verb.RESPONSE: _AUTH,
    Verb.DATA: {3: State.BODY, 4: None, 5: None},
    Verb.OTHER: {2: None, 3: None, 4: None, 5: None},
    Verb.QUIT: {2: State.CLOSED, 4: State.CLOSED, 5: State.CLOSED},
}

# command -> {what is left of a transaction -> state}, where the last reply of a group refuses the command. After the
# end of a text nothing is left, whatever the reply (RFC 5321 §4.1.1.4). After DATA and BDAT servers differ in what
# remains (RFC 3030 §2).
_NO_TRANSACTION: Final = {Left.NOTHING: State.READY, Left.ANOTHER: State.SPOILT}
_ENVELOPE: Final = _NO_TRANSACTION | {Left.SENDER: State.MAIL, Left.RECIPIENTS: State.RCPT}
_TEXT: Final = _NO_TRANSACTION | {Left.SENDER: State.SPOILT, Left.RECIPIENTS: State.SPOILT}
_LEFT: Final[dict[Verb, dict[Left, State]]] = {
    Verb.MAIL: _ENVELOPE,
    Verb.RCPT: _ENVELOPE,
    Verb.DATA: _TEXT,
    Verb.BDAT: _TEXT,
    Verb.LAST: _TEXT,
}

_CLOSING: Final = dict.fromkeys(State, State.CLOSED)
_MOVES: Final[dict[Occurrence, dict[State, State]]] = {
    Occurrence.HANDSHAKE: {State.WAIT: State.WAIT, State.TLS: State.HELLO},  # WAIT: for the greeting
    Occurrence.GAVE_UP: {State.BODY: State.CLOSED},  # the server would read the rest of the text as commands
    Occurrence.FAREWELL: _CLOSING,
    Occurrence.BREACH: _CLOSING,
}

# command -> the method of its transaction that notes the reply, and says whether it was the command's last.
_FACTS: Final[dict[Verb, Callable[[Transaction, str, Reply], bool]]] = {
    Verb.MAIL: Transaction.answer_mail,
    Verb.RCPT: Transaction.answer_rcpt,
    Verb.DATA: Transaction.answer_data,
    Verb.BDAT: Transaction.answer_chunk,
    Verb.LAST: Transaction.answer_end,
    Verb.END: Transaction.answer_end,
}

# Where a message is while nothing is asked; STAGES has it for commands. An error belongs to what is being done: after
# RCPT the text is made or sent. A 421 that answers no command belongs to the command that comes next.
STAGES_BETWEEN: Final = {
    State.MAIL: Stage.RCPT,
    State.RCPT: Stage.BODY,
    State.CHUNKS: Stage.BODY,
    State.BODY: Stage.BODY,
}
_FAREWELL_STAGES: Final = STAGES_BETWEEN | {State.RCPT: Stage.DATA}

Event: TypeAlias = tuple[Command, Reply]

# Python 3.11 takes 60 ns to look a member up in its enumeration, and a message makes fifty such look-ups. So methods
# name states, verbs and occurrences by these; tables name them in full.
_WAIT: Final = State.WAIT
_BODY: Final = State.BODY
_CLOSED: Final = State.CLOSED
_MAIL: Final = Verb.MAIL
_RSET: Final = Verb.RSET
_END: Final = Verb.END
_LAST: Final = Verb.LAST
_HANDSHAKE: Final = Occurrence.HANDSHAKE
_GAVE_UP: Final = Occurrence.GAVE_UP
_FAREWELL: Final = Occurrence.FAREWELL
_BREACH: Final = Occurrence.BREACH


class ClientProtocol:
    """One client's view of one session.

    Args:
        max_reply_size: octets that one reply may have.

    Attributes:
        state: the :class:`State`.
        outstanding: commands that have no reply yet, the oldest first.
        pipelining: commands may be sent while others are outstanding.
        unread: octets have come that belong to no reply handed out yet.
        farewell: the 421 with which the server said that it goes away, if it did.
    """

    __slots__ = ("_current", "_reader", "farewell", "outstanding", "pipelining", "state", "unread")

    def __init__(self, *, max_reply_size: int = 65536) -> None:
        self._reader = ReplyReader(max_reply_size)
        self._current: Transaction | None = None  # of the last MAIL
        self.state = _WAIT
        self.outstanding: deque[Command] = deque((CONNECT,))
        self.pipelining = False
        self.unread = False
        self.farewell: Reply | None = None

    @property
    def is_silent(self) -> bool:
        """Nothing came behind the last reply, not even an empty line: STARTTLS's handshake may begin."""
        return not self.unread and not self._reader.blank

    @property
    def is_reusable(self) -> bool:
        """The next message can be sent, after RSET if need be."""
        return not self.outstanding and not self.unread and _RSET in _NEXT[self.state]

    def learn(self, *, pipelining: bool) -> None:
        """The server takes commands in groups, or one at a time."""
        self.pipelining = pipelining

    # -- out

    def send(self, *commands: Command) -> bytes:
        """The octets of commands, which from now on count as sent.

        Raises:
            LocalProtocolError: one may not be sent here; those before it count as sent.
            RemoteProtocolError: the server spoke unasked before.
        """
        outstanding = self.outstanding
        octets = b""  # of a group: few enough to be added one by one
        for command in commands:
            verb = command.verb
            state = _NEXT[self.state].get(verb)
            if state is None:
                raise LocalProtocolError(f"{verb.value} cannot be sent {self.state.value}", stage=STAGES[verb])
            if outstanding:
                if not self.pipelining:
                    raise LocalProtocolError(f"{verb.value} must wait for the reply to {outstanding[-1].verb.value}")
            elif self.unread:
                self.hear_unasked()
                raise self._breach("the server spoke before it was asked", self.farewell)
            self.state = state
            outstanding.append(command)
            octets += command.wire
            transaction = command.transaction
            if transaction is not None:
                if transaction.listener is not None:
                    transaction.listener("C", command)
                if verb is _MAIL:
                    transaction.note_mail()
                    self._current = transaction
                elif verb is _LAST or verb is _END:
                    transaction.note_end()
        return octets

    def tls_started(self) -> None:
        """The handshake is done: forget what was learnt in clear (RFC 3207 section 4.2).

        Raises:
            LocalProtocolError: it was not its time: neither before the greeting nor after the reply to STARTTLS.
        """
        if self.state not in _MOVES[_HANDSHAKE]:
            raise LocalProtocolError("STARTTLS was not accepted", stage=Stage.STARTTLS)
        self._move(_HANDSHAKE)
        self.learn(pipelining=False)

    # -- in

    def receive_data(self, data: bytes | bytearray) -> None:
        """Take octets from the server; :meth:`next_event` makes replies of them."""
        self._reader.receive_data(data)
        self.unread = self._reader.unread  # empty lines are not kept

    def next_event(self, *, skip: bool = False) -> Event | None:
        """The next reply with the command it answers, or ``None`` when more octets are needed.

        The replies to the end of an LMTP message come one by one, each with the same command.

        Args:
            skip: take all replies to what is outstanding that have come, and return the last.

        Raises:
            RemoteProtocolError: what came is no reply, answers nothing, or cannot be the answer to its command.
        """
        outstanding = self.outstanding
        if not self.unread or (self.state is _CLOSED and not outstanding):
            return None  # what follows a farewell has no meaning
        event: Event | None = None
        reader = self._reader
        try:
            while (reply := reader.next_reply()) is not None:
                event = self._match(reply) if outstanding else self._unasked(reply)
                if not skip or not outstanding:
                    break
        except RemoteProtocolError:
            self._move(_BREACH)
            raise
        finally:
            self.unread = reader.unread
        return event

    def hear_unasked(self) -> None:
        """Understand what the server has said while nothing was asked, if it has said something.

        After a 421 there is a `farewell`, after a refusal in the middle of a text the message is decided; either way
        the session is over.

        Raises:
            RemoteProtocolError: it has said something else, or not the whole of it.
        """
        if not self.unread or self.outstanding:
            return
        self.next_event()
        if self.state is not _CLOSED:
            raise self._breach("the server spoke before it was asked")

    def _match(self, reply: Reply) -> Event:
        """Give a reply to the oldest command that has none."""
        if self.farewell is not None:
            return self._match_late(reply)
        command = self.outstanding[0]
        verb, transaction = command.verb, command.transaction
        if transaction is not None and transaction.listener is not None:
            transaction.listener("S", reply)
        outcomes = _REPLIES[verb]
        kind = reply.code // 100
        if kind not in outcomes:
            raise self._breach(f"{reply} is no answer to {verb.value}", reply, STAGES[verb])
        if transaction is not None and not _FACTS[verb](transaction, command.recipient, reply):
            return command, reply  # LMTP: there is another to come
        self.outstanding.popleft()
        if reply.code == 421:  # RFC 5321 §3.8: it closes the connection now, whatever it was asked
            self._note_farewell(reply)
        elif (state := outcomes[kind]) is not None:
            self.state = state
        elif kind > 3 and not self.outstanding and transaction is not None and verb in _LEFT:
            self.state = _LEFT[verb][transaction.left]
        return command, reply

    def _match_late(self, reply: Reply) -> Event:
        """The same after a 421. It opens nothing again, and what it refuses was not accepted anyway.

        Raises:
            RemoteProtocolError: the server has accepted a text nevertheless. Which one is not known.
        """
        command = self.outstanding[0]
        if command.transaction is not None and command.transaction.listener is not None:
            command.transaction.listener("S", reply)
        is_end = command.verb in (_LAST, _END)
        if is_end and reply.is_success:
            for each in self.outstanding:
                if each.transaction is not None:
                    each.transaction.forget_answers()
            raise self._breach(f"{reply} to the end of a message, after 421", reply, Stage.END)
        if not (is_end and command.transaction is not None and command.transaction.lmtp):  # that may have several
            self.outstanding.popleft()
        return command, reply

    def _note_farewell(self, farewell: Reply) -> None:
        """The server has said 421: whatever has no reply was not accepted."""
        self.farewell = farewell
        self._move(_FAREWELL)
        for command in self.outstanding:
            if command.transaction is not None:
                command.transaction.lose(STAGES[command.verb], farewell)

    def _unasked(self, reply: Reply) -> Event | None:
        current = self._current
        if current is not None and current.listener is not None and self.state in _FAREWELL_STAGES:
            current.listener("S", reply)
        if self.state is _BODY and reply.code >= 400 and reply.code != 421 and current is not None:
            current.decide(Stage.BODY, reply)
            self._move(_GAVE_UP)
            return Command(_END, b"", current), reply
        if reply.code == 421:
            if current is not None and (stage := _FAREWELL_STAGES.get(self.state)) is not None:
                current.lose(stage, reply)  # said behind the replies to RCPT, it answers what comes next
            self._note_farewell(reply)
            return None
        if current is not None and current.ended and not current.lmtp and current.disagrees_with(reply):
            current.forget_reply()  # one of the two answered the end of the message, and it is not known which
            raise self._breach(f"the server answered the message twice: {reply}", reply, Stage.END)
        raise self._breach(f"the server spoke before it was asked: {reply}", reply)

    # -- the state

    def _move(self, occurrence: Occurrence) -> None:
        self.state = _MOVES[occurrence][self.state]

    def _breach(self, text: str, reply: Reply | None = None, stage: Stage | None = None) -> RemoteProtocolError:
        self._move(_BREACH)
        transaction = self._current
        is_open = transaction is not None and not transaction.is_decided
        delivery = transaction.delivery if transaction is not None and is_open else Delivery.NOT_SENT
        return RemoteProtocolError(text, reply=reply, stage=stage, delivery=delivery)
