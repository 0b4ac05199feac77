# Several processes behind the same listening sockets: a parent that watches, and workers forked from it that serve.
#
# The parent opens the sockets, forks, and accepts nothing. It runs no event loop, so that it can fork again whenever a
# worker dies; what has connected meanwhile waits in the sockets' queue, which belongs to all of them (with a socket of
# its own for each worker, SO_REUSEPORT, a dead worker's queue would die with it).
#
# Orders go through a pipe to each worker, not by signals: Ctrl-C and most service managers signal the whole group, and
# a worker that counted its parent's signal as a second one would drop what it is receiving. The end of that pipe is an
# order too: when the parent is gone, however it went, its workers end gracefully by themselves.
from __future__ import annotations

import errno
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import trio

from .errors import CommandError, Status
from .output import say

END: Final = b"e"
AT_ONCE: Final = b"n"
AVAILABLE: Final = hasattr(os, "fork")
_YOUNG: Final = 1.0  # seconds: a worker that dies before it is so old waits as long for its successor

Tell: TypeAlias = Callable[[str, Mapping[str, Any]], None]  # the line for a person, the event for a program
Work: TypeAlias = Callable[["Orders"], None]  # ends by SystemExit


class Orders:
    """A worker's end of the line to its parent."""

    def __init__(self, orders: int, ready: int) -> None:
        self._orders = orders
        self._ready = ready

    def ready(self) -> None:
        """Tell the parent that this worker serves."""
        os.write(self._ready, b".")
        os.close(self._ready)

    async def obey(self, end: trio.Event, at_once: trio.Event) -> None:
        """Set the events when the parent says so; a parent that is gone wants an end."""
        async with trio.lowlevel.FdStream(self._orders) as stream:
            while order := await stream.receive_some():
                end.set()
                if AT_ONCE in order:
                    at_once.set()
            end.set()


@dataclass(frozen=True, slots=True)
class _Worker:
    number: int
    pid: int
    orders: int  # the writing end
    since: float


def open_sockets(host: str | None, port: int) -> list[socket.socket]:
    """Listening sockets on every address of a host, as Trio would open them.

    Raises:
        OSError: there is no such host, or an address cannot be had.
    """
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            try:
                listener = socket.socket(family, kind, protocol)
            except OSError as exc:  # a machine without IPv6 may have addresses of that kind all the same
                if exc.errno != errno.EAFNOSUPPORT:
                    raise
                continue
            sockets.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(address)
            listener.listen(0xFFFF)  # the system takes as much of it as it allows
    except OSError:
        for listener in sockets:
            listener.close()
        raise
    if not sockets:
        raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
    return sockets


class Parent:
    """Starts workers, replaces those that die, and ends them.

    Args:
        count: how many.
        sockets: what they listen on.
        work: what each of them does.
        tell: reports to the user.
    """

    def __init__(self, count: int, sockets: Sequence[socket.socket], work: Work, tell: Tell) -> None:
        self._count = count
        self._sockets = sockets
        self._work = work
        self._tell = tell
        self._workers: dict[int, _Worker] = {}  # by number
        self._due: dict[int, float] = {}  # when to start the successors of those that died young
        self._signals = 0  # that asked for an end
        self._failed = False

    def start(self) -> list[int]:
        """Start all workers, and return their process ids once they serve.

        Raises:
            CommandError: one of them could not be started.
        """
        self._wakeups, self._wakeups_end = _listen_to_signals()
        try:
            for number in range(1, self._count + 1):
                if self._fork(number) is None:  # it has said why
                    raise CommandError(f"worker {number} has ended before it served", Status.INTERNAL)
        except (CommandError, OSError) as exc:
            for worker in self._workers.values():
                os.close(worker.orders)
                os.waitpid(worker.pid, 0)
            if isinstance(exc, CommandError):
                raise
            raise CommandError(f"cannot start a worker: {exc.strerror}", Status.SYSTEM) from exc
        return [worker.pid for worker in self._workers.values()]

    def watch(self) -> Status:
        """Watch the workers until a signal has ended them."""
        while self._workers or (self._due and not self._signals):
            for number in self._wait():
                if number != signal.SIGCHLD:
                    self._end()
            for worker in tuple(self._workers.values()):
                pid, status = os.waitpid(worker.pid, os.WNOHANG)
                if pid:
                    self._bury(worker, status)
            for worker_number, due in tuple(self._due.items()):
                if not self._signals and due <= time.monotonic():
                    self._replace(worker_number)
        return Status.INTERNAL if self._failed else Status.OK

    def _wait(self) -> bytes:
        """Wait for signals: their numbers."""
        timeout = max(0.0, min(self._due.values()) - time.monotonic()) if self._due and not self._signals else None
        if not select.select([self._wakeups], [], [], timeout)[0]:
            return b""
        return self._wakeups.recv(4096)

    def _end(self) -> None:
        """One more signal: please end; end at once; be gone."""
        self._signals += 1
        if self._signals == 1:
            self._tell("ending: messages that are being received may finish", {"event": "ending"})
            for listener in self._sockets:  # or the system would go on taking connections for nobody
                listener.close()
        for worker in self._workers.values():
            if self._signals > 2:
                os.kill(worker.pid, signal.SIGKILL)
                continue
            try:
                os.write(worker.orders, END if self._signals == 1 else AT_ONCE)
            except BrokenPipeError:  # it is about to be buried
                pass

    def _bury(self, worker: _Worker, status: int) -> None:
        del self._workers[worker.number]
        os.close(worker.orders)
        code = os.waitstatus_to_exitcode(status)
        if self._signals:
            self._failed = self._failed or code > 0
            return
        why = "ended" if code == 0 else f"failed with status {code}" if code > 0 else f"was killed by {_name(-code)}"
        self._tell(
            f"worker {worker.number} (process {worker.pid}) {why}; another takes its place",
            {"event": "worker ended", "worker": worker.number, "pid": worker.pid, "reason": why},
        )
        now = time.monotonic()
        self._due[worker.number] = now if now - worker.since > _YOUNG else now + _YOUNG

    def _replace(self, number: int) -> None:
        try:
            worker = self._fork(number)
        except OSError as exc:
            say(f"trio-smtp: cannot start worker {number}: {exc.strerror}", err=True)
            worker = None
        if worker is None:
            self._due[number] = time.monotonic() + _YOUNG
            return
        del self._due[number]
        self._tell(
            f"worker {number} is process {worker.pid} now",
            {"event": "worker started", "worker": number, "pid": worker.pid},
        )

    def _fork(self, number: int) -> _Worker | None:
        """Start a worker and wait until it serves; ``None`` if it ends instead.

        In the worker this does not return.
        """
        orders, orders_end = os.pipe()
        ready, ready_end = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            with _no_signals():
                pid = os.fork()
                if pid == 0:
                    _forget_signals()
        except OSError:
            for fd in (orders, orders_end, ready, ready_end):
                os.close(fd)
            raise
        if pid == 0:
            os.close(orders_end)
            os.close(ready)
            for sibling in self._workers.values():  # or their pipes would not end with the parent
                os.close(sibling.orders)
            self._work(Orders(orders, ready_end))
            raise AssertionError("a worker ends by exiting")
        os.close(orders)
        os.close(ready_end)
        serves = os.read(ready, 1)
        os.close(ready)
        if not serves:
            os.close(orders_end)
            os.waitpid(pid, 0)
            return None
        self._workers[number] = worker = _Worker(number, pid, orders_end, time.monotonic())
        return worker


_WATCHED: Final = ("SIGINT", "SIGTERM", "SIGCHLD")


def _listen_to_signals() -> tuple[socket.socket, socket.socket]:
    """From now on the signals' numbers can be read from the first of these, as long as both are there."""
    here, there = socket.socketpair()
    for end in (here, there):
        end.setblocking(False)
    for name in _WATCHED:
        signal.signal(getattr(signal, name), lambda number, frame: None)
    signal.set_wakeup_fd(there.fileno(), warn_on_full_buffer=False)
    return here, there


@contextmanager
def _no_signals() -> Iterator[None]:
    """Between a fork and :func:`_forget_signals`, a worker's signal would be taken for its parent's."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {getattr(signal, name) for name in _WATCHED})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _forget_signals() -> None:
    """In a worker: Ctrl-C is the parent's business; SIGTERM is what Trio makes of it."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
