# Output lines. A failed write, to a full disk or a closed pipe, does not stop the program.
#
# A line reports something that has already happened, such as a message that the server accepted. If a failed write
# changed the exit status, a script would send the message again.
from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, TextIO

import click

_threads = threading.Lock()
_processes: IO[bytes] | None = None  # the file whose lock serialises writes; None: a single process


def say(line: str, *, err: bool = False) -> None:
    """Write a line to standard output or standard error. After a failure, nothing more is written there."""
    try:
        with turn():
            click.echo(line, err=err)
    except UnicodeEncodeError:
        say(line.encode("ascii", "backslashreplace").decode("ascii"), err=err)
    except OSError:
        _silence(sys.stderr if err else sys.stdout)


def share_output() -> None:
    """Let this process and those forked from it write one at a time, whole lines and whole messages."""
    global _processes
    _processes = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process runs


@contextmanager
def turn() -> Iterator[None]:
    """Exclude other writers: threads of this process and, after :func:`share_output`, the other processes."""
    if _processes is None:
        yield
        return
    import fcntl  # exists wherever fork does

    with _threads:  # the file lock belongs to the process, not to a thread
        fcntl.lockf(_processes, fcntl.LOCK_EX)  # released if the process dies
        try:
            yield
        finally:
            fcntl.lockf(_processes, fcntl.LOCK_UN)


def _silence(stream: TextIO) -> None:
    """Discard what is left in the stream's buffer: if Python fails to write it at exit, the status is 120."""
    with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, stream.fileno())
        finally:
            os.close(nowhere)
