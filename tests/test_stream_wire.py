# A stream as a wire: what a peer has said already is found and not lost, whatever TLS holds back, and without waiting.
from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import AsyncIterator

import pytest
import trio
from tls_support import NAME, client_context, server_context
from trio.testing import memory_stream_pair

from trio_smtp import ConnectionLostError
from trio_smtp._wire.descriptor import DescriptorStream
from trio_smtp._wire.opening import open_wire
from trio_smtp._wire.stream_wire import StreamWire
from trio_smtp._wire.waits import Interrupted
from trio_smtp._wire.wire import Wire


class RawServer:
    """TLS as octets: says when they leave, and how many at a time."""

    def __init__(self, stream: trio.abc.Stream, version: ssl.TLSVersion) -> None:
        self.stream = stream
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = server_context()
        context.maximum_version = version
        self._tls = context.wrap_bio(self._in, self._out, server_side=True)

    async def shake_hands(self) -> None:
        """All but what comes behind the handshake, which with TLS 1.3 are the tickets."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self.stream.send_all(self._out.read())
                self._in.write(await self.stream.receive_some())
            else:
                break
        if self._tls.version() == "TLSv1.2":
            await self.stream.send_all(self._out.read())

    def tickets(self) -> bytes:
        """What TLS 1.3 says of its own; if not asked for, it comes with the first record."""
        return self._out.read()

    def record(self, text: bytes) -> bytes:
        self._tls.write(text)
        return self._out.read()

    def end(self) -> bytes:
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()
        return self._out.read()

    async def hear(self) -> bytes:
        self._in.write(await self.stream.receive_some())
        return self._tls.read()


KINDS = ["ours", "given", "memory"]
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@contextlib.asynccontextmanager
async def tls(kind: str, version: ssl.TLSVersion) -> AsyncIterator[tuple[Wire, RawServer]]:
    """A client's wire under TLS and the server: our own stream on a socket, one that is given, or memory."""
    near: trio.abc.Stream
    far: trio.abc.Stream
    if kind == "memory":
        near, far = memory_stream_pair()
    else:
        near, far = (trio.SocketStream(trio.socket.from_stdlib_socket(sock)) for sock in socket.socketpair())
    server = RawServer(far, version)
    if kind == "given":
        near = trio.SSLStream(near, client_context(), server_hostname=NAME)
    wire = open_wire(near)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.shake_hands)
        if kind == "given":
            wire = await wire.adopt_tls(server_side=False)
        else:
            wire = await wire.start_tls(client_context(), server_side=False, server_hostname=NAME)
    yield wire, server
    await trio.aclose_forcefully(far)
    await wire.aclose()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", KINDS)
async def test_records_that_came_together_are_all_found(kind: str, version: ssl.TLSVersion) -> None:
    """The second has left the socket with the first, so that nothing is to be seen there."""
    async with tls(kind, version) as (wire, server):
        await server.stream.send_all(server.record(b"one") + server.record(b"two") + server.record(b"three")[:7])
        assert await wire.receive() == b"one"
        assert await wire.receive_pending() == b"two"
        for _ in range(2):
            assert await wire.receive_pending() is None


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", KINDS)
async def test_a_record_is_found_whole_however_it_is_cut(kind: str, version: ssl.TLSVersion) -> None:
    async with tls(kind, version) as (wire, server):
        await server.stream.send_all(server.record(b"zero"))
        assert await wire.receive() == b"zero"
        for text in (b"one", b"two"):
            octets = server.record(text)
            for octet in octets[:-1]:
                await server.stream.send_all(bytes([octet]))
                assert await wire.receive_pending() is None
            await server.stream.send_all(octets[-1:])
            assert await wire.receive_pending() == text
            await wire.send(b"heard")
            assert await server.hear() == b"heard"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_ticket_is_nothing_to_be_heard(kind: str) -> None:
    async with tls(kind, ssl.TLSVersion.TLSv1_3) as (wire, server):
        await server.stream.send_all(server.tickets())
        for _ in range(2):
            assert await wire.receive_pending() is None
        await server.stream.send_all(server.record(b"text"))
        assert await wire.receive_pending() == b"text"
        assert await wire.receive_pending() is None


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", KINDS)
async def test_the_end_is_heard(kind: str, version: ssl.TLSVersion) -> None:
    async with tls(kind, version) as (wire, server):
        await server.stream.send_all(server.end())
        assert await wire.receive_pending() == b""
    async with tls(kind, version) as (wire, server):
        await server.stream.aclose()  # without close_notify
        assert await wire.receive_pending() == b""
    async with tls(kind, version) as (wire, server):
        await server.stream.send_all(server.tickets() + b"\x17\x03\x03\x00\x05bogus")
        with pytest.raises(ConnectionLostError):
            await wire.receive_pending()
        assert wire.broken
        assert await wire.receive_pending() is None


@pytest.mark.parametrize("kind", KINDS)
async def test_looking_takes_no_time_and_loses_nothing(
    kind: str, mock_clock: trio.testing.MockClock
) -> None:  # a clock that stands still: no deadline ever passes
    async with tls(kind, ssl.TLSVersion.TLSv1_3) as (wire, server):
        for number in range(20):
            text = b"%d" % number
            assert await wire.receive_pending() is None
            if number % 2:
                await server.stream.send_all(server.record(text))
                assert await wire.receive_pending() == text
            else:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(server.stream.send_all, server.record(text))
                    assert (await wire.receive_pending() or await wire.receive()) == text


@pytest.mark.parametrize("kind", ["ours", "memory"])
async def test_looking_can_be_interrupted_and_cancelled(kind: str) -> None:
    async with tls(kind, ssl.TLSVersion.TLSv1_3) as (wire, server):
        wire.interrupt()
        with pytest.raises(Interrupted):
            await wire.receive_pending()
        assert await wire.receive_pending() is None
        await server.stream.send_all(server.record(b"text"))
        with trio.CancelScope() as scope:
            scope.cancel()
            await wire.receive_pending()
        assert scope.cancelled_caught
        assert await wire.receive_pending() == b"text"


async def test_a_quiet_connection_is_known_as_such_without_a_try() -> None:
    """Which saves 25 µs a look: a tenth of a message under TLS."""
    async with tls("ours", ssl.TLSVersion.TLSv1_3) as (wire, server):
        assert isinstance(wire, StreamWire)
        assert isinstance(wire._stream, trio.SSLStream)
        below = wire._stream.transport_stream
        assert isinstance(below, DescriptorStream)
        await server.stream.send_all(server.record(b"220 mx.test"))
        assert await wire.receive() == b"220 mx.test"
        assert not below.is_quiet  # there was more than one record: look into them, once
        assert await wire.receive_pending() is None
        assert below.is_quiet
        await server.stream.send_all(server.record(b"250 a") + b"\x17")
        assert await wire.receive() == b"250 a"
        assert below.is_quiet
