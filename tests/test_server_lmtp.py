# LMTP (RFC 2033): LHLO, and after the end of the data one reply for each recipient that was accepted, in order.
from __future__ import annotations

import contextlib

import pytest
from support import HOSTNAME, Recorder, make_server, serving

from trio_smtp import Reject, Reply

WHO = ("a@a.test", "b@b.test", "c@c.test")


@contextlib.asynccontextmanager
async def lmtp(handler: object = None, **options: object):
    async with serving(make_server(handler, lmtp=True, **options)) as connect:
        peer = connect()
        await peer.expect(f"220 {HOSTNAME} LMTP trio_smtp")
        await peer.ask("LHLO client.test")
        yield peer


async def deliver(peer, recipients=WHO, chunking: bool = False) -> list[str]:
    await peer.ask("MAIL FROM:<>")
    for each in recipients:
        assert (await peer.ask(f"RCPT TO:<{each}>"))[:3] == "250"
    if chunking:
        await peer.send("BDAT 2\r\nab")
        await peer.expect("250 2.0.0 2 octets received")
        await peer.send("BDAT 1 LAST\r\nc")
    else:
        await peer.speak("C: DATA\nS: 354…\nC: text\nC: .")
    return [await peer.line() for _ in recipients]


def reads(result: object):
    async def on_data(session, envelope, body):
        await body.read()
        if isinstance(result, Exception):
            raise result
        return result

    return Recorder(on_data=on_data)


async def test_hello():
    async with serving(make_server(lmtp=True)) as connect:
        peer = connect()
        await peer.reply()
        assert await peer.ask("MAIL FROM:<>") == "503 5.5.1 send LHLO first"
        for verb in ("EHLO", "HELO"):
            assert (await peer.ask(f"{verb} x"))[:3] == "500"  # RFC 2033 §4.1
        assert (await peer.ask("LHLO"))[:3] == "501"
        lines = await peer.ask("LHLO x")
        for keyword in ("PIPELINING", "ENHANCEDSTATUSCODES", "CHUNKING"):  # RFC 2033 §5 wants the first two
            assert keyword in lines
        assert (await peer.ask("MAIL FROM:<>"))[:3] == "250"


async def test_the_session_knows():
    handler = Recorder()
    async with lmtp(handler):
        session = handler.sessions[0]
        assert (session.hello, session.esmtp) == ("client.test", True)


@pytest.mark.parametrize("chunking", [False, True])
@pytest.mark.parametrize(
    ("result", "replies"),
    [
        (None, ["250 2.0.0 OK: queued"] * 3),
        ("", ["250 2.0.0 OK: queued"] * 3),
        ("Q1", ["250 2.0.0 OK: queued as Q1"] * 3),
        (Reply(250, "fine", "2.1.5"), ["250 2.1.5 fine"] * 3),
        (Reply(452, "full", "4.2.2"), ["452 4.2.2 full"] * 3),
        (Reject(550, "no", "5.7.1"), ["550 5.7.1 no"] * 3),
        (ValueError("a bug"), ["451 4.3.0 local error in processing"] * 3),
        (
            {"a@a.test": None, "b@b.test": Reply(550, "full", "5.2.2"), "c@c.test": "Q2"},
            ["250 2.0.0 OK: queued", "550 5.2.2 full", "250 2.0.0 OK: queued as Q2"],
        ),
        (
            {"c@c.test": Reply(450, "later", "4.2.0"), "x@x.test": None},
            ["451 4.3.0 no word about this recipient"] * 2 + ["450 4.2.0 later"],
        ),
        ({}, ["451 4.3.0 no word about this recipient"] * 3),
        (
            {"a@a.test": 17},
            ["451 4.3.0 local error in processing"] + ["451 4.3.0 no word about this recipient"] * 2,
        ),
        (
            {"a@a.test": Reply(354)},
            ["451 4.3.0 local error in processing"] + ["451 4.3.0 no word about this recipient"] * 2,
        ),
    ],
)
async def test_a_reply_for_each(result: object, replies: list[str], chunking: bool):
    async with lmtp(reads(result)) as peer:
        assert await deliver(peer, chunking=chunking) == replies
        assert await peer.ask("NOOP") == "250 2.0.0 OK"


async def test_only_accepted_recipients_have_one_and_repeated_ones_have_each_their_own():
    async def on_rcpt(session, recipient):
        if recipient.local_part == "bad":
            raise Reject(550, "no", "5.1.1")

    handler = Recorder(on_rcpt=on_rcpt)
    async with lmtp(handler) as peer:
        await peer.speak("""
            C: MAIL FROM:<>
            S: 250…
            C: RCPT TO:<a@a.test>
            C: RCPT TO:<bad@a.test>
            C: RCPT TO:<a@a.test>
            C: DATA
            S: 250 2.1.5 OK
            S: 550 5.1.1 no
            S: 250 2.1.5 OK
            S: 354…
            C: text
            C: .
            C: NOOP
            S: 250 2.0.0 OK: queued
            S: 250 2.0.0 OK: queued
            S: 250 2.0.0 OK
        """)


async def test_without_recipients_data_has_one():
    async with lmtp() as peer:
        await peer.ask("MAIL FROM:<>")
        assert await peer.ask("DATA") == "503 5.5.1 send RCPT first"  # RFC 2033 §4.2
        assert await peer.ask("NOOP") == "250 2.0.0 OK"


async def test_a_refusal_of_data_itself_is_one_reply():
    async with lmtp(Recorder(on_data=Reject(554, "no", "5.7.1"))) as peer:
        await peer.ask("MAIL FROM:<>")
        for each in WHO:
            await peer.ask(f"RCPT TO:<{each}>")
        assert await peer.ask("DATA") == "554 5.7.1 no"
        assert await peer.ask("NOOP") == "250 2.0.0 OK"


@pytest.mark.parametrize("fault", ["too large", "bare newline"])
async def test_a_message_that_is_no_good_is_refused_for_each(fault: str):
    async with lmtp(max_message_size=10) as peer:
        await peer.ask("MAIL FROM:<>")
        for each in WHO:
            await peer.ask(f"RCPT TO:<{each}>")
        await peer.speak("C: DATA\nS: 354…")
        await peer.send("x" * 20 + "\r\n.\r\n" if fault == "too large" else "a\nb\r\n.\r\n")
        code = "552 5.3.4" if fault == "too large" else "550 5.6.11"
        assert [(await peer.line())[: len(code)] for _ in WHO] == [code] * 3
        assert await peer.ask("NOOP") == "250 2.0.0 OK"


async def test_accepted_for_one_is_accepted():
    handler = reads({"a@a.test": None})
    server = make_server(handler, lmtp=True)
    async with serving(server) as connect:
        peer = connect()
        await peer.reply()
        await peer.ask("LHLO x")
        await deliver(peer)
        await peer.ask("NOOP")
    assert server.statistics().messages == 1
    assert handler.count("on_reset") == 0


@pytest.mark.parametrize("value", [17, "550 no", Reply(354, "go on"), False])
async def test_an_outcome_that_is_none_costs_its_own_recipient_alone(value: object, caplog):
    handler = reads({"a@a.test": "Q1", "b@b.test": value, "c@c.test": Reply(550, "no", "5.7.1")})
    server = make_server(handler, lmtp=True)
    async with serving(server) as connect:
        peer = connect()
        await peer.reply()
        await peer.ask("LHLO x")
        assert await deliver(peer) == [
            "250 2.0.0 OK: queued as Q1",
            "451 4.3.0 local error in processing",
            "550 5.7.1 no",
        ]
    assert (server.statistics().messages, server.statistics().failed_hooks) == (1, 1)
    assert [record.levelname for record in caplog.records] == ["ERROR"]


@pytest.mark.parametrize("chunking", [False, True])
@pytest.mark.parametrize("change", ["clear", "extend", "replace", "rename"])
async def test_who_was_accepted_is_not_the_applications_to_change(change: str, chunking: bool):
    """The client counts one reply for each RCPT that was accepted, whatever becomes of the envelope."""

    async def on_data(session, envelope, body):
        await body.read()
        recipients = envelope.recipients
        if change == "clear":
            recipients.clear()
        elif change == "extend":
            recipients.extend(recipients[:])
        elif change == "replace":
            envelope.recipients = []
        else:
            for each in recipients:
                each.address = "x@x.test"
        return {each: Reply(250, each) for each in WHO}

    async with lmtp(Recorder(on_data=on_data)) as peer:
        assert await deliver(peer, chunking=chunking) == [f"250 2.0.0 {each}" for each in WHO]
        assert await peer.ask("NOOP") == "250 2.0.0 OK"


async def test_the_limit_of_recipients_is_not_the_applications_to_change():
    async def on_rcpt(session, recipient):
        session.envelope.recipients.clear()

    async with lmtp(Recorder(on_rcpt=on_rcpt), max_recipients=2) as peer:
        await peer.ask("MAIL FROM:<>")
        assert [(await peer.ask(f"RCPT TO:<{each}>"))[:3] for each in WHO] == ["250", "250", "452"]
        await peer.speak("C: DATA\nS: 354…\nC: .\nS: 250…\nS: 250…\nC: NOOP\nS: 250 2.0.0 OK")


@pytest.mark.parametrize("chunking", [False, True])
@pytest.mark.parametrize("last_word", [Reply(421, "going", "4.3.2"), Reply(250, "fine", "2.0.0", close=True)])
async def test_a_reply_for_one_that_closes_comes_with_those_for_the_others(last_word: Reply, chunking: bool):
    handler = reads({"a@a.test": None, "b@b.test": last_word, "c@c.test": "Q1"})
    server = make_server(handler, lmtp=True)
    async with serving(server) as connect:
        peer = connect()
        await peer.reply()
        await peer.ask("LHLO x")
        replies = await deliver(peer, chunking=chunking)
        line = f"{last_word.code} {last_word.enhanced} {last_word.text}"
        assert replies == ["250 2.0.0 OK: queued", line, "250 2.0.0 OK: queued as Q1"]
        await peer.expect("<closed>")
    assert server.statistics().messages == 1
    assert handler.count("on_reset") == 0
    assert handler.count("on_close") == 1


class Broken(dict):
    def items(self):
        raise RuntimeError("a bug")


async def test_a_mapping_that_cannot_be_read_is_a_failed_hook(caplog):
    async with lmtp(reads(Broken())) as peer:
        assert await deliver(peer) == ["451 4.3.0 local error in processing"] * 3
        assert await peer.ask("NOOP") == "250 2.0.0 OK"
    assert len(caplog.records) == 1


async def test_a_mapping_is_a_mistake_in_smtp(caplog):
    async with serving(make_server(reads({"a@a.test": None}))) as connect:
        peer = connect()
        await peer.hello()
        assert await deliver(peer, WHO[:1]) == ["451 4.3.0 local error in processing"]
    assert len(caplog.records) == 1


async def test_a_refused_chunk_that_is_not_the_last_has_one_reply():
    """RFC 2033 section 4.2: only the last BDAT is answered for each recipient; more would shift the replies."""
    async with lmtp(Recorder(on_data=Reject(550, "no", "5.7.1"))) as peer:
        await peer.ask("MAIL FROM:<>")
        for each in WHO:
            await peer.ask(f"RCPT TO:<{each}>")
        await peer.send("BDAT 5\r\nhello")
        await peer.expect("550 5.7.1 no")
        assert await peer.ask("NOOP") == "250 2.0.0 OK"
