"""docs/tutorials/webhook.md: each step is run, and what the page shows is what a client and a terminal see."""

from __future__ import annotations

import re

import pytest
import trio
from pages import blocks, read_page, started_by

import trio_smtp
from trio_smtp.testing import open_server

PAGE = read_page("tutorials/webhook.md")
SMALLEST, REFUSING, FAILING = blocks(PAGE)
LETTER = b"From: me@example.com\r\nTo: you@example.com\r\nSubject: Hello\r\n\r\nHi\r\n"


async def play(code, monkeypatch, recipients):
    """Run a step's server, send a letter to it, and return the reply for each recipient."""
    serve, (handler, port) = started_by(code, monkeypatch)
    assert serve is trio_smtp.serve
    assert port == 2525
    with trio.fail_after(20):
        async with open_server(handler) as server, trio_smtp.open_client(server.host, server.port) as client:
            try:
                result = await client.send("me@example.com", recipients, LETTER)
            except trio_smtp.SMTPError as exc:
                return {address: str(reply) for address, reply in exc.refused.items()}
    return {address: str(result.reply) for address in result.accepted} | {
        address: str(reply) for address, reply in result.refused.items()
    }


def shown(section):
    """The replies that trio-smtp send shows in a step."""
    text = PAGE.split(f"\n## {section}")[1].split("\n## ")[0]
    return dict(re.findall(r"^the message: \w+ for <(.*?)> \((.*)\)$", text, re.M))


@pytest.mark.parametrize(
    ("section", "code", "prints"),
    [
        ("1. ", SMALLEST, " octets from me@example.com\n"),
        ("2. ", REFUSING, " octets for ['you@example.com']\n"),
        ("3. ", FAILING, ""),
    ],
)
async def test_a_step(section, code, prints, monkeypatch, capsys, caplog):
    replies = await play(code, monkeypatch, list(shown(section)))
    assert replies == shown(section)
    assert capsys.readouterr().out == (f"{len(LETTER)}{prints}" if prints else "")
    assert prints.strip() in PAGE
    failed = [record.getMessage() for record in caplog.records if "on_data failed" in record.getMessage()]
    assert len(failed) == (code is FAILING)
