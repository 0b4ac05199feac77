# Lines for whoever looks at them. Nobody may be looking: a full disk or a closed pipe is no reason to stop.
#
# By the time there is something to say it has been done: a message is with the server. An exit status that spoke of the
# output instead would make a script send the message again.
from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TextIO

import click


def say(line: str, *, err: bool = False) -> None:
    """Write a line to standard output, or to standard error; where that fails, nothing more is written there."""
    try:
        click.echo(line, err=err)
    except UnicodeEncodeError:
        say(line.encode("ascii", "backslashreplace").decode("ascii"), err=err)
    except OSError:
        _silence(sys.stderr if err else sys.stdout)


def _silence(stream: TextIO) -> None:
    """What is still in the stream's buffer goes nowhere: Python's own try to write it at exit would be status 120."""
    with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, stream.fileno())
        finally:
            os.close(nowhere)
