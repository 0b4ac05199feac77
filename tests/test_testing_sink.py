# trio_smtp.testing: the sink and other servers for tests, on loopback ports and through memory.
from __future__ import annotations

import smtplib
import subprocess
import sys
from dataclasses import replace
from email.message import EmailMessage

import pytest
import trio
from trio.testing import MockClock, assert_checkpoints, wait_all_tasks_blocked

import trio_smtp
from trio_smtp import ClientConfig, Delivery, PoolConfig, Reply, Stage
from trio_smtp.testing import Cut, FaultyStream, Split, make_certificates, open_server, open_sink

CONTENT = b"Subject: hi\r\n\r\n.hello\r\n"


def client_of(sink, **options):
    """A client through memory."""
    return trio_smtp.open_client("localhost", stream=sink.connect(), **{**sink.client_options, **options})


async def send(client, recipients=("b@y.test",), content=CONTENT):
    return await client.send("a@x.test", recipients, content)


# --- what it keeps ---


async def test_it_keeps_what_it_gets_on_a_free_port():
    async with open_sink() as sink:
        assert sink.host == "127.0.0.1"
        assert sink.port > 0
        async with trio_smtp.open_client(sink.host, sink.port, **sink.client_options) as client:
            first = await send(client, ["b@y.test", "c@y.test"])
            await send(client, content=b"second\r\n")
    one, two = sink.messages
    assert (one.sender, one.recipients, one.content) == ("a@x.test", ("b@y.test", "c@y.test"), CONTENT)
    assert (one.hello, one.identity, one.tls, one.peer and one.peer[0]) == ("client.test", None, None, "127.0.0.1")
    assert one.message["Subject"] == "hi"
    assert one.message.get_content() == ".hello\n"
    assert one.envelope.sender.size == len(CONTENT)
    assert first.reply.text == f"OK: queued as {one.queue_id}"
    assert two.content == b"second\r\n"
    assert sink.server.statistics().messages == 2


async def test_it_accepts_more_messages_than_there_are_numbers_below_a_reply_code():
    async with open_sink() as sink, client_of(sink) as client:
        for _ in range(101):
            await send(client)
    assert [message.queue_id for message in sink.messages[98:]] == ["99", "0100", "0101"]


async def test_two_at_a_time():
    async with open_sink() as first, open_sink() as second:
        assert first.port != second.port


async def test_through_memory(autojump_clock: MockClock):
    async with open_sink() as sink, client_of(sink) as client:
        await send(client)
        await trio.sleep(250)  # the clock jumps
        await send(client)
    assert [message.peer for message in sink.messages] == [None, None]


async def test_a_port_asked_for_is_had_or_an_error():
    async with open_sink() as sink:
        with pytest.raises(OSError, match="in use"):
            async with open_sink(port=sink.port):
                pass


async def test_waiting_for_messages(autojump_clock: MockClock):
    async with open_sink() as sink, trio.open_nursery() as nursery:
        waited: list[int] = []

        async def wait(count: int) -> None:
            waited.append(len(await sink.wait_for(count)))

        nursery.start_soon(wait, 1)
        nursery.start_soon(wait, 2)
        await wait_all_tasks_blocked()
        async with client_of(sink) as client:
            await send(client)
            await wait_all_tasks_blocked()
            assert waited == [1]
            await send(client)
        await wait_all_tasks_blocked()
        assert waited == [1, 2]
        with assert_checkpoints():
            assert len(await sink.wait_for()) == 2
        with trio.move_on_after(5) as scope:
            await sink.wait_for(3)
        assert scope.cancelled_caught
        sink.messages.clear()
        with trio.move_on_after(5) as scope:
            await sink.wait_for()
        assert scope.cancelled_caught


async def test_clients_that_others_wrote():
    async with open_sink() as sink:

        def use_smtplib() -> None:
            message = EmailMessage()
            message["From"], message["To"], message["Subject"] = "a@x.test", "b@y.test", "hello"
            message.set_content("hi\n")
            with smtplib.SMTP(sink.host, sink.port, timeout=20) as server:
                server.send_message(message)

        await trio.to_thread.run_sync(use_smtplib)
        [received] = await sink.wait_for()
    assert received.message["Subject"] == "hello"


async def test_a_pool():
    async with open_sink() as sink:
        async with (
            trio_smtp.open_pool(sink.host, sink.port, max_connections=3, **sink.client_options) as pool,
            trio.open_nursery() as nursery,
        ):
            for _ in range(20):
                nursery.start_soon(send, pool)
        assert len(sink.messages) == 20


async def test_leaving_the_block_ends_connections():
    async with open_sink() as sink:
        stream = sink.connect()
        await stream.receive_some()
        assert len(sink.server.sessions) == 1
    assert (await stream.receive_some()).startswith(b"421 4.3.2 ")
    assert await stream.receive_some() == b""
    with pytest.raises(OSError, match="connect"):
        await trio.open_tcp_stream(sink.host, sink.port)


async def test_an_error_of_the_block_comes_out_as_it_is():
    async def fail() -> None:
        async with open_sink() as sink:
            await sink.connect().receive_some()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()


async def test_cancelling_the_block(autojump_clock: MockClock):
    with trio.move_on_after(5) as scope:
        async with open_sink() as sink:
            stream = sink.connect()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert b"421 4.3.2 " in await stream.receive_some()


# --- TLS and logins ---


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
async def test_tls(tls):
    async with open_sink(tls=tls) as sink:
        assert sink.tls == tls
        async with client_of(sink) as client:
            assert client.tls is not None
            assert client.tls.verified
            await send(client)
        async with trio_smtp.open_client(sink.host, sink.port, **sink.client_options) as client:
            await send(client)
    assert [message.tls and message.tls.version for message in sink.messages] == ["TLSv1.3"] * 2


async def test_tls_that_the_client_does_not_trust():
    async with open_sink(tls="starttls") as sink:
        options = sink.client_options | {"ssl_context": make_certificates().client_context()}
        with pytest.raises(trio_smtp.TLSError, match="certificate"):
            async with trio_smtp.open_client(sink.host, sink.port, **options):
                pass
        with pytest.raises(trio_smtp.TLSError, match="not valid"):
            async with trio_smtp.open_client("elsewhere.test", stream=sink.connect(), **sink.client_options):
                pass


async def test_certificates_of_ones_own():
    certificates = make_certificates("mail.example.com")
    assert certificates.names == ("localhost", "127.0.0.1", "::1", "mail.example.com")
    assert certificates.authority_pem.startswith("-----BEGIN CERTIFICATE-----")
    assert "mail.example.com" in repr(certificates)
    async with open_sink(tls="implicit", certificates=certificates) as sink:
        assert sink.certificates is certificates
        async with trio_smtp.open_client("mail.example.com", stream=sink.connect(), **sink.client_options) as client:
            assert client.tls is not None
            assert client.tls.verified


@pytest.mark.parametrize("tls", ["none", "starttls"])
async def test_a_login(tls):
    async with open_sink(tls=tls, auth=("me", "secret")) as sink:
        async with client_of(sink) as client:
            await send(client)
        with pytest.raises(trio_smtp.AuthenticationError):
            async with client_of(sink, auth=("me", "wrong")):
                pass
        with pytest.raises(trio_smtp.AuthenticationError):
            async with client_of(sink, auth=("you", "secret")):
                pass
        async with client_of(sink, auth=None) as client:
            with pytest.raises(trio_smtp.SenderRefusedError):
                await send(client)
        sink.refuse("auth", 454, "later", "4.7.0")
        with pytest.raises(trio_smtp.AuthenticationError) as caught:
            async with client_of(sink):
                pass
        assert caught.value.reply == Reply(454, "later", "4.7.0")
    assert [message.identity for message in sink.messages] == ["me"]


@pytest.mark.parametrize(
    "auth", [{"me": "secret"}, ["me", "secret"], ("me",), ("me", None), ("me", "x", "y"), "me", ""]
)
async def test_a_login_that_is_none_is_an_error_at_once(auth):
    with pytest.raises(TypeError, match=r"^auth is a tuple of user name and password, 'any' or None, not "):
        async with open_sink(auth=auth):
            pass


# --- fault points ---


@pytest.mark.parametrize(
    ("stage", "error"),
    [
        ("greeting", trio_smtp.ConnectError),
        ("hello", trio_smtp.ConnectError),
        ("mail", trio_smtp.SenderRefusedError),
        ("rcpt", trio_smtp.RecipientsRefusedError),
        ("data", trio_smtp.MessageRefusedError),
        ("body", trio_smtp.MessageRefusedError),
        ("end", trio_smtp.MessageRefusedError),
    ],
)
@pytest.mark.parametrize("tls", ["none", "starttls"])
@pytest.mark.parametrize("chunking", [False, True])
async def test_a_refusal(stage, error, tls, chunking, autojump_clock: MockClock):
    config = ClientConfig(chunking=chunking)
    async with open_sink(tls=tls) as sink:
        times = 2 if stage == "hello" else 1  # after EHLO, a client tries HELO
        point = sink.refuse(stage, 450, "not now", "4.7.1", times=times)
        with pytest.raises(error) as caught:
            async with client_of(sink, config=config) as client:
                await send(client)
        reply = caught.value.reply or caught.value.refused["b@y.test"]
        assert (reply.code, reply.text, reply.enhanced) == (450, "not now", "4.7.1")
        assert (point.stage, point.count) == (Stage(stage), times)
        assert sink.messages == []
        async with client_of(sink, config=config) as client:
            await send(client)
        assert point.count == times
    assert len(sink.messages) == 1


async def test_a_refusal_for_one_address():
    async with open_sink() as sink, client_of(sink) as client:
        nobody = sink.refuse("rcpt", 550, "no such user", "5.1.1", address="nobody@y.test")
        sink.refuse("mail", address="spam@x.test")
        result = await send(client, ["b@y.test", "nobody@y.test"])
        assert result.accepted == ["b@y.test"]
        assert result.refused == {"nobody@y.test": Reply(550, "no such user", "5.1.1")}
        with pytest.raises(trio_smtp.SenderRefusedError):
            await client.send("spam@x.test", ["b@y.test"], CONTENT)
        assert nobody.count == 1
        sink.accept_all()
        assert (await send(client, ["nobody@y.test"])).refused == {}


async def test_lmtp_refuses_for_each_recipient():
    async with open_sink(config=trio_smtp.ServerConfig(lmtp=True)) as sink, client_of(sink) as client:
        sink.refuse("end", 452, "full", "4.2.2", address="c@y.test")
        result = await send(client, ["b@y.test", "c@y.test"])
        assert (result.accepted, list(result.refused)) == (["b@y.test"], ["c@y.test"])
        assert sink.messages[0].recipients == ("b@y.test",)
        with pytest.raises(trio_smtp.MessageRefusedError):
            await send(client, ["c@y.test"])
    assert len(sink.messages) == 1


@pytest.mark.parametrize("tls", ["none", "starttls", "implicit"])
@pytest.mark.parametrize("memory", [False, True])
@pytest.mark.parametrize(
    ("stage", "delivery"),
    [
        ("greeting", "not_sent"),
        ("hello", "not_sent"),
        ("mail", "not_sent"),
        ("rcpt", "not_sent"),
        ("data", "not_sent"),
        ("body", "unknown"),
        ("end", "unknown"),
    ],
)
async def test_a_cut(stage, delivery, memory, tls):
    async with open_sink(tls=tls) as sink:
        options = sink.client_options | {"config": ClientConfig(chunking=False)}
        point = sink.cut(stage)
        client_of = trio_smtp.open_client("localhost", sink.port, stream=sink.connect() if memory else None, **options)
        # Before the greeting is, with implicit TLS, before the handshake.
        error = trio_smtp.TLSError if (stage, tls) == ("greeting", "implicit") else trio_smtp.ConnectionLostError
        with pytest.raises(error) as caught:
            async with client_of as client:
                await send(client)
        assert caught.value.delivery == delivery
        assert point.count == 1
        assert sink.messages == []
        with trio.fail_after(20):
            while sink.server.sessions:  # it takes a few turns
                await trio.lowlevel.checkpoint()


async def test_a_cut_after_the_message_was_kept():
    async with open_sink() as sink:
        sink.cut("end", keep=True, times=1)
        config = PoolConfig(on_unknown="retry", retry_delay=0.01)
        async with trio_smtp.open_pool(sink.host, sink.port, config=config, **sink.client_options) as pool:
            result = await send(pool)
        assert result.maybe_duplicate
    assert len(sink.messages) == 2


@pytest.mark.parametrize(
    ("stage", "limit"),
    [
        ("greeting", "greeting_timeout"),
        ("hello", "command_timeout"),
        ("mail", "command_timeout"),
        ("end", "end_timeout"),
    ],
)
async def test_a_stall_is_for_the_client_to_end(stage, limit, autojump_clock: MockClock):
    async with open_sink() as sink:
        point = sink.stall(stage)
        start = trio.current_time()
        with pytest.raises(trio_smtp.SMTPTimeoutError):
            async with client_of(sink, config=replace(ClientConfig(), **{limit: 77})) as client:  # type: ignore[arg-type]
                await send(client)
        assert trio.current_time() - start >= 77
        assert point.count == 1
    assert sink.messages == []


async def test_a_stall_that_passes(autojump_clock: MockClock):
    async with open_sink() as sink, client_of(sink) as client:
        sink.stall("rcpt", 100, times=1)
        sink.stall("end", 100, keep=True)
        with trio.move_on_after(150):
            await send(client)
        assert len(sink.messages) == 1
        assert trio.current_time() >= 150


async def test_an_unknown_outcome_with_a_stall(autojump_clock: MockClock):
    async with open_sink() as sink:
        sink.stall("end", keep=True)
        with pytest.raises(trio_smtp.SMTPTimeoutError) as caught:
            async with client_of(sink) as client:
                await send(client)
        assert caught.value.delivery == Delivery.UNKNOWN
    assert len(sink.messages) == 1


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda sink: sink.refuse("starttls"), "can do nothing special at stage 'starttls'"),
        (lambda sink: sink.refuse("later"), "can do nothing special at stage 'later'"),
        (lambda sink: sink.refuse("mail", 250), "a refusal is a 4xx or 5xx reply"),
        (lambda sink: sink.refuse("hello", address="a@x.test"), "no address at 'hello'"),
        (lambda sink: sink.refuse("end", address="a@x.test"), "only LMTP"),
        (lambda sink: sink.refuse("auth"), "without auth"),
        (lambda sink: sink.cut("data", keep=True), "no message to keep at 'data'"),
        (lambda sink: sink.cut("data", times=0), "times is at least 1"),
        (lambda sink: sink.stall("data", -1), "seconds is a time"),
        (lambda sink: sink.stall("data", float("nan")), "seconds is a time"),
    ],
)
async def test_points_that_could_never_be_met(make, words):
    async with open_sink() as sink:
        with pytest.raises(ValueError, match=words):
            make(sink)


async def test_what_it_cannot_be_opened_with():
    with pytest.raises(ValueError, match="tls is 'none', 'starttls' or 'implicit'"):
        async with open_sink(tls="yes"):  # type: ignore[arg-type]
            pass
    with pytest.raises(ValueError, match="of no use without TLS"):
        async with open_sink(certificates=make_certificates()):
            pass


async def test_streams_can_be_wrapped():
    streams = []

    def wrap(stream):
        streams.append(FaultyStream(stream, receive=Split(3), send=[Split(1), Cut(after=b"354 ")]))
        return streams[-1]

    async with open_sink(wrap=wrap) as sink:
        options = sink.client_options | {"config": ClientConfig(chunking=False)}
        for stream in (None, sink.connect()):
            with pytest.raises(trio_smtp.ConnectionLostError):
                async with trio_smtp.open_client(sink.host, sink.port, stream=stream, **options) as client:
                    await send(client)
    assert len(streams) == 2


# --- handlers of ones own ---


class Picky(trio_smtp.Handler):
    def __init__(self):
        self.sizes = []

    async def on_rcpt(self, session, recipient):
        if recipient.domain != "y.test":
            raise trio_smtp.Reject(550, "relaying denied", "5.7.1")

    async def on_data(self, session, envelope, body):
        self.sizes.append(len(await body.read()))


@pytest.mark.parametrize("tls", ["none", "starttls", "implicit"])
async def test_a_handler_of_ones_own(tls):
    handler = Picky()
    async with open_server(handler, tls=tls, config=trio_smtp.ServerConfig(max_messages=1)) as server:
        async with client_of(server) as client:
            with pytest.raises(trio_smtp.RecipientsRefusedError):
                await send(client, ["b@elsewhere.test"])
        async with trio_smtp.open_client(server.host, server.port, **server.client_options) as client:
            await send(client)
    assert handler.sizes == [len(CONTENT)]


async def test_a_handler_that_is_none():
    with pytest.raises(TypeError):
        async with open_server(type("Wrong", (), {"on_date": None})()):
            pass


# --- what it needs ---


def test_nothing_but_trio_is_needed():
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('trustme', 'pytest', 'pytest_trio', 'click', 'cryptography')));"
        "import trio, trio_smtp, trio_smtp.testing as t\n"
        "async def main():\n"
        "    async with t.open_sink() as sink:\n"
        "        async with trio_smtp.open_client(sink.host, sink.port, **sink.client_options) as client:\n"
        "            await client.send('a@x.test', ['b@y.test'], b'x')\n"
        "    assert len(sink.messages) == 1\n"
        "    try:\n"
        "        t.make_certificates()\n"
        "    except ModuleNotFoundError as exc:\n"
        "        print(exc)\n"
        "trio.run(main)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "a certificate for tests needs trustme; install it with: pip install 'trio-smtp[testing]'\n"


def test_the_library_does_not_load_it():
    code = "import sys, trio_smtp; assert 'trio_smtp.testing' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], timeout=60, check=True)


async def test_it_takes_more_than_a_hundred_messages() -> None:
    """The number of the 100th message looks like a reply, which is no answer of a handler's."""
    async with open_sink() as sink, trio_smtp.open_client(sink.host, sink.port, **sink.client_options) as client:
        for _ in range(101):
            result = await client.send("a@x.test", ["b@y.test"], b"x\r\n")
    assert len(sink.messages) == 101
    assert result.reply.text == "OK: queued as 0101"


# --- patterns, shares, rates, addresses that ask for faults ---


async def refusals(sink, recipients, sender="a@x.test"):
    """The codes that each recipient gets, by itself."""
    codes = []
    async with client_of(sink) as client:
        for recipient in recipients:
            try:
                await client.send(sender, [recipient], CONTENT)
                codes.append(250)
            except trio_smtp.SMTPError as exc:
                reply = exc.reply or exc.refused.get(recipient)
                codes.append(0 if reply is None else reply.code)
    return codes


async def test_a_pattern_of_recipients_or_senders():
    async with open_sink() as sink:
        sink.refuse("rcpt", 450, recipient="*@Slow.test")
        sink.refuse("end", 554, recipient="spam@*")
        sink.refuse("mail", 451, sender="bulk-*@x.test")
        sink.refuse("data", 552, sender="big@*")
        assert await refusals(sink, ["b@slow.test", "B@SLOW.TEST", "spam@y.test", "b@y.test"]) == [450, 450, 554, 250]
        assert await refusals(sink, ["b@y.test"], sender="bulk-1@x.test") == [451]
        assert await refusals(sink, ["b@y.test"], sender="big@x.test") == [552]
        sink.accept_all()
        sink.refuse("rcpt", 450, recipient="b@[192.0.2.1]")
        assert await refusals(sink, ["b@[192.0.2.1]", "b@[192.0.2.2]"]) == [450, 250]


async def test_a_share_at_random_can_be_had_again():
    async def run(seed):
        async with open_sink() as sink:
            point = sink.refuse("rcpt", 450, share=0.5, seed=seed)
            codes = await refusals(sink, [f"b{n}@y.test" for n in range(40)])
            assert point.count == codes.count(450)
            return codes

    first = await run(1)
    assert 5 < first.count(450) < 35
    assert await run(1) == first
    assert await run(2) != first


async def test_a_rate_limit(autojump_clock: MockClock):
    async with open_sink() as sink:
        sink.refuse("mail", 451, "slow down", "4.7.0", rate=(2, 60))
        assert await refusals(sink, ["b@y.test"] * 4) == [250, 250, 451, 451]
        await trio.sleep(61)
        assert await refusals(sink, ["b@y.test"] * 3) == [250, 250, 451]


@pytest.mark.parametrize(
    "bad",
    [
        {"stage": "hello", "sender": "*"},
        {"stage": "mail", "recipient": "*"},
        {"stage": "rcpt", "share": 1.1},
        {"stage": "rcpt", "share": -0.1},
        {"stage": "rcpt", "rate": (-1, 60)},
        {"stage": "rcpt", "rate": (100_001, 60)},
        {"stage": "rcpt", "rate": (1, 0)},
    ],
)
async def test_patterns_shares_and_rates_that_make_no_sense(bad):
    async with open_sink() as sink:
        with pytest.raises(ValueError, match=r"there is no|share|rate"):
            sink.refuse(**bad)
        assert sink.points == []


@pytest.mark.parametrize(
    ("recipient", "code"),
    [
        ("450-rcpt@y.test", 450),
        ("550-RCPT+anything@y.test", 550),
        ("452-data@y.test", 452),
        ("554-body.x@y.test", 554),
        ("451-end@y.test", 451),
        ("450-mail@y.test", 250),  # the sender's stage
        ("450@y.test", 250),
        ("650-rcpt@y.test", 250),
    ],
)
async def test_an_address_asks_for_a_fault(recipient, code):
    async with open_sink(address_faults=True) as sink:
        assert await refusals(sink, [recipient]) == [code]
        assert await refusals(sink, ["b@y.test"]) == [250]
    async with open_sink() as sink:
        assert await refusals(sink, [recipient]) == [250]


async def test_a_sender_asks_for_a_fault():
    async with open_sink(address_faults=True) as sink:
        assert await refusals(sink, ["b@y.test"], sender="451-mail@x.test") == [451]
        assert await refusals(sink, ["b@y.test"], sender="452-end@x.test") == [452]
        assert await refusals(sink, ["cut-data@y.test"]) == [0]
        assert await refusals(sink, ["421-rcpt@y.test"]) == [421]


async def test_an_address_asks_for_a_stall(autojump_clock: MockClock):
    async with open_sink(address_faults=True) as sink:
        begin = trio.current_time()
        assert await refusals(sink, ["stall20-end@y.test"]) == [250]
        assert 20 <= trio.current_time() - begin < 21
        with trio.move_on_after(100) as scope:
            await refusals(sink, ["stall-rcpt@y.test"])
        assert scope.cancelled_caught


# --- kept elsewhere; any login ---


async def test_messages_are_kept_elsewhere():
    kept = []

    async def keep(session, message):
        await trio.lowlevel.checkpoint()
        kept.append((session.hello, message.content))
        return f"box-{len(kept)}"

    async with open_sink(keep=keep) as sink, client_of(sink) as client:
        result = await send(client)
        assert result.reply.text == "OK: queued as box-1"
        sink.cut("end", keep=True)
        with pytest.raises(trio_smtp.ConnectionLostError):
            await send(client)
    assert kept == [("client.test", CONTENT)] * 2
    assert sink.messages == []


async def test_any_login():
    async with open_sink(auth="any") as sink:
        async with client_of(sink, auth=("me", "anything"), allow_insecure_auth=True) as client:
            await send(client)
        async with client_of(sink) as client:
            await send(client)
        sink.refuse("auth", 454)
        with pytest.raises(trio_smtp.AuthenticationError):
            async with client_of(sink, auth=("me", "anything"), allow_insecure_auth=True):
                pass
    assert [message.identity for message in sink.messages] == ["me", None]
