# What a client sent, as lines of bounded length or, inside a message, as it came.
#
# Guarantee: no more than one line of the permitted length is kept while its end is awaited; of a longer one nothing is
# kept, and a line that never ends is given up after MAX_SKIPPED octets. A TLS handshake counts as a line. Bytes
# are searched once, however they drip.
from __future__ import annotations

from typing import Final

TLS_HANDSHAKE: Final = 0x16  # the first octet of a client that takes this for a TLS port
MAX_SKIPPED: Final = 65536  # octets of one line that are dropped in the hope of its end


class LineTooLong(Exception):
    """A line was longer than permitted, and was dropped; the reader goes on with the next one.

    Attributes:
        auth: it was an AUTH command.
        endless: its end has not been met, and will not be looked for.
    """

    auth: bool
    endless: bool

    def __init__(self, *, auth: bool, endless: bool = False) -> None:
        super().__init__("a line without an end" if endless else "a line that is too long")
        self.auth = auth
        self.endless = endless


class LineReader:
    """The input of one session.

    Args:
        max_line: octets of a command, CR LF included.
        max_auth_line: octets of an AUTH command and of its continuation lines.

    Attributes:
        eof: the peer has closed its side.
    """

    __slots__ = (
        "_auth",
        "_buffer",
        "_direct",
        "_max_auth_line",
        "_max_line",
        "_searched",
        "_skipped",
        "eof",
    )

    def __init__(self, max_line: int, max_auth_line: int) -> None:
        self._max_line = max_line
        self._max_auth_line = max_auth_line
        self._buffer = bytearray()
        self._direct: bytes | bytearray = b""  # what came last, when there was nothing before it: not copied yet
        self._searched: int = 0  # no LF in the buffer before this position
        self._skipped: int = 0  # octets dropped of a line that was too long; 0: no such line
        self._auth: bool = False  # that line was an AUTH command
        self.eof: bool = False

    def __bool__(self) -> bool:
        return bool(self._buffer or self._direct)

    @property
    def is_skipping(self) -> bool:
        """Whether a line that is too long is being dropped."""
        return self._skipped > 0

    def feed(self, data: bytes | bytearray) -> None:
        """Take bytes from the wire; ``b""`` is their end."""
        if not data:
            self.eof = True
        elif self._buffer or self._direct:
            self._buffer += self._direct + data
            self._direct = b""
        else:
            self._direct = data

    def take_all(self) -> bytes | bytearray:
        """Everything that is there, maybe nothing."""
        data = self._direct
        if data:
            self._direct = b""
            return data
        data = bytes(self._buffer)
        if data:
            self._buffer.clear()
            self._searched = 0
        return data

    def take(self, size: int) -> bytes:
        """At most `size` octets of what is there, maybe nothing."""
        if self._direct:
            self._buffer += self._direct
            self._direct = b""
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        self._searched = 0
        return data

    def next_line(self, auth: bool = False) -> bytes | None:
        """The next line with its line end, or ``None`` when more bytes are needed.

        What begins as a TLS handshake is returned as far as it has come, without a line end, and stays.

        Args:
            auth: it belongs to an AUTH exchange.

        Raises:
            LineTooLong: instead of a line.
        """
        direct = self._direct
        buffer = self._buffer
        if direct:
            self._direct = b""
            # In lock-step one line comes at a time, and needs no buffer.
            end = direct.find(b"\n", 0, self._max_line) + 1
            if end and not direct[end : end + 1] and not self._skipped:
                return bytes(direct)
            buffer += direct
        if not buffer:
            return None
        end = buffer.find(b"\n", self._searched)
        if end < 0:
            if buffer[0] == TLS_HANDSHAKE and not self._skipped:
                return bytes(buffer)  # it may wait for our answer before it sends anything that looks like a line
            self._searched = len(buffer)
            if self._skipped or self._searched >= self._limit(auth):
                self._skip()
            return None
        line = bytes(buffer[: end + 1])
        del buffer[: end + 1]
        self._searched = 0
        if self._skipped:
            self._skipped = 0
            raise LineTooLong(auth=self._auth)
        if end >= self._max_line and (end >= self._max_auth_line or not (auth or _is_auth(line))):
            raise LineTooLong(auth=_is_auth(line))
        return line

    def _limit(self, auth: bool) -> int:
        return self._max_auth_line if auth or _is_auth(self._buffer) else self._max_line

    def _skip(self) -> None:
        if not self._skipped:
            self._auth = _is_auth(self._buffer)
        self._skipped += len(self._buffer)
        self._buffer.clear()
        self._searched = 0
        if self._skipped > MAX_SKIPPED:
            raise LineTooLong(auth=self._auth, endless=True)


def _is_auth(line: bytes | bytearray) -> bool:
    return line[:5].upper() == b"AUTH "
