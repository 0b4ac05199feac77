# Ways to a mailbox: straight into a server's own, or through a server into a sink of ours.
from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio
from peer_mail import LIMIT, Letter, without_trace
from peer_servers import Peer, TLSFiles

from trio_smtp import ClientConfig, Outcome, PoolConfig, ServerConfig, open_pool
from trio_smtp.testing import ReceivedMessage, Sink, open_sink

USER = ("me", "secret")
CLIENT = "127.0.0.9"  # where our clients connect from, so that it differs from where a proxy does


class Route:
    """An open way.

    Attributes:
        port: for the client to connect to.
        domain: whose users get mail; the user "bad" is refused.
        options: for ``open_client`` and ``open_pool``.
        sink: at the end of the way, where there is one.
    """

    def __init__(self, peer: Peer, domain: str, options: dict[str, Any], sink: Sink | None) -> None:
        self.port = peer.port
        self.domain = domain
        self.options = options
        self.sink = sink
        self._peer = peer

    async def send(
        self, letters: Sequence[Letter], config: PoolConfig, client_config: ClientConfig
    ) -> list[Outcome[Any]]:
        """Send letters through a pool; what became of each."""
        jobs = [(letter.sender, letter.recipients, letter.content) for letter in letters]
        with trio.fail_after(LIMIT):
            async with (
                open_pool("127.0.0.1", self.port, config=config, client_config=client_config, **self.options) as pool,
                pool.send_many(jobs) as outcomes,
            ):
                return [outcome async for outcome in outcomes]

    async def arrived(self, letter: Letter, count: int = 1) -> list[tuple[str, bytes]]:
        """Wait until a letter is there for so many recipients; each with what it got, in order."""
        if self.sink is None:
            assert self._peer.mailbox is not None
            return await self._peer.mailbox.arrived(letter.token, count)
        messages = await receive(self.sink, letter, lambda found: sum(len(each.recipients) for each in found) >= count)
        if self._peer.proxy:
            assert {message.peer and message.peer[0] for message in messages} == {CLIENT}
        return sorted((user, without_trace(each.content)) for each in messages for user in each.recipients)


async def receive(sink: Sink, letter: Letter, enough: Any) -> list[ReceivedMessage]:
    """Wait until there are enough messages with a letter's token in a sink."""
    with trio.fail_after(LIMIT):
        while True:
            found = [message for message in sink.messages if letter.token in message.content]
            if enough(found):
                return found
            await sink.wait_for(len(sink.messages) + 1)


@asynccontextmanager
async def open_route(peer: Peer, files: TLSFiles, *, tls: bool = False, auth: bool = False) -> AsyncIterator[Route]:
    """The way to a server's own mailbox, or through it into a sink that is open until the end of the block."""
    options: dict[str, Any] = {"tls": "none", "lmtp": peer.lmtp, "local_hostname": "client.test"}
    if tls:
        options |= {"tls": "starttls", "ssl_context": files.client_context()}
    if auth or peer.auth:
        options |= {"auth": USER, "allow_insecure_auth": not tls}
    if peer.mailbox is not None:
        yield Route(peer, "here.test", options, None)
        return
    async with open_sink(
        port=peer.relay,
        tls="starttls" if tls and peer.proxy else "none",
        auth=USER if auth and peer.proxy else None,
        config=sink_config(proxy=peer.proxy),
    ) as sink:
        sink.refuse("rcpt", 550, "no such user", "5.1.1", address="bad@ours.test")
        if peer.proxy:
            options |= sink.client_options
        yield Route(peer, "ours.test", options, sink)


def sink_config(*, proxy: bool = False, lmtp: bool = False, chunking: bool = True) -> ServerConfig:
    """That of a sink which takes all that a server may send."""
    return ServerConfig(
        hostname="sink.test",
        error_delay=None,
        max_connections_per_host=None,
        lmtp=lmtp,
        proxy_protocol_from=["127.0.0.1"] if proxy else [],
        disabled_extensions=() if chunking else ["CHUNKING"],
    )
