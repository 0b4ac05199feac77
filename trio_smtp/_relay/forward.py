# A handler that relays: every answer that it gives is the next server's.
#
# A transaction of the session is one of the next server's, on a connection of the pool that it has for itself from MAIL
# to its end. Nothing is stored and nothing is answered ahead, so nothing can be lost between the two: a message is
# accepted when the next server has accepted it. The text is handed on as it comes, so that a message of any size costs
# a few buffers, and a slow server slows the client down.
#
# What a server said is passed on as it is, with two exceptions. A 421 is about its own session, and becomes a 451. And
# what has no reply (the connection was lost, say) is a 451 too, also where it is not known whether the message was
# accepted: the client tries again, and the message may arrive twice. `unknown="accept"` chooses to lose it rather.
#
# Of LMTP at the other end and SMTP at this one: the one reply to a message cannot say what became of each of several
# recipients, so such a transaction has one recipient, and the client is asked to send again for the others.
from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Final, Literal

from .._pool.pool import Pool
from .._pool.stepped import SteppedMessage
from .._protocol.checks import check_choice
from .._protocol.envelope import Envelope, Recipient, Sender
from .._protocol.errors import (
    Delivery,
    ExtensionNotSupportedError,
    LocalProtocolError,
    MessageTooLargeError,
    SMTPError,
)
from .._protocol.replies import Reply
from .._server.body import Body
from .._server.handler import Handler
from .._server.session import Session

_UNREACHABLE: Final = Reply(451, "the next server cannot be reached, try again later", "4.4.1")
_LOST: Final = Reply(451, "the connection to the next server was lost, try again later", "4.4.2")
_IN_DOUBT: Final = Reply(451, "the next server did not answer, and may have the message: try again later", "4.4.2")
_PRESUMED: Final = Reply(250, "OK: the next server has the message, but did not answer", "2.0.0")
_ONE_AT_A_TIME: Final = Reply(452, "one recipient at a time, please", "4.5.3")
_TOO_LARGE: Final = Reply(552, "the message is larger than the next server takes", "5.3.4")
_CONVERSION: Final = Reply(554, "the next server does not take 8-bit text", "5.6.3")
_BAD_ADDRESS: Final = Reply(553, "the address cannot be sent to the next server", "5.1.3")
_NO_UTF8: Final = Reply(553, "the next server does not offer SMTPUTF8", "5.6.7")


def forward(pool: Pool, *, unknown: Literal["refuse", "accept"] = "refuse") -> Handler:
    """Make a handler that relays all mail through a pool, and tells the client what the next server says.

    MAIL and RCPT are asked of the next server when they come, with BODY, SMTPUTF8, SIZE, RET, ENVID, NOTIFY and ORCPT;
    the text is streamed while it is received; the reply to it is the reply, for each recipient in LMTP. Nothing is
    stored, and no header field is added. A transaction has a connection of the pool for itself, from MAIL on, so that
    the pool wants as many connections as there are clients that send at the same time. ``handler_timeout`` is to be
    longer than the pool's ``end_timeout``.

    Args:
        pool: open for as long as the server runs.
        unknown: what a client is told when it is not known whether the next server has its message:
            ``"refuse"`` (451: it tries again, and the message may arrive twice) or ``"accept"`` (250: it may be lost).

    Raises:
        TypeError, ValueError: an argument is of the wrong kind, or the pool signs messages.

    Cancelling a hook gives the message up; after its end, once ``end_grace`` is over. The connection is given back.
    """
    if not isinstance(pool, Pool):
        raise TypeError(f"forward() relays through a Pool, not {type(pool).__name__}")
    check_choice("unknown", unknown, ("refuse", "accept"))
    if pool._signing is not None:
        raise ValueError("a pool with sign= cannot relay: the signature stands above the text, which is not known yet")
    return _Forward(pool, _IN_DOUBT if unknown == "refuse" else _PRESUMED)


class _Forward(Handler):
    """Relays. One message for each session in a transaction."""

    def __init__(self, pool: Pool, in_doubt: Reply) -> None:
        self._pool: Final = pool
        self._in_doubt: Final = in_doubt
        self._open: Final[dict[Session, SteppedMessage]] = {}

    def __repr__(self) -> str:
        return f"<trio_smtp.forward through {self._pool!r}: {len(self._open)} transactions>"

    async def on_mail(self, session: Session, sender: Sender) -> Reply | None:
        """Ask for a connection, and say MAIL on it."""
        try:
            message = await self._pool._begin(sender.address, sender.params)
        except SMTPError as exc:
            return _answer_to(exc, _UNREACHABLE)
        reply = message.reply
        assert reply is not None
        if reply.is_success:
            self._open[session] = message
        else:
            message.close()
        return _passed_on(reply)

    async def on_rcpt(self, session: Session, recipient: Recipient) -> Reply | None:
        """Say RCPT."""
        message = self._open.get(session)
        if message is None:
            return _LOST
        if message.lmtp and not _speaks_lmtp(session) and message.accepted not in ([], [recipient.address]):
            return _ONE_AT_A_TIME
        try:
            reply = await message.rcpt(recipient.address, recipient.params)
        except SMTPError as exc:
            return _answer_to(exc, _LOST)
        return _passed_on(reply)

    async def on_data(self, session: Session, envelope: Envelope, body: Body) -> Reply | Mapping[str, Reply]:
        """Hand the text on; the reply to it is the next server's."""
        message = self._open.pop(session, None)
        if message is None:
            return _LOST
        text = _Text(body)
        accepted: list[str] = []
        unknown: list[str] = []
        try:
            result = await message.send(text)
        except SMTPError as exc:
            if exc is text.error:
                raise  # the client's own fault, and the server knows what to say
            if isinstance(exc, LocalProtocolError):
                reply = Reply(554, f"the message cannot be sent on: {exc}", "5.6.0")
            else:
                reply = self._in_doubt if exc.delivery is Delivery.UNKNOWN else _answer_to(exc, _LOST)
            replies, accepted, unknown = exc.refused, exc.accepted, exc.unknown
        else:
            reply, replies = _passed_on(result.reply), result.refused | result.replies
        finally:
            message.close()
        if not _speaks_lmtp(session):
            return reply
        named = {address: _passed_on(each) for address, each in replies.items()}
        named |= dict.fromkeys(unknown, self._in_doubt) | dict.fromkeys(accepted, Reply(250, "OK", "2.0.0"))
        return {each.address: named.get(each.address, reply) for each in envelope.recipients}

    async def on_reset(self, session: Session) -> None:
        """The client has given the transaction up, or it has come to nothing: give the connection back."""
        self._close(session)

    async def on_close(self, session: Session) -> None:
        """The client is gone."""
        self._close(session)

    def _close(self, session: Session) -> None:
        message = self._open.pop(session, None)
        if message is not None:
            message.close()


class _Text:
    """A message's text on its way, and what went wrong in getting it."""

    def __init__(self, body: Body) -> None:
        self._body: Final = body
        self.error: SMTPError | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._body)
        except SMTPError as exc:
            self.error = exc
            raise


def _speaks_lmtp(session: Session) -> bool:
    return session._protocol.profile.config.lmtp


def _passed_on(reply: Reply) -> Reply:
    """What the next server said, as this server says it; a 421 is about a session that is not the client's."""
    if reply.code == 421:
        return Reply.received(451, reply.lines, reply.enhanced)
    return reply


def _answer_to(error: SMTPError, lost: Reply) -> Reply:
    """What a client is told of an error that is no answer of the next server's to its command."""
    if isinstance(error, MessageTooLargeError):
        return _TOO_LARGE
    if isinstance(error, ExtensionNotSupportedError):
        if "SMTPUTF8" in str(error):
            return _NO_UTF8
        if "8BITMIME" in str(error):
            return _CONVERSION
        return Reply(555, f"the next server cannot do that: {error}", "5.5.4")
    if isinstance(error, LocalProtocolError):
        return _BAD_ADDRESS
    if error.reply is not None and error.delivery is Delivery.REFUSED:
        return _passed_on(error.reply)
    return lost
