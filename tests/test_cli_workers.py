# `trio-smtp serve --workers`: several processes behind one port, none of which outlives the one that watches them.
from __future__ import annotations

import json
import os
import pty
import re
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest
from cli_process import (
    BEFORE_CONTENT,
    LIMIT,
    Process,
    Served,
    clean_environment,
    found,
    is_alive,
    run,
    serving,
    talk,
    tool,
    wait_for,
    wait_until_gone,
    workers_of,
)

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")


def send(port, content=b"x\r\n"):
    with smtplib.SMTP("127.0.0.1", port, timeout=LIMIT) as server:
        assert server.sendmail("a@example.com", ["b@example.net"], content) == {}


def queue_pid(served):
    """The process that has stored the next message that is reported."""
    queue_id = served.process.line().split()[1].removesuffix(":")
    [path] = (served.maildir / "new").glob(f"*R{queue_id}.*")
    return int(found(re.search(r"P(\d+)R", path.name)))


def ended(served):
    """Its status, when the end is all that is left to say."""
    status, [line] = served.process.wait()
    assert line.startswith("ended: 0 messages, 0 octets in ")
    return status


def test_all_of_them_serve_the_same_port(tmp_path):
    with serving(tmp_path, "--workers", 2) as served:
        assert served.greeting.endswith(", 2 workers)")
        pids = workers_of(served)
        assert len(set(pids)) == 2
        connections = [
            talk(served.port, *BEFORE_CONTENT) for _ in range(16)
        ]  # at one time: one alone is not to have them all
        for connection, lines in connections:
            connection.sendall(b"x\r\n.\r\n")
            assert lines.readline().startswith(b"250 ")
            connection.close()
            lines.close()
        assert {queue_pid(served) for _ in connections} <= set(pids)
        served.process.signal()
        status, lines = served.process.wait()
        assert (status, lines[:-1]) == (0, ["ending: messages that are being received may finish"])
        assert lines[-1].startswith("ended: 16 messages, 48 octets in ")
        assert served.process.errors() == ""
        assert len(list((served.maildir / "new").iterdir())) == 16
        wait_until_gone(pids)


def test_a_thousand_messages_of_smtp_source(tmp_path):
    source = tool("smtp-source")
    with serving(tmp_path, "--workers", 2) as served:
        workers_of(served)
        options = ["-s", "20", "-m", "1000", "-l", "2000", "-f", "a@x.example", "-t", "b@x.example"]
        subprocess.run([source, *options, f"127.0.0.1:{served.port}"], check=True, timeout=LIMIT)
        served.process.signal()
        status, lines = served.process.wait()
        assert status == 0, served.process.errors()
        assert len(files(served)) == 1000
        reported = [line for line in lines if re.fullmatch(r"\S+ \S+: <a@x.example> to <b@x.example>, .*", line)]
        assert len(reported) == 1000  # each on a line of its own
        assert list((served.maildir / "tmp").iterdir()) == []


def files(served):
    return list((served.maildir / "new").iterdir())


@pytest.mark.parametrize("to_the_group", [False, True])
def test_ctrl_c_lets_messages_finish(tmp_path, to_the_group):
    # A terminal sends SIGINT to the whole group: for a worker that is no second signal.
    with serving(tmp_path, "--workers", 2) as served:
        pids = workers_of(served)
        idle, idle_lines = talk(served.port, b"HELO x")
        busy, busy_lines = talk(served.port, *BEFORE_CONTENT)
        with idle, busy, idle_lines, busy_lines:
            busy.sendall(b"half of it\r\n")
            if to_the_group:
                for pid in pids:
                    os.kill(pid, signal.SIGINT)
                    os.kill(pid, signal.SIGTERM)
            served.process.signal(signal.SIGINT)
            assert idle_lines.readline().startswith(b"421 4.3.2 ")
            busy.sendall(b"and the rest\r\n.\r\n")
            assert busy_lines.readline().startswith(b"250 ")
            assert busy_lines.readline().startswith(b"421 ")
        status, lines = served.process.wait()
        assert status == 0
        assert lines[-1].startswith("ended: 1 message, ")
        assert [path.read_bytes().endswith(b"half of it\r\nand the rest\r\n") for path in files(served)] == [True]
        wait_until_gone(pids)


def is_closed(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=LIMIT).close()
    except (ConnectionRefusedError, ConnectionResetError):
        return True
    return False


def test_nobody_is_connected_while_it_ends(tmp_path):
    with serving(tmp_path, "--workers", 2) as served:
        busy, busy_lines = talk(served.port, *BEFORE_CONTENT)
        with busy, busy_lines:
            served.process.line()
            served.process.signal()
            assert served.process.line().startswith("ending")
            wait_for(lambda: is_closed(served.port))  # until the last worker has closed its socket, too
            busy.sendall(b"x\r\n.\r\n")
            assert busy_lines.readline().startswith(b"250 ")
        assert served.process.wait()[0] == 0


def test_a_second_signal_ends_it_at_once(tmp_path):
    with serving(tmp_path, "--workers", 2) as served:
        pids = workers_of(served)
        busy, lines = talk(served.port, *BEFORE_CONTENT)
        with busy, lines:
            busy.sendall(b"half of it\r\n")
            served.process.signal()
            assert served.process.line().startswith("ending")
            served.process.signal()
            assert ended(served) == 0
        assert files(served) == []
        wait_until_gone(pids)


def test_a_third_signal_kills_workers_that_do_not_listen(tmp_path):
    with serving(tmp_path, "--workers", 2) as served:
        pids = workers_of(served)
        os.kill(pids[0], signal.SIGSTOP)
        served.process.signal()
        assert served.process.line().startswith("ending")
        served.process.signal(signal.SIGINT)
        wait_until_gone(pids[1:])
        served.process.signal()
        assert ended(served) == 0
        wait_until_gone(pids)


@pytest.mark.parametrize(("number", "words"), [(signal.SIGKILL, "was killed by SIGKILL"), (signal.SIGTERM, "ended")])
def test_a_worker_that_goes_is_reported_and_replaced(tmp_path, number, words):
    with serving(tmp_path, "--workers", 2) as served:
        first, second = workers_of(served)
        os.kill(first, number)
        assert served.process.line() == f"worker 1 (process {first}) {words}; it will be replaced"
        third = int(found(re.fullmatch(r"worker 1 is now process (\d+)", served.process.line())))
        assert third not in (first, second)
        os.kill(second, signal.SIGSTOP)  # so that the new one must answer
        send(served.port)
        assert queue_pid(served) == third
        os.kill(second, signal.SIGCONT)
        served.process.signal()
        assert served.process.wait()[0] == 0
        wait_until_gone([second, third])


def test_no_worker_outlives_its_parent(tmp_path):
    with serving(tmp_path, "--workers", 2) as served:
        pids = workers_of(served)
        busy, lines = talk(served.port, *BEFORE_CONTENT)
        with busy, lines:
            busy.sendall(b"half of it\r\n")
            served.process.signal(signal.SIGKILL)
            busy.sendall(b"and the rest\r\n.\r\n")  # what was begun may still finish
            assert lines.readline().startswith(b"250 ")
            assert lines.readline().startswith(b"421 ")
        wait_until_gone(pids)
        assert len(files(served)) == 1
        with socket.create_server(("127.0.0.1", served.port)):
            pass  # the port is free


def test_the_total_is_that_of_all_workers_those_that_were_killed_included(tmp_path):
    with serving(tmp_path, "--workers", 2, "--quiet") as served:
        pids = workers_of(served)
        for _ in range(10):
            send(served.port)
        os.kill(pids[0], signal.SIGKILL)
        assert "it will be replaced" in served.process.line()
        assert served.process.line().startswith("worker 1 is now")
        for _ in range(10):
            send(served.port)
        served.process.signal()
        status, lines = served.process.wait()
        assert (status, len(lines)) == (0, 2)
        assert lines[1].startswith("ended: 20 messages, 60 octets in ")


def test_one_certificate_and_one_password_for_all(tmp_path):
    options = ("--workers", 2, "--tls-self-signed", "--auth", "me:secret")
    with serving(tmp_path, *options) as served:
        workers_of(served)
        certificates = set()
        servers = [smtplib.SMTP("127.0.0.1", served.port, timeout=LIMIT) for _ in range(8)]
        for server in servers:
            server.starttls()
            assert isinstance(server.sock, ssl.SSLSocket)
            certificates.add(server.sock.getpeercert(binary_form=True))
            server.login("me", "secret")
            server.quit()
        assert len(certificates) == 1


def test_json_lines(tmp_path):
    process = Process("serve", "--port", "0", "--maildir", tmp_path, "--json", "--workers", "2")
    try:
        listening, workers = json.loads(process.line()), json.loads(process.line())
        assert listening == {"event": "listening", "host": "127.0.0.1", "port": listening["port"]}
        first, _ = workers.pop("pids")
        assert workers == {"event": "workers"}
        os.kill(first, signal.SIGKILL)
        died, born = json.loads(process.line()), json.loads(process.line())
        assert died == {"event": "worker ended", "worker": 1, "pid": first, "reason": "was killed by SIGKILL"}
        assert born == {"event": "worker started", "worker": 1, "pid": born["pid"]}
        process.signal()
        status, lines = process.wait()
        assert [json.loads(line)["event"] for line in lines] == ["ending", "ended"]
        assert status == 0
    finally:
        process.close()


def test_messages_are_printed_whole():
    process = Process("serve", "--port", "0", "--print", "--workers", "2")
    try:
        served = Served(process, None)
        workers_of(served)
        text = "".join(f"line {number}\r\n" for number in range(2000)).encode()
        connections = [talk(served.port, *BEFORE_CONTENT) for _ in range(8)]
        for connection, _ in connections:
            connection.sendall(text + b".\r\n")
        for connection, lines in connections:
            assert lines.readline().startswith(b"250 ")
            connection.close()
            lines.close()
        process.signal()
        _, lines = process.wait()
        at = [index for index, line in enumerate(lines) if line == "line 0"]
        assert len(at) == 8
        for index in at:
            assert lines[index : index + 2000] == [f"line {number}" for number in range(2000)]
    finally:
        process.close()


def test_port_in_use_is_found_before_any_worker_starts():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("serve", "--port", port, "--discard", "--workers", "2")
    assert done.returncode == 71
    assert done.stderr == f"trio-smtp: cannot listen on 127.0.0.1, port {port}: Address already in use\n"


def test_unknown_host():
    done = run("serve", "--host", "no-such-host.invalid", "--port", "0", "--discard", "--workers", "2")
    assert done.returncode == 71
    assert done.stderr.startswith("trio-smtp: cannot listen on no-such-host.invalid, port 0: ")
    assert done.stderr.count("\n") == 1


def patched(patch, *options):
    """The command line of a ``trio-smtp serve`` in which something has been replaced."""
    code = f"import os, sys; from trio_smtp._cli import main, serve, workers; {patch}; main.main()"
    return [sys.executable, "-c", code, "serve", "--port", "0", "--discard", "--workers", "2", *options]


def start(patch):
    return subprocess.Popen(
        patched(patch), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=clean_environment()
    )


@pytest.mark.parametrize(
    ("patch", "status", "words"),
    [
        ("serve.trio_smtp.Server.serve_listeners = None", 70, "worker 1 ended before it was serving"),
        ("os.fork = lambda: os.open('/no/such', 0)", 71, "cannot start a worker: No such file or directory"),
        (
            "fork = iter([os.fork, lambda: os.open('/no', 0)]); os.fork = lambda: next(fork)()",
            71,
            "cannot start a worker",
        ),
    ],
)
def test_a_worker_that_cannot_even_begin_ends_the_whole(patch, status, words):
    done = subprocess.run(
        patched(patch), capture_output=True, text=True, timeout=LIMIT, env=clean_environment(), check=False
    )
    assert done.returncode == status
    assert done.stdout == ""
    assert words in done.stderr.splitlines()[-1]


def test_a_worker_that_cannot_be_replaced_at_once():
    patch = (
        "real = os.fork; forks = iter([real, real, lambda: os.open('/no', 0)]); os.fork = lambda: next(forks, real)()"
    )
    process = start(patch)
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        first, _ = process.stdout.readline().removeprefix("workers: processes ").split(", ")
        os.kill(int(first), signal.SIGKILL)
        assert "was killed by SIGKILL" in process.stdout.readline()
        assert process.stderr.readline() == "trio-smtp: cannot start worker 1: No such file or directory\n"
        assert process.stdout.readline().startswith("worker 1 is now process ")
        process.terminate()
        words, complaints = process.communicate(timeout=LIMIT)
        assert re.fullmatch(r"ending: messages that are being received may finish\nended: 0 mes.*\n", words)
        assert complaints == ""
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait(LIMIT)


@contextmanager
def may_hang(tmp_path, limit):
    """A ``trio-smtp serve`` whose workers hang while they start, as long as a file exists; and that file."""
    flag = tmp_path / "hang"
    patch = (
        f"import time; workers.START_LIMIT = {limit}; ready = workers.Orders.ready; workers.Orders.ready = lambda self:"
        f" (open({str(flag)!r} + 's', 'w'), time.sleep(1000)) if os.path.exists({str(flag)!r}) else ready(self)"
    )
    process = start(patch)
    guard = threading.Timer(LIMIT, process.kill)
    guard.start()
    try:
        yield process, flag
    finally:
        guard.cancel()
        process.kill()
        process.communicate()


def test_a_worker_that_hangs_while_it_starts_is_killed_and_replaced(tmp_path):
    with may_hang(tmp_path, 1) as (process, flag):
        process.stdout.readline()
        first, _ = process.stdout.readline().removeprefix("workers: processes ").split(", ")
        flag.touch()
        os.kill(int(first), signal.SIGKILL)
        assert "was killed by SIGKILL" in process.stdout.readline()
        line = process.stdout.readline()
        hung = int(
            found(re.fullmatch(r"worker 1 \(process (\d+)\) did not serve within 1 s and was killed; .*\n", line))
        )
        assert not is_alive(hung)
        flag.unlink()
        while line and "is now process" not in line:
            line = process.stdout.readline()
        assert line.startswith("worker 1 is now process ")
        process.terminate()
        assert process.wait(LIMIT) == 0


def test_workers_that_hang_from_the_beginning_end_the_whole(tmp_path):
    (tmp_path / "hang").touch()
    with may_hang(tmp_path, 0.5) as (process, _):
        words, complaints = process.communicate(timeout=LIMIT)
        assert (process.returncode, words) == (70, "")
        assert re.fullmatch(r"trio-smtp: worker \d did not serve within 0.5 s and was killed\n", complaints)


def end_by_three_signals(process):
    """What it said after it was asked to end."""
    process.terminate()
    assert process.stdout.readline().startswith("ending: ")
    process.send_signal(signal.SIGINT)
    process.terminate()  # the third kills; two of one kind could become one
    return process.communicate(timeout=LIMIT)[0]


def test_signals_are_heard_while_a_worker_starts(tmp_path):
    (tmp_path / "hang").touch()
    with may_hang(tmp_path, 1000) as (process, _):
        wait_for((tmp_path / "hangs").exists)
        words = end_by_three_signals(process)
        assert process.returncode == 0
        assert "listening" not in words


def giving_up(tmp_path, limit):
    """A ``trio-smtp serve`` whose first worker serves, and then neither listens nor ends; there is no second one."""
    patch = (
        f"import signal, time; workers.END_LIMIT = {limit}; ready = workers.Orders.ready; workers.Orders.ready = lambda"
        " self: (signal.signal(signal.SIGTERM, signal.SIG_IGN), ready(self), time.sleep(1000)); forks = iter([os.fork,"
        f" lambda: (open({str(tmp_path / 'failed')!r}, 'w'), os.open('/no', 0))]); os.fork = lambda: next(forks)()"
    )
    return start(patch)


def test_a_worker_that_does_not_end_when_another_cannot_be_started_is_killed(tmp_path):
    with giving_up(tmp_path, 0.5) as process:
        try:
            words, complaints = process.communicate(timeout=LIMIT)
        finally:
            process.kill()
        assert (process.returncode, words) == (71, "")
        assert complaints == "trio-smtp: cannot start a worker: No such file or directory\n"


def test_signals_are_heard_while_it_gives_up(tmp_path):
    with giving_up(tmp_path, 1000) as process:
        try:
            wait_for((tmp_path / "failed").exists)
            end_by_three_signals(process)
        finally:
            process.kill()
        assert process.returncode == 71


# --- what a person sees ---


@contextmanager
def hint_of(*options):
    """The hint that ``serve`` shows on a terminal, while it runs there."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "trio_smtp", "serve", "--port", "0", "--discard", *options],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=clean_environment({"TRIO_SMTP_PASSWORD": "s3cret"}),
    )
    os.close(theirs)
    guard = threading.Timer(LIMIT, process.kill)
    guard.start()
    try:
        text = ""
        with open(ours, "rb", buffering=0) as terminal:
            while (found := re.search(r"^(to send to it.*)\r?\n", text, re.MULTILINE)) is None:
                text += terminal.read(1000).decode()
            yield found[1].rstrip()
    finally:
        process.terminate()
        process.wait(LIMIT)
        guard.cancel()


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--tls-self-signed"],
        ["--tls-self-signed", "--auth", "me", "--tls-cert-out", "CA"],
        ["--tls-self-signed", "--implicit-tls", "--tls-cert-out", "CA"],
        ["--lmtp", "--workers", "2"],
        ["--auth", "me", "--allow-insecure-auth"],
    ],
    ids=" ".join,
)
def test_the_hint_on_a_terminal_works_as_it_stands(tmp_path, options):
    options = [str(tmp_path / "ca.pem") if word == "CA" else word for word in options]
    with hint_of(*options) as hint:
        command = hint.removeprefix("to send to it: ")
        assert command.startswith("echo Hello | trio-smtp send --server 127.0.0.1:")
        command = command.replace("trio-smtp", f"{sys.executable} -m trio_smtp", 1)
        done = subprocess.run(
            command,
            shell=True,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            env=clean_environment({"TRIO_SMTP_PASSWORD": "s3cret"}),
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("standard input: accepted for <you@example.com>")


def test_the_hint_where_a_client_has_nothing_to_trust():
    with hint_of("--tls-self-signed", "--implicit-tls") as hint:
        assert "--tls-cert-out FILE" in hint
