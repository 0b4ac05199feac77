# `trio-smtp relay` as a process between smtplib and `trio-smtp serve`.
from __future__ import annotations

import json
import os
import re
import select
import signal
import smtplib
import socket
import ssl
import threading
import urllib.request
from contextlib import ExitStack, contextmanager, suppress

import click
import pytest
from cli_process import (
    BEFORE_CONTENT,
    LIMIT,
    Process,
    event_of_message,
    found,
    invoke,
    serving,
    talk,
    two_ports,
    wait_for,
    wait_until_gone,
    workers_of,
)

from trio_smtp import ClientConfig
from trio_smtp._cli.options import Target
from trio_smtp._cli.relay import _Route
from trio_smtp._cli.relay import relay as relay_command
from trio_smtp._cli.send import send as send_command
from trio_smtp._cli.serve import serve as serve_command

CONTENT = b"From: a@example.com\r\nSubject: hi\r\n\r\n.dot\r\n..two\r\n" + b"x" * 998 + b"\r\ncaf\xc3\xa9\r\n"


class Relaying:
    def __init__(self, process):
        self.process = process
        self.greeting = process.line()
        self.port = int(found(re.match(r"listening on 127\.0\.0\.1:(\d+) ", self.greeting)))


@contextmanager
def relaying(to, *options, code=None):
    process = Process("relay", "--port", "0", "--to", f"localhost:{to}", *options, code=code)
    try:
        yield Relaying(process)
    finally:
        process.close()


# A relay that tries to connect again at once.
AT_ONCE = (
    "from functools import partial; import trio_smtp; from trio_smtp._cli import main;"
    " trio_smtp.PoolConfig = partial(trio_smtp.PoolConfig, retry_delay=0.01); main.main()"
)


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
        assert [line.partition(":")[0] for line in lines[1:]] == ["ending", "ended"]
        size = len(CONTENT)
        reply = r"250 2\.0\.0 OK: queued as \S+"
        assert re.fullmatch(
            rf"\S+ <a@example.com> to <b@example.net>, <c@example.net>, {size} octets, ESMTP from 127.0.0.1: {reply}",
            lines[0],
        )
        assert lines[-1].startswith(f"ended: 1 message, {size:,} octets in ")


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
        with relaying(nowhere, code=AT_ONCE) as relay:
            with pytest.raises(smtplib.SMTPSenderRefused) as refused:
                send(relay.port)
            assert refused.value.smtp_code == 451
            assert b"4.4.1" in refused.value.smtp_error
            assert f"cannot connect to localhost:{nowhere}" in relay.process.errors()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("", "Missing option '--to'"),
        ("--to x --maildir x", "No such option"),
        ("--to x --outbox sqlite:x", "No such option"),
        ("--to x:25 --to-lmtp", "LMTP must not be used on port 25"),
        ("--to x:25 --to-mechanism plain", "--to-mechanism needs --to-auth."),
        ("--to x:25 --workers 3 --to-connections 2", "there must be one for each."),
        ("--to x:25 --workers 2 --metrics 0", "--metrics needs a port other than 0 with --workers"),
    ],
)
def test_usage(options, words):
    done = invoke("relay", *options.split())
    assert done.exit_code == 2
    assert words in " ".join(done.output.split())


def test_help():
    text = " ".join(invoke("relay", "--help").output.split())
    assert "use --to-password-file" in text
    assert "Name in the greeting. " in text
    assert "Hand mail on to another server." in " ".join(invoke("--help").output.split())


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


# --- its options are those of `serve` and `send` ---


def options_of(command):
    """The names of a command's options, without dashes."""
    return {option.opts[0].removeprefix("--") for option in command.params if isinstance(option, click.Option)}


def test_it_has_the_options_of_serve_and_send():
    """But those that say where messages are kept, or what is sent."""
    keeping = {"maildir", "print", "raw", "discard", "outbox"}
    what = {"server", "from", "to", "subject", "body", "attach", "json", "metrics", "-f", "-v"}
    what |= {"-t", "-i", "-F", "-o", "-b"}  # sendmail's
    own = {"to", "to-connections", "unknown"}
    assert options_of(relay_command) == (
        (options_of(serve_command) - keeping) | {f"to-{name}" for name in options_of(send_command) - what} | own
    )


def test_the_ways_of_sending_are_obeyed(tmp_path):
    with serving(tmp_path, "--verbose") as served:
        with relaying(served.port, "--to-no-chunking", "--to-no-pipelining") as relay:
            send(relay.port)
        assert served.messages() == [CONTENT]
        log = served.process.errors()
    assert "DATA" in log
    assert "BDAT" not in log


@contextmanager
def mute(*replies):
    """The port of a server that says this much on each connection, and nothing more until it is left."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve(connection):
            with suppress(OSError), connection, connection.makefile("rb") as lines:
                for reply in replies[:-1]:
                    connection.sendall(reply + b"\r\n")
                    lines.readline()
                connection.sendall(replies[-1] + b"\r\n")
                while (line := lines.readline()) and not line.startswith(b"QUIT"):
                    pass

        def accept():
            with suppress(OSError):
                while True:
                    connection = listener.accept()[0]
                    threading.Thread(target=serve, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def test_the_time_that_the_other_server_has_can_be_limited():
    with mute(b"220 mute.test", b"250 mute.test") as port, relaying(port, "--handler-timeout", "0.2") as relay:
        client, lines = talk(relay.port, b"HELO x")
        with client, lines:
            client.sendall(BEFORE_CONTENT[1] + b"\r\n")
            assert lines.readline().startswith(b"451 4.3.0 ")


def test_a_server_that_says_nothing_does_not_keep_it_from_serving():
    code = "from trio_smtp._cli import main, relay; relay._PATIENCE = 0.2; main.main()"
    with mute(b"") as port:
        process = Process("relay", "--port", "0", "--to", f"127.0.0.1:{port}", code=code)
        try:
            relay = Relaying(process)
            assert process.errors() == (
                f"trio-smtp: 127.0.0.1:{port} does not say within 0.2 s what it offers;"
                " mail is refused for now (451) until that changes\n"
            )
            with smtplib.SMTP("127.0.0.1", relay.port, timeout=LIMIT) as client:
                assert client.noop()[0] == 250
        finally:
            process.close()


def test_what_is_said_of_an_option_has_its_name(tmp_path):
    with serving(tmp_path, "--tls-self-signed") as served, relaying(served.port, "--to-tls", "starttls") as relay:
        errors = relay.process.errors()
    assert "(--to-ca FILE trusts the certificates in FILE; --to-tls opportunistic encrypts without checking)" in errors


# --- several processes ---

forking = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")


def test_connections_are_shared_out():
    for connections, workers, shares in ((20, 1, [20]), (20, 3, [7, 7, 6]), (3, 3, [1, 1, 1])):
        there = Target(words="", host="x", port=25, config=ClientConfig(), options={})
        route = _Route(target=there, connections=connections, unknown="refuse")
        assert [route.share(worker, workers) for worker in range(1, workers + 1)] == shares


@forking
def test_workers_have_no_more_connections_together_than_were_asked_for(tmp_path):
    """Sixteen clients at one time: the other server never has to refuse a connection."""
    with (
        serving(tmp_path, "--max-connections", "4") as served,
        relaying(served.port, "--workers", "2", "--to-connections", "3") as relay,
        ExitStack() as stack,
    ):
        workers_of(relay)
        waiting = {}
        for _ in range(16):
            connection, lines = talk(relay.port, b"EHLO x")
            stack.enter_context(connection)
            stack.enter_context(lines)
            while lines.readline()[3:4] == b"-":
                pass
            waiting[connection] = lines
        for connection in waiting:
            connection.sendall(BEFORE_CONTENT[1] + b"\r\n")
        while waiting:
            ready = select.select(waiting, [], [], LIMIT)[0]
            assert ready
            for connection in ready:
                lines = waiting.pop(connection)
                assert lines.readline().startswith(b"250 ")
                connection.sendall(b"RSET\r\n")
        served.process.signal(signal.SIGUSR1)
        wait_for(lambda: "refused connections" in served.process.errors())
        assert "refused connections 0," in served.process.errors()
        assert relay.process.errors() == ""


@forking
@pytest.mark.parametrize("workers", [1, 2])
def test_signals_metrics_and_json(tmp_path, workers):
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    context = ssl.create_default_context()
    authority.configure_trust(context)

    def issue():
        certificate = authority.issue_cert("localhost")
        certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "cert.pem")
        return ssl.PEM_cert_to_DER_cert(certificate.cert_chain_pems[0].bytes().decode())

    def shown(port):
        with smtplib.SMTP("localhost", port, timeout=LIMIT) as client:
            client.starttls(context=context)
            assert isinstance(client.sock, ssl.SSLSocket)
            return client.sock.getpeercert(binary_form=True)

    old = issue()
    at = two_ports()
    options = ("--workers", workers, "--json", "--tls-cert", tmp_path / "cert.pem", "--metrics", at)
    with serving(tmp_path) as served:
        process = Process("--log-json", "relay", "--port", 0, "--to", f"localhost:{served.port}", *options)
        try:
            listening, *told = (json.loads(process.line()) for _ in range(1 + workers + (workers > 1)))
            port = listening["port"]
            assert listening == {"event": "listening", "host": "127.0.0.1", "port": port}
            assert told[0] == {"event": "metrics", "url": f"http://127.0.0.1:{at}/metrics"}
            pids = told[-1]["pids"] if workers > 1 else []
            for _ in range(4):
                send(port)
            report = json.loads(process.line())
            assert report.pop("reply").startswith("250 2.0.0 OK: queued as ")
            assert report == event_of_message(CONTENT)
            pages = [page(at + worker) for worker in range(workers)]
            assert sum(float(count) for text in pages for count in RELAYED.findall(text)) == 4

            process.signal(signal.SIGUSR1)
            wait_for(lambda: process.errors().count("; accepted: 4 messages, ") == workers)
            assert all(json.loads(line)["logger"].startswith("trio_smtp") for line in process.errors().splitlines())

            assert shown(port) == old
            new = issue()
            process.signal(signal.SIGHUP)
            wait_for(lambda: {shown(port) for _ in range(4 * workers)} == {new})

            busy, lines = talk(port, *BEFORE_CONTENT)
            with busy, lines:
                busy.sendall(b"half of it\r\n")
                process.signal(signal.SIGTERM)
                ending = [json.loads(process.line()) for _ in range(4)][-1]
                assert ending == {"event": "ending"}
                busy.sendall(b"and the rest\r\n.\r\n")
                assert lines.readline().startswith(b"250 ")
            status, rest = process.wait()
            assert [json.loads(line)["event"] for line in rest] == ["message", "ended"]
            assert json.loads(rest[-1])["messages"] == 5
            assert status == 0
            wait_until_gone(pids)
        finally:
            process.close()
        assert served.messages() == [CONTENT] * 4 + [b"half of it\r\nand the rest\r\n"]


RELAYED = re.compile(r'^smtp_pool_messages_total\{delivery="accepted"\} (\S+)$', re.MULTILINE)


def page(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=LIMIT) as answer:
        return answer.read().decode()


@forking
def test_a_worker_that_is_replaced_asks_again_what_is_offered(tmp_path):
    with serving(tmp_path, "--max-size", "100000") as served:
        with relaying(served.port, "--workers", 2, "--quiet") as relay:
            [first, second] = workers_of(relay)
            for pid in (first, second):
                os.kill(pid, signal.SIGKILL)
            lines = [relay.process.line() for _ in range(4)]
            assert sum("is now process" in line for line in lines) == 2
            with smtplib.SMTP("127.0.0.1", relay.port, timeout=LIMIT) as client:
                client.ehlo()
                assert client.esmtp_features["size"] == "100000"
                client.sendmail("a@example.com", ["b@example.net"], CONTENT)
            relay.process.signal()
            status, lines = relay.process.wait()
        assert (status, len(lines)) == (0, 2)
        assert lines[-1].startswith("ended: 1 message, ")
        assert served.messages() == [CONTENT]
