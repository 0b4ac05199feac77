# What a path may name: a file that can be read again, or something that gives its octets once.
from __future__ import annotations

import email
import os
import threading
from email.message import Message
from pathlib import Path

import pytest

from trio_smtp import LocalProtocolError
from trio_smtp._client.content import SMALL_FILE, as_content


@pytest.mark.parametrize("size", [0, 10, 2 * SMALL_FILE])
async def test_what_a_pipe_held_is_all_there_and_can_be_sent_again(tmp_path: Path, size: int) -> None:
    octets = b"0123456789abcde\n" * (size // 16) + b"x" * (size % 16)
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(octets,), daemon=True)
    writer.start()
    content = as_content(path)
    for _ in range(2):  # a second time for further recipients, or on another connection
        source = await content.open(eight_bit=True, utf8=False)
        assert source.whole == octets
    writer.join(10)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Subject", "a\r\n\r\nbody"),
        ("Subject", "a\r\nX-Evil: 1"),
        ("Subject", "a\nX-Evil: 1"),
        ("Subject", "a\rb"),
        ("Subject", "a\0b"),
        ("X\r\nEvil", "1"),
    ],
)
async def test_a_header_field_that_would_end_before_its_end_is_refused(name: str, value: str) -> None:
    message = Message()
    message[name] = value
    message.set_payload("hi")
    with pytest.raises(LocalProtocolError):
        await as_content(message).open(eight_bit=True, utf8=False)


async def test_a_folded_header_field_is_none_of_those() -> None:
    message = email.message_from_bytes(b"Subject: one\r\n two\r\nTo: a@x.test\n\n\nhi\r\n")
    source = await as_content(message).open(eight_bit=True, utf8=False)
    assert source.whole is not None
    assert b"Subject: one\r\n two\r\n" in source.whole
