# What a client may do to a server, as values. The caller answers each Command with accept() or answer() of
# ServerProtocol, and Data with conclude() as well.
from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias

from ..envelope import Recipient, Sender
from ..sasl import Credentials


class Signal(Enum):
    """What :meth:`ServerProtocol.next_event` returns when there is no command to answer."""

    NEED_DATA = "send what there is to send, then receive"
    FLUSH = "send what there is to send now (RFC 2920 section 3.2)"
    PAUSE = "wait for take_penalty() units before going on: the peer makes mistakes"
    EOF = "the peer has closed its side"
    CLOSE = "send what there is to send, then close"
    BODY_END = "the message is complete"
    BODY_TOO_LARGE = "the message has more than max_message_size octets; the rest is dropped"
    BODY_ABORTED = "the client gave the message up"


# Python 3.11 takes 60 ns to read a member off its class and 5 ns for a global, and some are read at every command.
NEED_DATA: Final = Signal.NEED_DATA
FLUSH: Final = Signal.FLUSH
PAUSE: Final = Signal.PAUSE
EOF: Final = Signal.EOF
BODY_END: Final = Signal.BODY_END


@dataclass(slots=True)
class Hello:
    """EHLO, HELO or LHLO."""

    verb: str
    name: str


@dataclass(slots=True)
class StartTLS:
    """STARTTLS; accepting it means that the handshake is next."""


@dataclass(slots=True)
class Authenticate:
    """AUTH has come as far as credentials."""

    credentials: Credentials


@dataclass(slots=True)
class Mail:
    """MAIL, well-formed and in order."""

    sender: Sender


@dataclass(slots=True)
class Rcpt:
    """RCPT, well-formed and in order."""

    recipient: Recipient


@dataclass(slots=True)
class Data:
    """DATA, or the first BDAT of a message (`chunking`)."""

    chunking: bool = False


@dataclass(slots=True)
class Verify:
    """VRFY; with `smtputf8` its reply may be UTF-8."""

    argument: str
    smtputf8: bool = False


@dataclass(slots=True)
class Expand:
    """EXPN, likewise."""

    argument: str
    smtputf8: bool = False


@dataclass(slots=True)
class XClient:
    """XCLIENT: a trusted relay names its client; accepted, :meth:`ServerProtocol.greet` is next."""

    attributes: dict[str, str | None]


@dataclass(slots=True)
class Extra:
    """A command that the application brought (:class:`ServerExtension`)."""

    verb: str
    argument: str


Command: TypeAlias = Hello | StartTLS | Authenticate | Mail | Rcpt | Data | Verify | Expand | XClient | Extra
Event: TypeAlias = Command | Signal | bytes
