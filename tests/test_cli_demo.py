# `trio-smtp demo`: the whole of it as a process, and that its check notices when something is wrong.
from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from cli_process import LIMIT, TRACE, clean_environment, run

from trio_smtp._cli import demo as demo_module
from trio_smtp._cli.errors import Status
from trio_smtp._cli.maildir import Maildir
from trio_smtp._cli.samples import Sample, load_samples


def stored(maildir):
    assert list((maildir / "tmp").iterdir()) == []
    contents: Counter[Any] = Counter()
    for path in (maildir / "new").iterdir():
        data = path.read_bytes()
        trace = TRACE.match(data)
        assert trace
        assert re.search(rb" with (ESMTP|UTF8SMTP)SA id ", trace[0])
        contents[data[trace.end() :]] += 1
    return contents


def expected(count):
    return Counter({sample.content: count for sample in load_samples()})


def test_the_demo_in_a_fresh_temporary_directory(tmp_path):
    done = run("demo", env={"TMPDIR": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert re.fullmatch(r"Server on 127\.0\.0\.1:\d+: STARTTLS, throw-away certificate, AUTH required", lines[0])
    assert lines[1:5] == [f"Sending: {done}/400" for done in (100, 200, 300, 400)]
    summary = dict(line.split(maxsplit=1) for line in lines[5:])
    assert summary["Messages"] == "400 accepted of 400 (8 kinds, 50 times)"
    assert summary["Recipients"] == str(50 * sum(len(sample.recipients) for sample in load_samples()))
    assert summary["Octets"] == f"{50 * sum(len(sample.content) for sample in load_samples()):,}"
    assert summary["Check"] == "every file is byte for byte what was sent, after its trace lines"
    maildir = Path(summary["Maildir"])
    assert maildir.parent == tmp_path
    assert stored(maildir) == expected(50)
    assert list(tmp_path.iterdir()) == [maildir]  # no certificate, no key


def test_the_demo_in_json_into_a_given_directory(tmp_path):
    done = run("demo", "--json", "--count", "3", "--connections", "1", "--maildir", tmp_path / "Mail")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    summary = json.loads(done.stdout)
    assert summary.pop("seconds") > 0
    assert summary == {
        "messages": 24,
        "sent": 24,
        "recipients": 3 * sum(len(sample.recipients) for sample in load_samples()),
        "octets": 3 * sum(len(sample.content) for sample in load_samples()),
        "maildir": str(tmp_path / "Mail"),
        "verified": True,
        "failures": [],
        "status": 0,
    }
    assert stored(tmp_path / "Mail") == expected(3)


def test_messages_already_there_do_not_matter(tmp_path):
    assert run("demo", "--count", "1", "--maildir", tmp_path).returncode == 0
    assert run("demo", "--count", "1", "--maildir", tmp_path).returncode == 0
    assert stored(tmp_path) == expected(2)


def test_a_terminal_sees_a_bar(tmp_path):
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "trio_smtp", "demo", "--count", "2", "--maildir", str(tmp_path)],
        stdin=subprocess.DEVNULL,
        stdout=slave,
        stderr=slave,
        env=clean_environment({"TERM": "xterm", "COLUMNS": "80"}),
    )
    os.close(slave)
    output = b""
    try:
        while data := read(master):
            output += data
        assert process.wait(LIMIT) == 0
    finally:
        os.close(master)
        if process.poll() is None:
            process.kill()
            process.wait(LIMIT)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output.decode())
    assert "Sending" in text
    assert "100%" in text
    assert "16/16" in text
    assert "every file is byte for byte what was sent" in text


def read(descriptor):
    try:
        return os.read(descriptor, 65536)
    except OSError:  # what Linux says when the other end is closed
        return b""


def test_a_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    done = run("demo", "--maildir", tmp_path / "file")
    assert done.returncode == 71
    assert done.stderr == f"trio-smtp: cannot use {tmp_path}/file as a Maildir: Not a directory\n"


# --- the check ---


async def demonstrate(tmp_path):
    return await demo_module._demo(str(tmp_path), count=1, connections=2, as_json=False)


@pytest.mark.parametrize("damage", [b"x", b"\r\n"])
async def test_the_check_notices_a_changed_message(tmp_path, monkeypatch, capsys, damage):
    store = Maildir.store

    async def damaging(self, trace, content):
        size = await store(self, trace, content)
        if trace.recipients == ["yamada@example.net"]:
            with self.file_of(trace.queue_id).open("ab") as file:
                file.write(damage)
        return size

    monkeypatch.setattr(Maildir, "store", damaging)
    assert await demonstrate(tmp_path) is Status.DATA
    output = capsys.readouterr()
    assert "byte for byte" not in output.out
    assert output.err.count(" is not what was sent\n") == 1


async def test_the_check_notices_a_lost_message(tmp_path, monkeypatch, capsys):
    store = Maildir.store

    async def losing(self, trace, content):
        size = await store(self, trace, content)
        if trace.recipients == ["yamada@example.net"]:
            self.file_of(trace.queue_id).unlink()
        return size

    monkeypatch.setattr(Maildir, "store", losing)
    assert await demonstrate(tmp_path) is Status.DATA
    assert " was accepted but is missing: No such file or directory\n" in capsys.readouterr().err


async def test_the_check_notices_a_message_nobody_sent(tmp_path, monkeypatch, capsys):
    on_data = demo_module.Mailbox.on_data  # type: ignore[attr-defined]

    async def twice(self, session, envelope, body):
        queue_id = await on_data(self, session, envelope, body)
        await on_data(self, session, envelope, body)
        return queue_id

    monkeypatch.setattr(demo_module.Mailbox, "on_data", twice)  # type: ignore[attr-defined]
    assert await demonstrate(tmp_path) is Status.DATA
    assert "the server has stored other messages than were sent\n" in capsys.readouterr().err


async def test_a_message_that_cannot_be_sent_is_a_failure(tmp_path, monkeypatch, capsys):
    bad = Sample("bad", "a@example.com", ("no domain",), b"x\r\n")
    monkeypatch.setattr(demo_module, "load_samples", lambda: [*load_samples(), bad])
    assert await demonstrate(tmp_path) is Status.DATA
    output = capsys.readouterr()
    assert "8 accepted of 9 (9 kinds, 1 times)" in output.out
    assert "trio-smtp: from a@example.com: " in output.err
