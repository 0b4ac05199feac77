"""The push form of sending, as far as it differs from the whole: its object, and whose error is whose."""

from __future__ import annotations

import pytest
from client_peer import OFFERS, Peer, client_and

import trio_smtp

ENVELOPE = ("MAIL FROM:<a@x.test> BODY=8BITMIME", "RCPT TO:<b@y.test>")


async def test_reprs_tell_the_state() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet(*OFFERS)
        await peer.hear(*ENVELOPE, "RCPT TO:<c@y.test>", "DATA")
        await peer.say("250 ok", "250 ok", "550 who?", "354 go")
        assert await peer.text() == b"hi\r\n"
        await peer.say("250 taken")
        await peer.goodbye()

    async with client_and(script) as client:
        assert repr(client) == "<trio_smtp.Client mail.test:25: SMTP over no TLS, ready>"
        async with client.transaction("a@x.test", ["b@y.test", "c@y.test"]) as message:
            told = "<trio_smtp.OutgoingMessage from 'a@x.test': 1 recipients accepted, 1 refused, "
            assert repr(message) == told + "in progress>"
            await message.send_all(b"hi\r\n")
        assert repr(message) == told + "done>"
        assert message.result is not None
        assert "accepted=['b@y.test']" in repr(message.result)
        await client.quit()
        assert repr(client) == "<trio_smtp.Client mail.test:25: SMTP over no TLS, closed>"


async def test_an_error_of_the_blocks_own_is_not_explained() -> None:
    own = trio_smtp.MessageRefusedError("of another message", delivery=trio_smtp.Delivery.REFUSED)

    async def script(peer: Peer) -> None:
        await peer.greet(*OFFERS)
        await peer.hear(*ENVELOPE, "DATA")
        await peer.say("250 ok", "250 ok", "354 go")
        await peer.closed()

    async with client_and(script) as client:
        with pytest.raises(trio_smtp.MessageRefusedError) as caught:
            async with client.transaction("a@x.test", ["b@y.test"]):
                raise own
    assert caught.value is own
    assert (own.delivery, own.stage) == (trio_smtp.Delivery.REFUSED, None)
