# The Maildir writer by itself: whole files or none, and trace lines that no peer can break out of.
from __future__ import annotations

import errno
import os
import re
import socket
import time
from datetime import UTC, datetime

import pytest
import trio

from trio_smtp._cli import maildir as maildir_module
from trio_smtp._cli.maildir import CHUNK, CLEANED_EVERY, Maildir, unique_ids
from trio_smtp._cli.received import ReceivedFields, protocol_name

NOON = datetime(2026, 11, 2, 12, 0, 0, tzinfo=UTC)


def trace(**changes):
    fields = {
        "queue_id": "1.M2P3R4Q5",
        "hostname": "mx.example.net",
        "hello": "client.example.com",
        "peer": "192.0.2.9",
        "protocol": "ESMTPS",
        "tls": "TLSv1.3 TLS_AES_256_GCM_SHA384",
        "sender": "ada@example.com",
        "recipients": ["grace@example.net"],
        "date": NOON,
    }
    return ReceivedFields(**{**fields, **changes})


async def chunks(*parts):
    for part in parts:
        await trio.lowlevel.checkpoint()
        yield part


def files(directory):
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


# --- the file ---


async def test_a_message_is_one_file_in_new_byte_for_byte(tmp_path):
    box = Maildir(tmp_path / "deep" / "Mail", hostname="mx")
    parts = [b"Subject: x\r\n", b"", b"\r\n.dots\r\n..\r\n", b"\x00\xff bare \n and \r stay\r\n"]
    size = await box.store(trace(), chunks(*parts))
    assert size == len(b"".join(parts))
    assert files(box.path) == ["new/1.M2P3R4Q5.mx"]
    assert box.file_of("1.M2P3R4Q5").read_bytes() == trace().to_bytes() + b"".join(parts)


async def test_the_directories_are_private_and_an_existing_maildir_is_used_as_it_is(tmp_path):
    Maildir(tmp_path / "Mail")
    (tmp_path / "Mail" / "cur" / "old:2,S").write_bytes(b"kept")
    box = Maildir(tmp_path / "Mail")
    assert (box.path / "new").stat().st_mode & 0o777 == 0o700
    assert files(box.path) == ["cur/old:2,S"]


def test_each_directory_that_is_made_is_flushed_into_the_one_above(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")))
    Maildir(tmp_path / "deep" / "Mail")
    box = tmp_path / "deep" / "Mail"
    assert synced == [str(tmp_path), str(tmp_path / "deep"), str(box), str(box), str(box)]
    assert box.stat().st_mode & 0o777 == 0o700
    synced.clear()
    Maildir(box)
    assert synced == []


def old(path, *, hours):
    path.write_bytes(b"half")
    at = time.time() - hours * 3600
    os.utime(path, (at, at))
    return path


def test_what_dead_deliveries_have_left_is_removed_after_36_hours(tmp_path):
    box = Maildir(tmp_path / "box")
    (box.path / "tmp" / "directory").mkdir()
    (box.path / "tmp" / "link").symlink_to(old(tmp_path / "elsewhere", hours=100))
    for name in ("tmp/.hidden", "tmp/37", "new/37", "cur/37"):
        old(box.path / name, hours=100 if name.endswith("hidden") else 37)
    old(box.path / "tmp" / "35", hours=35)
    os.utime(old(box.path / "tmp" / "read", hours=37), (time.time(), 0))
    os.utime(old(box.path / "tmp" / "written", hours=37), (0, time.time()))
    assert box.remove_abandoned() == 1
    assert files(box.path) == ["cur/37", "new/37", "tmp/.hidden", "tmp/35", "tmp/link", "tmp/read", "tmp/written"]


def test_a_directory_that_is_not_ours_is_not_cleaned(tmp_path):
    box = Maildir(tmp_path)
    (tmp_path / "tmp").rmdir()
    assert box.remove_abandoned() == 0


async def test_it_is_cleaned_at_once_and_each_hour(tmp_path, autojump_clock, monkeypatch):
    async def at_once(function):  # the clock does not wait for threads
        await trio.lowlevel.checkpoint()
        function()

    monkeypatch.setattr(maildir_module.trio.to_thread, "run_sync", at_once)  # type: ignore[attr-defined]
    box = Maildir(tmp_path)
    with trio.move_on_after(CLEANED_EVERY * 2.5):
        old(tmp_path / "tmp" / "first", hours=37)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(box.keep_clean)
            await trio.sleep(1)
            assert files(tmp_path) == []
            old(tmp_path / "tmp" / "second", hours=37)
            await trio.sleep(CLEANED_EVERY)
            assert files(tmp_path) == []
            nursery.cancel_scope.cancel()


async def test_an_empty_message_is_its_trace(tmp_path):
    box = Maildir(tmp_path, hostname="mx")
    assert await box.store(trace(), chunks()) == 0
    assert box.file_of("1.M2P3R4Q5").read_bytes() == trace().to_bytes()


async def test_a_message_larger_than_a_chunk_is_whole(tmp_path):
    box = Maildir(tmp_path, hostname="mx")
    parts = [bytes([i]) * (CHUNK // 3) for i in range(10)]
    assert await box.store(trace(), chunks(*parts)) == sum(map(len, parts))
    assert box.file_of("1.M2P3R4Q5").read_bytes() == trace().to_bytes() + b"".join(parts)


async def test_a_small_message_costs_one_thread_whatever_its_chunks(tmp_path, monkeypatch):
    box = Maildir(tmp_path)
    hops = []
    original = trio.to_thread.run_sync

    async def counted(function, *args, **kwargs):
        hops.append(function.__name__)
        return await original(function, *args, **kwargs)

    monkeypatch.setattr(maildir_module.trio.to_thread, "run_sync", counted)  # type: ignore[attr-defined]
    await box.store(trace(), chunks(*[b"x"] * 500))
    assert hops == ["finish"]


async def test_the_file_is_synced_before_it_is_renamed_and_its_name_after(tmp_path, monkeypatch):
    box = Maildir(tmp_path, hostname="mx")
    calls = []
    monkeypatch.setattr(os, "fsync", lambda fd: calls.append(f"sync {os.readlink(f'/proc/self/fd/{fd}')}"))
    rename = os.rename
    monkeypatch.setattr(os, "rename", lambda old, new: (calls.append("rename"), rename(old, new)))  # type: ignore[func-returns-value]
    await box.store(trace(), chunks(b"x"))
    assert calls == [f"sync {tmp_path}/tmp/1.M2P3R4Q5.mx", "rename", f"sync {tmp_path}/new"]


async def test_an_existing_temporary_file_is_not_overwritten(tmp_path):
    box = Maildir(tmp_path, hostname="mx")
    (tmp_path / "tmp" / "1.M2P3R4Q5.mx").write_bytes(b"somebody else's")
    with pytest.raises(FileExistsError):
        await box.store(trace(), chunks(b"x"))
    assert (tmp_path / "tmp" / "1.M2P3R4Q5.mx").read_bytes() == b"somebody else's"
    assert files(tmp_path) == ["tmp/1.M2P3R4Q5.mx"]


@pytest.mark.parametrize("size", [10, 3 * CHUNK])
async def test_an_error_of_the_content_leaves_nothing(tmp_path, size):
    box = Maildir(tmp_path)

    async def broken():
        yield b"x" * size
        raise ConnectionError("the client went away")

    with pytest.raises(ConnectionError):
        await box.store(trace(), broken())
    assert files(tmp_path) == []


@pytest.mark.parametrize("size", [10, 3 * CHUNK])
async def test_a_cancellation_leaves_nothing(tmp_path, size):
    box = Maildir(tmp_path)

    async def stalled():
        yield b"x" * size
        scope.cancel()
        await trio.sleep_forever()

    with trio.CancelScope() as scope:
        await box.store(trace(), stalled())
    assert scope.cancelled_caught
    assert files(tmp_path) == []


@pytest.mark.parametrize("failing", ["write", "fsync", "close", "rename", "sync_directory"])
@pytest.mark.parametrize("size", [10, 3 * CHUNK])
async def test_a_full_disk_leaves_nothing_wherever_it_shows(tmp_path, monkeypatch, failing, size):
    box = Maildir(tmp_path)
    before = set(os.listdir("/proc/self/fd"))

    def full(*args):
        if failing == "close":
            close(*args)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    close = os.close
    if failing == "sync_directory":
        monkeypatch.setattr(maildir_module, "_sync_directory", full)
    else:
        monkeypatch.setattr(os, failing, full)
    with pytest.raises(OSError, match="No space left") as caught:
        await box.store(trace(), chunks(b"x" * size))
    monkeypatch.undo()
    assert caught.value.errno == errno.ENOSPC
    assert files(tmp_path) == []
    assert set(os.listdir("/proc/self/fd")) <= before


async def test_many_at_once(tmp_path):
    box = Maildir(tmp_path)
    ids = unique_ids()
    async with trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(box.store, trace(queue_id=next(ids)), chunks(b"%d" % number))
    stored = [path.read_bytes() for path in (tmp_path / "new").iterdir()]
    assert len(stored) == 50
    assert files(tmp_path / "tmp") == []


def test_names_are_unique_and_follow_the_maildir_convention(tmp_path):
    first, second = unique_ids(), unique_ids()
    names = [next(first) for _ in range(1000)] + [next(second) for _ in range(1000)]
    assert len(set(names)) == 2000
    assert all(re.fullmatch(r"\d+\.M\d{6}P\d+R[0-9a-f]{6}Q\d+", name) for name in names)
    box = Maildir(tmp_path, hostname="a/b:c")
    assert box.file_of("id").name == r"id.a\057b\072c"
    assert Maildir(tmp_path).file_of("id").name.startswith("id." + socket.gethostname()[:1])


# --- the trace lines ---


def test_the_trace_of_one_recipient():
    assert trace().to_bytes().decode() == (
        "Return-Path: <ada@example.com>\r\n"
        "Delivered-To: grace@example.net\r\n"
        "Received: from client.example.com ([192.0.2.9])\r\n"
        "\tby mx.example.net (trio_smtp) with ESMTPS id 1.M2P3R4Q5\r\n"
        "\t(TLSv1.3 TLS_AES_256_GCM_SHA384)\r\n"
        "\tfor <grace@example.net>;\r\n"
        "\tMon, 02 Nov 2026 12:00:00 +0000\r\n"
    )


def test_the_trace_of_several_recipients_and_the_null_sender():
    text = trace(sender="", recipients=["a@x", "jürgen@x"], tls="", peer="2001:db8::1").to_bytes().decode()
    assert text == (
        "Return-Path: <>\r\n"
        "Delivered-To: a@x\r\n"
        "Delivered-To: jürgen@x\r\n"
        "Received: from client.example.com ([IPv6:2001:db8::1])\r\n"
        "\tby mx.example.net (trio_smtp) with ESMTPS id 1.M2P3R4Q5;\r\n"
        "\tMon, 02 Nov 2026 12:00:00 +0000\r\n"
    )


@pytest.mark.parametrize(
    ("hello", "written"),
    [
        ("[192.0.2.1]", "[192.0.2.1]"),
        ("[IPv6:2001:db8::1]", "[IPv6:2001:db8::1]"),
        ("münchen.example", "münchen.example"),
        ("", "unknown"),
        ("two words", "two?words"),
        ("a (b) <c>; d", "a??b???c???d"),
        ("x\r\nEvil: yes", "x??Evil:?yes"),
        ("x\rEvil", "x?Evil"),
        ("x\x85y\u2028z\x00", "x?y?z?"),
        ("\ud800", "?"),
        ("n" * 300, "n" * 255),
    ],
)
def test_hello_name_is_never_folded_into_the_header_unescaped(hello, written):
    text = trace(hello=hello).to_bytes().decode()
    assert f"Received: from {written} ([192.0.2.9])\r\n" in text
    assert len(text.splitlines()) == len(trace().to_bytes().splitlines())


@pytest.mark.parametrize("evil", ["a\r\nX: y@z", "a\ny@z", "\x00@z", "\x9b31m@z", "\ud812@z"])
def test_addresses_cannot_add_lines(evil):
    text = trace(sender=evil, recipients=[evil]).to_bytes().decode()
    assert text.count("\r\n") == trace().to_bytes().count(b"\r\n")
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]|[^\r]\n", text)


def test_no_line_is_longer_than_998_octets():
    data = trace(sender="a" * 5000, recipients=["b" * 5000], hello="c" * 5000).to_bytes()
    assert max(map(len, data.split(b"\r\n"))) <= 998


@pytest.mark.parametrize("peer", [None, "/run/lmtp.sock", ""])
def test_a_peer_without_an_address(peer):
    assert b"Received: from client.example.com\r\n" in trace(peer=peer).to_bytes()


def test_the_scope_of_a_link_local_address_is_left_out():
    assert b"([IPv6:fe80::1])" in trace(peer="fe80::1%eth0").to_bytes()


@pytest.mark.parametrize(
    ("facts", "name"),
    [
        ("", "SMTP"),
        ("tls", "SMTP"),
        ("esmtp", "ESMTP"),
        ("esmtp tls", "ESMTPS"),
        ("esmtp authenticated", "ESMTPA"),
        ("esmtp tls authenticated", "ESMTPSA"),
        ("esmtp smtputf8", "UTF8SMTP"),
        ("esmtp smtputf8 tls authenticated", "UTF8SMTPSA"),
        ("lmtp", "LMTP"),
        ("lmtp esmtp tls", "LMTPS"),
        ("lmtp esmtp smtputf8 tls authenticated", "UTF8LMTPSA"),
    ],
)
def test_protocol_names(facts, name):
    names = ("esmtp", "lmtp", "tls", "authenticated", "smtputf8")
    assert protocol_name(**{fact: fact in facts.split() for fact in names}) == name
