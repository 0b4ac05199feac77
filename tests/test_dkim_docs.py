"""docs/dkim.md, held against the code: its example runs, what it names exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from dkim_keys import is_valid, pem
from pages import blocks, read_page, started_by

import trio_smtp
from trio_smtp._client.signing import IN_THREAD
from trio_smtp.testing import open_sink

TEXT = read_page("dkim.md")


def test_each_kind_of_key_has_a_file_of_its_own() -> None:
    names = [re.findall(r"-out (\S+)", block) for block in blocks(TEXT, "console")]
    assert names == [["dkim-rsa.pem"], ["dkim-ed25519.pem"]]


async def test_the_example_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    [code] = blocks(TEXT)
    (tmp_path / "dkim-rsa.pem").write_bytes(pem("ed25519"))
    monkeypatch.chdir(tmp_path)
    async with open_sink() as sink:
        for old, new in (('"localhost", 2525', f'"127.0.0.1", {sink.port}'), ("mail2026", "ed25519")):
            assert code.count(old) == 1
            code = code.replace(old, new)
        main, _ = started_by(code, monkeypatch)
        await main()
    assert is_valid(sink.messages[0].content, "example.com")


def test_what_it_says_of_the_code() -> None:
    assert IN_THREAD == 64 << 10
    assert "from 64 KiB on in a thread" in TEXT
    assert trio_smtp.MessageSigner.__name__ in TEXT
