"""docs/connecting.md, held against the code: its examples run, and its table is what the presets ask for."""

from __future__ import annotations

import re
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import trio
from pages import blocks, read_page, run
from socks_server import open_socks
from test_client_reaching import unix_server

import trio_smtp
from trio_smtp.oauth import _providers as oauth
from trio_smtp.testing import open_sink

TEXT = read_page("connecting.md")
UNIX, CONNECT, SOCKS, OAUTH = blocks(TEXT)


def message() -> EmailMessage:
    found = EmailMessage()
    found["From"], found["To"] = "me@example.com", "you@example.com"
    return found


async def test_the_examples_run(tmp_path: Path) -> None:
    async with unix_server(tmp_path / "lmtp", lmtp=True) as handler:
        await run(UNIX)["deliver"](message(), host=f"unix:{tmp_path}/lmtp")
    assert len(handler.messages) == 1
    async with open_sink() as sink, open_socks(("me", "secret")) as proxy:
        await run(CONNECT)["main"](sink.host, sink.port)
        assert sink.messages[0].peer is not None
        assert sink.messages[0].peer[0] == "127.0.0.2"
        url = "socks5://me:secret@localhost:1080"
        assert url in SOCKS
        await run(SOCKS)["send"](message(), sink.host, sink.port, proxy=url.replace("1080", str(proxy.port)))
    assert len(sink.messages) == 2


def test_presets() -> None:
    names = run(OAUTH)
    rows = re.findall(r"^\| `(\w+\.\w+)` \| (.*?) \| (.*?) \|", TEXT, re.M)
    assert [row[0] for row in rows] == [
        "RefreshToken.google",
        "RefreshToken.microsoft365",
        "ClientCredentials.microsoft365",
    ]
    auths = [names["google"]("r"), names["microsoft365"]("r", trio.sleep), names["microsoft365_without_a_person"]()]
    for (_, url, scope), auth in zip(rows, auths, strict=True):
        assert isinstance(auth, trio_smtp.OAuth)
        provider: Any = auth.token
        if url != "the same":
            assert provider._url == "https://" + url.strip("`").replace("{tenant}", "example.com")
        assert provider._parameters.get("scope") in (scope.strip("`"), None)


def test_numbers() -> None:
    assert (oauth.MARGIN, oauth._SHARE, oauth.REQUEST_TIMEOUT, oauth.MAX_ANSWER) == (60, 0.1, 30, 256 << 10)
