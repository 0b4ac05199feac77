# A process: started, measured and ended by its id.
#
# CPU time comes from the process's own clock (nanoseconds, all threads), not from /proc/<pid>/stat, whose ticks of 10
# ms are as long as a hundred messages. The time of child processes is added.
from __future__ import annotations

import re
import resource
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

START_LIMIT = 30.0  # seconds until a server must accept connections
STOP_LIMIT = 5.0  # seconds to end by SIGTERM before SIGKILL


class BenchmarkError(Exception):
    """A program failed; the message has the end of its standard error."""


def lift_file_limit() -> int:
    """Raise the soft limit of open files to the hard one, for this process and its children. Return it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind((host, 0))
        port: int = sock.getsockname()[1]
        return port


def greets(host: str, port: int) -> bool:
    """Whether a server accepts connections there and sends a greeting."""
    try:
        with socket.create_connection((host, port), 1) as sock:
            return bool(sock.recv(1))
    except OSError:
        return False


class Process:
    """A program that runs until :meth:`stop` or its own end; ``with`` stops it in any case.

    Args:
        argv: the command.
        environment: its whole environment, or ``None`` for this one's.
        cwd: its working directory.
    """

    def __init__(
        self, argv: Sequence[str], *, environment: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> None:
        self.argv = list(argv)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop()
        self._popen = subprocess.Popen(
            self.argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=None if environment is None else dict(environment),
            cwd=cwd,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Its id."""
        return self._popen.pid

    def stop(self) -> None:
        """End it: SIGTERM, then SIGKILL."""
        if self._popen.poll() is None:
            self._popen.terminate()
            try:
                self._popen.wait(STOP_LIMIT)
            except subprocess.TimeoutExpired:
                self._popen.kill()
                self._popen.wait()
        for stream in (self._popen.stdin, self._popen.stdout, self._errors):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    pass

    def wait(self, limit: float) -> None:
        """Wait until it has ended with status 0."""
        try:
            status = self._popen.wait(limit)
        except subprocess.TimeoutExpired:
            raise BenchmarkError(f"{self.name} did not end within {limit:.0f} s") from None
        if status:
            raise BenchmarkError(f"{self.name} ended with {status}: {self.last_words()}")

    def wait_for_port(self, port: int, host: str = "127.0.0.1") -> None:
        """Wait until it accepts connections."""
        end = time.monotonic() + START_LIMIT
        while time.monotonic() < end:
            if self._popen.poll() is not None:
                raise BenchmarkError(f"{self.name} did not start: {self.last_words()}")
            try:
                with socket.create_connection((host, port), 1) as sock:
                    sock.settimeout(0.2)
                    try:
                        sock.recv(1)
                    except TimeoutError:  # with implicit TLS the client speaks first
                        pass
                return
            except OSError:
                time.sleep(0.02)
        raise BenchmarkError(f"{self.name} does not listen: {self.last_words()}")

    def say(self, line: str) -> None:
        """Write a line to its standard input."""
        assert self._popen.stdin is not None
        self._popen.stdin.write(line.encode() + b"\n")
        self._popen.stdin.flush()

    def hear(self) -> str:
        """Read the next line of its standard output. Programs here limit their own time."""
        assert self._popen.stdout is not None
        line = self._popen.stdout.readline().decode().rstrip("\n")
        if not line:
            raise BenchmarkError(f"{self.name} ended its output: {self.last_words()}")
        return line

    def last_line(self) -> str:
        """The last line of its standard output, once it has ended. Programs here print little."""
        assert self._popen.stdout is not None
        return (self._popen.stdout.read().decode().splitlines() or [""])[-1]

    def close_input(self) -> None:
        """Close its standard input."""
        assert self._popen.stdin is not None
        try:
            self._popen.stdin.close()
        except BrokenPipeError:
            pass  # it has ended

    def finish(self, limit: float = STOP_LIMIT) -> None:
        """Close its standard input and wait for its end."""
        self.close_input()
        self.wait(limit)

    @property
    def name(self) -> str:
        """A short form of the command."""
        return " ".join(Path(word).name for word in self.argv[:4])

    def last_words(self) -> str:
        """The end of its standard error."""
        self._errors.seek(0)
        return self._errors.read().decode("utf-8", "replace").strip()[-600:] or "(nothing on standard error)"

    # -- measurements

    def cpu(self) -> float:
        """Seconds of CPU time, with its children."""
        return sum(_cpu_clock(pid) for pid in (self.pid, *_children(self.pid)))

    def memory(self) -> int:
        """Octets of private memory now."""
        return _status(self.pid, "RssAnon")

    def reset_peak(self) -> None:
        """Reset the peak of memory."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5", encoding="ascii")

    def peak(self) -> int:
        """The peak of memory in octets since :meth:`reset_peak`."""
        return _status(self.pid, "VmHWM")


def _cpu_clock(pid: int) -> float:
    try:
        return time.clock_gettime((~pid << 3) | 2)  # as clock_getcpuclockid(3) on Linux
    except OSError:  # the process has ended
        return 0.0


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text(encoding="ascii").split():
            found += [int(child), *_children(int(child))]
    return found


def _status(pid: int, field: str) -> int:
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    match = re.search(rf"^{field}:\s+(\d+) kB$", text, re.M)
    if match is None:
        raise BenchmarkError(f"/proc/{pid}/status has no {field}")
    return int(match[1]) * 1024
