# From a host's name to a connected stream: by TCP, by a UNIX socket, or by a way that the application brings.
#
# Guarantee: what goes wrong is a ConnectError or an SMTPTimeoutError at the stage "connect", unless the application's
# own code raised something that is neither an OSError nor one of ours.
from __future__ import annotations

import inspect
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import trio

from .._protocol.errors import ConnectError, SMTPError, SMTPTimeoutError, Stage
from .config import ClientConfig
from .connection import deadline_after

Connect: TypeAlias = Callable[[str, int], Awaitable[trio.abc.Stream]]
"""An async function that is given a host and a port, and returns a connected stream."""

_UNIX: Final = "unix:"
_LOCAL_NAME: Final = "localhost"


def address_name(host: str, port: int | None) -> str:
    """A server's address as errors, logs and traces show it."""
    return host if port is None or host.startswith(_UNIX) else f"{host}:{port}"


def tls_name(host: str) -> str:
    """The name that the certificate must have: of what listens on a UNIX socket, this machine's."""
    return _LOCAL_NAME if host.startswith(_UNIX) else host


async def reach(host: str, port: int, config: ClientConfig, connect: Connect | None) -> trio.abc.Stream:
    """Connect, within ``connect_timeout``.

    Args:
        host: a name, an address, or ``"unix:"`` and the path of a socket.
        port: not looked at for a UNIX socket.
        config: the client's.
        connect: takes the place of everything else.

    Raises:
        ConnectError, SMTPTimeoutError: not reached.
        TypeError: what `connect` returned is no stream.
        Exception: what `connect` raised, unless that is an OSError.
    """
    try:
        with trio.CancelScope(deadline=deadline_after(config.connect_timeout)):
            return await _reach(host, port, config, connect)
    except SMTPError as exc:  # the application's way knows best
        if exc.stage is None:
            exc._place(Stage.CONNECT)
        raise
    except (OSError, UnicodeError) as exc:  # UnicodeError: a name that IDNA cannot encode, such as "a..b"
        raise ConnectError(
            f"cannot connect to {address_name(host, port)}: {_reason(exc)}", stage=Stage.CONNECT
        ) from exc
    raise SMTPTimeoutError(
        f"could not connect to {address_name(host, port)} within {config.connect_timeout:g} seconds",
        stage=Stage.CONNECT,
    )


async def _reach(host: str, port: int, config: ClientConfig, connect: Connect | None) -> trio.abc.Stream:
    if connect is not None:
        answer: object = connect(host, port)
        if not inspect.isawaitable(answer):
            raise TypeError(f"connect must be async: it returned {answer!r:.80}")
        stream: object = await answer
        if not isinstance(stream, trio.abc.Stream):
            raise TypeError(f"connect must return a trio.abc.Stream, not {type(stream).__name__}")
        return stream
    if host.startswith(_UNIX):
        path = host.removeprefix(_UNIX)
        if "\0" in path:
            raise OSError("the path has a NUL")
        return await trio.open_unix_socket(path)
    return await trio.open_tcp_stream(host, port, local_address=config.local_address)


def _reason(exc: OSError | UnicodeError) -> str:
    """The useful words: of a name with several addresses, those of the first attempt, which Trio hides in a group."""
    if isinstance(exc, UnicodeError):
        return f"the name cannot be looked up ({exc})"
    group = exc.__cause__
    if isinstance(group, BaseExceptionGroup):
        inner = group.exceptions[0]
        exc = inner if isinstance(inner, OSError) else exc
    if exc.errno and not isinstance(exc, socket.gaierror):
        return os.strerror(exc.errno)
    return exc.strerror or str(exc)
