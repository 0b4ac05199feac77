# Output lines. A failed write, to a full disk or a closed pipe, does not stop the program.
#
# A line reports something that has already happened, such as a message that the server accepted. If a failed write
# changed the exit status, a script would send the message again.
#
# `say` waits for its reader, as a command that ends by itself should. A server must not: its lines go through an
# `Outlet`, which never waits. What a reader is too slow for is left out, and counted.
from __future__ import annotations

import logging
import os
import select
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any, Final, TextIO

import click

MAX_WAITING: Final = 16 * 1024 * 1024  # octets that wait for a reader; beyond that, lines are left out
PATIENCE: Final = 1.0  # seconds that a reader may take nothing while the program ends
MAX_PATIENCE: Final = 10.0  # seconds that the end may wait for a reader in all
_BLOCK: Final = 65536  # octets written at a time: each is a sign that there is a reader
_AT_ONCE: Final = 4096  # octets that a pipe takes whole, if it takes any (PIPE_BUF)


def say(line: str, *, err: bool = False) -> None:
    """Write a line to standard output or standard error. After a failure, nothing more is written there."""
    stream = sys.stderr if err else sys.stdout
    try:
        click.echo(line, err=err)
    except UnicodeEncodeError:  # show the rest as it is, and escape what the stream lacks
        encoding = stream.encoding or "ascii"
        say(line.encode(encoding, "backslashreplace").decode(encoding), err=err)
    except OSError:
        _silence(stream)


def has_colour(stream: TextIO | None) -> bool:
    """Whether a stream is a terminal that shows colours, and the user wants them (no-color.org)."""
    return bool(
        stream is not None
        and stream.isatty()
        and not os.environ.get("NO_COLOR")
        and os.environ.get("TERM", "dumb") != "dumb"
    )


class Outlet:
    """Text for one stream, taken at once and written when the stream takes it.

    A thread writes, once :meth:`start` has been called; before that, :meth:`pump` does. Characters that the stream's
    encoding lacks are escaped.

    Args:
        stream: standard output or standard error; ``None`` drops everything.
        note: the line that says how many lines were left out.
    """

    def __init__(self, stream: TextIO | None, note: Callable[[int], str]) -> None:
        self._note = note
        self._encoding: str = getattr(stream, "encoding", None) or "utf-8"
        # Without Python's buffer: its lock, held by a thread that waits for a reader, would stop the program's end.
        buffer = None if stream is None else stream.buffer
        self._raw: Any = getattr(buffer, "raw", buffer)
        self._turns: IO[bytes] | None = None  # the file whose lock says which process writes
        self._pieces: deque[bytes] = deque()
        self._changed = threading.Condition()
        self._waiting: int = 0  # octets, of the pieces and of what is being written
        self._lost: int = 0  # lines left out since the last note
        self._thread: threading.Thread | None = None
        self._is_closing: bool = False

    @property
    def is_full(self) -> bool:
        """Whether text would be left out now."""
        # After a loss there has to be some room first, or notes would alternate with lines.
        return self._waiting >= (MAX_WAITING // 2 if self._lost else MAX_WAITING)

    def put(self, text: str) -> None:
        """Take whole lines. Never waits; any thread may call it."""
        if not text.endswith("\n"):
            text += "\n"
        with self._changed:
            if self._raw is None:
                return
            if self.is_full:
                self._lost += text.count("\n")
                return
            self._admit_loss()
            self._add(text)
            self._changed.notify_all()

    def _add(self, text: str) -> None:
        data = text.encode(self._encoding, "backslashreplace")
        self._pieces.append(data)
        self._waiting += len(data)

    def _admit_loss(self) -> None:
        if self._lost:
            lost, self._lost = self._lost, 0
            self._add(self._note(lost) + "\n")

    def share(self, turns: IO[bytes]) -> None:
        """Write in turn with other processes, whole lines and whole messages.

        Args:
            turns: an open file of which they have a copy; it stands for the stream.
        """
        self._turns = turns

    def start(self, *, forked: bool = False) -> None:
        """Write in a thread from now on.

        Args:
            forked: this is a new process: what its parent has not written yet is left to that.
        """
        if forked:
            self._pieces.clear()
            self._waiting = self._lost = 0
        self._thread = threading.Thread(target=self._write_all, name="output", daemon=True)
        self._thread.start()

    def pump(self) -> bool:
        """Write what the stream takes without waiting; returns whether something is left."""
        while self._pieces and self._raw is not None:
            if not select.select([], [self._raw], [], 0)[1]:
                return True
            with self._turn(wait=False) as is_ours:
                if not is_ours:
                    return True
                piece = self._pieces.popleft()
                written = self._try(piece[:_AT_ONCE])
                self._waiting -= written
                if rest := piece[written:]:
                    self._pieces.appendleft(rest)
        return False

    def close(self) -> None:
        """Write what is left, as long as there is a reader: see PATIENCE and MAX_PATIENCE."""
        with self._changed:
            self._admit_loss()
            self._is_closing = True
            self._changed.notify_all()
        started = last = time.monotonic()
        left = self._waiting
        while self._thread.is_alive() if self._thread is not None else self.pump():
            now = time.monotonic()
            if self._waiting != left:
                left, last = self._waiting, now
            if now - last > PATIENCE or now - started > MAX_PATIENCE:
                return
            self._thread.join(0.02) if self._thread is not None else time.sleep(0.02)

    def _write_all(self) -> None:
        """The thread: write until closed."""
        while True:
            with self._changed:
                while not self._pieces:
                    if self._is_closing:
                        return
                    self._changed.wait()
                pieces = list(self._pieces)
                self._pieces.clear()
            self._write(b"".join(pieces))

    def _write(self, data: bytes) -> None:
        with self._turn(wait=True), memoryview(data) as view:
            for start in range(0, len(view), _BLOCK):
                self._write_block(view[start : start + _BLOCK])
                with self._changed:
                    self._waiting -= min(_BLOCK, len(view) - start)

    def _write_block(self, block: memoryview) -> None:
        while block and self._raw is not None:
            written = self._try(block)
            if not written:  # another program has made the stream non-blocking, for all that share it
                select.select([], [self._raw], [])
            block = block[written:]

    def _try(self, data: bytes | memoryview) -> int:
        try:
            return int(self._raw.write(data) or 0)
        except OSError:  # a full disk, or a reader that is gone: nothing more is written there
            self._raw = None
            return len(data)

    @contextmanager
    def _turn(self, *, wait: bool) -> Iterator[bool]:
        """This process's turn; ``False`` if it is another's."""
        if self._turns is None:
            yield True
            return
        import fcntl  # exists wherever fork does

        try:
            fcntl.lockf(self._turns, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))  # released if the process dies
        except OSError:
            yield False
            return
        try:
            yield True
        finally:
            fcntl.lockf(self._turns, fcntl.LOCK_UN)


class LogStream:
    """What a ``logging.StreamHandler`` writes to, above an outlet."""

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet

    def write(self, text: str) -> None:
        """Take a whole record."""
        self._outlet.put(text)

    def flush(self) -> None:
        """Do nothing: the outlet writes by itself."""


class Output:
    """Standard output and standard error of a program that waits for no reader.

    Args:
        note: the line that says how many lines were left out.
    """

    def __init__(self, note: Callable[[int], str]) -> None:
        self.out: Outlet = Outlet(sys.stdout, note)
        self.err: Outlet = Outlet(sys.stderr, note)

    def share(self) -> None:
        """Let this process and those forked from it write in turn, whole lines and whole messages."""
        for outlet in (self.out, self.err):
            outlet.share(tempfile.TemporaryFile())  # noqa: SIM115 - open as long as the process runs

    def start(self, *, forked: bool = False) -> None:
        """As :meth:`Outlet.start`, of both."""
        for outlet in (self.out, self.err):
            outlet.start(forked=forked)

    def take_log(self) -> None:
        """Let log records that go to standard error go this way."""
        for handler in logging.getLogger().handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stderr:
                handler.setStream(LogStream(self.err))

    def pump(self) -> bool:
        """As :meth:`Outlet.pump`, of both."""
        return self.out.pump() | self.err.pump()

    def close(self) -> None:
        """As :meth:`Outlet.close`, of both."""
        self.out.close()
        self.err.close()


def _silence(stream: TextIO) -> None:
    """Discard what is left in the stream's buffer: if Python fails to write it at exit, the status is 120."""
    with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, stream.fileno())
        finally:
            os.close(nowhere)
