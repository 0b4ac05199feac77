"""What the pool finds when it connects, in tests: the kit's scripted peers, through memory.

Not `trio_smtp.testing.virtual_network`, whose connections are sockets. What is said through memory wakes the reader
before the speaker's next checkpoint, and some tests act just there: the reader is woken and has not run yet.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from client_peer import Peer

import trio_smtp

Script = Callable[[Peer, int], Awaitable[None]]


class Network:
    """What the pool finds when it connects.

    Attributes:
        script: the server's side of each connection, with the number of the connection (from 1).
        connections: so many were made or tried.
        now: so many are open.
        most: so many were open at one time.
        hosts: where it connected to.
        refused: hosts that refuse connections; ``"*"`` for all.
        accepted: the messages that servers have accepted, in order.
        started: when each MAIL came.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.script: Script = self.sink
        self.connections = 0
        self.now = 0
        self.changed = trio.Event()
        self.most = 0
        self.hosts: list[tuple[str, int]] = []
        self.refused: set[str] = set()
        self.accepted: list[bytes] = []
        self.started: list[float] = []
        self.offers: tuple[str, ...] = ("PIPELINING", "8BITMIME", "SIZE")
        self.delay = 0.0  # seconds before the answer to the end of a message

    async def connect(self, host: str, port: int, **options: Any) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        self.connections += 1
        self.hosts.append((host, port))
        if host in self.refused or "*" in self.refused:
            raise ConnectionRefusedError(111, "Connection refused")
        peer = Peer()
        self._nursery.start_soon(self._serve, peer, self.connections)
        return peer.far

    async def _serve(self, peer: Peer, number: int) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await self.script(peer, number)
        finally:
            self.now -= 1
            self.changed.set()
            with trio.move_on_after(1, shield=True):
                await peer.aclose()

    async def sink(self, peer: Peer, number: int) -> None:
        """Take every message, until QUIT or the end."""
        try:
            await peer.greet(*self.offers)
            while await self.message(peer):
                pass
        except (EOFError, trio.BrokenResourceError):
            pass

    async def message(self, peer: Peer, answer: str = "250 2.0.0 taken") -> bool:
        """Answer commands up to the end of one message, or to QUIT."""
        while True:
            line = await peer.line()
            verb = line.split(" ")[0].upper()
            if verb == "QUIT":
                await peer.say("221 bye")
                return False
            if verb == "MAIL":
                self.started.append(trio.current_time())
            if verb == "DATA":
                await peer.say("354 go")
                text = await peer.text()
            elif verb == "BDAT":
                text = await peer.octets(int(line.split(" ")[1]))
            else:
                await peer.say("250 ok")
                continue
            if self.delay:
                await trio.sleep(self.delay)
            if answer.startswith("2"):
                self.accepted.append(text)
            await peer.say(answer)
            return True


@asynccontextmanager
async def network(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Network]:
    """A network in place of TCP; at the end every server must have come to its end."""
    async with trio.open_nursery() as nursery:
        net = Network(nursery)
        monkeypatch.setattr(trio, "open_tcp_stream", net.connect)
        yield net
        with trio.move_on_after(100) as scope:
            while net.now:
                net.changed = trio.Event()
                await net.changed.wait()
        assert not scope.cancelled_caught, "a connection was left open"


def pool_of(config: trio_smtp.PoolConfig | None = None, **options: Any) -> Any:
    """A pool for mail.test."""
    options = {"local_hostname": "me.test", "config": config} | options
    return trio_smtp.open_pool(
        options.pop("host", "mail.test"), options.pop("port", 24 if options.get("lmtp") else 25), **options
    )
