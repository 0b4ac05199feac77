"""What the client tells of a message when servers and callers do what they should not."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from client_peer import OFFERS, Peer, client_and

import trio_smtp
from trio_smtp import Delivery, Reply

MAIL = "MAIL FROM:<a@x.test> SIZE=4"
RCPT = "RCPT TO:<b@y.test>"


async def test_lmtp_everybody_refused_keeps_each_reply() -> None:
    async def script(peer: Peer) -> None:
        await peer.say("220 mail.test LMTP")
        await peer.hear("LHLO me.test")
        await peer.offer(*OFFERS)
        await peer.hear(MAIL, RCPT, "RCPT TO:<c@y.test>", "RCPT TO:<d@y.test>", "DATA")
        await peer.say("250 ok", "250 ok", "250 ok", "550 5.1.1 who?", "354 go")
        await peer.text()
        await peer.say("550 5.2.1 gone", "452 4.2.2 full")
        await peer.goodbye()

    async with client_and(script, lmtp=True) as client:
        with pytest.raises(trio_smtp.MessageRefusedError) as caught:
            await client.send("a@x.test", ["b@y.test", "c@y.test", "d@y.test"], b"hi\r\n")
    assert caught.value.refused == {
        "b@y.test": Reply(550, "gone", "5.2.1"),
        "c@y.test": Reply(452, "full", "4.2.2"),
        "d@y.test": Reply(550, "who?", "5.1.1"),
    }
    assert caught.value.reply == Reply(452, "full", "4.2.2")
    assert caught.value.delivery is Delivery.REFUSED
