# The floor: the cost of Trio alone for the same bytes on the wire.
#
# Canned replies, chosen by the first letter of a command; nothing is parsed, checked, limited or timed. One variant
# uses trio.SocketStream (with TLS, SSLStream on top). The other uses os.read and os.write on the descriptor, without
# the extra scheduler steps of a socket stream. No SMTP server on Trio can be cheaper than that.
from __future__ import annotations

import os
import ssl
from functools import partial

import trio

from .arguments import listening

GREETING = b"220 mx.test.example ESMTP\r\n"
REPLIES = {
    ord("E"): b"250-mx.test.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 0\r\n",
    ord("H"): b"250 mx.test.example\r\n",
    ord("M"): b"250 2.1.0 OK\r\n",
    ord("R"): b"250 2.1.5 OK\r\n",
    ord("D"): b"354 go on\r\n",
    ord("N"): b"250 2.0.0 OK\r\n",
    ord("S"): b"220 2.0.0 ready\r\n",
    ord("Q"): b"221 2.0.0 bye\r\n",
}
ACCEPTED = b"250 2.0.0 OK: queued as ABC1\r\n"


class Session:
    """Canned replies: feed it the octets read, send the octets returned."""

    __slots__ = ("in_message", "quit", "tail")

    def __init__(self) -> None:
        self.in_message = False
        self.quit = False
        self.tail = b""

    def answer(self, data: bytes | bytearray) -> bytes:
        """The replies to the octets read. The peer never splits a line and sends nothing after a message."""
        if self.in_message:
            if not data.endswith(b"\r\n.\r\n") and not (len(data) < 5 and (self.tail + data).endswith(b"\r\n.\r\n")):
                self.tail = bytes(data[-5:])
                return b""
            self.in_message = False
            self.tail = b""
            return ACCEPTED
        first = data[0]
        if first == 68:  # DATA
            self.in_message = True
        elif first == 81:  # QUIT
            self.quit = True
        if data.count(b"\n") == 1:
            return REPLIES[first]
        lines = data.splitlines()
        self.in_message = lines[-1][0] == 68
        return b"".join([REPLIES[line[0]] for line in lines])


async def serve_stream(stream: trio.abc.Stream, starttls: ssl.SSLContext | None = None) -> None:
    """The variant on a stream."""
    session = Session()
    await stream.send_all(GREETING)
    while not session.quit:
        data = await stream.receive_some()
        if not data:
            return
        reply = session.answer(data)
        if reply:
            await stream.send_all(reply)
        if starttls is not None and data.startswith(b"STARTTLS"):
            stream, starttls = trio.SSLStream(stream, starttls, server_side=True), None
    await stream.aclose()


async def serve_descriptor(stream: trio.SocketStream) -> None:
    """The variant on a file descriptor."""
    session = Session()
    fd = stream.socket.fileno()
    os.write(fd, GREETING)
    while not session.quit:
        await trio.lowlevel.wait_readable(fd)
        data = os.read(fd, 65536)
        if not data:
            return
        reply = session.answer(data)
        if reply:
            os.write(fd, reply)
    await stream.aclose()


def main() -> None:
    """Serve until the process is stopped."""
    arguments = listening()
    context = arguments.context

    async def handler(stream: trio.SocketStream) -> None:
        try:
            if arguments.variant == "descriptor":
                await serve_descriptor(stream)
            elif arguments.tls == "implicit":
                assert context is not None
                await serve_stream(trio.SSLStream(stream, context, server_side=True))
            else:
                await serve_stream(stream, context)
        except (OSError, trio.BrokenResourceError):
            pass  # the peer has disconnected

    trio.run(partial(trio.serve_tcp, handler, arguments.port, host="127.0.0.1"))


if __name__ == "__main__":
    main()
