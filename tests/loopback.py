# A server on a loopback socket: for tests of what only addresses and TLS can show.
from __future__ import annotations

import contextlib
from functools import partial

import trio
from support import Peer
from trio.testing import open_stream_to_socket_listener

from trio_smtp import Server


@contextlib.asynccontextmanager
async def serving_tcp(server: Server):
    """Connect to a server over TCP: ``async with serving_tcp(server) as connect: peer = await connect()``."""
    peers: list[Peer] = []
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(server.serve, 0, host="127.0.0.1"))

        async def connect() -> Peer:
            peers.append(Peer(await open_stream_to_socket_listener(listeners[0])))
            return peers[-1]

        try:
            yield connect
        finally:
            for peer in peers:
                await peer.aclose()
            nursery.cancel_scope.cancel()
