# The arguments of every client program, and its protocol with the measuring process.
#
# The program connects, sends its warm-up messages and prints "ready". At the next line of its input it sends the
# measured messages and prints how many seconds they took. At the end of its input it sends QUIT and ends. In between it
# is idle, so its CPU time can be read from outside.
from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from .load import message

SENDER = "a@test.example"
PIECE = 65536  # octets in a piece of a streamed message


@dataclass(frozen=True)
class Sending:
    """A client program's arguments."""

    port: int
    messages: int
    warm_up: int
    size: int
    prose: bool
    connections: int
    recipients: list[str]
    streamed: bool
    depth: int
    variant: str

    @property
    def content(self) -> bytes:
        """The message."""
        return message(self.size, prose=self.prose)

    def shares(self, messages: int) -> list[int]:
        """The number of messages for each connection."""
        share, more = divmod(messages, self.connections)
        return [share + (number < more) for number in range(self.connections)]


class Pieces:
    """A message in pieces, never whole in memory."""

    def __init__(self, size: int) -> None:
        self._pieces, self._rest = divmod(size, PIECE)
        self._piece = message(2 * PIECE)[:PIECE]

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for _ in range(self._pieces):
            yield self._piece
        if self._rest:
            yield self._piece[: self._rest]


def sending() -> Sending:
    """Parse the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--messages", type=int, default=1)
    parser.add_argument("--warm-up", type=int, default=0)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--prose", action="store_true", help="a large message is prose, not base64")
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--recipients", type=int, default=1)
    parser.add_argument("--streamed", action="store_true", help="the message comes as an async iterable")
    parser.add_argument("--depth", type=int, default=1, help="pipeline_depth of our pool")
    parser.add_argument("--variant", default="")
    options = vars(parser.parse_args())
    options["recipients"] = [f"b{number}@test.example" for number in range(options["recipients"])]
    return Sending(**options)


def ready() -> float:
    """Report the end of the warm-up and wait for the start. Return the time of the start."""
    print("ready", flush=True)
    sys.stdin.readline()
    return time.perf_counter()


def done(began: float) -> None:
    """Report the seconds, and wait until the CPU time has been read."""
    print(json.dumps({"seconds": time.perf_counter() - began}), flush=True)
    sys.stdin.read()
