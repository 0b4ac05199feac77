# `trio-smtp load`: to our own server, and where none is.
from __future__ import annotations

import json
import re
import socket

import pytest
from cli_process import Process, run, serving

from trio_smtp._cli import load


def test_messages_over_several_connections(tmp_path):
    with serving(tmp_path) as served:
        done = run(
            *f"load --server 127.0.0.1:{served.port} --messages 40 --connections 3 --size 1K --hostname x".split()
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert [len(message) for message in served.messages()] == [1024] * 40
    *progress, messages, time, latency = done.stdout.splitlines()
    assert progress == [f"Sending: {n}/40" for n in (10, 20, 30, 40)]
    assert messages == "Messages   40 accepted of 40, 1,024 octets each"
    assert re.fullmatch(r"Time       [\d.]+ s: [\d,]+ messages/s, [\d.]+ MB/s", time)
    assert re.fullmatch(r"Latency    p50 [\d.]+ ms, p95 [\d.]+ ms, p99 [\d.]+ ms, max [\d.]+ ms", latency)


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_refusals_are_counted_by_kind(tmp_path, options):
    with serving(tmp_path, "--max-size", "1K") as served:
        command = f"load --server 127.0.0.1:{served.port} --messages 4 --connections 2 --size 2K --hostname x"
        done = run(*command.split(), *options)
    assert done.returncode == 69
    if options:
        summary = json.loads(done.stdout)
        assert (summary["accepted"], summary["status"], summary["latency"]) == (0, 69, {})
        assert summary["errors"] == {"MessageTooLargeError": 4}
    else:
        assert done.stderr.startswith("trio-smtp: 4 times MessageTooLargeError, first: ")
        assert done.stderr.count("\n") == 1


def test_an_interrupt_still_has_a_summary(tmp_path):
    with serving(tmp_path) as served:
        command = f"load --server 127.0.0.1:{served.port} --messages 400000 --connections 3 --hostname x"
        process = Process(*command.split(), "--json")
        try:
            while len(list((served.maildir / "new").iterdir())) < 50:
                assert process.errors() == ""
            process.signal(2)
            status, [line] = process.wait()
            assert (status, process.errors()) == (130, "trio-smtp: interrupted\n")
        finally:
            process.close()
        summary = json.loads(line)
        assert (summary["status"], summary["errors"]) == (130, {})
        assert 0 < summary["accepted"] <= len(served.messages())


def test_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    done = run("load", "--server", f"127.0.0.1:{port}")
    assert (done.returncode, done.stdout) == (68, "")
    assert done.stderr == f"trio-smtp: cannot connect to 127.0.0.1:{port}: Connection refused\n"


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        ("--server x --size 127", 2, "--size must be at least 128"),
        ("--server a..b:25", 68, "cannot connect to a..b:25"),
    ],
)
def test_complaints(options, status, words):
    done = run("load", *options.split())
    assert done.returncode == status
    assert words in done.stderr


@pytest.mark.parametrize("octets", [*range(128, 300), 4096])
def test_a_message_has_its_size_and_whole_lines(octets):
    message = load._message(octets)
    assert len(message) == octets
    assert message.endswith(b"\r\n")
    assert message.count(b"\r") == message.count(b"\n") == message.count(b"\r\n")


def test_percentiles_are_those_of_real_messages():
    assert load._percentiles([]) == {}
    assert load._percentiles([3.0]) == {"p50": 3, "p95": 3, "p99": 3, "max": 3}
    assert load._percentiles(range(100, 0, -1)) == {"p50": 50, "p95": 95, "p99": 99, "max": 100}
