# Listening on every address of a name, as asyncio 3.13 does: an address twice in the host's tables is one, and an
# address that the machine has not is skipped as long as there is another (a container without IPv6 still resolves
# localhost to ::1). And port 0 is one free port for all of them, as a client that is told one port expects.
from __future__ import annotations

import errno
import os
import socket as stdlib
import sys
from collections.abc import Collection
from contextlib import ExitStack
from typing import Any, Final, TypeAlias

import trio

from .._logging import logger
from .entrance import check_trio

PORT_TRIES: Final = 10  # free ports of one address, each in use at another, until that is an error
_BACKLOG: Final = 0xFFFF  # the system reduces it to its maximum
_NOT_HERE: Final = frozenset(
    getattr(errno, name)
    for name in ("EAFNOSUPPORT", "EADDRNOTAVAIL", "WSAEAFNOSUPPORT", "WSAEADDRNOTAVAIL")
    if hasattr(errno, name)
)

_Address: TypeAlias = tuple[int, int, int, Any]  # family, type, protocol, and what bind() takes


async def open_tcp_listeners(port: int, *, host: str | bytes | None = None) -> list[trio.SocketListener]:
    """Listen on every address of a host: ``trio.open_tcp_listeners`` for hosts as they are.

    An address that is there twice is taken once. One that this machine does not have is left out, unless it has none of
    them. With port 0 all listeners have the same port.

    Cancelled, it listens on nothing.

    Args:
        port: 0 for any free one.
        host: a name or an address; ``None`` for all addresses.

    Raises:
        TypeError, ValueError: `port` is no port, or `host` no name.
        OSError: there is no such host; the port is in use or not allowed; or the machine has none of the addresses. The
            message names address and port.
    """
    check_trio("open_tcp_listeners()")
    if isinstance(port, bool) or not isinstance(port, int):
        raise TypeError(f"port is a number, not {port!r}")
    if not 0 <= port <= 65535:
        raise ValueError(f"port is a number from 0 to 65535, not {port}")
    if host is not None and not isinstance(host, str | bytes):
        raise TypeError(f"host is a name or an address, or None, not {host!r:.80}")
    found = await trio.socket.getaddrinfo(host, port, type=stdlib.SOCK_STREAM, flags=stdlib.AI_PASSIVE)
    addresses = list(dict.fromkeys((family, kind, protocol, address) for family, kind, protocol, _, address in found))
    for _ in range(PORT_TRIES - 1):
        try:
            return await _listen_on_all(addresses, port)
        except OSError as exc:
            if port or exc.errno != errno.EADDRINUSE:
                raise
    return await _listen_on_all(addresses, port)


async def _listen_on_all(addresses: Collection[_Address], port: int) -> list[trio.SocketListener]:
    listeners: list[trio.SocketListener] = []
    missing: OSError = OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    with ExitStack() as opened:
        for address in addresses:
            try:
                socket = await _listen(address, port)
            except OSError as exc:
                if exc.errno not in _NOT_HERE:
                    raise _named(exc, address[3][0], port) from exc
                missing = exc
                logger.info("not listening on %s, which this machine does not have: %s", address[3][0], exc)
            else:
                opened.callback(socket.close)
                port = socket.getsockname()[1]
                listeners.append(trio.SocketListener(socket))
        if not listeners:
            raise missing
        opened.pop_all()
    return listeners


def _named(error: OSError, host: str, port: int) -> OSError:
    """The same error, which says where."""
    words = f"cannot listen on {host}, port {port}: {error.strerror}"
    if error.errno == errno.EACCES and port < 1024:
        words += "; ports below 1024 are for root and, on Linux, for CAP_NET_BIND_SERVICE"
    return OSError(error.errno, words)


async def _listen(address: _Address, port: int) -> trio.socket.SocketType:
    family, kind, protocol, (host, _, *rest) = address
    socket = trio.socket.socket(family, kind, protocol)
    with ExitStack() as opened:
        opened.callback(socket.close)
        _prepare(socket)
        await socket.bind((host, port, *rest))
        socket.listen(_BACKLOG)
        opened.pop_all()
    return socket


def _prepare(socket: trio.socket.SocketType) -> None:
    if sys.platform == "win32":
        socket.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_EXCLUSIVEADDRUSE, 1)
    else:
        socket.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_REUSEADDR, 1)
    if socket.family == stdlib.AF_INET6:
        socket.setsockopt(stdlib.IPPROTO_IPV6, stdlib.IPV6_V6ONLY, 1)
