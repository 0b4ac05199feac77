# A message on its way from a client to the application: how far it has come, and who still wants it.
#
# The application may want all of it, some of it, or nothing; it may have made up its mind before the end. Either way
# the octets are read to the end that the client means, and only then does the caller send the verdict.
from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import TypeAlias

from .replies import Reply
from .server_body import ChunkedBody, DottedBody
from .server_config import ServerConfig
from .server_events import Signal
from .server_lines import LineReader

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
        body: its octets.
        reading: the next octets on the wire belong to it.
        served: the application has not concluded it yet.
        verdict: what the application has concluded; the rest is dropped.
    """

    __slots__ = ("_over", "_source", "_told_too_large", "body", "reading", "served", "verdict")

    def __init__(self, source: LineReader, config: ServerConfig, *, binary: bool, chunking: bool) -> None:
        self._source = source
        self._over = False
        self._told_too_large = False
        self.body: DottedBody | ChunkedBody
        if chunking:
            self.body = ChunkedBody(config.bare_newlines, config.max_message_size, binary=binary)
        else:
            self.body = DottedBody(config.bare_newlines, config.max_message_size)
        self.reading = False
        self.served = True
        self.verdict: Verdict | None = None

    def start(self) -> None:
        """The client may send; of a chunk it has begun already."""
        self.reading = True

    def begin_chunk(self, size: int, last: bool) -> None:
        """The next BDAT."""
        assert isinstance(self.body, ChunkedBody)
        self.body.begin(size, last)

    @property
    def is_over(self) -> bool:
        """Whether its end was met."""
        return self._over

    def next(self) -> bytes | Signal | Progress:
        """Octets for the application, or why there are none."""
        if self._over:
            return Signal.BODY_END
        body = self.body
        text = self._read_dotted(body) if isinstance(body, DottedBody) else self._read_chunk(body)
        if not isinstance(text, bytes):
            return text
        if self.verdict is not None:
            return Progress.FINISHED if self._over else Progress.GO_ON
        if self.body.too_large:
            if self._told_too_large:
                return Progress.GO_ON
            self._told_too_large = True
            return Signal.BODY_TOO_LARGE
        return text or Progress.GO_ON

    def _starved(self) -> Signal:
        return Signal.EOF if self._source.eof else Signal.NEED_DATA

    def _read_dotted(self, body: DottedBody) -> bytes | Signal:
        data = self._source.take_all()
        if not data:
            return self._starved()
        text = body.feed(data)
        if body.done:
            self._over = True
            if body.rest:
                self._source.feed(body.rest)
        return text

    def _read_chunk(self, body: ChunkedBody) -> bytes | Signal | Progress:
        if body.remaining:
            data = self._source.take(body.remaining)
            return body.feed(data) if data else self._starved()
        if isinstance(self.verdict, Reply) and not self.verdict.is_success:
            return Progress.FINISHED  # refused: each chunk has a reply of its own, and this one gets the refusal
        if body.last:
            self._over = True
            return body.finish()
        self.reading = False
        return Progress.CHUNK_TAKEN
