# What happens on a client's connection, told to `ClientConfig.trace`.
#
# Guarantee: without such a function nothing here is made. What the function raises is logged once for a client or a
# pool, and goes no further.
#
# A connection tells its ClientWitness of each group of commands that is sent and of each reply; those who send messages
# tell it how they ended. It makes the events of that, in the manner of a server's (docs/observing.md). It changes
# nothing.
from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import trio

from .._observer import Observer
from .._protocol.client.commands import Command, Verb
from .._protocol.client.transaction import Transaction
from .._protocol.errors import (
    ConnectionLostError,
    RemoteProtocolError,
    SMTPError,
    SMTPTimeoutError,
    Stage,
    TLSError,
)
from .._protocol.replies import Reply
from .._wire.tls import TLSInfo
from .._wire.waits import Interrupted

ClientEventName: TypeAlias = Literal["connect", "tls", "auth", "command", "message", "close"]
"""The names of a :class:`ClientEvent`."""


class ClientEvent(NamedTuple):
    """One thing that happened on a client's connection, and is over; ``ClientConfig.trace`` is called with each.

    docs/observing.md has a table of what each event says.

    Attributes:
        name: ``"connect"`` (a server has greeted, or was not reached), ``"tls"`` (a handshake), ``"auth"`` (an AUTH
            exchange), ``"command"`` (a command was answered), ``"message"`` (a transaction has ended, however),
            ``"close"`` (a connection has).
        seconds: how long it took; of ``"close"`` the connection's age.
        verb: the command in upper case; ``""`` if there was none, or one of your own.
        code: of the reply; 0 if there was none.
        octets: of the command line, or of message content.
        detail: the text of the reply, the version of TLS, or the reason; see the table.
        error: what went wrong, or ``None``; a refusal is an answer, and no error here.
        pool_message: of ``"message"`` on a pool's connection: the :class:`Pool` and the number of the message that the
            transaction is for, as :class:`TraceEvent` has them; it comes before the ``"send"`` that it belongs to.
            ``None`` elsewhere.
    """

    name: ClientEventName
    seconds: float = 0.0
    verb: str = ""
    code: int = 0
    octets: int = 0
    detail: str = ""
    error: BaseException | None = None
    pool_message: tuple[Any, int] | None = None


_AUTH: Final = (Verb.AUTH, Verb.RESPONSE)
_ENDS: Final = (Verb.LAST, Verb.END)
_OWN_COMMANDS: Final = ("VRFY", "EXPN", "HELP", "ETRN", "XFORWARD", "XCLIENT")  # few, since they are metrics' labels
# The command whose reply has decided a message.
_DECIDED_BY: Final = {Stage.MAIL: "MAIL", Stage.RCPT: "RCPT", Stage.DATA: "DATA"}
_REASONS: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (SMTPTimeoutError, "timeout"),
    (TLSError, "tls"),
    (ConnectionLostError, "lost"),
    (RemoteProtocolError, "protocol"),
    (SMTPError, "refused"),
    (trio.Cancelled, "cancelled"),
    (Interrupted, "cancelled"),
)
_NEW: Final = tuple.__new__  # of a ClientEvent: its own takes twice as long


class _Text:
    """A message on its way."""

    __slots__ = ("began", "octets")

    def __init__(self) -> None:
        self.began: float | None = None  # when MAIL was sent
        self.octets: int = 0


class ClientWitness:
    """What one connection does, as events.

    Args:
        observer: told of them.
        began: when connecting did.
    """

    __slots__ = (
        "_began",
        "_function",
        "_has_said_quit",
        "_is_closed",
        "_is_greeted",
        "_last_code",
        "_mechanism",
        "_now",
        "_observer",
        "_octets",
        "_reason",
        "_sent",
        "_texts",
    )

    def __init__(self, observer: Observer[ClientEvent], began: float) -> None:
        self._observer: Observer[ClientEvent] = observer
        self._function = observer.function
        self._now = trio.lowlevel.current_clock().current_time
        self._began: float = began
        self._is_greeted: bool = False
        self._is_closed: bool = False
        self._has_said_quit: bool = False
        self._sent: deque[tuple[Command, float]] = (
            deque()
        )  # commands, and when; the oldest may have some of its replies
        self._mechanism: tuple[str, float] = ("", began)  # of the AUTH command, and when that was sent
        self._texts: dict[Transaction, _Text] = {}
        self._octets: int = 0  # of messages
        self._last_code: int = 0
        self._reason: BaseException | None = None

    def __repr__(self) -> str:
        return f"<ClientWitness: {len(self._sent)} commands, {len(self._texts)} messages>"

    # -- the dialogue

    def note_sent(self, commands: Sequence[Command]) -> None:
        """Commands are about to leave."""
        now = self._now()
        for command in commands:
            verb = command.verb
            self._sent.append((command, now))
            if verb is Verb.MAIL:
                self._text(command.transaction).began = now
            elif verb is Verb.AUTH:
                self._mechanism = command.wire.split(b" ", 2)[1].decode("ascii", "replace").strip(), now
            elif verb is Verb.QUIT:
                self._has_said_quit = True

    def note_reply(self, command: Command, reply: Reply) -> None:
        """A reply has come."""
        code = self._last_code = reply.code
        verb = command.verb
        if verb is Verb.CONNECT:
            self._greeted(code, reply.text)
            return
        sent = self._sent
        while sent and sent[0][0] is not command:
            sent.popleft()
        if verb in _ENDS or (code // 100 == 3 and verb in _AUTH):
            return  # it is told of as a message, or with the last reply of the exchange
        now = self._now()
        began = sent[0][1] if sent else now
        name: str = verb.value
        if verb in _AUTH:
            (detail, began), name = self._mechanism, "AUTH"
            self._tell(("auth", now - began, name, code, 0, detail, None))
        elif verb is Verb.OTHER:
            word = command.wire.split(None, 1)[0].decode("ascii", "replace").upper()
            name = word if word in _OWN_COMMANDS else ""
        self._tell(("command", now - began, name, code, len(command.wire), reply.text, None))

    def note_tls(self, began: float, tls: TLSInfo | None, error: BaseException | None = None) -> None:
        """A handshake that began then is over."""
        detail = f"{tls.version} {tls.cipher}" if tls is not None else ""
        verb = "STARTTLS" if self._is_greeted else ""
        if error is not None:
            self.note_reason(error)
        self._tell(("tls", self._now() - began, verb, 0, 0, detail, error))

    # -- messages

    def note_text(self, transaction: Transaction, octets: int) -> None:
        """A message's text has so many octets so far."""
        text = self._text(transaction)
        text.octets = max(text.octets, octets)

    def _text(self, transaction: Transaction | None) -> _Text:
        assert transaction is not None
        return self._texts.setdefault(transaction, _Text())

    def end_message(
        self,
        transaction: Transaction,
        error: BaseException | None,
        *,
        chunking: bool,
        origin: tuple[object, int] | None = None,
    ) -> None:
        """A transaction is over.

        Args:
            transaction: which.
            error: what ended it, if no reply did.
            chunking: its text goes by BDAT.
            origin: the pool and the number of its message that the transaction is for.
        """
        text = self._texts.pop(transaction, None)
        if error is not None:
            self.note_reason(error)
        if text is None or text.began is None:
            return  # nothing of it was sent
        reply, stage = transaction.reply, transaction.stage
        if stage is not Stage.MAIL and transaction.refused and transaction.all_refused:  # more than DATA's 503 says
            reply, stage = next(reversed(transaction.refused.values())), Stage.RCPT
        elif reply is None:
            reply = transaction.farewell
        octets = text.octets if transaction.ended or stage in (None, Stage.BODY) else 0
        self._octets += octets
        verb = "BDAT" if chunking else "DATA"
        if stage is not None:
            verb = _DECIDED_BY.get(stage, verb)
        code, detail = (0, "given up") if reply is None else (reply.code, reply.text)
        if len(transaction.replies) > 1:
            taken = sum(each.is_success for each in transaction.replies.values())
            detail = f"{taken} of {len(transaction.replies)} recipients"
        self._tell(("message", self._now() - text.began, verb, code, octets, detail, error), origin)

    # -- the beginning and the end

    def _greeted(self, code: int, text: str, error: BaseException | None = None) -> None:
        self._is_greeted = True
        self._tell(("connect", self._now() - self._began, "", code, 0, text, error))

    def note_reason(self, reason: BaseException) -> None:
        """What may end the connection."""
        self._reason = reason

    def close(self) -> None:
        """The connection is closed; told once."""
        if self._is_closed:
            return
        self._is_closed = True
        why = "quit" if self._has_said_quit else self._why()
        error = self._reason if why not in ("quit", "refused", "cancelled") else None
        if not self._is_greeted:
            self._greeted(0, "", self._reason)
        self._tell(("close", self._now() - self._began, "", self._last_code, self._octets, why, error))

    def _why(self) -> str:
        for kind, why in _REASONS:
            if isinstance(self._reason, kind):
                return why
        return "given up" if self._reason is None else "error"

    def _tell(
        self,
        fields: tuple[ClientEventName, float, str, int, int, str, BaseException | None],
        origin: tuple[object, int] | None = None,
    ) -> None:
        try:
            self._function(_NEW(ClientEvent, (*fields, origin)))
        except Exception:
            self._observer.note_failure()


def tell_unreached(observer: Observer[ClientEvent], began: float, error: BaseException) -> None:
    """Connecting has failed before there was a connection."""
    observer.tell(ClientEvent("connect", trio.current_time() - began, error=error))
