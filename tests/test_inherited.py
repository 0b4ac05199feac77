# Sockets that a service manager passes on.
from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from trio_smtp import inherited_listeners

# In a process of its own, since the descriptors have fixed numbers. It prints what it finds.
CODE = """
import os, trio_smtp
os.environ["LISTEN_PID"] = os.environ["LISTEN_PID"].replace("SELF", str(os.getpid()))
try:
    listeners = trio_smtp.inherited_listeners()
except OSError as exc:
    print(type(exc).__name__, exc)
else:
    print([listener.socket.getsockname() for listener in listeners])
    print([os.get_inheritable(listener.socket.fileno()) for listener in listeners])
    print(trio_smtp.inherited_listeners(), [name for name in os.environ if name.startswith("LISTEN_")])
for fd in (3, 4):
    try:
        os.fstat(fd)
    except OSError:
        print(fd, "closed")
"""


def inherit(*sockets, pid="SELF", count=None):
    """The lines that a process prints that gets these sockets as descriptors 3 and so on."""
    environment = {
        **os.environ,
        "LISTEN_PID": pid,
        "LISTEN_FDS": str(len(sockets)) if count is None else count,
        "LISTEN_FDNAMES": "a:b",
    }
    numbers = [each.fileno() for each in sockets]
    # A shell moves them to where they belong.
    moves = " ".join(f"{3 + at}<&{number}" for at, number in enumerate(numbers))
    done = subprocess.run(
        ["bash", "-c", f'exec "$0" -c "$1" {moves}', sys.executable, CODE],
        pass_fds=numbers,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.splitlines()


@pytest.fixture
def listening():
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.2", 0)) as second:
        yield first, second


def test_they_come_in_order_and_only_once_and_are_for_no_child(listening):
    names, inheritable, again = inherit(*listening)
    assert names == str([each.getsockname() for each in listening])
    assert inheritable == "[False, False]"
    assert again == "[] []"


@pytest.mark.parametrize("pid", ["1", ""])
def test_those_of_another_process_are_not_ours(listening, pid):
    assert inherit(*listening, pid=pid)[0] == "[]"


@pytest.mark.parametrize("count", ["", "x", "-1", "\u0662"])
def test_a_number_that_is_none(listening, count):
    assert inherit(listening[0], count=count)[0].startswith("OSError [Errno 22] LISTEN_FDS is not a number: ")


def test_what_is_no_stream_socket_that_listens_is_an_error_and_all_are_closed(listening):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams, socket.socket() as idle:
        idle.bind(("127.0.0.1", 0))
        for wrong in (datagrams, idle):
            words, *closed = inherit(listening[0], wrong)
            assert words.startswith("OSError [Errno 22] the inherited socket 4 is not for this: ")
            assert closed == ["3 closed", "4 closed"]
    with open(os.devnull) as file:
        assert (
            "not a socket" in inherit(listening[0], file)[0]
            or "Socket operation on non-socket" in (inherit(listening[0], file)[0])
        )


def test_descriptors_that_are_not_there_are_an_error(listening):
    words, *closed = inherit(listening[0], count="2")
    assert words.startswith("OSError [Errno 9]")
    assert closed == ["3 closed", "4 closed"]


def test_without_a_service_manager_there_are_none(monkeypatch):
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        monkeypatch.delenv(name, raising=False)
    assert inherited_listeners() == []
