# Ending a wait for the peer from outside: it must work at whatever turn of the scheduler it comes.
from __future__ import annotations

import pytest
import trio
from tls_support import NAME, client_context, server_context
from trio.testing import open_stream_to_socket_listener

from trio_smtp import SMTPTimeoutError
from trio_smtp._wire.timekeeper import Timekeeper
from trio_smtp._wire.transport import Interrupted, Transport


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("turns", range(6))
@pytest.mark.parametrize(("way", "error"), [("interrupt", Interrupted), ("expire", SMTPTimeoutError)])
async def test_a_wait_ends_at_whatever_turn_it_is_ended(tls: bool, turns: int, way: str, error: type[Exception]):
    # Under TLS a receive takes turns of the scheduler before it waits for the socket; one of them lost the wake-up.
    keeper = Timekeeper()
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    async with trio.open_nursery() as nursery, listener:
        nursery.start_soon(keeper.run)
        client = Transport(await open_stream_to_socket_listener(listener), keeper.timer(lambda: client.expire()))
        server = Transport(await listener.accept())
        if tls:
            nursery.start_soon(lambda: server.start_tls(server_context(), server_side=True))
            await client.start_tls(client_context(), server_side=False, server_hostname=NAME)
        ended: list[Exception] = []

        async def receive() -> None:
            try:
                await client.receive()
            except (Interrupted, SMTPTimeoutError) as exc:
                ended.append(exc)

        with trio.fail_after(5):
            async with trio.open_nursery() as readers:
                readers.start_soon(receive)
                while not client.is_receiving:
                    await trio.lowlevel.checkpoint()
                for _ in range(turns):
                    await trio.lowlevel.checkpoint()
                getattr(client, way)()
        assert [type(exc) for exc in ended] == [error]
        assert not client.broken
        await server.send(b"still there")
        assert await client.receive() == b"still there"
        await client.aclose()
        await server.aclose()
        nursery.cancel_scope.cancel()
