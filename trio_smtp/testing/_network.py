# A network of one's own for the Trio run: names, addresses and ports that exist nowhere else.
#
# Trio has two hooks for this, the socket factory and the host name resolver. What they make here looks like TCP, and
# a connection is a socket pair, so that everything above works as it is, TLS included. A pair has no delay: what was
# written can be read at once. So trio.testing.MockClock never takes a connection for idle that has something to read,
# as it may with the kernel's TCP.
from __future__ import annotations

import errno
import os
import socket as stdlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Self

import trio

from .._public import NoPublicConstructor

_ANY: Final = ("0.0.0.0", "::")
_FIRST_PORT: Final = 49152  # the first of the dynamic ports (RFC 6335 §6)


class Network(metaclass=NoPublicConstructor):
    """What hosts there are, and what they do; made by :func:`virtual_network`.

    A name exists once a listener was opened on it: ``trio_smtp.serve(handler, 25, host="mail.example.com")``, or
    ``open_sink(host="mail.example.com", port=25)``. ``localhost`` always does. Looking up another one fails as in the
    DNS; connecting to a port without a listener is refused.

    Attributes:
        connections: pairs of host (as an address) and port that were connected to, or tried, in order.
    """

    connections: list[tuple[str, int]]
    _wires: _Wires

    @classmethod
    def _create(cls, wires: _Wires) -> Network:
        self = cls.__new__(cls)
        self.connections = wires.tried
        self._wires = wires
        return self

    def __repr__(self) -> str:
        hosts = ", ".join(self._wires.names)
        return f"<trio_smtp.testing.Network: hosts {hosts}; {len(self.connections)} connections so far>"

    def address_of(self, host: str) -> str:
        """The address of a name, which exists from now on; an address is its own."""
        return self._wires.address_of(host)

    def refuse(self, host: str) -> None:
        """Refuse further connections to a host, on all ports."""
        self._wires.refusing.add(self.address_of(host))

    def silence(self, host: str) -> None:
        """Let further connections to a host hang, as behind a firewall that drops packets."""
        self._wires.silent.add(self.address_of(host))

    def restore(self, host: str) -> None:
        """Undo :meth:`refuse` and :meth:`silence`."""
        self._wires.refusing.discard(self.address_of(host))
        self._wires.silent.discard(self.address_of(host))

    def cut(self, host: str) -> int:
        """Cut off all connections to a host, and return how many there were. Both ends find the end of the stream."""
        address = self.address_of(host)
        victims = [each for each in self._wires.open if each.remote[0] == address]
        for victim in victims:
            victim.cut()
        return len(victims)


class _Wires:
    """The network as its sockets and its resolver know it.

    Attributes:
        tried: pairs of host and port that were connected to, or tried, in order.
        names: name to address.
        listening: address and port to the socket that listens there.
        open: the clients' ends of connections.
        refusing: addresses that refuse connections.
        silent: addresses that do not answer.
    """

    def __init__(self) -> None:
        self.tried: list[tuple[str, int]] = []
        self.names: dict[str, str] = {"localhost": "127.0.0.1"}
        self.listening: dict[tuple[str, int], _Socket] = {}
        self.open: list[_Socket] = []
        self.refusing: set[str] = set()
        self.silent: set[str] = set()
        self._next_port = _FIRST_PORT

    def address_of(self, host: str) -> str:
        """As :meth:`Network.address_of`."""
        host = host.lower().removesuffix(".")
        if host not in self.names and not _is_address(host):
            self.names[host] = f"198.18.{len(self.names) // 250}.{len(self.names) % 250}"  # RFC 2544: for tests
        return self.names.get(host, host)

    def free_port(self) -> int:
        self._next_port += 1
        return self._next_port - 1

    def bind(self, name: tuple[str, int]) -> tuple[str, int]:
        host, port = name
        port = port or self.free_port()
        if (host, port) in self.listening:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        return host, port

    def listen(self, listener: _Socket) -> None:
        self.listening[listener.local] = listener

    def forget(self, closed: _Socket) -> None:
        if self.listening.get(closed.local) is closed:
            del self.listening[closed.local]
        if closed in self.open:
            self.open.remove(closed)

    async def reach(self, client: _Socket) -> None:
        host, port = client.remote
        self.tried.append((host, port))
        if host in self.silent:
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        candidates = [self.listening.get((address, port)) for address in (host, *_ANY)]
        listener = next((each for each in candidates if each is not None), None)
        if listener is None or host in self.refusing:
            raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        near, far = stdlib.socketpair()
        client.become(near)
        server = _Socket(self, client.family, client.proto)
        server.local, server.remote = client.remote, client.local
        server.become(far)
        self.open.append(client)
        listener.arrive(server)

    def look_up(self, host: str, family: int, passive: bool) -> str:
        name = host.lower().removesuffix(".")
        if (name not in self.names and not passive) or family == stdlib.AF_INET6:
            raise stdlib.gaierror(stdlib.EAI_NONAME, "Name or service not known")
        return self.address_of(name)


@contextmanager
def virtual_network() -> Iterator[Network]:
    """Take the place of TCP and of the DNS for everything in this Trio run, until the end of the block.

    Servers and clients in the block find each other under the names and ports that they use, 25 included, and no
    others: ``trio_smtp.serve``, ``open_client``, ``open_pool``, :func:`open_sink`, anything that goes through
    ``trio.open_tcp_stream`` and ``trio.open_tcp_listeners``. ``trio.testing.MockClock`` works with it. Not so with
    threads, which look idle to that clock: give clients a ``local_hostname``, which would be looked up in one.

    Connections that are open at the end of the block stay as they are.
    """
    wires = _Wires()
    sockets = trio.socket.set_custom_socket_factory(_Factory(wires))
    names = trio.socket.set_custom_hostname_resolver(_Resolver(wires))
    try:
        yield Network._create(wires)
    finally:
        trio.socket.set_custom_socket_factory(sockets)
        trio.socket.set_custom_hostname_resolver(names)


class _Factory(trio.abc.SocketFactory):
    def __init__(self, wires: _Wires) -> None:
        self._wires = wires

    def socket(self, family: int = stdlib.AF_INET, type: int = stdlib.SOCK_STREAM, proto: int = 0) -> _Socket:  # noqa: A002
        if family not in (stdlib.AF_INET, stdlib.AF_INET6) or type != stdlib.SOCK_STREAM:
            raise OSError(errno.EAFNOSUPPORT, "a virtual network has nothing but TCP")
        return _Socket(self._wires, family, proto)


class _Resolver(trio.abc.HostnameResolver):
    def __init__(self, wires: _Wires) -> None:
        self._wires = wires

    async def getaddrinfo(
        self,
        host: bytes | None,
        port: bytes | str | int | None,
        family: int = 0,
        type: int = 0,  # noqa: A002
        proto: int = 0,
        flags: int = 0,
    ) -> list[Any]:
        await trio.lowlevel.checkpoint()
        assert host is not None  # Trio asks only about names
        name = host.decode("ascii") if isinstance(host, bytes) else host
        address = self._wires.look_up(name, family, bool(flags & stdlib.AI_PASSIVE))
        return [(stdlib.AF_INET, type or stdlib.SOCK_STREAM, proto, "", (address, int(port or 0)))]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        await trio.lowlevel.checkpoint()
        return str(sockaddr[0]), str(sockaddr[1])


class _Socket(trio.socket.SocketType):
    """What stands for a TCP socket: nothing at first, then a queue of connections, or one end of a pair."""

    def __init__(self, wires: _Wires, family: int, proto: int) -> None:
        super().__init__()
        self._wires = wires
        self._family = stdlib.AddressFamily(family)
        self._proto = proto
        self._pair: trio.socket.SocketType | None = None
        self._arrivals: tuple[trio.MemorySendChannel[_Socket], trio.MemoryReceiveChannel[_Socket]] | None = None
        self.local: tuple[str, int] = (_ANY[family == stdlib.AF_INET6], 0)
        self.remote: tuple[str, int] = ("", 0)

    # -- what becomes of it

    def become(self, end: stdlib.socket) -> None:
        self._pair = trio.socket.from_stdlib_socket(end)

    def arrive(self, server: _Socket) -> None:
        assert self._arrivals is not None
        self._arrivals[0].send_nowait(server)

    def cut(self) -> None:
        if self._pair is not None:
            try:
                self._pair.shutdown(stdlib.SHUT_RDWR)
            except OSError:  # the other end has gone before
                pass

    # -- as Trio's streams and listeners know it

    @property
    def family(self) -> stdlib.AddressFamily:
        return self._family

    @property
    def type(self) -> stdlib.SocketKind:
        return stdlib.SOCK_STREAM

    @property
    def proto(self) -> int:
        return self._proto

    @property
    def did_shutdown_SHUT_WR(self) -> bool:  # noqa: N802
        return self._connected.did_shutdown_SHUT_WR

    @property
    def _connected(self) -> trio.socket.SocketType:
        if self._pair is None:
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
        return self._pair

    def __repr__(self) -> str:
        return f"<virtual socket {_words(self.local)} to {_words(self.remote)}>"

    def fileno(self) -> int:
        return -1 if self._pair is None else self._pair.fileno()

    def getsockname(self) -> Any:
        return self._name(self.local)

    def getpeername(self) -> Any:
        if self._connected.fileno() < 0:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return self._name(self.remote)

    def _name(self, name: tuple[str, int]) -> tuple[Any, ...]:
        return name if self._family == stdlib.AF_INET else (*name, 0, 0)

    def getsockopt(self, level: int, optname: int, buflen: int | None = None) -> Any:
        if (level, optname) == (stdlib.SOL_SOCKET, stdlib.SO_ACCEPTCONN):
            return int(self._arrivals is not None)
        return 0 if buflen is None else b""

    def setsockopt(self, level: int, optname: int, value: Any, optlen: int | None = None) -> None:
        pass

    async def bind(self, address: Any) -> None:
        await trio.lowlevel.checkpoint()
        self.local = self._wires.bind(address[:2])

    def listen(self, backlog: int = 0) -> None:
        self._wires.bind(self.local)
        self._arrivals = trio.open_memory_channel[_Socket](1_000_000)
        self._wires.listen(self)

    async def accept(self) -> tuple[trio.socket.SocketType, Any]:
        if self._arrivals is None:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        try:
            server = await self._arrivals[1].receive()
        except trio.ClosedResourceError:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF)) from None
        return server, server.getpeername()

    async def connect(self, address: Any) -> None:
        if not self.local[1]:
            self.local = ("127.0.0.1" if self._family == stdlib.AF_INET else "::1", self._wires.free_port())
        self.remote = address[:2]
        await self._wires.reach(self)

    async def recv(self, buflen: int, flags: int = 0, /) -> bytes:
        return await self._connected.recv(buflen, flags)

    async def recv_into(self, /, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        return await self._connected.recv_into(buffer, nbytes, flags)

    async def send(self, data: Any, flags: int = 0, /) -> int:
        return await self._connected.send(data, flags)

    async def wait_writable(self) -> None:
        await self._connected.wait_writable()

    def is_readable(self) -> bool:
        return self._connected.is_readable()

    def shutdown(self, flag: int) -> None:
        self._connected.shutdown(flag)

    def close(self) -> None:
        self._wires.forget(self)
        if self._arrivals is not None:
            sending, receiving = self._arrivals
            while True:
                try:
                    receiving.receive_nowait().close()  # was not accepted
                except (trio.WouldBlock, trio.ClosedResourceError):
                    break
            sending.close()
            receiving.close()
        if self._pair is not None:
            self._pair.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _is_address(host: str) -> bool:
    for family in (stdlib.AF_INET, stdlib.AF_INET6):
        try:
            stdlib.inet_pton(family, host)
        except OSError:
            continue
        return True
    return False


def _words(name: tuple[str, int]) -> str:
    return f"{name[0]}:{name[1]}"
