# Servers that others wrote send to our server; what arrives is compared with what they were given by smtplib.
from __future__ import annotations

import smtplib
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
from peer_mail import BODIES, Letter, make_letter, without_trace
from peer_routes import USER, receive, sink_config
from peer_servers import Peer
from peer_table import cells

from trio_smtp.testing import ReceivedMessage, Sink, open_sink

LIMIT = 60


@asynccontextmanager
async def ours(peer: Peer, *, lmtp: bool = False, chunking: bool = True, **options: Any) -> AsyncIterator[Sink]:
    """Our server, where this server sends its mail."""
    config = sink_config(lmtp=lmtp, chunking=chunking)
    with trio.fail_after(LIMIT):
        async with open_sink(port=peer.relay, config=config, **options) as sink:
            yield sink


async def inject(peer: Peer, *letters: Letter) -> list[dict[str, Any]]:
    """Give letters to a server, on one connection; what it refused of each."""
    return await trio.to_thread.run_sync(partial(_inject, peer, letters))


def _inject(peer: Peer, letters: tuple[Letter, ...]) -> list[dict[str, Any]]:
    with smtplib.SMTP("127.0.0.1", peer.port, "client.test", timeout=LIMIT) as client:
        if peer.auth:
            client.login(*USER)
        client.ehlo_or_helo_if_needed()
        options = [keyword for keyword in ("BODY=8BITMIME", "SMTPUTF8") if client.has_extn(keyword.split("=")[-1])]
        return [client.sendmail(each.sender, each.recipients, each.content, options) for each in letters]


def at_least(count: int) -> Any:
    return lambda found: len(found) >= count


async def received(sink: Sink, letter: Letter) -> ReceivedMessage:
    """The one message with a letter's token."""
    [message] = await receive(sink, letter, at_least(1))
    return message


@pytest.mark.parametrize(("server", "case"), cells("from", "plain", "8-bit", "dots", "long lines", "10 MiB"))
@pytest.mark.parametrize("chunking", [True, False], ids=["BDAT", "DATA"])
async def test_content(peer: Peer, case: str, chunking: bool) -> None:
    letter = make_letter("ours.test", BODIES[case])
    async with ours(peer, chunking=chunking) as sink:
        await inject(peer, letter)
        message = await received(sink, letter)
    assert without_trace(message.content) == letter.content
    assert (message.sender, list(message.recipients)) == (letter.sender, letter.recipients)


@pytest.fixture
def configured_peer(request: pytest.FixtureRequest, server: str, case: str) -> Peer:
    """Dovecot does the same for all that it sends: as it was configured."""
    peer = request.getfixturevalue(f"{server}_{case}" if server == "dovecot_submission" else server)
    assert isinstance(peer, Peer)
    return peer


@pytest.mark.parametrize(("server", "case"), cells("from", "STARTTLS", "AUTH"))
async def test_session(configured_peer: Peer, case: str) -> None:
    letter = make_letter("auth.test" if case == "AUTH" else "ours.test")
    options: dict[str, Any] = {"tls": "starttls"} if case == "STARTTLS" else {"auth": USER}
    async with ours(configured_peer, **options) as sink:
        await inject(configured_peer, letter)
        message = await received(sink, letter)
    assert without_trace(message.content) == letter.content
    assert (message.tls is not None) == (case == "STARTTLS")
    assert message.identity == ("me" if case == "AUTH" else None)


@pytest.mark.parametrize(("server", "case"), cells("from", "SMTPUTF8"))
async def test_smtputf8(peer: Peer, case: str) -> None:
    letter = make_letter("ours.test", users=["grüße"], sender="jörg@back.test")
    async with ours(peer) as sink:
        await inject(peer, letter)
        message = await received(sink, letter)
    assert without_trace(message.content) == letter.content
    assert (message.sender, list(message.recipients)) == (letter.sender, letter.recipients)
    assert message.envelope.sender.smtputf8


@pytest.mark.parametrize(("server", "case"), cells("from", "100 recipients"))
async def test_recipients(peer: Peer, case: str) -> None:
    letter = make_letter("ours.test", users=[f"user{n}" for n in range(100)])
    async with ours(peer) as sink:
        await inject(peer, letter)
        message = await received(sink, letter)
    assert sorted(message.recipients) == sorted(letter.recipients)
    assert without_trace(message.content) == letter.content


@pytest.mark.parametrize(("server", "case"), cells("from", "partial refusal"))
async def test_refusal(peer: Peer, case: str) -> None:
    letter = make_letter("ours.test", users=["one", "bad", "two"])
    one, bad, two = letter.recipients
    async with ours(peer) as sink:
        sink.refuse("rcpt", 550, "no such user", "5.1.1", address=bad)
        [refused] = await inject(peer, letter)
        found = await receive(sink, letter, at_least(1 if refused else 2))
    [message] = [each for each in found if each.sender]
    assert sorted(message.recipients) == [one, two]
    assert without_trace(message.content) == letter.content
    if refused:  # it asked us before it answered
        code, text = refused.pop(bad)
        assert refused == {}
        assert code == 550
        assert b"no such user" in text
    else:
        [bounce] = [each for each in found if not each.sender]
        assert bounce.recipients == (letter.sender,)
        assert bad.encode() in bounce.content


@pytest.mark.parametrize(("server", "case"), cells("from", "reuse"))
async def test_reuse(peer: Peer, case: str) -> None:
    letters = [make_letter("ours.test") for _ in range(5)]
    if peer.flush:  # Exim keeps a connection for what waits in its queue
        await inject(peer, *letters)
    async with ours(peer) as sink:
        if peer.flush:
            await trio.run_process(peer.flush, stdin=b"", stdout=subprocess.DEVNULL)
        else:
            await inject(peer, *letters)
        messages = [await received(sink, letter) for letter in letters]
    assert [without_trace(message.content) for message in messages] == [letter.content for letter in letters]
    assert len({message.peer for message in messages}) == 1


@pytest.mark.parametrize(("server", "case"), cells("from", "LMTP"))
async def test_lmtp(peer: Peer, case: str) -> None:
    letter = make_letter("lmtp.test", BODIES["dots"], users=["one", "bad", "two"], sender="")
    async with ours(peer, lmtp=True) as sink:
        refusal = sink.refuse("end", 550, "over quota", "5.2.2", address="bad@lmtp.test")
        await inject(peer, letter)
        message = await received(sink, letter)
    assert sorted(message.recipients) == ["one@lmtp.test", "two@lmtp.test"]
    assert without_trace(message.content) == letter.content
    assert refusal.count == 1
