# A connected socket as the stream below trio.SSLStream, by os.read and os.write on its descriptor.
#
# It waits first, unless the last read was full, and sends without giving way to the scheduler as long as the socket
# takes it: socket_wire.py says what that saves over trio.SocketStream. It also counts TLS records, to know whether any
# can be left inside SSLStream, which cannot be asked. It knows no deadlines, and looks for no conflicts.
from __future__ import annotations

import os
import select
from typing import Final

import trio

RECEIVE_SIZE: Final = 65536
BULK_SIZE: Final = 131072  # once a read was full: fewer turns of the scheduler for a big message, 7 % of 1 MiB
AVAILABLE: Final = os.name == "posix"  # elsewhere a socket is no file descriptor that os.read understands
_HEADER: Final = 5  # octets of a TLS record's header, the last two of which are its length (RFC 8446 section 5.1)


class DescriptorStream(trio.abc.Stream):
    """The same connection as `socket`, and a count of the TLS records that were read.

    SSLStream asks for octets when it has no whole record, and gives what one record says. So when it has given
    something after a read that completed one record, it has no other.

    Args:
        socket: closed with this stream.

    Attributes:
        waits: for octets to read; if not, ``trio.WouldBlock`` says that there are none. SSLStream itself cannot be told
            not to wait: so one learns what the peer has said already.
    """

    __slots__ = ("_fd", "_header", "_missing", "_poll", "_records", "_socket", "_was_full", "waits")

    def __init__(self, socket: trio.socket.SocketType) -> None:
        self._socket = socket
        self._fd = socket.fileno()
        self._was_full: bool = False  # the last read: more is likely to be there already
        self.waits: bool = True
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)
        self._header = b""  # the beginning of a header whose end has not come
        self._missing = 0  # octets of the record that has begun
        self._records = 0  # begun or completed by the last read

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Wait for bytes; ``b""`` at the end."""
        self._records = 0
        if self.waits:
            data = await self._wait_and_read(max_bytes)
        else:
            data = self._read(max_bytes or RECEIVE_SIZE)
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

    async def _wait_and_read(self, max_bytes: int | None) -> bytes:
        if self._was_full:
            await trio.lowlevel.checkpoint()
            size = max_bytes or BULK_SIZE
        else:
            await trio.lowlevel.wait_readable(self._fd)
            size = max_bytes or RECEIVE_SIZE
        while True:
            try:
                return self._read(size)
            except trio.WouldBlock:  # less was there than it seemed
                await trio.lowlevel.wait_readable(self._fd)

    def _read(self, max_bytes: int) -> bytes:
        try:
            data = os.read(self._fd, max_bytes)
        except BlockingIOError:
            raise trio.WouldBlock from None
        except OSError as exc:
            raise trio.BrokenResourceError from exc
        self._was_full = len(data) == max_bytes
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send everything. A checkpoint only where the socket does not take it at once."""
        rest = memoryview(data)[self._write(data) :]
        while rest:
            await trio.lowlevel.wait_writable(self._fd)
            rest = rest[self._write(rest) :]

    def _write(self, data: bytes | bytearray | memoryview) -> int:
        try:
            return os.write(self._fd, data)
        except BlockingIOError:
            return 0
        except OSError as exc:
            raise trio.BrokenResourceError from exc

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the socket takes something."""
        await trio.lowlevel.wait_writable(self._fd)

    async def aclose(self) -> None:
        """Close the socket."""
        self._socket.close()
        await trio.lowlevel.checkpoint()
