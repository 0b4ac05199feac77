# A pool put together: its parts, the nursery of its connections, and what happens when its block is left.
from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from dataclasses import replace

import trio

from .._client.config import ClientConfig
from .._client.opening import Opening, TLSMode
from .._client.reaching import Connect
from .._client.signing import MessageSigner, Signing
from .._nursery import open_bare_nursery
from .._protocol.checks import check_kind
from .._protocol.proxy import ProxyHeader
from .._protocol.sasl import Auth
from .._wire.entrance import entrance
from .._wire.timekeeper import Timekeeper
from .config import PoolConfig
from .connector import Connector
from .dispatcher import Dispatcher
from .health import ServerHealth
from .hosts import Hosts, HostsLike
from .pool import Pool
from .ratelimit import RateLimit
from .riding import Riding
from .trace import Tracer
from .worker import Worker


@entrance("pool")
async def open_pool(
    host: HostsLike,
    port: int | None = None,
    *,
    config: PoolConfig | None = None,
    client_config: ClientConfig | None = None,
    max_connections: int | None = None,
    tls: TLSMode = "auto",
    ssl_context: ssl.SSLContext | None = None,
    auth: Auth | tuple[str, str] | None = None,
    local_hostname: str | None = None,
    allow_insecure_auth: bool = False,
    lmtp: bool = False,
    proxy_header: ProxyHeader | None = None,
    sign: MessageSigner | None = None,
    connect: Connect | None = None,
) -> AsyncIterator[Pool]:
    """Open a pool of connections, for any number of tasks to send messages through.

    Connections are opened when there are messages to send, kept while they are good, and closed with QUIT. `tls`,
    `ssl_context`, `local_hostname`, `allow_insecure_auth`, `lmtp`, `proxy_header`, `sign` and `connect` are those of
    :func:`open_client`.

    Args:
        host: a host's name, or ``unix:`` and the path of a socket; or several, or pairs of name and port, in order of
            preference; or an async callable that returns one of these and is asked for each new connection.
        port: 465 with ``tls="implicit"``, 24 with ``lmtp=True``, else 25, if not given.
        config: limits, retries and the like.
        client_config: of each connection.
        max_connections: instead of the configuration's.
        auth: as :func:`open_client`. A token provider is asked once for all connections.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind, or there is no host. What goes wrong with a connection
            is raised by :meth:`Pool.send`: entering the block opens none.
        LocalProtocolError: a name or a secret that cannot be sent.

    Leaving the block waits for messages in flight; callers still waiting for a connection get ``PoolClosedError``. An
    exception of the block comes out as it is. Cancelled, messages whose end has been handed over still get
    ``end_grace`` seconds for their reply; the others are given up.
    """
    check_kind("config", config, PoolConfig, optional=True)
    settings = PoolConfig() if config is None else config
    if max_connections is not None:
        settings = replace(settings, max_connections=max_connections)
    opening = Opening(
        tls=tls,
        ssl_context=ssl_context,
        auth=auth,
        local_hostname=local_hostname,
        allow_insecure_auth=allow_insecure_auth,
        lmtp=lmtp,
        proxy_header=proxy_header,
        connect=connect,
        config=ClientConfig() if client_config is None else client_config,
        config_name="client_config",
    )
    signing = None if sign is None else Signing(sign, opening.config)
    hosts = Hosts(host, opening.port(port), settings.host_retry)
    tracer = Tracer(settings.trace)
    riding = Riding(tracer)
    rate_limit = RateLimit(*settings.rate_limit) if settings.rate_limit is not None else None

    def hire() -> Worker:
        worker = Worker(dispatcher, connector, health, riding, settings, rate_limit, tracer)
        nursery.start_soon(worker.run)
        return worker

    def leave(nursery: trio.Nursery, failure: BaseException | None) -> None:
        dispatcher.close()
        if failure is not None and not isinstance(failure, Exception):
            nursery.cancel_scope.cancel(reason="the pool's block was cancelled")

    async with open_bare_nursery(_stop) as keepers, open_bare_nursery(leave) as nursery:
        timekeeper = Timekeeper()
        dispatcher = Dispatcher(
            hire,
            max_connections=settings.max_connections,
            min_idle=settings.min_idle,
            max_waiting=settings.max_waiting,
            tracer=tracer,
        )
        health = ServerHealth(hosts, settings, dispatcher)
        connector = Connector(opening, health, settings, tracer, timekeeper)
        keepers.start_soon(timekeeper.run)
        if settings.min_idle:
            keepers.start_soon(_keep_warm, dispatcher, health)
        yield Pool._create(  # noqa: ASYNC119 - entrance makes a context manager of it
            dispatcher, health, connector, settings, tracer, opening.config.end_grace, signing
        )


def _stop(nursery: trio.Nursery, failure: BaseException | None) -> None:
    nursery.cancel_scope.cancel()


async def _keep_warm(dispatcher: Dispatcher, health: ServerHealth) -> None:
    """Open connections while there are fewer than ``min_idle``, until cancelled."""
    while True:
        if health.warming_delay:
            await trio.sleep(health.warming_delay)
        dispatcher.fill()
        await dispatcher.shortage()
