# `trio-smtp send`: to our own server, to Postfix's smtp-sink, and to a server that says what it is told to say.
from __future__ import annotations

import email.policy
import json
import os
import socket
import subprocess
import threading
from contextlib import contextmanager

import pytest
from cli_process import LIMIT, Process, run, serving, tool

from trio_smtp._cli.errors import Status

LETTER = b"From: a@example.com\nSubject: hi\n\n.dot\nlast\n"
ON_THE_WIRE = LETTER.replace(b"\n", b"\r\n")


@pytest.fixture
def letter(tmp_path):
    path = tmp_path / "letter.eml"
    path.write_bytes(LETTER)
    return path


def send(port, *args, to=("b@example.net",), **process):
    recipients = [word for address in to for word in ("--to", address)]
    command = ["send", "--server", f"127.0.0.1:{port}", "--from", "a@example.com", "--hostname", "client.example"]
    return run(*command, *recipients, *args, **process)


class Script(threading.Thread):
    """A server that answers each command by the first word of `answers` it begins with, one connection only.

    An answer of ``None`` closes the connection. What was said is in `said`.
    """

    def __init__(self, greeting=b"220 mx ESMTP", **answers):
        super().__init__(daemon=True)
        self._greeting = greeting
        self._answers = answers
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(LIMIT)
        self.port = self._socket.getsockname()[1]
        self.said = []

    def run(self):
        connection, _ = self._socket.accept()
        with connection, connection.makefile("rb") as lines:
            connection.settimeout(LIMIT)
            connection.sendall(self._greeting + b"\r\n")
            in_data = False
            for line in lines:
                if in_data and line != b".\r\n":
                    continue
                command = "END" if in_data else line.decode().strip()
                self.said.append(command)
                word = next((word for word in self._answers if command.replace(":", "_").startswith(word)), None)
                default = b"354 go on" if command == "DATA" else b"250 OK"
                answer = self._answers[word] if word else default
                if answer is None:
                    return
                in_data = not in_data and answer.startswith(b"354")
                connection.sendall(answer + b"\r\n")
                if command == "QUIT":
                    return

    def close(self):
        self._socket.close()
        self.join(LIMIT)


@contextmanager
def script(*args, **answers):
    server = Script(*args, **answers)
    server.start()
    try:
        yield server
    finally:
        server.close()


# --- to our own server ---


def test_a_file(tmp_path, letter):
    with serving(tmp_path) as served:
        done = send(served.port, letter, to=["b@example.net", "c@example.net"])
        assert done.returncode == 0, done.stderr
        [(trace, content)] = served.traced()
        assert content == ON_THE_WIRE
        queue_id = trace.partition(" id ")[2].partition(";")[0]
        assert done.stdout.splitlines() == [
            f"{letter}: accepted for <b@example.net> (250 2.0.0 OK: queued as {queue_id})",
            f"{letter}: accepted for <c@example.net> (250 2.0.0 OK: queued as {queue_id})",
        ]
        assert trace.startswith("Return-Path: <a@example.com>\r\n")
        assert "Received: from client.example ([127.0.0.1])\r\n" in trace


@pytest.mark.parametrize("args", [[], ["-"]])
def test_standard_input(tmp_path, args):
    with serving(tmp_path) as served:
        done = send(served.port, *args, stdin=ON_THE_WIRE)
        assert done.returncode == 0, done.stderr
        assert served.messages() == [ON_THE_WIRE]
        assert done.stdout.startswith("standard input: accepted for <b@example.net> (250 2.0.0 ")


@contextmanager
def piped(content):
    """The name of a pipe that holds `content`, as ``<(command)`` of a shell is one."""
    reader, writer = os.pipe()

    def write():
        with open(writer, "wb") as pipe:
            pipe.write(content)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    try:
        yield f"/proc/{os.getpid()}/fd/{reader}"
    finally:
        os.close(reader)
        thread.join(LIMIT)


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="pipes have no names here")
@pytest.mark.parametrize("size", [10, 2 << 20])
def test_a_pipe_with_a_name(tmp_path, size):
    content = b"Subject: hi\r\n\r\n" + b"0123456789abcdef\r\n" * (size // 18 + 1)
    with serving(tmp_path) as served, piped(content) as name:
        done = send(served.port, name)
        assert done.returncode == 0, done.stderr
        assert served.messages() == [content]


@pytest.mark.skipif(not os.path.exists("/dev/stdin"), reason="standard input has no name here")
def test_standard_input_by_its_name(tmp_path):
    with serving(tmp_path) as served:
        done = send(served.port, "/dev/stdin", stdin=LETTER)
        assert done.returncode == 0, done.stderr
        assert served.messages() == [ON_THE_WIRE]


def test_standard_input_twice_is_refused():
    done = send(free_port(), "-", "-", stdin=LETTER)
    assert done.returncode == 2
    assert "only once" in done.stderr


def test_several_files_over_one_connection(tmp_path, letter):
    other = tmp_path / "other.eml"
    other.write_bytes(b"")
    with serving(tmp_path, "-v") as served:
        done = send(served.port, letter, other)
        assert done.returncode == 0, done.stderr
        assert served.messages() == [ON_THE_WIRE, b""]
        served.process.signal()
        served.process.wait()
        assert served.process.errors().count("> 220 ") == 1


def test_the_null_sender_and_addresses_in_utf8(tmp_path, letter):
    with serving(tmp_path) as served:
        recipients = ["--from", "", "--to", "jürgen@example.net"]
        done = run("send", "--server", f"127.0.0.1:{served.port}", *recipients, letter)
        assert done.returncode == 0, done.stderr
        [(trace, _)] = served.traced()
        assert trace.startswith("Return-Path: <>\r\nDelivered-To: jürgen@example.net\r\n")
        assert " with UTF8SMTP id " in trace


@pytest.mark.parametrize("implicit", [False, True])
def test_tls_with_a_verified_certificate_and_a_login(tmp_path, letter, implicit):
    ca = tmp_path / "ca.pem"
    options = ["--tls-self-signed", "--tls-cert-out", ca, "--auth", "me:s3cret", *["--implicit-tls"] * implicit]
    with serving(tmp_path, *options) as served:
        mode = ["--tls", "implicit" if implicit else "starttls"]
        done = send(served.port, *mode, "--ca", ca, "--auth", "me", letter, env={"TRIO_SMTP_PASSWORD": "s3cret"})
        assert done.returncode == 0, done.stderr
        assert " with ESMTPSA id " in served.traced()[0][0]

        done = send(served.port, *mode, "--ca", ca, "--auth", "me:wrong", letter)
        assert done.returncode == 77
        assert done.stdout == ""
        assert "535" in done.stderr
        assert done.stderr.count("\n") == 1

        done = send(served.port, *mode, "--auth", "me:s3cret", letter)
        assert done.returncode == 77
        assert done.stderr == (
            f"trio-smtp: the certificate of 127.0.0.1:{served.port} is not accepted: self-signed certificate"
            " (--ca FILE trusts the certificates in FILE; --tls opportunistic encrypts without checking)\n"
        )

        assert len(served.messages()) == 1


def test_opportunistic_tls(tmp_path, letter):
    with serving(tmp_path, "--tls-self-signed") as served:
        done = send(served.port, "--tls", "opportunistic", letter)
        assert done.returncode == 0, done.stderr
        assert " with ESMTPS id " in served.traced()[0][0]


def test_lmtp(tmp_path, letter):
    with serving(tmp_path, "--lmtp") as served:
        done = send(served.port, "--lmtp", letter, to=["b@example.net", "c@example.net"])
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("accepted for ") == 2
        assert served.messages() == [ON_THE_WIRE]


def bare(port, *args, **process):
    """``send`` without --from and --to."""
    return run("send", "--server", f"127.0.0.1:{port}", "--hostname", "client.example", *args, **process)


WITH_BCC = b"""From: Ada <ada@example.com>
To: b@example.net, Grace <grace@example.net>
BCC : hidden@example.net,
 other@example.net
Subject: bcc: stays
Cc: b@example.net

Bcc: stays too
"""


@pytest.mark.parametrize("from_stdin", [False, True])
def test_the_header_says_sender_and_recipients_and_bcc_is_not_sent(tmp_path, from_stdin):
    (tmp_path / "letter.eml").write_bytes(WITH_BCC)
    with serving(tmp_path) as served:
        done = bare(served.port, stdin=WITH_BCC) if from_stdin else bare(served.port, tmp_path / "letter.eml")
        assert done.returncode == 0, done.stderr
        [(trace, content)] = served.traced()
    delivered = [line.removeprefix("Delivered-To: ") for line in trace.split("\r\n") if line.startswith("Delivered")]
    assert delivered == ["b@example.net", "grace@example.net", "hidden@example.net", "other@example.net"]
    assert trace.startswith("Return-Path: <ada@example.com>\r\n")
    shown = WITH_BCC.replace(b"BCC : hidden@example.net,\n other@example.net\n", b"")
    assert content == shown.replace(b"\n", b"\r\n")


def test_what_is_given_counts_more_than_the_header(tmp_path):
    with serving(tmp_path) as served:
        assert bare(served.port, "--from", "", stdin=WITH_BCC).returncode == 0
        assert bare(served.port, "--to", "me@example.net", stdin=WITH_BCC).returncode == 0
        (first, _), (second, content) = served.traced()
    assert first.startswith("Return-Path: <>\r\nDelivered-To: b@example.net\r\n")
    assert second.startswith("Return-Path: <ada@example.com>\r\nDelivered-To: me@example.net\r\nReceived")
    assert content == WITH_BCC.replace(b"\n", b"\r\n")


@pytest.mark.parametrize(
    ("args", "sender"),
    [
        (["-t", "-i", "-f", "me@example.com"], "me@example.com"),
        (["--from", "dev@example.com", "-ti", "-fme@example.com"], "me@example.com"),  # as PHP adds to sendmail_path
        (["-t", "-i"], "ada@example.com"),
    ],
)
def test_options_of_sendmail(tmp_path, args, sender):
    with serving(tmp_path) as served:
        done = bare(served.port, *args, stdin=WITH_BCC + b".\nafter a dot\n")
        assert done.returncode == 0, done.stderr
        [(trace, content)] = served.traced()
    delivered = [line.removeprefix("Delivered-To: ") for line in trace.split("\r\n") if line.startswith("Delivered")]
    assert delivered == ["b@example.net", "grace@example.net", "hidden@example.net", "other@example.net"]
    assert trace.startswith(f"Return-Path: <{sender}>\r\n")
    assert content.endswith(b"\r\n.\r\nafter a dot\r\n")
    assert b"hidden@" not in content


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"Subject: x\n\nx\n", "standard input has no From: give the sender with --from"),
        (b"From: a@x.example\n\nTo: b@x.example\n", "standard input has no To, Cc or Bcc: give recipients with --to"),
        (b"just text\n", "standard input has no From"),
        (
            b"From: a@x.example\nTo: =?utf-8?q?attacker=40evil.test=2C?=foo@trusted.test\n\nx\n",
            "an address in the field To has an encoded word in it: give --from and --to",
        ),
    ],
)
def test_a_header_that_does_not_say_to_whom(content, words):
    done = bare(9, stdin=content)
    assert (done.returncode, done.stdout) == (65, "")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_quick_message(tmp_path, letter):
    with serving(tmp_path) as served:
        options = ["--to", "c@example.net", "--subject", "Grüße", "--body", "Hallo Łódź\n", "--attach", letter]
        done = send(served.port, *options)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("the message: accepted for <b@example.net>")
        done = send(served.port, "--subject", "x", stdin="from a pipe é".encode())
        assert done.returncode == 0, done.stderr
        first, second = (email.message_from_bytes(content, policy=email.policy.SMTP) for content in served.messages())
    assert [first[name] for name in ("From", "To", "Subject")] == [
        "a@example.com",
        "b@example.net, c@example.net",
        "Grüße",
    ]
    assert first["Message-ID"].endswith("@example.com>")
    assert first["Date"].datetime.tzinfo is not None
    text, attachment = first.iter_parts()
    assert text.get_content() == "Hallo Łódź\r\n"
    assert (attachment.get_filename(), attachment.get_content_type()) == ("letter.eml", "message/rfc822")
    assert second.get_content() == "from a pipe é\r\n"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--subject", "x"], "need --from and --to"),
        (["--subject", "x", "--from", "a@x", "--to", "b@x", "FILE"], "with a FILE there is one already"),
        (["--from", "a@x", "--to", "b@x", "--mechanism", "PLAIN"], "--mechanism needs --auth."),
        (["--from", "a@x", "--to", "b@x", "--auth", "me\r:x"], "--auth: "),
    ],
)
def test_options_of_send_that_make_no_sense(args, words):
    done = bare(9, *args)
    assert done.returncode == 2
    assert words in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("args", "status", "words"),
    [
        (["--attach", "/no/such"], 66, "cannot read /no/such: No such file or directory"),
        (["--subject", "x\r\nBcc: y"], 65, "a header field cannot be made"),
    ],
)
def test_a_quick_message_that_cannot_be_made(args, status, words):
    done = send(9, "--body", "x", *args)
    assert done.returncode == status
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_what_the_server_offers_can_be_left_unused(letter):
    extensions = b"250-mx\r\n250-PIPELINING\r\n250-AUTH PLAIN LOGIN\r\n250 CHUNKING"
    answers = {"EHLO": extensions, "AUTH": b"334 VXNlcm5hbWU6", "bWU=": b"334 UGFzc3dvcmQ6", "cHc=": b"235 OK"}
    with script(**answers) as server:
        options = ["--no-chunking", "--no-pipelining", "--auth", "me:pw", "--allow-insecure-auth"]
        assert send(server.port, letter, *options, "--mechanism", "login").returncode == 0
    assert [command.split()[0] for command in server.said] == [
        *("EHLO", "AUTH", "bWU=", "cHc=", "MAIL", "RCPT", "DATA", "END", "QUIT")
    ]
    assert server.said[1] == "AUTH LOGIN"


def test_json(tmp_path, letter):
    with serving(tmp_path) as served:
        done = send(served.port, "--json", letter)
        result = json.loads(done.stdout)
        reply = result["accepted"]["b@example.net"]
        assert reply["text"].startswith("OK: queued as ")
        assert result == {
            "file": str(letter),
            "status": 0,
            "delivery": "accepted",
            "accepted": {"b@example.net": {"code": 250, "enhanced": "2.0.0", "text": reply["text"]}},
            "refused": {},
            "unknown": [],
            "error": None,
        }


# --- to a server of others ---


def test_postfix_smtp_sink(tmp_path, letter):
    sink = tool("smtp-sink")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    user = ["-u", "root"] if os.getuid() == 0 else []  # it wants to be told; no other user may write to tmp_path
    process = subprocess.Popen(
        [sink, *user, "-d", f"{tmp_path}/dump.", f"127.0.0.1:{port}", "10"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        wait_for(port, process)
        done = send(port, letter, to=["b@example.net", "c@example.net"])
        assert done.returncode == 0, done.stderr
        assert done.stdout.count(": accepted for <") == 2
    finally:
        process.terminate()
        process.communicate(timeout=LIMIT)
    [dump] = tmp_path.glob("dump.*")
    head, _, content = dump.read_bytes().partition(b"(UTC)\n")  # its own lines come first, and its line ends are LF
    assert content.rstrip(b"\n") == LETTER.rstrip(b"\n")
    assert b"X-Mail-Args: <a@example.com>" in head
    assert b"X-Rcpt-Args: <b@example.net>\nX-Rcpt-Args: <c@example.net>\n" in head


def wait_for(port, process):
    """Wait until somebody listens, or the process has ended."""
    while process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
    pytest.fail(process.stdout.read().decode())


# --- refusals ---


def test_some_recipients_refused(letter):
    with script(RCPT=b"250 OK", **{"RCPT TO_<no": b"550 5.1.1 no such user"}) as server:
        server._answers = dict(reversed(server._answers.items()))  # the longer one first
        done = send(server.port, letter, to=["yes@example.net", "no@example.net"])
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        f"{letter}: accepted for <yes@example.net> (250 OK)",
        f"{letter}: refused for <no@example.net> (550 5.1.1 no such user)",
    ]
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("answers", "status", "words"),
    [
        ({"RCPT": b"550 5.1.1 no such user"}, 69, "550 5.1.1 no such user"),
        ({"RCPT": b"450 4.2.0 try later"}, 75, "450 4.2.0 try later"),
        ({"MAIL": b"550 5.7.1 not you"}, 69, "550 5.7.1 not you"),
        ({"MAIL": b"451 4.3.0 not now"}, 75, "451 4.3.0 not now"),
        ({"DATA": b"554 5.0.0 no"}, 69, "554 5.0.0 no"),
        ({"END": b"554 5.7.0 spam"}, 69, "554 5.7.0 spam"),
        ({"END": b"452 4.3.1 disk full"}, 75, "452 4.3.1 disk full"),
        ({"END": None}, 74, "may have been delivered"),
        ({"MAIL": None}, 75, ""),
        ({"EHLO": b"babble"}, 76, ""),
        ({"EHLO": None}, 75, ""),
    ],
)
def test_refusals_have_a_status_and_one_line(letter, answers, status, words):
    with script(**answers) as server:
        done = send(server.port, letter)
    assert done.returncode == status, done
    assert words in done.stdout + done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("trio-smtp: ")
    assert "accepted for" not in done.stdout


@pytest.mark.parametrize(("greeting", "status"), [(b"554 5.3.2 no", 69), (b"421 4.3.2 busy", 75), (b"HTTP/1.1", 76)])
def test_a_greeting_that_is_none(letter, greeting, status):
    with script(greeting) as server:
        done = send(server.port, letter)
    assert done.returncode == status
    assert done.stderr.count("\n") == 1


def test_one_of_two_messages_refused(letter):
    with script(END=b"554 no") as server:
        answers = [b"250 OK", b"554 no"]
        server._answers = Once(END=answers)
        done = send(server.port, letter, letter, "--json")
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [result["status"] for result in results] == [0, 69]
    assert [result["delivery"] for result in results] == ["accepted", "refused"]
    assert done.returncode == 1


class Once(dict):
    """Each answer is a list, used up from its front."""

    def __getitem__(self, word):
        return super().__getitem__(word).pop(0)


def test_an_unknown_fate_is_the_status_whatever_else_was_accepted(letter):
    with script() as server:
        server._answers = Once(END=[b"250 OK", None])
        done = send(server.port, letter, letter)
    assert done.stdout.splitlines() == [
        f"{letter}: accepted for <b@example.net> (250 OK)",
        f"{letter}: unknown for <b@example.net>: it may have been delivered",
        "2 messages: 1 accepted, 1 unknown",
    ]
    assert done.returncode == 74


def test_no_tls_is_said_as_what_it_is(letter):
    with script() as server:
        done = send(server.port, "--tls", "starttls", letter)
    assert done.returncode == Status.NO_PERMISSION
    assert "does not offer STARTTLS" in done.stderr
    assert "TLS is missing" in Status.NO_PERMISSION.meaning


@pytest.mark.parametrize("others", [True, False])
def test_a_file_that_is_gone_at_its_turn(tmp_path, letter, others):
    gone = tmp_path / "gone.eml"
    gone.write_bytes(LETTER)
    with script(MAIL=b"") as server:
        answers = [lambda: gone.unlink(missing_ok=True) or b"250 OK"]
        server._answers = Called(EHLO=answers, MAIL=[lambda: b"250 OK"] * 2)
        done = send(server.port, *[letter] * others, gone, *[letter] * others, "--json")
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [result["status"] for result in results] == ([0, 66, 0] if others else [66])
    [result] = [result for result in results if result["status"] == 66]
    assert (result["file"], result["delivery"]) == (str(gone), "not_sent")
    assert result["error"] == "cannot read the file: No such file or directory"
    assert done.returncode == (1 if others else 66)
    assert done.stderr == ""


class Called(Once):
    """Each answer is made by a function, when it is wanted."""

    def __getitem__(self, word):
        return super().__getitem__(word)()


def test_the_rest_is_not_sent_after_the_connection_is_lost(letter):
    with script(END=None) as server:
        done = send(server.port, letter, letter, "--json")
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [result["delivery"] for result in results] == ["unknown", "not_sent"]
    assert done.returncode == 74


# --- output that cannot be written ---


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device is always full here")
@pytest.mark.parametrize("options", [[], ["--json"]])
@pytest.mark.parametrize("stderr", [False, True])
def test_a_full_disk_for_the_output_changes_no_status(tmp_path, letter, options, stderr):
    with serving(tmp_path) as served, open("/dev/full", "wb") as full:
        done = send(served.port, letter, letter, *options, stdout=full, **{"stderr": full} if stderr else {})
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        assert served.messages() == [ON_THE_WIRE] * 2


def test_nobody_reads_the_output(tmp_path, letter):
    reader, writer = os.pipe()
    os.close(reader)
    try:
        with serving(tmp_path) as served:
            done = send(served.port, letter, stdout=writer)
            assert (done.returncode, done.stderr) == (0, "")
            assert served.messages() == [ON_THE_WIRE]
    finally:
        os.close(writer)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device is always full here")
def test_complaints_that_cannot_be_written_change_no_status(letter):
    with open("/dev/full", "wb") as full:
        assert send(free_port(), letter, stderr=full).returncode == 68


def test_a_terminal_that_cannot_show_an_address(tmp_path, letter):
    with serving(tmp_path) as served:
        done = send(served.port, letter, to=["jürgen@example.net"], env={"PYTHONIOENCODING": "iso-8859-7"})
        assert (done.returncode, done.stderr) == (0, "")
        assert "accepted for <j\\xfcrgen@example.net>" in done.stdout


# --- complaints before anything is sent ---


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def test_nobody_listens(letter):
    port = free_port()
    done = send(port, letter)
    assert done.returncode == 68
    assert done.stderr == f"trio-smtp: cannot connect to 127.0.0.1:{port}: Connection refused\n"


def test_nobody_listens_in_json(letter):
    port = free_port()
    done = send(port, letter, "--json")
    assert done.returncode == 68
    result = json.loads(done.stdout)
    assert (result["status"], result["delivery"]) == (68, "not_sent")
    assert result["error"] == f"cannot connect to 127.0.0.1:{port}: Connection refused"


def test_unknown_host(letter):
    done = run("send", "--server", "no-such-host.invalid:25", "--from", "a@x", "--to", "b@x", letter)
    assert done.returncode == 68
    assert done.stderr.startswith("trio-smtp: cannot connect to no-such-host.invalid:25: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("host", ["a..b", "a" * 64 + ".example"])
def test_a_host_that_cannot_have_a_name(letter, host):
    done = run("send", "--server", f"{host}:25", "--from", "a@x", "--to", "b@x", letter)
    assert done.returncode == 68
    assert done.stderr.startswith(f"trio-smtp: cannot connect to {host}:25: the name cannot be looked up (")
    assert done.stderr.count("\n") == 1


def test_no_such_file(tmp_path):
    done = send(free_port(), tmp_path / "none")
    assert done.returncode == 66
    assert done.stderr == f"trio-smtp: cannot read {tmp_path}/none: No such file or directory\n"


def test_a_directory(tmp_path):
    done = send(free_port(), tmp_path)
    assert done.returncode == 66
    assert done.stderr == f"trio-smtp: cannot read {tmp_path}: Is a directory\n"


def test_ca_file_without_certificates(tmp_path, letter):
    done = send(free_port(), "--ca", letter, letter)
    assert done.returncode == 66
    assert done.stderr == f"trio-smtp: cannot read certificates from {letter}: it holds no certificate in PEM form\n"


def test_an_impossible_address(tmp_path, letter):
    with serving(tmp_path) as served:
        done = send(served.port, letter, to=["b@example.net\r\nDATA"])
        assert done.returncode == 65
        assert done.stderr.count("\n") == 1
        assert served.messages() == []


def test_a_login_in_clear_is_refused_unless_asked_for(tmp_path, letter):
    with serving(tmp_path, "--auth", "me:s3cret", "--allow-insecure-auth") as served:
        done = send(served.port, "--auth", "me:s3cret", letter)
        assert done.returncode == 77
        assert done.stderr.count("\n") == 1
        done = send(served.port, "--auth", "me:s3cret", "--allow-insecure-auth", letter)
        assert done.returncode == 0, done.stderr


def test_verbose_shows_the_dialogue_but_no_secrets(tmp_path, letter):
    with serving(tmp_path, "--auth", "me:s3cret", "--allow-insecure-auth") as served:
        done = send(served.port, "-v", "--auth", "me:s3cret", "--allow-insecure-auth", letter)
        assert "RCPT TO:<b@example.net>" in done.stderr
        assert "s3cret" not in done.stderr
        assert "bWU" not in done.stderr  # the beginning of "me", in base64
        assert ".dot" not in done.stderr


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_an_interrupt_after_the_end_of_a_message(letter, options):
    arrived, release = threading.Event(), threading.Event()

    def answer():
        arrived.set()
        release.wait(LIMIT)
        return b"250 OK"

    with script() as server:
        server._answers = Called(END=[answer])
        envelope = ["--from", "a@x", "--to", "b@x", "--hostname", "x"]
        process = Process("send", "--server", f"127.0.0.1:{server.port}", *envelope, *options, letter, letter)
        try:
            assert arrived.wait(LIMIT)
            process.signal(2)
            status, lines = process.wait()
        finally:
            release.set()
            errors = process.errors()
            process.close()
    assert status == 130
    if options:
        first, second = map(json.loads, lines)
        assert (first["delivery"], first["unknown"], first["status"]) == ("unknown", ["b@x"], 130)
        assert (second["delivery"], second["unknown"], second["status"]) == ("not_sent", [], 130)
        assert errors == "trio-smtp: interrupted\n"
    else:
        assert lines == [f"{letter}: unknown for <b@x>: it may have been delivered"]
        assert errors.splitlines() == [
            f"trio-smtp: {letter}: interrupted while sending; the message may have been delivered",
            f"trio-smtp: {letter}: interrupted before sending",
            "trio-smtp: interrupted",
        ]


def test_an_interrupt_is_one_line():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        process = Process("send", "--server", f"127.0.0.1:{port}", "--from", "a@x", "--to", "b@x")
        try:
            connection, _ = silent.accept()
            with connection:
                process.signal(2)
                assert process.wait() == (130, [])
                assert process.errors() == "trio-smtp: interrupted\n"
        finally:
            process.close()
