# `trio-smtp inbox`, as a process.
from __future__ import annotations

import json
import re
import signal
import smtplib
import urllib.request
from contextlib import contextmanager

import pytest
from cli_process import Process, found, invoke, run


class Served:
    def __init__(self, process):
        self.process = process
        lines = [process.line(), process.line()]
        self.port = int(found(re.match(r"send mail to 127\.0\.0\.1:(\d+) \(", lines[0])))
        self.url = found(re.match(r"read it at   (http://\S+) \(", lines[1]))
        self.words = " ".join(lines)

    def send(self, login=None, tls=False):
        with smtplib.SMTP("127.0.0.1", self.port, timeout=20) as client:
            if tls:
                client.starttls()
            if login is not None:
                client.login(*login)
            client.sendmail("a@x.test", ["b@y.test"], b"Subject: hi\r\n\r\nx\r\n")

    def ask(self, path="/api/v1/messages", **headers):
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}{path}", headers=headers), timeout=20) as answer:
            return json.loads(answer.read())


@contextmanager
def serving(*options):
    process = Process("inbox", "--smtp-port", "0", "--http-port", "0", *options)
    try:
        yield Served(process)
    finally:
        process.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_start_send_look_end(number):
    with serving() as inbox:
        assert "the last 500 messages, in memory" in inbox.words
        inbox.send()
        assert inbox.ask()["messages"][0]["Subject"] == "hi"
        inbox.process.signal(number)
        assert inbox.process.wait() == (0, ["ended"])
        assert inbox.process.errors() == ""


def test_a_file_a_limit_and_tls(tmp_path):
    store = tmp_path / "inbox.db"
    with serving("--store", store, "--keep", "2", "--tls-self-signed") as inbox:
        assert f"the last 2 messages, {store}" in inbox.words
        assert "STARTTLS" in inbox.words
        for _ in range(3):
            inbox.send(tls=True)
        assert inbox.ask()["total"] == 2
        inbox.process.signal(signal.SIGTERM)
        assert inbox.process.wait()[0] == 0
    with serving("--store", store) as inbox:
        assert inbox.ask()["total"] == 2


def test_a_login_that_is_required():
    with serving("--auth", "me:secret") as inbox:
        assert "AUTH required" in inbox.words
        with pytest.raises(smtplib.SMTPSenderRefused) as caught:
            inbox.send()
        assert caught.value.smtp_code == 530
        with pytest.raises(smtplib.SMTPAuthenticationError):
            inbox.send(("me", "wrong"))
        inbox.send(("me", "secret"))
        assert inbox.ask()["messages"][0]["Username"] == "me"


def test_any_login():
    with serving("--auth-any") as inbox:
        assert "any login" in inbox.words
        inbox.send(("who", "ever"))
        inbox.send()
        assert inbox.ask()["total"] == 2


def test_a_further_host():
    with serving("--allow-host", "mail.box.test") as inbox:
        assert inbox.ask(Host="mail.box.test")["total"] == 0
        with pytest.raises(urllib.error.HTTPError, match="403"):
            inbox.ask(Host="other.box.test")


def test_json():
    process = Process("inbox", "--smtp-port", "0", "--http-port", "0", "--json")
    try:
        told = json.loads(process.line())
        assert (told["event"], told["host"]) == ("listening", "127.0.0.1")
        assert told["smtp_port"] > 0
        assert told["url"].startswith("http://127.0.0.1:")
        process.signal()
        assert process.wait() == (0, [])
    finally:
        process.close()


def test_opening_a_browser(tmp_path):
    seen = tmp_path / "seen"
    program = tmp_path / "browser"
    program.write_text(f'#!/bin/sh\nprintf "%s" "$1" >{seen}\n')
    program.chmod(0o755)
    process = Process("inbox", "--smtp-port", "0", "--http-port", "0", "--open", env={"BROWSER": f"{program} %s"})
    try:
        inbox = Served(process)
        process.signal()
        assert process.wait()[0] == 0
        assert seen.read_text() == inbox.url
    finally:
        process.close()


def test_what_cannot_be(tmp_path):
    with serving() as inbox:
        taken = run("inbox", "--smtp-port", inbox.port, "--http-port", "0")
        assert taken.returncode == 71
        assert "cannot listen on 127.0.0.1" in taken.stderr
    both = invoke("inbox", "--auth", "me:x", "--auth-any")
    assert both.exit_code == 2
    assert "exclude each other" in both.output
    (tmp_path / "x").write_text("no database " * 100)
    broken = invoke("inbox", "--smtp-port", "0", "--http-port", "0", "--store", tmp_path / "x")
    assert broken.exit_code == 71
    assert "cannot use" in broken.output
    assert invoke("inbox", "--keep", "0").exit_code == 2


def test_the_help_names_the_defaults():
    text = " ".join(invoke("inbox", "--help").output.split())
    for words in ("--smtp-port PORT", "1025", "--http-port PORT", "8025", "--keep N", "500", "--store FILE", "--open"):
        assert words in text
