# `trio-smtp serve --metrics`: what Prometheus would read of it, alone and with workers.
from __future__ import annotations

import re
import smtplib
import socket
import urllib.request

import click
import pytest
from cli_process import LIMIT, Process, found, run, serving
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


def test_a_relay_has_those_of_its_pool_too(tmp_path):
    with serving(tmp_path) as there:
        relay = Process("relay", "--port", "0", "--to", f"127.0.0.1:{there.port}", "--metrics", "0")
        try:
            port = int(found(re.match(r"listening on 127\.0\.0\.1:(\d+) ", relay.line())))
            url = found(re.search(r"metrics on (http://\S+)", relay.line()))
            with smtplib.SMTP("127.0.0.1", port, timeout=LIMIT) as client:
                client.sendmail("a@example.com", ["b@example.com"], "Subject: x\r\n\r\ny\r\n")
                samples = read(url)
        finally:
            relay.close()
    assert samples["smtp_server_messages_total", frozenset({("outcome", "accepted"), ("code", "250")})] == 1
    assert samples["smtp_pool_messages_total", frozenset({("delivery", "accepted")})] == 1


def test_each_worker_has_its_own(tmp_path):
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
        two.bind(("127.0.0.1", port + 1))
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
