"""The relay: every answer is the next server's, nothing is stored, and what is not known is not said."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from client_peer import Peer as Upstream
from support import Peer, Recorder, make_server, serving

import trio_smtp
from trio_smtp import ClientConfig, PoolConfig, Reject, Reply, ServerConfig, forward
from trio_smtp.testing import RunningServer, Sink, open_server, open_sink

Clock = trio.testing.MockClock
DSN = ServerConfig(enabled_extensions=("DSN",), max_messages=None)
TEXT = b"Subject: hi\r\n\r\n.hello\r\n..\r\n"


@asynccontextmanager
async def relay_to(
    sink: Sink | RunningServer, *, config: ServerConfig = DSN, unknown: Any = "refuse", **options: Any
) -> AsyncIterator[RunningServer]:
    options = {**sink.client_options, "local_hostname": "relay.test", **options}
    async with (
        trio_smtp.open_pool(sink.host, sink.port, **options) as pool,
        open_server(forward(pool, unknown=unknown), config=config) as relay,
    ):
        yield relay


@asynccontextmanager
async def client_of(relay: RunningServer, **options: Any) -> AsyncIterator[trio_smtp.Client]:
    async with trio_smtp.open_client(relay.host, relay.port, **{**relay.client_options, **options}) as client:
        yield client


# -- what goes along


@pytest.mark.parametrize("upstream", [True, False], ids=["BDAT", "DATA"])
@pytest.mark.parametrize("downstream", [True, False], ids=["BDAT", "DATA"])
async def test_a_message_arrives_as_it_was_sent(upstream: bool, downstream: bool) -> None:
    texts = [
        TEXT,
        b"",
        b"\r\n",
        b".\r\n",
        "Grüße\r\n".encode() + bytes(range(128, 256)) + b"\r\n",
        b"x" * 3_000_000 + b"\r\n",
    ]
    async with (
        open_sink() as sink,
        relay_to(sink, client_config=ClientConfig(chunking=upstream)) as relay,
        client_of(relay, config=ClientConfig(chunking=downstream)) as client,
    ):
        for text in texts:
            result = await client.send("me@x.test", ["a@y.test", "b@y.test"], text)
            assert result.accepted == ["a@y.test", "b@y.test"]
            assert result.reply == Reply(250, f"OK: queued as {len(sink.messages)}", "2.0.0")
    assert [message.content for message in sink.messages] == texts
    assert {message.recipients for message in sink.messages} == {("a@y.test", "b@y.test")}
    assert sink.messages[0].sender == "me@x.test"


async def test_parameters_go_along() -> None:
    async with open_sink(config=DSN) as sink, relay_to(sink) as relay, client_of(relay) as client:
        await client.send(
            "mé@x.test",
            ["a@y.test", "ü@y.test"],
            "Subject: Grüße\r\n\r\n".encode(),
            mail_params={"RET": "HDRS", "ENVID": "QQ+2B1"},
            rcpt_params={
                "a@y.test": {"NOTIFY": "SUCCESS,DELAY", "ORCPT": "rfc822;first+2Bone@z.test"},
                "ü@y.test": {"NOTIFY": "NEVER", "ORCPT": "utf-8;ä@z.test"},
            },
        )
        await client.send("", ["a@y.test"], TEXT)
    first, second = sink.messages
    sender = first.envelope.sender
    assert (sender.address, sender.body, sender.smtputf8) == ("mé@x.test", "8BITMIME", True)
    assert (sender.ret, sender.envid, sender.size) == ("HDRS", "QQ+1", 20)
    a, u = first.envelope.recipients
    assert (a.params["NOTIFY"], a.orcpt) == ("SUCCESS,DELAY", ("rfc822", "first+one@z.test"))
    assert (u.params["NOTIFY"], u.orcpt) == ("NEVER", ("utf-8", "ä@z.test"))
    assert (second.sender, second.envelope.sender.smtputf8) == ("", False)


@pytest.mark.parametrize("body", ["7BIT", "8BITMIME", "BINARYMIME"])
async def test_body_goes_along(body: str) -> None:
    text = TEXT if body != "BINARYMIME" else b"\x00\n\r\xff."
    async with open_sink() as sink, relay_to(sink) as relay, client_of(relay) as client:
        await client.send("me@x.test", ["a@y.test"], text, mail_params={"BODY": body})
    [message] = sink.messages
    assert (message.envelope.sender.body, message.content) == (body, text)


async def test_what_the_next_server_does_not_know_of_dsn_is_left_out() -> None:
    async with open_sink() as sink, relay_to(sink) as relay, client_of(relay) as client:
        await client.send(
            "me@x.test",
            ["a@y.test"],
            TEXT,
            mail_params={"RET": "HDRS", "ENVID": "1"},
            rcpt_params={"a@y.test": {"NOTIFY": "NEVER", "ORCPT": "rfc822;b@y.test"}},
        )
    assert sink.messages[0].envelope.sender.params.keys() & {"RET", "ENVID"} == set()
    assert sink.messages[0].envelope.recipients[0].params == {}


# -- what comes back


async def test_every_command_is_asked_of_the_next_server() -> None:
    async with open_sink() as sink, relay_to(sink) as relay, client_of(relay) as client:
        sink.refuse("mail", 550, "no mail from you", "5.7.1", times=1)
        with pytest.raises(trio_smtp.SenderRefusedError) as refused:
            await client.send("me@x.test", ["a@y.test"], TEXT)
        assert refused.value.reply == Reply(550, "no mail from you", "5.7.1")
        sink.refuse("rcpt", 550, "no such user", "5.1.1", address="b@y.test")
        sink.refuse("rcpt", 450, "mailbox busy", "4.2.0", address="c@y.test")
        result = await client.send("me@x.test", ["a@y.test", "b@y.test", "c@y.test"], TEXT)
        assert result.accepted == ["a@y.test"]
        assert result.refused == {
            "b@y.test": Reply(550, "no such user", "5.1.1"),
            "c@y.test": Reply(450, "mailbox busy", "4.2.0"),
        }
        with pytest.raises(trio_smtp.RecipientsRefusedError):
            await client.send("me@x.test", ["b@y.test"], TEXT)
        sink.refuse("end", 554, "spam", "5.7.1", times=1)
        with pytest.raises(trio_smtp.MessageRefusedError) as spam:
            await client.send("me@x.test", ["a@y.test"], TEXT)
        assert spam.value.reply == Reply(554, "spam", "5.7.1")
        await client.send("me@x.test", ["a@y.test"], TEXT)
    assert [message.recipients for message in sink.messages] == [("a@y.test",)] * 2


@pytest.mark.parametrize("chunking", [True, False])
async def test_a_refusal_of_data_and_one_in_mid_message(chunking: bool) -> None:
    config = ClientConfig(chunking=chunking)
    async with open_sink() as sink, relay_to(sink, client_config=config) as relay, client_of(relay) as client:
        sink.refuse("data", 451, "not now", "4.3.0", times=1)
        with pytest.raises(trio_smtp.MessageRefusedError) as refused:
            await client.send("me@x.test", ["a@y.test"], TEXT)
        assert refused.value.reply == Reply(451, "not now", "4.3.0")
        sink.refuse("body", 552, "full", "5.2.2", times=1)
        with pytest.raises(trio_smtp.MessageRefusedError) as full:
            await client.send("me@x.test", ["a@y.test"], b"x" * 2_000_000)
        assert full.value.reply == Reply(552, "full", "5.2.2")
        await client.send("me@x.test", ["a@y.test"], TEXT)
    assert len(sink.messages) == 1


@pytest.mark.parametrize(
    ("without", "params", "text", "reply"),
    [
        (
            ("8BITMIME",),
            {"BODY": "8BITMIME"},
            "ü\r\n".encode(),
            Reply(554, "the next server does not take 8-bit text", "5.6.3"),
        ),
        (("8BITMIME",), {}, "ü\r\n".encode(), Reply(554, "the next server does not take 8-bit text", "5.6.3")),
        (("SMTPUTF8",), {"SMTPUTF8": None}, TEXT, Reply(553, "the next server does not offer SMTPUTF8", "5.6.7")),
    ],
)
async def test_what_the_next_server_cannot_take(without: Any, params: Any, text: bytes, reply: Reply) -> None:
    config = ServerConfig(disabled_extensions=without)
    async with open_sink(config=config) as sink, relay_to(sink) as relay, client_of(relay) as client:
        with pytest.raises(trio_smtp.SMTPError) as refused:
            await client.send("me@x.test", ["a@y.test"], text, mail_params={"BODY": "8BITMIME", **params})
        assert refused.value.reply == reply
        await client.send("me@x.test", ["a@y.test"], TEXT, mail_params={"BODY": "8BITMIME"})
    assert [message.content for message in sink.messages] == [TEXT]


async def test_a_message_that_is_too_large_for_the_next_server() -> None:
    config = ServerConfig(max_message_size=1000)
    async with open_sink(config=config) as sink, relay_to(sink) as relay, client_of(relay) as client:
        for stage in ("mail", "body"):  # with SIZE, and without
            params = {"SIZE": 1} if stage == "body" else None
            with pytest.raises(trio_smtp.SMTPError) as refused:
                await client.send("me@x.test", ["a@y.test"], b"x" * 5000, mail_params=params)
            assert refused.value.reply is not None
            assert (refused.value.reply.code, refused.value.reply.enhanced) == (552, "5.3.4")
        await client.send("me@x.test", ["a@y.test"], TEXT)
    assert len(sink.messages) == 1


async def test_an_address_that_cannot_be_sent_on() -> None:
    config = ServerConfig(lenient_addresses=True)
    async with open_sink() as sink, relay_to(sink, config=config) as relay:
        stream = await trio.open_tcp_stream(relay.host, relay.port)
        peer = Peer(stream)
        await peer.hello()
        assert (await peer.ask("MAIL FROM:nobody")).startswith("553 5.1.3")
        assert (await peer.ask("MAIL FROM:<me@x.test>")).startswith("250")
        assert (await peer.ask("RCPT TO:somebody")).startswith("553 5.1.3")
        assert (await peer.ask("RCPT TO:<a@y.test>")).startswith("250")
        await peer.aclose()
    assert not sink.messages


async def test_the_same_recipient_twice_is_asked_for_once() -> None:
    handler = Recorder()
    async with open_server(handler) as server, relay_to(server) as relay:
        peer = Peer(await trio.open_tcp_stream(relay.host, relay.port))
        await peer.hello()
        await peer.ask("MAIL FROM:<me@x.test>")
        for _ in range(2):
            assert (await peer.ask("RCPT TO:<a@y.test>")).startswith("250")
        await peer.ask("DATA")
        await peer.send("hi\r\n.\r\n")
        assert await peer.code() == "250"
        await peer.aclose()
    assert handler.messages == [("me@x.test", ["a@y.test"], b"hi\r\n")]


# -- LMTP


async def test_lmtp_at_both_ends_has_a_reply_for_each() -> None:
    async with (
        open_sink(config=ServerConfig(lmtp=True)) as sink,
        relay_to(sink, config=ServerConfig(lmtp=True)) as relay,
        client_of(relay) as client,
    ):
        sink.refuse("end", 452, "mailbox full", "4.2.2", address="b@y.test")
        sink.refuse("rcpt", 550, "no such user", "5.1.1", address="c@y.test")
        result = await client.send("me@x.test", ["a@y.test", "b@y.test", "c@y.test"], TEXT)
        assert result.accepted == ["a@y.test"]
        assert result.refused["b@y.test"] == Reply(452, "mailbox full", "4.2.2")
        assert result.refused["c@y.test"] == Reply(550, "no such user", "5.1.1")
        with pytest.raises(trio_smtp.MessageRefusedError) as refused:
            await client.send("me@x.test", ["b@y.test"], TEXT)
        assert refused.value.refused == {"b@y.test": Reply(452, "mailbox full", "4.2.2")}


async def test_lmtp_to_smtp_gives_all_the_one_reply() -> None:
    async with open_sink() as sink, relay_to(sink, config=ServerConfig(lmtp=True)) as relay, client_of(relay) as client:
        result = await client.send("me@x.test", ["a@y.test", "b@y.test"], TEXT)
        assert result.replies == dict.fromkeys(["a@y.test", "b@y.test"], Reply(250, "OK: queued as 1", "2.0.0"))
        sink.refuse("end", 554, "spam", "5.7.1", times=1)
        with pytest.raises(trio_smtp.MessageRefusedError) as refused:
            await client.send("me@x.test", ["a@y.test", "b@y.test"], TEXT)
        assert refused.value.refused == dict.fromkeys(["a@y.test", "b@y.test"], Reply(554, "spam", "5.7.1"))


async def test_smtp_to_lmtp_has_one_recipient_at_a_time() -> None:
    """One reply cannot say that one recipient has the message and the other has not."""
    async with open_sink(config=ServerConfig(lmtp=True)) as sink, relay_to(sink) as relay, client_of(relay) as client:
        sink.refuse("end", 552, "mailbox full", "5.2.2", address="b@y.test")
        result = await client.send("me@x.test", ["a@y.test", "b@y.test", "c@y.test"], TEXT)
        assert result.accepted == ["a@y.test", "c@y.test"]
        assert result.refused == {"b@y.test": Reply(552, "mailbox full", "5.2.2")}
    assert [message.recipients for message in sink.messages] == [("a@y.test",), ("c@y.test",)]


# -- what is not known


@pytest.mark.parametrize(("unknown", "code"), [("refuse", 451), ("accept", 250)])
async def test_the_end_without_an_answer(unknown: str, code: int) -> None:
    async with open_sink() as sink, relay_to(sink, unknown=unknown) as relay, client_of(relay) as client:
        sink.cut("end", keep=True)
        if code == 250:
            result = await client.send("me@x.test", ["a@y.test"], TEXT)
            assert "did not answer" in result.reply.text
        else:
            with pytest.raises(trio_smtp.MessageRefusedError) as refused:
                await client.send("me@x.test", ["a@y.test"], TEXT)
            assert refused.value.reply is not None
            assert (refused.value.reply.code, refused.value.reply.enhanced) == (451, "4.4.2")
    assert len(sink.messages) == 1


@pytest.mark.parametrize("unknown", ["refuse", "accept"])
@pytest.mark.parametrize("stage", ["mail", "rcpt", "data", "body"])
async def test_a_connection_lost_before_the_end_is_never_an_acceptance(unknown: str, stage: str) -> None:
    config = ClientConfig(chunking=False)
    async with (
        open_sink() as sink,
        relay_to(sink, unknown=unknown, client_config=config, config=DSN) as relay,
        client_of(relay) as client,
    ):
        await client.send("me@x.test", ["a@y.test"], TEXT)
        sink.cut(stage)  # type: ignore[arg-type]
        with pytest.raises(trio_smtp.SMTPError) as refused:
            await client.send("me@x.test", ["a@y.test"], b"x" * 2_000_000)
        assert refused.value.reply is not None
        assert refused.value.reply.code == 451
        sink.accept_all()
        await client.send("me@x.test", ["a@y.test"], TEXT)
    assert len(sink.messages) == 2


@pytest.mark.parametrize("unknown", ["refuse", "accept"])
async def test_lmtp_of_which_some_are_not_known(unknown: str) -> None:
    """The server answers for the first recipient, and goes."""

    async def script(peer: Upstream) -> None:
        await peer.say("220 lmtp.test")
        await peer.hear("LHLO relay.test")
        await peer.say("250-lmtp.test", "250-PIPELINING", "250 8BITMIME")
        await peer.hear("MAIL FROM:<me@x.test> BODY=8BITMIME")
        await peer.say("250 ok")
        for name in "abc":
            await peer.hear(f"RCPT TO:<{name}@y.test>")
            await peer.say("250 ok")
        await peer.hear("DATA")
        await peer.say("354 go")
        await peer.hear("hi", ".")
        await peer.say("250 2.0.0 stored", "552 5.2.2 full")
        await peer.aclose()

    upstream = Upstream()

    async def connect(host: str, port: int) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        return upstream.far

    async with trio.open_nursery() as nursery:
        nursery.start_soon(script, upstream)
        options: dict[str, Any] = {"lmtp": True, "connect": connect, "local_hostname": "relay.test"}
        async with trio_smtp.open_pool("lmtp.test", config=PoolConfig(connect_retries=0), **options) as pool:
            server = make_server(forward(pool, unknown=unknown), lmtp=True)  # type: ignore[arg-type]
            async with serving(server) as start:
                peer = start()
                await peer.reply()
                await peer.ask("LHLO client.test")
                await peer.ask("MAIL FROM:<me@x.test>")
                for name in "abc":
                    await peer.ask(f"RCPT TO:<{name}@y.test>")
                await peer.ask("DATA")
                await peer.send("hi\r\n.\r\n")
                codes = [await peer.code() for _ in range(3)]
    assert codes == ["250", "552", "451" if unknown == "refuse" else "250"]


async def test_421_of_the_next_server_does_not_end_the_clients_session() -> None:
    async with open_sink() as sink, relay_to(sink, config=DSN) as relay:
        peer = Peer(await trio.open_tcp_stream(relay.host, relay.port))
        await peer.hello()
        await peer.ask("MAIL FROM:<me@x.test>")
        await peer.ask("RCPT TO:<a@y.test>")
        sink.refuse("rcpt", 421, "going down", "4.3.2", close=True, times=1)
        assert (await peer.ask("RCPT TO:<b@y.test>")) == "451 4.3.2 going down"
        assert (await peer.ask("RCPT TO:<c@y.test>")).startswith("451 4.4.2")
        assert (await peer.ask("DATA")).startswith("451 4.4.2")  # the one that was accepted is lost, too
        await peer.ask("MAIL FROM:<me@x.test>")
        assert (await peer.ask("RCPT TO:<a@y.test>")).startswith("250")
        await peer.aclose()
    assert not sink.messages


async def test_the_next_server_goes_away_between_two_commands() -> None:
    async with open_sink() as sink, relay_to(sink, config=DSN) as relay:
        peer = Peer(await trio.open_tcp_stream(relay.host, relay.port))
        await peer.hello()
        await peer.ask("MAIL FROM:<me@x.test>")
        await peer.ask("RCPT TO:<a@y.test>")
        await sink.server.shutdown(grace=0)
        assert (await peer.ask("RCPT TO:<b@y.test>")).startswith("451 4.4.2")
        assert (await peer.ask("DATA")).startswith("451 4.4.2")
        await peer.aclose()


async def test_a_server_that_cannot_be_reached() -> None:
    async with open_sink() as gone:
        pass
    async with relay_to(gone, config=DSN) as relay, client_of(relay) as client:
        with pytest.raises(trio_smtp.SenderRefusedError) as refused:
            await client.send("me@x.test", ["a@y.test"], TEXT)
        assert refused.value.reply is not None
        assert (refused.value.reply.code, refused.value.reply.enhanced) == (451, "4.4.1")


async def test_an_idle_connection_that_died_costs_no_message() -> None:
    async with open_sink() as sink, relay_to(sink) as relay, client_of(relay) as client:
        await client.send("me@x.test", ["a@y.test"], TEXT)
        sink.cut("mail", times=1)
        await client.send("me@x.test", ["a@y.test"], TEXT)
        sink.refuse("mail", 421, "enough", "4.7.0", close=True, times=1)
        await client.send("me@x.test", ["a@y.test"], TEXT)
        sink.refuse("mail", 452, "too many messages", "4.5.3", times=1)
        await client.send("me@x.test", ["a@y.test"], TEXT)
    assert len(sink.messages) == 4


# -- what a client may do


@pytest.mark.parametrize("end", ["RSET", "QUIT", "EHLO", "gone"])
async def test_a_transaction_that_is_given_up_gives_its_connection_back(end: str) -> None:
    options: dict[str, Any] = {"max_connections": 1, "local_hostname": "relay.test"}
    async with (
        open_sink() as sink,
        trio_smtp.open_pool(sink.host, sink.port, **{**sink.client_options, **options}) as pool,
    ):
        async with serving(make_server(forward(pool))) as start:
            for _ in range(3):
                peer = start()
                await peer.hello()
                await peer.ask("MAIL FROM:<me@x.test>")
                await peer.ask("RCPT TO:<a@y.test>")
                assert pool.statistics().in_flight == 1
                if end == "gone":
                    await peer.aclose()
                else:
                    await peer.ask(f"{end} client.test" if end == "EHLO" else end)
                with trio.fail_after(10):
                    await pool.drain()
                    await pool.send("me@x.test", ["b@y.test"], TEXT)
        assert pool.statistics().opened == 1
    assert [message.recipients for message in sink.messages] == [("b@y.test",)] * 3


@pytest.mark.parametrize("chunking", [True, False])
async def test_a_client_that_vanishes_in_mid_message_sends_nothing(chunking: bool) -> None:
    options: dict[str, Any] = {"client_config": ClientConfig(chunking=chunking), "local_hostname": "relay.test"}
    async with (
        open_sink() as sink,
        trio_smtp.open_pool(sink.host, sink.port, **{**sink.client_options, **options}) as pool,
    ):
        async with serving(make_server(forward(pool))) as start:
            peer = start()
            await peer.hello()
            await peer.ask("MAIL FROM:<me@x.test>")
            await peer.ask("RCPT TO:<a@y.test>")
            await peer.ask("DATA")
            await peer.send(b"x" * 100_000)
            await peer.aclose()
            with trio.fail_after(10):
                await pool.drain()
        await pool.send("me@x.test", ["b@y.test"], TEXT)
    assert [message.recipients for message in sink.messages] == [("b@y.test",)]


async def test_the_clients_own_faults_are_answered_by_this_server() -> None:
    config = ServerConfig(max_message_size=1000)
    async with open_sink() as sink, relay_to(sink, config=config) as relay:
        peer = Peer(await trio.open_tcp_stream(relay.host, relay.port))
        await peer.hello()
        for text, code in ((b"x" * 2000 + b"\r\n.\r\n", "552"), (b"a\nb\r\n.\r\n", "550"), (b"fine\r\n.\r\n", "250")):
            await peer.ask("MAIL FROM:<me@x.test>")
            await peer.ask("RCPT TO:<a@y.test>")
            await peer.ask("DATA")
            await peer.send(text)
            assert await peer.code() == code
        await peer.aclose()
    assert [message.content for message in sink.messages] == [b"fine\r\n"]


async def test_chunks_that_are_given_up() -> None:
    async with open_sink() as sink, relay_to(sink) as relay:
        peer = Peer(await trio.open_tcp_stream(relay.host, relay.port))
        await peer.hello()
        for _ in range(2):
            await peer.ask("MAIL FROM:<me@x.test>")
            await peer.ask("RCPT TO:<a@y.test>")
            await peer.send("BDAT 4\r\nhi\r\n")
            assert await peer.code() == "250"
            assert (await peer.ask("RSET")).startswith("250")
        await peer.aclose()
    assert not sink.messages


# -- many of them


async def test_many_clients_at_once() -> None:
    async with open_sink() as sink, relay_to(sink, max_connections=4) as relay:

        async def one(number: int) -> None:
            async with client_of(relay) as client:
                for count in range(5):
                    await client.send("me@x.test", [f"u{number}@y.test"], b"%d %d\r\n" % (number, count))

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(one, number)
    assert sorted(message.content for message in sink.messages) == sorted(
        b"%d %d\r\n" % (number, count) for number in range(20) for count in range(5)
    )
    assert all(message.recipients == (f"u{message.content.split()[0].decode()}@y.test",) for message in sink.messages)


async def test_a_relay_with_a_login_of_its_own() -> None:
    """The relay is a part of a handler of the application."""

    class Submission(trio_smtp.Handler):
        def __init__(self, relay: trio_smtp.Handler) -> None:
            self.on_mail = relay.on_mail  # type: ignore[method-assign]
            self.on_data = relay.on_data  # type: ignore[method-assign]
            self.on_reset = relay.on_reset  # type: ignore[method-assign]
            self.on_close = relay.on_close  # type: ignore[method-assign]
            self.relay = relay

        async def on_auth(self, session: trio_smtp.Session, credentials: trio_smtp.Credentials) -> bool:
            return credentials.check_password("secret")

        async def on_rcpt(self, session: trio_smtp.Session, recipient: trio_smtp.Recipient) -> Reply | None:
            if recipient.domain == "bad.test":
                raise Reject(550, "not there", "5.7.1")
            return await self.relay.on_rcpt(session, recipient)

    config = ServerConfig(auth="required", allow_insecure_auth=True)
    async with (
        open_sink() as sink,
        trio_smtp.open_pool(sink.host, sink.port, **sink.client_options) as pool,
        open_server(Submission(forward(pool)), config=config) as relay,
        client_of(relay, auth=("me", "secret"), allow_insecure_auth=True) as client,
    ):
        result = await client.send("me@x.test", ["a@y.test", "b@bad.test"], TEXT)
    assert result.accepted == ["a@y.test"]
    assert len(sink.messages) == 1


class _Counting(trio_smtp.Handler):
    """Counts the octets of a message."""

    def __init__(self) -> None:
        self.octets = 0

    async def on_data(self, session: Any, envelope: Any, body: trio_smtp.Body) -> None:
        async for chunk in body:
            self.octets += len(chunk)


async def test_a_large_message_is_never_held() -> None:
    import tracemalloc

    size, chunk = 25 << 20, b"x" * 1022 + b"\r\n"

    async def text() -> AsyncIterator[bytes]:
        for _ in range(size // len(chunk) // 64):
            yield chunk * 64

    handler = _Counting()
    async with open_server(handler) as server, relay_to(server) as relay, client_of(relay) as client:
        await client.send("me@x.test", ["a@y.test"], TEXT)
        gc.collect()
        tracemalloc.start()
        try:
            await client.send("me@x.test", ["a@y.test"], text())
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert handler.octets == size + len(TEXT)
    assert peak < 8 << 20  # three connections' buffers


# -- the ends


async def test_cancelled_while_it_waits_for_a_connection(autojump_clock: Clock) -> None:
    config = PoolConfig(max_connections=1)
    async with open_sink() as sink:

        async def connect(host: str, port: int) -> trio.abc.Stream:
            await trio.lowlevel.checkpoint()
            return sink.connect()

        async with trio_smtp.open_pool("mail.test", connect=connect, config=config) as pool:
            server = make_server(forward(pool), handler_timeout=5)
            async with serving(server) as start:
                first, second = start(), start()
                for peer in (first, second):
                    await peer.hello()
                assert (await first.ask("MAIL FROM:<me@x.test>")).startswith("250")
                assert (await second.ask("MAIL FROM:<me@x.test>")).startswith("451")  # after 5 s
                await first.ask("RSET")
                assert (await second.ask("MAIL FROM:<me@x.test>")).startswith("250")
            assert pool.statistics().in_flight == 0


async def test_a_next_server_that_does_not_answer(autojump_clock: Clock) -> None:
    async with open_sink() as sink:

        async def connect(host: str, port: int) -> trio.abc.Stream:
            await trio.lowlevel.checkpoint()
            return sink.connect()

        client_config = ClientConfig(end_timeout=60, command_timeout=30)
        config = PoolConfig(connect_retries=0)
        async with (
            trio_smtp.open_pool(
                "mail.test", connect=connect, config=config, client_config=client_config, local_hostname="relay.test"
            ) as pool,
            serving(make_server(forward(pool))) as start,
        ):
            peer = start()
            await peer.hello()
            for stage, reply in (("mail", "451 4.4.1"), ("rcpt", "451 4.4.2"), ("end", "451 4.4.2")):
                sink.accept_all()
                sink.stall(stage)  # type: ignore[arg-type]
                last = await peer.ask("MAIL FROM:<me@x.test>")
                if stage != "mail":
                    last = await peer.ask("RCPT TO:<a@y.test>")
                if stage == "end":
                    await peer.ask("DATA")
                    await peer.send("hi\r\n.\r\n")
                    last = (await peer.reply())[-1]
                assert last.startswith(reply)
                await peer.ask("RSET")


async def test_when_the_pool_is_gone_mail_is_refused_for_now() -> None:
    async with open_sink() as sink:
        async with trio_smtp.open_pool(sink.host, sink.port, **sink.client_options) as pool:
            handler = forward(pool)
        async with serving(make_server(handler)) as start:
            peer = start()
            await peer.hello()
            assert (await peer.ask("MAIL FROM:<me@x.test>")).startswith("451 4.4.1")


async def test_wrong_arguments() -> None:
    with pytest.raises(TypeError, match="Pool"):
        forward(None)  # type: ignore[arg-type]
    async with trio_smtp.open_pool("mail.test") as pool:
        with pytest.raises(ValueError, match="unknown"):
            forward(pool, unknown="lose")  # type: ignore[arg-type]
        assert repr(forward(pool)).startswith("<trio_smtp.forward through <trio_smtp.Pool mail.test")


async def test_a_pool_that_signs_cannot_relay() -> None:
    """Its messages would go out without their signature."""

    class Signer:
        def sign(self, message: bytes, /) -> bytes:
            return b"X: 1\r\n"

    async with trio_smtp.open_pool("mail.test", sign=Signer()) as pool:
        with pytest.raises(ValueError, match="cannot relay"):
            forward(pool)
