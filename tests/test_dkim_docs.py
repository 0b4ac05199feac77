"""docs/dkim.md, held against the code: its example runs, what it names exists."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import trio
from dkim_keys import is_valid, pem

import trio_smtp
from trio_smtp._client.signing import IN_THREAD
from trio_smtp.testing import open_sink

TEXT = (Path(__file__).parent.parent / "docs" / "dkim.md").read_text(encoding="utf-8")


async def test_the_example_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    [code] = re.findall(r"^```python\n(.*?)^```$", TEXT, re.M | re.S)
    (tmp_path / "dkim.pem").write_bytes(pem("ed25519"))
    monkeypatch.chdir(tmp_path)
    mains: list[Any] = []
    monkeypatch.setattr(trio, "run", mains.append)
    async with open_sink() as sink:
        for old, new in (('"localhost", 2525', f'"127.0.0.1", {sink.port}'), ("mail2026", "ed25519")):
            assert code.count(old) == 1
            code = code.replace(old, new)
        exec(compile(code, "dkim.md", "exec"), {})
        await mains[0]()
    assert is_valid(sink.messages[0].content, "example.com")


def test_what_it_says_of_the_code() -> None:
    assert IN_THREAD == 64 << 10
    assert "from 64 KiB on in a thread" in TEXT
    assert trio_smtp.MessageSigner.__name__ in TEXT
