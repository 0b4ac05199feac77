# Servers that others wrote, as processes of a test run: found or skipped, on ports and in directories of their own,
# ended by their process ids.
#
# A port is reserved by a socket that is bound to it and never listens. With SO_REUSEADDR, which every server here sets,
# another socket may bind and listen to it, and the kernel gives it to no other program meanwhile.
from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import trio

PEERS = Path(os.environ.get("TRIO_SMTP_PEERS") or "/var/cache/trio-smtp-peers")
STRICT = bool(os.environ.get("TRIO_SMTP_REQUIRE_TOOLS"))
_GUARD = str(Path(__file__).with_name("peer_guard.py"))
START = 20  # seconds within which a server must listen
STOP = 10  # seconds within which it must be gone
POLL = 0.01  # seconds between two looks at a port or a directory


def missing(what: str) -> None:
    """Skip the test, or let it fail where no tool may be missing."""
    if STRICT:
        pytest.fail(f"{what}, and TRIO_SMTP_REQUIRE_TOOLS is set; tests/peers/install.sh installs everything")
    pytest.skip(f"{what}; tests/peers/install.sh installs everything")


def find(*places: str | Path) -> str | None:
    """The path of the first of these programs that exists: names are looked up in PATH and in sbin."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    return next((found for place in places if (found := shutil.which(place, path=path))), None)


def tool(*places: str | Path) -> str:
    """As :func:`find`; without the program the test is skipped."""
    found = find(*places)
    if found is None:
        missing(f"{places[0]} is not installed")
    assert found is not None
    return found


def need_root() -> None:
    """Skip the test where a server cannot change its user."""
    if os.geteuid() != 0:
        missing("it must be started by root")


@contextlib.contextmanager
def open_ports(count: int) -> Iterator[list[int]]:
    """Reserve ports on 127.0.0.1 until the end of the block."""
    with contextlib.ExitStack() as stack:
        ports = []
        for _ in range(count):
            holder = stack.enter_context(socket.socket())
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            holder.bind(("127.0.0.1", 0))
            ports.append(holder.getsockname()[1])
        yield ports


@contextlib.contextmanager
def open_directory(name: str) -> Iterator[Path]:
    """A new directory that other users may enter, as servers need it that give up root; removed at the end."""
    for place in (tempfile.gettempdir(), "/tmp", "/var/tmp"):
        if all(parent.stat().st_mode & stat.S_IXOTH for parent in (Path(place), *Path(place).resolve().parents)):
            break
    else:
        pytest.fail("there is no directory for temporary files that other users may enter")
    directory = Path(tempfile.mkdtemp(prefix=f"trio-smtp-{name}-", dir=place))
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def running(command: Sequence[str | Path], directory: Path, ports: Sequence[int]) -> Iterator[None]:
    """Run a server in the foreground until the end of the block; the block begins when it listens on all `ports`."""
    log = directory / "output"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-S", _GUARD, *map(str, command)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=directory,
            env={name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")},
            start_new_session=True,
        )
    try:
        for port in ports:
            _wait_for(process, port, log)
        yield
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(STOP)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _wait_for(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    if not trio.run(_listens, process, port):
        said = log.read_text(errors="replace")
        pytest.fail(f"{process.args!r} (status {process.poll()}) does not listen on port {port}: {said}")


async def _listens(process: subprocess.Popen[bytes], port: int) -> bool:
    """Wait until a process listens; false if it ends, or takes too long."""
    with trio.move_on_after(START):
        while process.poll() is None:
            try:
                stream = await trio.open_tcp_stream("127.0.0.1", port)
            except OSError:
                await trio.sleep(POLL)
            else:
                await trio.aclose_forcefully(stream)
                return True
    return False


def output(*command: str | Path) -> str:
    """What a program that ends by itself says."""
    done = subprocess.run(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=START,
        check=False,
    )
    text = done.stdout.decode(errors="replace")
    if done.returncode:
        pytest.fail(f"{command}: {text}")
    return text
