"""Messages for tests of the inbox, and ways to send them and to ask for them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from email.message import EmailMessage

import httpx2

import trio_smtp
from trio_smtp.inbox import Inbox, open_inbox

PLAIN = (
    b"From: Ann Example <ann@example.com>\r\nTo: Bob <bob@example.com>\r\nSubject: Hello there\r\n"
    b"Date: Fri, 27 Nov 2026 10:00:00 +0100\r\nMessage-ID: <one@example.com>\r\n\r\nHow are you?\r\n"
)


def png(width: int = 2, height: int = 2) -> bytes:
    """A picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + b"\x2f\x6f\xde" * width) * height
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def rich(html: str = '<p>Hello <img src="cid:logo"> <a href="https://example.com/in">in</a></p>') -> EmailMessage:
    """Text, HTML with a picture of its own, and two attachments."""
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "Ann <ann@example.com>", "bob@example.com", "Rich"
    message["Date"], message["Message-ID"] = "Fri, 27 Nov 2026 10:00:00 +0100", "<rich@example.com>"
    message.set_content("Your code is 482913.\nSee https://example.com/text.\n")
    message.add_alternative(html, subtype="html")
    [_, page] = message.iter_parts()
    assert isinstance(page, EmailMessage)
    page.add_related(png(), "image", "png", cid="<logo>")
    message.add_attachment(png(), "image", "png", filename="chart.png")
    message.add_attachment(b"a,b\n1,2\n", "text", "csv", filename="numbers.csv")
    return message


async def send(
    inbox: Inbox,
    content: bytes | EmailMessage = PLAIN,
    recipients: Sequence[str] = ("bob@example.com",),
    sender: str = "ann@example.com",
) -> str:
    """Send a message to the inbox's port; returns its id."""
    options = {"local_hostname": "client.test", **inbox.sink.client_options}
    async with trio_smtp.open_client(inbox.host, inbox.smtp_port, **options) as client:
        result = await client.send(sender, recipients, content)
    return result.reply.text.rpartition(" ")[2]


@asynccontextmanager
async def opened(**options: object) -> AsyncIterator[tuple[Inbox, httpx2.AsyncClient]]:
    """An inbox on free ports, and an HTTP client of it."""
    async with (
        open_inbox(**options) as inbox,  # type: ignore[arg-type]
        httpx2.AsyncClient(base_url=inbox.url, timeout=20, trust_env=False) as http,
    ):
        yield inbox, http
