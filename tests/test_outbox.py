"""The outbox as its users see it, on both stores: what goes in, what comes out, and what a worker makes of it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage

import pytest
import trio
from outbox_stores import one_redis, store_url  # noqa: F401 - fixtures

import trio_smtp
from trio_smtp import Stage
from trio_smtp.outbox import Entry, OutboxConfig, OutboxStatistics, State, StoreError, Ticket, open_outbox
from trio_smtp.testing import open_sink

TEXT = b"Subject: hi\r\n\r\nhello\r\n"
A, B, C = "a@x.test", "b@y.test", "c@z.test"
FAST = OutboxConfig(retry_delays=(0.05,), lease=10)
IMPATIENT = trio_smtp.ClientConfig(end_grace=0.05)  # when a worker is ended that waits for the reply to a message


@asynccontextmanager
async def opened(url, config=FAST, client_config=None, **sink_options):
    """An outbox, a sink, and a pool to it."""
    async with (
        open_sink(**sink_options) as sink,
        open_outbox(url, config=config) as outbox,
        trio_smtp.open_pool(
            sink.host,
            sink.port,
            config=trio_smtp.PoolConfig(connect_retries=0),
            client_config=client_config,
            max_connections=3,
            **sink.client_options,
        ) as pool,
    ):
        yield outbox, sink, pool


@asynccontextmanager
async def working(outbox, pool, **options):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: outbox.work(pool, **options))
        with trio.fail_after(20):
            yield
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()


# --- the five lines ---


async def test_what_is_put_is_sent_once(store_url):  # noqa: F811
    async with opened(store_url) as (outbox, sink, pool):
        ticket = await outbox.put(A, [B, C], TEXT, key="order-4711")
        assert isinstance(ticket, Ticket)
        assert ticket.is_new
        queued = await outbox.get(ticket.id)
        assert queued.state is State.QUEUED
        assert queued.recipients[B].next_attempt is not None
        async with working(outbox, pool):
            entry = await outbox.wait(ticket.id)
        (message,) = sink.messages
        assert (message.sender, message.recipients, message.content) == (A, (B, C), TEXT)
        assert isinstance(entry, Entry)
        assert (entry.id, entry.key, entry.state, entry.sender) == (ticket.id, "order-4711", "sent", A)
        assert entry.size == len(TEXT)
        assert entry.settled is not None
        assert entry.created <= entry.settled <= datetime.now(UTC) + timedelta(seconds=5)
        for address in (B, C):
            recipient = entry.recipients[address]
            assert (recipient.state, recipient.attempts, recipient.next_attempt) == (State.SENT, 1, None)
            assert recipient.reply is not None
            assert recipient.reply.code == 250
        assert await outbox.get(ticket.id) == entry
        assert await outbox.statistics() == OutboxStatistics(sent=1)
        assert "begun" in entry.last_attempt[0]
        assert any("accepted: 250" in line for line in entry.last_attempt)


async def test_it_outlives_the_process(store_url):  # noqa: F811
    async with open_outbox(store_url) as outbox:
        ticket = await outbox.put(A, [B], TEXT)
    async with opened(store_url) as (outbox, sink, pool), working(outbox, pool):
        assert (await outbox.wait(ticket.id)).state is State.SENT
    assert len(sink.messages) == 1


async def test_a_message_object_names_its_envelope_and_keeps_its_bcc_to_itself(store_url):  # noqa: F811
    message = EmailMessage()
    message["From"], message["To"], message["Bcc"], message["Subject"] = A, B, C, "grüße"
    message.set_content("schöne Grüße")
    async with opened(store_url) as (outbox, sink, pool), working(outbox, pool):
        ticket = await outbox.put_message(message, key="k")
        await outbox.wait(ticket.id)
    (received,) = sink.messages
    assert (received.sender, received.recipients) == (A, (B, C))
    assert b"Bcc" not in received.content
    assert received.content.isascii()  # any server can take it
    assert received.message["Subject"] == "grüße"
    assert received.message.get_content() == "schöne Grüße\n"


@pytest.mark.parametrize("kind", ["str", "bytearray", "path", "stream"])
async def test_every_kind_of_content(kind, tmp_path):
    async def stream():
        yield TEXT[:5]
        yield TEXT[5:]

    (tmp_path / "m").write_bytes(TEXT)
    content = {"str": TEXT.decode(), "bytearray": bytearray(TEXT), "path": tmp_path / "m", "stream": stream()}[kind]
    async with opened(f"sqlite:{tmp_path}/o.db") as (outbox, sink, pool), working(outbox, pool):
        ticket = await outbox.put(A, [B], content)
        await outbox.wait(ticket.id)
    assert sink.messages[0].content == TEXT


# --- put ---


async def test_a_known_key_gives_the_old_ticket(store_url):  # noqa: F811
    async with open_outbox(store_url) as one, open_outbox(store_url) as other:
        first = await one.put(A, [B], TEXT, key="k")
        again = await other.put(A, [C], b"other", key="k")
        assert (again.id, again.is_new) == (first.id, False)
        assert (await one.statistics()).queued == 1
        tickets = []

        async def put(outbox):
            tickets.append(await outbox.put(A, [B], TEXT, key="at once"))

        async with trio.open_nursery() as nursery:
            for outbox in (one, other) * 5:
                nursery.start_soon(put, outbox)
        assert len({ticket.id for ticket in tickets}) == 1
        assert sum(ticket.is_new for ticket in tickets) == 1


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        ((A, ["b\r\n@y"], TEXT), {}, trio_smtp.LocalProtocolError),
        (("a\n@x", [B], TEXT), {}, trio_smtp.LocalProtocolError),
        ((A, [], TEXT), {}, trio_smtp.LocalProtocolError),
        ((A, B, TEXT), {}, TypeError),
        ((A, [B], 5), {}, TypeError),
        ((A, [B], b"x" * 101), {}, trio_smtp.MessageTooLargeError),
        ((A, [B], TEXT), {"not_before": datetime(2030, 1, 1)}, ValueError),
        ((A, [B], TEXT), {"give_up_after": -1}, ValueError),
        ((A, [B], TEXT), {"give_up_after": "1"}, TypeError),
        ((A, [B], TEXT), {"priority": 2**31}, ValueError),
        ((A, [B], TEXT), {"priority": 1.5}, TypeError),
        ((A, [B], TEXT), {"key": 5}, TypeError),
        ((A, [B], TEXT), {"mail_params": {"X Y": "1"}}, trio_smtp.LocalProtocolError),
        ((A, [B], TEXT), {"rcpt_params": {C: {"NOTIFY": "NEVER"}}}, trio_smtp.LocalProtocolError),
    ],
)
async def test_what_cannot_be_sent_is_not_taken(arguments, options, error, tmp_path):
    async with open_outbox(f"sqlite:{tmp_path}/o.db", config=OutboxConfig(max_size=100)) as outbox:
        with pytest.raises(error):
            await outbox.put(*arguments, **options)
        assert await outbox.statistics() == OutboxStatistics()


async def test_a_file_and_a_stream_that_are_too_large_are_not_read_to_their_end(tmp_path):
    async def endless():
        while True:
            yield b"x" * 60

    (tmp_path / "large").write_bytes(b"x" * 101)
    async with open_outbox(f"sqlite:{tmp_path}/o.db", config=OutboxConfig(max_size=100)) as outbox:
        for content in (endless(), tmp_path / "large"):
            with pytest.raises(trio_smtp.MessageTooLargeError) as caught:
                await outbox.put(A, [B], content)
            assert caught.value.delivery == "not_sent"
        with pytest.raises(FileNotFoundError):
            await outbox.put(A, [B], tmp_path / "none")


# --- what becomes of it ---


async def test_each_recipient_has_its_own_fate(store_url):  # noqa: F811
    async with opened(store_url) as (outbox, sink, pool), working(outbox, pool):
        sink.refuse(Stage.RCPT, 550, "no such user", "5.1.1", address=B)
        sink.refuse(Stage.RCPT, 450, "later", "4.2.1", address=C, times=2)
        ticket = await outbox.put(A, [A, B, C], TEXT)
        entry = await outbox.wait(ticket.id)
    assert entry.state is State.REFUSED
    states = {address: (recipient.state, recipient.attempts) for address, recipient in entry.recipients.items()}
    assert states == {A: ("sent", 1), B: ("refused", 1), C: ("sent", 3)}
    assert str(entry.recipients[B].reply) == "550 5.1.1 no such user"
    assert [message.recipients for message in sink.messages] == [(A,), (C,)]


async def test_what_stays_refused_for_now_expires(store_url):  # noqa: F811
    async with opened(store_url) as (outbox, sink, pool), working(outbox, pool):
        sink.refuse(Stage.MAIL, 451, "not now", "4.3.2")
        ticket = await outbox.put(A, [B], TEXT, give_up_after=1.0)
        entry = await outbox.wait(ticket.id)
    assert entry.state is State.EXPIRED
    assert entry.recipients[B].attempts >= 1
    assert entry.recipients[B].reply.code == 451
    assert not sink.messages


async def test_what_was_never_tried_expires_too(store_url):  # noqa: F811
    async with opened(store_url) as (outbox, sink, pool):
        ticket = await outbox.put(A, [B], TEXT, give_up_after=0)
        async with working(outbox, pool):
            entry = await outbox.wait(ticket.id)
    assert (entry.state, entry.recipients[B].attempts, sink.messages) == ("expired", 0, [])


async def test_connections_that_fail_count_as_attempts(store_url):  # noqa: F811
    async with open_outbox(store_url, config=FAST) as outbox:
        ticket = await outbox.put(A, [B], TEXT)
        pool_config = trio_smtp.PoolConfig(connect_retries=0)
        async with trio_smtp.open_pool("127.0.0.1", 1, config=pool_config, tls="none") as pool, working(outbox, pool):
            while (await outbox.get(ticket.id)).recipients[B].attempts < 3:
                await trio.sleep(0.01)  # of the store's clock
        recipient = (await outbox.get(ticket.id)).recipients[B]
    assert (recipient.state, recipient.reply) == (State.QUEUED, None)
    assert "127.0.0.1" in recipient.error


async def test_a_lost_reply_is_held_in_doubt_until_somebody_decides(store_url):  # noqa: F811
    async with opened(store_url) as (outbox, sink, pool), working(outbox, pool):
        sink.cut(Stage.END, keep=True, times=1)
        ticket = await outbox.put(A, [B, C], TEXT)
        entry = await outbox.wait(ticket.id)
        assert entry.state is State.IN_DOUBT
        assert entry.settled is None
        assert (await outbox.statistics()).in_doubt == 1
        after = await outbox.resolve(ticket.id, "sent", recipients=[B])
        assert (after.recipients[B].state, after.recipients[C].state) == ("sent", "in_doubt")
        await outbox.resolve(ticket.id, "retry")
        entry = await outbox.wait(ticket.id)
    assert entry.state is State.SENT
    assert [message.recipients for message in sink.messages] == [(B, C), (C,)]


async def test_on_doubt_retry_sends_it_again(store_url):  # noqa: F811
    config = OutboxConfig(retry_delays=(0.05,), lease=10, on_doubt="retry")
    async with opened(store_url, config) as (outbox, sink, pool), working(outbox, pool):
        sink.cut(Stage.END, keep=True, times=1)
        ticket = await outbox.put(A, [B], TEXT)
        entry = await outbox.wait(ticket.id)
    assert (entry.state, entry.recipients[B].attempts, len(sink.messages)) == ("sent", 2, 2)


async def test_what_the_server_cannot_carry_is_refused(store_url):  # noqa: F811
    config = trio_smtp.ServerConfig(disabled_extensions=("8BITMIME",))
    async with opened(store_url, config=FAST) as (outbox, sink, pool):
        del sink, pool
        async with (
            trio.open_nursery() as nursery,
        ):
            listeners = await nursery.start(
                lambda task_status: trio_smtp.serve(
                    trio_smtp.Discard(), 0, host="127.0.0.1", config=config, task_status=task_status
                )
            )
            port = listeners[0].socket.getsockname()[1]
            async with trio_smtp.open_pool("127.0.0.1", port, tls="none") as pool, working(outbox, pool):
                ticket = await outbox.put(A, [B], b"Subject: x\r\n\r\n\xff\r\n")
                entry = await outbox.wait(ticket.id)
            nursery.cancel_scope.cancel()
    assert entry.state is State.REFUSED
    assert "8BITMIME" in entry.recipients[B].error


# --- order and time ---


async def test_higher_priorities_go_first_and_first_come_first_served_within_one(store_url):  # noqa: F811
    async with opened(store_url) as (outbox, sink, pool):
        for number, priority in enumerate([0, 5, 0, -1, 5]):
            await outbox.put(A, [f"r{number}@y.test"], TEXT, priority=priority)
        async with working(outbox, pool, concurrency=1):
            await sink.wait_for(5)
    assert [message.recipients[0][:2] for message in sink.messages] == ["r1", "r4", "r0", "r2", "r3"]


async def test_not_before(store_url):  # noqa: F811
    async with opened(store_url) as (outbox, sink, pool):
        at = datetime.now(UTC) + timedelta(seconds=0.5)
        ticket = await outbox.put(A, [B], TEXT, not_before=at)
        assert abs((await outbox.get(ticket.id)).recipients[B].next_attempt - at) < timedelta(milliseconds=2)
        async with working(outbox, pool):
            await outbox.put(A, [C], TEXT)
            entry = await outbox.wait(ticket.id)
    assert entry.settled >= at
    assert [message.recipients for message in sink.messages] == [(C,), (B,)]


async def test_settled_entries_and_their_keys_are_forgotten(store_url):  # noqa: F811
    config = OutboxConfig(keep_done=2)
    async with opened(store_url, config) as (outbox, _, pool), working(outbox, pool):
        ticket = await outbox.put(A, [B], TEXT, key="k")
        assert (await outbox.wait(ticket.id)).state is State.SENT
        assert not (await outbox.put(A, [B], TEXT, key="k")).is_new
        await trio.sleep(2.05)  # of the store's clock, which is the system's
        for ask in (outbox.get, outbox.wait, lambda each: outbox.resolve(each, "sent")):
            with pytest.raises(LookupError):
                await ask(ticket.id)
        again = await outbox.put(A, [B], TEXT, key="k")
        assert again.is_new
        assert again.id != ticket.id
        await outbox.wait(again.id)
        assert (await outbox.statistics()).sent == 1


# --- looking, deciding ---


async def test_entries_in_order_and_by_state(store_url):  # noqa: F811
    async with open_outbox(store_url) as outbox:
        tickets = [await outbox.put(A, [B], TEXT, priority=number % 3) for number in range(130)]  # more than a page
        async with outbox.entries() as entries:
            assert [entry.id async for entry in entries] == [ticket.id for ticket in tickets]
        await outbox.resolve(tickets[3].id, "discard")
        async with outbox.entries("discarded") as entries:
            assert [entry.id async for entry in entries] == [tickets[3].id]
        async with outbox.entries(State.QUEUED) as entries:
            async for _ in entries:
                break  # leaving early ends the reading
        assert await outbox.statistics() == OutboxStatistics(queued=129, discarded=1)
        with pytest.raises(ValueError, match="nonsense"):
            outbox.entries("nonsense")


async def test_what_is_unknown_is_a_lookup_error(store_url):  # noqa: F811
    async with open_outbox(store_url) as outbox:
        ticket = await outbox.put(A, [B], TEXT)
        for ask in (outbox.get("x"), outbox.wait("x"), outbox.resolve("x", "sent")):
            with pytest.raises(LookupError):
                await ask
        with pytest.raises(LookupError):
            await outbox.resolve(ticket.id, "discard", recipients=[C])
        with pytest.raises(ValueError, match="'sent', 'retry' or 'discard'"):
            await outbox.resolve(ticket.id, "forget")  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            await outbox.resolve(ticket.id, "sent", recipients=B)
        assert (await outbox.resolve(ticket.id, "sent")).state is State.QUEUED  # it is not in doubt
        assert (await outbox.resolve(ticket.id, "discard")).state is State.DISCARDED


# --- opening ---


@pytest.mark.parametrize("url", ["", "outbox.db", "mysql:x", "sqlite:", "postgres://x/y"])
async def test_an_address_that_names_no_store(url):
    with pytest.raises(ValueError, match="sqlite:FILE"):
        async with open_outbox(url):
            pass


@pytest.mark.parametrize("url", ["sqlite:/nonexistent/x.db", "unix:///nonexistent/x.sock?db=0"])
async def test_a_store_that_cannot_be_reached(url):
    if url.startswith("unix"):
        pytest.importorskip("coredis")
    with pytest.raises(StoreError) as caught:
        async with open_outbox(url):
            pass
    assert isinstance(caught.value, trio_smtp.SMTPError)
    assert isinstance(caught.value, OSError)


async def test_the_body_s_exception_comes_out_bare_and_a_closed_outbox_says_so(store_url):  # noqa: F811
    with pytest.raises(KeyError):
        async with open_outbox(store_url) as outbox:
            raise KeyError
    with pytest.raises(StoreError):
        await outbox.put(A, [B], TEXT)
    with trio.move_on_after(0.2) as scope:
        async with open_outbox(store_url) as outbox:
            assert store_url.partition(":")[0] in repr(outbox).lower() or "/" in repr(outbox)
            await trio.sleep_forever()
    assert scope.cancelled_caught


def test_statistics_have_a_number_for_each_state():
    assert set(OutboxStatistics.__dataclass_fields__) == {state.value for state in State}
