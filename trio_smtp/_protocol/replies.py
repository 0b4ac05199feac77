# Replies: code, enhanced code and text, as a value and as bytes (RFC 5321 section 4.2, RFC 2034).
#
# Guarantee: whatever text an application puts into a Reply, it reaches the wire as exactly one well-formed reply.
# Control characters cannot end a line early, and no line is longer than 512 octets. reply_reader.py reads replies.
from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

MAX_LINE: Final = 512  # octets with CRLF, RFC 5321 §4.5.3.1.5
_ROOM: Final = MAX_LINE - len("250-\r\n")  # for the enhanced code and the text
KEPT: Final = 2048  # characters, and
KEPT_LINES: Final = 50  # lines of an abridged reply: a client may keep a thousand, one for each recipient
ENHANCED: Final = re.compile(r"([245])\.(0|[1-9][0-9]{0,2})\.(0|[1-9][0-9]{0,2})")  # RFC 3463 §2, no leading zeros
_UNPRINTABLE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f]"
)  # control characters other than TAB; text was already split at LF


class Reply:
    """One SMTP reply, sent by a server or received by a client. Immutable and comparable.

    Args:
        code: three digits, 200 to 599.
        text: one or more lines, as a str (split at line ends) or as a sequence of lines.
        enhanced: an enhanced status code ("5.7.1") whose class agrees with the code (RFC 3463). Without one, a server
            sends a 2xx, 4xx or 5xx reply with ``2.0.0``, ``4.0.0`` or ``5.0.0`` where RFC 2034 requires a code.
        close: a server closes the connection after this reply.

    Raises:
        TypeError: the code is no number.
        ValueError: the code or the enhanced code is invalid, or they disagree.
    """

    __slots__ = ("_plain_wire", "_wire", "close", "code", "enhanced", "lines")

    code: int
    lines: tuple[str, ...]
    enhanced: str | None
    close: bool
    _wire: bytes | None  # with the enhanced code, in ASCII: the form of nearly every reply
    _plain_wire: bytes | None  # without the enhanced code

    def __init__(
        self,
        code: int,
        text: str | Sequence[str] = "",
        enhanced: str | None = None,
        *,
        close: bool = False,
    ) -> None:
        if not isinstance(code, int) or isinstance(code, bool):
            example = f"{code!r}: it is a number, as in Reply(550, 'no', '5.7.1')"
            raise TypeError(f"the code of a reply is not {example}")
        if not 200 <= code <= 599 or code // 10 % 10 > 5:
            raise ValueError(f"{code!r} is not an SMTP reply code (RFC 5321 section 4.2.1)")
        if enhanced is not None:
            if not isinstance(enhanced, str):
                raise TypeError(f"the enhanced code of a reply must be a str such as '5.7.1', not {enhanced!r:.80}")
            match = ENHANCED.fullmatch(enhanced)
            if match is None:
                raise ValueError(f"{enhanced!r} is not an enhanced status code (RFC 3463)")
            if int(match[1]) != code // 100:
                raise ValueError(f"the enhanced code {enhanced} does not agree with {code} (RFC 2034 section 4)")
        self._set(code, _split(text), enhanced, close)

    def _set(self, code: int, lines: tuple[str, ...], enhanced: str | None, close: bool) -> None:
        write = object.__setattr__
        write(self, "code", code)
        write(self, "lines", lines)
        write(self, "enhanced", enhanced)
        write(self, "close", close)
        write(self, "_wire", None)
        write(self, "_plain_wire", None)

    @classmethod
    def received(cls, code: int, lines: tuple[str, ...], enhanced: str | None) -> Reply:
        """Make a reply from what a peer sent, without checks: the code may be one that a server here cannot send."""
        reply = cls.__new__(cls)
        reply._set(code, lines, enhanced, False)
        return reply

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Reply is immutable: cannot set {name!r}")

    def __reduce__(self) -> tuple[object, ...]:
        return _restored, (self.code, self.lines, self.enhanced, self.close)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Reply):
            return NotImplemented
        return self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[int, tuple[str, ...], str | None, bool]:
        return self.code, self.lines, self.enhanced, self.close

    def __repr__(self) -> str:
        close = ", close=True" if self.close else ""
        return f"Reply({self.code}, {self.text!r}, {self.enhanced!r}{close})"

    def __str__(self) -> str:
        enhanced = f" {self.enhanced}" if self.enhanced else ""
        lines = self.lines
        if lines and not lines[1:] and " " < lines[0][-1:] <= "~":  # nearly every reply: nothing to join or to strip
            return f"{self.code}{enhanced} {lines[0]}"
        return f"{self.code}{enhanced} {' / '.join(lines)}".rstrip()

    @property
    def text(self) -> str:
        """The lines, joined with LF, without codes."""
        return "\n".join(self.lines)

    @property
    def is_success(self) -> bool:
        """The code is 2xx, the command succeeded."""
        return 200 <= self.code <= 299

    @property
    def is_temporary(self) -> bool:
        """The code is 4xx, a temporary failure; the same command may succeed later."""
        return 400 <= self.code <= 499

    @property
    def is_permanent(self) -> bool:
        """The code is 5xx, a permanent failure; the same command will fail again."""
        return 500 <= self.code <= 599

    def abridged(self) -> Reply:
        """The reply with at most KEPT characters and KEPT_LINES lines of its text."""
        lines = self.lines
        if len(lines) <= KEPT_LINES and sum(map(len, lines)) <= KEPT:
            return self
        kept: list[str] = []
        room = KEPT
        for line in lines[:KEPT_LINES]:
            if not room:
                break
            kept.append(line[:room])
            room -= len(kept[-1])
        return Reply.received(self.code, tuple(kept), self.enhanced)

    def to_bytes(self, enhanced: bool = True, utf8: bool = False) -> bytes:
        """The reply as it goes over the wire.

        Args:
            enhanced: write an enhanced code (RFC 2034 forbids it in a 220 and in answers to EHLO and HELO).
            utf8: the client used SMTPUTF8, so text may be UTF-8 (RFC 6531 section 3.7.4.2). Otherwise non-ASCII
                characters are written as backslash escapes.
        """
        if utf8:
            return self._encode(enhanced, utf8)
        wire = self._wire if enhanced else self._plain_wire
        if wire is None:
            wire = self._encode(enhanced, False)
            object.__setattr__(self, "_wire" if enhanced else "_plain_wire", wire)
        return wire

    def _encode(self, with_enhanced: bool, utf8: bool) -> bytes:
        enhanced = ""
        if with_enhanced and self.code // 100 != 3:  # RFC 2034 §4: 2xx, 4xx and 5xx only
            enhanced = f"{self.enhanced or f'{self.code // 100}.0.0'} "
        room = _ROOM - len(enhanced)
        if len(self.lines) == 1 and len(line := self.lines[0]) <= room and line.isascii() and line.isprintable():
            return f"{self.code} {enhanced}{line}\r\n".encode("ascii")
        pieces: list[bytes] = []
        for line in self.lines:
            clean = _UNPRINTABLE.sub("?", line)
            encoded = clean.encode("utf-8", "replace") if utf8 else clean.encode("ascii", "backslashreplace")
            pieces.extend(_fold(encoded, room))
        start, last_start = f"{self.code}-{enhanced}".encode("ascii"), f"{self.code} {enhanced}".encode("ascii")
        *before, last = pieces
        return b"".join(start + piece + b"\r\n" for piece in before) + last_start + last + b"\r\n"


class Reject(Exception):
    """Raised by a hook to answer with a 4xx or 5xx :class:`Reply`. The arguments are those of ``Reply``.

    Attributes:
        reply: the answer.

    Raises:
        ValueError: the code is not 4xx or 5xx, or as for :class:`Reply`.
    """

    reply: Reply

    def __init__(
        self, code: int, text: str | Sequence[str] = "", enhanced: str | None = None, *, close: bool = False
    ) -> None:
        if isinstance(code, int) and not 400 <= code <= 599:
            raise ValueError(f"Reject needs a 4xx or 5xx code, not {code}")
        self.reply = Reply(code, text, enhanced, close=close)
        super().__init__(str(self.reply))

    def __reduce__(self) -> tuple[object, ...]:
        reply = self.reply
        return _rejecting, (reply.code, reply.lines, reply.enhanced, reply.close)


def _rejecting(code: int, lines: tuple[str, ...], enhanced: str | None, close: bool) -> Reject:
    return Reject(code, lines, enhanced, close=close)


def _restored(code: int, lines: tuple[str, ...], enhanced: str | None, close: bool) -> Reply:
    """Make a reply for copy and pickle."""
    reply = Reply.__new__(Reply)
    reply._set(code, lines, enhanced, close)
    return reply


def _split(text: str | Sequence[str]) -> tuple[str, ...]:
    """Split text into lines that contain no line ends."""
    if isinstance(text, str):
        if text.isprintable():
            return (text,)
        text = (text,)
    elif isinstance(text, bytes) or not isinstance(text, Iterable):
        raise TypeError(f"the text of a reply must be a str, or a sequence of lines, not {text!r:.80}")
    lines: list[str] = []
    for item in text:
        if not isinstance(item, str):
            raise TypeError(f"each line of a reply's text must be a str, not {item!r:.80}")
        lines.extend(re.split(r"\r\n|\r|\n", item.rstrip("\r\n")))
    return tuple(lines) or ("",)


def _fold(line: bytes, room: int) -> Iterator[bytes]:
    """Cut a line into pieces of at most `room` octets, never inside a UTF-8 character."""
    while len(line) > room:
        cut = room
        while line[cut] & 0xC0 == 0x80:
            cut -= 1
        yield line[:cut]
        line = line[cut:]
    yield line
