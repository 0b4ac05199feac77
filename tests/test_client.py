"""The client against a scripted server: sending, its results, its errors, and what is left of the connection."""

import logging
from collections.abc import AsyncGenerator
from email.message import EmailMessage
from pathlib import Path

import pytest
import trio
import trio.testing
from client_peer import OFFERS, Peer, client_and

import trio_smtp
from trio_smtp import ClientConfig, Delivery, Reply

MAIL = "MAIL FROM:<a@x.test> SIZE=6"
RCPT = "RCPT TO:<b@y.test>"
EARLY = ClientConfig(early_text=True)


async def send(client: trio_smtp.Client, content: object = b"hello\r\n"[:6], **options: object) -> trio_smtp.SendResult:
    return await client.send("a@x.test", ["b@y.test"], b"hey\n.\n" if content is None else content, **options)  # type: ignore[arg-type]


async def test_message_goes_in_two_round_trips_with_pipelining() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet(*OFFERS)
        await peer.hear("MAIL FROM:<a@x.test> SIZE=12", RCPT, "RCPT TO:<c@y.test>", "DATA")
        await peer.say("250 2.1.0 ok", "250 2.1.5 ok", "550 5.1.1 who?", "354 go")
        assert await peer.text() == b"hi\r\n..\r\nyou\r\n"
        await peer.say("250 2.0.0 queued as 1")
        await peer.goodbye()

    async with client_and(script) as client:
        result = await client.send("a@x.test", ["b@y.test", "c@y.test", "b@y.test"], b"hi\n.\nyou")
    assert result.accepted == ["b@y.test"]
    assert result.refused == {"c@y.test": Reply(550, "who?", "5.1.1")}
    assert result.reply == Reply(250, "queued as 1", "2.0.0")
    assert (result.attempts, result.maybe_duplicate, result.replies) == (1, False, {})


async def test_without_pipelining_each_command_waits() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("SIZE")
        for line, answer in ((MAIL.replace("6", "7"), "250 ok"), (RCPT, "250 ok"), ("DATA", "354 go")):
            await peer.hear(line)
            await trio.testing.wait_all_tasks_blocked()
            assert bytes(peer.heard).endswith(line.encode() + b"\r\n")
            await peer.say(answer)
        assert await peer.text() == b"hello\r\n"
        await peer.say("250 ok")
        await peer.goodbye()

    async with client_and(script) as client:
        await send(client, b"hello\r\n")


async def test_chunking_small_message_goes_in_one_write_on_a_connection_that_has_just_answered() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet(*OFFERS, "CHUNKING")
        for _ in range(2):
            await peer.hear("MAIL FROM:<a@x.test> SIZE=9", RCPT, "BDAT 9 LAST")
            assert await peer.octets(9) == b".hi\r\n..\r\n"
            await peer.say("250 ok", "250 ok", "250 taken")
        await peer.goodbye()

    async with client_and(script, config=EARLY) as client:
        for _ in range(2):
            assert (await send(client, b".hi\n..\n")).reply.text == "taken"


async def test_chunking_after_an_idle_spell_mail_goes_first(autojump_clock: trio.testing.MockClock) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet(*OFFERS, "CHUNKING")
        await peer.hear("MAIL FROM:<a@x.test> SIZE=4", RCPT)
        await trio.testing.wait_all_tasks_blocked()
        assert b"BDAT" not in peer.heard
        await peer.say("250 ok", "250 ok")
        await peer.hear("BDAT 4 LAST")
        assert await peer.octets(4) == b"hi\r\n"
        await peer.say("250 taken")
        await peer.goodbye()

    async with client_and(script, config=EARLY) as client:
        await trio.sleep(10)
        await send(client, b"hi\n")


async def test_chunking_large_message_goes_in_chunks_and_its_end_with_the_last() -> None:
    content = b"0123456789abcd\r\n" * 20000  # 320,000 octets

    async def script(peer: Peer) -> None:
        await peer.greet(*OFFERS, "CHUNKING")
        await peer.hear("MAIL FROM:<a@x.test> SIZE=320000", RCPT)
        await peer.say("250 ok", "250 ok")
        await peer.hear("BDAT 262144")
        text = await peer.octets(262144)
        await peer.say("250 ok")
        await peer.hear("BDAT 57856 LAST")
        assert text + await peer.octets(57856) == content
        await peer.say("250 taken")
        await peer.goodbye()

    async with client_and(script) as client:
        assert (await send(client, content)).reply.text == "taken"


async def test_chunking_refused_chunk_ends_the_message_and_rset_goes_with_the_next() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING", "CHUNKING")
        await peer.hear("MAIL FROM:<a@x.test>", RCPT)
        await peer.say("250 ok", "250 ok")
        await peer.hear("BDAT 262144")
        await peer.octets(262144)
        await peer.say("552 5.3.4 too much")
        while (line := await peer.line()).startswith("BDAT"):
            await peer.octets(int(line.split()[1]))
            await peer.say("503 no")
        assert line == "RSET"
        await peer.hear("MAIL FROM:<a@x.test>", RCPT, "BDAT 4 LAST")
        await peer.octets(4)
        await peer.say("250 ok", "250 ok", "250 ok", "250 taken")
        await peer.goodbye()

    async def chunks() -> AsyncGenerator[bytes, None]:
        while True:
            yield b"0123456789abcd\r\n" * 10000

    async with client_and(script, config=EARLY) as client:
        with pytest.raises(trio_smtp.MessageRefusedError) as caught:
            await send(client, chunks())
        assert caught.value.reply == Reply(552, "too much", "5.3.4")
        assert caught.value.delivery is Delivery.REFUSED
        assert caught.value.stage == "body"
        assert (await send(client, b"hi\n")).reply.text == "taken"


async def test_chunking_false_uses_data() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet(*OFFERS, "CHUNKING")
        await peer.hear("MAIL FROM:<a@x.test> SIZE=4", RCPT, "DATA")
        await peer.say("250 ok", "250 ok", "354 go")
        assert await peer.text() == b"hi\r\n"
        await peer.say("250 ok")
        await peer.goodbye()

    async with client_and(script, config=ClientConfig(chunking=False)) as client:
        await send(client, b"hi\r\n")


async def test_empty_message_stays_empty() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet(*OFFERS)
        await peer.hear("MAIL FROM:<a@x.test> SIZE=0", RCPT, "DATA")
        await peer.say("250 ok", "250 ok", "354 go")
        await peer.hear(".")
        await peer.say("250 ok")
        await peer.goodbye()

    async with client_and(script) as client:
        await send(client, b"")


async def test_null_sender_and_postmaster() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING")
        await peer.hear("MAIL FROM:<>", "RCPT TO:<Postmaster>", "DATA")
        await peer.say("250 ok", "250 ok", "354 go")
        await peer.text()
        await peer.say("250 ok")
        await peer.goodbye()

    async with client_and(script) as client:
        result = await client.send("", ["Postmaster"], "x\n")
    assert result.accepted == ["Postmaster"]


# -- refusals


async def test_sender_refused_keeps_the_connection() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet(*OFFERS)
        await peer.hear(MAIL.replace("6", "2"), RCPT, "DATA")
        await peer.say("552 5.3.4 too large for you", "503 no", "503 no")
        await peer.hear(MAIL.replace("6", "2"), RCPT, "DATA")
        await peer.say("250 ok", "250 ok", "354 go")
        await peer.text()
        await peer.say("250 ok")
        await peer.goodbye()

    async with client_and(script) as client:
        with pytest.raises(trio_smtp.SenderRefusedError) as caught:
            await send(client, b"\n")
        assert caught.value.reply == Reply(552, "too large for you", "5.3.4")
        assert caught.value.delivery is Delivery.REFUSED
        assert caught.value.stage == "mail"
        await send(client, b"\n")


async def test_all_recipients_refused_and_the_worst_is_not_final() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING")
        await peer.hear("MAIL FROM:<a@x.test>", "RCPT TO:<b@y.test>", "RCPT TO:<c@y.test>", "DATA")
        await peer.say("250 ok", "550 5.1.1 who?", "450 4.2.1 later", "554 nobody")
        await peer.hear("RSET", "MAIL FROM:<a@x.test>", RCPT, "DATA")
        await peer.say("250 ok", "250 ok", "250 ok", "354 go")
        await peer.text()
        await peer.say("250 ok")
        await peer.goodbye()

    async with client_and(script) as client:
        with pytest.raises(trio_smtp.RecipientsRefusedError) as caught:
            await client.send("a@x.test", ["b@y.test", "c@y.test"], b"x")
        assert {address: reply.code for address, reply in caught.value.refused.items()} == {
            "b@y.test": 550,
            "c@y.test": 450,
        }
        assert caught.value.reply is not None
        assert caught.value.reply.code == 450
        assert caught.value.delivery is Delivery.REFUSED
        await send(client, b"x")


async def test_354_although_nobody_was_accepted_gets_a_lone_dot() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING")
        await peer.hear("MAIL FROM:<a@x.test>", RCPT, "DATA")
        await peer.say("250 ok", "550 no", "354 go")
        await peer.hear(".")
        await peer.say("554 no valid recipients")
        await peer.goodbye()

    async with client_and(script) as client:
        with pytest.raises(trio_smtp.RecipientsRefusedError) as caught:
            await send(client)
        assert caught.value.delivery is Delivery.REFUSED


@pytest.mark.parametrize("at_end", [False, True])
async def test_message_refused_at_data_or_at_its_end(at_end: bool) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING")
        await peer.hear("MAIL FROM:<a@x.test>", RCPT, "DATA")
        await peer.say("250 ok", "250 ok", "354 go" if at_end else "451 4.3.0 not now")
        if at_end:
            await peer.text()
            await peer.say("451 4.3.0 not now")
        await peer.goodbye()

    async with client_and(script) as client:
        with pytest.raises(trio_smtp.MessageRefusedError) as caught:
            await send(client)
    assert caught.value.reply == Reply(451, "not now", "4.3.0")
    assert caught.value.stage == ("end" if at_end else "data")
    assert caught.value.delivery is Delivery.REFUSED
    assert caught.value.refused == {"b@y.test": Reply(451, "not now", "4.3.0")}


# -- the connection fails


@pytest.mark.parametrize("replies", range(4))
async def test_connection_lost_before_the_end_is_not_sent(replies: int) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING")
        await peer.hear("MAIL FROM:<a@x.test>", RCPT, "DATA")
        await peer.say(*["250 ok", "250 ok", "354 go"][: min(replies, 2)])
        await peer.aclose()

    async with client_and(script) as client:
        with pytest.raises(trio_smtp.ConnectionLostError) as caught:
            await send(client)
        assert caught.value.delivery is Delivery.NOT_SENT
        assert caught.value.stage == ("mail", "rcpt", "data", "data")[replies]
        with pytest.raises(trio_smtp.ConnectionLostError) as caught:
            await send(client)
        assert caught.value.delivery is Delivery.NOT_SENT


async def test_connection_lost_after_the_end_is_unknown() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING")
        await peer.hear("MAIL FROM:<a@x.test>", RCPT, "RCPT TO:<c@y.test>", "DATA")
        await peer.say("250 ok", "250 ok", "550 no", "354 go")
        await peer.text()
        await peer.aclose()

    async with client_and(script) as client:
        with pytest.raises(trio_smtp.ConnectionLostError) as caught:
            await client.send("a@x.test", ["b@y.test", "c@y.test"], b"x")
    assert caught.value.delivery is Delivery.UNKNOWN
    assert caught.value.stage == "end"
    assert caught.value.unknown == ["b@y.test"]
    assert list(caught.value.refused) == ["c@y.test"]
    assert caught.value.accepted == []


async def test_421_to_rcpt_refuses_no_recipient_and_the_connection_is_closed() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING")
        await peer.hear("MAIL FROM:<a@x.test>", RCPT, "DATA")
        await peer.say("250 ok", "421 4.3.2 going down")
        await peer.closed()

    async with client_and(script) as client:
        with pytest.raises(trio_smtp.ConnectionLostError) as caught:
            await send(client)
        assert caught.value.reply == Reply(421, "going down", "4.3.2")
        assert caught.value.delivery is Delivery.NOT_SENT
        assert (caught.value.refused, caught.value.stage) == ({}, "rcpt")
        with pytest.raises(trio_smtp.ConnectionLostError):
            await client.noop()


async def test_refusal_that_was_read_beats_the_loss_noticed_later() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING")
        await peer.hear("MAIL FROM:<a@x.test>", RCPT, "DATA")
        await peer.say("550 5.7.1 go away")
        await peer.aclose()

    async with client_and(script) as client:
        with pytest.raises(trio_smtp.SenderRefusedError) as caught:
            await send(client)
    assert caught.value.delivery is Delivery.REFUSED


async def test_refusal_in_mid_message_is_noticed_when_sending_fails() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING")
        await peer.hear("MAIL FROM:<a@x.test>", RCPT, "DATA")
        await peer.say("250 ok", "250 ok", "354 go", "552 5.3.4 enough")
        await peer.aclose()

    async def chunks() -> AsyncGenerator[bytes, None]:
        for _ in range(100):
            yield b"x" * 100_000

    async with client_and(script) as client:
        with pytest.raises(trio_smtp.MessageRefusedError) as caught:
            await send(client, chunks())
    assert caught.value.reply == Reply(552, "enough", "5.3.4")
    assert caught.value.stage == "body"
    assert caught.value.delivery is Delivery.REFUSED


async def test_no_reply_to_a_command_in_time_is_an_error_with_the_stage(autojump_clock: trio.testing.MockClock) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING")
        await peer.hear("MAIL FROM:<a@x.test>", RCPT, "DATA")
        await peer.say("250 ok")
        await peer.closed()

    async with client_and(script) as client:
        started = trio.current_time()
        with pytest.raises(trio_smtp.SMTPTimeoutError, match="no reply to RCPT within 300 seconds") as caught:
            await send(client)
        assert trio.current_time() - started == pytest.approx(300)
        assert caught.value.stage == "rcpt"
        assert caught.value.delivery is Delivery.NOT_SENT


async def test_no_reply_to_the_end_in_time_is_unknown(autojump_clock: trio.testing.MockClock) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING")
        await peer.take_message("MAIL FROM:<a@x.test>")
        await peer.closed()

    async with client_and(script) as client:
        started = trio.current_time()
        with pytest.raises(trio_smtp.SMTPTimeoutError) as caught:
            await send(client)
        assert trio.current_time() - started == pytest.approx(600)
        assert caught.value.stage == "end"
        assert caught.value.delivery is Delivery.UNKNOWN


async def test_reply_that_drips_for_ever_ends(autojump_clock: trio.testing.MockClock) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING")
        await peer.hear("NOOP")
        try:
            while True:
                await trio.sleep(10)
                await peer.send(b"250-x\r\n")
        except trio.BrokenResourceError:
            pass

    async with client_and(script) as client:
        with pytest.raises(trio_smtp.SMTPTimeoutError):
            await client.noop()


async def test_reply_beyond_its_limit_is_an_error() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING")
        await peer.hear("NOOP")
        await peer.send(b"250-" + b"x" * 1000 + b"\r\n")
        await peer.closed()

    async with client_and(script, config=ClientConfig(max_reply_size=512)) as client:
        with pytest.raises(trio_smtp.RemoteProtocolError):
            await client.noop()
        with pytest.raises(trio_smtp.ConnectionLostError):
            await client.noop()


async def test_unasked_words_are_noticed_before_the_next_command() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING")
        await peer.hear("NOOP")
        await peer.say("250 ok", "250 and more")
        await peer.closed()

    async with client_and(script) as client:
        await client.noop()
        with pytest.raises(trio_smtp.RemoteProtocolError, match="before it was asked") as caught:
            await send(client)
        assert caught.value.delivery is Delivery.NOT_SENT


# -- what is impossible is noticed before MAIL


@pytest.mark.parametrize(
    ("sender", "recipients"),
    [
        ("a@x.test>\r\nDATA", ["b@y.test"]),
        ("a@x.test> SIZE=1", ["b@y.test"]),
        ("a@x.test", ["b@y.test\n"]),
        ("a@x.test", ["b@y\0.test"]),
        ("a@x.test", ["<b@y.test>"]),
        ("a@x.test", [""]),
        ("a@x.test", []),
        ("a b", ["b@y.test"]),
    ],
)
async def test_bad_address_is_refused_before_a_byte_is_sent(sender: str, recipients: list[str]) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet(*OFFERS)
        await peer.goodbye()

    async with client_and(script) as client:
        with pytest.raises(trio_smtp.LocalProtocolError) as caught:
            await client.send(sender, recipients, b"x")
        assert caught.value.delivery is Delivery.NOT_SENT
        assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("domain", ["exam\u200bple.test", "ｅxample.test", "example\u3002test", "\u212aelvin.test"])
async def test_a_domain_that_looks_like_another_is_refused_before_anything_is_sent(domain: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet(*OFFERS, "SMTPUTF8")
        await peer.goodbye()

    message = EmailMessage()
    message["From"] = "a@x.test"
    message["To"] = f"x@{domain}"
    async with client_and(script) as client:
        with pytest.raises(trio_smtp.LocalProtocolError, match="bad domain"):
            await client.send("a@x.test", [f"x@{domain}"], b"x")
        with pytest.raises(trio_smtp.LocalProtocolError, match="bad domain"):
            await client.send(f"é@{domain}", ["b@y.test"], b"x")
        with pytest.raises(trio_smtp.LocalProtocolError, match="bad domain"):
            await client.send_message(message)
        with pytest.raises(trio_smtp.LocalProtocolError, match="bad domain"):  # the header alone
            await client.send("a@x.test", ["b@y.test"], message)


@pytest.mark.parametrize(
    "params", [{"ENVID": "a b"}, {"ENVID": "a\r\nDATA"}, {"A B": "c"}, {"X": "a=b"}, {"RET": "FULL", "ret": "HDRS"}]
)
async def test_bad_parameter_is_refused_before_a_byte_is_sent(params: dict[str, str]) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet(*OFFERS, "DSN")
        await peer.goodbye()

    async with client_and(script) as client:
        with pytest.raises(trio_smtp.LocalProtocolError):
            await send(client, mail_params=params)
        with pytest.raises(trio_smtp.LocalProtocolError):
            await send(client, rcpt_params={"b@y.test": params})
        with pytest.raises(trio_smtp.LocalProtocolError, match="no recipient"):
            await send(client, rcpt_params={"z@y.test": {}})


async def test_wrong_types_are_type_errors() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet(*OFFERS)
        await peer.goodbye()

    async with client_and(script) as client:
        with pytest.raises(TypeError, match="not one address"):
            await client.send("a@x.test", "b@y.test", b"x")
        with pytest.raises(TypeError, match="content is bytes"):
            await client.send("a@x.test", ["b@y.test"], 42)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            await client.send("a@x.test", [None], b"x")  # type: ignore[list-item]


async def test_too_large_message_is_refused_here() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING", "SIZE 10")
        await peer.hear("MAIL FROM:<a@x.test> SIZE=10", RCPT, "DATA")
        await peer.say("250 ok", "250 ok", "354 go")
        await peer.text()
        await peer.say("250 ok")
        await peer.goodbye()

    async with client_and(script) as client:
        with pytest.raises(trio_smtp.MessageTooLargeError) as caught:
            await send(client, b"1234567\n\n")
        assert caught.value.delivery is Delivery.NOT_SENT
        await send(client, b"12345678\n")


async def test_8_bit_octets_need_8bitmime() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING")
        await peer.goodbye()

    async with client_and(script) as client:
        with pytest.raises(trio_smtp.ExtensionNotSupportedError, match="8BITMIME") as caught:
            await send(client, "grüße\n")
        assert caught.value.delivery is Delivery.NOT_SENT


async def test_smtputf8_is_used_where_the_address_needs_it_and_a_labels_where_not() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING", "8BITMIME", "SMTPUTF8")
        await peer.hear("MAIL FROM:<a@xn--mnchen-3ya.test>", RCPT, "DATA")
        await peer.say("250 ok", "250 ok", "354 go")
        await peer.text()
        await peer.say("250 ok")
        await peer.hear("MAIL FROM:<a@x.test> SMTPUTF8", "RCPT TO:<müller@y.test>", "DATA")
        await peer.say("250 ok", "250 ok", "354 go")
        await peer.text()
        await peer.say("250 ok")
        await peer.goodbye()

    async with client_and(script) as client:
        await client.send("a@münchen.test", ["b@y.test"], b"x")
        result = await client.send("a@x.test", ["müller@y.test"], b"x")
        assert result.accepted == ["müller@y.test"]


async def test_smtputf8_missing_is_an_error_before_mail() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING", "8BITMIME")
        await peer.hear("MAIL FROM:<a@x.test>", "RCPT TO:<b@xn--mnchen-3ya.test>", "DATA")
        await peer.say("250 ok", "250 ok", "354 go")
        await peer.text()
        await peer.say("250 ok")
        await peer.goodbye()

    async with client_and(script) as client:
        with pytest.raises(trio_smtp.ExtensionNotSupportedError, match="SMTPUTF8"):
            await client.send("müller@x.test", ["b@y.test"], b"x")
        result = await client.send("a@x.test", ["b@münchen.test"], b"x")
        assert result.accepted == ["b@münchen.test"]


async def test_parameters_need_their_extensions_and_go_as_given() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING", "DSN")
        await peer.hear(
            "MAIL FROM:<a@x.test> RET=HDRS ENVID=QQ",
            "RCPT TO:<b@y.test> NOTIFY=FAILURE,DELAY ORCPT=rfc822;b@y.test",
            "RCPT TO:<c@y.test>",
            "DATA",
        )
        await peer.say("250 ok", "250 ok", "250 ok", "354 go")
        await peer.text()
        await peer.say("250 ok")
        await peer.goodbye()

    async with client_and(script) as client:
        with pytest.raises(trio_smtp.ExtensionNotSupportedError, match="REQUIRETLS"):
            await send(client, mail_params={"REQUIRETLS": None})
        with pytest.raises(trio_smtp.ExtensionNotSupportedError, match="MT-PRIORITY"):
            await send(client, mail_params={"mt-priority": 3})
        await client.send(
            "a@x.test",
            ["b@y.test", "c@y.test"],
            b"x",
            mail_params={"ret": "HDRS", "ENVID": "QQ"},
            rcpt_params={"b@y.test": {"NOTIFY": "FAILURE,DELAY", "ORCPT": "rfc822;b@y.test"}},
        )


async def test_bare_newlines_are_refused_before_mail_where_the_content_is_at_hand() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet(*OFFERS)
        await peer.goodbye()

    async with client_and(script, config=ClientConfig(newlines="reject")) as client:
        with pytest.raises(trio_smtp.LocalProtocolError, match="bare CR or LF"):
            await send(client, b"a\nb\r\n")


async def test_content_file_that_cannot_be_read_is_the_oserror_it_is(tmp_path: Path) -> None:
    small, large = tmp_path / "small.eml", tmp_path / "large.eml"
    small.write_bytes(b"hi\n")
    large.write_bytes(b"0123456\n" * 200_000)

    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING", "SIZE")
        await peer.hear("MAIL FROM:<a@x.test> SIZE=4", RCPT, "DATA")
        await peer.say("250 ok", "250 ok", "354 go")
        assert await peer.text() == b"hi\r\n"
        await peer.say("250 ok")
        await peer.hear("MAIL FROM:<a@x.test> SIZE=1800000", RCPT, "DATA")
        await peer.say("250 ok", "250 ok", "354 go")
        assert await peer.text() == b"0123456\r\n" * 200_000
        await peer.say("250 ok")
        await peer.goodbye()

    async with client_and(script) as client:
        with pytest.raises(FileNotFoundError):
            await send(client, tmp_path / "nothing.eml")
        await send(client, small)
        await send(client, large)


async def test_size_of_a_large_binary_file_is_that_of_the_octets_that_go_out(tmp_path: Path) -> None:
    path = tmp_path / "large.bin"
    path.write_bytes(b"\n\r\xff\0" * 300_000)

    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING", "8BITMIME", "SIZE", "CHUNKING", "BINARYMIME")
        await peer.hear("MAIL FROM:<a@x.test> SIZE=1200000 BODY=BINARYMIME", RCPT)
        await peer.say("250 ok", "250 ok")
        text, line = b"", ""
        while not line.endswith("LAST"):
            line = await peer.line()
            text += await peer.octets(int(line.split(" ")[1]))
            await peer.say("250 ok")
        assert text == path.read_bytes()
        await peer.goodbye()

    async with client_and(script) as client:
        await send(client, path, mail_params={"BODY": "BINARYMIME"})


# -- streams


async def test_stream_is_sent_as_it_comes_and_never_held_whole() -> None:
    received = 0

    async def script(peer: Peer) -> None:
        nonlocal received
        await peer.greet("PIPELINING")
        await peer.take_envelope("MAIL FROM:<a@x.test>")
        for _ in range(10):
            received += len(await peer.octets(100_000))
        await peer.text()
        await peer.say("250 ok")
        await peer.goodbye()

    async def chunks() -> AsyncGenerator[bytes, None]:
        for i in range(20):
            assert i >= 10 or i * 100_000 - received < 700_000
            yield b"x" * 99_998 + b"\r\n"
            await trio.testing.wait_all_tasks_blocked()

    async with client_and(script) as client:
        await send(client, chunks())


@pytest.mark.parametrize("chunking", [False, True])
async def test_exception_in_a_stream_gives_the_message_up(chunking: bool) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING", *(["CHUNKING"] if chunking else []))
        await peer.hear("MAIL FROM:<a@x.test>", RCPT, *([] if chunking else ["DATA"]))
        await peer.say("250 ok", "250 ok", *([] if chunking else ["354 go"]))
        if chunking:
            await peer.hear("RSET")
            await peer.say("250 ok")
            await peer.hear("NOOP")
            await peer.say("250 ok")
            await peer.goodbye()
        else:
            with pytest.raises(EOFError):
                await peer.text()

    closed = False

    async def chunks() -> AsyncGenerator[bytes, None]:
        nonlocal closed
        try:
            yield b"hello\r\n"
            raise KeyError("mine")
        finally:
            closed = True

    async with client_and(script) as client:
        with pytest.raises(KeyError, match="mine"):
            await send(client, chunks())
        assert closed
        if chunking:
            await client.noop()
        else:
            with pytest.raises(trio_smtp.ConnectionLostError):
                await client.noop()


async def test_stream_with_a_bare_newline_is_given_up_in_mid_message() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING")
        await peer.take_envelope("MAIL FROM:<a@x.test>")
        with pytest.raises(EOFError):
            await peer.text()

    async def chunks() -> AsyncGenerator[bytes, None]:
        yield b"good\r\n"
        yield b"bad\n"

    async with client_and(script, config=ClientConfig(newlines="reject")) as client:
        with pytest.raises(trio_smtp.LocalProtocolError) as caught:
            await send(client, chunks())
        assert caught.value.delivery is Delivery.NOT_SENT


# -- EmailMessage


def email_message() -> EmailMessage:
    message = EmailMessage()
    message["From"] = "A <a@x.test>"
    message["To"] = "B <b@y.test>"
    message["Cc"] = "c@y.test"
    message["Bcc"] = "d@y.test"
    message["Subject"] = "Grüße"
    message.set_content("äöü\n.\n", cte="8bit")
    return message


async def test_send_message_takes_the_envelope_from_the_header_and_drops_bcc() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING", "8BITMIME")
        await peer.hear("MAIL FROM:<a@x.test> BODY=8BITMIME")
        await peer.hear("RCPT TO:<b@y.test>", "RCPT TO:<c@y.test>", "RCPT TO:<d@y.test>", "DATA")
        await peer.say("250 ok", "250 ok", "250 ok", "250 ok", "354 go")
        text = await peer.text()
        assert b"Bcc" not in text
        assert b"d@y.test" not in text
        assert text.endswith("\r\näöü\r\n..\r\n".encode())
        await peer.say("250 ok")
        await peer.goodbye()

    message = email_message()
    async with client_and(script) as client:
        result = await client.send_message(message)
    assert result.accepted == ["b@y.test", "c@y.test", "d@y.test"]
    assert message["Bcc"] == "d@y.test"


async def test_email_message_is_re_encoded_for_a_server_without_8bitmime() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING")
        await peer.hear("MAIL FROM:<a@x.test>", RCPT, "DATA")
        await peer.say("250 ok", "250 ok", "354 go")
        text = await peer.text()
        assert text.isascii()
        await peer.say("250 ok")
        await peer.goodbye()

    async with client_and(script) as client:
        await client.send_message(email_message(), recipients=["b@y.test"])


async def test_send_message_without_from_or_recipients() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING")
        await peer.goodbye()

    message = EmailMessage()
    message["To"] = "b@y.test"
    async with client_and(script) as client:
        with pytest.raises(trio_smtp.LocalProtocolError, match="From"):
            await client.send_message(message)
        with pytest.raises(trio_smtp.LocalProtocolError, match="recipients"):
            await client.send_message(EmailMessage(), sender="")


# -- LMTP


async def test_lmtp_results_are_per_recipient() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet_lmtp("PIPELINING")
        await peer.hear("MAIL FROM:<a@x.test>", RCPT, "RCPT TO:<c@y.test>", "RCPT TO:<d@y.test>", "DATA")
        await peer.say("250 ok", "250 ok", "250 ok", "550 5.1.1 who?", "354 go")
        await peer.text()
        await peer.say("250 2.0.0 in", "452 4.2.2 full")
        await peer.goodbye()

    async with client_and(script, lmtp=True) as client:
        result = await client.send("a@x.test", ["b@y.test", "c@y.test", "d@y.test"], b"x")
    assert result.accepted == ["b@y.test"]
    assert {address: reply.code for address, reply in result.refused.items()} == {"c@y.test": 452, "d@y.test": 550}
    assert {address: reply.code for address, reply in result.replies.items()} == {"b@y.test": 250, "c@y.test": 452}


async def test_lmtp_connection_lost_between_the_replies_tells_the_fates_apart() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet_lmtp("PIPELINING")
        await peer.hear("MAIL FROM:<a@x.test>", RCPT, "RCPT TO:<c@y.test>", "RCPT TO:<d@y.test>", "DATA")
        await peer.say("250 ok", "250 ok", "250 ok", "250 ok", "354 go")
        await peer.text()
        await peer.say("250 2.0.0 in", "550 5.2.2 full")
        await peer.aclose()

    async with client_and(script, lmtp=True) as client:
        with pytest.raises(trio_smtp.ConnectionLostError) as caught:
            await client.send("a@x.test", ["b@y.test", "c@y.test", "d@y.test"], b"x")
    error = caught.value
    assert error.delivery is Delivery.UNKNOWN
    assert (error.accepted, list(error.refused), error.unknown) == (["b@y.test"], ["c@y.test"], ["d@y.test"])


async def test_lmtp_refused_by_all_at_the_end() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet_lmtp("PIPELINING")
        await peer.hear("MAIL FROM:<a@x.test>", RCPT, "DATA")
        await peer.say("250 ok", "250 ok", "354 go")
        await peer.text()
        await peer.say("452 4.2.2 full")
        await peer.goodbye()

    async with client_and(script, lmtp=True) as client:
        with pytest.raises(trio_smtp.MessageRefusedError) as caught:
            await send(client)
    assert caught.value.reply == Reply(452, "full", "4.2.2")
    assert caught.value.delivery is Delivery.REFUSED


# -- LIMITS


async def test_rcptmax_splits_the_list_and_merges_the_results() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING", "LIMITS RCPTMAX=2")
        await peer.hear("MAIL FROM:<a@x.test>", "RCPT TO:<r0@y.test>", "RCPT TO:<r1@y.test>", "DATA")
        await peer.say("250 ok", "250 ok", "550 no", "354 go")
        assert await peer.text() == b"x\r\n"
        await peer.say("250 first")
        await peer.hear("MAIL FROM:<a@x.test>", "RCPT TO:<r2@y.test>", "DATA")
        await peer.say("250 ok", "250 ok", "354 go")
        assert await peer.text() == b"x\r\n"
        await peer.say("250 second")
        await peer.goodbye()

    async with client_and(script) as client:
        result = await client.send("a@x.test", [f"r{i}@y.test" for i in range(3)], b"x")
    assert result.accepted == ["r0@y.test", "r2@y.test"]
    assert list(result.refused) == ["r1@y.test"]


async def test_rcptmax_error_in_the_second_part_names_those_who_have_it() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING", "LIMITS RCPTMAX=1")
        await peer.hear("MAIL FROM:<a@x.test>", "RCPT TO:<r0@y.test>", "DATA")
        await peer.say("250 ok", "250 ok", "354 go")
        await peer.text()
        await peer.say("250 first")
        await peer.hear("MAIL FROM:<a@x.test>", "RCPT TO:<r1@y.test>", "DATA")
        await peer.say("250 ok", "250 ok", "354 go")
        await peer.text()
        await peer.aclose()

    async with client_and(script) as client:
        with pytest.raises(trio_smtp.ConnectionLostError) as caught:
            await client.send("a@x.test", ["r0@y.test", "r1@y.test"], b"x")
    assert caught.value.delivery is Delivery.UNKNOWN
    assert caught.value.accepted == ["r0@y.test"]
    assert caught.value.unknown == ["r1@y.test"]


async def test_rcptmax_and_a_stream_that_cannot_be_read_twice() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING", "LIMITS RCPTMAX=1")
        await peer.goodbye()

    async def chunks() -> AsyncGenerator[bytes, None]:
        yield b"x"

    stream = chunks()
    async with client_and(script) as client:
        with pytest.raises(trio_smtp.ExtensionNotSupportedError):
            await client.send("a@x.test", ["r0@y.test", "r1@y.test"], stream)
    await stream.aclose()


async def test_rcptdomainmax_is_obeyed_over_the_whole_connection() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING", "LIMITS RCPTDOMAINMAX=2 RCPTMAX=3")
        for recipients in (["a@y.test", "b@z.test", "d@Y.test"], ["f@z.test"], ["g@y.test"]):
            await peer.hear("MAIL FROM:<a@x.test>", *(f"RCPT TO:<{recipient}>" for recipient in recipients), "DATA")
            await peer.say("250 ok", *["250 ok"] * len(recipients), "354 go")
            await peer.text()
            await peer.say("250 taken")
        await peer.goodbye()

    async def chunks() -> AsyncGenerator[bytes, None]:
        yield b"x"

    stream = chunks()
    async with client_and(script) as client:
        with pytest.raises(trio_smtp.ConnectionLostError, match="recipients of 2 domains") as caught:
            await client.send(
                "a@x.test", ["a@y.test", "b@z.test", "c@v.test", "d@Y.test", "e@w.test", "f@z.test"], b"x"
            )
        assert caught.value.accepted == ["a@y.test", "b@z.test", "d@Y.test", "f@z.test"]
        assert caught.value.delivery is Delivery.NOT_SENT
        with pytest.raises(trio_smtp.ConnectionLostError):
            await client.send("a@x.test", ["g@y.test", "h@w.test"], stream)
        await client.send("a@x.test", ["g@y.test"], b"x")
    await stream.aclose()


async def test_mailmax_is_obeyed_with_an_error_that_says_so() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING", "LIMITS MAILMAX=1")
        await peer.take_message("MAIL FROM:<a@x.test>")
        await peer.say("250 first and last")
        await peer.goodbye()

    async with client_and(script) as client:
        await send(client)
        with pytest.raises(trio_smtp.ConnectionLostError, match="used up: the server takes 1 messages") as caught:
            await send(client)
        assert caught.value.delivery is Delivery.NOT_SENT
        assert caught.value.stage == "mail"
        with pytest.raises(trio_smtp.ConnectionLostError):
            async with client.transaction("a@x.test", ["b@y.test"]):
                raise AssertionError("it was begun")


async def test_mailmax_in_the_middle_of_a_split_list_names_those_who_have_the_message() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING", "LIMITS MAILMAX=1 RCPTMAX=1")
        await peer.take_message("MAIL FROM:<a@x.test>", "RCPT TO:<r0@y.test>")
        await peer.say("250 first and last")
        await peer.goodbye()

    async with client_and(script) as client:
        with pytest.raises(trio_smtp.ConnectionLostError) as caught:
            await client.send("a@x.test", ["r0@y.test", "r1@y.test"], b"x")
    assert caught.value.accepted == ["r0@y.test"]


@pytest.mark.parametrize(
    "words", ["452 4.5.3 too many recipients", "452 too many", "552 5.5.3 too many", "552 too many"]
)
async def test_recipients_that_are_too_many_go_in_a_further_transaction(words: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING")
        await peer.hear("MAIL FROM:<a@x.test>", *(f"RCPT TO:<r{i}@y.test>" for i in range(5)), "DATA")
        await peer.say("250 ok", "250 ok", "550 no", "250 ok", words, words, "354 go")
        assert await peer.text() == b"x\r\n"
        await peer.say("250 first")
        await peer.hear("MAIL FROM:<a@x.test>", "RCPT TO:<r3@y.test>", "RCPT TO:<r4@y.test>", "DATA")
        await peer.say("250 ok", "250 ok", "250 ok", "354 go")
        assert await peer.text() == b"x\r\n"
        await peer.say("250 second")
        # The next list is not tried in one.
        await peer.hear("MAIL FROM:<a@x.test>", "RCPT TO:<s0@y.test>", "RCPT TO:<s1@y.test>", "DATA")
        await peer.say("250 ok", "250 ok", "250 ok", "354 go")
        await peer.text()
        await peer.say("250 third")
        await peer.hear("MAIL FROM:<a@x.test>", "RCPT TO:<s2@y.test>", "DATA")
        await peer.say("250 ok", "250 ok", "354 go")
        await peer.text()
        await peer.say("250 fourth")
        await peer.goodbye()

    async with client_and(script) as client:
        result = await client.send("a@x.test", [f"r{i}@y.test" for i in range(5)], b"x")
        assert result.accepted == ["r0@y.test", "r2@y.test", "r3@y.test", "r4@y.test"]
        assert list(result.refused) == ["r1@y.test"]
        assert result.attempts == 1
        await client.send("a@x.test", [f"s{i}@y.test" for i in range(3)], b"x")


@pytest.mark.parametrize("words", ["452 4.2.2 full", "552 5.2.2 full", "451 4.5.3 later"])
async def test_recipients_refused_for_another_reason_stay_refused(words: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING")
        await peer.hear("MAIL FROM:<a@x.test>", "RCPT TO:<r0@y.test>", "RCPT TO:<r1@y.test>", "DATA")
        await peer.say("250 ok", "250 ok", words, "354 go")
        await peer.text()
        await peer.say("250 done")
        await peer.goodbye()

    async with client_and(script) as client:
        result = await client.send("a@x.test", ["r0@y.test", "r1@y.test"], b"x")
    assert list(result.refused) == ["r1@y.test"]


async def test_recipients_too_many_for_a_stream_that_cannot_be_read_twice_are_refused() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING")
        for _ in range(2):
            await peer.hear("MAIL FROM:<a@x.test>", "RCPT TO:<r0@y.test>", "RCPT TO:<r1@y.test>", "DATA")
            await peer.say("250 ok", "250 ok", "452 4.5.3 too many", "354 go")
            await peer.text()
            await peer.say("250 done")
        await peer.goodbye()

    async def chunks() -> AsyncGenerator[bytes, None]:
        yield b"x"

    async with client_and(script) as client:
        result = await client.send("a@x.test", ["r0@y.test", "r1@y.test"], chunks())
        assert list(result.refused) == ["r1@y.test"]
        async with client.transaction("a@x.test", ["r0@y.test", "r1@y.test"]) as message:
            await message.send_all(b"x")
    assert message.result is not None
    assert list(message.result.refused) == ["r1@y.test"]


# -- other commands, and one task at a time


async def test_other_commands() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING")
        for line in ("NOOP", "RSET", "VRFY someone", "HELP me"):
            await peer.hear(line)
            await peer.say("252 2.0.0 perhaps")
        await peer.goodbye()

    async with client_and(script) as client:
        assert client.greeting == Reply(220, "mail.test ESMTP")
        assert client.tls is None
        assert "pipelining" in client.extensions
        assert (await client.noop()).code == 252
        assert (await client.reset()).code == 252
        assert (await client.verify("someone")).code == 252
        assert (await client.command("HELP me")).text == "perhaps"
        for refused in ("NOOP\r\nQUIT", "DATA", "XCLIENT NAME=spike.test"):
            with pytest.raises(trio_smtp.LocalProtocolError) as caught:
                await client.command(refused)
            assert caught.value.delivery is Delivery.NOT_SENT
        with pytest.raises(trio_smtp.LocalProtocolError):
            await client.verify("a\r\nb")


@pytest.mark.parametrize("offered", [False, True])
async def test_verify_needs_smtputf8_for_what_is_not_ascii(offered: bool) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("VRFY", *["SMTPUTF8"] * offered)
        if offered:
            await peer.hear("VRFY ü@x.test SMTPUTF8")
            await peer.say("252 perhaps")
        await peer.goodbye()

    async with client_and(script) as client:
        if offered:
            assert (await client.verify("ü@x.test")).code == 252
            return
        with pytest.raises(trio_smtp.ExtensionNotSupportedError) as caught:
            await client.verify("ü@x.test")
        assert caught.value.delivery is Delivery.NOT_SENT


async def test_second_task_on_a_busy_client() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING")
        await peer.hear("NOOP")
        await trio.testing.wait_all_tasks_blocked()
        await peer.say("250 ok")
        await peer.goodbye()

    async with client_and(script) as client, trio.open_nursery() as nursery:
        nursery.start_soon(client.noop)
        await trio.testing.wait_all_tasks_blocked(0)
        with pytest.raises(trio.BusyResourceError):
            await client.noop()


async def test_a_client_with_a_transaction_open_says_that_it_is_in_use() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING")
        await peer.take_message("MAIL FROM:<a@x.test>")
        await peer.say("250 ok")
        await peer.goodbye()

    async with client_and(script) as client, client.transaction("a@x.test", ["b@y.test"]):
        with pytest.raises(trio.BusyResourceError, match="a transaction is open"):
            await client.noop()


async def test_quit_may_be_said_early() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING")
        await peer.goodbye()

    async with client_and(script) as client:
        await client.quit()
        with pytest.raises(trio_smtp.ConnectionLostError):
            await client.noop()


async def test_quit_is_bounded(autojump_clock: trio.testing.MockClock) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING")
        await peer.hear("QUIT")
        await peer.closed()

    started = trio.current_time()
    async with client_and(script):
        pass
    assert trio.current_time() - started == pytest.approx(5)


# -- the log


@pytest.mark.parametrize("kind", ["bytes", "large bytes", "stream"])
async def test_debug_log_has_the_end_of_a_message_whatever_its_content(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING")
        await peer.take_message("MAIL FROM:<a@x.test>")
        await peer.say("250 ok")
        await peer.goodbye()

    async def pieces() -> AsyncGenerator[bytes]:
        yield b"a text\r\n"

    caplog.set_level(logging.DEBUG, "trio_smtp")
    content = {"bytes": b"a text\r\n", "large bytes": b"a text\r\n" * 40_000, "stream": pieces()}[kind]
    async with client_and(script) as client:
        await send(client, content)
    assert [record.getMessage().split(" ", 1)[1] for record in caplog.records][-5:-2] == [
        "S: 354 go",
        "C: .",
        "S: 250 ok",
    ]


async def test_debug_log_has_the_dialogue_without_secrets_and_text(caplog: pytest.LogCaptureFixture) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet("PIPELINING", "AUTH PLAIN")
        assert (await peer.line()).startswith("AUTH PLAIN ")
        await peer.say("235 ok")
        await peer.take_message("MAIL FROM:<a@x.test>")
        await peer.say("250 ok")
        await peer.goodbye()

    caplog.set_level(logging.DEBUG, "trio_smtp")
    async with client_and(script, auth=("me", "tops3cret"), allow_insecure_auth=True) as client:
        await send(client, b"a private text")
    assert "AUTH PLAIN ***" in caplog.text
    assert "MAIL FROM:<a@x.test>" in caplog.text
    assert "AG1lAHRvcHMzY3JldA" not in caplog.text
    assert "tops3cret" not in caplog.text
    assert "private" not in caplog.text


BETWEEN_MESSAGES = [("noop", "NOOP"), ("reset", "RSET"), ("verify", "VRFY x"), ("command", "HELP")]
ENDS_OF_A_SESSION = [
    (None, trio_smtp.ConnectionLostError),
    ("250-half\r\n550 another", trio_smtp.RemoteProtocolError),
    ("gibberish", trio_smtp.RemoteProtocolError),
    ("", trio_smtp.SMTPTimeoutError),
]


@pytest.mark.parametrize(("operation", "line"), BETWEEN_MESSAGES)
@pytest.mark.parametrize(("said", "error"), ENDS_OF_A_SESSION)
async def test_errors_of_commands_between_messages_have_a_stage(
    autojump_clock: trio.testing.MockClock,
    operation: str,
    line: str,
    said: str | None,
    error: type[trio_smtp.SMTPError],
) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.hear(line)
        if said is None:
            await peer.aclose()
            return
        if said:
            await peer.say(said)
        await peer.drain()

    arguments = {"verify": ["x"], "command": ["HELP"]}.get(operation, [])
    async with client_and(script) as client:
        with pytest.raises(error) as caught:
            await getattr(client, operation)(*arguments)
        assert caught.value.stage == "mail"
        with pytest.raises(trio_smtp.ConnectionLostError, match="closed") as closed:
            await getattr(client, operation)(*arguments)
        assert (closed.value.stage, closed.value.delivery) == ("mail", "not_sent")


async def test_words_unasked_before_such_a_command_have_a_stage_too() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.say("421 going")
        await peer.drain()

    async with client_and(script) as client:
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio_smtp.ConnectionLostError) as caught:
            await client.noop()
        assert caught.value.stage == "mail"
        assert caught.value.reply is not None
