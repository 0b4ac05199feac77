# What a client says: each command as the octets it is on the wire, with its verb beside it.
#
# Rule: every string that comes from a caller reaches the wire through encode_line(). It refuses control characters, so
# that no argument can end a line early and begin a command of its own.
from __future__ import annotations

import re
from enum import StrEnum
from typing import Final

from ..errors import Delivery, LocalProtocolError, Stage
from .transaction import Transaction

_CONTROL = re.compile(r"[\x00-\x1f\x7f]").search
_WORD = re.compile(r"[!-~]{1,40}").match
_HELLO_NAME = re.compile(r"[!-~]+").fullmatch


class Verb(StrEnum):
    """The kinds of commands, as far as the order in which they may be sent depends on them.

    CONNECT is answered by the greeting, RESPONSE is a client's line in an AUTH exchange, END is what ends the text
    after DATA, LAST is ``BDAT … LAST``. OTHER stands for every command that changes no state known here.
    """

    CONNECT = "CONNECT"
    EHLO = "EHLO"
    HELO = "HELO"
    LHLO = "LHLO"
    STARTTLS = "STARTTLS"
    AUTH = "AUTH"
    RESPONSE = "AUTH response"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    BDAT = "BDAT"
    LAST = "BDAT LAST"
    END = "the end of the message"
    RSET = "RSET"
    NOOP = "NOOP"
    QUIT = "QUIT"
    OTHER = "command"


# Where an error about a command is said to be.
STAGES: Final[dict[Verb, Stage]] = {
    Verb.CONNECT: Stage.GREETING,
    Verb.EHLO: Stage.HELLO,
    Verb.HELO: Stage.HELLO,
    Verb.LHLO: Stage.HELLO,
    Verb.STARTTLS: Stage.STARTTLS,
    Verb.AUTH: Stage.AUTH,
    Verb.RESPONSE: Stage.AUTH,
    Verb.RSET: Stage.MAIL,  # it stands before MAIL, or gives a transaction up
    Verb.NOOP: Stage.MAIL,  # these are for between messages
    Verb.OTHER: Stage.MAIL,
    Verb.QUIT: Stage.MAIL,
    Verb.MAIL: Stage.MAIL,
    Verb.RCPT: Stage.RCPT,
    Verb.DATA: Stage.DATA,
    Verb.BDAT: Stage.BODY,
    Verb.LAST: Stage.END,
    Verb.END: Stage.END,
}

# Python 3.11 takes 60 ns to look a member up in its enumeration. Functions use these; the rest names a member in full.
_AUTH: Final = Verb.AUTH
_RESPONSE: Final = Verb.RESPONSE
_MAIL: Final = Verb.MAIL
_RCPT: Final = Verb.RCPT
_DATA: Final = Verb.DATA
_BDAT: Final = Verb.BDAT
_LAST: Final = Verb.LAST
_END: Final = Verb.END
_OTHER: Final = Verb.OTHER

_SECRET = frozenset({Verb.AUTH, Verb.RESPONSE})


class Command:
    """One command: what it is, its octets, and the message it belongs to, if any.

    Args:
        words: the line as a str, where that is at hand and may be logged.

    Attributes:
        verb: its kind.
        wire: its octets with CRLF.
        transaction: the message that MAIL, RCPT, DATA, BDAT and the end belong to.
        recipient: for RCPT, the address as the caller wrote it.
    """

    __slots__ = ("_words", "recipient", "transaction", "verb", "wire")

    def __init__(
        self, verb: Verb, wire: bytes, transaction: Transaction | None = None, recipient: str = "", words: str = ""
    ) -> None:
        self.verb = verb
        self.wire = wire
        self.transaction = transaction
        self.recipient = recipient
        self._words = words

    @property
    def keyword(self) -> str:
        """Its first word in upper case, as a server would name it; that of the command for a line of AUTH or a text."""
        if self.verb in _SECRET:
            return "AUTH"
        if self.verb is _END:
            return "DATA"
        return self.wire.split(None, 1)[0].decode("ascii", "replace").upper() if self.wire else ""

    def __str__(self) -> str:
        """As it may be logged: no secrets, no message text."""
        if self._words:
            return self._words
        if self.verb is _END:
            return "."
        if self.verb in _SECRET:
            word = self.wire.split(b" ", 2)[1].decode().strip() if self.verb is _AUTH else ""
            return f"AUTH {word} ***" if word else "***"
        return self.wire[:-2].decode("utf-8", "backslashreplace")

    def __repr__(self) -> str:
        return f"<Command {self}>"


def encode_line(text: str, *, utf8: bool = False, shown: str = "") -> bytes:
    """Encode the text of a command and add CRLF; refuse what could end the line early.

    Args:
        text: the whole command.
        utf8: characters outside ASCII are allowed (RFC 6531 section 3.1).
        shown: what an error says instead of `text`, where that may hold a secret.

    Raises:
        LocalProtocolError: control characters (CR, LF and NUL among them), or non-ASCII where it is not allowed.
    """
    if _CONTROL(text):
        what = shown or repr(text[:80])
        raise LocalProtocolError(f"control characters cannot be sent in {what}", delivery=Delivery.NOT_SENT)
    try:
        return (text + "\r\n").encode("utf-8" if utf8 else "ascii")
    except UnicodeEncodeError:
        what = shown or repr(text[:80])
        raise LocalProtocolError(f"{what} is not ASCII", delivery=Delivery.NOT_SENT) from None


def hello(verb: Verb, name: str) -> Command:
    """EHLO, HELO or LHLO."""
    if not _HELLO_NAME(name):
        raise LocalProtocolError(f"{name!r} cannot be the name in {verb.value}", stage=Stage.HELLO)
    return Command(verb, encode_line(f"{verb.value} {name}"))


def mail(transaction: Transaction, address: str, params: str = "", *, utf8: bool = False) -> Command:
    """MAIL with a checked address and parameters made by ``format_params``."""
    line = f"MAIL FROM:<{address}>{params}"
    return Command(_MAIL, encode_line(line, utf8=utf8), transaction, "", line)


def rcpt(transaction: Transaction, recipient: str, address: str, params: str = "", *, utf8: bool = False) -> Command:
    """RCPT; `recipient` is the address as the caller wrote it, `address` as it is sent."""
    line = f"RCPT TO:<{address}>{params}"
    return Command(_RCPT, encode_line(line, utf8=utf8), transaction, recipient, line)


def bdat(transaction: Transaction, size: int, *, last: bool = False) -> Command:
    """BDAT; exactly `size` octets of the message follow."""
    if last:
        return Command(_LAST, b"BDAT %d LAST\r\n" % size, transaction)
    return Command(_BDAT, b"BDAT %d\r\n" % size, transaction)


def data(transaction: Transaction) -> Command:
    """DATA."""
    return Command(_DATA, b"DATA\r\n", transaction, "", "DATA")


def end(transaction: Transaction, wire: bytes) -> Command:
    """What ends the message text; `wire` is the encoder's last word, ``.CRLF`` at its end."""
    return Command(_END, wire, transaction)


def auth(line: bytes) -> Command:
    """AUTH, as a SASL mechanism wrote it; base64 and a mechanism's name hold nothing that could end a line."""
    return Command(_AUTH, encode_line(line.decode("ascii"), shown="an AUTH command"))


def auth_response(line: bytes) -> Command:
    """A line of an AUTH exchange; ``*`` cancels it (RFC 4954 section 4)."""
    return Command(_RESPONSE, encode_line(line.decode("ascii"), shown="a line of an AUTH exchange"))


CONNECT: Final = Command(Verb.CONNECT, b"")
STARTTLS: Final = Command(Verb.STARTTLS, b"STARTTLS\r\n")
RSET: Final = Command(Verb.RSET, b"RSET\r\n")
NOOP: Final = Command(Verb.NOOP, b"NOOP\r\n")
QUIT: Final = Command(Verb.QUIT, b"QUIT\r\n")

# Commands that change the state of ClientProtocol, or whose answer it must understand, cannot be sent as text;
_MANAGED = frozenset({"EHLO", "HELO", "LHLO", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA", "BDAT", "RSET", "QUIT"})
# nor can those unknown to it that begin a transaction, turn the session round or begin it anew.
_UNMANAGED = frozenset({"SEND", "SOML", "SAML", "BURL", "TURN", "ATRN", "XCLIENT"})


def other(line: str, *, utf8: bool = False) -> Command:
    """Any command that is answered by one reply and changes nothing: NOOP, VRFY, EXPN, HELP, an X… command.

    Raises:
        LocalProtocolError: it is empty, has control characters, or changes the session. Of the line it says no more
            than the first word: the rest may be a secret.
    """
    if not isinstance(line, str):
        raise TypeError(f"a command must be a str, not {type(line).__name__}")
    word = _WORD(line)
    if word is None:
        raise LocalProtocolError("there is no command in the line", delivery=Delivery.NOT_SENT)
    verb = word[0].upper()
    if verb in _MANAGED or verb in _UNMANAGED:
        raise LocalProtocolError(
            f"cannot send {verb} as it is: it changes the session, which the client must know of",
            delivery=Delivery.NOT_SENT,
        )
    return Command(_OTHER, encode_line(line, utf8=utf8, shown=f"a line with {verb}"))
