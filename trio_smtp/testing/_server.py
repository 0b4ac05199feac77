# A server for a test: on a free loopback port, and through memory for a caller that asks for a stream.
from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, Literal, Self, TypeAlias, TypeVar

import trio
from trio.testing import memory_stream_pair

import trio_smtp

from .._nursery import open_bare_nursery
from .._public import NoPublicConstructor
from ._certificates import Certificates, make_certificates

ServerTLS: TypeAlias = Literal["none", "starttls", "implicit"]
"""Whether a server for tests speaks TLS."""
Wrap: TypeAlias = Callable[[trio.abc.Stream], trio.abc.Stream]
"""A function that is given the server's end of a connection and returns the stream to use."""

current_stream: ContextVar[trio.abc.Stream] = ContextVar("trio_smtp.testing: the connection whose hook runs")

_Running = TypeVar("_Running", bound="RunningServer")


class RunningServer(metaclass=NoPublicConstructor):
    """A server that runs as long as the block of :func:`open_server`.

    Attributes:
        server: the :class:`trio_smtp.Server`, for its ``sessions``, ``statistics()`` and ``shutdown()``.
        host: the address it listens on.
        port: the port that was free.
        tls: ``"none"``, ``"starttls"`` or ``"implicit"``.
        certificates: what its certificate comes from; ``None`` without TLS.
    """

    server: trio_smtp.Server
    host: str
    port: int
    tls: ServerTLS
    certificates: Certificates | None
    _nursery: trio.Nursery
    _wrap: Wrap

    @classmethod
    def _create(
        cls,
        server: trio_smtp.Server,
        nursery: trio.Nursery,
        *,
        address: tuple[str, int],
        tls: ServerTLS,
        certificates: Certificates | None,
        wrap: Wrap,
    ) -> Self:
        self = cls.__new__(cls)
        self.server = server
        self.host, self.port = address
        self.tls = tls
        self.certificates = certificates
        self._nursery = nursery
        self._wrap = wrap
        return self

    def __repr__(self) -> str:
        connections = len(self.server.sessions)
        return f"<trio_smtp.testing.{type(self).__name__} {self.host}:{self.port}: {connections} connections now>"

    @property
    def client_options(self) -> dict[str, Any]:
        """What ``open_client`` and ``open_pool`` need beside host and port to get through to it.

        ``tls``, ``ssl_context`` (where there is TLS), ``lmtp``, and a ``local_hostname``, so that the
        real one is not looked up.
        """
        options: dict[str, Any] = {"tls": self.tls, "lmtp": self.server.config.lmtp, "local_hostname": "client.test"}
        if self.certificates is not None:
            options["ssl_context"] = self.certificates.client_context()
        return options

    def connect(self) -> trio.abc.Stream:
        """A new connection through memory: for ``open_client(..., stream=...)``, or for octets of your own.

        It needs no port, and works with ``trio.testing.MockClock``.
        """
        near, far = memory_stream_pair()
        self._nursery.start_soon(self.serve, far)
        return near

    async def serve(self, stream: trio.abc.Stream) -> None:
        """Serve a connection on a stream of your own, until it ends; cancelled, it ends as when a server is."""
        stream = self._wrap(stream)
        current_stream.set(stream)
        await self.server.serve_stream(stream)


@asynccontextmanager
async def open_server(
    handler: object,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    config: trio_smtp.ServerConfig | None = None,
    tls: ServerTLS = "none",
    certificates: Certificates | None = None,
    wrap: Wrap = lambda stream: stream,
) -> AsyncIterator[RunningServer]:
    """Run a handler on a free loopback port until the end of the block: for tests of how your program receives mail.

    At the end its connections are ended as by any cancellation. A cancellation of the block does the same.

    Args:
        handler: see :class:`trio_smtp.Handler`.
        host: where to listen.
        port: 0 for any free one.
        config: see :class:`trio_smtp.ServerConfig`.
        tls: ``"none"``, ``"starttls"`` or ``"implicit"``.
        certificates: for TLS; made for `host` and its address if not given.
        wrap: called with the server's end of each connection; returns what is served in its place, such as a
            :class:`FaultyStream`.

    Raises:
        ModuleNotFoundError: with TLS, trustme is missing.
        OSError: the port cannot be had.
        TypeError, ValueError: as from :class:`trio_smtp.Server`.
    """
    async with run_server(
        RunningServer._create,
        handler,
        host=host,
        port=port,
        config=config,
        tls=tls,
        certificates=certificates,
        wrap=wrap,
    ) as running:
        yield running


@asynccontextmanager
async def run_server(
    make: Callable[..., _Running],
    handler: object,
    *,
    host: str,
    port: int,
    config: trio_smtp.ServerConfig | None,
    tls: ServerTLS,
    certificates: Certificates | None,
    wrap: Wrap,
) -> AsyncIterator[_Running]:
    """What :func:`open_server` does, for the :class:`RunningServer` that `make` makes."""
    listeners = await trio_smtp.open_tcp_listeners(port, host=host)
    address = listeners[0].socket.getsockname()[:2]
    try:
        context, certificates = _prepare_tls(tls, certificates, host, address[0])
        server = trio_smtp.Server(handler, config=config, ssl_context=context, implicit_tls=tls == "implicit")
    except BaseException:
        for listener in listeners:
            listener.socket.close()
        raise
    async with open_bare_nursery(lambda nursery, error: nursery.cancel_scope.cancel()) as nursery:
        running = make(server, nursery, address=address, tls=tls, certificates=certificates, wrap=wrap)
        await nursery.start(partial(trio.serve_listeners, running.serve, listeners, handler_nursery=nursery))
        yield running


def config_or(default: trio_smtp.ServerConfig, given: trio_smtp.ServerConfig | None) -> trio_smtp.ServerConfig:
    """The configuration that was given, checked, or the default one."""
    if given is not None and not isinstance(given, trio_smtp.ServerConfig):
        raise TypeError(f"config must be of type trio_smtp.ServerConfig or None, not {given!r:.80}")
    return default if given is None else given


def _prepare_tls(
    tls: ServerTLS, certificates: Certificates | None, *names: str
) -> tuple[ssl.SSLContext | None, Certificates | None]:
    if tls not in ("none", "starttls", "implicit"):
        raise ValueError(f"tls is 'none', 'starttls' or 'implicit', not {tls!r}")
    if tls == "none":
        if certificates is not None:
            raise ValueError("certificates are of no use without TLS")
        return None, None
    certificates = certificates or make_certificates(*names)
    return certificates.server_context(), certificates
