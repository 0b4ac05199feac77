# The error tree, and the two facts every sender needs: how far it got, and what became of the message.
#
# SMTPError                        .reply .stage .delivery
# ├── LocalProtocolError           you asked for something illegal; nothing was sent      (also ValueError)
# ├── RemoteProtocolError          the peer broke the protocol; the connection is closed
# ├── ConnectError                 could not reach the server                             (also OSError)
# ├── ConnectionLostError          the peer or the network went away                      (also ConnectionError)
# ├── TLSError                     STARTTLS refused, or the handshake failed
# ├── AuthenticationError          the credentials were refused
# │   └── UnsupportedAuthError     no mechanism in common, or none allowed here
# ├── ExtensionNotSupportedError   the message needs what the server does not offer
# ├── SenderRefusedError           MAIL was refused
# ├── RecipientsRefusedError       nobody was accepted
# ├── MessageRefusedError          the message was refused at its end
# ├── MessageTooLargeError         larger than SIZE, or in a hook than max_message_size
# ├── MessageAbortedError          in a server's hook: the client gave the message up
# ├── SMTPTimeoutError             one of our configured limits                           (also TimeoutError)
# ├── PoolFullError                more than max_waiting callers would wait
# └── PoolClosedError
from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import ClassVar

from .replies import Reply


class Stage(StrEnum):
    """How far a client got before the error, in the order of a session."""

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
    """What became of a message whose sending failed.

    ``NOT_SENT``: certainly not accepted, so that sending it again is safe. ``REFUSED``: the server said no
    (4xx may be tried later, 5xx not). ``UNKNOWN``: the end of the message was handed over and no answer came:
    it may have been delivered (RFC 1047; RFC 5321 section 6.1).
    """

    NOT_SENT = "not_sent"
    REFUSED = "refused"
    UNKNOWN = "unknown"


class SMTPError(Exception):
    """The root of every error that trio_smtp raises on purpose.

    Attributes:
        reply: the server's answer that caused the error, or ``None``.
        stage: how far the session had got, or ``None`` where that has no meaning.
        delivery: what became of the message, or ``None`` where there was none.
        accepted: addresses for which the server took the message all the same (LMTP, split lists).
        refused: address to the reply that refused it.
        unknown: addresses whose fate nobody can tell.
    """

    _default_delivery: ClassVar[Delivery | None] = None

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
        self.reply = reply
        self.stage = stage
        self.delivery = self._default_delivery if delivery is None else delivery
        self.accepted: list[str] = list(accepted)
        self.refused: dict[str, Reply] = dict(refused or {})
        self.unknown: list[str] = list(unknown)


class LocalProtocolError(SMTPError, ValueError):
    """You asked for something that SMTP does not allow (CR or LF in an address, say). Nothing was sent."""

    _default_delivery = Delivery.NOT_SENT


class RemoteProtocolError(SMTPError):
    """The peer broke the protocol. A client closes the connection; in a server's hook it means bare CR or LF."""


class ConnectError(SMTPError, OSError):
    """The server could not be reached, or did not greet us with 220. Nothing was sent."""


class ConnectionLostError(SMTPError, ConnectionError):
    """The peer or the network went away; ``delivery`` says what that means for the message."""


class TLSError(SMTPError):
    """STARTTLS was refused or missing, or the handshake failed; ``__cause__`` holds the ``ssl`` error if any."""


class AuthenticationError(SMTPError):
    """The server refused the credentials; ``reply`` is its answer."""


class UnsupportedAuthError(AuthenticationError):
    """Client and server have no mechanism in common, or none that may be used on this connection."""


class ExtensionNotSupportedError(SMTPError):
    """The message needs an extension that the server does not offer. Nothing was sent."""


class SenderRefusedError(SMTPError):
    """The server refused MAIL; ``reply`` is its answer."""


class RecipientsRefusedError(SMTPError):
    """The server refused every recipient; ``refused`` maps each address to its reply."""


class MessageRefusedError(SMTPError):
    """The server refused the message at DATA or at its end; ``reply`` is its answer."""


class MessageTooLargeError(SMTPError):
    """The message is larger than the server's SIZE: refused here, before MAIL, or given up in the middle of a stream.

    In a server's hook: the client sent more than ``max_message_size`` octets.
    """


class MessageAbortedError(SMTPError):
    """In a server's hook: the client gave the message up (RSET between BDAT chunks)."""


class SMTPTimeoutError(SMTPError, TimeoutError):
    """One of the configured time limits ran out. A caller's own cancel scope never raises this."""


class PoolFullError(SMTPError):
    """More than ``max_waiting`` callers would have to wait for a connection. Nothing was sent."""


class PoolClosedError(SMTPError):
    """The pool was closed before the message was given to a connection. Nothing was sent."""
