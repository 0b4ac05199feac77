# What HAProxy does besides handing on mail, which test_to_peers.py tests: headers of our own, and health checks.
from __future__ import annotations

import pytest
import trio
from peer_daemons import POLL
from peer_haproxy import HAProxy
from peer_mail import make_letter, without_trace
from peer_routes import receive, sink_config

import trio_smtp
from trio_smtp.testing import open_sink

LIMIT = 30


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("client", ["192.0.2.1", "2001:db8::1"])
async def test_header_of_ours(haproxy: HAProxy, version: int, client: str) -> None:
    """HAProxy reads the client's address from our header, and our server from HAProxy's."""
    server = "192.0.2.2" if "." in client else "2001:db8::2"
    header = trio_smtp.ProxyHeader(source=(client, 4711), destination=(server, 25), version=version)
    letter = make_letter("ours.test")
    with trio.fail_after(LIMIT):
        async with open_sink(port=haproxy.relay, config=sink_config(proxy=True)) as sink:
            options = {**sink.client_options, "proxy_header": header}
            async with trio_smtp.open_client("127.0.0.1", haproxy.told, **options) as connection:
                await connection.send(letter.sender, letter.recipients, letter.content)
            [message] = await receive(sink, letter, len)
    assert message.peer == (client, 4711)
    assert without_trace(message.content) == letter.content


async def test_health_checks(haproxy: HAProxy) -> None:
    """Our server passes HAProxy's checks: only then is there somebody behind this port."""
    letter = make_letter("ours.test")
    with trio.fail_after(LIMIT):
        async with open_sink(port=haproxy.relay, config=sink_config(proxy=True)) as sink:
            while True:
                try:
                    async with trio_smtp.open_client("127.0.0.1", haproxy.checked, **sink.client_options) as client:
                        await client.send(letter.sender, letter.recipients, letter.content)
                except (trio_smtp.ConnectError, trio_smtp.ConnectionLostError):
                    await trio.sleep(POLL)
                else:
                    break
            [message] = await receive(sink, letter, len)
    assert without_trace(message.content) == letter.content
