# Messages that are told apart by a token in them, and what is left of them in a server's mailbox.
from __future__ import annotations

import itertools
import os
import re
from dataclasses import dataclass
from pathlib import Path

import trio
from peer_daemons import POLL

LIMIT = 30  # seconds within which a message must have arrived

_numbers = itertools.count(1)

# What a server may put before a message; ours begin with From.
_TRACE = re.compile(
    rb"(?:(?:Return-Path|Delivered-To|X-Original-To|Envelope-to|Received|Authentication-Results)"
    rb":[^\n]*\n(?:[ \t][^\n]*\n)*)*",
    re.IGNORECASE,
)
_RECIPIENTS = re.compile(rb"^(?:Delivered-To|Envelope-to):([^\n]*(?:\n[ \t][^\n]*)*)", re.IGNORECASE | re.MULTILINE)

BODIES = {
    "plain": b"Hello!\r\n",
    "8-bit": "Grüße, 10 € für jeden\r\n".encode() + b"".join(bytes([n]) * 3 + b"\r\n" for n in range(128, 256)),
    "dots": b".\r\n..\r\n.x\r\n...\r\n\r\n.\r\n"
    + b"".join(b"x" * n + b"\r\n.\r\n" for n in range(0, 1000, 7))
    + b".\r\n",
    "long lines": b"".join(b"x" * n + b"\r\n" for n in (998, 999, 1000, 2047, 2048, 4095, 4096, 8192, 20000)),
    "10 MiB": b"".join(b"%060d\r\n" % n for n in range(10 * 1024 * 1024 // 62 + 1)),
}


@dataclass(frozen=True)
class Letter:
    """A message: its envelope, its octets, and the token that stands in its header."""

    sender: str
    recipients: list[str]
    content: bytes
    token: bytes


def make_letter(
    domain: str, body: bytes = BODIES["plain"], *, users: list[str] | None = None, sender: str = "me@back.test"
) -> Letter:
    """A message to some users of a domain."""
    token = f"T{os.getpid()}.{next(_numbers)}."
    header = (
        f"From: <{sender}>\r\nTo: <you@example.com>\r\nSubject: {token}\r\nDate: Sat, 1 Nov 2025 10:00:00 +0000\r\n"
        f"Message-ID: <{token}x@ours.test>\r\n\r\n"
    )
    recipients = [f"{user}@{domain}" for user in users or ["you"]]
    return Letter(sender, recipients, header.encode() + body, token.encode())


def without_trace(content: bytes) -> bytes:
    """A message without what servers have put before it."""
    trace = _TRACE.match(content)
    assert trace
    return content[trace.end() :]


class Mailbox:
    """Files with a message in each, in a directory's ``new``, below a header that names the recipients.

    Or in ``new`` of a directory for each recipient, which has its name.
    """

    def __init__(self, directory: Path, *, each: bool = False) -> None:
        self._directory = directory
        self._each = each
        self._seen: dict[tuple[Path, str], tuple[list[str], bytes]] = {}

    async def arrived(self, token: bytes, count: int) -> list[tuple[str, bytes]]:
        """Wait until a message with this token is there for so many recipients; each with the message's content."""
        with trio.fail_after(LIMIT):
            while len(found := self._find(token)) < count:
                await trio.sleep(POLL)
        return sorted(found)

    def _find(self, token: bytes) -> list[tuple[str, bytes]]:
        for folder in self._directory.glob("*/new" if self._each else "new"):
            for name in os.listdir(folder):  # not glob(): it takes long for a thousand messages, each time
                if (folder, name) not in self._seen:
                    self._seen[folder, name] = self._read(folder / name)
        return [(user, content) for users, content in self._seen.values() if token in content[:500] for user in users]

    def _read(self, path: Path) -> tuple[list[str], bytes]:
        data = path.read_bytes()
        content = without_trace(data)
        named = _RECIPIENTS.findall(data[: len(data) - len(content)])
        users = [word.strip(b" <>,").decode() for each in named for word in each.split()]
        if b"\r\n" not in content:
            content = content.replace(b"\n", b"\r\n")
        return [path.parents[1].name] if self._each else users, content
