"""One entry that cannot be changed, or taken, among others that can: it costs itself only."""

from __future__ import annotations

import trio
from outbox_damage import damage
from outbox_stores import one_redis, store_url  # noqa: F401 - fixtures
from test_outbox import TEXT, A, B

import trio_smtp
from trio_smtp.outbox import OutboxConfig, State, StoreError, open_outbox
from trio_smtp.outbox._records import new_record
from trio_smtp.outbox._states import Outcome, Record, Turn, begin, mark, settle


def claim(record, now):
    return begin(record, now, "w")


class Companions:
    """Messages that come into the outbox by a change, or, negative, an error instead."""

    def __init__(self, number):
        self._number = number
        self.made: list = []

    def __call__(self, content):
        if self._number < 0:
            raise MemoryError
        message = trio_smtp.prepare_message("", [A], TEXT)
        self.made = [new_record(message, 1.0, due=1.0, patience=1e12) for _ in range(self._number)]
        return [(each, TEXT) for each in self.made]


def end(record, now):
    return settle(record, 1, {B: Outcome(Turn.ACCEPT)}, now)


async def three_taken(outbox):
    for _ in range(3):
        await outbox.put(A, [B], TEXT)
    return [record for record, _ in await outbox._store.take("w", 3, claim)]


async def test_one_that_was_changed_and_damaged_meanwhile_fails_no_other_of_its_group(store_url):  # noqa: F811
    async with open_outbox(store_url) as outbox:
        taken = await three_taken(outbox)
        for record in taken:
            await outbox._store.change(record, lambda record, now: mark(record, 1))
        await damage(store_url, taken[1].id, "no JSON")
        answers = await outbox._store.change_all([(record, end) for record in taken])
        assert [type(answer) for answer in answers] == [Record, StoreError, Record]
        assert (await outbox.get(taken[2].id)).state is State.SENT


async def test_one_whose_reports_cannot_be_made_fails_no_other_of_its_group(store_url):  # noqa: F811
    async with open_outbox(store_url) as outbox:
        taken = await three_taken(outbox)

        def wrong(record, now):
            return end(record, now)._replace(companions=Companions(-1))

        answers = await outbox._store.change_all([(taken[0], end), (taken[1], wrong), (taken[2], end)])
        assert [type(answer) for answer in answers] == [Record, StoreError, Record]
        assert [(await outbox.get(record.id)).state for record in taken] == ["sent", "sending", "sent"]


async def test_any_number_of_messages_may_come_by_one_change(store_url):  # noqa: F811
    async with open_outbox(store_url) as outbox:
        taken = await three_taken(outbox)

        def many(record, now):
            return end(record, now)._replace(companions=Companions(2100))

        answers = await outbox._store.change_all([(taken[0], end), (taken[1], many), (taken[2], end)])
        assert [isinstance(answer, Record) and answer.state for answer in answers] == ["sent"] * 3
        assert (await outbox.statistics()).queued == 2100


async def test_one_that_cannot_be_taken_keeps_no_other_from_it(store_url):  # noqa: F811
    async with open_outbox(store_url, config=OutboxConfig(lease=0.2)) as outbox:
        tickets = [await outbox.put(A, [B], TEXT) for _ in range(3)]
        wrong = [tickets[0].id]

        def expire(record, now):
            companions = Companions(-1 if record.id in wrong else 0)
            return begin(record._replace(expires=now), now, "w")._replace(companions=companions)

        taken: list[str] = []
        errors: list[str] = []

        async def take_until(number):
            with trio.fail_after(10):
                while len(taken) < number:
                    try:
                        taken.extend([record.id for record, _ in await outbox._store.take("w", 1, expire)])
                    except StoreError as exc:
                        errors.append(str(exc))
                    await trio.sleep(0.02)  # of the store's clock: the lease

        await take_until(2)
        assert taken == [tickets[1].id, tickets[2].id]
        assert f"entry {tickets[0].id}" in errors[0]
        assert (await outbox.get(tickets[0].id)).state is State.QUEUED
        wrong.clear()
        await take_until(3)
        assert [(await outbox.get(ticket.id)).state for ticket in tickets] == ["expired"] * 3
