"""docs/topics/delivery.md: each way of its diagram is gone, and there is no other state."""

from __future__ import annotations

import re

import pytest
import trio
from pages import read_page

import trio_smtp
from trio_smtp.testing import PointStage, open_sink

PAGE = read_page("topics/delivery.md")
ARROWS = re.findall(r"^ +(\S+) --> (\w+)", PAGE, re.M)
LETTER = b"Subject: hi\r\n\r\nHello!\r\n"


async def fate(refuse: PointStage | None = None, cut: PointStage | None = None) -> str:
    """What a client says of a message to a server that refuses, or ends the connection, at a stage."""
    with trio.fail_after(20):
        async with open_sink() as sink, trio_smtp.open_client(sink.host, sink.port) as client:
            if refuse:
                sink.refuse(refuse, 550, "no", "5.0.0")
            if cut:
                sink.cut(cut)
            try:
                await client.send("me@example.com", ["you@example.com"], LETTER)
            except trio_smtp.SMTPError as exc:
                return str(exc.delivery)
    return "accepted"


@pytest.mark.parametrize("stage", ["mail", "rcpt"])
async def test_before_the_end(stage):
    assert await fate(cut=stage) == "not_sent"
    assert ("[*]", "not_sent") in ARROWS
    assert await fate(refuse=stage) == "refused"
    assert ("not_sent", "refused") in ARROWS


async def test_after_the_end():
    assert await fate(cut="end") == "unknown"
    assert ("not_sent", "unknown") in ARROWS
    assert await fate(refuse="end") == "refused"
    assert ("unknown", "refused") in ARROWS
    assert await fate() == "accepted"
    assert ("unknown", "accepted") in ARROWS


def test_the_states():
    assert len(ARROWS) == 5
    fates = {each.value for each in trio_smtp.Delivery}
    assert {target for _, target in ARROWS} == fates | {"accepted"}
    assert set(re.findall(r"^\| `(\w+)` \|", PAGE, re.M)) == fates | {"delivery"}  # the heading


def test_the_stages():
    sentence = PAGE.split("`error.stage` says")[1].split("\n\n")[0]
    assert re.findall(r"`(\w+)`", sentence) == [each.value for each in trio_smtp.Stage]
