# `trio-smtp serve` as a process: what smtplib and swaks send lies in the Maildir, byte for byte.
from __future__ import annotations

import email.base64mime
import json
import re
import signal
import smtplib
import socket
import ssl
import subprocess

import pytest
from cli_process import BEFORE_CONTENT, LIMIT, Process, event_of_message, run, serving, talk, tool

CONTENT = (
    b"From: a@example.com\r\nSubject: =?utf-8?q?caf=C3=A9?=\r\n\r\n"
    b".a dot\r\n..two\r\n.\r\n" + b"x" * 998 + b"\r\ncaf\xc3\xa9\r\n\r\n \t \r\nlast\r\n"
)
PASSWORD = {"TRIO_SMTP_PASSWORD": "s3cret ä"}


def send(server, content=CONTENT, recipients=("b@example.net", "c@example.net")):
    assert server.sendmail("a@example.com", list(recipients), content) == {}


# --- smtplib ---


def test_smtplib_in_clear(tmp_path):
    with serving(tmp_path) as served:
        with smtplib.SMTP("127.0.0.1", served.port, timeout=LIMIT) as server:
            send(server)
            send(server, b"second\r\n", ["d@example.net"])
        [first, second] = served.traced()
        assert first[1] == CONTENT
        assert second[1] == b"second\r\n"
        head = first[0].split("\r\n")
        assert head[:3] == [
            "Return-Path: <a@example.com>",
            "Delivered-To: b@example.net",
            "Delivered-To: c@example.net",
        ]
        assert head[3].startswith("Received: from ")
        assert head[3].endswith(" ([127.0.0.1])")
        assert " with ESMTP id " in head[4]
        assert "\tfor <d@example.net>;\r\n" in second[0]
        line = served.process.line()
        assert ": <a@example.com> to <b@example.net>, <c@example.net>, " in line
        assert f"{len(CONTENT)} octets, ESMTP from 127.0.0.1" in line


def test_smtplib_with_starttls_and_a_login(tmp_path):
    ca = tmp_path / "ca.pem"
    options = ("--tls-self-signed", "--tls-cert-out", ca, "--auth", "me")
    with serving(tmp_path, *options, env=PASSWORD) as served:
        context = ssl.create_default_context(cafile=ca)
        with smtplib.SMTP("localhost", served.port, timeout=LIMIT) as server:
            server.starttls(context=context)
            with pytest.raises(smtplib.SMTPSenderRefused) as refused:
                send(server)
            assert refused.value.smtp_code == 530
            with pytest.raises(smtplib.SMTPAuthenticationError):
                server.login("me", "wrong")
        with smtplib.SMTP("localhost", served.port, timeout=LIMIT) as server:
            server.starttls(context=context)
            with pytest.raises(smtplib.SMTPAuthenticationError):
                server.login("nobody", "s3cret")
            assert server.docmd("AUTH", "PLAIN " + plain("me", "s3cret ä"))[0] == 235
            send(server)
        [(trace, content)] = served.traced()
        assert content == CONTENT
        assert " with ESMTPSA id " in trace
        assert "\t(TLSv1.3 " in trace
        assert served.process.line().endswith(" ESMTPSA from 127.0.0.1 as me")


def plain(user, password):
    return email.base64mime.body_encode(f"\0{user}\0{password}".encode(), eol="")


def test_smtplib_with_implicit_tls_and_a_certificate_from_files(tmp_path):
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    options = ("--implicit-tls", "--tls-cert", tmp_path / "cert.pem", "--tls-key", tmp_path / "key.pem")
    with serving(tmp_path, *options) as served:
        with smtplib.SMTP_SSL("localhost", served.port, timeout=LIMIT, context=context) as server:
            send(server)
        assert served.messages() == [CONTENT]


def test_lmtp(tmp_path):
    with serving(tmp_path, "--lmtp") as served:
        with smtplib.LMTP("127.0.0.1", served.port) as server:
            server.ehlo_or_helo_if_needed()
            assert server.docmd("MAIL FROM:<a@example.com>")[0] == 250
            assert server.docmd("RCPT TO:<b@example.net>")[0] == 250
            assert server.docmd("RCPT TO:<c@example.net>")[0] == 250
            assert server.docmd("DATA")[0] == 354
            server.send(b"x\r\n.\r\n")
            assert [server.getreply()[0] for _ in range(2)] == [250, 250]
        [(trace, content)] = served.traced()
        assert content == b"x\r\n"
        assert " with LMTP id " in trace


# --- swaks ---


def swaks(served, *options):
    command = [tool("swaks"), "--server", f"127.0.0.1:{served.port}", "--helo", "client.example", "--timeout", "30"]
    command += ["--from", "a@example.com", "--to", "b@example.net,c@example.net", *options]
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=LIMIT,
        check=False,
        text=True,
    )


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("login", [None, "PLAIN", "LOGIN"])
def test_swaks(tmp_path, tls, login):
    tool("swaks")
    letter = tmp_path / "letter"
    letter.write_bytes(re.sub(rb"(?m)^\.", b"..", CONTENT) + b".")  # swaks sends it as it is, and CR LF
    options = ["--tls-self-signed"] * tls
    if login:
        options += ["--auth", "me"] + ["--allow-insecure-auth"] * (not tls)
    with serving(tmp_path, *options, env={"TRIO_SMTP_PASSWORD": "s3cret"}) as served:
        using = ["--data", f"@{letter}", "--no-data-fixup"] + ["--tls"] * tls
        if login:
            using += ["--auth", login, "--auth-user", "me", "--auth-password", "s3cret"]
        done = swaks(served, *using)
        assert done.returncode == 0, done.stdout
        [(trace, content)] = served.traced()
        assert content == CONTENT
        assert "Received: from client.example ([127.0.0.1])\r\n" in trace
        assert f" with ESMTP{'S' * tls}{'A' * bool(login)} id " in trace


def test_swaks_with_a_wrong_password(tmp_path):
    tool("swaks")
    with serving(tmp_path, "--tls-self-signed", "--auth", "me:right") as served:
        done = swaks(served, "--tls", "--auth", "PLAIN", "--auth-user", "me", "--auth-password", "wrong")
        assert done.returncode != 0
        assert " 535 5.7.8 " in done.stdout
        assert served.messages() == []


@pytest.mark.parametrize("version", ["1", "2"])
def test_swaks_behind_a_load_balancer(tmp_path, version):
    tool("swaks")
    with serving(tmp_path, "--proxy-protocol-from", "127.0.0.0/8") as served:
        proxy = ["--proxy-version", version, "--proxy-family", "TCP4" if version == "1" else "AF_INET"]
        proxy += ["--proxy-source", "192.0.2.9", "--proxy-source-port", "5555"]
        proxy += ["--proxy-dest", "192.0.2.1", "--proxy-dest-port", "25"]
        done = swaks(served, *proxy, *(["--proxy-protocol", "STREAM"] if version == "2" else []))
        assert done.returncode == 0, done.stdout
        assert " ([192.0.2.9])\r\n" in served.traced()[0][0]


# --- the end ---


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_when_the_message_being_received_is_done(tmp_path, number):
    with serving(tmp_path) as served:
        idle, idle_lines = talk(served.port, b"HELO x")
        busy, busy_lines = talk(served.port, *BEFORE_CONTENT)
        with idle, busy, idle_lines, busy_lines:
            busy.sendall(b"half of it\r\n")
            served.process.signal(number)
            assert idle_lines.readline().startswith(b"421 4.3.2 ")
            assert served.process.line() == "ending: messages that are being received may finish"
            busy.sendall(b"and the rest\r\n.\r\n")
            assert busy_lines.readline().startswith(b"250 ")
            assert busy_lines.readline().startswith(b"421 ")
            assert busy_lines.readline() == b""
        status, lines = served.process.wait()
        assert status == 0, served.process.errors()
        assert lines[-1].startswith("ended: 1 message, 26 octets in ")
        assert served.process.errors() == ""
        assert served.messages() == [b"half of it\r\nand the rest\r\n"]


def test_a_second_signal_ends_it_at_once_and_leaves_no_half_message(tmp_path):
    with serving(tmp_path) as served:
        busy, lines = talk(served.port, *BEFORE_CONTENT)
        with busy, lines:
            busy.sendall(b"half of it\r\n")
            served.process.signal()
            assert served.process.line().startswith("ending")
            served.process.signal()
            status, rest = served.process.wait()
        assert status == 0
        assert [line.partition(":")[0] for line in rest] == ["ended"]
        assert served.messages() == []


def test_grace_is_over(tmp_path):
    with serving(tmp_path, "--grace", "0") as served:
        busy, lines = talk(served.port, *BEFORE_CONTENT)
        with busy, lines:
            busy.sendall(b"half of it\r\n")
            served.process.signal()
            status, _ = served.process.wait()
            assert lines.readline().startswith(b"421 ")
        assert status == 0
        assert served.messages() == []


# --- options ---


def test_a_message_larger_than_max_size_is_refused(tmp_path):
    with serving(tmp_path, "--max-size", "1K") as served:
        with smtplib.SMTP("127.0.0.1", served.port) as server:
            with pytest.raises(smtplib.SMTPSenderRefused) as refused:
                send(server)
            assert refused.value.smtp_code == 552
            send(server, b"x" * 500 + b"\r\n")
        assert len(served.messages()) == 1


def test_mail_before_starttls_is_refused_where_tls_is_required(tmp_path):
    with serving(tmp_path, "--tls-self-signed", "--require-tls") as served:
        with smtplib.SMTP("127.0.0.1", served.port) as server, pytest.raises(smtplib.SMTPSenderRefused) as refused:
            send(server)
        assert refused.value.smtp_code == 530


def test_password_from_a_file(tmp_path):
    (tmp_path / "password").write_text("from a file\nsecond line\n")
    with serving(tmp_path, "--tls-self-signed", "--auth", "me", "--password-file", tmp_path / "password") as served:
        with smtplib.SMTP("127.0.0.1", served.port) as server:
            server.starttls()
            server.login("me", "from a file")
            send(server)
        assert served.messages() == [CONTENT]


def test_json_lines(tmp_path):
    process = Process("serve", "--port", "0", "--maildir", tmp_path, "--json", "--hostname", "mx.example")
    try:
        listening = json.loads(process.line())
        assert listening == {"event": "listening", "host": "127.0.0.1", "port": listening["port"]}
        with smtplib.SMTP("127.0.0.1", listening["port"]) as server:
            assert server.ehlo()[1].startswith(b"mx.example")
            send(server)
        message = json.loads(process.line())
        queue_id = message.pop("queue_id")
        assert message == event_of_message(CONTENT)
        assert [path.name.startswith(queue_id + ".") for path in (tmp_path / "new").iterdir()] == [True]
        process.signal()
        status, lines = process.wait()
        ending, ended = map(json.loads, lines)
        assert ending == {"event": "ending"}
        assert ended == {"event": "ended", "messages": 1, "octets": len(CONTENT), "seconds": ended["seconds"]}
        assert status == 0
    finally:
        process.close()


def test_messages_are_printed_raw_but_without_their_control_characters():
    process = Process("serve", "--port", "0", "--raw")
    try:
        port = int(process.line().split()[2].rpartition(":")[2])
        with smtplib.SMTP("127.0.0.1", port) as server:
            send(server, "Subject: \x1b[31mred\r\n\r\ncafé \x9b\u009b\r\n".encode(), ["b@example.net"])
        lines = [process.line() for _ in range(11)]
        assert lines[0].startswith("----- ")
        assert lines[1] == "Return-Path: <a@example.com>"
        assert lines[-4:-1] == ["Subject: \\x1b[31mred", "", "café \\x9b\\x9b"]
        assert "<a@example.com> to <b@example.net>" in lines[-1]
    finally:
        process.close()


def test_messages_are_shown_readable():
    process = Process("serve", "--port", "0")
    try:
        port = int(process.line().split()[2].rpartition(":")[2])
        with smtplib.SMTP("127.0.0.1", port) as server:
            send(server)
        lines = [process.line() for _ in range(6)]
        assert re.fullmatch(r"----- \w{6}Q1 \d\d:\d\d:\d\d, 1,093 octets, ESMTP from 127.0.0.1", lines[0]), lines[0]
        assert lines[1:] == [
            "Envelope  <a@example.com> to <b@example.net>, <c@example.net>",
            "From      a@example.com",
            "Subject   café",
            "",
            ".a dot",
        ]
        process.signal()
        _, rest = process.wait()
        assert rest[-3:-2] == [""]  # between messages, and no line more about each
        assert rest[-1].startswith("ended: 1 message, ")
    finally:
        process.close()


@pytest.mark.parametrize("options", [(), ("--quiet",)])
def test_messages_are_discarded(options):
    process = Process("serve", "--port", "0", "--discard", *options)
    try:
        port = int(process.line().split()[2].rpartition(":")[2])
        with smtplib.SMTP("127.0.0.1", port) as server:
            send(server)
        process.signal()
        *lines, _, ended = process.wait()[1]
        assert len(lines) == (not options)
        assert all(re.search(rf" \w{{6}}Q1: <a@example.com> to .*, {len(CONTENT)} octets", line) for line in lines)
        assert ended.startswith("ended: 1 message, ")
    finally:
        process.close()


def test_load_gives_up_when_the_server_is_gone(tmp_path):
    with serving(tmp_path) as served:
        command = f"load --server 127.0.0.1:{served.port} --messages 400000 --connections 3 --hostname x"
        process = Process(*command.split(), "--give-up-after", "30", "--json")
        try:
            while len(list((served.maildir / "new").iterdir())) < 50:
                assert process.errors() == ""
            served.process.signal(signal.SIGKILL)
            status, [line] = process.wait()
            summary = json.loads(line)
            assert 30 <= sum(summary["errors"].values()) <= 33
            assert summary["status"] == status != 130
            assert "failures in a row" in process.errors()
        finally:
            process.close()


def test_a_client_on_this_machine_may_have_any_number_of_connections(tmp_path):
    with serving(tmp_path) as served:
        done = run(
            *f"load --server 127.0.0.1:{served.port} --messages 120 --connections 60 --hostname x".split(), "--json"
        )
    assert (done.returncode, json.loads(done.stdout)["accepted"]) == (0, 120)


def test_the_limits_of_the_server_are_switches(tmp_path):
    options = "--max-connections 2 --max-connections-per-host none --bare-newlines normalize --max-recipients 1"
    with serving(tmp_path, *options.split(), "--command-timeout", "0.2") as served:
        idle, lines = talk(served.port)
        other, other_lines = talk(served.port)
        with idle, other, lines, other_lines:
            with socket.create_connection(("127.0.0.1", served.port), timeout=LIMIT) as third:
                assert third.recv(1000).startswith(b"421 4.3.2 ")
            assert lines.readline().startswith(b"421 4.4.2 ")
            assert other_lines.readline().startswith(b"421 4.4.2 ")
        talker, lines = talk(served.port)
        with talker, lines:
            talker.sendall(b"\r\n".join(BEFORE_CONTENT[:3]) + b"\r\nRCPT TO:<c@x.example>\r\nDATA\r\n")
            talker.sendall(b"Subject: x\r\n\r\nbare\nnewline\r\n.\r\n")
            assert [lines.readline()[:3] for _ in range(6)] == [b"250", b"250", b"250", b"452", b"354", b"250"]
        assert served.messages() == [b"Subject: x\r\n\r\nbare\r\nnewline\r\n"]


def test_verbose_logs_the_dialogue_but_no_secrets(tmp_path):
    with serving(tmp_path, "-v", "--auth", "me:s3cret", "--allow-insecure-auth") as served:
        with smtplib.SMTP("127.0.0.1", served.port) as server:
            server.login("me", "s3cret")
            send(server)
        served.process.signal()
        served.process.wait()
        log = served.process.errors()
        assert "mail from:<a@example.com>" in log.lower()  # smtplib's casing differs by version
        assert "s3cret" not in log
        assert plain("me", "s3cret") not in log
        assert "a dot" not in log


# --- complaints ---


def test_port_in_use():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("serve", "--port", port, "--discard")
    assert done.returncode == 71
    assert done.stdout == ""
    assert done.stderr == f"trio-smtp: cannot listen on 127.0.0.1, port {port}: Address already in use\n"


def test_unknown_host():
    done = run("serve", "--host", "no-such-host.invalid", "--port", "0", "--discard")
    assert done.returncode == 71
    assert done.stderr.startswith("trio-smtp: cannot listen on no-such-host.invalid, port 0: ")
    assert done.stderr.count("\n") == 1


def test_an_empty_host_is_not_every_address():
    """As a script says it whose variable is not set: the mail of a machine is not open to the world for that."""
    done = run("serve", "--host", "", "--port", "0", "--discard")
    assert done.returncode == 2
    assert "--host is empty: it is an address or a name, or * for all addresses." in done.stderr


def test_maildir_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    done = run("serve", "--port", "0", "--maildir", tmp_path / "file" / "Maildir")
    assert done.returncode == 71
    assert done.stderr == f"trio-smtp: cannot use {tmp_path}/file/Maildir as a Maildir: Not a directory\n"


def test_lenient_takes_what_devices_send(tmp_path):
    with serving(tmp_path, "--lenient") as served:
        with socket.create_connection(("127.0.0.1", served.port), LIMIT) as device:
            device.sendall(b"HELO scanner\nMAIL FROM:  scanner\nRCPT TO:<b@example.net.>\nDATA\n")
            device.sendall(b"Subject: scan\r\n\r\n.\r\nQUIT\n")
            with device.makefile("rb") as replies:
                codes = [line[:3] for line in replies]
        assert codes == [b"220", b"250", b"250", b"250", b"354", b"250", b"221"]
        [(head, _)] = served.traced()
        assert head.startswith("Return-Path: <scanner>\r\nDelivered-To: b@example.net\r\n")
