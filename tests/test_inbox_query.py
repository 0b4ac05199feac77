# trio_smtp.inbox: queries that cannot be understood. What queries find is in test_inbox_store.py.
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_smtp.inbox import _query
from trio_smtp.inbox._query import Condition, QueryError, parse_query
from trio_smtp.inbox._store import Store


@pytest.mark.parametrize(
    ("query", "zone", "words"),
    [
        ("before:tomorrow", "", "not a date"),
        ("after:2026-13-01", "", "not a date"),
        ("before:2026-01-01", "Nowhere/Land", "not a time zone"),
        ("before:2026-01-01", "../../etc/passwd", "not a time zone"),
        ("before:2026-01-01", "/etc/passwd", "not a time zone"),
        ("larger:big", "", "not a size"),
        ("smaller:1g", "", "not a size"),
        ("x" * 2001, "", "at most 2000 characters"),
        ("x " * 51, "", "at most 50 terms"),
    ],
)
def test_what_cannot_be_understood_says_so(query, zone, words):
    with pytest.raises(QueryError, match=words):
        parse_query(query, zone)


def test_the_limits_themselves_are_within():
    assert len(parse_query("x " * _query.MAX_TERMS)) == _query.MAX_TERMS
    assert len(parse_query("x" * _query.MAX_QUERY)) == 1


def test_a_condition_can_be_turned_round():
    assert Condition("read = ?", (1,)).negated() == Condition("NOT (read = ?)", (1,))


def test_no_text_becomes_sql():
    store = Store(None, keep=1)

    @given(st.text(max_size=60))
    def run(text):
        try:
            store.page(parse_query(text), start=0, limit=1)
        except QueryError:
            pass

    run()
    store.close()
