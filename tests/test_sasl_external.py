"""EXTERNAL on the wire: a client that logs in with its certificate."""

from __future__ import annotations

import trio
from support import Recorder, make_server, serving
from tls_support import authority, client_context, server_context


async def test_a_certificate_can_log_in() -> None:
    """EXTERNAL: the mailbox in a verified client certificate, or its common name, is who the client is."""
    for arguments, identity in (
        ({"identities": ["me@a.test"], "common_name": "somebody"}, "me@a.test"),
        ({"identities": ["host.a.test"], "common_name": "somebody"}, "somebody"),
        ({"identities": [], "common_name": None}, None),
    ):
        await log_in_with_certificate(arguments["identities"], arguments["common_name"], identity)  # type: ignore[arg-type]


async def log_in_with_certificate(identities: list[str], common_name: str | None, identity: str | None) -> None:
    context = server_context(verify_clients=True)
    client = client_context()
    if identities:
        authority().issue_cert(*identities, common_name=common_name).configure_cert(client)
    handler = Recorder(on_auth=True)
    server = make_server(handler, ssl_context=context, implicit_tls=True, auth_mechanisms=["PLAIN", "EXTERNAL"])
    async with serving(server) as connect:
        peer = connect()
        peer.stream = trio.SSLStream(peer.stream, client, server_hostname="mx.test")
        await peer.reply()
        offered = await peer.ask("EHLO x")
        assert ("AUTH PLAIN EXTERNAL" in offered) is (identity is not None)
        if identity is None:
            assert (await peer.ask("AUTH EXTERNAL =")).startswith("504")
        else:
            assert (await peer.ask("AUTH EXTERNAL =")).startswith("235")
            assert handler.sessions[0].identity == identity
