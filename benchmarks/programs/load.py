# A load for servers that does what smtp-source cannot: TLS, pipelining, BDAT, messages of any form.
#
# One thread, one epoll, one generator per connection. Of SMTP it only counts replies, and it trusts the server. Its own
# cost does not matter: only the server's CPU time is measured. Its last line on standard output is a JSON object:
# messages, seconds, resumed (sessions).
from __future__ import annotations

import argparse
import json
import select
import socket
import ssl
import sys
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field

Step = tuple[bytes, int]  # octets to write, number of replies to read then
Wait = Generator[int, None, None]  # yields the epoll events to wait for
LINE = b"a line of the message, seventy-two octets long, as mail in flight is.\r\n"
BASE64_LINE = b"VGhpcyBpcyB3aGF0IGFuIGF0dGFjaG1lbnQgbG9va3MgbGlrZSBpbiBhIG1haWwgbWVzc2FnZSBv\r\n"
ATTACHMENT = 65536  # octets: a message of this size is mostly an attachment
HEADER = b"From: <a@test.example>\r\nTo: <b@test.example>\r\nSubject: load\r\n\r\n"


def message(size: int, *, prose: bool = False) -> bytes:
    """A message of about this many octets, without dots to double.

    A small message is prose with a dot at the end of each line. A large one is base64, like an attachment, unless
    `prose` is set.
    """
    line = LINE if prose or size < ATTACHMENT else BASE64_LINE
    return HEADER + line * max(1, round((size - len(HEADER)) / len(line)))


@dataclass
class Load:
    """The work that is left, shared by the connections."""

    options: argparse.Namespace
    left: int
    body: bytes
    context: ssl.SSLContext | None
    resumed: int = 0
    session: ssl.SSLSession | None = None
    script: list[Step] = field(default_factory=list)

    def __post_init__(self) -> None:
        recipients = [b"RCPT TO:<b%d@test.example>\r\n" % n for n in range(self.options.recipients)]
        mail = b"MAIL FROM:<a@test.example>\r\n"
        if self.options.form == "lock-step":
            self.script = [(mail, 1), *((line, 1) for line in recipients), (b"DATA\r\n", 1), (self.body + b".\r\n", 1)]
        elif self.options.form == "pipelined":
            self.script = [(mail + b"".join(recipients) + b"DATA\r\n", 2 + len(recipients)), (self.body + b".\r\n", 1)]
        else:
            bdat = b"BDAT %d LAST\r\n" % len(self.body)
            self.script = [(mail + b"".join(recipients) + bdat + self.body, 2 + len(recipients))]

    def connections(self) -> Iterator[Wait]:
        """Yield a generator for each connection."""
        if not self.options.reconnect:
            share = -(-self.left // self.options.connections)
            while self.left > 0:
                count = min(share, self.left)
                self.left -= count
                yield connection(self, count)
        while self.left > 0:
            self.left -= 1
            yield connection(self, 1)


def connection(load: Load, messages: int) -> Wait:
    """A connection that sends some messages. The first value that it yields is its file descriptor."""
    sock = socket.socket()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.connect(("127.0.0.1", load.options.port))
    sock.setblocking(False)
    yield sock.fileno()
    try:
        if load.options.tls == "implicit":
            sock = yield from _shake_hands(load, sock)
        yield from _read_replies(sock, 1)
        yield from _exchange(sock, b"EHLO load.test.example\r\n", 1)
        if load.options.tls == "starttls":
            yield from _exchange(sock, b"STARTTLS\r\n", 1)
            sock = yield from _shake_hands(load, sock)
            yield from _exchange(sock, b"EHLO load.test.example\r\n", 1)
        for _ in range(messages):
            for data, replies in load.script:
                yield from _exchange(sock, data, replies)
        yield from _exchange(sock, b"QUIT\r\n", 1)
        if isinstance(sock, ssl.SSLSocket):
            load.session = sock.session
    finally:
        sock.close()


def _shake_hands(load: Load, sock: socket.socket) -> Generator[int, None, ssl.SSLSocket]:
    assert load.context is not None
    session = load.session if load.options.resume else None
    tls = load.context.wrap_socket(sock, do_handshake_on_connect=False, session=session)
    while True:
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            yield select.EPOLLIN
        except ssl.SSLWantWriteError:
            yield select.EPOLLOUT
        else:
            load.resumed += bool(tls.session_reused)
            return tls


def _exchange(sock: socket.socket, data: bytes, replies: int) -> Wait:
    view = memoryview(data)
    while view:
        try:
            view = view[sock.send(view) :]
        except (BlockingIOError, ssl.SSLWantWriteError):
            yield select.EPOLLOUT
        except ssl.SSLWantReadError:
            yield select.EPOLLIN
    yield from _read_replies(sock, replies)


def _read_replies(sock: socket.socket, count: int) -> Wait:
    received = b""
    while True:
        try:
            data = sock.recv(65536)
        except (BlockingIOError, ssl.SSLWantReadError):
            yield select.EPOLLIN
            continue
        if not data:
            sys.exit(f"the server has closed the connection after {received!r}")
        received += data
        if received.endswith(b"\n"):
            lines = [line for line in received.splitlines() if line[3:4] == b" "]
            if any(line[:1] > b"3" for line in lines):
                sys.exit(f"the server said {received!r}")
            if len(lines) >= count:
                return


def run(load: Load) -> None:
    """Keep the wanted number of connections open until all work is done."""
    poll = select.epoll()
    going: dict[int, Wait] = {}
    waiting = load.connections()

    def start() -> None:
        for one in waiting:
            fd = next(one)
            if _resume(one, fd, poll, new=True):
                going[fd] = one
                return

    for _ in range(load.options.connections):
        start()
    while going:
        for fd, _ in poll.poll():
            if not _resume(going[fd], fd, poll):
                del going[fd]
                start()


def _resume(one: Wait, fd: int, poll: select.epoll, *, new: bool = False) -> bool:
    try:
        events = next(one)
    except StopIteration:
        return False  # closed, so epoll has removed it
    (poll.register if new else poll.modify)(fd, events)
    return True


def main() -> None:
    """Parse the arguments, do the work, report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--messages", type=int, default=1)
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--prose", action="store_true", help="a large message is prose, not base64")
    parser.add_argument("--recipients", type=int, default=1)
    parser.add_argument("--form", choices=["lock-step", "pipelined", "bdat"], default="lock-step")
    parser.add_argument("--tls", choices=["none", "starttls", "implicit"], default="none")
    parser.add_argument("--reconnect", action="store_true", help="one connection per message")
    parser.add_argument("--resume", action="store_true", help="resume TLS sessions")
    options = parser.parse_args()
    context = None
    if options.tls != "none":
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    load = Load(options, options.messages, message(options.size, prose=options.prose), context)
    began = time.perf_counter()
    run(load)
    print(json.dumps({"messages": options.messages, "seconds": time.perf_counter() - began, "resumed": load.resumed}))


if __name__ == "__main__":
    main()
