"""The dialogue of the last try, which an entry keeps: enough to see what the server has said, and no more."""

from __future__ import annotations

import pytest
import trio
from outbox_stores import one_redis, store_url  # noqa: F401 - fixtures
from test_outbox import IMPATIENT, TEXT, A, B, C, opened, working

from trio_smtp import Stage
from trio_smtp.outbox import OutboxConfig, OutboxEvent, State, open_outbox
from trio_smtp.outbox._dialogue import Dialogue


async def test_an_entry_has_that_of_its_last_try(store_url):  # noqa: F811
    async with opened(store_url, tls="starttls", auth=("me", "password")) as (outbox, sink, pool):
        sink.refuse(Stage.RCPT, 451, "greylisted", "4.7.1", recipient=B, times=1)
        ticket = await outbox.put(A, [B, C], TEXT)
        async with working(outbox, pool):
            entry = await outbox.wait(ticket.id)
    assert entry.state is State.SENT
    begun, where, *said, ended, fate = entry.last_attempt
    assert "begun" in begun
    assert where.startswith(f"-- {sink.host}:{sink.port}, TLSv1.")
    assert [line for line in said if "RCPT" in line] == [f"C: RCPT TO:<{B}>"]  # C had it before
    assert said[-1].startswith("S: 250 ")
    assert "ended after" in ended
    assert fate.startswith(f"<{B}>: accepted: 250")
    words = "\n".join(entry.last_attempt)
    assert "hello" not in words
    assert "AUTH" not in words


async def test_what_a_server_refused_is_seen_word_by_word(store_url):  # noqa: F811
    async with opened(store_url) as (outbox, sink, pool), working(outbox, pool):
        sink.refuse(Stage.MAIL, 550, "your address\nis on a list", "5.7.1")
        ticket = await outbox.put(A, [B], TEXT)
        entry = await outbox.wait(ticket.id)
    assert entry.last_attempt[2].startswith(f"C: MAIL FROM:<{A}>")
    assert "S: 550 5.7.1 your address / is on a list" in entry.last_attempt


async def test_it_is_there_when_a_worker_died_after_the_mark(store_url):  # noqa: F811
    """What is in doubt is what a person looks at."""
    async with opened(store_url, OutboxConfig(lease=10), IMPATIENT) as (outbox, sink, pool):
        sink.stall(Stage.END, keep=True)
        ticket = await outbox.put(A, [B], TEXT)
        async with working(outbox, pool):
            await sink.wait_for(1)
            entry = await outbox.get(ticket.id)
            assert entry.state is State.SENDING
    begun, where, *said = entry.last_attempt
    assert "begun" in begun
    assert where.startswith("-- ")
    assert f"C: RCPT TO:<{B}>" in said
    assert said[-1].startswith(("S: 354 ", "S: 250 "))
    settled = (await outbox_of(store_url, ticket.id)).last_attempt
    assert settled[: len(entry.last_attempt)] == entry.last_attempt  # and none of it twice
    assert settled.count(where) == 1


async def outbox_of(url, entry_id):
    async with open_outbox(url) as outbox:
        return await outbox.get(entry_id)


async def test_one_that_was_not_reached_says_so(store_url):  # noqa: F811
    is_over = trio.Event()

    def look(event: OutboxEvent) -> None:
        if event.name == "settle":
            is_over.set()

    config = OutboxConfig(retry_delays=(3600,), trace=look)
    async with opened(store_url, config) as (outbox, sink, pool):
        sink.refuse(Stage.GREETING, 421, "too busy")
        ticket = await outbox.put(A, [B], TEXT)
        async with working(outbox, pool):
            await is_over.wait()
        entry = await outbox.get(ticket.id)
    assert "too busy" in entry.last_attempt[1]


@pytest.mark.parametrize("lines", [0, 1, 59, 60, 61, 5000])
def test_it_is_bounded(lines):
    dialogue = Dialogue()
    for number in range(lines):
        dialogue.take(f"C: {number}")
    kept = dialogue.lines()
    assert len(kept) == min(lines, 61)
    if lines:
        assert (kept[0], kept[-1]) == ("C: 0", f"C: {lines - 1}")
    if lines > 60:
        assert kept[30] == f"({lines - 60} lines left out)"


def test_so_is_a_line():
    dialogue = Dialogue()
    dialogue.take("S: 550 " + "x" * 100_000)
    assert len(dialogue.lines()[0]) < 310
