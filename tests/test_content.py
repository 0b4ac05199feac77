# What a path may name: a file that can be read again, or something that gives its octets once.
from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

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
