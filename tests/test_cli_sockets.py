# Where `trio-smtp serve` listens: UNIX sockets, and sockets that a service manager passes on, also to a successor.
from __future__ import annotations

import json
import os
import re
import signal
import smtplib
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from functools import partial

import pytest
import trio
from cli_process import LIMIT, Process, clean_environment, run, tool
from test_cli_serve import BEFORE_CONTENT

import trio_smtp

pytestmark = pytest.mark.skipif(
    not hasattr(os, "fork"), reason="there are neither UNIX sockets nor inherited ones here"
)


def send_to(path):
    """A message over a UNIX socket; the reply to QUIT."""
    with socket.socket(socket.AF_UNIX) as connection, connection.makefile("rb") as lines:
        connection.settimeout(LIMIT)
        connection.connect(str(path))
        for command in (*BEFORE_CONTENT, b"x\r\n.", b"QUIT"):
            answer = lines.readline()
            assert answer[:1] in b"23", answer
            connection.sendall(command + b"\r\n")
        return lines.readline()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_unix_socket(tmp_path, workers):
    path = tmp_path / "smtp"
    with socket.socket(socket.AF_UNIX) as dead:  # replaced
        dead.bind(str(path))
    process = Process(
        "serve", "--unix", path, "--unix-mode", "660", "--maildir", tmp_path / "Mail", "--workers", workers
    )
    try:
        assert process.line().startswith(f"listening on unix:{path} (SMTP, no TLS, ")
        assert path.stat().st_mode & 0o777 == 0o660
        if workers > 1:
            process.line()
        assert send_to(path).startswith(b"221 ")
        assert " ESMTP from " not in process.line()  # there is no address
        done = run("serve", "--unix", path, "--discard")
        assert (done.returncode, done.stdout) == (71, "")
        assert done.stderr == f"trio-smtp: cannot listen on {path}: another program listens there\n"
        process.signal()
        assert process.wait()[0] == 0
        assert not path.exists()
    finally:
        process.close()


def test_tcp_and_a_unix_socket_in_json(tmp_path):
    process = Process("serve", "--unix", tmp_path / "smtp", "--port", "0", "--discard", "--json")
    try:
        assert json.loads(process.line()) == {"event": "listening", "path": str(tmp_path / "smtp")}
        assert json.loads(process.line())["host"] == "127.0.0.1"
    finally:
        process.close()


def test_a_unix_socket_in_place_of_a_file(tmp_path):
    (tmp_path / "smtp").write_text("precious")
    done = run("serve", "--unix", tmp_path / "smtp", "--discard")
    assert done.returncode == 71
    assert done.stderr == (f"trio-smtp: cannot listen on {tmp_path}/smtp: a file that is no socket is in the way\n")


def test_a_mode_that_is_none():
    done = run("serve", "--unix", "x", "--unix-mode", "999")
    assert done.returncode == 2
    assert "'999' is not a mode such as 600 or 666." in done.stderr


def test_no_sockets_were_passed_on():
    done = run("serve", "--inherit", "--discard")
    assert (done.returncode, done.stdout) == (71, "")
    assert done.stderr.startswith("trio-smtp: no sockets were passed on (LISTEN_FDS, LISTEN_PID): --inherit is for ")


# --- a service manager ---


class Inheriting:
    """A ``trio-smtp serve --inherit`` that was passed a socket, as a service manager passes it."""

    def __init__(self, listener, maildir, *options):
        command = [sys.executable, "-m", "trio_smtp", "serve", "--inherit", "--maildir", str(maildir), *options]
        self.process = subprocess.Popen(
            ["bash", "-c", f'LISTEN_FDS=1 LISTEN_PID=$$ exec "$@" 3<&{listener.fileno()}', "bash", *command],
            pass_fds=[listener.fileno()],
            stdout=subprocess.PIPE,
            text=True,
            env=clean_environment(),
        )
        self._guard = threading.Timer(LIMIT, self.process.kill)
        self._guard.start()

    def wait_until_it_listens(self):
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("listening on 127.0.0.1:"), line

    def end(self):
        """Ask for the end and wait for it; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=LIMIT)
        return self.process.returncode

    def close(self):
        self._guard.cancel()
        self.process.kill()
        self.process.communicate()


@contextmanager
def inheriting(listener, maildir, *options):
    server = Inheriting(listener, maildir, *options)
    try:
        yield server
    finally:
        server.close()


MESSAGES = 300


@pytest.mark.parametrize("options", [(), ("--workers", "2")], ids=["one process", "workers"])
async def test_a_successor_takes_over_under_load_and_nothing_is_refused_or_cut(tmp_path, options):
    sent = trio.Event()
    results: Counter[str] = Counter()
    greetings: Counter[bytes] = Counter()
    bodies = iter(range(10**6))

    async def send_all(pool, until):
        while not until.is_set() or results["sent"] < MESSAGES:
            number = next(bodies)
            await pool.send("a@example.com", ["b@example.net"], b"Subject: %d\r\n\r\nx\r\n" % number)
            results["sent"] += 1
            if results["sent"] >= 50:
                sent.set()

    async def knock(port, until):
        while not until.is_set():  # a refused connection raises
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                greetings[bytes(await stream.receive_some())[:4]] += 1

    in_thread = partial(trio.to_thread.run_sync, abandon_on_cancel=True)
    with socket.create_server(("127.0.0.1", 0), backlog=1000) as listener, trio.fail_after(LIMIT):
        port = listener.getsockname()[1]
        until = trio.Event()
        with inheriting(listener, tmp_path, *options) as old, inheriting_later(listener, tmp_path, *options) as start:
            await in_thread(old.wait_until_it_listens)
            async with (
                trio_smtp.open_pool("127.0.0.1", port, max_connections=4, local_hostname="x") as pool,
                trio.open_nursery() as nursery,
            ):
                for _ in range(4):
                    nursery.start_soon(send_all, pool, until)
                nursery.start_soon(knock, port, until)
                half = await trio.open_tcp_stream("127.0.0.1", port)
                for command in (*BEFORE_CONTENT, b"half of it"):
                    assert (await half.receive_some())[:1] in b"23"
                    await half.send_all(command + b"\r\n")
                await sent.wait()
                new = start()
                await in_thread(new.wait_until_it_listens)
                old.process.send_signal(signal.SIGTERM)
                for _ in range(100):
                    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                        greetings[bytes(await stream.receive_some())[:4]] += 1
                await half.send_all(b"and the rest\r\n.\r\n")
                assert (await half.receive_some()).startswith(b"250 ")
                await half.aclose()
                await in_thread(partial(old.process.communicate, timeout=LIMIT))
                until.set()
            assert old.process.returncode == 0
            assert await in_thread(new.end) == 0
    assert set(greetings) <= {b"220 ", b"421 "}
    assert greetings[b"220 "] >= 50
    contents = [path.read_bytes() for path in (tmp_path / "new").iterdir()]
    numbers = sorted(int(found[1]) for content in contents if (found := re.search(rb"Subject: (\d+)", content)))
    assert numbers == list(range(results["sent"]))  # each once, none is missing
    assert sum(b"half of it\r\nand the rest\r\n" in content for content in contents) == 1


@contextmanager
def inheriting_later(*args):
    """A function that starts what :func:`inheriting` starts."""
    started = []

    def start():
        started.append(Inheriting(*args))
        return started[0]

    try:
        yield start
    finally:
        for server in started:
            server.close()


def test_systemd_passes_its_sockets(tmp_path):
    activate = tool("systemd-socket-activate")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "trio_smtp", "serve", "--inherit", "--maildir", str(tmp_path / "Mail")]
    with open(tmp_path / "log", "wb") as log:
        # It starts the server at the first connection, and becomes it.
        process = subprocess.Popen(
            [activate, "-l", f"127.0.0.1:{port}", *command], stdout=log, stderr=log, env=clean_environment()
        )
    guard = threading.Timer(LIMIT, process.kill)
    guard.start()
    try:
        until = time.monotonic() + LIMIT
        while True:
            try:
                server = smtplib.SMTP("127.0.0.1", port, timeout=LIMIT)
                break
            except ConnectionRefusedError:  # it does not listen yet
                assert time.monotonic() < until
        with server:
            assert server.sendmail("a@example.com", ["b@example.net"], b"x\r\n") == {}
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT) == 0
        assert len(list((tmp_path / "Mail" / "new").iterdir())) == 1
    finally:
        guard.cancel()
        process.kill()
        process.wait(LIMIT)
