"""What the client tells of a message when servers and callers do what they should not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

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
        await peer.greet_lmtp(*OFFERS)
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


@asynccontextmanager
async def over_a_socket(script: Callable[[trio.SocketStream], Awaitable[None]]) -> AsyncIterator[trio_smtp.Client]:
    """A client at a real socket, which can be looked at without waiting, and what the server does there."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]

    async def serve() -> None:
        async with listener, await listener.accept() as stream:
            await script(stream)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)  # noqa: ASYNC113 (the socket listens already)
        async with trio_smtp.open_client("127.0.0.1", port, local_hostname="me.test") as client:
            yield client


async def greet(stream: trio.SocketStream) -> None:
    await stream.send_all(b"220 mail.test\r\n")
    await stream.receive_some()
    await stream.send_all(b"250-mail.test\r\n250 PIPELINING\r\n")


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (b"250 one more\r\n", trio_smtp.RemoteProtocolError),
        (b"250-half a", trio_smtp.RemoteProtocolError),
        (b"421 4.3.2 going down\r\n", trio_smtp.ConnectionLostError),
        (b"", trio_smtp.ConnectionLostError),
    ],
)
async def test_what_came_between_messages_is_no_answer_to_the_next(
    said: bytes, error: type[trio_smtp.SMTPError]
) -> None:
    heard = bytearray()
    spoken = trio.Event()

    async def script(stream: trio.SocketStream) -> None:
        await greet(stream)
        if said:
            await stream.send_all(said)
        else:
            await stream.send_eof()
        spoken.set()
        while data := await stream.receive_some():
            heard.extend(data)

    async with over_a_socket(script) as client:
        await spoken.wait()
        await trio.sleep(0.05)  # for the octets to be where the client can see them
        with trio.fail_after(5), pytest.raises(error) as caught:
            await client.send("a@x.test", ["b@y.test"], b"hi\r\n")
    assert caught.value.delivery is Delivery.NOT_SENT
    assert caught.value.stage == "mail"
    assert not heard
    if said.startswith(b"421"):
        assert caught.value.reply == Reply(421, "going down", "4.3.2")


async def hear_a_message_given_up(peer: Peer) -> None:
    await peer.greet(*OFFERS, "CHUNKING")
    await peer.hear(MAIL.replace(" SIZE=4", " BODY=8BITMIME"), RCPT)
    await peer.say("250 ok", "250 ok")
    await peer.hear("RSET")
    await peer.say("250 ok")
    await peer.goodbye()


async def test_error_of_the_callers_own_stream_keeps_what_it_says() -> None:
    upstream = trio_smtp.ConnectionLostError("upstream", delivery=Delivery.UNKNOWN, unknown=["other@z.test"])

    async def chunks() -> AsyncIterator[bytes]:
        yield b"some\r\n"
        raise upstream

    async with client_and(hear_a_message_given_up) as client:
        with pytest.raises(trio_smtp.ConnectionLostError) as caught:
            await client.send("a@x.test", ["b@y.test"], chunks())
    assert caught.value is upstream
    assert (upstream.delivery, upstream.unknown, upstream.stage) == (Delivery.UNKNOWN, ["other@z.test"], None)


async def test_error_of_the_block_keeps_what_it_says() -> None:
    upstream = trio_smtp.ConnectionLostError("upstream", delivery=Delivery.UNKNOWN, unknown=["other@z.test"])
    async with client_and(hear_a_message_given_up) as client:
        with pytest.raises(trio_smtp.ConnectionLostError) as caught:  # noqa: PT012 — the block is what is tested
            async with client.transaction("a@x.test", ["b@y.test"]) as message:
                await message.send_all(b"some\r\n")
                raise upstream
    assert caught.value is upstream
    assert (upstream.delivery, upstream.unknown, upstream.stage) == (Delivery.UNKNOWN, ["other@z.test"], None)


async def test_send_in_a_cancelled_scope_sends_nothing() -> None:
    heard = bytearray()

    async def script(stream: trio.SocketStream) -> None:
        await greet(stream)
        while data := await stream.receive_some():
            heard.extend(data)
            await stream.send_all(b"221 bye\r\n")

    async with over_a_socket(script) as client:
        with trio.CancelScope() as scope:
            scope.cancel()
            await client.send("a@x.test", ["b@y.test"], b"hi\r\n")
        assert scope.cancelled_caught
        with trio.CancelScope() as scope:
            scope.cancel()
            async with client.transaction("a@x.test", ["b@y.test"]):
                raise AssertionError
        assert scope.cancelled_caught
    assert heard == b"QUIT\r\n"


async def test_block_cancelled_at_its_end_delivers_nothing() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet(*OFFERS)
        await peer.hear(MAIL.replace(" SIZE=4", " BODY=8BITMIME"), RCPT, "DATA")
        await peer.say("250 ok", "250 ok", "354 go")
        await peer.drain()
        assert b"\r\n.\r\n" not in peer.heard

    async with client_and(script) as client:
        with trio.CancelScope() as scope:
            async with client.transaction("a@x.test", ["b@y.test"]) as message:
                await message.send_all(b"hi\r\n")
                scope.cancel()
        assert scope.cancelled_caught


async def test_refusal_that_the_block_swallows_is_raised_at_its_end() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING", "CHUNKING")
        await peer.hear(MAIL.removesuffix(" SIZE=4"), RCPT)
        await peer.say("250 ok", "250 ok")
        await peer.hear("BDAT 262144")
        await peer.octets(262144)
        await peer.say("552 5.3.4 too much")
        while (line := await peer.line()).startswith("BDAT"):
            await peer.octets(int(line.split()[1]))
            await peer.say("503 no")
        assert line == "RSET"
        await peer.say("250 ok")
        await peer.goodbye()

    async with client_and(script) as client:
        with pytest.raises(trio_smtp.MessageRefusedError) as caught:  # noqa: PT012 — the block is what is tested
            async with client.transaction("a@x.test", ["b@y.test"]) as message:
                with pytest.raises(trio_smtp.MessageRefusedError):  # noqa: PT012
                    for _ in range(20):
                        await message.send_all(b"0123456789abcd\r\n" * 16384)
    assert caught.value.reply == Reply(552, "too much", "5.3.4")
    assert caught.value.delivery is Delivery.REFUSED


async def test_farewell_behind_the_replies_to_the_envelope_is_the_answer() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING", "CHUNKING")
        await peer.hear("MAIL FROM:<a@x.test>", RCPT)
        await peer.say("250 ok", "250 ok", "421 4.3.2 going down")
        await peer.closed()

    async with client_and(script) as client:
        with pytest.raises(trio_smtp.ConnectionLostError) as caught:
            await client.send("a@x.test", ["b@y.test"], b"0123456789abcd\r\n" * 4096)
    assert caught.value.reply == Reply(421, "going down", "4.3.2")
    assert (caught.value.delivery, caught.value.stage) == (Delivery.NOT_SENT, "data")


async def test_eight_bit_stream_that_was_declared_7bit_is_not_sent() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING", "8BITMIME", "CHUNKING")
        await peer.hear("MAIL FROM:<a@x.test> BODY=7BIT", RCPT)
        await peer.say("250 ok", "250 ok")
        await peer.hear("RSET")
        await peer.say("250 ok")
        await peer.hear("MAIL FROM:<a@x.test> BODY=8BITMIME", RCPT)
        await peer.say("250 ok", "250 ok")
        await peer.hear("BDAT 4 LAST")
        assert await peer.octets(4) == b"\xc3\xbc\r\n"
        await peer.say("250 ok")
        await peer.goodbye()

    async def chunks() -> AsyncIterator[bytes]:
        yield "ü\r\n".encode()

    async with client_and(script) as client:
        with pytest.raises(trio_smtp.ExtensionNotSupportedError, match="8BITMIME") as caught:
            await client.send("a@x.test", ["b@y.test"], chunks(), mail_params={"BODY": "7BIT"})
        assert caught.value.delivery is Delivery.NOT_SENT
        await client.send("a@x.test", ["b@y.test"], chunks())


async def test_transaction_is_declared_8bit_where_that_is_offered() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("8BITMIME", "PIPELINING")
        await peer.hear("MAIL FROM:<a@x.test> BODY=8BITMIME", RCPT, "DATA")
        await peer.say("250 ok", "250 ok", "354 go")
        assert await peer.text() == b"\xc3\xbc\r\n"
        await peer.say("250 ok")
        await peer.goodbye()

    async with client_and(script) as client, client.transaction("a@x.test", ["b@y.test"]) as message:
        await message.send_all(b"\xc3\xbc\r\n")


async def test_stream_raises_at_its_first_8bit_octet_where_8bitmime_is_not_offered() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("CHUNKING")
        await peer.hear("MAIL FROM:<a@x.test>")
        await peer.say("250 ok")
        await peer.hear(RCPT)
        await peer.say("250 ok")
        await peer.hear("RSET")
        await peer.say("250 ok")
        await peer.goodbye()

    async def chunks() -> AsyncIterator[bytes]:
        yield b"ascii\r\n"
        yield b"\xfc\r\n"
        raise AssertionError("read on after the octet that cannot be sent")

    async with client_and(script) as client:
        with pytest.raises(trio_smtp.ExtensionNotSupportedError, match="8BITMIME") as caught:
            await client.send("a@x.test", ["b@y.test"], chunks())
    assert caught.value.delivery is Delivery.NOT_SENT


async def test_send_all_after_its_block_is_an_error_about_the_order() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING")
        await peer.hear("MAIL FROM:<a@x.test>", RCPT, "DATA")
        await peer.say("250 ok", "250 ok", "354 go")
        await peer.text()
        await peer.say("250 2.0.0 queued")
        await peer.goodbye()

    async with client_and(script) as client:
        async with client.transaction("a@x.test", ["b@y.test"]) as message:
            await message.send_all(b"hi\r\n")
        with pytest.raises(trio_smtp.LocalProtocolError, match="after the end"):
            await message.send_all(b"more\r\n")
        assert message.result is not None


async def test_send_all_after_a_block_that_was_given_up_is_an_error_about_the_order() -> None:
    async with client_and(hear_a_message_given_up) as client:
        with pytest.raises(KeyError):
            async with client.transaction("a@x.test", ["b@y.test"]) as message:
                raise KeyError
        with pytest.raises(trio_smtp.LocalProtocolError, match="after the end"):
            await message.send_all(b"more\r\n")


async def test_stream_refused_in_mid_data_is_read_no_further() -> None:
    async def script(stream: trio.SocketStream) -> None:
        await greet(stream)
        await stream.receive_some()
        await stream.send_all(b"250 ok\r\n250 ok\r\n354 go\r\n")
        await stream.receive_some()
        await stream.send_all(b"552 5.3.4 too much\r\n")
        while await stream.receive_some(1 << 20):
            if produced > 20:
                break
        await trio.sleep(0.1)

    produced = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal produced
        for _ in range(400):
            produced += 1
            yield b"0123456789abcd\r\n" * 16384

    async with over_a_socket(script) as client:
        with trio.fail_after(10), pytest.raises(trio_smtp.MessageRefusedError) as caught:
            await client.send("a@x.test", ["b@y.test"], chunks())
    assert caught.value.reply == Reply(552, "too much", "5.3.4")
    assert produced < 400


async def test_full_mailbox_without_enhanced_code_teaches_no_limit() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING")
        for last in ("b", "c"):
            await peer.hear("MAIL FROM:<a@x.test>", RCPT, "RCPT TO:<c@y.test>", "DATA")
            replies = ["452 full", "250 ok"] if last == "b" else ["250 ok", "452 full"]
            await peer.say("250 ok", *replies, "354 go")
            await peer.text()
            await peer.say("250 ok")
        await peer.hear("MAIL FROM:<a@x.test>", "RCPT TO:<c@y.test>", "DATA")
        await peer.say("250 ok", "452 full", "503 nobody")
        await peer.hear("RSET", "MAIL FROM:<a@x.test>", RCPT, "RCPT TO:<c@y.test>", "DATA")
        await peer.say("250 ok", "250 ok", "250 ok", "250 ok", "354 go")
        await peer.text()
        await peer.say("250 ok")
        await peer.goodbye()

    both = ["b@y.test", "c@y.test"]
    async with client_and(script) as client:
        assert list((await client.send("a@x.test", both, b"hi\r\n")).refused) == ["b@y.test"]
        assert list((await client.send("a@x.test", both, b"hi\r\n")).refused) == ["c@y.test"]
        assert not (await client.send("a@x.test", both, b"hi\r\n")).refused


@pytest.mark.parametrize("answers", [("550 no", "250 ok"), ("250 ok", "550 no")])
async def test_text_accepted_after_its_envelope_was_refused_may_have_been_delivered(answers: tuple[str, ...]) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet(*OFFERS, "CHUNKING")
        await peer.hear(MAIL, RCPT, "BDAT 4 LAST")
        await peer.octets(4)
        await peer.say(*answers, "250 2.0.0 queued")
        await peer.closed()

    async with client_and(script, config=trio_smtp.ClientConfig(early_text=True)) as client:
        with pytest.raises(trio_smtp.RemoteProtocolError) as caught:
            await client.send("a@x.test", ["b@y.test"], b"hi\r\n")
    assert caught.value.delivery is Delivery.UNKNOWN
    assert caught.value.unknown == ["b@y.test"]
    assert caught.value.refused == {}
    assert caught.value.stage == "end"
    assert caught.value.reply == Reply(250, "queued", "2.0.0")


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: trio_smtp.Password("me", "a\r\nb"),
        lambda: trio_smtp.OAuth("me", "not a token"),
        lambda: trio_smtp.LocalProtocolError("made by hand"),
    ],
)
def test_what_is_refused_here_was_not_sent(wrong: Callable[[], object]) -> None:
    try:
        error = wrong()
    except trio_smtp.LocalProtocolError as exc:
        error = exc
    assert isinstance(error, trio_smtp.LocalProtocolError)
    assert error.delivery is Delivery.NOT_SENT


@pytest.mark.parametrize("offers", [(), ("CHUNKING",), ("PIPELINING", "CHUNKING")])
async def test_no_data_after_every_recipient_was_refused_where_pipelining_does_not_force_it(
    offers: tuple[str, ...],
) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet(*offers)
        await peer.hear("MAIL FROM:<a@x.test>")
        await peer.say("250 ok")
        await peer.hear(RCPT)
        await peer.say("550 no")
        await peer.goodbye()
        assert b"DATA" not in peer.heard
        assert b"BDAT" not in peer.heard

    async with client_and(script) as client:
        with pytest.raises(trio_smtp.RecipientsRefusedError):
            await client.send("a@x.test", ["b@y.test"], b"hi\r\n")
