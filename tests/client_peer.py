"""A scripted server at the other end of a memory stream: says what it is told, checks what it hears."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import trio
import trio.testing

import trio_smtp

OFFERS = ("PIPELINING", "8BITMIME", "SIZE 1000000", "SMTPUTF8", "ENHANCEDSTATUSCODES")


class Peer:
    """The server's end.

    Attributes:
        stream: for the client.
        heard: everything the client has said.
        finished: the client has closed its side.
    """

    def __init__(self) -> None:
        self.stream, self._own = trio.testing.memory_stream_pair()
        self._buffer = bytearray()
        self.heard = bytearray()
        self.finished = False

    async def say(self, *lines: str) -> None:
        await self._own.send_all("".join(f"{line}\r\n" for line in lines).encode())

    async def say_bytes(self, data: bytes) -> None:
        await self._own.send_all(data)

    async def _more(self) -> None:
        data = await self._own.receive_some()
        if not data:
            self.finished = True
            raise EOFError(bytes(self._buffer[-80:]))
        self.heard += data
        self._buffer += data

    async def hear(self, *lines: str) -> None:
        """The next lines are these."""
        for line in lines:
            assert await self.line() == line

    async def line(self) -> str:
        while (end := self._buffer.find(b"\r\n")) < 0:
            await self._more()
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line.decode()

    async def octets(self, count: int) -> bytes:
        while len(self._buffer) < count:
            await self._more()
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    async def text(self) -> bytes:
        """The text of a message after DATA, as it came, without the final dot."""
        if self._buffer.startswith(b".\r\n"):
            del self._buffer[:3]
            return b""
        while (end := self._buffer.find(b"\r\n.\r\n")) < 0:
            await self._more()
        text = bytes(self._buffer[: end + 2])
        del self._buffer[: end + 5]
        return text

    async def end(self) -> None:
        """The client closes without another word."""
        try:
            while True:
                await self._more()
        except EOFError:
            assert not self._buffer, bytes(self._buffer)

    async def end_whatever(self) -> None:
        """Hear no more, until the client closes."""
        try:
            while True:
                await self._more()
        except EOFError:
            pass

    async def goodbye(self) -> None:
        await self.hear("QUIT")
        await self.say("221 bye")
        await self.end()

    async def close(self) -> None:
        await self._own.aclose()

    async def greet(self, *offers: str, name: str = "me.test") -> None:
        await self.say("220 mail.test ESMTP")
        await self.hear(f"EHLO {name}")
        await self.offer(*offers)

    async def offer(self, *offers: str) -> None:
        lines = ["mail.test hello", *offers]
        await self.say(*(f"250-{line}" for line in lines[:-1]), f"250 {lines[-1]}")

    async def take_envelope(self, mail: str = "MAIL FROM:<a@x.test> SIZE=6", rcpt: str = "RCPT TO:<b@y.test>") -> None:
        """MAIL, one RCPT and DATA in one group."""
        await self.hear(mail, rcpt, "DATA")
        await self.say("250 2.1.0 ok", "250 2.1.5 ok", "354 go")


Script = Callable[[Peer], Awaitable[None]]


@asynccontextmanager
async def client_and(script: Script, **options: Any) -> AsyncIterator[trio_smtp.Client]:
    """A client whose server follows a script; at the end the script must have come to its end."""
    peer = Peer()
    options = {"local_hostname": "me.test"} | options
    async with trio.open_nursery() as nursery:
        nursery.start_soon(script, peer)
        async with trio_smtp.open_client("mail.test", stream=peer.stream, **options) as client:
            yield client


async def error_of(opening: AbstractAsyncContextManager[object]) -> trio_smtp.SMTPError:
    """The one error with which a block ends as it is entered, out of the groups of the nurseries around it."""
    found: list[BaseException] = []
    try:
        async with opening:
            raise AssertionError("it opened")
    except* trio_smtp.SMTPError as group:
        found.extend(group.exceptions)
    while isinstance(found[0], BaseExceptionGroup):
        [*found] = [leaf for each in found for leaf in (each.exceptions if hasattr(each, "exceptions") else (each,))]
    [error] = found
    assert isinstance(error, trio_smtp.SMTPError)
    return error
