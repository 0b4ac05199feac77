"""Both stores against a model: whatever workers, a person and a report do at once, a store holds what the changes said.

Each operation is a function of _states.py, so what is compared is what the store makes of it: every change is made of
the record that the change before it has left, none is lost or made twice, and the lists that a store keeps beside the
records say the same as the records.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing

import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from outbox_stores import one_redis, store_url  # noqa: F401 - fixtures
from test_outbox import TEXT, A

from trio_smtp import prepare_message
from trio_smtp.outbox import LeaseLostError, OutboxConfig, State, open_outbox
from trio_smtp.outbox._records import new_record
from trio_smtp.outbox._states import (
    Outcome,
    Record,
    Shelf,
    Turn,
    begin,
    mark,
    postpone,
    resolve,
    settle,
)

PEOPLE = ("b@y.test", "c@y.test", "d@z.test")
LEASE = 0.001  # seconds: every claim has lapsed when the next one is made, unless they are in one group
TURNS = {
    "accept": Outcome(Turn.ACCEPT),
    "refuse": Outcome(Turn.REFUSE, error="no"),
    "again": Outcome(Turn.AGAIN, delay=0.0),
    "at once": Outcome(Turn.AGAIN),
    "doubt": Outcome(Turn.DOUBT, error="who knows"),
}
ENTRIES = st.integers(0, 2)
CHANGES = st.one_of(
    st.tuples(st.just("mark"), ENTRIES),
    st.tuples(st.just("settle"), ENTRIES, st.tuples(*[st.sampled_from(list(TURNS))] * 3)),
    st.tuples(st.just("settle"), ENTRIES, st.tuples(*[st.sampled_from(list(TURNS))] * 3)),
    st.tuples(st.just("postpone"), ENTRIES),
    st.tuples(st.sampled_from(["sent", "retry", "discard"]), ENTRIES, st.sets(st.sampled_from(PEOPLE), min_size=1)),
    st.tuples(st.just("report"), ENTRIES),
)
ROUNDS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(1, 3), st.integers(0, 2)),
        st.tuples(st.just("take"), st.integers(1, 5), st.booleans()),
        st.tuples(st.just("take"), st.integers(1, 5), st.booleans()),
        st.tuples(st.just("group"), st.lists(CHANGES, min_size=1, max_size=6)),
        st.tuples(st.just("at once"), st.lists(CHANGES, min_size=1, max_size=6)),
        st.tuples(st.just("renew")),
    ),
    min_size=3,
    max_size=14,
)  # fmt: skip


class Report:
    """Something that comes into the outbox by a change."""

    def __init__(self, name, now):
        self.made: list[Record] = []
        self._name, self._now = name, now

    def __call__(self, content):
        assert content in (TEXT, b"")  # a stale record may have none any more
        message = prepare_message("", [A], b"Subject: report\r\n\r\n" + self._name.encode())
        self.made = [new_record(message, self._now, due=self._now, patience=1e6, priority=0)]
        return [(each, message.content) for each in self.made]


class Model:
    """What the store is to hold."""

    def __init__(self, store):
        self.store = store
        self.records: dict[str, Record] = {}
        self.order: list[str] = []  # those whom the operations are about
        self.claims: dict[str, list[Record]] = {}  # as workers know them: all that were ever made
        self.seen: dict[int, tuple[Record, Record] | None] = {}  # by operation: what its transition made of what

    def watched(self, transition):
        """The same transition, of which the latest call is kept."""
        number = len(self.seen)
        self.seen[number] = None

        def watch(record, now):
            self.seen[number] = None
            after = transition(record, now)
            self.seen[number] = record, after
            return after

        return watch

    def take_over(self):
        """What the operations since the last time have made."""
        chains: dict[str, dict[int, tuple[Record, Record]]] = {}
        for pair in self.seen.values():
            if pair is not None and pair[0] != pair[1]:
                versions = chains.setdefault(pair[0].id, {})
                assert pair[0].version not in versions, "two changes of one version"
                versions[pair[0].version] = pair
        for name, versions in chains.items():
            for version in sorted(versions):
                before, after = versions[version]
                assert before._replace(companions=None) == self.records[name]
                self.records[name] = after._replace(version=version + 1, step=None, companions=None)
                for report in after.companions.made if after.companions else ():
                    self.records[report.id] = report._replace(version=1)
        self.seen = {}

    async def put(self, people, later):
        message = prepare_message(A, PEOPLE[:people], TEXT)
        now = await self.store.time() - 1
        record = new_record(message, now, due=now, patience=1e6, priority=later % 2)
        assert await self.store.add(record, message.content) == (record.id, True)
        self.records[record.id] = record._replace(version=1)
        self.order.append(record.id)

    async def take(self, limit, retry_doubt):
        await trio.sleep(2 * LEASE)  # of the store's clock
        now = await self.store.time()
        due = [
            name
            for name, record in self.records.items()
            if record.shelf()[0] is Shelf.LEASED
            or (record.shelf()[0] is Shelf.WAITING and record.shelf()[1] <= now - 0.01)
        ]
        taken = await self.store.take(
            "w", limit, self.watched_each(lambda r, now: begin(r, now, "w", retry_doubt=retry_doubt))
        )
        self.take_over()
        assert len(taken) >= min(limit, len(due))
        for record, content in taken:
            assert record == self.records[record.id]
            if record.is_sending:
                assert content
                self.claims.setdefault(record.id, []).append(record)

    def watched_each(self, transition):
        def watch(record, now):
            return self.watched(transition)(record, now)

        return watch

    async def renew(self):
        await self.store.renew([claims[-1] for claims in self.claims.values()], "w")

    def change(self, word, which, *more):
        """The record as the one knows it who makes the change, and the change."""
        name = self.order[which % len(self.order)]
        claims = self.claims.get(name, [])
        if word in ("sent", "retry", "discard"):
            chosen = [each for each in more[0] if each in self.records[name].recipients]
            return self.records[name], lambda record, now: resolve(record, word, chosen, now)
        if not claims:
            return None
        known = claims[-1 - which % min(2, len(claims))]
        if word == "mark":
            return known, lambda record, now: mark(record, known.claim, ["C: ."])
        if word == "postpone":
            if self.records[name].marked:
                return None
            return known, lambda record, now: postpone(record, known.claim, 0.0, now)
        turns = more[0] if more else ("refuse",) * 3
        outcomes = {each: TURNS[turn] for each, turn in zip(known.sending, turns, strict=False)}

        def end(record, now):
            after = settle(record, known.claim, outcomes, now, ["S: 250"])
            if word == "report" and after.state is not record.state:
                after = after._replace(companions=Report(record.id, now))
            return after

        return known, end

    def changes(self, words):
        found = [self.change(*each) for each in words] if self.order else []
        return [(known, self.watched(transition)) for known, transition in filter(None, found)]

    async def group(self, words):
        changes = self.changes(words)
        answers = await self.store.change_all(changes)
        assert len(answers) == len(changes)
        self.take_over()
        for answer in answers:
            assert isinstance(answer, Record | LeaseLostError), answer

    async def at_once(self, words):
        async def change(known, transition):
            try:
                await self.store.change(known, transition)
            except LeaseLostError:
                pass

        async with trio.open_nursery() as nursery:
            for known, transition in self.changes(words):
                nursery.start_soon(change, known, transition)
        self.take_over()

    async def check(self):
        def plain(record):
            return record._replace(companions=None)

        for name, record in self.records.items():
            assert plain(await self.store.load(name)) == record
        assert {record.id: record for record in (await self.store.page(None, 0, 1000)).records} == self.records
        counts = Counter(record.state for record in self.records.values())
        assert {state: number for state, number in (await self.store.counts()).items() if number} == counts
        for state in State:
            listed = {record.id for record in (await self.store.page(state, 0, 1000)).records}
            assert listed == {name for name, record in self.records.items() if record.state is state}


def check_rows(path, records):
    """What SQLite's columns say is what the records say."""
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute(
            "SELECT id, state, shelf, claim, version, content IS NULL FROM outbox_entries"
            " LEFT JOIN outbox_contents USING (place)"
        ).fetchall()
        contents = connection.execute("SELECT count(*) FROM outbox_contents").fetchone()[0]
    assert contents == sum(not row[5] for row in rows)
    for name, state, shelf, claim, version, has_none in rows:
        record = records[name]
        shelves = ("later", "ready") if record.shelf()[0] is Shelf.WAITING else (record.shelf()[0],)
        assert (state, claim, version) == (record.state, record.claim, record.version)
        assert shelf in shelves
        assert has_none == (record.shelf()[0] is Shelf.DONE)


async def play(url, rounds):
    async with open_outbox(url, config=OutboxConfig(lease=LEASE)) as outbox:
        model = Model(outbox._store)
        for word, *more in rounds:
            await getattr(model, word.replace(" ", "_"))(*more)
            await model.check()
            if url.startswith("sqlite:"):
                check_rows(url.removeprefix("sqlite:"), model.records)


FEW = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@given(ROUNDS)
@FEW
def test_sqlite(tmp_path_factory, rounds):
    trio.run(play, f"sqlite:{tmp_path_factory.mktemp('m')}/o.db", rounds)


@given(ROUNDS)
@FEW
def test_redis(one_redis, rounds):  # noqa: F811
    import socket

    with socket.socket(socket.AF_UNIX) as client:
        client.connect(one_redis.socket)
        client.sendall(b"FLUSHALL\r\n")
        assert client.recv(64).startswith(b"+OK")
    trio.run(play, one_redis.url, rounds)
