"""trio_smtp.testing: a scripted peer, word by word, on either side."""

from __future__ import annotations

import pytest
import trio
from trio.testing import memory_stream_pair

import trio_smtp
from trio_smtp.testing import ScriptedPeer, make_certificates


def pair() -> tuple[ScriptedPeer, ScriptedPeer]:
    near, far = memory_stream_pair()
    return ScriptedPeer(near), ScriptedPeer(far, side="C")


async def test_a_session_from_its_greeting_to_its_end() -> None:
    server, client = pair()

    async def serve() -> None:
        await server.greet("PIPELINING", "SIZE 1000", name="me.test")
        await server.goodbye()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        assert await client.reply() == ["220 mail.test ESMTP"]
        assert await client.ask("EHLO me.test") == "250-mail.test hello\n250-PIPELINING\n250 SIZE 1000"
        assert await client.ask("QUIT") == "221 bye"
        await client.aclose()
    assert bytes(server.heard) == b"EHLO me.test\r\nQUIT\r\n"


async def test_any_name_will_do_unless_one_is_given() -> None:
    server, client = pair()
    await client.say("EHLO whatever.test", "EHLO other.test")
    await server.greet()
    assert await client.reply() == ["220 mail.test ESMTP"]
    assert await client.reply() == ["250 mail.test hello"]
    with pytest.raises(AssertionError, match=r"heard 'EHLO other.test' instead of 'EHLO me.test'"):
        await server.greet(name="me.test")


async def test_words_after_quit_are_an_error() -> None:
    server, client = pair()
    await client.say("QUIT", "NOOP")
    await client.aclose()
    with pytest.raises((AssertionError, trio.BrokenResourceError)):
        await server.goodbye()


async def test_a_reply_that_ends_too_early() -> None:
    server, client = pair()
    await server.say("250-one")
    await server.aclose()
    with pytest.raises(EOFError, match="while waiting for a reply"):
        await client.reply()


async def test_a_client_that_shows_a_certificate() -> None:
    certificates = make_certificates("mx.test")

    class Members(trio_smtp.Handler):
        async def on_auth(self, session: trio_smtp.Session, credentials: trio_smtp.Credentials) -> bool:
            return credentials.mechanism == "EXTERNAL" and credentials.username == "me@a.test"

        async def on_data(self, session: trio_smtp.Session, envelope: trio_smtp.Envelope, body: trio_smtp.Body) -> None:
            await body.read()

    server = trio_smtp.Server(
        Members(),
        config=trio_smtp.ServerConfig(auth_mechanisms=("EXTERNAL",)),
        ssl_context=certificates.server_context(verify_clients=True),
        implicit_tls=True,
    )
    for identities, offer in ((("me@a.test",), True), ((), False)):
        near, far = memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.serve_stream, far)
            tls = trio.SSLStream(near, certificates.client_context(*identities), server_hostname="mx.test")
            client = ScriptedPeer(tls, side="C")
            await client.reply()
            assert ("AUTH EXTERNAL" in await client.ask("EHLO me.test")) is offer
            if offer:
                assert (await client.ask("AUTH EXTERNAL =")).startswith("235")
            await client.aclose()
