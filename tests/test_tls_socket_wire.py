# A server's TLS on a plain socket: handshakes, records in pieces, and the end.
from __future__ import annotations

import ssl

import pytest
import trio
from tls_support import NAME, client_context, server_context
from trio.testing import wait_all_tasks_blocked
from wire_pairs import ciphertext, pair

from trio_smtp import ConnectionLostError, SMTPTimeoutError, TLSError
from trio_smtp._wire import tls as _tls
from trio_smtp._wire.tls import watch_server_name
from trio_smtp._wire.waits import Interrupted


@pytest.mark.parametrize("how", ["garbage", "end", "timeout"])
async def test_a_handshake_that_fails_breaks_the_connection(how: str, autojump_clock):
    async with pair("timed") as (wire, far):
        error: type[Exception] = TLSError
        if how == "garbage":
            await far.send_all(b"EHLO x\r\n")
        elif how == "end":
            await far.aclose()
        else:
            error = SMTPTimeoutError
        with pytest.raises(error):
            await wire.start_tls(server_context(), server_side=True, deadline=trio.current_time() + 5)
        assert wire.broken
        assert wire.tls is None
        await wire.aclose_lingering()


async def test_a_record_that_comes_octet_by_octet():
    async with pair("server_tls") as (wire, far), trio.open_nursery() as nursery:
        octets = await ciphertext(far, b"whole")

        async def receive():
            assert await wire.receive() == b"whole"

        nursery.start_soon(receive)
        for octet in octets:
            await wait_all_tasks_blocked()
            assert wire.is_receiving
            await far.transport_stream.send_all(bytes([octet]))


async def test_records_that_are_there_together_are_one_chunk():
    async with pair("server_tls") as (wire, far):
        await far.send_all(b"x" * 50_000)
        await wait_all_tasks_blocked()
        assert await wire.receive() == b"x" * 50_000


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
async def test_a_good_bye_is_the_end_whatever_follows_it(version: str):
    async with pair("server_tls", version) as (wire, far), far.transport_stream as octets:
        await octets.send_all(await ciphertext(far, b"last") + await ciphertext(far, None))
        with trio.fail_after(5):
            assert await wire.receive() == b"last"
            assert await wire.receive() == b""
        assert not wire.broken
    async with pair("server_tls", version) as (wire, far), far.transport_stream as octets:
        await octets.send_all(await ciphertext(far, None) + b"more")
        assert await wire.receive() == b""
        await wire.send(b"and good-bye")
        assert not wire.broken


async def test_what_came_with_the_end_of_the_handshake_is_not_waited_for():
    async with pair("timed") as (wire, far):
        below = far
        far = trio.SSLStream(far, client_context(), server_hostname=NAME)
        held = bytearray()

        class Corked(trio.abc.Stream):
            """Keeps the end of the handshake back, until there is something behind it."""

            def __init__(self) -> None:
                self.sends = 0

            async def send_all(self, data: bytes) -> None:  # type: ignore[override]
                self.sends += 1
                held.extend(data)
                if self.sends != 2:
                    await below.send_all(bytes(held))
                    held.clear()

            async def wait_send_all_might_not_block(self) -> None: ...

            async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
                return await below.receive_some(max_bytes)

            async def aclose(self) -> None: ...

        far.transport_stream = Corked()

        async def speak() -> None:
            await far.do_handshake()
            await far.send_all(b"EHLO client.test\r\n")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(speak)
            wire = await wire.start_tls(server_context(), server_side=True)
        assert far.transport_stream.sends == 3
        assert await wire.receive() == b"EHLO client.test\r\n"


@pytest.mark.parametrize("way", ["expire", "interrupt"])
async def test_a_wake_up_that_comes_together_with_half_a_record_is_not_lost(way: str, monkeypatch: pytest.MonkeyPatch):
    async with pair("server_tls") as (wire, far):
        octets = await ciphertext(far, b"whole")
        wait = trio.lowlevel.wait_readable

        async def wait_and_be_woken(fd: int) -> None:
            await wait(fd)
            getattr(wire, way)()  # the task is on its way already: nothing waits for the socket

        with monkeypatch.context() as patch, trio.fail_after(5):
            patch.setattr(trio.lowlevel, "wait_readable", wait_and_be_woken)
            await far.transport_stream.send_all(octets[:9])
            with pytest.raises(SMTPTimeoutError if way == "expire" else Interrupted):
                await wire.receive()
        await far.transport_stream.send_all(octets[9:])
        assert await wire.receive() == b"whole"


async def test_a_damaged_record_loses_the_connection():
    async with pair("server_tls") as (wire, far):
        octets = bytearray(await ciphertext(far, b"whole"))
        octets[-1] ^= 1
        await far.transport_stream.send_all(octets)
        with pytest.raises(ConnectionLostError):
            await wire.receive()
        assert wire.broken
        with pytest.raises(trio.BrokenResourceError) as caught:
            await far.receive_some()
        assert "BAD_RECORD_MAC" in str(caught.value.__cause__)  # it was told


async def test_the_peer_is_told_why_the_handshake_failed():
    async with pair("timed") as (wire, far):
        context = client_context()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        ours = server_context()
        ours.minimum_version = ssl.TLSVersion.TLSv1_3
        far = trio.SSLStream(far, context, server_hostname=NAME)

        async def speak() -> None:
            with pytest.raises(trio.BrokenResourceError) as caught:
                await far.do_handshake()
            assert "ALERT_PROTOCOL_VERSION" in str(caught.value.__cause__)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(speak)
            with pytest.raises(TLSError, match="UNSUPPORTED_PROTOCOL"):
                await wire.start_tls(ours, server_side=True)


async def test_what_tls_says_of_itself_is_bounded(monkeypatch: pytest.MonkeyPatch):
    async with pair("server_tls") as (wire, far):
        monkeypatch.setattr(_tls, "_HELD_LIMIT", 0)  # the session tickets wait for our first words
        await far.send_all(b"x")
        with pytest.raises(ConnectionLostError):
            await wire.receive()


async def test_tickets_beyond_what_may_wait_are_sent_at_once():
    async with pair("timed") as (wire, far):
        far = trio.SSLStream(far, client_context(), server_hostname=NAME)
        ours = server_context()
        ours.num_tickets = 100  # a few are as long where the client has a certificate with a long signature

        async def speak() -> None:
            await far.do_handshake()
            await far.send_all(b"hello")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(speak)
            wire = await wire.start_tls(ours, server_side=True)
            assert await wire.receive() == b"hello"


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
async def test_sessions_of_either_version_and_the_name_that_was_asked_for(version: str):
    async with pair("timed") as (wire, far):
        context = client_context()
        context.minimum_version = context.maximum_version = getattr(ssl.TLSVersion, version)
        ours = server_context()
        watch_server_name(ours)
        far = trio.SSLStream(far, context, server_hostname=NAME)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(far.do_handshake)
            wire = await wire.start_tls(ours, server_side=True)
        tls = wire.tls
        assert tls is not None
        assert tls.version.replace(".", "_") == version
        assert tls.server_name == NAME
        for size in (1, 16384, 16385, 300_000):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wire.send, b"s" * size)
                got = 0
                while got < size:
                    got += len(await far.receive_some())
                assert got == size
                nursery.start_soon(far.send_all, b"r" * size)
                got = 0
                while got < size:
                    got += len(await wire.receive())
                assert got == size


async def test_a_record_that_the_socket_takes_in_part_is_finished_by_send():
    async with pair("server_tls") as (wire, far):
        content = bytes(range(256)) * 80_000
        assert wire.send_nowait(content) == 0
        assert wire.send_nowait(b"something else") == 0  # and is not sent between two parts of it
        got = bytearray()

        async def read() -> None:
            while len(got) < len(content) + 4:
                got.extend(await far.receive_some())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await wire.send(content)
            assert wire.send_nowait(b"next") == 4
        assert got == content + b"next"


async def test_what_is_there_already():
    async with pair("server_tls") as (wire, far), far.transport_stream:
        assert wire.receive_nowait() is None
        octets = await ciphertext(far, b"whole")
        await far.transport_stream.send_all(octets[:9])
        assert wire.receive_nowait() is None
        await far.transport_stream.send_all(octets[9:])
        assert await wire.receive_pending() == b"whole"
        await far.transport_stream.send_all(await ciphertext(far, None))
        assert wire.receive_nowait() == b""
        assert wire.receive_nowait() == b""
    async with pair("server_tls") as (wire, far):
        await far.transport_stream.aclose()
        assert wire.receive_nowait() == b""
    async with pair("server_tls") as (wire, far):
        await far.transport_stream.send_all(b"\x17\x03\x03\x00\x05bogus")
        with pytest.raises(ConnectionLostError):
            wire.receive_nowait()
        assert wire.broken
        assert wire.receive_nowait() is None


async def test_there_is_no_tls_within_tls():
    async with pair("server_tls") as (wire, _):
        with pytest.raises(TypeError, match="under TLS already"):
            await wire.start_tls(server_context(), server_side=True)
