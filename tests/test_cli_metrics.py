# `--metrics`: what Prometheus would read of `trio-smtp serve`, alone and with workers, of `relay`, and of what sends.
from __future__ import annotations

import re
import smtplib
import socket
import subprocess
import sys
import urllib.request

import click
import pytest
from cli_process import LIMIT, Process, clean_environment, found, run, serving, two_ports
from prometheus_client.parser import text_string_to_metric_families

from trio_smtp._cli.metrics import Place, place, serving_metrics


def read(url):
    with urllib.request.urlopen(url, timeout=LIMIT) as answer:
        text = answer.read().decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def urls(served, count):
    told: list[str] = []
    while len(told) < count:
        match = re.search(r"metrics on (http://\S+)", served.process.line())
        told += [match[1]] if match else []
    return told


def send(served, count=1):
    for _ in range(count):
        with smtplib.SMTP("127.0.0.1", served.port, timeout=LIMIT) as client:
            client.sendmail("a@example.com", ["b@example.com"], "Subject: x\r\n\r\ny\r\n")


def test_metrics_of_a_server(tmp_path):
    with serving(tmp_path, "--metrics", "0") as served:
        [url] = urls(served, 1)
        assert url.startswith("http://127.0.0.1:")
        send(served)
        samples = read(url)
    assert samples["smtp_server_connections_total", frozenset()] == 1
    accepted = frozenset({("outcome", "accepted"), ("code", "250")})
    assert samples["smtp_server_messages_total", accepted] == 1
    assert samples["process_open_fds", frozenset()] > 0
    with pytest.raises(OSError, match="refused"):  # ended with the server
        read(url)


def samples_after_a_message(*command):
    """What a server that this command starts has counted of one message, while its client is connected."""
    process = Process(*command, "--port", "0", "--metrics", "0")
    try:
        port = int(found(re.match(r"listening on 127\.0\.0\.1:(\d+) ", process.line())))
        url = found(re.search(r"metrics on (http://\S+)", process.line()))
        with smtplib.SMTP("127.0.0.1", port, timeout=LIMIT) as client:
            client.sendmail("a@example.com", ["b@example.com"], "Subject: x\r\n\r\ny\r\n")
            return read(url)
    finally:
        process.close()


def test_a_relay_has_those_of_its_pool_and_its_clients_too(tmp_path):
    with serving(tmp_path) as there:
        samples = samples_after_a_message("relay", "--to", f"127.0.0.1:{there.port}")
    assert samples["smtp_server_messages_total", frozenset({("outcome", "accepted"), ("code", "250")})] == 1
    assert samples["smtp_pool_messages_total", frozenset({("delivery", "accepted")})] == 1
    assert samples["smtp_client_messages_total", frozenset({("outcome", "accepted"), ("code", "250")})] == 1


@pytest.mark.parametrize(
    ("command", "more"),
    [
        (("send", "--from", "a@example.com", "--to", "b@example.com", "--subject", "x", "--body", "y"), {}),
        (("load", "--messages", "1", "--connections", "1"), {"smtp_pool_in_flight": 1, "smtp_pool_connections": 1}),
    ],
    ids=["send", "load"],
)
def test_metrics_of_one_that_sends_are_there_while_it_does(command, more):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(LIMIT)
        words = (*command, "--server", f"127.0.0.1:{listener.getsockname()[1]}", "--metrics", "0", "--json")
        process = subprocess.Popen(
            [sys.executable, "-m", "trio_smtp", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=clean_environment(),
        )
        try:
            assert process.stderr is not None
            url = found(re.fullmatch(r"metrics on (http://127\.0\.0\.1:\d+/metrics)\n", process.stderr.readline()))
            peer, _ = listener.accept()
            with peer, peer.makefile("rwb", buffering=0) as lines:
                peer.settimeout(LIMIT)
                for reply in (b"220 mx.test", b"250 mx.test", b"250 ok"):
                    lines.write(reply + b"\r\n")
                    lines.readline()
                samples = read(url)  # it has said RCPT, and waits
                for reply in (b"250 ok", b"354 go on"):
                    lines.write(reply + b"\r\n")
                    lines.readline()
                while lines.readline() != b".\r\n":
                    pass
                lines.write(b"250 queued\r\n")
                lines.readline()
                lines.write(b"221 bye\r\n")
            out, errors = process.communicate(timeout=LIMIT)
        finally:
            process.kill()
            process.wait()
    assert (process.returncode, errors) == (0, "")
    assert '"status": 0' in out
    assert samples["smtp_client_connections_open", frozenset()] == 1
    assert samples["smtp_client_commands_total", frozenset({("verb", "MAIL"), ("code", "250")})] == 1
    for name, value in more.items():
        assert samples[name, frozenset()] == value


def test_metrics_of_an_outbox_s_worker(tmp_path):
    store = f"sqlite:{tmp_path}/outbox.db"
    message = b"Subject: x\r\n\r\ny\r\n"
    put = run("outbox", "--store", store, "put", "--from", "a@example.com", "--to", "b@example.com", stdin=message)
    assert put.returncode == 0, put.stderr
    with serving(tmp_path) as there:
        server = f"127.0.0.1:{there.port}"
        worker = Process("outbox", "--store", store, "work", "--server", server, "--metrics", "0", "--no-chunking")
        try:
            assert worker.line().endswith(": sent")
            samples = read(found(re.search(r"metrics on (http://\S+)", worker.errors())))
            worker.signal()
            assert worker.wait() == (0, [])
        finally:
            worker.close()
    assert samples["smtp_outbox_attempts_total", frozenset({("state", "sent")})] == 1
    assert samples["smtp_outbox_recipients_total", frozenset({("state", "sent")})] == 1
    assert samples["smtp_outbox_entry_seconds_count", frozenset({("state", "sent")})] == 1
    assert samples["smtp_pool_messages_total", frozenset({("delivery", "accepted")})] == 1
    assert samples["smtp_client_messages_total", frozenset({("outcome", "accepted"), ("code", "250")})] == 1
    assert samples["smtp_client_commands_total", frozenset({("verb", "DATA"), ("code", "354")})] == 1  # no BDAT


def test_metrics_of_a_server_that_puts_into_an_outbox(tmp_path):
    samples = samples_after_a_message("serve", "--outbox", f"sqlite:{tmp_path}/outbox.db")
    assert samples["smtp_outbox_entries_total", frozenset()] == 1
    assert samples["smtp_server_messages_total", frozenset({("outcome", "accepted"), ("code", "250")})] == 1


def test_each_worker_has_its_own(tmp_path):
    port = two_ports()
    with serving(tmp_path, "--metrics", port, "--workers", "2") as served:
        both = urls(served, 2)
        assert both == [f"http://127.0.0.1:{port}/metrics", f"http://127.0.0.1:{port + 1}/metrics"]
        send(served, 6)
        assert sum(read(url)["smtp_server_connections_total", frozenset()] for url in both) == 6


def test_a_port_in_use_is_said_in_one_line(tmp_path):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        port = sock.getsockname()[1]
        done = run("serve", "--port", "0", "--discard", "--metrics", port)
    assert done.returncode == 71
    assert done.stderr == f"trio-smtp: cannot serve metrics on 127.0.0.1:{port}: Address already in use\n"


def test_workers_need_a_port_to_count_from():
    done = run("serve", "--discard", "--metrics", "0", "--workers", "2")
    assert done.returncode == 2
    assert "--metrics needs a port other than 0 with --workers" in done.stderr


def test_where_they_are():
    assert place("9100") == Place("127.0.0.1", 9100)
    assert place("0.0.0.0:9100") == Place("0.0.0.0", 9100)
    assert place("[::1]:0") == Place("::1", 0)
    for text in ("", "x", "host:", "65536", "-1"):
        with pytest.raises(click.BadParameter):
            place(text)


def test_without_a_place_nothing_is_opened():
    with serving_metrics(None) as metrics:
        assert metrics is None
