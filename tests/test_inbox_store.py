# trio_smtp.inbox: the store, and with it the search language (test_inbox_query.py has what cannot be understood).
from __future__ import annotations

import sqlite3

import pytest

from trio_smtp.inbox import _store
from trio_smtp.inbox._query import parse_query
from trio_smtp.inbox._store import Entry, Store

DAY = 86_400_000


def entry(name: str, **changes):
    values = {
        "id": name,
        "created": 0,
        "attachments": 0,
        "inline": 0,
        "message_id": f"{name}@example.com",
        "subject": "Hello",
        "to": "Bob <bob@example.com>",
        "author": "Ann <ann@example.com>",
        "cc": "",
        "bcc": "",
        "reply_to": "",
        "text": "how are you",
        "summary": {"ID": name},
        "facts": {"n": name},
        "content": b"x" * 10,
        "transcript": "S: 220\n",
    }
    return Entry(**{**values, **changes})


@pytest.fixture
def store():
    with_store = Store(None, keep=100)
    yield with_store
    with_store.close()


def found(store, query):
    return [each["ID"] for each in store.page(parse_query(query), start=0, limit=100).summaries]


def test_what_is_kept_is_found(store):
    number, _ = store.add(entry("a"))
    kept = store.find("a")
    assert kept is not None
    assert (kept.number, kept.id) == (number, "a")
    assert kept.summary == {"ID": "a", "Read": False}
    assert kept.facts == {"n": "a"}
    assert store.content(number) == b"x" * 10
    assert store.transcript(number) == "S: 220\n"
    store.set_transcript(number, "S: 221\n")
    assert store.transcript(number) == "S: 221\n"
    assert (len(store), store.octets, store.unread) == (1, 10, 1)
    assert store.find("b") is None
    assert "1 messages, 10 octets" in repr(store)


def test_the_newest_comes_first(store):
    for name in "abc":
        store.add(entry(name))
    assert store.newest() == "c"
    assert found(store, "") == ["c", "b", "a"]
    page = store.page([], start=1, limit=1)
    assert ([each["ID"] for each in page.summaries], page.count, page.unread) == (["b"], 3, 3)
    assert [kept.id for kept in store.all()] == ["a", "b", "c"]
    first = store.newest_that(lambda kept: kept.id == "a")
    assert first is not None
    assert store.newest_that(lambda kept: kept.id == "a", after=first.number) is None


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("", "dcba"),
        ("invoice", "b"),
        ("INVOI", "b"),
        ('"your invoice"', "b"),
        ("'your invoice'", "b"),
        ("invoice your", "b"),
        ('"invoice your"', ""),
        ("café", "c"),
        ("cafe", "c"),
        ("-invoice", "dca"),
        ("!invoice", "dca"),
        ("bob@example.com", "a"),
        ("to:carol", "b"),
        ("to:CAROL@example.com", "b"),
        ("-to:carol", "dca"),
        ("from:ann", "ba"),
        ('from:"ann example"', "b"),
        ("subject:hello", "a"),
        ("subject:50%", "d"),
        ("subject:_", ""),
        ("cc:dave", "c"),
        ("bcc:eve", "c"),
        ("reply-to:frank", "c"),
        ("message-id:b@", "b"),
        ("is:read", "a"),
        ("is:unread", "dcb"),
        ("-is:unread", "a"),
        ("is:tagged", ""),
        ("has:attachment", "c"),
        ("has:attachments", "c"),
        ("has:inline", "d"),
        ("-has:attachment", "dba"),
        ("after:1970-01-03", "dc"),
        ("after:1970-01-03 before:1970-01-03", "c"),
        ("before:1970/01/02", "ba"),
        ("before:1970-01-01T00:00:00Z", "a"),
        ("larger:10", "d"),
        ("smaller:1k", "dcba"),
        ("smaller:0.005k", ""),
        ("tag:x", ""),
        ("to:", "dcba"),
        ("日本", "d"),
        ("本語", "d"),
        ("https://example.com/x", "b"),
        ("!", "dcba"),
        ('"', ""),
        ("a AND b OR NEAR(", ""),
        ("is:odd", ""),
        ("x\0y", ""),
    ],
)
def test_the_search_language(store, query, wanted):
    store.add(entry("a", text="bob@example.com how are you"))
    store.add(
        entry(
            "b",
            subject="Invoice",
            to="Carol <carol@example.com>",
            author="Ann Example <ann@x.test>",
            text="Your invoice\nhttps://example.com/x",
            created=DAY,
        )
    )
    store.add(
        entry(
            *"c",
            subject="Lunch",
            author="x",
            cc="dave@x.test",
            bcc="eve@x.test",
            reply_to="frank@x.test",
            text="Café",
            attachments=1,
            created=2 * DAY,
        )
    )
    store.add(
        entry("d", subject="50% off", author="x", text="日本語です", content=b"x" * 100, inline=2, created=3 * DAY)
    )
    store.mark(["a"], read=True)
    assert "".join(found(store, query)) == wanted
    assert store.page(parse_query(query), start=0, limit=1).count == len(wanted)


def test_a_time_zone_moves_a_day(store):
    store.add(entry("a", created=DAY - 3_600_000))  # 23:00 in UTC is 00:00 in Vienna
    assert len(store.page(parse_query("after:1970-01-02", "Europe/Vienna"), start=0, limit=9).summaries) == 1
    assert store.page(parse_query("after:1970-01-02"), start=0, limit=9).count == 0


def test_marking_tells_what_has_changed(store):
    for name in "abc":
        store.add(entry(name))
    assert store.mark(["a", "b", "x"], read=True) == ["a", "b"]
    assert store.mark(["a", "c"], read=True) == ["c"]
    assert store.unread == 0
    assert store.mark(store.ids(), read=False) == ["a", "b", "c"]
    kept = store.find("a")
    assert kept is not None
    assert kept.summary["Read"] is False


def test_deleting_leaves_nothing(store):
    for name in "abc":
        store.add(entry(name, text=f"word{name}"))
    kept = store.find("b")
    assert kept is not None
    assert store.delete(["b", "x"]) == ["b"]
    assert (len(store), store.octets, store.deleted) == (2, 20, 1)
    assert found(store, "wordb") == []
    with pytest.raises(LookupError):
        store.content(kept.number)
    assert store.transcript(kept.number) == ""
    store.set_transcript(kept.number, "too late")
    assert store.transcript(kept.number) == ""


def test_deleting_very_many_at_once(store):
    store._keep = 2000
    for number in range(1200):
        store.add(entry(str(number)))
    assert len(store.mark(store.ids(), read=True)) == 1200
    assert len(store.delete(store.ids())) == 1200
    assert (len(store), store.octets) == (0, 0)


def test_the_oldest_go_first_when_there_are_too_many():
    store = Store(None, keep=2)
    assert [store.add(entry(name))[1] for name in "abc"] == [[], [], ["a"]]
    assert store.ids() == ["b", "c"]
    store.close()


def test_the_oldest_go_first_when_there_is_too_much():
    store = Store(None, keep=100, max_octets=25)
    assert [store.add(entry(name))[1] for name in "abc"] == [[], [], ["a"]]
    assert store.add(entry("big", content=b"x" * 30))[1] == ["b", "c"]
    assert store.ids() == ["big"]  # the newest stays, whatever its size
    store.close()


def test_only_so_many_characters_can_be_found(store):
    store.add(entry("a", text="x " * (_store.MAX_WORDS // 2) + "beyond"))
    assert found(store, "x") == ["a"]
    assert found(store, "beyond") == []


def test_a_file_outlives_the_store(tmp_path):
    path = str(tmp_path / "inbox.db")
    store = Store(path, keep=100)
    number, _ = store.add(entry("a", content=b"\0\xff"))
    store.mark(["a"], read=True)
    store.close()
    again = Store(path, keep=100)
    kept = again.find("a")
    assert kept is not None
    assert kept.summary["Read"]
    assert again.content(number) == b"\0\xff"
    assert (len(again), again.octets, again.unread) == (1, 2, 0)
    assert again.add(entry("b"))[0] > number
    again.close()
    fewer = Store(path, keep=1)
    assert fewer.ids() == ["b"]
    fewer.close()


def test_a_file_in_use_is_refused(tmp_path):
    store = Store(str(tmp_path / "inbox.db"), keep=100)
    with pytest.raises(OSError, match="locked"):
        Store(str(tmp_path / "inbox.db"), keep=100)
    store.close()


def test_files_of_others_are_left_alone(tmp_path):
    path = tmp_path / "other.db"
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE mine (x)")
    database.commit()
    database.close()
    with pytest.raises(OSError, match="not a store"):
        Store(str(path), keep=100)
    path.write_text("some text that is no database, and long enough to be looked at" * 20)
    with pytest.raises(OSError, match="not a database"):
        Store(str(path), keep=100)
    with pytest.raises(OSError, match="unable to open"):
        Store(str(tmp_path / "no" / "such" / "directory.db"), keep=100)


def test_what_fails_changes_nothing(store):
    store.add(entry("a"))
    with pytest.raises(sqlite3.IntegrityError):
        store.add(entry("a"))
    assert (len(store), store.octets) == (1, 10)
    store.add(entry("b"))
    assert store.ids() == ["a", "b"]
