# What every client program here is told, and how it keeps time with whoever measures it.
#
# The dialogue: the program connects, sends its warm-up messages and says "ready"; at the next line it gets, it sends
# the messages that count and says how many seconds they took; at the end of its input it says QUIT and ends. In between
# it does nothing at all, so that its CPU time can be read from outside.
from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from .load import message

SENDER = "a@test.example"
PIECE = 65536  # octets of a streamed message that come at once


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
        """How many of so many messages each connection gets."""
        share, more = divmod(messages, self.connections)
        return [share + (number < more) for number in range(self.connections)]


class Pieces:
    """A message that comes piece by piece and is nowhere whole."""

    def __init__(self, size: int) -> None:
        self._pieces, self._rest = divmod(size, PIECE)
        self._piece = message(2 * PIECE)[:PIECE]

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for _ in range(self._pieces):
            yield self._piece
        if self._rest:
            yield self._piece[: self._rest]


def sending() -> Sending:
    """Read them from the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--messages", type=int, default=1)
    parser.add_argument("--warm-up", type=int, default=0)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--prose", action="store_true", help="a big message is prose, not base64")
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--recipients", type=int, default=1)
    parser.add_argument("--streamed", action="store_true", help="the message comes as an async iterable")
    parser.add_argument("--depth", type=int, default=1, help="pipeline_depth of our pool")
    parser.add_argument("--variant", default="")
    options = vars(parser.parse_args())
    options["recipients"] = [f"b{number}@test.example" for number in range(options["recipients"])]
    return Sending(**options)


def ready() -> float:
    """Say that the warm-up is over, and wait for the word to begin; returns the time then."""
    print("ready", flush=True)
    sys.stdin.readline()
    return time.perf_counter()


def done(began: float) -> None:
    """Say how long it took, and wait until the CPU time has been read."""
    print(json.dumps({"seconds": time.perf_counter() - began}), flush=True)
    sys.stdin.read()
