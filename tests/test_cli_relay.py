# `trio-smtp relay` as a process between smtplib and `trio-smtp serve`.
from __future__ import annotations

import re
import signal
import smtplib
import socket
import ssl
from contextlib import contextmanager

import pytest
from cli_process import LIMIT, Process, found, run, serving

CONTENT = b"From: a@example.com\r\nSubject: hi\r\n\r\n.dot\r\n..two\r\n" + b"x" * 998 + b"\r\ncaf\xc3\xa9\r\n"


class Relaying:
    def __init__(self, process):
        self.process = process
        self.greeting = process.line()
        self.port = int(found(re.match(r"listening on 127\.0\.0\.1:(\d+) ", self.greeting)))


@contextmanager
def relaying(to, *options, env=None):
    process = Process("relay", "--port", "0", "--to", f"localhost:{to}", *options, env=env)
    try:
        yield Relaying(process)
    finally:
        process.close()


def send(port, content=CONTENT, **options):
    with smtplib.SMTP("127.0.0.1", port, timeout=LIMIT) as server:
        return server.sendmail("a@example.com", ["b@example.net", "c@example.net"], content, **options)


def test_a_message_goes_through_as_it_is(tmp_path):
    with serving(tmp_path) as served, relaying(served.port) as relay:
        assert f"messages go to localhost:{served.port}" in relay.greeting
        assert send(relay.port) == {}
        assert served.messages() == [CONTENT]
        relay.process.signal(signal.SIGTERM)
        status, lines = relay.process.wait()
        assert status == 0
        assert lines[-1].startswith("ended")


def test_tls_and_logins_at_both_ends(tmp_path):
    ca, other = tmp_path / "ca.pem", tmp_path / "other.pem"
    there = ("--tls-self-signed", "--tls-cert-out", ca, "--auth", "you:theirs")
    here = ("--tls-self-signed", "--tls-cert-out", other, "--auth", "me:ours")
    to = ("--to-tls", "starttls", "--to-ca", ca, "--to-auth", "you:theirs")
    with serving(tmp_path, *there) as served, relaying(served.port, *here, *to) as relay:
        with smtplib.SMTP("localhost", relay.port, timeout=LIMIT) as server:
            server.starttls(context=ssl.create_default_context(cafile=other))
            with pytest.raises(smtplib.SMTPSenderRefused) as refused:
                server.sendmail("a@example.com", ["b@example.net"], CONTENT)
            assert refused.value.smtp_code == 530
            server.login("me", "ours")
            server.sendmail("a@example.com", ["b@example.net"], CONTENT)
        [(trace, content)] = served.traced()
    assert content == CONTENT
    assert " with ESMTPSA id " in trace


def test_what_the_other_server_offers_is_offered(tmp_path):
    with serving(tmp_path, "--max-size", "100000") as served, relaying(served.port) as relay:
        with smtplib.SMTP("127.0.0.1", relay.port, timeout=LIMIT) as server:
            server.ehlo()
            assert server.esmtp_features["size"] == "100000"
            assert "dsn" not in server.esmtp_features
            assert "auth" not in server.esmtp_features
        with pytest.raises(smtplib.SMTPSenderRefused) as refused:
            send(relay.port, b"x" * 200_000)
        assert refused.value.smtp_code == 552


def test_a_server_that_is_not_there_is_told_of_and_found_later(tmp_path):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        nowhere = holder.getsockname()[1]
        with relaying(nowhere) as relay:
            with pytest.raises(smtplib.SMTPSenderRefused) as refused:
                send(relay.port)
            assert refused.value.smtp_code == 451
            assert b"4.4.1" in refused.value.smtp_error
            assert f"cannot connect to localhost:{nowhere}" in relay.process.errors()


def test_usage():
    assert run("relay").returncode == 2
    done = run("relay", "--to", "localhost", "--maildir", "x")
    assert done.returncode == 2
    assert "No such option" in done.stderr
    done = run("relay", "--to", "localhost:25", "--to-lmtp", "--port", "0")
    assert done.returncode == 2
    assert "LMTP must not be used on port 25" in done.stderr
    text = run("relay", "--help").stdout
    for option in ("--to", "--to-tls", "--to-auth", "--to-lmtp", "--to-connections", "--unknown", "--auth", "--lmtp"):
        assert re.search(rf"^ +{option}\b", text, re.MULTILINE), option
    assert "relay" in run("--help").stdout


def test_lmtp_at_the_other_end(tmp_path):
    """Each recipient has a transaction of its own, since one reply cannot say what became of each."""
    with serving(tmp_path, "--lmtp") as served, relaying(served.port, "--to-lmtp") as relay:
        with smtplib.SMTP("127.0.0.1", relay.port, timeout=LIMIT) as server:
            server.ehlo()
            assert server.mail("a@example.com")[0] == 250
            assert server.rcpt("b@example.net")[0] == 250
            assert server.rcpt("c@example.net")[0] == 452
            assert server.data(CONTENT)[0] == 250
        [(trace, content)] = served.traced()
    assert content == CONTENT
    assert "Delivered-To: b@example.net" in trace
