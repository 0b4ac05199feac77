# Sessions that say EHLO and then nothing: arguments PORT SESSIONS TLS ("none" or "implicit"). Says "ready" when all are
# there, and drops them at the end of its input. They come from many addresses of the loopback network.
from __future__ import annotations

import socket
import ssl
import sys

ADDRESSES = 200
PATIENCE = 30.0  # seconds for one answer


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


def open_session(port: int, number: int, context: ssl.SSLContext | None) -> socket.socket:
    """One session that has said EHLO."""
    address = f"127.0.0.{2 + number % ADDRESSES}"
    sock = socket.create_connection(("127.0.0.1", port), PATIENCE, (address, 0))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if context is not None:
        sock = context.wrap_socket(sock)
    read_reply(sock)
    sock.sendall(b"EHLO idle.test.example\r\n")
    read_reply(sock)
    return sock


def main() -> None:
    """Open them one after the other."""
    port, sessions, tls = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    context = None
    if tls == "implicit":
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    kept = [open_session(port, number, context) for number in range(sessions)]
    print("ready", len(kept), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
