# A server that follows a script: for tests of what your program makes of answers that no real server gives on demand.
from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

import trio
from trio.testing import memory_stream_pair

from .._nursery import open_bare_nursery
from .._public import NoPublicConstructor
from ._certificates import Certificates
from ._peer import ScriptedPeer, read_transcript
from ._server import Wrap

Script: TypeAlias = str | Callable[[ScriptedPeer], Awaitable[None]]
"""A dialogue as text, or an async function that plays the server's part."""


class ScriptedServer(metaclass=NoPublicConstructor):
    """A server whose connections follow scripts, one after the other; made by :func:`open_script`.

    Attributes:
        host: the address it listens on.
        port: the port that was free.
        peers: the server's ends of the connections so far.
    """

    host: str
    port: int
    peers: list[ScriptedPeer]
    _certificates: Certificates | None
    _cause: Exception | None
    _failure: AssertionError | None
    _nursery: trio.Nursery
    _playing: dict[int, ScriptedPeer]
    _scripts: tuple[Script, ...]
    _wrap: Wrap

    @classmethod
    def _create(
        cls,
        scripts: tuple[Script, ...],
        nursery: trio.Nursery,
        *,
        address: tuple[str, int],
        certificates: Certificates | None,
        wrap: Wrap,
    ) -> ScriptedServer:
        self = cls.__new__(cls)
        self.host, self.port = address
        self.peers = []
        self._scripts = scripts
        self._nursery = nursery
        self._certificates = certificates
        self._wrap = wrap
        self._playing = {}
        self._failure = None
        self._cause = None
        return self

    def __repr__(self) -> str:
        return (
            f"<trio_smtp.testing.ScriptedServer {self.host}:{self.port}: {len(self.peers)} of {len(self._scripts)} "
            "scripts begun>"
        )

    def connect(self) -> trio.abc.Stream:
        """A new connection through memory: for ``open_client(..., stream=...)``."""
        near, far = memory_stream_pair()
        self._nursery.start_soon(self.serve, far)
        return near

    async def serve(self, stream: trio.abc.Stream) -> None:
        """Play the next script on a stream, and close it, also when cancelled."""
        peer = ScriptedPeer(self._wrap(stream), certificates=self._certificates)
        self.peers.append(peer)
        number = len(self.peers)
        if number > len(self._scripts):
            self._fail(f"connection {number}: there are only {len(self._scripts)} scripts")
            return
        self._playing[number] = peer
        script = self._scripts[number - 1]
        try:
            await (peer.play(script) if isinstance(script, str) else script(peer))
        except (AssertionError, EOFError, trio.BrokenResourceError) as exc:
            self._fail(f"connection {number}: {exc}")
        except Exception as exc:  # closing the stream lets the block fail, and its cancellation would hide this
            self._fail(f"connection {number}: the script raised {exc!r}", exc)
        else:
            del self._playing[number]
        finally:
            await peer.aclose()

    def _fail(self, words: str, cause: Exception | None = None) -> None:
        if self._failure is None:
            self._failure, self._cause = AssertionError(words), cause
            self._nursery.cancel_scope.cancel(reason="the script was not followed")

    def check(self) -> None:
        """Raise what has gone wrong.

        Raises:
            AssertionError: a script was not followed, or not to its end.
        """
        if self._failure is not None:
            raise self._failure from self._cause
        for number, peer in self._playing.items():
            raise AssertionError(f"connection {number}: the script still waits for {peer.waits_for}")
        if len(self.peers) < len(self._scripts):
            raise AssertionError(f"only {len(self.peers)} of {len(self._scripts)} scripts were begun")


@asynccontextmanager
async def open_script(
    *scripts: Script,
    host: str = "127.0.0.1",
    port: int = 0,
    certificates: Certificates | None = None,
    patience: float = 5,
    wrap: Wrap = lambda stream: stream,
) -> AsyncIterator[ScriptedServer]:
    """Run a server that plays a script to each connection, until the end of the block.

    The first connection gets the first script, and so on. The block is cancelled as soon as a client does not follow
    its script. At the end, every script must have been played to its end, or comes to it within `patience`. An error
    of the block's own is raised as it is, unless a script has failed: that is then told first. A cancellation of the
    block ends all connections.

    Args:
        scripts: transcripts or async functions; see :class:`ScriptedPeer`.
        host: where to listen.
        port: 0 for any free one.
        certificates: for TLS.
        patience: seconds, by Trio's clock.
        wrap: called with the server's end of each connection; returns what is used in its place.

    Raises:
        TypeError, ValueError: a script is none; nothing listens then.
        AssertionError: a client did not follow its script, or not to its end; or a script has raised something, which
            is the cause.
        OSError: the port cannot be had.
    """
    for script in scripts:
        if isinstance(script, str):
            read_transcript(script)
        elif not callable(script):
            raise TypeError(f"a script is a transcript or an async function, not {script!r:.80}")
    listeners = await trio.open_tcp_listeners(port, host=host)
    accepting = trio.CancelScope()
    server: ScriptedServer | None = None
    finished = False

    def leave(nursery: trio.Nursery, error: BaseException | None) -> None:
        nonlocal finished
        finished = error is None
        accepting.cancel(reason="the block has ended")
        if error is not None:
            nursery.cancel_scope.cancel(reason="the block has failed")
        else:
            nursery.cancel_scope.deadline = trio.current_time() + patience

    try:
        async with open_bare_nursery(leave) as nursery:
            address = listeners[0].socket.getsockname()[:2]
            server = ScriptedServer._create(scripts, nursery, address=address, certificates=certificates, wrap=wrap)
            nursery.start_soon(_accept, accepting, server, listeners, nursery)
            yield server
    finally:
        if server is not None and (finished or server._failure is not None):
            server.check()


async def _accept(
    scope: trio.CancelScope, server: ScriptedServer, listeners: list[trio.SocketListener], nursery: trio.Nursery
) -> None:
    with scope:
        await trio.serve_listeners(server.serve, listeners, handler_nursery=nursery)
