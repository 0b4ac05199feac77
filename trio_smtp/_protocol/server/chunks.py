# The octets of one message that arrives in BDAT chunks.
#
# Guarantees: all octets of a chunk are read, whatever is wrong with the message, so that client and server stay in
# step; and nothing that another server could read differently is ever handed on as accepted.
from __future__ import annotations

from ..newlines import BareNewlineChecker, NewlineNormalizer, NewlinePolicy


class ChunkedBody:
    """The message in BDAT chunks (RFC 3030 section 2).

    Attributes:
        remaining: octets of the current chunk still to come.
        last: the current chunk is the last.
        received: octets of the message so far, as the application gets them: a bare newline made CR LF counts two.
        too_large: it has more than the limit.
    """

    __slots__ = ("_checker", "_limit", "_normalizer", "last", "received", "remaining", "too_large")

    def __init__(self, newlines: NewlinePolicy, limit: int | None, *, binary: bool) -> None:
        self._checker: BareNewlineChecker | None = None
        self._normalizer: NewlineNormalizer | None = None
        if binary:  # BODY=BINARYMIME is the one kind of body in which a bare LF means nothing (RFC 3030 §3)
            pass
        elif newlines == "reject":
            self._checker = BareNewlineChecker()
        else:
            self._normalizer = NewlineNormalizer()
        self._limit: float = float("inf") if limit is None else limit
        self.remaining: int = 0
        self.last: bool = False
        self.received: int = 0
        self.too_large: bool = False

    def begin(self, size: int, last: bool) -> None:
        """Start the next chunk."""
        self.remaining = size
        self.last = last
        if self.received + size > self._limit:
            self.too_large = True

    def feed(self, data: bytes) -> bytes:
        """Take octets of the current chunk, at most ``remaining``; return those of the message."""
        size = len(data)
        self.remaining -= size
        if self._normalizer is not None:
            return self._count(self._normalizer.feed(data))
        self.received += size
        if self.too_large:
            return b""
        return data if self._checker is None else self._checker.feed(data)

    def finish(self) -> bytes:
        """Say that the last chunk is complete; returns what was held back."""
        if self._normalizer is not None:
            return self._count(self._normalizer.finish())
        return b"" if self._checker is None else self._checker.finish()

    def _count(self, text: bytes) -> bytes:
        """Count octets, which may be more than BDAT announced: a bare newline becomes two. None beyond the limit."""
        self.received += len(text)
        if self.received > self._limit:
            self.too_large = True
        return b"" if self.too_large else text

    @property
    def bare(self) -> bool:
        """Whether a bare CR or LF was met that the message must be refused for."""
        return self._checker is not None and self._checker.bare
