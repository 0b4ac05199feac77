"""How a connection comes about: connect=, hosts unix:/path, and what goes wrong on the way."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from client_peer import error_of
from support import Recorder, make_server

import trio_smtp
from trio_smtp import ConnectError, Delivery, PoolConfig, SMTPTimeoutError, Stage
from trio_smtp.testing import make_certificates, open_sink

TEXT = b"Subject: hi\r\n\r\nhello\r\n"


@asynccontextmanager
async def unix_server(path: Path, **options: Any) -> AsyncIterator[Recorder]:
    handler = Recorder()
    server = make_server(handler, **options)
    listening = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
    await listening.bind(str(path))
    listening.listen(5)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_listeners, [trio.SocketListener(listening)])
        yield handler
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("lmtp", [False, True])
async def test_a_client_on_a_unix_socket(tmp_path: Path, lmtp: bool) -> None:
    path = tmp_path / "smtp"
    async with (
        unix_server(path, lmtp=lmtp) as handler,
        trio_smtp.open_client(f"unix:{path}", lmtp=lmtp) as client,
    ):
        result = await client.send("me@x.test", ["you@y.test"], TEXT)
        assert f"unix:{path}:" in repr(client)
    assert result.accepted == ["you@y.test"]
    assert handler.messages == [("me@x.test", ["you@y.test"], TEXT)]


async def test_a_pool_on_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "smtp"
    seen: list[trio_smtp.TraceEvent] = []
    async with unix_server(path) as handler:
        config = PoolConfig(trace=seen.append, connect_retries=0)
        async with trio_smtp.open_pool([f"unix:{tmp_path}/none", f"unix:{path}"], config=config) as pool:
            for _ in range(3):
                await pool.send("me@x.test", ["you@y.test"], TEXT)
    assert len(handler.messages) == 3
    assert [event.detail for event in seen if event.name == "connect"] == [f"unix:{tmp_path}/none", f"unix:{path}"]


async def test_tls_on_a_unix_socket_is_for_this_machine(tmp_path: Path) -> None:
    path, certificates = tmp_path / "smtp", make_certificates("localhost")
    options: dict[str, Any] = {"tls": "starttls", "ssl_context": certificates.client_context()}
    async with (
        unix_server(path, ssl_context=certificates.server_context()) as handler,
        trio_smtp.open_client(f"unix:{path}", **options) as client,
    ):
        assert client.tls is not None
        assert client.tls.verified
        await client.send("me@x.test", ["you@y.test"], TEXT)
    assert len(handler.messages) == 1


@pytest.mark.parametrize(
    ("name", "reason"),
    [("none", "No such file"), ("file", "Connection refused|not a socket"), ("x" * 200, "path"), ("a\0b", "NUL")],
)
async def test_a_unix_socket_that_is_none(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConnectError, match=reason) as caught:
        async with trio_smtp.open_client(f"unix:{tmp_path}/{name}"):
            raise AssertionError("it opened")
    assert (caught.value.stage, caught.value.delivery) == (Stage.CONNECT, Delivery.NOT_SENT)
    assert f"unix:{tmp_path}/{name}: " in str(caught.value)


async def test_connect_is_given_host_and_port_and_its_stream_is_used() -> None:
    asked: list[tuple[str, int]] = []
    async with open_sink() as sink:

        async def connect(host: str, port: int) -> trio.abc.Stream:
            asked.append((host, port))
            return await trio.open_tcp_stream(sink.host, sink.port)

        async with trio_smtp.open_client("mail.test", 26, connect=connect) as client:
            await client.send("me@x.test", ["you@y.test"], TEXT)
        async with trio_smtp.open_pool([("a.test", 27), "unix:/b"], connect=connect) as pool:
            await pool.send("me@x.test", ["you@y.test"], TEXT)
        async with trio_smtp.open_client("unix:/c", connect=connect):
            pass
    assert asked == [("mail.test", 26), ("a.test", 27), ("unix:/c", 25)]
    assert len(sink.messages) == 2


async def test_connect_may_return_any_stream() -> None:
    async with open_sink() as sink:

        async def connect(host: str, port: int) -> trio.abc.Stream:
            await trio.lowlevel.checkpoint()
            return sink.connect()

        async with (
            trio_smtp.open_pool("mail.test", connect=connect, max_connections=2) as pool,
            pool.send_many(("me@x.test", ["you@y.test"], TEXT) for _ in range(10)) as outcomes,
        ):
            assert [outcome.error async for outcome in outcomes] == [None] * 10
    assert len(sink.messages) == 10


async def test_a_stream_under_tls_counts_as_tls() -> None:
    certificates = make_certificates("mail.test")
    async with open_sink(tls="implicit", certificates=certificates) as sink:

        async def connect(host: str, port: int) -> trio.abc.Stream:
            stream = await trio.open_tcp_stream(sink.host, sink.port)
            return trio.SSLStream(stream, certificates.client_context(), server_hostname=host)

        async with trio_smtp.open_client("mail.test", connect=connect, tls="implicit") as client:
            assert client.tls is not None
            assert client.tls.verified


async def test_opportunistic_tls_connects_again_the_same_way() -> None:
    certificates = make_certificates("mail.test")
    asked = 0
    async with open_sink(tls="starttls", certificates=certificates) as sink:

        async def connect(host: str, port: int) -> trio.abc.Stream:
            nonlocal asked
            asked += 1
            return await trio.open_tcp_stream(sink.host, sink.port)

        context = certificates.client_context()
        context.set_alpn_protocols(["x"])
        context.maximum_version = context.minimum_version
        context.set_ciphers("NULL")  # no handshake with this
        options: dict[str, Any] = {"tls": "opportunistic", "ssl_context": context}
        async with trio_smtp.open_client("mail.test", connect=connect, **options) as client:
            assert client.tls is None
    assert asked == 2


async def test_what_goes_wrong_in_connect() -> None:
    async def refuse(host: str, port: int) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        raise OSError("the way is closed")

    async def know_better(host: str, port: int) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        raise ConnectError("by our own rules")

    async def fail(host: str, port: int) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        raise ZeroDivisionError

    async def no_stream(host: str, port: int) -> Any:
        await trio.lowlevel.checkpoint()
        return socket

    error = await error_of(trio_smtp.open_client("mail.test", connect=refuse))
    assert str(error) == "cannot connect to mail.test:25: the way is closed"
    for way in (refuse, know_better):
        error = await error_of(trio_smtp.open_client("mail.test", connect=way))
        assert isinstance(error, ConnectError)
        assert (error.stage, error.delivery) == (Stage.CONNECT, Delivery.NOT_SENT)
    config = PoolConfig(connect_retries=0)
    with pytest.raises(TypeError, match="connect must be async: it returned None"):
        async with trio_smtp.open_client("mail.test", connect=lambda host, port: None):  # type: ignore[arg-type,return-value]
            raise AssertionError("it opened")
    for way, kind in ((fail, ZeroDivisionError), (no_stream, TypeError)):
        with pytest.raises(kind):
            async with trio_smtp.open_client("mail.test", connect=way):
                raise AssertionError("it opened")
        async with trio_smtp.open_pool("mail.test", connect=way, config=config) as pool:
            with pytest.raises(kind):
                await pool.send("me@x.test", ["you@y.test"], TEXT)


async def test_connect_has_the_time_to_connect(autojump_clock: trio.testing.MockClock) -> None:
    async def connect(host: str, port: int) -> trio.abc.Stream:
        await trio.sleep_forever()
        raise AssertionError

    error = await error_of(trio_smtp.open_client("mail.test", connect=connect))
    assert isinstance(error, SMTPTimeoutError)
    assert trio.current_time() == pytest.approx(60)
    assert str(error) == "could not connect to mail.test:25 within 60 seconds"


async def test_cancelling_ends_connect(autojump_clock: trio.testing.MockClock) -> None:
    ended = trio.Event()

    async def connect(host: str, port: int) -> trio.abc.Stream:
        try:
            await trio.sleep_forever()
        finally:
            ended.set()
        raise AssertionError

    async with trio_smtp.open_pool("mail.test", connect=connect) as pool:
        with trio.move_on_after(1) as scope:
            await pool.send("me@x.test", ["you@y.test"], TEXT)
        assert scope.cancelled_caught
    assert ended.is_set()
    ended = trio.Event()
    with trio.move_on_after(1) as scope:
        async with trio_smtp.open_client("mail.test", connect=connect):
            raise AssertionError("it opened")
    assert scope.cancelled_caught
    assert ended.is_set()


@pytest.mark.parametrize("opener", [trio_smtp.open_client, partial(trio_smtp.open_pool)])
async def test_what_cannot_be_called_is_an_error_at_once(opener: Any) -> None:
    with pytest.raises(TypeError, match="async callable"):
        async with opener("mail.test", connect="socks5://proxy"):
            raise AssertionError("it opened")
