# Sockets that a service manager has opened and passes on: systemd's socket activation (sd_listen_fds(3)).
#
# They are open in the manager too, so a restart loses no connection: what arrives between the end of one process and
# the start of the next waits in the socket's queue.
from __future__ import annotations

import errno
import os
import socket as stdlib
from typing import Final

import trio

_FIRST: Final = 3  # SD_LISTEN_FDS_START
_VARIABLES: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


def inherited_listeners() -> list[trio.SocketListener]:
    """The listening sockets that a service manager has passed to this process, for :func:`serve_listeners`.

    Reads systemd's ``LISTEN_FDS`` and removes it from the environment, so that no child process takes the sockets for
    its own: a second call finds none. It does not need a running Trio.

    Returns:
        In the manager's order; empty if there are none, or if they are for another process (``LISTEN_PID``).

    Raises:
        OSError: what was passed is no stream socket that listens. All that was passed is closed then.
    """
    told = {name: os.environ.pop(name, "") for name in _VARIABLES}
    if told["LISTEN_PID"] != str(os.getpid()):
        return []
    if not told["LISTEN_FDS"].isascii() or not told["LISTEN_FDS"].isdigit():
        raise OSError(errno.EINVAL, f"LISTEN_FDS is not a number: {told['LISTEN_FDS']!r}")
    descriptors = range(_FIRST, _FIRST + int(told["LISTEN_FDS"]))
    listeners: list[trio.SocketListener] = []
    try:
        for descriptor in descriptors:
            listeners.append(_listener(descriptor))  # noqa: PERF401 - those before a wrong one are closed
    except BaseException:
        for listener in listeners:
            listener.socket.detach()  # close() needs a running Trio, which there may not be yet
        for descriptor in descriptors:
            _close(descriptor)
        raise
    return listeners


def _listener(descriptor: int) -> trio.SocketListener:
    os.set_inheritable(descriptor, False)
    socket = stdlib.socket(fileno=descriptor)
    try:
        return trio.SocketListener(trio.socket.from_stdlib_socket(socket))
    except ValueError as exc:
        socket.detach()  # closed by the caller, with all others
        raise OSError(errno.EINVAL, f"the inherited socket {descriptor} is not for this: {exc}") from exc
    except BaseException:
        socket.detach()
        raise


def _close(descriptor: int) -> None:
    try:
        os.close(descriptor)
    except OSError:  # it was never open
        pass
