# The sockets that `trio-smtp serve` listens on: TCP, UNIX, and those that a service manager passes on.
from __future__ import annotations

import os
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import trio

import trio_smtp

from .errors import CommandError, Status, reason
from .options import host_words

Listener: TypeAlias = "trio.SocketListener | trio_smtp.UnixListener"


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where to listen.

    Attributes:
        host: a name or an address; ``None`` for all addresses.
        port: 0 for a free one; ``None`` for no TCP.
        unix: the path of a UNIX socket, or ``None``.
        unix_mode: the permissions of its file.
        inherit: take the sockets that a service manager passes on.
    """

    host: str | None
    port: int | None
    unix: str | None = None
    unix_mode: int = 0o600
    inherit: bool = False

    async def open(self) -> list[Listener]:
        """Listen.

        Raises:
            CommandError: naming the place where it cannot.
        """
        listeners: list[Listener] = []
        try:
            if self.inherit:
                where = "the sockets that were passed on"
                listeners += trio_smtp.inherited_listeners()
                if not listeners:
                    raise CommandError(
                        "no sockets were passed on (LISTEN_FDS, LISTEN_PID): --inherit is for a service manager's"
                        " socket activation, such as a systemd .socket unit",
                        Status.SYSTEM,
                    )
            if self.unix is not None:
                where = self.unix
                listeners.append(await trio_smtp.open_unix_listener(self.unix, mode=self.unix_mode))
            if self.port is not None:
                where = f"{'every address' if self.host is None else self.host}, port {self.port}"
                listeners += await trio_smtp.open_tcp_listeners(self.port, host=self.host)
        except OSError as exc:
            for listener in listeners:
                with trio.move_on_after(1, shield=True):
                    await listener.aclose()
            words = _why(exc)
            if not words.startswith("cannot listen on "):
                words = f"cannot listen on {where}: {words}"
            raise CommandError(words, Status.SYSTEM) from exc
        return listeners


def _why(error: OSError) -> str:
    if error.errno is not None and error.strerror and error.strerror != os.strerror(error.errno):
        return error.strerror  # a reason of the library's own
    return reason(error)


def name_of(listener: Listener | socket.socket) -> Any:
    """A socket's name: an address, or the path of a UNIX socket."""
    return listener.getsockname() if isinstance(listener, socket.socket) else listener.socket.getsockname()


def place_words(name: Any) -> str:
    """A socket's name, in the words of ``--server``."""
    return f"unix:{name}" if isinstance(name, str) else host_words(*name[:2])


class SharedSockets:
    """The sockets of a parent and its workers."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self.sockets: list[socket.socket] = []
        self._files: list[trio_smtp.UnixListener] = []
        for listener in listeners:
            self.sockets.append(socket.socket(fileno=os.dup(listener.socket.fileno())))
            if isinstance(listener, trio_smtp.UnixListener):
                self._files.append(listener)
            else:
                listener.socket.close()

    def open_in_worker(self) -> list[trio.SocketListener]:
        """The listeners of a worker, which leaves the files of UNIX sockets to its parent."""
        for file in self._files:
            file.socket.close()
        return [trio.SocketListener(trio.socket.from_stdlib_socket(listener)) for listener in self.sockets]

    def close(self) -> None:
        """In the parent: listen no more, and remove the files."""
        for listener in self.sockets:
            listener.close()
        for file in self._files:
            # Not in this thread: Trio would take the signals that the parent listens to.
            thread = threading.Thread(target=trio.run, args=(file.aclose,))
            thread.start()
            thread.join()


class BlockingResolver(trio.abc.HostnameResolver):
    """Asks the system in this thread: a process with other threads must not fork."""

    async def getaddrinfo(
        self,
        host: bytes | None,
        port: bytes | str | int | None,
        family: int = 0,
        type: int = 0,  # noqa: A002
        proto: int = 0,
        flags: int = 0,
    ) -> list[Any]:
        return socket.getaddrinfo(host, port, family, type, proto, flags)

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        return socket.getnameinfo(sockaddr, flags)


def open_shared(places: Places) -> SharedSockets:
    """Open the sockets of a parent, which runs no event loop beyond that.

    Raises:
        CommandError: as :meth:`Places.open`.
    """
    return trio.run(_open_shared, places)


async def _open_shared(places: Places) -> SharedSockets:
    trio.socket.set_custom_hostname_resolver(BlockingResolver())
    return SharedSockets(await places.open())
