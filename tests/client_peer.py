"""The kit's scripted peer as the server at the other end of a memory stream, and clients of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import trio
import trio.testing
from tls_support import certificates

import trio_smtp
from trio_smtp.testing import ScriptedPeer

OFFERS = ("PIPELINING", "8BITMIME", "SIZE 1000000", "SMTPUTF8", "ENHANCEDSTATUSCODES")


class Peer(ScriptedPeer):
    """The server's end of a memory stream.

    Attributes:
        far: the client's end.
    """

    def __init__(self) -> None:
        self.far, near = trio.testing.memory_stream_pair()
        super().__init__(near, certificates=certificates())

    async def greet(self, *offers: str, name: str = "me.test") -> None:
        await super().greet(*offers, name=name)

    async def greet_lmtp(self, *offers: str) -> None:
        """Greet a client that speaks LMTP."""
        await self.say("220 mail.test LMTP")
        await self.hear("LHLO me.test")
        await self.offer(*offers)

    async def take_envelope(self, mail: str = "MAIL FROM:<a@x.test> SIZE=6", rcpt: str = "RCPT TO:<b@y.test>") -> None:
        """MAIL, one RCPT and DATA in one group."""
        await self.hear(mail, rcpt, "DATA")
        await self.say("250 2.1.0 ok", "250 2.1.5 ok", "354 go")

    async def take_message(self, *envelope: str) -> bytes:
        """The text, after an envelope as for :meth:`take_envelope`; it has no reply yet."""
        await self.take_envelope(*envelope)
        return await self.text()


Script = Callable[[Peer], Awaitable[None]]


@asynccontextmanager
async def client_and(script: Script, **options: Any) -> AsyncIterator[trio_smtp.Client]:
    """A client whose server follows a script; at the end the script must have come to its end."""
    peer = Peer()
    options = {"local_hostname": "me.test"} | options
    async with trio.open_nursery() as nursery:
        nursery.start_soon(script, peer)
        async with trio_smtp.open_client("mail.test", stream=peer.far, **options) as client:
            yield client


async def error_of(opening: AbstractAsyncContextManager[object]) -> trio_smtp.SMTPError:
    """The one error with which a block ends as it is entered, out of the groups of the nurseries around it."""
    found: list[BaseException] = []
    try:
        async with opening:
            raise AssertionError("it opened")
    except* trio_smtp.SMTPError as group:
        found.extend(group.exceptions)
    while isinstance(found[0], BaseExceptionGroup):
        [*found] = [leaf for each in found for leaf in (each.exceptions if hasattr(each, "exceptions") else (each,))]
    [error] = found
    assert isinstance(error, trio_smtp.SMTPError)
    return error
