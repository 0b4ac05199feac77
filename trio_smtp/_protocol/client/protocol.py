# The client's half of the protocol: which command may follow which, and which reply belongs to which command.
#
# Commands go out through send(). Replies come in through receive_data(); next_event() hands them out, each with the
# command it answers. Replies are counted, never guessed (RFC 2920 §3.1). `state` is where the server will be once it
# has accepted everything sent so far. So a group of commands can be sent at once, and the next message behind the end
# of the last one. When the last reply is in, `state` is corrected by what the replies said.
#
# Rule 1: every change of state happens in this file. _NEXT and _REPLIES list those by commands and replies; the others
# are in _refused(), _unasked(), _broken() and tls_started(), and a 421 closes anywhere. A missing key is an error: ours
# (LocalProtocolError, before an octet is sent) or the server's (RemoteProtocolError, and the session is over).
# Rule 2: a reply to nothing is an error, except for a 421, which is kept as `farewell`.
# Not known here: sockets, TLS, time, what a message looks like.
from __future__ import annotations

from collections import deque
from enum import StrEnum
from typing import Final, TypeAlias

from ..errors import Delivery, LocalProtocolError, RemoteProtocolError, Stage
from ..replies import Reply
from ..reply_reader import ReplyReader
from .commands import CONNECT, STAGES, Command, Verb
from .transaction import Transaction


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


_ANYWHERE: Final = (Verb.NOOP, Verb.OTHER)


def _row(state: State, **moves: State) -> dict[Verb, State]:
    row = {Verb[name]: target for name, target in moves.items()}
    row.update(dict.fromkeys(_ANYWHERE, state))
    row.setdefault(Verb.QUIT, State.WAIT)
    return row


_S = State
# (state, command) -> state, as if the command had been accepted. WAIT where nothing may follow before the reply: after
# these a group ends (RFC 2920 §3.1), and what comes next depends on the answer.
_NEXT: Final[dict[State, dict[Verb, State]]] = {
    _S.WAIT: {},
    _S.HELLO: _row(_S.HELLO, EHLO=_S.WAIT, HELO=_S.WAIT, LHLO=_S.WAIT, RSET=_S.HELLO),
    _S.READY: _row(
        _S.READY,
        EHLO=_S.WAIT,
        HELO=_S.WAIT,
        LHLO=_S.WAIT,
        STARTTLS=_S.WAIT,
        AUTH=_S.WAIT,
        MAIL=_S.MAIL,
        RSET=_S.READY,
    ),
    _S.MAIL: _row(_S.MAIL, RCPT=_S.RCPT, RSET=_S.READY),
    _S.RCPT: _row(_S.RCPT, RCPT=_S.RCPT, DATA=_S.WAIT, BDAT=_S.CHUNKS, LAST=_S.READY, RSET=_S.READY),
    _S.BODY: {Verb.END: _S.READY},
    _S.CHUNKS: _row(_S.CHUNKS, BDAT=_S.CHUNKS, LAST=_S.READY, RSET=_S.READY),
    _S.SPOILT: _row(_S.SPOILT, RSET=_S.READY),
    _S.AUTH: {Verb.RESPONSE: _S.WAIT},
    _S.TLS: {},
    _S.CLOSED: {},
}

# command -> {first digit of the reply -> state}. None leaves the state to what is known of the transaction.
_Outcomes: TypeAlias = dict[int, State | None]
_HELLO: Final[_Outcomes] = {2: _S.READY, 4: _S.HELLO, 5: _S.HELLO}
_AUTH: Final[_Outcomes] = {2: _S.READY, 3: _S.AUTH, 4: _S.READY, 5: _S.READY}
_ORDINARY: Final[_Outcomes] = {2: None, 4: None, 5: None}
_REPLIES: Final[dict[Verb, _Outcomes]] = {
    **dict.fromkeys(Verb, _ORDINARY),
    Verb.CONNECT: {2: _S.HELLO, 4: _S.CLOSED, 5: _S.CLOSED},
    Verb.EHLO: _HELLO,
    Verb.HELO: _HELLO,
    Verb.LHLO: _HELLO,
    Verb.STARTTLS: {2: _S.TLS, 4: _S.READY, 5: _S.READY},
    Verb.AUTH: _AUTH,
    Verb.RESPONSE: _AUTH,
    Verb.DATA: {3: _S.BODY, 4: None, 5: None},
    Verb.OTHER: {2: None, 3: None, 4: None, 5: None},
    Verb.QUIT: {2: _S.CLOSED, 4: _S.CLOSED, 5: _S.CLOSED},
}

# In a transaction that is not decided: where a 421 that answers no command belongs.
_UNDECIDED: Final = {_S.MAIL: Stage.RCPT, _S.RCPT: Stage.DATA, _S.CHUNKS: Stage.BODY, _S.BODY: Stage.BODY}

Event: TypeAlias = tuple[Command, Reply]

# Python 3.11 takes 60 ns to look a member up in its enumeration, and a message makes fifty such look-ups.
_CLOSED: Final = State.CLOSED
_MAIL: Final = Verb.MAIL
_RCPT: Final = Verb.RCPT
_RSET: Final = Verb.RSET
_DATA: Final = Verb.DATA
_END: Final = Verb.END
_LAST: Final = Verb.LAST
_AT_END: Final = Stage.END


class ClientProtocol:
    """One client's view of one session.

    Args:
        lmtp: speak LMTP: after the end of a message there is a reply for each accepted recipient.
        max_reply_size: octets that one reply may have.

    Attributes:
        state: the :class:`State`.
        outstanding: commands that have no reply yet, the oldest first.
        pipelining: the server offers PIPELINING, so that commands may be sent while others are outstanding.
        unread: octets have come that belong to no reply handed out yet.
        farewell: the 421 with which the server said that it goes away, if it did.
    """

    __slots__ = ("_current", "_lmtp", "_reader", "farewell", "outstanding", "pipelining", "state", "unread")

    def __init__(self, *, lmtp: bool = False, max_reply_size: int = 65536) -> None:
        self._lmtp = lmtp
        self._reader = ReplyReader(max_reply_size)
        self._current: Transaction | None = None  # of the last MAIL
        self.state = State.WAIT
        self.outstanding: deque[Command] = deque((CONNECT,))
        self.pipelining = False
        self.unread = False
        self.farewell: Reply | None = None

    @property
    def is_clean(self) -> bool:
        """Nothing is asked, and nothing was said unasked."""
        return not self.outstanding and not self.unread

    @property
    def is_silent(self) -> bool:
        """The same, and not even an empty line came behind the last reply: the handshake of STARTTLS may begin."""
        return self.is_clean and not self._reader.blank

    @property
    def is_reusable(self) -> bool:
        """The next message can be sent, after RSET if need be."""
        return not self.outstanding and not self.unread and _RSET in _NEXT[self.state]

    # -- out

    def send(self, *commands: Command) -> bytes:
        """The octets of commands, which from now on count as sent.

        Raises:
            LocalProtocolError: one may not be sent here; those before it count as sent.
            RemoteProtocolError: the server spoke unasked before.
        """
        outstanding = self.outstanding
        for command in commands:
            verb = command.verb
            state = _NEXT[self.state].get(verb)
            if state is None:
                raise LocalProtocolError(f"{verb.value} cannot be sent {self.state.value}", stage=STAGES.get(verb))
            if outstanding:
                if not self.pipelining:
                    raise LocalProtocolError(f"{verb.value} must wait for the reply to {outstanding[-1].verb.value}")
            elif self.unread:
                self.next_event()
                raise self._broken("the server spoke before it was asked", self.farewell)
            self.state = state
            outstanding.append(command)
            transaction = command.transaction
            if transaction is not None:
                if verb is _MAIL:
                    transaction.begun = True
                    self._current = transaction
                elif verb is _LAST or verb is _END:
                    transaction.ended = True
        return commands[0].wire if len(commands) == 1 else b"".join([command.wire for command in commands])

    def tls_started(self) -> None:
        """The handshake is done: forget what was learnt in clear (RFC 3207 section 4.2)."""
        if self.state is not State.TLS:
            raise LocalProtocolError("STARTTLS was not accepted", stage=Stage.STARTTLS)
        self.state = State.HELLO
        self.pipelining = False

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
                if not skip or not outstanding or self.state is _CLOSED:
                    break
        except RemoteProtocolError:
            self.state = _CLOSED
            raise
        finally:
            self.unread = reader.unread
        return event

    def _match(self, reply: Reply) -> Event:
        """Give a reply to the oldest command that has none."""
        command = self.outstanding[0]
        outcomes = _REPLIES[command.verb]
        kind = reply.code // 100
        if kind not in outcomes:
            raise self._broken(f"{reply} is no answer to {command.verb.value}", reply, STAGES.get(command.verb))
        if self._answer(command, reply):
            self.outstanding.popleft()
            if reply.code == 421:  # RFC 5321 §3.8: it closes the connection now, whatever it was asked
                self._part(reply)
            elif self.farewell is not None:
                pass  # to what was sent before the 421 came; nothing opens the session again
            elif (state := outcomes[kind]) is not None:
                self.state = state
            elif kind > 3 and not self.outstanding:
                self._refused(command)
        return command, reply

    def _answer(self, command: Command, reply: Reply) -> bool:
        """Note what the reply says of the message; whether it was the command's last."""
        transaction = command.transaction
        if transaction is None:
            return True
        verb = command.verb
        refused = reply.code >= 400
        if verb is _RCPT:
            if not refused:
                transaction.accepted.append(command.recipient)
            elif reply.code == 421:  # the session ended, and the recipient was not refused
                transaction.lose(Stage.RCPT, reply)
            else:
                transaction.refused[command.recipient] = reply.abridged()
            return True
        if verb is _MAIL:
            transaction.answered = True
        if verb is _DATA:
            if not refused and transaction.reply is not None:
                raise self._broken(f"{reply} to DATA, after MAIL was refused", reply, Stage.DATA)
            transaction.go_ahead = not refused
        if verb is _END or verb is _LAST:
            # Not after DATA: there the text was sent only if a recipient was accepted.
            if verb is _LAST and not refused and (transaction.reply is not None or not transaction.accepted):
                transaction.contradict()
                raise self._broken(f"{reply} to the end of a message that was refused", reply, _AT_END)
            if self._lmtp and transaction.accepted and transaction.reply is None:
                return self._answer_recipient(transaction, reply)
            transaction.decide(_AT_END, reply)
        elif reply.code == 421:
            transaction.lose(STAGES[verb], reply)
        elif refused:
            transaction.decide(STAGES[verb], reply)
        return True

    def _answer_recipient(self, transaction: Transaction, reply: Reply) -> bool:
        """RFC 2033 §4.2: one reply for each accepted recipient, in the order of their RCPT commands."""
        replies = transaction.replies
        replies[transaction.accepted[len(replies)]] = reply.abridged()
        if len(replies) < len(transaction.accepted):
            return False
        transaction.decide(Stage.END, next((r for r in replies.values() if r.is_success), reply))
        return True

    def _part(self, farewell: Reply) -> None:
        """The server has said 421: whatever has no reply was not accepted."""
        self.farewell = farewell
        self.state = _CLOSED
        for command in self.outstanding:
            if command.transaction is not None:
                command.transaction.lose(STAGES[command.verb], farewell)

    def _refused(self, command: Command) -> None:
        """Correct the state after the last reply of a group, a refusal: is a transaction open at the server?"""
        verb, transaction = command.verb, command.transaction
        if transaction is None or verb is Verb.END:
            return  # after the end the buffers are cleared, whatever the reply (RFC 5321 §4.1.1.4)
        if transaction.stage is Stage.MAIL:
            # 503 to MAIL: a transaction that we do not know of is open already (RFC 5321 §4.1.4).
            nested = transaction.reply is not None and transaction.reply.code == 503
            self.state = State.SPOILT if nested else State.READY
        elif verb is Verb.MAIL or verb is Verb.RCPT:
            self.state = State.MAIL if transaction.all_refused else State.RCPT
        else:
            # After DATA and BDAT servers differ in what remains of the transaction (RFC 3030 §2).
            self.state = State.SPOILT

    def _unasked(self, reply: Reply) -> Event | None:
        if self.state is State.BODY and reply.code >= 400 and reply.code != 421 and self._current is not None:
            # The server gave up in mid-message. It would read the rest of the text as commands.
            self._current.decide(Stage.BODY, reply)
            self.state = State.CLOSED
            return Command(Verb.END, b"", self._current), reply
        if reply.code == 421:
            if self._current is not None and (stage := _UNDECIDED.get(self.state)) is not None:
                self._current.lose(stage, reply)  # said behind the replies to RCPT, it answers what comes next
            self._part(reply)
            return None
        last = self._current
        if last is not None and last.ended and not last.lmtp and last.contradicts(reply):
            last.retract()  # one of the two answered the end of the message, and it is not known which
            raise self._broken(f"the server answered the message twice: {reply}", reply, Stage.END)
        raise self._broken(f"the server spoke before it was asked: {reply}", reply)

    def _broken(self, text: str, reply: Reply | None = None, stage: Stage | None = None) -> RemoteProtocolError:
        self.state = State.CLOSED
        transaction = self._current
        delivery = transaction.delivery if transaction is not None and transaction.begun else Delivery.NOT_SENT
        return RemoteProtocolError(text, reply=reply, stage=stage, delivery=delivery)
