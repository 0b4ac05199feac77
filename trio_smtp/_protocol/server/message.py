# A message on its way from a client to the application: how far it has come, and whether it is still wanted.
#
# The application may want all of it, some of it, or nothing; it may have made up its mind before the end. Either way
# the octets are read to the end that the client means, and only then does the caller send the verdict.
from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final, TypeAlias

from ..dotstuff import DotDecoder
from ..newlines import NewlinePolicy
from ..nul import ServerNULPolicy
from ..replies import Reply
from .chunks import ChunkedBody
from .events import BODY_END, EOF, NEED_DATA, Signal
from .fixed_replies import BARE_NEWLINE, NUL_IN_TEXT, TOO_LARGE
from .input import LineReader

Verdict: TypeAlias = Reply | Mapping[str, Reply]


class Progress(Enum):
    """What the protocol itself has to do next."""

    CHUNK_TAKEN = "acknowledge a chunk that is not the last"
    FINISHED = "send the verdict"


CHUNK_TAKEN: Final = Progress.CHUNK_TAKEN
FINISHED: Final = Progress.FINISHED


class IncomingMessage:
    """One message, from its Data event on.

    Args:
        source: where its octets come from.
        newlines: what becomes of a bare CR or LF.
        nul: what becomes of a NUL in a message that is text.
        limit: octets that it may have, or ``None``.
        binary: BODY=BINARYMIME.
        chunking: it comes by BDAT.

    Attributes:
        content: what reads its octets; its ``received`` says how many there are so far.
        is_over: its end was met.
        verdict: what the application has concluded; the rest is dropped. ``None``: the application is not done with it.
        fault: what it must be refused with, known when its end was met.
    """

    __slots__ = (
        "_chunked",
        "_dotted",
        "_flaw",
        "_limit",
        "_newlines",
        "_rejects_nul",
        "_source",
        "content",
        "fault",
        "is_over",
        "verdict",
    )

    def __init__(
        self,
        source: LineReader,
        newlines: NewlinePolicy,
        nul: ServerNULPolicy,
        limit: int | None,
        *,
        binary: bool,
        chunking: bool,
    ) -> None:
        self._source = source
        self._newlines = newlines
        self._rejects_nul = nul == "reject" and not binary
        self._flaw: Reply | None = None  # what its text must be refused with at its end, beside bare newlines
        self._limit = limit
        self._dotted: DotDecoder | None = None
        self._chunked: ChunkedBody | None = None
        if chunking:
            self.content: DotDecoder | ChunkedBody = ChunkedBody(newlines, limit, binary=binary)
            self._chunked = self.content
        else:
            self.content = self._dotted = DotDecoder(newlines)
        self.is_over: bool = False
        self.verdict: Verdict | None = None
        self.fault: Reply | None = None

    def begin_chunk(self, size: int, last: bool) -> None:
        """The next BDAT."""
        assert self._chunked is not None
        self._chunked.begin(size, last)

    def conclude(self, verdict: Verdict) -> None:
        """The application is done with it."""
        self.verdict = verdict

    def next(self) -> bytes | Signal | Progress | None:
        """Octets for the application, or why there are none; ``None``: look again."""
        if self.is_over:
            return BODY_END
        fault = self.fault
        text = self._read_dotted(self._dotted) if self._dotted is not None else self._read_chunk(self._chunked)
        if text is None:
            return EOF if self._source.eof else NEED_DATA
        if text is CHUNK_TAKEN or text is FINISHED:
            return text
        if self.verdict is not None:
            return FINISHED if self.is_over else None
        if self.fault is TOO_LARGE:
            return None if fault is TOO_LARGE else Signal.BODY_TOO_LARGE
        return text or (BODY_END if self.is_over else None)

    def _read_dotted(self, decoder: DotDecoder) -> bytes | None:
        data = self._source.take_all()
        if not data:
            return None
        text = decoder.feed(data)
        if self._rejects_nul and b"\0" in text:
            self._flaw = NUL_IN_TEXT
        if self._limit is not None and decoder.received > self._limit:
            self.fault = TOO_LARGE
        if decoder.done:
            self._end(bare=decoder.bare and self._newlines == "reject")
            if decoder.rest:
                self._source.feed(decoder.rest)
        return text if self._flaw is None else b""

    def _read_chunk(self, body: ChunkedBody | None) -> bytes | Progress | None:
        assert body is not None
        if body.remaining:
            data = self._source.take(body.remaining)
            if not data:
                return None
            text = body.feed(data)
            if self._rejects_nul and b"\0" in text:
                self._flaw = NUL_IN_TEXT
            if body.too_large:  # looked at only with octets in hand, so that next() sees when it becomes true
                self.fault = TOO_LARGE
            return text if self._flaw is None else b""
        if isinstance(self.verdict, Reply) and not self.verdict.is_success:
            if body.last:
                self._end(bare=body.bare)
            return FINISHED  # refused: each chunk has a reply of its own, and this one gets the refusal
        if body.last:
            text = body.finish()
            if body.too_large:
                self.fault = TOO_LARGE
            self._end(bare=body.bare)
            return text if self._flaw is None else b""
        return CHUNK_TAKEN

    def _end(self, *, bare: bool) -> None:
        self.is_over = True
        if self.fault is None:
            self.fault = BARE_NEWLINE if bare else self._flaw
