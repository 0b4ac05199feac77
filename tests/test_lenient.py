# What lenient_addresses tolerates, in a session; the list is in docs/supported.md.
from __future__ import annotations

import platform

import pytest
from support import Recorder, session

from trio_smtp import ServerConfig


@pytest.mark.parametrize(
    ("line", "address"),
    [
        ("MAIL FROM:  <a@a.test>", "a@a.test"),
        ("MAIL FROM:a@a.test", "a@a.test"),
        ("MAIL FROM: a@a.test SIZE=1", "a@a.test"),
        ("MAIL FROM:<scanner>", "scanner"),
        ("MAIL FROM:<a@a.test.>", "a@a.test"),
        ("MAIL FROM:<a..b@a.test>", "a..b@a.test"),
    ],
)
async def test_what_devices_send_is_taken_if_the_server_says_so(line, address):
    recorder = Recorder()
    async with session(recorder, lenient_addresses=True) as peer:
        assert await peer.ask(line) == "250 2.1.0 OK"
    assert recorder.seen[2][1].address == address
    async with session() as peer:
        assert (await peer.ask(line)).startswith("501 ")


@pytest.mark.parametrize("local_part", ["a" * 65, "a" * 256])
async def test_a_long_local_part_is_taken_always(local_part):
    async with session() as peer:
        assert await peer.ask(f"MAIL FROM:<{local_part}@a.test>") == "250 2.1.0 OK"
        assert await peer.ask(f"RCPT TO:<{local_part}@a.test>") == "250 2.1.5 OK"


async def test_commands_that_end_with_lf_alone_are_taken_if_the_server_says_so():
    recorder = Recorder()
    async with session(recorder, lenient_addresses=True) as peer:
        await peer.send(b"MAIL FROM:<a@a.test>\nRCPT TO:<b@b.test>\nDATA\n")
        for code in ("250", "250", "354"):
            assert (await peer.line()).startswith(code)
        await peer.send(b"x\r\n.\r\nQUIT\n")
        assert await peer.line() == "250 2.0.0 OK: queued"
        assert (await peer.line()).startswith("221 ")
    assert recorder.messages == [("a@a.test", ["b@b.test"], b"x\r\n")]


async def test_an_auth_exchange_may_end_its_lines_so_too():
    async with session(Recorder(on_auth=True), lenient_addresses=True, allow_insecure_auth=True) as peer:
        await peer.send(b"AUTH LOGIN\n")
        assert (await peer.line()).startswith("334 ")
        await peer.send(b"eA==\neQ==\n")
        assert (await peer.line()).startswith("334 ")
        assert (await peer.line()).startswith("235 ")


async def test_a_message_still_ends_with_cr_lf_only():
    """What decides where a message ends is never tolerated: SMTP smuggling lives on that."""
    recorder = Recorder()
    async with session(recorder, lenient_addresses=True) as peer:
        await peer.send(b"MAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\nDATA\r\n")
        for code in ("250", "250", "354"):
            assert (await peer.line()).startswith(code)
        await peer.send(b"x\n.\nMAIL FROM:<c@c.test>\n\r\n.\r\n")
        assert (await peer.line()).startswith("550 5.6.11")
    assert recorder.messages == []


async def test_without_it_a_command_that_ends_with_lf_alone_ends_the_session():
    async with session() as peer:
        await peer.send(b"NOOP\n")
        assert (await peer.line()).startswith("500 ")


@pytest.mark.parametrize("node", ["MÜLLER-PC", "Z170-D3H Box", "", "a..b"])
def test_a_config_is_made_on_a_machine_of_any_name(node, monkeypatch):
    monkeypatch.setattr(platform, "node", lambda: node)
    assert ServerConfig().hostname in ("xn--mller-pc-65a", "localhost")
