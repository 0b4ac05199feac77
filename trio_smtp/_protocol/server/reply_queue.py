# The replies that a session has given and not sent yet.
#
# Guarantee: they gather until the input is used up (RFC 2920 section 3.2), but no more than MAX_REPLIES of them, and no
# more octets than `max_reply_buffer` and one reply. This file does not know what a reply means for the session.
from __future__ import annotations

from typing import Final

from ..replies import Reply
from .transcript import Notes

MAX_REPLIES: Final = 256  # that gather before they are to be sent, however much is pipelined


class ReplyQueue:
    """Replies as octets, in order.

    Args:
        enhanced: ENHANCEDSTATUSCODES is offered (RFC 2034).
        max_octets: of replies that gather.

    Attributes:
        waiting: the replies that were not taken yet. This list stays the same one; only the queue changes it.
        flush_due: they are to be sent now.
        transcript: what notes each reply, if anything does.
    """

    __slots__ = ("_count", "_enhanced", "_max_octets", "_octets", "flush_due", "transcript", "waiting")

    def __init__(self, *, enhanced: bool, max_octets: int) -> None:
        self._enhanced = enhanced
        self._max_octets = max_octets
        self._count: int = 0
        self._octets: int = 0
        self.waiting: list[bytes] = []
        self.flush_due: bool = False
        self.transcript: Notes | None = None

    def __repr__(self) -> str:
        return f"<ReplyQueue: {self._count} replies, {self._octets} octets{', flush due' * self.flush_due}>"

    def put(self, reply: Reply, enhanced: bool = True, utf8: bool = False) -> None:
        """Add a reply.

        Args:
            reply: what is said.
            enhanced: with its enhanced status code, if those are offered.
            utf8: its text may be UTF-8.
        """
        wire = reply.to_bytes(enhanced and self._enhanced, utf8)
        if self.transcript is not None:
            self.transcript.note_reply(reply, wire)
        self.waiting.append(wire)
        self._count += 1
        self._octets += len(wire)
        if self._octets >= self._max_octets or self._count >= MAX_REPLIES:
            self.flush_due = True

    def take(self) -> bytes:
        """All of them in one piece, which are then taken as sent."""
        waiting = self.waiting
        data = waiting[0] if self._count == 1 else b"".join(waiting)
        del waiting[:]
        self._count = self._octets = 0
        return data

    def drop(self) -> None:
        """Forget them: the peer is gone."""
        self.take()

    def demand_flush(self) -> None:
        """Have them sent before anything else is done."""
        self.flush_due = True

    def note_flush(self) -> None:
        """The caller was told to send them."""
        self.flush_due = False

    def record(self, transcript: Notes) -> None:
        """Have each reply noted from now on."""
        self.transcript = transcript
