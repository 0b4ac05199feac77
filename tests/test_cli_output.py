# Output that waits for no reader: lines are left out and counted, and mail goes on.
from __future__ import annotations

import io
import os
import re
import signal
import smtplib
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest
from cli_process import LIMIT, clean_environment

from trio_smtp._cli import output
from trio_smtp._cli.output import Outlet, say


def note(lines):
    return f"{lines} lost"


@contextmanager
def outlet_and_reader(encoding="utf-8"):
    """An outlet into a pipe, and the pipe's other end, which is not read unless the test does."""
    reading, writing = os.pipe()
    with (
        open(reading, "rb", buffering=0) as reader,
        io.TextIOWrapper(open(writing, "wb", buffering=0), encoding) as stream,
    ):
        yield Outlet(stream, note), reader


def read_lines(reader):
    """All lines until the pipe is closed, in a thread."""
    lines = []
    thread = threading.Thread(target=lambda: lines.extend(reader.read().decode().splitlines()))
    thread.start()
    return lines, thread


# --- an outlet ---


def test_lines_come_out_in_order():
    with outlet_and_reader() as (outlet, reader):
        outlet.start()
        for number in range(1000):
            outlet.put(f"line {number}")
        outlet.close()
        assert reader.read(100_000).decode().splitlines() == [f"line {number}" for number in range(1000)]


def test_a_reader_that_is_too_slow_costs_lines_and_a_count_of_them(monkeypatch):
    monkeypatch.setattr(output, "MAX_WAITING", 100_000)
    with outlet_and_reader() as (outlet, reader):
        outlet.start()
        for number in range(40_000):  # 400 KB: more than the pipe and the limit hold
            outlet.put(f"line {number:04}")
        assert outlet.is_full
        lines, thread = read_lines(reader)
        outlet.close()
        outlet._raw.close()
        thread.join(LIMIT)
    assert lines[0] == "line 0000"
    shown = [line for line in lines if line.startswith("line")]
    notes = [line for line in lines if line.endswith(" lost")]
    assert len(notes) == 1
    assert len(shown) + int(notes[0].split()[0]) == 40_000


def test_one_message_larger_than_the_limit_is_shown_where_nothing_waits(monkeypatch):
    monkeypatch.setattr(output, "MAX_WAITING", 1000)
    with outlet_and_reader() as (outlet, reader):
        outlet.start()
        outlet.put("x" * 5000)
        outlet.close()
        assert len(reader.read(10_000)) == 5001


def test_the_end_does_not_wait_for_a_reader_that_is_stuck(monkeypatch):
    monkeypatch.setattr(output, "PATIENCE", 0.05)
    with outlet_and_reader() as (outlet, _):
        outlet.start()
        outlet.put("x" * 1_000_000)
        outlet.close()


def test_characters_that_the_stream_lacks_are_escaped():
    with outlet_and_reader("cp1252") as (outlet, reader):
        outlet.put("café → Łódź")
        assert outlet.pump() is False
        assert reader.read(100) == "café \\u2192 \\u0141\xf3d\\u017a\n".encode("cp1252")


def test_without_a_thread_only_what_the_stream_takes_is_written():
    with outlet_and_reader() as (outlet, reader):
        for _ in range(100):
            outlet.put("x" * 3999)
        assert outlet.pump()  # the pipe is full, and this returns all the same
        received = 0
        while outlet.pump():
            received += len(reader.read(4000))
        assert received + len(reader.read(1_000_000)) == 400_000


def test_another_process_has_its_turn():
    with outlet_and_reader() as (outlet, reader):
        turns = open(os.devnull, "r+b")  # noqa: SIM115
        code = "import fcntl, sys; fcntl.lockf(int(sys.argv[1]), fcntl.LOCK_EX); print('locked', flush=True); input()"
        with (
            turns,
            subprocess.Popen(
                [sys.executable, "-c", code, str(turns.fileno())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=[turns.fileno()],
            ) as other,
        ):
            assert other.stdout is not None
            assert other.stdout.readline() == b"locked\n"
            outlet.share(turns)
            outlet.put("x")
            assert outlet.pump()
            other.communicate(b"\n")
            assert not outlet.pump()
            assert reader.read(10) == b"x\n"


def test_a_reader_that_is_gone_is_no_error():
    with outlet_and_reader() as (outlet, reader):
        outlet.start()
        reader.close()
        for _ in range(3):
            outlet.put("x")
        outlet.close()


def test_no_standard_output_at_all():
    outlet = Outlet(None, note)
    outlet.put("x")
    assert not outlet.pump()
    outlet.close()


def test_say_escapes_only_what_the_stream_lacks(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, "latin-1", write_through=True))
    say("café → é")
    assert raw.getvalue() == "café \\u2192 é\n".encode("latin-1")


# --- the server ---


@contextmanager
def unread(*options, env=None):
    """A ``trio-smtp serve`` whose output is not read beyond its first line; its port and the process."""
    process = subprocess.Popen(
        [sys.executable, "-m", "trio_smtp", "serve", "--port", "0", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        env=clean_environment(env),
    )
    guard = threading.Timer(LIMIT, process.kill)
    guard.start()
    try:
        assert process.stdout is not None
        line = b""
        while not line.endswith(b"\n"):
            line += process.stdout.read(1)
        match = re.match(rb"listening on 127\.0\.0\.1:(\d+) ", line)
        assert match is not None
        yield process, int(match[1])
    finally:
        guard.cancel()
        process.kill()
        process.communicate()


LARGE = b"Subject: large\r\n\r\n" + b"0123456789abcdef" * 60 + b"\r\n"


@pytest.mark.parametrize("options", [(), ("--workers", "2"), ("-v",)], ids=" ".join)
def test_a_pipe_that_is_not_read_stops_neither_mail_nor_the_end(options):
    content = LARGE * 20
    with unread("--print", *options) as (process, port):
        for _ in range(8):
            with smtplib.SMTP("127.0.0.1", port, timeout=LIMIT) as server:
                for _ in range(15):
                    assert server.sendmail("a@example.com", ["b@example.net"], content) == {}
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT) == 0


@pytest.mark.parametrize(
    "env",
    [
        {"PYTHONIOENCODING": "cp1252"},
        {"PYTHONIOENCODING": "latin-1"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=lambda env: next(iter(env.values())),
)
def test_a_message_with_characters_that_standard_output_lacks_is_taken_and_shown(env):
    with unread("--print", env=env) as (process, port):
        with smtplib.SMTP("127.0.0.1", port, timeout=LIMIT) as server:
            content = "Subject: x\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nto Łódź\r\n".encode()
            assert server.sendmail("a@example.com", ["b@example.net"], content) == {}
        process.send_signal(signal.SIGTERM)
        shown, _ = process.communicate(timeout=LIMIT)
        assert re.search(rb"to (\\u0141|\xc5\x81)", shown), shown
