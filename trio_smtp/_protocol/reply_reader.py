# Reading replies: a server's bytes to Reply objects (RFC 5321 section 4.2).
#
# Guarantee: whatever bytes a peer sends, ReplyReader yields replies or raises RemoteProtocolError, within its limits,
# in time linear in the bytes. It does not know which command a reply answers.
from __future__ import annotations

from typing import Final

from .errors import RemoteProtocolError
from .replies import ENHANCED, Reply

MAX_BLANK: Final = 64  # octets of empty lines between replies, which others bear, too
MAX_LINES: Final = 1000  # of one reply; EHLO has some thirty, HELP some hundred

# Servers repeat a few replies, and a Reply is immutable. Looking up the line saves decoding it (4 µs) for about three
# of four replies. The fourth has a queue id and fills the table. A full table is cleared; the common replies soon
# return.
_KNOWN_REPLIES: Final = 256
_KNOWN_SIZE: Final = 100  # octets; longer lines are not kept
_LINE_ENDS: Final = b"\r\n"
_known: dict[bytes, Reply] = {}


class ReplyReader:
    """Read replies from a server's bytes, in pieces of any size.

    Args:
        max_size: octets of one whole reply; RFC 5321 sets no limit, and a server may be hostile.
        max_lines: lines of one reply.

    Attributes:
        blank: octets of empty lines since the last reply.
        unread: there are octets that :meth:`next_reply` has not returned yet.
    """

    __slots__ = ("_buffer", "_code", "_lines", "_searched", "_size", "blank", "max_lines", "max_size", "unread")

    max_size: int
    max_lines: int
    blank: int
    unread: bool

    def __init__(self, max_size: int = 65536, max_lines: int = MAX_LINES) -> None:
        self.max_size = max_size
        self.max_lines = max_lines
        self._buffer = bytearray()
        self._searched = 0  # no LF before this position; keeps single bytes O(n) in all
        self._code: bytes | None = None  # of an incomplete reply
        self._lines: list[bytes] = []
        self._size = 0  # octets of those lines
        self.blank = 0
        self.unread = False

    def __repr__(self) -> str:
        return f"<ReplyReader: {len(self._buffer)} octets, {len(self._lines)} lines of an incomplete reply>"

    def receive_data(self, data: bytes | bytearray) -> None:
        """Buffer bytes for :meth:`next_reply`."""
        buffer = self._buffer
        buffer += data
        if self._code is None and buffer and buffer[0] in _LINE_ENDS:
            self._skip_blank()
        self.unread = bool(buffer) or self._code is not None

    def _skip_blank(self) -> None:
        """Drop empty lines before a reply; what is beyond the limit stays, and is no reply."""
        buffer = self._buffer
        found = len(buffer) - len(buffer.lstrip(b"\r\n"))
        dropped = min(found, MAX_BLANK - self.blank)
        self.blank += dropped
        del buffer[:dropped]
        self._searched = 0

    def next_reply(self) -> Reply | None:
        """The next complete reply, or ``None`` if more bytes are needed.

        Raises:
            RemoteProtocolError: the bytes are not a reply (RFC 5321 section 4.2), or the reply is too large.
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
                self.blank = 0
                if buffer and buffer[0] in _LINE_ENDS:
                    self._skip_blank()
                self.unread = bool(buffer)
                return reply

    def _take_line(self, line: bytes) -> Reply | None:
        # Careful in: reply lines that end with a bare LF are accepted, as by every other client.
        # So are further CRs before it: a client that took one for a part of STARTTLS would go on in clear.
        text = line[:-1].rstrip(b"\r")
        code, mark = text[:3], text[3:4]
        if not _is_code(code) or mark not in (b"", b" ", b"-"):
            raise RemoteProtocolError(f"not an SMTP reply: {text[:80]!r}")
        if self._code is not None and code != self._code:
            raise RemoteProtocolError(
                f"the lines of one reply have different codes: {self._code!r}, then {text[:80]!r}"
            )
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
    """Decode the text. An enhanced code of the same class is removed from every line that has it."""
    lines = [line.decode("utf-8", "backslashreplace") for line in raw]
    enhanced = None
    match = ENHANCED.match(lines[0])
    if match and int(match[1]) == code // 100 and lines[0][match.end() : match.end() + 1] in ("", " "):
        enhanced = match[0]
        lines = [_without(line, enhanced) for line in lines]
    return Reply.received(code, tuple(lines), enhanced)


def _without(line: str, enhanced: str) -> str:
    if line == enhanced:
        return ""
    return line.removeprefix(enhanced + " ")
