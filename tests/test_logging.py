"""What each record of the logger "trio_smtp" carries for programs that read logs."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest
from client_peer import OFFERS, Peer, client_and
from support import DATA, Recorder, session

import trio_smtp
from trio_smtp._logging import FIELDS, logger
from trio_smtp.testing import open_sink

PAGE = (Path(__file__).parent.parent / "docs" / "observing.md").read_text(encoding="utf-8")
FORMAT = " ".join(f"{name}=%({name})s" for name in FIELDS)


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "trio_smtp")
    return caplog


def fields(record: logging.LogRecord) -> dict[str, Any]:
    return {name: vars(record)[name] for name in FIELDS}


def test_a_record_about_nothing_has_them_all(log: pytest.LogCaptureFixture) -> None:
    logger.info("hello")
    assert fields(log.records[0]) == dict(FIELDS)
    assert logging.Formatter(FORMAT).format(log.records[0]).startswith("smtp_session= smtp_connection=0")


def test_what_a_record_has_stays(log: pytest.LogCaptureFixture) -> None:
    logger.info("hello", extra={"smtp_code": 250})
    assert fields(log.records[0]) == {**FIELDS, "smtp_code": 250}


async def test_a_servers_dialogue(log: pytest.LogCaptureFixture) -> None:
    handler = Recorder()
    async with session(handler) as peer:
        await peer.speak(DATA + "C: text\nC: .\nS: 250…\nC: frob x\nS: 500…")
    assert {record.smtp_session for record in log.records} == {handler.sessions[0].id}  # type: ignore[attr-defined]
    said = [(each["smtp_verb"], each["smtp_code"]) for each in map(fields, log.records)]
    assert [verb for verb, _ in said if verb] == ["EHLO", "MAIL", "RCPT", "DATA", "FROB"]
    assert [code for _, code in said if code] == [220, 250, 250, 250, 354, 250, 500]


async def test_a_clients_dialogue_names_the_command_of_each_reply(log: pytest.LogCaptureFixture) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet(*OFFERS, "AUTH PLAIN")
        await peer.hear("AUTH PLAIN AG1lAHNlY3JldA==")
        await peer.say("235 2.7.0 ok")
        await peer.take_message()
        await peer.say("250 ok")
        await peer.goodbye()

    async with client_and(script, auth=("me", "secret"), allow_insecure_auth=True) as client:
        await client.send("a@x.test", ["b@y.test"], b"text\r\n")
    said = [(each["smtp_verb"], each["smtp_code"]) for each in map(fields, log.records)]
    assert [each for each in said if each[1]] == [
        ("", 220),
        ("EHLO", 250),
        ("AUTH", 235),
        ("MAIL", 250),
        ("RCPT", 250),
        ("DATA", 354),
        ("DATA", 250),
        ("QUIT", 221),
    ]
    assert {record.smtp_connection for record in log.records} == {1}  # type: ignore[attr-defined]
    assert "secret" not in str([vars(record) for record in log.records])


async def test_a_pools_connections_have_their_numbers_and_peers(log: pytest.LogCaptureFixture) -> None:
    async with open_sink() as sink:
        config = trio_smtp.PoolConfig(max_messages=1)
        async with trio_smtp.open_pool(sink.host, sink.port, config=config) as pool:
            for _ in range(2):
                await pool.send("a@x.test", ["b@y.test"], b"x")
        ours = [fields(record) for record in log.records if " C: " in record.getMessage()]
        assert [each["smtp_connection"] for each in ours if each["smtp_verb"] == "MAIL"] == [1, 2]
        assert {each["smtp_peer"] for each in ours} == {(sink.host, sink.port)}


def test_the_page_lists_them() -> None:
    assert re.findall(r"^\| `(smtp_[a-z]+)` \|", PAGE, re.MULTILINE) == list(FIELDS)
