# trio_smtp.testing: names, addresses and ports that exist nowhere else.
from __future__ import annotations

import socket
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock, check_half_closeable_stream

import trio_smtp
from trio_smtp import ClientConfig, PoolConfig
from trio_smtp.testing import make_certificates, open_sink, virtual_network

CONTENT = b"Subject: hi\r\n\r\nhello\r\n"


def client_of(host, port=25, **options):
    return trio_smtp.open_client(host, port, **{"local_hostname": "me.test", "tls": "none", **options})


async def send(client, content=CONTENT):
    return await client.send("a@x.test", ["b@y.test"], content)


async def test_a_name_and_a_port_that_nobody_may_have(autojump_clock: MockClock):
    with virtual_network() as network:
        async with open_sink(host="mail.example.com", port=25) as sink:
            assert (sink.host, sink.port) == (network.address_of("mail.example.com"), 25)
            async with client_of("Mail.Example.com.") as client:
                await send(client)
                await trio.sleep(200)
                await send(client)
        assert network.connections == [(sink.host, 25)]
    assert [message.peer and message.peer[0] for message in sink.messages] == ["127.0.0.1"] * 2
    assert 200 <= trio.current_time() < 201


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
async def test_tls(tls, autojump_clock: MockClock):
    with virtual_network():
        async with (
            open_sink(
                host="mail.example.com", port=465, tls=tls, certificates=make_certificates("mail.example.com")
            ) as sink,
            trio_smtp.open_client("mail.example.com", 465, **sink.client_options) as client,
        ):
            await send(client, b"x" * 3_000_000)
    assert sink.messages[0].tls is not None
    assert sink.messages[0].tls.version == "TLSv1.3"


async def test_the_certificate_is_for_the_name_and_for_the_address(autojump_clock: MockClock):
    with virtual_network():
        async with open_sink(host="mail.example.com", port=465, tls="implicit") as sink:
            for host in ("mail.example.com", sink.host):
                async with trio_smtp.open_client(host, sink.port, **sink.client_options) as client:
                    await send(client)
    assert len(sink.messages) == 2


async def test_a_server_and_a_pool_of_ones_own(autojump_clock: MockClock):
    class Inbox(trio_smtp.Handler):
        async def on_data(self, session, envelope, body):
            assert session.local == ("127.0.0.1", 25)
            await body.read()
            await trio.sleep(10)

    with virtual_network():
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(trio_smtp.serve, Inbox(), 25))
            async with (
                trio_smtp.open_pool("localhost", 25, max_connections=5, local_hostname="me.test") as pool,
                trio.open_nursery() as senders,
            ):
                for _ in range(10):
                    senders.start_soon(send, pool)
            nursery.cancel_scope.cancel()
    assert 20 <= trio.current_time() < 21


async def test_what_is_not_there(autojump_clock: MockClock):
    with virtual_network() as network:
        with pytest.raises(trio_smtp.ConnectError, match="Name or service not known"):
            async with client_of("nobody.test"):
                pass
        with pytest.raises(trio_smtp.ConnectError, match="refused"):
            async with client_of("localhost"):
                pass
        with pytest.raises(trio_smtp.ConnectError, match="refused"):
            async with client_of("192.0.2.1"):
                pass
        with pytest.raises(socket.gaierror):
            await trio.socket.getaddrinfo("nobody.test", 25)
        assert network.connections == [("127.0.0.1", 25), ("192.0.2.1", 25)]


async def test_hosts_that_refuse_or_say_nothing(autojump_clock: MockClock):
    with virtual_network() as network:
        async with open_sink(host="a.test", port=25) as first, open_sink(host="b.test", port=25) as second:
            hosts = [("a.test", 25), ("b.test", 25)]
            config = PoolConfig(max_messages=1, host_retry=0)
            client_config = ClientConfig(connect_timeout=30)
            options: dict[str, Any] = {
                "config": config,
                "client_config": client_config,
                "tls": "none",
                "local_hostname": "me.test",
            }
            async with trio_smtp.open_pool(hosts, **options) as pool:
                await send(pool)
                network.refuse("a.test")
                await send(pool)
                network.restore("a.test")
                network.silence("a.test")
                await send(pool)
                assert trio.current_time() >= 30
                network.restore("a.test")
                await send(pool)
        assert [len(first.messages), len(second.messages)] == [2, 2]


async def test_a_cut(autojump_clock: MockClock):
    with virtual_network() as network:
        async with open_sink(host="a.test", port=25) as sink, client_of("a.test") as client:
            await send(client)
            assert network.cut("b.test") == 0
            assert network.cut("a.test") == 1
            with pytest.raises(trio_smtp.ConnectionLostError):
                await send(client)
            async with client_of("a.test") as client:
                await send(client)
            assert network.cut("a.test") == 1  # those that were cut or closed are gone
        assert len(sink.messages) == 2


async def test_ports():
    with virtual_network():
        async with open_sink() as first, open_sink() as second, open_sink(host="a.test", port=25):
            assert first.port != second.port
            with pytest.raises(OSError, match="in use"):
                async with open_sink(host="a.test", port=25):
                    pass
        async with open_sink(host="a.test", port=25):
            pass


async def test_ipv6():
    with virtual_network():
        async with open_sink(host="::1", port=25) as sink, client_of("::1") as client:
            await send(client)
    assert sink.messages[0].peer is not None
    assert sink.messages[0].peer[0] == "::1"


async def test_its_streams_are_like_those_of_tcp():
    with virtual_network():
        [listener] = await trio.open_tcp_listeners(25, host="a.test")

        async def make():
            near = await trio.open_tcp_stream("a.test", 25)
            return near, await listener.accept()

        await check_half_closeable_stream(make, None)
        near, far = await make()
        assert near.socket.getpeername() == far.socket.getsockname()
        assert near.socket.getsockname() == far.socket.getpeername()
        assert await trio.socket.getnameinfo(near.socket.getpeername(), 0) == (far.socket.getsockname()[0], "25")
        assert "virtual" in repr(near.socket)
        assert near.socket.family == socket.AF_INET
        await near.aclose()
        await far.aclose()
        with pytest.raises(OSError, match="descriptor"):
            near.socket.getpeername()
        waiting = await trio.open_tcp_stream("a.test", 25)
        await listener.aclose()
        assert await waiting.receive_some() == b""
        with pytest.raises(trio.ClosedResourceError):
            await listener.accept()
        await waiting.aclose()


async def test_only_tcp():
    with virtual_network(), pytest.raises(OSError, match="nothing but TCP"):
        trio.socket.socket(type=socket.SOCK_DGRAM)


async def test_the_real_network_is_back_afterwards():
    with virtual_network():
        pass
    async with open_sink() as sink, client_of(sink.host, sink.port) as client:
        await send(client)
