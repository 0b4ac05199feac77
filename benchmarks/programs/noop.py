# A session that repeats NOOP and measures the time to each reply. Arguments: PORT COUNT.
from __future__ import annotations

import json
import socket
import statistics
import sys
import time

from .idle import PATIENCE, read_reply

PAUSE = 0.001  # seconds between two commands
SETTLE = 1.0  # seconds for the uploads to start
ENOUGH = 15.0  # seconds after which it stops early


def main() -> None:
    """Send that many NOOPs; report the seconds."""
    with socket.create_connection(("127.0.0.1", int(sys.argv[1])), PATIENCE) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        read_reply(sock)
        sock.sendall(b"EHLO noop.test.example\r\n")
        read_reply(sock)
        time.sleep(SETTLE)
        waits: list[float] = []
        end = time.monotonic() + ENOUGH
        while len(waits) < int(sys.argv[2]) and (time.monotonic() < end or len(waits) < 2):
            time.sleep(PAUSE)
            began = time.perf_counter()
            sock.sendall(b"NOOP\r\n")
            read_reply(sock)
            waits.append(time.perf_counter() - began)
    quantiles = statistics.quantiles(waits, n=100)
    print(json.dumps({"p50": statistics.median(waits), "p99": quantiles[98], "most": max(waits)}), flush=True)


if __name__ == "__main__":
    main()
