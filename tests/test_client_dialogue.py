# What is written down of a client's connection; tests/test_logging.py has whole dialogues.
from __future__ import annotations

import logging

import pytest

from trio_smtp import Reply
from trio_smtp._client.dialogue import Dialogue
from trio_smtp._protocol.client.commands import NOOP, Command, Verb

AUTH = Command(Verb.AUTH, b"AUTH PLAIN AG1lAHNlY3JldA==\r\n")


def dialogue() -> Dialogue:
    return Dialogue("mx.test:25", 3, ("192.0.2.1", 25), None)


def test_nothing_is_written_where_nothing_looks(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trio_smtp")
    noted = dialogue()
    noted.note_commands([NOOP])
    assert not noted.is_noted
    noted.note_reply(NOOP, Reply(250))
    noted.note_tls(0.0, None)
    noted.note_reason(ValueError())
    noted.close()
    assert caplog.records == []
    assert repr(noted) == "<Dialogue of mx.test:25, not noted>"


def test_the_level_is_looked_up_for_each_group_of_commands(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trio_smtp")
    noted = dialogue()
    caplog.set_level(logging.DEBUG, "trio_smtp")
    noted.note_reply(NOOP, Reply(250, "early"))
    noted.note_commands([NOOP])
    assert noted.is_noted
    noted.note_reply(NOOP, Reply(250, "late"))
    assert [record.getMessage() for record in caplog.records] == ["mx.test:25 C: NOOP", "mx.test:25 S: 250 late"]
    assert repr(noted) == "<Dialogue of mx.test:25, noted>"


def test_no_record_has_a_secret(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "trio_smtp")
    noted = dialogue()
    noted.note_commands([AUTH])
    noted.note_reply(AUTH, Reply.received(334, ("c2VjcmV0",), None))
    assert len(caplog.records) == 2
    assert not any(secret in str(vars(record)) for record in caplog.records for secret in ("AG1l", "c2VjcmV0"))


def test_the_facts_of_a_record() -> None:
    facts = dialogue().facts(NOOP, Reply(250))
    assert facts == {"smtp_connection": 3, "smtp_peer": ("192.0.2.1", 25), "smtp_verb": "NOOP", "smtp_code": 250}
    assert dialogue().facts()["smtp_verb"] == ""
