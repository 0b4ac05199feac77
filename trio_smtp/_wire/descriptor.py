# A connected socket as a stream, by os.read and os.write on its descriptor.
#
# trio.SocketStream tries to read before it waits, which in a lock-step protocol fails every time, gives way to the
# scheduler after every send, and its layers of context managers cost more than the system call: with it a message of
# four round trips costs a server 30 µs more, of some 80, and one under TLS 20 more. This stream waits first, unless
# the last read was full, and sends without giving way as long as the socket takes it. It has one owner, who reads from
# one task and writes from one task, and looks for no conflicts.
from __future__ import annotations

import os
import select
from typing import Final

import trio

RECEIVE_SIZE: Final = 65536
BULK_SIZE: Final = 131072  # once a read was full: fewer turns of the scheduler for a big message, 7 % of 1 MiB
_HEADER: Final = 5  # octets of a TLS record's header, the last two of which are its length (RFC 8446 section 5.1)
AVAILABLE: Final = os.name == "posix"  # elsewhere a socket is no file descriptor that os.read understands


class DescriptorStream(trio.abc.Stream):
    """The same connection as a :class:`trio.SocketStream`, which must not be used any more.

    Attributes:
        socket: Trio's socket.
        fd: its descriptor.
        more: the last read was full, so that more is likely to be there already.
    """

    __slots__ = ("fd", "more", "socket")

    def __init__(self, stream: trio.SocketStream) -> None:
        self.socket = stream.socket
        self.fd = stream.socket.fileno()
        self.more = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Wait for bytes; ``b""`` at the end."""
        if self.more:
            await trio.lowlevel.checkpoint()
            size = max_bytes or BULK_SIZE
        else:
            await trio.lowlevel.wait_readable(self.fd)
            size = max_bytes or RECEIVE_SIZE
        while True:
            try:
                return self.receive_nowait(size)
            except trio.WouldBlock:  # less was there than it seemed
                await trio.lowlevel.wait_readable(self.fd)

    def receive_nowait(self, max_bytes: int) -> bytes:
        """What is there already; ``trio.WouldBlock`` if nothing is, and nothing has changed then."""
        try:
            data = os.read(self.fd, max_bytes)
        except BlockingIOError:
            raise trio.WouldBlock from None
        except OSError as exc:
            raise trio.BrokenResourceError from exc
        self.more = len(data) == max_bytes
        return data

    def send_nowait(self, data: bytes | bytearray | memoryview) -> int:
        """Give the socket what it takes without waiting, and return how much that was."""
        try:
            return os.write(self.fd, data)
        except BlockingIOError:
            return 0
        except OSError as exc:
            raise trio.BrokenResourceError from exc

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send everything. A checkpoint only where the socket does not take it at once."""
        sent = self.send_nowait(data)
        if sent == len(data):
            return
        rest = memoryview(data)[sent:]
        while rest:
            await trio.lowlevel.wait_writable(self.fd)
            rest = rest[self.send_nowait(rest) :]

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the socket takes something."""
        await trio.lowlevel.wait_writable(self.fd)

    async def aclose(self) -> None:
        """Close the socket."""
        self.socket.close()
        await trio.lowlevel.checkpoint()


class RecordStream(DescriptorStream):
    """The same below ``trio.SSLStream``: it keeps count of TLS records, to know whether any can be left in there.

    SSLStream asks for octets when it has no whole record, and gives what one record says. So when it has given
    something after a read that completed one record, it has no other.

    Args:
        stream: must not be used any more.

    Attributes:
        waits: for octets to read; if not, ``trio.WouldBlock`` says that there are none. SSLStream itself cannot be told
            not to wait: so one learns what the peer has said already.
    """

    __slots__ = ("_header", "_missing", "_poll", "_records", "waits")

    def __init__(self, stream: DescriptorStream) -> None:
        self.socket = stream.socket
        self.fd = stream.fd
        self.more = stream.more
        self.waits = True
        self._poll = select.poll()
        self._poll.register(self.fd, select.POLLIN)
        self._header = b""  # the beginning of a header whose end has not come
        self._missing = 0  # octets of the record that has begun
        self._records = 0  # begun or completed by the last read

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Wait for bytes; ``b""`` at the end."""
        self._records = 0
        if self.waits:
            data = await super().receive_some(max_bytes)
        else:
            data = self.receive_nowait(max_bytes or RECEIVE_SIZE)
        octets = self._header + data
        at = self._missing
        self._records += at > 0
        while at + _HEADER <= len(octets):
            at += _HEADER + int.from_bytes(octets[at + 3 : at + _HEADER], "big")
            self._records += 1
        self._header = octets[at:]
        self._missing = max(0, at - len(octets))
        return data

    @property
    def is_quiet(self) -> bool:
        """There is certainly nothing to read: neither here nor, where it has given all of a record, in SSLStream."""
        return self._records <= 1 and not self._poll.poll(0)
