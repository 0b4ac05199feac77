# A wire of each kind, and the stream at its other end.
from __future__ import annotations

import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from typing import Any

import trio
from tls_support import NAME, client_context, server_context
from trio.testing import memory_stream_pair

from trio_smtp._wire.opening import open_wire
from trio_smtp._wire.timekeeper import Timekeeper
from trio_smtp._wire.wire import Wire

KINDS = ["memory", "socket", "timed", "client_tls", "given_tls", "server_tls"]
SOCKETS = KINDS[1:]
SECURED = KINDS[3:]
TIMED = ("timed", "given_tls", "server_tls")


@contextlib.asynccontextmanager
async def pair(kind: str, version: str = "TLSv1_3") -> AsyncIterator[tuple[Wire, Any]]:
    """A wire and the stream at its other end.

    ``memory`` and ``given_tls`` are a StreamWire, and so is ``client_tls`` after its handshake; ``socket`` and
    ``timed`` are a SocketWire, without and with a timer; ``server_tls`` is a TLSSocketWire.
    """
    keeper = Timekeeper()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper.run)
        near: trio.abc.Stream
        far: Any
        if kind == "memory":
            near, far = memory_stream_pair()
        else:
            listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
            far = await trio.testing.open_stream_to_socket_listener(listener)
            near = await listener.accept()
            await listener.aclose()
        if kind == "given_tls":
            near = trio.SSLStream(near, server_context(), server_side=True)
        first = wire = open_wire(near, keeper.timer(lambda: first.expire()) if kind in TIMED else None)
        if kind in SECURED:
            far = far_end(far, version, server_side=kind == "client_tls")
            async with trio.open_nursery() as handshakes:
                handshakes.start_soon(far.do_handshake)
                if kind == "given_tls":
                    wire = await wire.adopt_tls(server_side=True)
                elif kind == "client_tls":
                    wire = await wire.start_tls(client_context(), server_side=False, server_hostname=NAME)
                else:
                    wire = await wire.start_tls(server_context(), server_side=True)
        yield wire, far
        await wire.aclose()
        await trio.aclose_forcefully(far)
        nursery.cancel_scope.cancel()


def far_end(stream: trio.abc.Stream, version: str, *, server_side: bool) -> trio.SSLStream[Any]:
    context = server_context() if server_side else client_context()
    context.minimum_version = context.maximum_version = getattr(ssl.TLSVersion, version)
    return trio.SSLStream(stream, context, server_hostname=None if server_side else NAME, server_side=server_side)


def reset(stream: Any) -> None:
    """Close so that the other end gets RST."""
    below = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
    below.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    below.socket.close()


async def ciphertext(far: trio.SSLStream[Any], data: bytes | None) -> bytes:
    """What `far` would send, caught on its way; ``None`` is its close_notify."""
    caught = bytearray()
    below = far.transport_stream

    class Catcher(trio.abc.SendStream):
        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            caught.extend(data)

        async def wait_send_all_might_not_block(self) -> None: ...

        async def aclose(self) -> None: ...

    far.transport_stream = Catcher()
    await (far.aclose() if data is None else far.send_all(data))
    far.transport_stream = below
    return bytes(caught)
