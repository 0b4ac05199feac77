# Listening on a UNIX socket, which has a file for a name. What is left of a server that died is replaced; what another
# server listens on, and a file that is something else, is left alone. At the end the file is removed, if it is still
# the one that was made.
from __future__ import annotations

import errno
import os
import socket as stdlib
import stat
from abc import ABCMeta
from contextlib import ExitStack, suppress
from typing import Final

import trio

from .._protocol.checks import check_count, check_path
from .._public import NoPublicConstructor
from .._wire.entrance import check_trio

_BACKLOG: Final = 0xFFFF  # the system reduces it to its maximum


class _Kind(NoPublicConstructor, ABCMeta):
    """Both: a listener of Trio's is an abstract class."""


class UnixListener(trio.abc.Listener[trio.SocketStream], metaclass=_Kind):
    """A UNIX socket that is listened on, from :func:`open_unix_listener`.

    Attributes:
        socket: the listening socket.
        path: its file.
    """

    socket: trio.socket.SocketType
    path: str
    _listener: trio.SocketListener
    _identity: tuple[int, int]

    @classmethod
    def _create(cls, socket: trio.socket.SocketType, path: str) -> UnixListener:
        self = cls.__new__(cls)
        self.socket = socket
        self.path = path
        self._listener = trio.SocketListener(socket)
        self._identity = _identity(path)
        return self

    def __repr__(self) -> str:
        return f"<UnixListener {self.path!r}>"

    async def accept(self) -> trio.SocketStream:
        """Wait for a connection and return it, as ``trio.SocketListener.accept``. Cancelled, it takes none."""
        return await self._listener.accept()

    async def aclose(self) -> None:
        """Stop listening, and remove the file if it is still this socket's. Cancelled, it does so all the same."""
        # First the file: behind a closed socket another server may have put its own in its place.
        if self._listener.socket.fileno() >= 0:
            with suppress(OSError):
                if _identity(self.path) == self._identity:
                    os.unlink(self.path)
        await self._listener.aclose()


async def open_unix_listener(path: str | os.PathLike[str], *, mode: int = 0o600) -> UnixListener:
    """Listen on a UNIX socket, for :func:`serve_listeners` and the like.

    A socket file that no program listens on is replaced. The file is removed when the listener is closed. Its directory
    should be one that only its owner may write to.

    Cancelled, it listens on nothing.

    Args:
        path: of the socket's file.
        mode: who may connect: the file's permissions.

    Raises:
        TypeError, ValueError: `path` is no path, or `mode` no permissions.
        OSError: a program listens there already (``EADDRINUSE``); there is a file that is no socket (``EEXIST``); the
            path is too long; or the file cannot be made.
    """
    check_trio("open_unix_listener()")
    name = check_path("path", path)
    check_count("mode", mode, least=0, most=0o7777, optional=False)
    await trio.lowlevel.checkpoint()
    _make_room(name)
    with ExitStack() as opened:
        socket = trio.socket.socket(stdlib.AF_UNIX, stdlib.SOCK_STREAM)
        opened.callback(socket.close)
        await socket.bind(name)
        opened.callback(_remove, name)
        os.chmod(name, mode)  # before listen(): until then, connections are refused
        socket.listen(_BACKLOG)
        opened.pop_all()
    return UnixListener._create(socket, name)


def _make_room(path: str) -> None:
    """Remove the file of a socket that no program listens on."""
    try:
        kind = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise FileExistsError(errno.EEXIST, "a file that is no socket is in the way", path)
    with stdlib.socket(stdlib.AF_UNIX, stdlib.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            _remove(path)
            return
        except OSError as exc:
            # A full queue (EAGAIN) and a socket of another kind (EPROTOTYPE) are used by some program.
            if exc.errno not in (errno.EAGAIN, errno.EPROTOTYPE):
                raise
        raise OSError(errno.EADDRINUSE, "another program listens there", path)


def _remove(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)


def _identity(path: str) -> tuple[int, int]:
    facts = os.lstat(path)
    return facts.st_dev, facts.st_ino
