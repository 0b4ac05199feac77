# Idle sessions, after EHLO. Arguments: PORT SESSIONS TLS ("none" or "implicit"). Prints "ready" when all are open, and
# closes them at the end of its input. They use many addresses of the loopback network.
from __future__ import annotations

import socket
import ssl
import sys
from collections.abc import Iterable

ADDRESSES = 200
TOGETHER = 250  # sessions
PATIENCE = 30.0  # seconds for one reply


def read_reply(sock: socket.socket) -> None:
    """Read to the last line of a reply."""
    data = b""
    while not (data.endswith(b"\r\n") and data.splitlines()[-1][3:4] == b" "):
        more = sock.recv(4096)
        if not more:
            sys.exit(f"the server has closed the connection after {data!r}")
        data += more
    if data[:1] != b"2":
        sys.exit(f"the server said {data!r}")


def connect(port: int, number: int, context: ssl.SSLContext | None) -> socket.socket:
    """A connection, after its handshake."""
    address = f"127.0.0.{2 + number % ADDRESSES}"
    sock = socket.create_connection(("127.0.0.1", port), PATIENCE, (address, 0))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock if context is None else context.wrap_socket(sock)


def open_sessions(port: int, numbers: Iterable[int], context: ssl.SSLContext | None) -> list[socket.socket]:
    """Open sessions and send EHLO, concurrently, since smtp-server delays its greeting by 0.1 s."""
    sessions = [connect(port, number, context) for number in numbers]
    for sock in sessions:
        read_reply(sock)
        sock.sendall(b"EHLO idle.test.example\r\n")
    for sock in sessions:
        read_reply(sock)
    return sessions


def main() -> None:
    """Open the sessions in groups."""
    port, sessions, tls = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    context = None
    if tls == "implicit":
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    kept: list[socket.socket] = []
    while len(kept) < sessions:
        kept += open_sessions(port, range(len(kept), min(len(kept) + TOGETHER, sessions)), context)
    print("ready", len(kept), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
