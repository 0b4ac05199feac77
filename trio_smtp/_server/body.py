# A message on its way in, as on_data sees it: pulled chunk by chunk, so that a slow hook slows the client down.
from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio


class Body:
    """The octets of a message: ``async for chunk in body``, or ``await body.read()``.

    Lines end with CR LF and dots are removed. Each chunk is taken from the connection only when it is asked for.
    When the message cannot be had whole, reading raises, every time, and nothing is taken as accepted:

    Raises:
        ConnectionLostError: the client vanished or stalled past its time, what it sent between two chunks ended the
            session, or ``shutdown``'s grace is over.
        MessageAbortedError: it gave the message up (RSET between two BDAT chunks).
        MessageTooLargeError: more than ``max_message_size`` octets.
        RemoteProtocolError: a bare CR or LF; known at the end of the message.

    Cancelling a read leaves the rest of the message to be dropped.

    Attributes:
        received: octets handed out so far.
    """

    __slots__ = ("_next", "received")

    def __init__(self, next_chunk: Callable[[], Awaitable[bytes]]) -> None:
        self._next = next_chunk
        self.received = 0

    def detach(self) -> None:
        """``on_data`` has returned: what comes next on the connection is not for whoever kept this."""
        self._next = _gone

    def __aiter__(self) -> Body:
        return self

    async def __anext__(self) -> bytes:
        chunk = await self._next()
        if not chunk:
            raise StopAsyncIteration
        self.received += len(chunk)
        return chunk

    async def read(self) -> bytes:
        """All of the message that is left, ``b""`` at its end.

        It is held in memory: at most ``ServerConfig.max_message_size`` octets for each session, and twice as many
        while the pieces are joined. Larger ones are for ``async for``.
        """
        chunks: list[bytes] = []
        while chunk := await self._next():
            self.received += len(chunk)
            chunks.append(chunk)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _gone() -> Awaitable[bytes]:
    raise trio.ClosedResourceError("the message is gone: on_data has returned")
