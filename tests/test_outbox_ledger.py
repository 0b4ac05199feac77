"""What a worker writes down: in groups, again where it fails, and within bounds once the worker is cancelled."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from trio_smtp.outbox import LeaseLostError, StoreError
from trio_smtp.outbox._ledger import Ledger
from trio_smtp.outbox._states import Fate, Record


def record(name):
    return Record(
        id=name, key=None, sender="", recipients={"b@y.test": Fate()}, size=0, created=0.0, expires=1e9
    )  # fmt: skip


def same(record, now):
    return record


class Store:
    """Takes changes, as long as nothing else is said of them."""

    def __init__(self):
        self.groups: list[list[str]] = []
        self.errors: dict[str, list[Exception]] = {}  # by the record's id, one for each time
        self.away: list[StoreError] = []
        self.seconds = 0.0  # of a commit

    async def change_all(self, changes):
        names = [record.id for record, _ in changes]
        self.groups.append(names)
        await trio.sleep(self.seconds)
        if self.away:
            raise self.away.pop()
        return [self.errors[record.id].pop() if self.errors.get(record.id) else record for record, _ in changes]


class Told:
    """Events, by name, with the record's id or the error's words."""

    def __init__(self):
        self.events: list[tuple[str, str]] = []

    def __call__(self, name, record=None, *, error=None):
        self.events.append((name, record.id if record is not None else str(error)))


@pytest.fixture
def store():
    return Store()


@pytest.fixture
def told():
    return Told()


@pytest.fixture
def ledger(store, told):
    return Ledger(store, told)


@pytest.fixture
def written():
    """What was written, by id; ``None`` instead for what was lost."""
    return []


def note(ledger, written, *names):
    for name in names:
        ledger.note(record(name), same, lambda after: written.append(after and after.id))


async def test_what_comes_while_others_are_written_goes_together(ledger, store, written, nursery, autojump_clock):
    store.seconds = 1.0
    nursery.start_soon(ledger.run)
    note(ledger, written, "a")
    await trio.sleep(0.5)
    note(ledger, written, "b", "c")
    assert written == []
    await trio.sleep(0.6)
    assert written == ["a"]
    await ledger.finish()
    assert written == ["a", "b", "c"]
    assert store.groups == [["a"], ["b", "c"]]


async def test_one_that_cannot_be_written_does_not_delay_the_others(
    ledger, store, told, written, nursery, autojump_clock
):
    store.errors["large"] = [StoreError("full")] * 3
    nursery.start_soon(ledger.run)
    note(ledger, written, "a", "large", "b")
    await trio.testing.wait_all_tasks_blocked()
    assert written == ["a", "b"]
    note(ledger, written, "c")
    await trio.testing.wait_all_tasks_blocked()
    assert written == ["a", "b", "c"]
    await ledger.finish()
    assert written == ["a", "b", "c", "large"]
    assert told.events == [("store", "full")] * 3


async def test_a_store_that_is_away_is_asked_again_with_longer_pauses(
    ledger, store, told, written, nursery, autojump_clock
):
    store.away = [StoreError("away")] * 8
    nursery.start_soon(ledger.run)
    note(ledger, written, "a")
    started = trio.current_time()
    await ledger.finish()
    assert written == ["a"]
    assert trio.current_time() - started == pytest.approx(0.1 + 0.2 + 0.4 + 0.8 + 1.6 + 3.2 + 5 + 5)
    assert told.events == [("store", "away")] * 8


async def test_what_others_write_does_not_shorten_the_pauses_of_one_that_fails(
    ledger, store, told, written, nursery, autojump_clock
):
    store.errors["large"] = [StoreError("full")] * 100
    nursery.start_soon(ledger.run)
    note(ledger, written, "large")
    for number in range(60):
        await trio.sleep(1)
        note(ledger, written, f"m{number}")
    events = len(told.events)
    store.errors.clear()
    await ledger.finish()
    assert len(written) == 61
    assert events < 20


@pytest.mark.parametrize("error", [LeaseLostError("another's"), LookupError("gone")])
async def test_what_is_another_s_by_now_is_told_of_and_over(error, ledger, store, told, written, nursery):
    store.errors["a"] = [error]
    nursery.start_soon(ledger.run)
    note(ledger, written, "a", "b")
    await ledger.finish()
    assert written == [None, "b"]
    assert told.events == [("lost", "a")]


async def test_when_cancelled_it_still_writes_what_is_noted_until_it_is_told_to_finish(
    ledger, store, written, autojump_clock
):
    store.seconds = 2.0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ledger.run)
        note(ledger, written, "a")
        await trio.sleep(1)  # in the middle of it
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await trio.sleep(60)  # others have their replies to wait for
            assert written == ["a"]
            note(ledger, written, "b")
            await ledger.finish()
    assert written == ["a", "b"]
    assert store.groups == [["a"], ["a"], ["b"]]  # it was not known what had become of the first


async def test_when_cancelled_it_gives_up_after_a_while(ledger, store, written, autojump_clock):
    store.errors["a"] = [StoreError("full")] * 1000
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ledger.run)
        note(ledger, written, "a")
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            started = trio.current_time()
            await ledger.finish()
    assert trio.current_time() - started == 5
    assert written == []


async def test_it_ends_within_that_time_too_if_it_was_to_finish_before_it_was_cancelled(
    ledger, store, written, autojump_clock
):
    store.errors["a"] = [StoreError("full")] * 1000
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ledger.run)
        note(ledger, written, "a")
        nursery.start_soon(ledger.finish)
        await trio.sleep(20)
        started = trio.current_time()
        nursery.cancel_scope.cancel()
    assert trio.current_time() - started == 5


async def test_a_bug_in_a_change_ends_it_and_nobody_waits(ledger, store, written):
    store.errors["a"] = [ZeroDivisionError()]

    async def work():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ledger.run)
            note(ledger, written, "a")
            with trio.CancelScope(shield=True):
                await ledger.finish()

    with pytest.raises(ExceptionGroup) as caught:
        await work()
    assert caught.value.subgroup(ZeroDivisionError) is not None
