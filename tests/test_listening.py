# Listening on the addresses that a host's tables name, however many of them the machine has.
from __future__ import annotations

import errno
import socket as stdlib
from contextlib import contextmanager
from functools import partial

import pytest
import trio

from trio_smtp import Discard, open_tcp_listeners, serve

V4, V6 = stdlib.AF_INET, stdlib.AF_INET6
ABSENT = (V6, "2001:db8::1")  # for documentation (RFC 3849): no machine has it


class Table(trio.abc.HostnameResolver):
    """A table of hosts with one name in it."""

    def __init__(self, *addresses: tuple[int, str]) -> None:
        self.addresses = addresses

    async def getaddrinfo(self, host, port, family=0, type=0, proto=0, flags=0):  # noqa: A002
        await trio.lowlevel.checkpoint()
        return [
            (family, type, proto, "", (address, port, 0, 0) if family == V6 else (address, port))
            for family, address in self.addresses
        ]

    async def getnameinfo(self, sockaddr, flags):
        raise NotImplementedError


@contextmanager
def hosts(*addresses: tuple[int, str]):
    before = trio.socket.set_custom_hostname_resolver(Table(*addresses))
    try:
        yield
    finally:
        trio.socket.set_custom_hostname_resolver(before)


async def names(port: int = 0) -> list[tuple[str, int]]:
    listeners = await open_tcp_listeners(port, host="mx.test")
    found = [listener.socket.getsockname()[:2] for listener in listeners]
    for listener in listeners:
        await listener.aclose()
    return found


async def test_an_address_that_the_machine_has_not_is_left_out():
    with hosts(ABSENT, (V4, "127.0.0.1")):
        [(address, _)] = await names()
    assert address == "127.0.0.1"


async def test_an_address_that_is_there_twice_is_taken_once():
    with hosts((V4, "127.0.0.1"), (V4, "127.0.0.1")):
        [(_, port)] = await names()
        assert await names(port) == [("127.0.0.1", port)]


async def test_port_0_is_one_port_for_all_addresses():
    with hosts((V4, "127.0.0.1"), (V4, "127.0.0.2"), ABSENT):
        found = await names()
    assert [address for address, _ in found] == ["127.0.0.1", "127.0.0.2"]
    assert len({port for _, port in found}) == 1


async def test_a_host_that_is_not_here_at_all_is_an_error():
    with hosts(ABSENT), pytest.raises(OSError, match=r"address|family") as caught:
        await names()
    assert caught.value.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


async def test_a_port_that_is_never_free_at_all_addresses_is_an_error_in_the_end():
    """127.0.0.1 and all addresses: what is free at one is in use at the other."""
    with hosts((V4, "127.0.0.1"), (V4, "0.0.0.0")), pytest.raises(OSError, match="in use") as caught:
        await names()
    assert caught.value.errno == errno.EADDRINUSE


async def test_a_port_in_use_is_an_error_and_leaves_nothing_open():
    [listener] = await open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        port = listener.socket.getsockname()[1]
        with hosts((V4, "127.0.0.2"), (V4, "127.0.0.1")), pytest.raises(OSError, match="in use") as caught:
            await names(port)
        assert caught.value.errno == errno.EADDRINUSE
        with hosts((V4, "127.0.0.2")):
            assert await names(port) == [("127.0.0.2", port)]


async def test_serve_listens_so():
    with hosts(ABSENT, (V4, "127.0.0.1"), (V4, "127.0.0.1"), (V4, "127.0.0.2")):
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(partial(serve, Discard(), 0, host="mx.test"))
            ports = {listener.socket.getsockname()[1] for listener in listeners}
            assert len(listeners) == 2
            assert len(ports) == 1
            async with await trio.open_tcp_stream("127.0.0.2", ports.pop()) as stream:
                assert (await stream.receive_some()).startswith(b"220 ")
            nursery.cancel_scope.cancel()
