"""Bytes, str, files and streams arrive octet for octet, but for line ends: a corpus of messages, by every way.

The corpus is made here: all kinds of headers, bodies and structures, well formed and not, in all line ends, of many
sizes.
"""

from __future__ import annotations

import random
import re
from collections.abc import AsyncIterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import trio

import trio_smtp
from trio_smtp.testing import open_sink

COUNT = 400
_HEADERS = [
    b"Received: from a.test ([192.0.2.1])\r\n\tby b.test with ESMTP\r\n\tid 1; Thu, 1 Jan 2026 00:00:00 +0000\r\n",
    b"DKIM-Signature: v=1; a=rsa-sha256; c=simple/simple; d=x.test;\r\n  s=k; h=from:to;  bh=abc=; b=def\r\n",
    b"From: a@x.test\r\n",
    b"From:a@x.test\r\n",
    b'FROM :  "A  B"  <a@x.test>\r\n',
    b'To: b@y.test, "Doe, John" <c@y.test> (comment)\r\n',
    b"Bcc: d@y.test\r\n",
    b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?= =?iso-8859-1?b?/Pw=?=\r\n",
    b"Subject:\r\n",
    b"Subject: \t \r\n folded\r\n",
    "Subject: Grüße\r\n".encode("latin-1"),
    b"Content-Type: text/plain; charset=x-unknown\r\n",
    b"Content-Type: multipart/mixed; boundary=b\r\n",
    b"Content-Type: multipart/signed; boundary=b; micalg=pgp-sha256\r\n",
    b"Content-Transfer-Encoding: 8bit\r\n",
    b"Content-Transfer-Encoding: quoted-printable\r\n",
    b"X-Long: " + b"w" * 2000 + b"\r\n",
    b"X-Odd: \x01\x02\x7f\r\n",
    b"no field at all\r\n",
    b">From here\r\n",
]
_LINES = [
    b"",
    b".",
    b"..",
    b".hidden",
    b"From here",
    b"--b",
    b"--b--",
    b"trailing white space  \t",
    b"=C3=BC=",
    b"\xff\xfe\x80",
    "grüße".encode(),
    b"x" * 77,
    b"y" * 1200,
    b"QUJDRA==",
    b"Bcc: not a field",
]


@cache
def corpus() -> list[bytes]:
    """Messages with CR LF line ends, the same every time."""
    chance = random.Random(11)
    messages = [b"", b"\r\n", b"x", b".", b"\r\n.\r\n", b"Subject: x\r\n", b"x" * 70_000, b".\r\n" * 30_000]
    while len(messages) < COUNT:
        header = b"".join(chance.choices(_HEADERS, k=chance.randrange(8)))
        lines = chance.choices(_LINES, k=chance.choice([0, 1, 5, 40, 400]))
        end = chance.choice([b"\r\n", b""])
        messages.append(header + b"\r\n" + b"\r\n".join(lines) + (end if lines else b""))
    return messages


def arrives(octets: bytes) -> bytes:
    """What is to arrive: the octets, with a line end at the end."""
    return octets if not octets or octets.endswith(b"\r\n") else octets + b"\r\n"


def is_utf8_header(octets: bytes) -> bool:
    return not octets.partition(b"\r\n\r\n")[0].isascii()


class Pieces:
    def __init__(self, octets: bytes) -> None:
        self.octets = octets

    async def __aiter__(self) -> AsyncIterator[bytes]:
        chance = random.Random(len(self.octets))
        at = 0
        while at < len(self.octets):
            size = chance.choice([1, 7, 500, 70_000])
            yield self.octets[at : at + size]
            at += size
            await trio.lowlevel.checkpoint()


WAYS = ["bytes", "bytearray", "memoryview", "str", "file", "stream", "LF", "CR"]


@pytest.mark.parametrize("chunking", [True, False], ids=["BDAT", "DATA"])
@pytest.mark.parametrize("way", WAYS)
async def test_octets_arrive_as_they_are(way: str, chunking: bool, tmp_path: Path) -> None:
    sent = corpus() if way in ("bytes", "file", "LF") else corpus()[::4]
    if way == "str":
        sent = [octets for octets in sent if octets.isascii()]
    server = trio_smtp.ServerConfig(max_messages=None, max_junk_commands=None)
    client_config = trio_smtp.ClientConfig(chunking=chunking, add_missing=True)
    async with (
        open_sink(config=server) as sink,
        trio_smtp.open_client(
            "localhost", stream=sink.connect(), config=client_config, **sink.client_options
        ) as client,
    ):
        for number, octets in enumerate(sent):
            content: Any = octets
            if way == "str":
                content = octets.decode()
            elif way == "file":
                content = tmp_path / str(number)
                content.write_bytes(octets)
            elif way == "stream":
                content = Pieces(octets)
            elif way in ("LF", "CR"):
                content = octets.replace(b"\r\n", b"\n" if way == "LF" else b"\r")
            elif way in ("bytearray", "memoryview"):
                content = {"bytearray": bytearray, "memoryview": memoryview}[way](octets)
            await client.send("a@x.test", ["b@y.test"], content)
    received = [message.content for message in sink.messages]
    assert len(received) == len(sent)
    for before, after in zip(sent, received, strict=True):
        assert after == arrives(before)


def test_the_corpus_is_what_it_says() -> None:
    assert len(corpus()) == COUNT
    assert not any(re.search(rb"\r(?!\n)|(?<!\r)\n", octets) for octets in corpus())
    assert any(is_utf8_header(octets) for octets in corpus())
    assert any(len(line) > 998 for octets in corpus() for line in octets.split(b"\r\n"))
