# A message on its way from a client to the application: how far it has come, and who still wants it.
#
# The application may want all of it, some of it, or nothing; it may have made up its mind before the end. Either way
# the octets are read to the end that the client means, and only then does the caller send the verdict.
from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import TypeAlias

from ..dotstuff import DotDecoder
from ..replies import Reply
from .chunks import BARE_NEWLINE, TOO_LARGE, ChunkedBody
from .config import ServerConfig
from .events import BODY_END, NEED_DATA, Signal
from .input import LineReader

Verdict: TypeAlias = Reply | Mapping[str, Reply]


class Progress(Enum):
    """What the protocol itself has to do next."""

    GO_ON = "nothing, look again"
    CHUNK_TAKEN = "acknowledge a chunk that is not the last"
    FINISHED = "send the verdict"


class IncomingMessage:
    """One message, from its Data event on.

    Args:
        source: where its octets come from.
        config: its limits.
        binary: BODY=BINARYMIME.
        chunking: it comes by BDAT.

    Attributes:
        reading: the next octets on the wire belong to it.
        is_over: its end was met.
        served: the application has not concluded it yet.
        verdict: what the application has concluded; the rest is dropped.
    """

    __slots__ = ("_chunked", "_config", "_dotted", "_source", "_too_large", "is_over", "reading", "served", "verdict")

    def __init__(self, source: LineReader, config: ServerConfig, *, binary: bool, chunking: bool) -> None:
        self._source = source
        self._config = config
        self._dotted: DotDecoder | None = None
        self._chunked: ChunkedBody | None = None
        if chunking:
            self._chunked = ChunkedBody(config.bare_newlines, config.max_message_size, binary=binary)
        else:
            self._dotted = DotDecoder(config.bare_newlines)
        self._too_large = False
        self.reading = False
        self.is_over = False
        self.served = True
        self.verdict: Verdict | None = None

    def begin_chunk(self, size: int, last: bool) -> None:
        """The next BDAT."""
        assert self._chunked is not None
        self._chunked.begin(size, last)

    @property
    def received(self) -> int:
        """Octets of the message so far."""
        body = self._dotted or self._chunked
        assert body is not None
        return body.received

    @property
    def fault(self) -> Reply | None:
        """What it must be refused with, now that its end was met."""
        if self._too_large:
            return TOO_LARGE
        if self._dotted is not None:
            bare = self._dotted.bare and self._config.bare_newlines == "reject"
        else:
            bare = self._chunked is not None and self._chunked.bare
        return BARE_NEWLINE if bare else None

    def next(self) -> bytes | Signal | Progress:
        """Octets for the application, or why there are none."""
        if self.is_over:
            return BODY_END
        was_too_large = self._too_large
        text = self._read_dotted(self._dotted) if self._dotted is not None else self._read_chunk(self._chunked)
        if not isinstance(text, bytes):
            return text
        if self.verdict is not None:
            return Progress.FINISHED if self.is_over else Progress.GO_ON
        if self._too_large:
            return Progress.GO_ON if was_too_large else Signal.BODY_TOO_LARGE
        return text or Progress.GO_ON

    def _starved(self) -> Signal:
        return Signal.EOF if self._source.eof else NEED_DATA

    def _read_dotted(self, decoder: DotDecoder) -> bytes | Signal:
        data = self._source.take_all()
        if not data:
            return self._starved()
        text = decoder.feed(data)
        if decoder.done:
            self.is_over = True
            if decoder.rest:
                self._source.feed(decoder.rest)
        limit = self._config.max_message_size
        if limit is not None and decoder.received > limit:
            self._too_large = True
        return text

    def _read_chunk(self, body: ChunkedBody | None) -> bytes | Signal | Progress:
        assert body is not None
        if body.remaining:
            data = self._source.take(body.remaining)
            if not data:
                return self._starved()
            text = body.feed(data)
            self._too_large = body.too_large  # only with octets in hand, so that next() sees when it becomes true
            return text
        if isinstance(self.verdict, Reply) and not self.verdict.is_success:
            self.is_over = body.last
            return Progress.FINISHED  # refused: each chunk has a reply of its own, and this one gets the refusal
        if body.last:
            self.is_over = True
            text = body.finish()
            self._too_large = body.too_large
            return text
        self.reading = False
        return Progress.CHUNK_TAKEN
