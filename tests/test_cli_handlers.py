# The handlers behind `serve` and `demo`, over memory streams and with stores that fail.
from __future__ import annotations

import dataclasses
import errno
import re
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import memory_stream_pair

import trio_smtp
from trio_smtp._cli.handlers import Mailbox, Printer, Private, discard, raw_form, readable_form
from trio_smtp._cli.maildir import Maildir
from trio_smtp._cli.received import ReceivedFields

ENVELOPE = b"EHLO client.example\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\n"


async def converse(handler, script, **config):
    """What the server says to a client that says `script` and QUIT."""
    ours, theirs = memory_stream_pair()
    server = trio_smtp.Server(handler, config=trio_smtp.ServerConfig(hostname="mx", **config))
    answers = bytearray()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_stream, theirs)
        await ours.send_all(script + b"QUIT\r\n")
        async for data in ours:
            answers += data
    return answers.decode().splitlines()


async def test_a_message_over_a_stream_without_addresses(tmp_path):
    received: list[Any] = []
    handler = Mailbox(Maildir(tmp_path, hostname="mx").store, hostname="mx", report=received.append)
    lines = await converse(handler, ENVELOPE + b"DATA\r\n..dot\r\n.\r\n")
    [path] = (tmp_path / "new").iterdir()
    queue_id = path.name.removesuffix(".mx")
    assert f"250 2.0.0 OK: queued as {queue_id}" in lines
    assert path.read_bytes().endswith(b"\r\n.dot\r\n")
    assert b"Received: from client.example\r\n\tby mx (trio_smtp) with ESMTP id " in path.read_bytes()
    [report] = received
    assert (report.queue_id, report.sender, report.recipients) == (queue_id, "a@example.com", ("b@example.net",))
    assert (report.size, report.peer, report.protocol, report.identity) == (6, "", "ESMTP", None)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
async def test_a_full_disk_is_said_to_be_temporary(number):
    async def full(trace, content):
        async for _ in content:
            raise OSError(number, "full")

    lines = await converse(Mailbox(full, hostname="mx"), ENVELOPE + b"DATA\r\nx\r\n.\r\n")
    assert "452 4.3.1 insufficient system storage" in lines


async def test_another_error_is_not_told_to_the_client(caplog):
    async def broken(trace, content):
        async for _ in content:
            raise PermissionError(errno.EACCES, "secret path")

    lines = await converse(Mailbox(broken, hostname="mx"), ENVELOPE + b"DATA\r\nx\r\n.\r\n")
    assert any(line.startswith("451 4.3.0 ") for line in lines)
    assert "secret" not in "".join(lines)
    assert "secret path" in caplog.text


async def test_a_client_that_vanishes_leaves_nothing(tmp_path):
    received: list[Any] = []
    handler = Mailbox(Maildir(tmp_path).store, hostname="mx", report=received.append)
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio_smtp.Server(handler).serve_stream, theirs)
        await ours.send_all(ENVELOPE + b"DATA\r\n" + b"x" * 76 + b"\r\n")
        await trio.testing.wait_all_tasks_blocked()
        await ours.aclose()
    assert received == []
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


async def test_a_bare_newline_leaves_nothing(tmp_path):
    lines = await converse(
        Mailbox(Maildir(tmp_path).store, hostname="mx"), ENVELOPE + b"DATA\r\nx\ny\r\n.\r\n", bare_newlines="reject"
    )
    assert any(line.startswith("550 5.6.11 ") for line in lines)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


async def test_a_login(tmp_path):
    received: list[Any] = []
    mailbox = Mailbox(discard, hostname="mx", report=received.append)
    handler = Private(mailbox, users={"me": "s3cret"})
    log_in = b"EHLO x\r\nAUTH PLAIN AG1lAHdyb25n\r\nAUTH PLAIN AGFuAHMzY3JldA==\r\nAUTH PLAIN AG1lAHMzY3JldA==\r\n"
    options = {"auth": "required", "allow_insecure_auth": True}
    lines = await converse(handler, log_in + ENVELOPE.partition(b"\r\n")[2] + b"DATA\r\nx\r\n.\r\n", **options)
    codes = [line[:3] for line in lines if line[:1] in "2345" and "AUTH" not in line]
    assert codes.count("535") == 2
    assert codes.count("235") == 1
    [report] = received
    assert (report.identity, report.protocol, report.size) == ("me", "ESMTPA", 3)


def trace(queue_id="1.M2"):
    return ReceivedFields(
        queue_id=queue_id,
        hostname="mx",
        hello="x",
        peer=None,
        protocol="SMTP",
        tls="",
        sender="",
        recipients=["b@x"],
        date=datetime(2026, 11, 2, tzinfo=UTC),
    )


async def parts(*chunks):
    for chunk in chunks:
        await trio.lowlevel.checkpoint()
        yield chunk


async def test_a_message_is_printed_in_one_piece():
    printed: list[str] = []
    printer = Printer(printed.append, raw_form)
    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(printer.store, trace(f"id{number}"), parts(b"Subject: %d\r\n" % number, b"\r\nbody"))
    assert len(printed) == 20
    for message in printed:
        name = message.removeprefix("----- id").split()[0]
        assert message.endswith(f"\nSubject: {name}\n\nbody")


async def test_a_printed_message_cannot_reach_the_terminal():
    printed: list[str] = []
    size = await Printer(printed.append, raw_form).store(
        trace(), parts(b"a\x1b]0;title\x07b\r\nc\xff\r\n\tTAB\rCR\x00")
    )
    assert size == 26
    assert printed[0].endswith("\na\\x1b]0;title\\x07b\nc\\xff\n\tTAB\\x0dCR\\x00")


@pytest.mark.parametrize("colour", [False, True])
async def test_a_message_for_people_is_below_a_line_that_says_how_it_came(colour):
    printed: list[str] = []
    printer = Printer(printed.append, partial(readable_form, colour=colour))
    evil = dataclasses.replace(trace("1.M2P3Rab12Q7"), identity="me\x1b[31m", peer="192.0.2.9", sender="a@x")
    await printer.store(evil, parts(b"Subject: =?utf-8?q?caf=C3=A9?=\r\n\r\nx\r\n"))
    [text] = printed
    assert ("\x1b[" in text) == colour
    assert "\x1b[31m" not in text
    plain = re.sub(r"\x1b\[\d*m", "", text)
    assert (
        plain.splitlines()
        == [
            "----- ab12Q7 00:00:00, 37 octets, SMTP from 192.0.2.9 as me\\x1b[31m",
            "Envelope  <a@x> to <b@x>",
            "Subject   café",
            "",
            "x",
            "",
            "",
        ][: len(plain.splitlines())]
    )
