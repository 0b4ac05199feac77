# Replies: code, enhanced code and text, as value, as bytes and back (RFC 5321 section 4.2, RFC 2034).
#
# Two promises. Whatever text an application puts into a Reply, it reaches the wire as exactly one well-formed reply:
# control characters cannot end a line early, and no line is longer than 512 octets. And whatever bytes a peer sends,
# ReplyReader either yields replies or raises RemoteProtocolError, within its limits, in time linear in the bytes.
from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from .errors import RemoteProtocolError

MAX_LINE: Final = 512  # octets with CRLF, RFC 5321 §4.5.3.1.5
MAX_LINES: Final = 1000  # of one reply that is heard; EHLO's are some thirty, HELP's some hundred
KEPT: Final = 2048  # characters of a reply that is kept with a thousand others, one for each recipient,
KEPT_LINES: Final = 50  # and lines
_ENHANCED = re.compile(r"([245])\.(0|[1-9][0-9]{0,2})\.(0|[1-9][0-9]{0,2})")  # RFC 3463 §2, no leading zeros
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")  # all control characters but TAB; LF was split on before


class Reply:
    """One SMTP reply: immutable, comparable, the same class for what a server says and what a client hears.

    Args:
        code: three digits, 200 to 599.
        text: one or more lines, as a str (split at line ends) or as a sequence of lines.
        enhanced: an enhanced status code ("5.7.1") whose class agrees with the code (RFC 3463). Left out, a 2xx,
            4xx or 5xx reply of a server is sent with ``2.0.0``, ``4.0.0`` or ``5.0.0`` where the RFC wants one.
        close: a server closes the connection after this reply.

    Raises:
        ValueError: for a code or an enhanced code that is none, or that disagree.
    """

    __slots__ = ("_plain_wire", "_wire", "close", "code", "enhanced", "lines")

    code: int
    lines: tuple[str, ...]
    enhanced: str | None
    close: bool
    _wire: bytes | None  # with the enhanced code and in ASCII, as nearly every reply goes out
    _plain_wire: bytes | None  # without the code

    def __init__(
        self,
        code: int,
        text: str | Sequence[str] = "",
        enhanced: str | None = None,
        *,
        close: bool = False,
    ) -> None:
        if not 200 <= code <= 599 or code // 10 % 10 > 5:
            raise ValueError(f"{code!r} is no SMTP reply code (RFC 5321 section 4.2.1)")
        if enhanced is not None:
            match = _ENHANCED.fullmatch(enhanced)
            if match is None:
                raise ValueError(f"{enhanced!r} is no enhanced status code (RFC 3463)")
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
        """Make a reply of what a peer sent, which may be a code that we would never send."""
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
        return f"{self.code}{enhanced} {' / '.join(self.lines)}".rstrip()

    @property
    def text(self) -> str:
        """The lines, joined with LF, without codes."""
        return "\n".join(self.lines)

    @property
    def is_success(self) -> bool:
        """2xx: the server has done it."""
        return 200 <= self.code <= 299

    @property
    def is_temporary(self) -> bool:
        """4xx: not now; the same command may succeed later."""
        return 400 <= self.code <= 499

    @property
    def is_permanent(self) -> bool:
        """5xx: no; the same command will fail again."""
        return 500 <= self.code <= 599

    def abridged(self) -> Reply:
        """The reply with no more than the first KEPT characters of its text, in KEPT_LINES at most."""
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
            utf8: the client used SMTPUTF8, so that text may be UTF-8 (RFC 6531 section 3.7.4.2); else what is not
                ASCII is written as backslash escapes.
        """
        if utf8:
            return self._encode(enhanced, utf8)
        wire = self._wire if enhanced else self._plain_wire
        if wire is None:
            wire = self._encode(enhanced, False)
            object.__setattr__(self, "_wire" if enhanced else "_plain_wire", wire)
        return wire

    def _encode(self, with_enhanced: bool, utf8: bool) -> bytes:
        enhanced = b""
        if with_enhanced and self.code // 100 != 3:  # RFC 2034 §4: 2xx, 4xx and 5xx only
            enhanced = (self.enhanced or f"{self.code // 100}.0.0").encode("ascii") + b" "
        room = MAX_LINE - len("250-\r\n") - len(enhanced)
        if len(self.lines) == 1 and len(line := self.lines[0]) <= room and line.isascii() and line.isprintable():
            return b"%d %b%b\r\n" % (self.code, enhanced, line.encode("ascii"))
        pieces: list[bytes] = []
        for line in self.lines:
            clean = _UNPRINTABLE.sub("?", line)
            encoded = clean.encode("utf-8", "replace") if utf8 else clean.encode("ascii", "backslashreplace")
            pieces.extend(_fold(encoded, room))
        code = b"%d" % self.code
        last = len(pieces) - 1
        return b"".join(
            code + (b" " if i == last else b"-") + enhanced + piece + b"\r\n" for i, piece in enumerate(pieces)
        )


class Reject(Exception):
    """Raised by a hook to answer with a 4xx or 5xx :class:`Reply`; the arguments are the reply's."""

    def __init__(
        self, code: int, text: str | Sequence[str] = "", enhanced: str | None = None, *, close: bool = False
    ) -> None:
        if not 400 <= code <= 599:
            raise ValueError(f"Reject wants a 4xx or 5xx code, not {code}")
        self.reply = Reply(code, text, enhanced, close=close)
        super().__init__(str(self.reply))

    def __reduce__(self) -> tuple[object, ...]:
        reply = self.reply
        return _rejecting, (reply.code, reply.lines, reply.enhanced, reply.close)


def _rejecting(code: int, lines: tuple[str, ...], enhanced: str | None, close: bool) -> Reject:
    return Reject(code, lines, enhanced, close=close)


def _restored(code: int, lines: tuple[str, ...], enhanced: str | None, close: bool) -> Reply:
    """What copy and pickle make a reply from."""
    reply = Reply.__new__(Reply)
    reply._set(code, lines, enhanced, close)
    return reply


def _split(text: str | Sequence[str]) -> tuple[str, ...]:
    """Lines of a text, none of which can end a line on the wire."""
    if isinstance(text, str):
        if text.isprintable():
            return (text,)
        text = (text,)
    lines: list[str] = []
    for item in text:
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


# Servers say the same few things all day, and a Reply is immutable: three replies of four need not be decoded (4 µs).
# The fourth has a queue id and fills the table, which is then begun anew; what is common is soon in it again.
_KNOWN_REPLIES: Final = 256
_KNOWN_SIZE: Final = 100  # octets of a line worth keeping
_known: dict[bytes, Reply] = {}


class ReplyReader:
    """Bytes from a server, in any pieces, to replies.

    Args:
        max_size: octets one whole reply may have (RFC 5321 sets none; servers are hostile).
        max_lines: lines one reply may have.
    """

    __slots__ = ("_buffer", "_code", "_lines", "_searched", "_size", "max_lines", "max_size")

    def __init__(self, max_size: int = 65536, max_lines: int = MAX_LINES) -> None:
        self.max_size = max_size
        self.max_lines = max_lines
        self._buffer = bytearray()
        self._searched = 0  # no LF before this position, so that dripping bytes cost O(n)
        self._code: bytes | None = None  # of the reply whose last line has not come yet
        self._lines: list[bytes] = []
        self._size = 0  # octets of the lines above

    def __bool__(self) -> bool:
        """Whether there are bytes that belong to no reply handed out yet."""
        return bool(self._buffer) or self._code is not None

    def receive_data(self, data: bytes | bytearray) -> None:
        """Take bytes in; they are looked at by :meth:`next_reply`."""
        self._buffer += data

    def next_reply(self) -> Reply | None:
        """The next whole reply, or ``None`` when more bytes are needed.

        Raises:
            RemoteProtocolError: the bytes are no reply (RFC 5321 section 4.2), or it is too large.
        """
        buffer = self._buffer
        while True:
            end = buffer.find(b"\n", self._searched)
            if self._size + (len(buffer) if end < 0 else end) >= self.max_size:
                raise RemoteProtocolError(f"a reply of more than {self.max_size} octets")
            if end < 0:
                self._searched = len(buffer)
                return None
            line = bytes(buffer[: end + 1])
            del buffer[: end + 1]
            self._searched = 0
            reply = _known.get(line) if self._code is None else None
            if reply is None:
                reply = self._take_line(line)
            if reply is not None:
                return reply

    def _take_line(self, line: bytes) -> Reply | None:
        # Careful in: a server that ends its reply lines with a bare LF is understood, as by every other client.
        text = line[:-2] if line.endswith(b"\r\n") else line[:-1]
        code, mark = text[:3], text[3:4]
        if not _is_code(code) or mark not in (b"", b" ", b"-"):
            raise RemoteProtocolError(f"not an SMTP reply: {text[:80]!r}")
        if self._code is not None and code != self._code:
            raise RemoteProtocolError(f"the lines of one reply disagree: {self._code!r}, then {text[:80]!r}")
        self._lines.append(text[4:])
        if mark == b"-":
            if len(self._lines) >= self.max_lines:
                raise RemoteProtocolError(f"a reply of more than {self.max_lines} lines")
            self._code = code
            self._size += len(line)
            return None
        lines, self._lines, self._code, self._size = self._lines, [], None, 0
        reply = _decode(int(code), lines)
        if len(lines) == 1 and len(line) <= _KNOWN_SIZE:
            if len(_known) >= _KNOWN_REPLIES:
                _known.clear()
            _known[line] = reply
        return reply


def _is_code(code: bytes) -> bool:
    return len(code) == 3 and code.isdigit() and b"2" <= code[:1] <= b"5"


def _decode(code: int, raw: list[bytes]) -> Reply:
    """Decode text; take the enhanced code off every line that has it, if the lines and the class agree."""
    lines = [line.decode("utf-8", "backslashreplace") for line in raw]
    enhanced = None
    match = _ENHANCED.match(lines[0])
    if match and int(match[1]) == code // 100 and lines[0][match.end() : match.end() + 1] in ("", " "):
        enhanced = match[0]
        lines = [_without(line, enhanced) for line in lines]
    return Reply.received(code, tuple(lines), enhanced)


def _without(line: str, enhanced: str) -> str:
    if line == enhanced:
        return ""
    return line.removeprefix(enhanced + " ")
