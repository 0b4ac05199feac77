"""The life of an entry, as a function from one record to the next."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_smtp import Reply
from trio_smtp.outbox import LeaseLostError, State
from trio_smtp.outbox._kept import begun_to_json, from_json, marked_to_json, to_json
from trio_smtp.outbox._states import (
    _NEXT,
    LEAST_SETTLED,
    Begun,
    Fate,
    Marked,
    Outcome,
    Record,
    Shelf,
    Step,
    Turn,
    begin,
    mark,
    postpone,
    resolve,
    settle,
)

A, B = "a@x.test", "b@y.test"
SENT, REFUSED, AGAIN, DOUBT = Turn.ACCEPT, Turn.REFUSE, Turn.AGAIN, Turn.DOUBT


def record(**changes):
    return Record(
        id="m1",
        key="k",
        sender=A,
        recipients={A: Fate(due=100.0), B: Fate(due=100.0)},
        size=3,
        created=100.0,
        expires=1000.0,
    )._replace(**changes)


def states(record):
    return [fate.state.value for fate in record.recipients.values()]


def test_each_state_has_its_row_and_what_is_settled_stays_so():
    assert set(_NEXT) == set(State) == set(LEAST_SETTLED)
    for state in (State.SENT, State.REFUSED, State.EXPIRED, State.DISCARDED):
        assert _NEXT[state] == {}


def test_from_queued_to_sent():
    claimed = begin(record(), 200.0, "w")
    assert (states(claimed), claimed.claim, claimed.marked) == (["sending", "sending"], 1, False)
    assert claimed.shelf()[0] is Shelf.LEASED
    marked = mark(claimed, 1)
    assert marked.marked
    assert mark(marked, 1) is marked  # said twice, it changes nothing
    done = settle(marked, 1, {A: Outcome(SENT, Reply(250)), B: Outcome(REFUSED, Reply(550))}, 201.0)
    assert (states(done), done.state, done.settled) == (["sent", "refused"], State.REFUSED, 201.0)
    assert done.shelf() == (Shelf.DONE, 201.0)
    assert settle(done, 1, {A: Outcome(DOUBT), B: Outcome(AGAIN)}, 300.0).recipients == done.recipients


@pytest.mark.parametrize("is_marked", [False, True])
def test_a_lease_that_ended(is_marked):
    claimed = begin(record(), 200.0, "w")
    lapsed = begin(mark(claimed, 1) if is_marked else claimed, 300.0, "other")
    if is_marked:
        assert (states(lapsed), lapsed.claim, lapsed.shelf()[0]) == (["in_doubt", "in_doubt"], 1, Shelf.HELD)
        late = settle(lapsed, 1, {A: Outcome(SENT, Reply(250)), B: Outcome(SENT, Reply(250))}, 301.0)
        assert states(late) == ["sent", "sent"]  # nothing was begun since: the owner's late word settles the doubt
    else:
        assert (states(lapsed), lapsed.claim) == (["sending", "sending"], 2)
        assert [fate.attempts for fate in lapsed.recipients.values()] == [2, 2]
        for change in (lambda: mark(lapsed, 1), lambda: settle(lapsed, 1, {A: Outcome(SENT)}, 301.0)):
            with pytest.raises(LeaseLostError):
                change()


def test_after_a_lapse_into_doubt_nothing_may_be_marked():
    lapsed = begin(mark(begin(record(), 200.0, "w"), 1), 300.0, "other")
    with pytest.raises(LeaseLostError):
        mark(lapsed, 1)


def test_a_late_word_that_leaves_one_in_doubt_settles_the_others():
    claimed = mark(begin(record(recipients={A: Fate(), B: Fate()}), 10.0, "w"), 1)
    lapsed = begin(claimed, 500.0, "other")
    assert lapsed.state is State.IN_DOUBT
    late = settle(lapsed, 1, {A: Outcome(Turn.ACCEPT), B: Outcome(Turn.DOUBT, error="no reply")}, 501.0)
    assert states(late) == [State.SENT, State.IN_DOUBT]
    assert settle(late, 1, {A: Outcome(Turn.ACCEPT), B: Outcome(Turn.DOUBT)}, 502.0).recipients == late.recipients


def test_after_a_person_has_decided_a_late_word_does_not_count():
    lapsed = begin(mark(begin(record(), 200.0, "w"), 1), 300.0, "other")
    decided = resolve(lapsed, "discard", None, 301.0)
    assert states(decided) == ["discarded", "discarded"]
    with pytest.raises(LeaseLostError):
        settle(decided, 1, {A: Outcome(SENT)}, 302.0)


def test_with_retry_doubt_a_marked_claim_is_begun_again():
    again = begin(mark(begin(record(), 200.0, "w"), 1), 300.0, "other", retry_doubt=True)
    assert (states(again), again.claim, again.marked) == (["sending", "sending"], 2, False)


def test_a_second_try_is_for_those_who_are_due_only():
    claimed = begin(record(), 200.0, "w")
    later = settle(
        claimed, 1, {A: Outcome(AGAIN, Reply(450), delay=60), B: Outcome(AGAIN, Reply(450), delay=10)}, 200.0
    )
    assert later.shelf() == (Shelf.WAITING, 210.0)
    assert states(begin(later, 211.0, "w")) == ["queued", "sending"]
    assert states(begin(later, 100.0, "w")) == ["queued", "sending"]  # the clock was set back: the first of them


def test_the_give_up_time():
    claimed = begin(record(), 999.0, "w")
    later = settle(claimed, 1, {A: Outcome(AGAIN, delay=60), B: Outcome(SENT)}, 999.0)
    assert later.shelf() == (Shelf.WAITING, 1000.0)  # not later than that
    assert states(begin(later, 1000.0, "w")) == ["expired", "sent"]
    assert states(settle(begin(record(), 999.0, "w"), 1, {A: Outcome(AGAIN, delay=1)}, 1001.0)) == [
        "expired",
        "sending",
    ]
    given_back = settle(begin(record(), 999.0, "w"), 1, {A: Outcome(AGAIN), B: Outcome(AGAIN)}, 1001.0)
    assert states(given_back) == ["queued", "queued"]  # it was no try that failed


def test_postponing_is_no_attempt():
    back = postpone(begin(record(), 200.0, "w"), 1, 5.0, 200.0)
    assert [(fate.state, fate.attempts, fate.due) for fate in back.recipients.values()] == [("queued", 0, 205.0)] * 2


@pytest.mark.parametrize(
    ("action", "after"),
    [("sent", ["sent", "queued"]), ("retry", ["queued", "queued"]), ("discard", ["discarded", "discarded"])],
)
def test_resolving(action, after):
    doubtful = record(recipients={A: Fate(State.IN_DOUBT), B: Fate(due=5.0)}, claim=3)
    resolved = resolve(doubtful, action, None, 300.0)
    assert states(resolved) == after
    assert resolved.claim == 4
    assert resolve(resolved, action, None, 301.0).recipients == resolved.recipients


def test_resolving_one_recipient_while_another_is_being_sent_does_not_fence_its_worker():
    mixed = record(recipients={A: Fate(State.IN_DOUBT), B: Fate(State.SENDING)}, claim=3)
    assert resolve(mixed, "sent", [A], 300.0).claim == 3
    with pytest.raises(LookupError):
        resolve(mixed, "sent", ["c@z.test"], 300.0)


def test_retry_after_the_give_up_time_gives_it_time():
    doubtful = record(recipients={A: Fate(State.IN_DOUBT)})
    assert resolve(doubtful, "retry", None, 5000.0).expires == 5900.0


@pytest.mark.parametrize(
    ("found", "state"),
    [
        (("sent", "in_doubt", "queued"), "in_doubt"),
        (("sent", "sending", "queued"), "sending"),
        (("sent", "expired", "queued"), "queued"),
        (("sent", "expired", "refused"), "expired"),
        (("sent", "discarded", "refused"), "refused"),
        (("sent", "discarded"), "discarded"),
        (("sent", "sent"), "sent"),
    ],
)
def test_the_state_of_an_entry_is_the_least_settled(found, state):
    fates = {f"r{number}@x.test": Fate(State(word)) for number, word in enumerate(found)}
    assert record(recipients=fates).state == state


def test_as_json_and_back():
    full = settle(
        begin(record(mail_params={"SIZE": 3}, rcpt_params={A: {"NOTIFY": "NEVER"}}, priority=-2), 200.0, "w"),
        1,
        {A: Outcome(REFUSED, Reply(550, "no\nway", "5.1.1")), B: Outcome(DOUBT, error="why")},
        201.0,
        ["ended"],
    )._replace(version=7)
    assert from_json(to_json(full), 7) == full
    odd = full._replace(recipients={A: Fate(reply=Reply.received(299, ("odd",), None))})
    assert from_json(to_json(odd), 7).recipients == odd.recipients


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"id": 1}', '{"recipients": {"a": []}}', "\x00"])
def test_what_is_no_record(text):
    with pytest.raises(ValueError):  # noqa: PT011 - json.JSONDecodeError is one
        from_json(text, 1)


def test_what_the_public_sees():
    entry = begin(record(), 200.0, "w").entry()
    assert entry.created == datetime.fromtimestamp(100, UTC)
    assert entry.recipients[A].next_attempt is None
    assert record().entry().recipients[A].next_attempt == datetime.fromtimestamp(100, UTC)
    assert json.dumps(entry.state) == '"sending"'


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["begin", "mark", "accept", "again", "doubt", "stale", "sent", "retry", "discard"]),
        st.integers(1, 400),
    ),
    max_size=25,
)


def as_columns(steps):
    """What is kept beside a record: its latest claim and its mark, if they came after it."""
    begun = [step for step in steps if isinstance(step, Begun)]
    marked = [step for step in steps if isinstance(step, Marked)]
    assert [*begun, *marked] == steps
    assert len(begun) <= 1
    assert len(marked) <= 1
    return [begun_to_json(begun[0]) if begun else None, marked_to_json(marked[0]) if marked else None]


@given(STEPS)
@settings(max_examples=300, deadline=None)
def test_no_sequence_of_events_lets_two_claims_deliver(events):
    """At the worst, the server has a message once its end is marked; only its owner's or a person's word undoes it."""
    now, current, claim = 200.0, record(expires=1e9), 0
    kept = current
    steps: list[Step] = []
    delivered: set[int] = set()  # claims that may have
    for step, seconds in events:
        now += seconds
        if step == "begin" and current.shelf()[0] in (Shelf.WAITING, Shelf.LEASED):
            current = begin(current, now, "w")
            claim = current.claim
        elif step == "mark" and current.sending:
            current = mark(current, claim)
            assert delivered <= {claim}
            delivered.add(claim)
        elif step in ("accept", "again", "doubt") and current.sending:
            if step == "accept" and not current.marked:
                continue  # no server accepts what was not handed over
            outcome = {"accept": Outcome(SENT), "again": Outcome(AGAIN, delay=1.0), "doubt": Outcome(DOUBT)}[step]
            current = settle(current, claim, dict.fromkeys(current.sending, outcome), now)
            if step == "again":
                delivered.discard(claim)  # a 4xx, for example
        elif step == "stale" and claim > 1:
            with pytest.raises(LeaseLostError):
                mark(current, claim - 1)
            with pytest.raises(LeaseLostError):
                settle(current, claim - 1, {}, now)
        elif step in ("sent", "retry", "discard"):
            before = current
            current = resolve(current, step, None, now)
            if step == "retry" and current != before:
                delivered.clear()
        assert set(current.recipients) == {A, B}
        kept, steps = (kept, [*steps, current.step]) if current.step else (current, [])
        current = current._replace(step=None)
        assert from_json(to_json(kept), 0, *as_columns(steps)) == current == from_json(to_json(current), 0)
