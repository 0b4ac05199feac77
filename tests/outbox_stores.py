"""Stores for the tests of the outbox: a file, and a Redis of its own that is as durable as it can be."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from cli_process import tool

_PATIENCE = 20  # seconds for a server to answer


class RedisServer:
    """A Redis server on a UNIX socket, and on a TCP port if it is given one; its data are in a directory of its own.

    `before` comes before its command: to run it on another host.
    """

    def __init__(
        self,
        program: str,
        directory: str,
        port: int = 0,
        *settings: str,
        bind: str = "127.0.0.1",
        before: Sequence[str] = (),
    ) -> None:
        self.socket = f"{directory}/redis.sock"
        self.port = port
        self._directory = directory
        self._command = [*before, program, "--port", str(port), "--bind", bind, "--protected-mode", "no"]
        self._command += ["--unixsocket", self.socket, "--save", ""]
        self._command += ["--dir", directory, *(settings or ("--appendonly", "yes", "--appendfsync", "always"))]
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.socket}?db=0"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, cwd=self._directory)
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until:
            with socket.socket(socket.AF_UNIX) as client:
                try:
                    client.connect(self.socket)
                    client.sendall(b"PING\r\n")
                    if client.recv(64).startswith(b"+PONG"):
                        return
                except OSError:
                    pass
            time.sleep(0.02)  # of the server's start, which no event tells
        raise AssertionError("redis-server does not answer")

    def kill(self) -> None:
        """End it as a crash would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()


@contextmanager
def redis_server(
    port: int = 0, *settings: str, bind: str = "127.0.0.1", before: Sequence[str] = ()
) -> Iterator[RedisServer]:
    """A Redis server; the test is skipped, or fails, where the program is missing."""
    program = tool("redis-server")
    pytest.importorskip("coredis")
    directory = tempfile.mkdtemp(prefix="redis")  # a short path: a socket's has 108 octets at most
    server = RedisServer(program, directory, port, *settings, bind=bind, before=before)
    server.start()
    try:
        yield server
    finally:
        server.kill()
        shutil.rmtree(directory)


@pytest.fixture(scope="session")
def one_redis() -> Iterator[RedisServer]:
    """One server for all tests that only need a store."""
    with redis_server() as server:
        yield server


@pytest.fixture(params=["sqlite", "redis"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty store of each kind."""
    if request.param == "sqlite":
        return f"sqlite:{tmp_path}/outbox.db"
    server: RedisServer = request.getfixturevalue("one_redis")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(server.socket)
        client.sendall(b"FLUSHALL\r\n")
        assert client.recv(64).startswith(b"+OK")
    return server.url
