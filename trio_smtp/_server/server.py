# The server as a whole: listeners, slots for connections, and the end.
#
# Three nested nurseries: the innermost accepts, and a shutdown cancels it; the tasks of the one around it are the
# sessions, so that `serve` returns when the last of them has ended; the outermost has the task that keeps their time.
#
# Guarantees: a slot is taken before a session begins and given back when it has ended, however; a connection that gets
# no slot is told so, and closed. It does not know SMTP beyond one reply.
from __future__ import annotations

import math
import ssl
from collections.abc import Collection, Coroutine, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, Final

import trio

from .._protocol.checks import check_seconds
from .._protocol.errors import ConnectionLostError, RemoteProtocolError
from .._protocol.proxy import ProxyHeader
from .._protocol.replies import Reply
from .._protocol.server.config import ServerConfig
from .._wire.listening import open_tcp_listeners
from .._wire.timekeeper import Timekeeper
from .accepting import accept_all, check_listeners, check_stream
from .connection import ServerConnection, current_connection
from .context import ServerContext, ServerStatistics, check_server
from .descriptors import SPARE, are_short
from .event_rows import rows_of
from .handler_check import Hooks
from .limits import FULL, FULL_FOR_HOST, ConnectionLimits, is_within
from .outcomes import SHUTTING_DOWN, leaves_of
from .proxy import read_proxy_header
from .refusals import Cause, RefusalLog, Shortage
from .session import Session
from .stress import Room

MAX_LINGERING: Final = 100  # refused clients that are given time to read that, at one time; likewise ended ones
MAX_LEAVING: Final = 200  # connections that have made room and are not gone yet: a hook may still hear of their end


class Server:
    """An SMTP (or LMTP) server: a handler's hooks behind any number of listeners and streams.

    Args:
        handler: see :class:`Handler`.
        config: what to offer, and the limits.
        ssl_context: a server-side context; offers STARTTLS (RFC 3207).
        implicit_tls: start TLS at once on every connection, instead (RFC 8314 section 3.3).

    Raises:
        TypeError: the handler is ``None``, a class or a function; it has no ``on_data``, a hook of another server's
            name, an ``on_…`` attribute that is no hook, or a hook that is not async or takes other arguments; or an
            extension brings commands and there is no ``on_command``.
        ValueError: `implicit_tls` without `ssl_context`; a context that is for clients; or no client could send
            mail: ``require_tls`` without a context, or ``auth="required"`` without ``on_auth``, AUTH or, where
            ``allow_insecure_auth`` is off, a context.
    """

    def __init__(
        self,
        handler: object,
        *,
        config: ServerConfig | None = None,
        ssl_context: ssl.SSLContext | None = None,
        implicit_tls: bool = False,
    ) -> None:
        check_server(config, ssl_context, implicit_tls)
        hooks = Hooks(handler)
        self._context: ServerContext = ServerContext(
            hooks, rows_of(hooks), ServerConfig() if config is None else config, ssl_context, implicit_tls=implicit_tls
        )
        self._limits: ConnectionLimits = ConnectionLimits(
            self.config.max_connections, self.config.max_connections_per_host
        )
        self._refusals: RefusalLog = RefusalLog()
        self._connections: dict[ServerConnection, str | None] = {}  # each with the host whose slot it took
        self._room: Room[ServerConnection] = Room()
        self._leaving: set[ServerConnection] = set()  # those without a slot, which have made room
        self._accepting: set[trio.CancelScope] = set()
        self._lingering: int = 0  # refused connections whose clients may still be sending
        self._stoppers: list[ServerConnection] = []  # a hook of theirs waits in shutdown(), once for each time it does
        self._left: trio.Event = trio.Event()  # set and replaced whenever there are fewer connections to wait for

    def __repr__(self) -> str:
        state = "shutting down, " if self._context.is_closing else ""
        return f"<Server {self.config.hostname}: {state}{len(self._connections)} connections>"

    @property
    def config(self) -> ServerConfig:
        """The configuration."""
        return self._context.config

    @property
    def sessions(self) -> frozenset[Session]:
        """The sessions of all connections that are open now."""
        return frozenset(connection.session for connection in self._connections)

    def statistics(self) -> ServerStatistics:
        """Counters since the server was made, as they are now."""
        return self._context.counters.read(connections=len(self._connections))

    async def serve(
        self,
        port: int,
        *,
        host: str | bytes | None = None,
        task_status: trio.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Listen on a TCP port and serve until cancelled, or until :meth:`shutdown` has ended the last session.

        ``await nursery.start(server.serve, 0)`` returns the listeners, with the port that was free.

        Cancelled, it closes the listeners and cancels all sessions: each ends as :meth:`serve_stream` says.

        Args:
            port: 0 for any free one.
            host: a name or an address, as :func:`open_tcp_listeners` takes it; ``None`` for all addresses.
            task_status: gets the listeners once clients can connect.

        Raises:
            OSError: the port is in use, or not allowed.
            Exception: as :meth:`serve_listeners`.
        """
        listeners = await open_tcp_listeners(port, host=host)
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

        Cancelled, it closes the listeners and cancels all sessions: each ends as :meth:`serve_stream` says.

        Args:
            listeners: owned from now on.
            task_status: gets them once clients can connect.

        Raises:
            TypeError, ValueError: one of them is no listener, or there is none.
            Exception: what a listener's ``accept`` has raised, by itself and not in a group. All sessions are
                cancelled then. A passing shortage of the host's (``EMFILE`` and the like) is logged, and accepting
                goes on.
        """
        check_listeners(listeners)
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
                    if self._context.is_closing:
                        accepting.cancel(reason="shutdown")
                    try:
                        await accept_all(
                            listeners,
                            partial(self._serve_one, keeper),
                            sessions,
                            partial(task_status.started, listeners),
                        )
                    finally:
                        self._accepting.discard(accepting)
            background.cancel_scope.cancel(reason="the last session has ended")

    async def serve_stream(self, stream: trio.abc.Stream) -> None:
        """Serve one connection on any stream, which is closed in the end. Needs no running :meth:`serve`.

        A ``trio.SSLStream`` is implicit TLS, whether its handshake was done or is still to come; in the latter case
        `ServerConfig.tls_handshake_timeout` is its limit. What goes wrong on the connection or in a hook is not raised:
        it ends the session, or is answered and logged.

        Cancelled, it cancels the hook in progress, says 421 (RFC 5321 section 3.8) where a reply may be, lets
        ``on_reset`` and ``on_close`` run, for ten seconds at most each, and closes the stream.

        Args:
            stream: connected; owned from now on.
        """
        check_stream(stream)
        keeper = Timekeeper()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keeper.run)
            await self._serve_one(keeper, stream)
            nursery.cancel_scope.cancel(reason="the session has ended")

    def _serve_one(self, keeper: Timekeeper, stream: trio.abc.Stream) -> Coroutine[Any, Any, None]:
        """Take a connection or refuse it; returns the coroutine that does so.

        A plain function: where nothing comes before the session, its coroutine is :meth:`ServerConnection.run` itself,
        so that a session that waits has no frame more.
        """
        context = self._context.ssl_context if self._context.implicit_tls else None
        if isinstance(stream, trio.SSLStream):
            context = stream.context
            self._context.prepare(context)
            stream = _without_pending_tls(stream)
        connection = ServerConnection(self._context, stream, keeper, context)
        host = connection.session.host
        proxies = self._context.proxies
        behind_proxy = bool(proxies) and is_within(host, proxies)
        if behind_proxy:
            host = None  # the slot that is taken is that of the client that the proxy names
        refusal = SHUTTING_DOWN if self._context.is_closing else self._admit(connection.session, stream, host)
        if refusal is not None:
            if refusal is SHUTTING_DOWN:
                self._tell_refusal("shutting down")
            return self._refuse(connection, None if context is not None else refusal)
        if behind_proxy:
            return self._serve_behind_proxy(connection, stream, says_why=context is None)
        return self._run(connection, host)

    def _admit(self, session: Session, stream: trio.abc.Stream, host: str | None) -> Reply | None:
        """Take a slot for a connection of `host`, or return why there is none."""
        limits, stress = self._limits, self._context.stress
        if are_short(stream, limits.in_use) and not self._make_room(Shortage.DESCRIPTORS):
            self._turn_away(Cause.DESCRIPTORS, session)
            return FULL
        refusal = limits.take_slot(host)
        if refusal is FULL and self._make_room(Shortage.SLOTS):
            refusal = limits.take_slot(host)
        if limits.in_use >= stress.begins_at and stress.note(limits.in_use, trio.current_time()):
            for connection in self._connections:
                connection.hurry()
        self._note_refusal(refusal, session)
        return refusal

    def _make_room(self, shortage: Shortage) -> bool:
        """End the connection that is of least use, and take its slot from it; returns whether there is one."""
        if len(self._leaving) >= (MAX_LEAVING if shortage is Shortage.SLOTS else SPARE // 2):
            return False
        connection = self._room.choose(self._connections, trio.current_time())
        if connection is None:
            return False
        self._refusals.note(Cause.MADE_ROOM, connection.session, shortage.value)
        self._limits.release(self._connections[connection])
        self._leaving.add(connection)
        self._context.counters.make_room()
        connection.make_room(lingers=shortage is Shortage.SLOTS and len(self._leaving) <= MAX_LINGERING)
        return True

    def _note_refusal(self, refusal: Reply | None, session: Session) -> None:
        if refusal is FULL or refusal is FULL_FOR_HOST:
            self._turn_away(Cause.FULL if refusal is FULL else Cause.FULL_FOR_HOST, session)

    def _turn_away(self, cause: Cause, session: Session, detail: str = "") -> None:
        """Note that a connection gets no session, and why."""
        self._refusals.note(cause, session, detail)
        self._tell_refusal(cause.name.lower().replace("_", " "))

    def _tell_refusal(self, reason: str) -> None:
        if self._context.trace is not None:
            self._context.trace.tell_refusal(reason)

    async def _serve_behind_proxy(
        self, connection: ServerConnection, stream: trio.abc.Stream, *, says_why: bool
    ) -> None:
        """Read the PROXY header; only then it is known whether there is a slot for the client's host."""
        session = connection.session
        with ExitStack() as slot:
            slot.callback(self._limits.release, None)
            header = await self._read_proxy_header(stream, session)
            if header is None:
                await self._refuse(connection, None)
                return
            session._apply_proxy(header)
            # shutdown() knows only the sessions that it finds, and this one was not there yet.
            refusal = SHUTTING_DOWN if self._context.is_closing else self._limits.take_host_slot(session.host)
            if refusal is SHUTTING_DOWN:
                self._tell_refusal("shutting down")
            self._note_refusal(refusal, session)
            if refusal is not None:
                await self._refuse(connection, refusal if says_why else None)
                return
            slot.pop_all()
        del stream  # with what it has beside its socket it is 0.3 KiB of an idle session's 7
        await self._run(connection, session.host)

    def _run(self, connection: ServerConnection, host: str | None) -> Coroutine[Any, Any, None]:
        """Count a connection that has a slot, of `host`; returns the coroutine that runs it."""
        self._connections[connection] = host
        self._context.counters.take_connection()
        return connection.run(self._ended)

    def _ended(self, connection: ServerConnection) -> None:
        """Forget a connection that has run."""
        host = self._connections.pop(connection)
        if self._room.candidates:
            self._room.forget(connection)
        if connection in self._leaving:
            self._leaving.remove(connection)
        else:
            self._limits.release(host)
            if self._context.stress.limit < math.inf:
                self._context.stress.note(self._limits.in_use, trio.current_time())
        self._wake()

    async def _read_proxy_header(self, stream: trio.abc.Stream, session: Session) -> ProxyHeader | None:
        """The header, or ``None`` if there is none; the log says why."""
        limit = self.config.proxy_timeout
        try:
            deadline = math.inf if limit is None else trio.current_time() + limit
            with trio.CancelScope(deadline=deadline) as scope:
                self._accepting.add(scope)  # there is no session yet that shutdown() could end
                try:
                    return await read_proxy_header(stream)
                finally:
                    self._accepting.discard(scope)
        except RemoteProtocolError as exc:
            self._turn_away(Cause.PROXY_HEADER, session, str(exc))
        except ConnectionLostError:
            self._tell_refusal("proxy header")
        except BaseException:  # cancelled from outside, maybe together with the time limit
            await trio.aclose_forcefully(stream)
            raise
        else:
            if not self._context.is_closing:
                self._turn_away(Cause.PROXY_HEADER, session, "not within proxy_timeout")
            else:
                self._tell_refusal("shutting down")
        return None

    async def _refuse(self, connection: ServerConnection, refusal: Reply | None) -> None:
        """Say why there is no session, and close. ``None`` says nothing: under implicit TLS, to spare the handshake."""
        self._context.counters.refuse_connection()
        lingers = refusal is not None and self._lingering < MAX_LINGERING
        self._lingering += lingers
        try:
            await connection.refuse(refusal, lingers=lingers)
        finally:
            self._lingering -= lingers

    async def shutdown(self, *, grace: float = 30) -> None:
        """End the server: stop accepting now, end idle sessions now, and all others within a time.

        Idle sessions get ``421 4.3.2`` now (RFC 5321 section 3.8). A transaction in progress may finish within `grace`
        seconds; its session then gets its last reply and a 421. After that, whatever is in progress ends with a 421.
        :meth:`serve` returns when the last session has ended, and so does this. Later connections are refused with a
        421, and a server cannot be started again.

        It may be called more than once, and from a hook. From a hook it does not wait for that hook's own session,
        nor for others whose hooks have called it: these end when their hooks do.

        Cancelled, it ends no further session: idle ones have ended, none begins a transaction any more, and those in
        progress go on as long as they like. Another call may end them.

        Args:
            grace: seconds for transactions in progress.

        Raises:
            TypeError, ValueError: `grace` is negative or no number; nothing was done then.
        """
        check_seconds("grace", grace, zero=True, optional=False)
        self._context.close()
        for scope in self._accepting:
            scope.cancel(reason="shutdown")
        for connection in tuple(self._connections):
            connection.begin_shutdown()
        own = current_connection.get()
        if own is not None and not own.runs_a_hook:  # called by a task that outlives the hook that started it
            own = None
        if own is None:
            await self._end_all(grace, ())
            return
        self._stoppers.append(own)
        self._wake()  # other hooks that wait here need not wait for this one's session any more
        try:
            await self._end_all(grace, self._stoppers)
        finally:
            self._stoppers.remove(own)

    async def _end_all(self, grace: float, stoppers: Collection[ServerConnection]) -> None:
        """End all connections; those of `stoppers`, whose hooks wait in here, end when their hooks do."""
        with trio.move_on_after(grace):
            await self._wait_for_all_but(stoppers)
        for connection in tuple(self._connections):
            if connection in stoppers:
                connection.end_soon()
            else:
                connection.end_now()
        await self._wait_for_all_but(stoppers)

    async def _wait_for_all_but(self, stoppers: Collection[ServerConnection]) -> None:
        while not self._connections.keys() <= set(stoppers):
            await self._left.wait()

    def _wake(self) -> None:
        self._left.set()
        self._left = trio.Event()


def _without_pending_tls(stream: trio.SSLStream[trio.abc.Stream]) -> trio.abc.Stream:
    """The stream below TLS if the handshake is still to come (a PROXY header comes before it); else the stream."""
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
        host: a name or an address, as :func:`open_tcp_listeners` takes it; ``None`` for all addresses.
        config: what to offer, and the limits.
        ssl_context: a server-side context; offers STARTTLS (RFC 3207).
        implicit_tls: start TLS at once on every connection, instead (RFC 8314 section 3.3).
        task_status: gets the listeners once clients can connect.

    Cancelled, it ends as :meth:`Server.serve` does.

    Raises:
        OSError: the port is in use, or not allowed.
        TypeError, ValueError: the handler or the arguments are wrong; see :class:`Server`.
    """
    server = Server(handler, config=config, ssl_context=ssl_context, implicit_tls=implicit_tls)
    await server.serve(port, host=host, task_status=task_status)
