# OpenDKIM's own test mode verifies what our client and pool have signed and sent, after each path to the wire.
from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from dkim_keys import DOMAIN, SELECTORS, make_signer, record
from peer_daemons import START, open_directory, tool
from test_client_signing import SERVERS, TEXTS, composed

import trio_smtp
from trio_smtp import PoolConfig, ServerConfig
from trio_smtp.testing import open_sink

LONG = f"{'a' * 60}.{'b' * 60}.test"
_CONFIG = """
Mode v
Socket inet:0@localhost
UserID {owner}
TestPublicKeys {directory}/keys
"""


def verdict(directory: Path, message: bytes) -> str:
    """What ``opendkim -t`` says of a message, with the keys from a file instead of the DNS."""
    opendkim = tool("opendkim")
    keys = (
        b"%s._domainkey.%s %s\n" % (selector.encode(), domain.encode(), record(selector))
        for selector in SELECTORS
        for domain in (DOMAIN, LONG)
    )
    (directory / "keys").write_bytes(b"".join(keys))
    (directory / "conf").write_text(_CONFIG.format(directory=directory, owner=directory.owner()))
    (directory / "message").write_bytes(message)
    command = [opendkim, "-v", "-x", str(directory / "conf"), "-t", str(directory / "message")]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=START, check=False)
    return done.stdout.decode() + done.stderr.decode()


def is_valid(directory: Path, message: bytes) -> bool:
    said = verdict(directory, message)
    assert "verification" in said, said
    return "succeeded" in said and "failed" not in said


@pytest.mark.parametrize("selector", SELECTORS)
@pytest.mark.parametrize("server", SERVERS)
async def test_every_path_to_the_wire(selector: str, server: str) -> None:
    config, client_config = SERVERS[server]
    options: dict[str, Any] = {"sign": make_signer(selector), "client_config": client_config}
    options["config"] = PoolConfig(max_connections=1, pipeline_depth=2 if "early" in server else 1)
    jobs = (("me@x.test", ["you@y.test"], text) for text in TEXTS.values())
    async with (
        open_sink(config=config) as sink,
        trio_smtp.open_pool(sink.host, sink.port, **{**sink.client_options, **options}) as pool,
    ):
        async with pool.send_many(jobs) as outcomes:
            assert [outcome.error async for outcome in outcomes] == [None] * len(TEXTS)
        await pool.send_message(composed())
    with open_directory("opendkim") as directory:
        for message in sink.messages:
            assert is_valid(directory, message.content)


async def test_seven_bits_and_a_list_that_is_split() -> None:
    config = ServerConfig(disabled_extensions=("8BITMIME", "SMTPUTF8"), max_recipients=1)
    async with open_sink(config=config) as sink:
        options = {**sink.client_options, "sign": make_signer()}
        async with trio_smtp.open_client(sink.host, sink.port, **options) as client:
            await client.send_message(composed(), recipients=["a@y.test", "b@y.test"])
    assert len(sink.messages) == 2
    with open_directory("opendkim") as directory:
        for message in sink.messages:
            assert message.content.isascii()
            assert is_valid(directory, message.content)


@pytest.mark.parametrize("selector", SELECTORS)
def test_a_long_domain(selector: str) -> None:
    message = TEXTS["plain"]
    with open_directory("opendkim") as directory:
        assert is_valid(directory, make_signer(selector, LONG).sign(message) + message)


def test_a_changed_message_is_not_valid() -> None:
    message = TEXTS["plain"]
    signed = make_signer().sign(message) + message
    with open_directory("opendkim") as directory:
        assert is_valid(directory, signed)
        assert not is_valid(directory, signed.replace(b"hello", b"hallo"))
        assert not is_valid(directory, b"From: other@x.test\r\n" + signed)
