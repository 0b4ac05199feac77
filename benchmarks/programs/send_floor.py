# The floor: the cost of Trio alone for the same bytes on the wire, sent through trio.SocketStream.
#
# Checks only the number of replies and their first digits. Variants: "lock-step" waits for every reply;
# "pipelined" sends MAIL, RCPT and DATA together, then the text; "bdat" sends a whole message in one write.
from __future__ import annotations

from contextlib import AsyncExitStack

import trio

from .sending import SENDER, Pieces, Sending, done, ready, sending

REFUSALS = (b"4", b"5")


async def replies(stream: trio.SocketStream, count: int) -> None:
    """Read that many replies of one line."""
    while count:
        data = await stream.receive_some()
        if data[:1] in REFUSALS or not data:
            raise SystemExit(f"the server said {data!r}")
        count -= data.count(b"\n")


class Floor:
    """One connection."""

    def __init__(self, stream: trio.SocketStream, options: Sending) -> None:
        self.stream = stream
        self.form = options.variant
        text = options.content
        mail = b"MAIL FROM:<%s>\r\n" % SENDER.encode()
        rcpts = [b"RCPT TO:<%s>\r\n" % recipient.encode() for recipient in options.recipients]
        self.commands = [mail, *rcpts, b"DATA\r\n"]
        self.envelope = b"".join(self.commands)
        self.end = text + b".\r\n"
        self.whole = mail + b"".join(rcpts) + b"BDAT %d LAST\r\n" % len(text) + text
        self.pieces = Pieces(options.size) if options.streamed else None

    async def send(self, messages: int) -> None:
        """Send that many messages."""
        stream = self.stream
        for _ in range(messages):
            if self.form == "bdat":
                await stream.send_all(self.whole)
                await replies(stream, len(self.commands))
                continue
            if self.form == "lock-step":
                for command in self.commands:
                    await stream.send_all(command)
                    await replies(stream, 1)
            else:
                await stream.send_all(self.envelope)
                await replies(stream, len(self.commands))
            if self.pieces is None:
                await stream.send_all(self.end)
            else:
                async for piece in self.pieces:
                    await stream.send_all(piece)
                await stream.send_all(b"\r\n.\r\n")
            await replies(stream, 1)


async def run() -> None:
    """Warm up, send, wait."""
    options = sending()
    async with AsyncExitStack() as stack:
        floors = []
        for _ in range(options.connections):
            stream = await stack.enter_async_context(await trio.open_tcp_stream("127.0.0.1", options.port))
            await replies(stream, 1)
            await stream.send_all(b"EHLO client.test.example\r\n")
            while b"\n250 " not in (await stream.receive_some()):
                pass
            floors.append(Floor(stream, options))

        async def send(messages: int) -> None:
            async with trio.open_nursery() as nursery:
                for floor, share in zip(floors, options.shares(messages), strict=True):
                    nursery.start_soon(floor.send, share)

        await send(options.warm_up)
        began = ready()
        await send(options.messages)
        done(began)


def main() -> None:
    """Run it."""
    trio.run(run)


if __name__ == "__main__":
    main()
