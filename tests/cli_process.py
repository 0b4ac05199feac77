# The command line as a process of its own, bounded in time: what the tests of `trio-smtp` have in common.
from __future__ import annotations

import os
import queue
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from click.testing import CliRunner

from trio_smtp._cli.commands import cli

LIMIT = 60  # seconds any of these processes may live

# Our trace lines, and nothing else.
TRACE = re.compile(
    rb"Return-Path: <[^\r\n]*>\r\n(?:Delivered-To: [^\r\n]*\r\n)+"
    rb"Received: from [^\r\n]*\r\n(?:\t[^\r\n]*\r\n)+"
)


def tool(name):
    """The path of a program that others wrote; the test is skipped without it, but fails where none may be missing."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        if os.environ.get("TRIO_SMTP_REQUIRE_TOOLS"):
            pytest.fail(f"{name} is not installed, and TRIO_SMTP_REQUIRE_TOOLS is set")
        pytest.skip(f"{name} is not installed")
    return path


def run(*args, stdin=b"", env=None, stdout=subprocess.PIPE, stderr=subprocess.PIPE):
    """Run ``trio-smtp`` to its end; the result has ``returncode``, and ``stdout`` and ``stderr`` as text."""
    done = subprocess.run(
        [sys.executable, "-m", "trio_smtp", *map(str, args)],
        input=stdin,
        stdout=stdout,
        stderr=stderr,
        timeout=LIMIT,
        env=clean_environment(env),
        check=False,
    )
    done.stdout, done.stderr = (done.stdout or b"").decode(), (done.stderr or b"").decode()
    return done


def invoke(*args, **options):
    """The same in this process, for what neither signals nor other programs have a part in; as click's tests do it."""
    return CliRunner().invoke(cli, [str(arg) for arg in args], prog_name="trio-smtp", **options)


def clean_environment(extra=None):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRIO_SMTP_")}
    return {**environment, **(extra or {})}


def found(match: re.Match[str] | None) -> str:
    """The first group of a match, which there must be."""
    assert match is not None
    return match[1]


class Process:
    """A running ``trio-smtp``, or a program in its place; its lines are read as they come."""

    def __init__(self, *args, env=None, code=None):
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self._process = subprocess.Popen(
            [sys.executable, *(("-m", "trio_smtp") if code is None else ("-c", code)), *map(str, args)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            encoding="utf-8",
            env=clean_environment(env),
        )
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._guard = threading.Timer(LIMIT, self._process.kill)
        self._guard.start()

    def _read(self):
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def line(self):
        """The next line of standard output; an error when there is none."""
        line = self._lines.get(timeout=LIMIT)
        if line is None:
            pytest.fail(f"it has ended; standard error: {self.errors()}")
        return line

    def errors(self):
        self._errors.seek(0)
        return self._errors.read().decode()

    @property
    def pid(self):
        return self._process.pid

    def signal(self, number=signal.SIGTERM):
        self._process.send_signal(number)

    def wait(self):
        """Wait for the end; exit status and remaining lines."""
        status = self._process.wait(LIMIT)
        self._reader.join(LIMIT)
        lines = []
        while (line := self._lines.get(timeout=LIMIT)) is not None:
            lines.append(line)
        return status, lines

    def close(self):
        self._guard.cancel()
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(LIMIT)
        self._reader.join(LIMIT)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._errors.close()


class Served:
    """A ``trio-smtp serve`` that listens."""

    def __init__(self, process, maildir):
        self.process = process
        self.maildir = maildir
        self.greeting = process.line()
        self.port = int(found(re.match(r"listening on 127\.0\.0\.1:(\d+) ", self.greeting)))

    def messages(self):
        """The content of the files, below our trace lines, oldest first."""
        return [content for _, content in self.traced()]

    def traced(self):
        assert list((self.maildir / "tmp").iterdir()) == []
        paths = sorted((self.maildir / "new").iterdir(), key=lambda path: int(found(re.search(r"Q(\d+)\.", path.name))))
        pairs = []
        for path in paths:
            data = path.read_bytes()
            trace = TRACE.match(data)
            assert trace, data
            pairs.append((trace[0].decode(), data[trace.end() :]))
        return pairs


@contextmanager
def serving(directory, *options, env=None):
    """``trio-smtp serve`` on a free port into a Maildir under `directory`."""
    maildir = Path(directory, "Maildir")
    process = Process("serve", "--port", "0", "--maildir", maildir, *options, env=env)
    try:
        yield Served(process, maildir)
    finally:
        process.close()


def two_ports() -> int:
    """A port that is free now, and so is the next one."""
    while True:
        with socket.socket() as one, socket.socket() as two, suppress(OSError, OverflowError):
            one.bind(("127.0.0.1", 0))
            port: int = one.getsockname()[1]
            two.bind(("127.0.0.1", port + 1))
            return port


def wait_for(condition, words="it did not happen"):
    """Wait until a condition holds of what another process does, which is nothing that one could wait for."""
    until = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < until, words
        time.sleep(0.02)


# --- sessions ---


def talk(port, *commands):
    """A connection after some commands, each answered."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=LIMIT)
    lines = connection.makefile("rb")
    assert lines.readline().startswith(b"220 ")
    for command in commands:
        connection.sendall(command + b"\r\n")
        assert lines.readline()[:1] in b"23"
    return connection, lines


BEFORE_CONTENT = (b"HELO x", b"MAIL FROM:<a@x.example>", b"RCPT TO:<b@x.example>", b"DATA")


def event_of_message(content):
    """What `--json` says of a message from a@example.com to b and c@example.net, beside its id or the reply."""
    return {
        "event": "message",
        "sender": "a@example.com",
        "recipients": ["b@example.net", "c@example.net"],
        "size": len(content),
        "peer": "127.0.0.1",
        "protocol": "ESMTP",
        "identity": None,
    }


# --- workers ---


def workers_of(served):
    """The process ids that the second line names."""
    line = served.process.line()
    assert line.startswith("workers: processes ")
    return [int(pid) for pid in line.removeprefix("workers: processes ").split(", ")]


def is_alive(pid):
    """Whether there is such a process; one that was not waited for yet counts as gone."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_gone(pids):
    wait_for(lambda: not any(map(is_alive, pids)), "a worker is left")
