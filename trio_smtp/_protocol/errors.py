# The error tree, with two facts for the sender: the stage that was reached, and the fate of the message.
#
# SMTPError                        .reply .stage .delivery
# ├── LocalProtocolError           an argument breaks the rules of SMTP; nothing was sent (also ValueError)
# ├── RemoteProtocolError          the peer broke the protocol; the connection is closed
# ├── ConnectError                 could not reach the server                             (also OSError)
# ├── ConnectionLostError          the connection broke                                   (also ConnectionError)
# ├── TLSError                     STARTTLS refused, or the handshake failed
# ├── AuthenticationError          the credentials were refused
# │   └── UnsupportedAuthError     no mechanism in common, or none allowed
# ├── ExtensionNotSupportedError   the message needs an extension that the server does not offer
# ├── SenderRefusedError           MAIL was refused
# ├── RecipientsRefusedError       every recipient was refused
# ├── MessageRefusedError          the message was refused at its end
# ├── MessageTooLargeError         larger than the server's SIZE; in a hook, than max_message_size
# ├── MessageAbortedError          in a server's hook: the client abandoned the message
# ├── SMTPTimeoutError             a configured time limit expired                        (also TimeoutError)
# ├── PoolFullError                max_waiting callers are already waiting
# └── PoolClosedError              the pool closed, or was cancelled, with the message in it
from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import ClassVar, TypeVar

from .replies import Reply


class Stage(StrEnum):
    """The stage of the session at which an error occurred, in order."""

    CONNECT = "connect"
    GREETING = "greeting"
    HELLO = "hello"
    STARTTLS = "starttls"
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    BODY = "body"
    END = "end"


class Delivery(StrEnum):
    """The fate of a message whose sending failed.

    ``NOT_SENT``: the server did not accept it, so sending it again is safe. ``REFUSED``: the server refused it (after a
    4xx try again later, after a 5xx do not). ``UNKNOWN``: the end of the message was sent and no reply arrived, so it
    may have been delivered (RFC 1047; RFC 5321 section 6.1).
    """

    NOT_SENT = "not_sent"
    REFUSED = "refused"
    UNKNOWN = "unknown"


_Word = TypeVar("_Word", Stage, Delivery)


def _one_of(name: str, value: str, words: type[_Word]) -> _Word:
    try:
        return words(value)
    except ValueError:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, map(str, words)))}, not {value!r:.80}") from None


class SMTPError(Exception):
    """The root of all errors of trio_smtp.

    Attributes:
        reply: the server's reply that caused the error, or ``None``.
        stage: the stage of the session, or ``None`` if it has no meaning.
        delivery: the fate of the message, or ``None`` if there was no message.
        accepted: addresses for which the server nevertheless accepted the message (LMTP, split recipient lists).
        refused: address to the reply that refused it.
        unknown: addresses whose fate is unknown.

    Raises:
        ValueError: `stage` or `delivery` is none; the words are taken too.
        TypeError: `reply` is no :class:`Reply`.
    """

    _default_delivery: ClassVar[Delivery | None] = None
    reply: Reply | None
    stage: Stage | None
    delivery: Delivery | None
    accepted: list[str]
    refused: dict[str, Reply]
    unknown: list[str]

    def __init__(
        self,
        message: str = "",
        *,
        reply: Reply | None = None,
        stage: Stage | None = None,
        delivery: Delivery | None = None,
        accepted: Iterable[str] = (),
        refused: Mapping[str, Reply] | None = None,
        unknown: Iterable[str] = (),
    ) -> None:
        super().__init__(message)
        if reply is not None and not isinstance(reply, Reply):
            raise TypeError(f"reply must be a trio_smtp.Reply or None, not {reply!r:.80}")
        self.reply = reply
        self.stage = None if stage is None else _one_of("stage", stage, Stage)
        self.delivery = self._default_delivery if delivery is None else _one_of("delivery", delivery, Delivery)
        self.accepted = list(accepted)
        self.refused = dict(refused or {})
        self.unknown = list(unknown)

    def _place(self, stage: Stage | None) -> None:
        """Say how far the session had got."""
        self.stage = stage

    def __repr__(self) -> str:
        facts = {"stage": self.stage, "delivery": self.delivery}
        said = "".join(f", {name}={value.value!r}" for name, value in facts.items() if value is not None)
        return f"{type(self).__name__}({str(self)!r}{said})"


class LocalProtocolError(SMTPError, ValueError):
    """An argument breaks the rules of SMTP, for example CR or LF in an address. Nothing was sent."""

    _default_delivery = Delivery.NOT_SENT


class RemoteProtocolError(SMTPError):
    """The peer violated the protocol. A client closes the connection. In a server's hook: a bare CR or LF, or a NUL."""


class ConnectError(SMTPError, OSError):
    """The server could not be reached, or did not greet with 220. Nothing was sent."""


class ConnectionLostError(SMTPError, ConnectionError):
    """The connection broke. ``delivery`` is the fate of the message."""


class TLSError(SMTPError):
    """STARTTLS was refused or not offered, or the handshake failed. ``__cause__`` is the ``ssl`` error, if any."""


class AuthenticationError(SMTPError):
    """The server refused the credentials; ``reply`` is its answer."""


class UnsupportedAuthError(AuthenticationError):
    """Client and server have no mechanism in common, or none that is allowed on this connection."""


class ExtensionNotSupportedError(SMTPError):
    """The message needs an extension that the server does not offer. Nothing was sent."""


class SenderRefusedError(SMTPError):
    """The server refused MAIL; ``reply`` is its answer."""


class RecipientsRefusedError(SMTPError):
    """The server refused every recipient; ``refused`` maps each address to its reply."""


class MessageRefusedError(SMTPError):
    """The server refused the message at DATA or at its end; ``reply`` is its answer."""


class MessageTooLargeError(SMTPError):
    """The message is larger than the server's SIZE: refused before MAIL, or, for a stream, abandoned in the middle.

    In a server's hook: the client sent more than ``max_message_size`` octets.
    """


class MessageAbortedError(SMTPError):
    """In a server's hook: the client abandoned the message (RSET between BDAT chunks)."""


class SMTPTimeoutError(SMTPError, TimeoutError):
    """A configured time limit expired. A caller's own cancel scope never raises this."""


class PoolFullError(SMTPError):
    """``max_waiting`` callers are already waiting for a connection. Nothing was sent."""


class PoolClosedError(SMTPError):
    """The pool was closed or cancelled before the message came to its end.

    Read ``delivery``: the message may be ``UNKNOWN``, if the pool was cancelled while its reply was outstanding.
    """
