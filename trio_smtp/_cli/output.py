# Lines for whoever looks at them. Nobody may be looking: a full disk or a closed pipe is no reason to stop.
#
# By the time there is something to say it has been done: a message is with the server. An exit status that spoke of the
# output instead would make a script send the message again.
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
_processes: IO[bytes] | None = None  # the file whose lock says which process may write; None: there is only one


def say(line: str, *, err: bool = False) -> None:
    """Write a line to standard output, or to standard error; where that fails, nothing more is written there."""
    try:
        with turn():
            click.echo(line, err=err)
    except UnicodeEncodeError:
        say(line.encode("ascii", "backslashreplace").decode("ascii"), err=err)
    except OSError:
        _silence(sys.stderr if err else sys.stdout)


def share_output() -> None:
    """Let the processes that will be forked from this one write in turns, whole lines and whole messages."""
    global _processes
    _processes = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process lives


@contextmanager
def turn() -> Iterator[None]:
    """Be the only one who writes, among this process's threads and, after :func:`share_output`, its relatives."""
    if _processes is None:
        yield
        return
    import fcntl  # where there is a fork, there is this

    with _threads:  # the system grants a lock to the process, so to both of two threads
        fcntl.lockf(_processes, fcntl.LOCK_EX)  # and takes it from one that dies
        try:
            yield
        finally:
            fcntl.lockf(_processes, fcntl.LOCK_UN)


def _silence(stream: TextIO) -> None:
    """What is still in the stream's buffer goes nowhere: Python's own try to write it at exit would be status 120."""
    with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, stream.fileno())
        finally:
            os.close(nowhere)
