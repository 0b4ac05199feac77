# `trio-smtp relay` as a content filter of Postfix: smtpd → relay → smtpd. What arrives is what was sent, and a large
# message is never held.
from __future__ import annotations

import random
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from cli_process import Process
from peer_filter import Filtered, open_filtered
from peer_mail import Letter, make_letter

import trio_smtp
from trio_smtp import PoolConfig

MESSAGES = 1000
LARGE = 25 << 20  # octets
LIMIT = 300  # seconds; real servers, which flush each message to the disk twice


@pytest.fixture(scope="module")
def filtered() -> Iterator[Filtered]:
    with open_filtered() as filtered:
        yield filtered


@pytest.fixture
def relay(filtered: Filtered, monkeypatch: pytest.MonkeyPatch) -> Iterator[Process]:
    monkeypatch.setattr("cli_process.LIMIT", LIMIT)
    process = Process("relay", "--port", filtered.filter, "--to", f"127.0.0.1:{filtered.behind}", "--to-tls", "none")
    try:
        assert process.line().startswith(f"listening on 127.0.0.1:{filtered.filter} ")
        yield process
        process.signal(signal.SIGTERM)
        status, _ = process.wait()
        assert (status, process.errors()) == (0, "")
    finally:
        process.close()


def body(number: int) -> bytes:
    """Octets of all kinds but NUL, in lines of all lengths, with dots."""
    rng = random.Random(number)
    lines = [
        rng.choice((b"", b".", b"..", bytes(rng.choices(range(1, 256), k=rng.randrange(200)))))
        for _ in range(rng.randrange(40))
    ]
    return b"".join(re.sub(rb"[\r\n]", b" ", line) + b"\r\n" for line in lines)


async def test_a_thousand_messages_arrive_octet_by_octet(filtered: Filtered, relay: Process) -> None:
    letters = [make_letter("here.test", body(number)) for number in range(MESSAGES)]
    with trio.fail_after(LIMIT):
        config = PoolConfig(max_connections=10)
        options = {"tls": "none", "local_hostname": "client.test", "config": config}
        async with trio_smtp.open_pool("127.0.0.1", filtered.port, **options) as pool:  # type: ignore[arg-type]
            jobs = ((letter.sender, letter.recipients, letter.content) for letter in letters)
            async with pool.send_many(jobs) as outcomes:
                assert [outcome.error async for outcome in outcomes] == [None] * MESSAGES
        for letter in letters:
            assert await arrived(filtered, letter) == letter.content


async def arrived(filtered: Filtered, letter: Letter) -> bytes:
    [(_, content)] = await filtered.mailbox.arrived(letter.token, 1)
    return content


def peak(process: Process) -> int:
    """The most memory that a process has had so far, in octets."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    [kib] = re.findall(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(kib) << 10


async def test_large_messages_are_never_held(filtered: Filtered, relay: Process) -> None:
    async def send(content: bytes) -> None:
        letter = make_letter("here.test", content)
        options = {"tls": "none", "local_hostname": "client.test"}
        async with trio_smtp.open_client("127.0.0.1", filtered.port, **options) as client:  # type: ignore[arg-type]
            await client.send(letter.sender, letter.recipients, letter.content)
        assert await arrived(filtered, letter) == letter.content

    with trio.fail_after(LIMIT):
        await send(b"small\r\n")
        before = peak(relay)
        for _ in range(3):
            await send((b"0123456789" * 6 + b"\r\n") * (LARGE // 62))
        assert peak(relay) - before < 8 << 20


async def test_a_refusal_behind_the_filter_is_the_filters(filtered: Filtered, relay: Process) -> None:
    """Spoken to the filter as Postfix does."""
    options = {"tls": "none", "local_hostname": "client.test"}
    with trio.fail_after(LIMIT):
        async with trio_smtp.open_client("127.0.0.1", filtered.filter, **options) as client:  # type: ignore[arg-type]
            assert {"8BITMIME", "SMTPUTF8", "DSN", "PIPELINING"} <= client.extensions.keys()
            letter = make_letter("here.test")
            result = await client.send(letter.sender, [*letter.recipients, "bad@here.test"], letter.content)
            assert result.refused["bad@here.test"].enhanced == "5.1.1"
            assert "no such user" in result.refused["bad@here.test"].text
            assert re.match(r"Ok: (\d+ bytes )?queued as [0-9A-Za-z]+$", result.reply.text)
            assert await arrived(filtered, letter) == letter.content
