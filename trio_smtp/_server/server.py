# The server as a whole: listeners, slots, and the end.
#
# Two nested nurseries: the inner one's scope stops accepting, the outer one's tasks are the sessions, so that `serve`
# returns when the last of them has ended. A task beside them keeps their time.
from __future__ import annotations

import math
import ssl
from collections.abc import Collection, Sequence
from functools import partial
from typing import Any, Final

import trio

from .._protocol.errors import ConnectionLostError
from .._protocol.proxy import ProxyHeader
from .._protocol.replies import Reply
from .._protocol.server.config import ServerConfig
from .._protocol.server.protocol import ServerProtocol
from .._wire.opening import open_wire
from .._wire.timekeeper import Timekeeper
from .accepting import accept_all
from .connection import Connection, current_connection
from .limits import ConnectionLimits, is_within
from .outcomes import SHUTTING_DOWN, leaves_of
from .proxy import read_proxy_header
from .service import ServerStatistics, Service
from .session import Session

REFUSAL_LIMIT: Final = 1.0  # seconds to tell a client that there is no slot for it, and as many until it has read that
MAX_LINGERING: Final = 100  # clients that are waited for so, at one time; it is for want of slots that they are refused


class Server:
    """An SMTP (or LMTP) server: a handler's hooks behind any number of listeners and streams.

    Args:
        handler: see :class:`Handler`.
        config: what to offer and how much to bear.
        ssl_context: a server-side context; offers STARTTLS.
        implicit_tls: start TLS at once on every connection, instead (RFC 8314).

    Raises:
        TypeError: the handler has an ``on_…`` attribute that is no hook, or a hook that is not async.
        ValueError: `implicit_tls` without `ssl_context`, or one that is for clients.
    """

    def __init__(
        self,
        handler: object,
        *,
        config: ServerConfig | None = None,
        ssl_context: ssl.SSLContext | None = None,
        implicit_tls: bool = False,
    ) -> None:
        if implicit_tls and ssl_context is None:
            raise ValueError("implicit_tls needs an ssl_context")
        self._service = Service(handler, config or ServerConfig(), ssl_context, implicit_tls=implicit_tls)
        self._limits = ConnectionLimits(self.config.max_connections, self.config.max_connections_per_host)
        self._connections: set[Connection] = set()
        self._accepting: set[trio.CancelScope] = set()
        self._lingering = 0  # refused connections whose clients may still be sending
        self._stoppers: list[Connection] = []  # a hook of theirs waits in shutdown(), once for each time it does
        self._left = trio.Event()  # set and replaced whenever there are fewer connections to wait for

    @property
    def config(self) -> ServerConfig:
        """The configuration."""
        return self._service.config

    @property
    def sessions(self) -> frozenset[Session]:
        """The sessions of all connections that are open now."""
        return frozenset(connection.session for connection in self._connections)

    def statistics(self) -> ServerStatistics:
        """Counters since the server was made, as they are now."""
        return self._service.statistics.copy()

    async def serve(
        self,
        port: int,
        *,
        host: str | bytes | None = None,
        task_status: trio.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Listen on a TCP port and serve until cancelled, or until :meth:`shutdown` has ended the last session.

        ``await nursery.start(server.serve, 0)`` returns the listeners, with the port that was free.

        Args:
            port: 0 for any free one.
            host: the interface; ``None`` for all.
            task_status: gets the listeners once clients can connect.

        Raises:
            OSError: the port cannot be had.
        """
        listeners = await trio.open_tcp_listeners(port, host=host)
        await self.serve_listeners(listeners, task_status=task_status)

    async def serve_listeners(
        self,
        listeners: Sequence[trio.abc.Listener[Any]],
        *,
        task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve the connections of some listeners, which are closed in the end; otherwise as :meth:`serve`.

        Those of ``trio.open_ssl_over_tcp_listeners`` are implicit TLS, with the listener's own context: STARTTLS is
        not offered. A PROXY header comes before the handshake.

        Raises:
            Exception: whatever a listener's ``accept`` has raised, by itself and not in a group.
        """
        try:
            await self._serve_listeners(listeners, task_status)
            return
        except ExceptionGroup as group:
            leaves = list(leaves_of(group))
            if len(leaves) > 1:
                raise
        raise leaves[0]

    async def _serve_listeners(
        self, listeners: Sequence[trio.abc.Listener[Any]], task_status: trio.TaskStatus[Any]
    ) -> None:
        keeper = Timekeeper()
        async with trio.open_nursery() as background:
            background.start_soon(keeper.run)
            async with trio.open_nursery() as sessions:
                with trio.CancelScope() as accepting:
                    self._accepting.add(accepting)
                    if self._service.closing:
                        accepting.cancel(reason="shutdown")
                    try:
                        await accept_all(
                            listeners,
                            partial(self._serve_stream, keeper),
                            sessions,
                            partial(task_status.started, listeners),
                        )
                    finally:
                        self._accepting.discard(accepting)
            background.cancel_scope.cancel(reason="the last session has ended")

    async def serve_stream(self, stream: trio.abc.Stream) -> None:
        """Serve one connection on any stream, which is closed in the end. Needs no running :meth:`serve`.

        A ``trio.SSLStream`` is implicit TLS, whether its handshake was done or is still to come; in the latter case
        `ServerConfig.tls_handshake_timeout` is its limit.

        Cancelled, it still says 421 where a reply may be, lets ``on_reset`` and ``on_close`` run, for ten seconds at
        most each, and closes the stream.
        """
        keeper = Timekeeper()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keeper.run)
            await self._serve_stream(keeper, stream)
            nursery.cancel_scope.cancel(reason="the session has ended")

    async def _serve_stream(self, keeper: Timekeeper, stream: trio.abc.Stream) -> None:
        context = self._service.ssl_context if self._service.implicit_tls else None
        if isinstance(stream, trio.SSLStream):
            context = stream.context
            self._service.prepare(context)
            stream = _unshaken(stream)
        connection = Connection(self._service, stream, keeper, context)
        session = connection.session
        proxies = self.config.proxy_protocol_from
        behind_proxy = bool(proxies) and is_within(session.host, proxies)
        host = None if behind_proxy else session.host  # whose slot is taken; a proxy's is that of the client it names
        refusal = SHUTTING_DOWN if self._service.closing else self._limits.refusal(host)
        if refusal is not None:
            await self._refuse(stream, None if context is not None else refusal)
            return
        try:
            if behind_proxy:
                header = await self._read_proxy_header(stream)
                if header is None:
                    await self._refuse(stream, None)
                    return
                session._introduce(header)
                # shutdown() knows only the sessions that it finds, and this one was not there yet.
                refusal = SHUTTING_DOWN if self._service.closing else self._limits.refusal_of_host(session.host)
                if refusal is not None:
                    await self._refuse(stream, None if context is not None else refusal)
                    return
                host = session.host
            del stream  # with what it has beside its socket it is 0.3 KiB of an idle session's 7
            self._begin(connection)
            await connection.run()
        finally:
            self._end(connection)
            self._limits.release(host)

    def _begin(self, connection: Connection) -> None:
        self._connections.add(connection)
        self._service.statistics.total_connections += 1
        self._service.statistics.connections += 1

    def _end(self, connection: Connection) -> None:
        if connection in self._connections:  # not refused behind a proxy
            self._connections.discard(connection)
            self._service.statistics.connections -= 1
            self._wake()

    async def _read_proxy_header(self, stream: trio.abc.Stream) -> ProxyHeader | None:
        limit = self.config.proxy_timeout
        try:
            with trio.CancelScope() as scope:
                scope.deadline = math.inf if limit is None else trio.current_time() + limit
                self._accepting.add(scope)  # there is no session yet that shutdown() could end
                try:
                    return await read_proxy_header(stream)
                finally:
                    self._accepting.discard(scope)
        except BaseException:  # cancelled from outside, maybe together with the time limit
            await trio.aclose_forcefully(stream)
            raise
        return None

    async def _refuse(self, stream: trio.abc.Stream, refusal: Reply | None) -> None:
        """Close, and say why; under implicit TLS nothing is said (`refusal` is ``None``), it would cost a handshake."""
        self._service.statistics.refused_connections += 1
        transport = open_wire(stream)
        try:
            if refusal is not None:
                protocol = ServerProtocol(self._service.profile)
                protocol.greet(refusal)
                with trio.move_on_after(REFUSAL_LIMIT):
                    await transport.send(protocol.data_to_send())
                if self._lingering < MAX_LINGERING:
                    self._lingering += 1
                    try:
                        await transport.aclose_lingering(REFUSAL_LIMIT)
                    finally:
                        self._lingering -= 1
        except ConnectionLostError:
            pass
        finally:
            await transport.aclose()  # noqa: ASYNC102 - shielded and bounded

    async def shutdown(self, *, grace: float = 30) -> None:
        """End the server: stop accepting at once, sessions as soon as they can, all of them in the end.

        Idle sessions get ``421 4.3.2`` now. A transaction in progress may finish within `grace` seconds, its session
        then gets its last reply and a 421. After that, whatever is in progress ends with a 421. :meth:`serve`
        returns when the last session is gone, and so does this. It may be called from a hook, and does not wait
        for that hook's own session then, nor for others whose hooks have called it. Cancelled, it leaves sessions as
        they are.
        """
        self._service.closing = True
        for scope in self._accepting:
            scope.cancel(reason="shutdown")
        for connection in tuple(self._connections):
            connection.begin_shutdown()
        own = current_connection.get()
        if own is not None and not own.asks_a_hook:  # a task that one of its hooks has left behind is no hook
            own = None
        if own is None:
            await self._end_all(grace, ())
            return
        self._stoppers.append(own)
        self._wake()  # those that wait in their hooks need not wait for this one any more
        try:
            await self._end_all(grace, self._stoppers)
        finally:
            self._stoppers.remove(own)

    async def _end_all(self, grace: float, stoppers: Collection[Connection]) -> None:
        """End all connections but those that wait for the same in their hooks: these end when their hooks do."""
        with trio.move_on_after(grace):
            await self._wait_for_all_but(stoppers)
        for connection in tuple(self._connections):
            if connection in stoppers:
                connection.end_soon()
            else:
                connection.end_now()
        await self._wait_for_all_but(stoppers)

    async def _wait_for_all_but(self, stoppers: Collection[Connection]) -> None:
        while not self._connections.issubset(stoppers):
            await self._left.wait()

    def _wake(self) -> None:
        self._left.set()
        self._left = trio.Event()


def _unshaken(stream: trio.SSLStream[trio.abc.Stream]) -> trio.abc.Stream:
    """What is below a TLS stream whose handshake is still to come: it is ours then, as is what comes before it."""
    try:
        stream.version  # noqa: B018
    except trio.NeedHandshakeError:
        return stream.transport_stream
    return stream


async def serve(
    handler: object,
    port: int,
    *,
    host: str | bytes | None = None,
    config: ServerConfig | None = None,
    ssl_context: ssl.SSLContext | None = None,
    implicit_tls: bool = False,
    task_status: trio.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve SMTP on a TCP port until cancelled: :class:`Server` and :meth:`Server.serve` in one.

    ``listeners = await nursery.start(trio_smtp.serve, Inbox(), 2525)``

    Args:
        handler: see :class:`Handler`.
        port: 0 for any free one.
        host: the interface; ``None`` for all.
        config: what to offer and how much to bear.
        ssl_context: a server-side context; offers STARTTLS.
        implicit_tls: start TLS at once on every connection, instead.
        task_status: gets the listeners once clients can connect.

    Raises:
        OSError: the port cannot be had.
        TypeError, ValueError: the handler or the arguments are wrong; see :class:`Server`.
    """
    server = Server(handler, config=config, ssl_context=ssl_context, implicit_tls=implicit_tls)
    await server.serve(port, host=host, task_status=task_status)
