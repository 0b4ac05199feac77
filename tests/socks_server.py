"""A small SOCKS proxy (RFC 1928, RFC 1929, SOCKS 4 and 4a) for tests: CONNECT only, into the network of the test."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

NO_METHOD = 0xFF
Step = str


class SocksServer:
    """A running proxy.

    Attributes:
        port: on 127.0.0.1.
        wanted: the targets that clients have asked for, as they wrote them.
        routes: where to connect instead, by target.
        failure: the reply code to every request; 0 for none.
        cut: close the connection at this step: "method", "login" or "request".
        stall: answer nothing from the request on.
    """

    def __init__(self, user: tuple[str, str] | None) -> None:
        self.port = 0
        self.wanted: list[tuple[str, int]] = []
        self.routes: dict[tuple[str, int], tuple[str, int]] = {}
        self.failure = 0
        self.cut: Step | None = None
        self.stall = False
        self.gone = trio.Event()
        self._user = user

    async def serve(self, stream: trio.SocketStream) -> None:
        try:
            async with stream:
                await self._serve(stream)
        except (EOFError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async def _serve(self, stream: trio.SocketStream) -> None:
        version = (await exactly(stream, 1))[0]
        target = await (self._ask_5(stream) if version == 5 else self._ask_4(stream))
        if target is None:
            return
        self.wanted.append(target)
        if self.stall:
            while await stream.receive_some():
                pass
            self.gone.set()
            return
        if self.cut == "request":
            return
        if self.failure:
            await stream.send_all(answer(version, self.failure))
            return
        try:
            other = await trio.open_tcp_stream(*self.routes.get(target, target))
        except OSError:
            await stream.send_all(answer(version, 5 if version == 5 else 91))
            return
        await stream.send_all(answer(version, 0 if version == 5 else 90))
        async with other, trio.open_nursery() as nursery:
            nursery.start_soon(pump, stream, other, nursery.cancel_scope)
            nursery.start_soon(pump, other, stream, nursery.cancel_scope)

    async def _ask_5(self, stream: trio.SocketStream) -> tuple[str, int] | None:
        methods = await exactly(stream, (await exactly(stream, 1))[0])
        if self.cut == "method":
            return None
        method = 0 if self._user is None else 2
        if method not in methods:
            await stream.send_all(bytes((5, NO_METHOD)))
            return None
        await stream.send_all(bytes((5, method)))
        if self._user is not None:
            await exactly(stream, 1)
            user = (await exactly(stream, (await exactly(stream, 1))[0])).decode()
            password = (await exactly(stream, (await exactly(stream, 1))[0])).decode()
            if self.cut == "login":
                return None
            right = (user, password) == self._user
            await stream.send_all(bytes((1, 0 if right else 1)))
            if not right:
                return None
        _, _, _, kind = await exactly(stream, 4)
        if kind == 3:
            host = (await exactly(stream, (await exactly(stream, 1))[0])).decode()
        else:
            host = str(ipaddress.ip_address(await exactly(stream, 4 if kind == 1 else 16)))
        return host, struct.unpack(">H", await exactly(stream, 2))[0]

    async def _ask_4(self, stream: trio.SocketStream) -> tuple[str, int] | None:
        _, port, address = struct.unpack(">BH4s", await exactly(stream, 7))
        await until_nul(stream)
        if address[:3] == bytes(3) and address[3]:  # 4a
            return await until_nul(stream), port
        return str(ipaddress.ip_address(address)), port


def answer(version: int, code: int) -> bytes:
    return bytes((5, code, 0, 1, 0, 0, 0, 0, 0, 0)) if version == 5 else bytes((0, code, 0, 0, 0, 0, 0, 0))


async def exactly(stream: trio.SocketStream, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = await stream.receive_some(count - len(data))
        if not more:
            raise EOFError
        data += more
    return data


async def until_nul(stream: trio.SocketStream) -> str:
    data = b""
    while not data.endswith(b"\0"):
        data += await exactly(stream, 1)
    return data[:-1].decode()


async def pump(source: trio.SocketStream, target: trio.SocketStream, scope: trio.CancelScope) -> None:
    try:
        while data := await source.receive_some():
            await target.send_all(data)
    except trio.BrokenResourceError:
        pass
    scope.cancel()


@asynccontextmanager
async def open_socks(user: tuple[str, str] | None = None) -> AsyncIterator[SocksServer]:
    """Run a proxy until the end of the block."""
    server = SocksServer(user)
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        server.port = listeners[0].socket.getsockname()[1]
        await nursery.start(trio.serve_listeners, server.serve, listeners)
        yield server
        nursery.cancel_scope.cancel()
