# Several processes with the same listening sockets: a parent that watches, and workers, forked from it, that serve.
#
# The parent opens the sockets and forks; it accepts no connections. It runs no event loop, so it can fork again when a
# worker dies. New connections meanwhile wait in the sockets' queue, which all workers share. With SO_REUSEPORT, a
# socket for each worker, the queue of a dead worker would be lost.
#
# The parent gives orders through a pipe to each worker, not by signals. Ctrl-C and most service managers signal the
# whole process group, and a worker that counted its parent's signal as a second one would drop the messages that it is
# receiving. The end of the pipe is an order too: if the parent dies, for any reason, its workers end gracefully.
from __future__ import annotations

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

import trio_smtp

from .errors import CommandError, Status
from .output import Output

END: Final = b"e"
AT_ONCE: Final = b"n"
AVAILABLE: Final = hasattr(os, "fork")
_YOUNG: Final = 1.0  # seconds: a worker that dies earlier is replaced only after this delay
_SOON: Final = 0.05  # seconds until the next try to write what the output did not take

Tell: TypeAlias = Callable[[str, Mapping[str, Any]], None]  # a line of text, and the same as an event for JSON
Work: TypeAlias = Callable[["Orders"], None]  # ends with SystemExit


class Orders:
    """A worker's ends of the pipes to its parent.

    Attributes:
        number: the worker's, the first being 1.
    """

    def __init__(self, number: int, orders: int, ready: int) -> None:
        self.number = number
        self._orders = orders
        self._ready = ready

    def ready(self) -> None:
        """Tell the parent that this worker is serving."""
        os.write(self._ready, b".")
        os.close(self._ready)

    async def obey(self, end: trio.Event, at_once: trio.Event) -> None:
        """Set the events on the parent's orders. If the parent is gone, set `end`."""
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


class _BlockingResolver(trio.abc.HostnameResolver):
    """Asks the system in this thread: a process with other threads must not fork."""

    async def getaddrinfo(
        self,
        host: bytes | None,
        port: bytes | str | int | None,
        family: int = 0,
        type: int = 0,  # noqa: A002
        proto: int = 0,
        flags: int = 0,
    ) -> list[Any]:
        return socket.getaddrinfo(host, port, family, type, proto, flags)

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        return socket.getnameinfo(sockaddr, flags)


def open_sockets(host: str | None, port: int) -> list[socket.socket]:
    """Listening sockets on every address of a host, as :func:`trio_smtp.open_tcp_listeners` opens them.

    Raises:
        OSError: there is no such host, or an address cannot be used.
    """
    return trio.run(_open_sockets, host, port)


async def _open_sockets(host: str | None, port: int) -> list[socket.socket]:
    trio.socket.set_custom_hostname_resolver(_BlockingResolver())
    listeners = await trio_smtp.open_tcp_listeners(port, host=host)
    sockets = [socket.socket(fileno=os.dup(listener.socket.fileno())) for listener in listeners]
    for listener in listeners:
        listener.socket.close()
    return sockets


class Parent:
    """Starts workers, replaces those that die, and ends them.

    Args:
        count: number of workers.
        sockets: their listening sockets.
        work: the function that each worker runs.
        output: of this process, which has no thread that could write: it could not fork then.
        tell: reports to the user, through `output`.
    """

    def __init__(self, count: int, sockets: Sequence[socket.socket], work: Work, output: Output, tell: Tell) -> None:
        self._count = count
        self._sockets = sockets
        self._work = work
        self._output = output
        self._tell = tell
        self._workers: dict[int, _Worker] = {}  # by number
        self._due: dict[int, float] = {}  # when to start the successors of workers that died early
        self._signals = 0  # received so far that ask for an end
        self._failed = False

    def start(self) -> list[int]:
        """Start all workers and return their process ids once they are serving.

        Raises:
            CommandError: one of them could not be started.
        """
        self._wakeups, self._wakeups_end = _listen_to_signals()
        try:
            for number in range(1, self._count + 1):
                if self._fork(number) is None:  # the worker has printed the reason
                    raise CommandError(f"worker {number} ended before it was serving", Status.INTERNAL)
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
        """Wait for signals and return their numbers."""
        timeout = max(0.0, min(self._due.values()) - time.monotonic()) if self._due and not self._signals else None
        if self._output.pump():  # a reader is slow, or it is a worker's turn
            timeout = _SOON if timeout is None else min(timeout, _SOON)
        if not select.select([self._wakeups], [], [], timeout)[0]:
            return b""
        return self._wakeups.recv(4096)

    def _end(self) -> None:
        """Handle a signal: the first ends gracefully, the second at once, the third kills."""
        self._signals += 1
        if self._signals == 1:
            self._tell("ending: messages that are being received may finish", {"event": "ending"})
            for listener in self._sockets:  # otherwise the system would keep accepting connections
                listener.close()
        for worker in self._workers.values():
            if self._signals > 2:
                os.kill(worker.pid, signal.SIGKILL)
                continue
            try:
                os.write(worker.orders, END if self._signals == 1 else AT_ONCE)
            except BrokenPipeError:  # the worker is dead; watch() will notice
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
            f"worker {worker.number} (process {worker.pid}) {why}; it will be replaced",
            {"event": "worker ended", "worker": worker.number, "pid": worker.pid, "reason": why},
        )
        now = time.monotonic()
        self._due[worker.number] = now if now - worker.since > _YOUNG else now + _YOUNG

    def _replace(self, number: int) -> None:
        try:
            worker = self._fork(number)
        except OSError as exc:
            self._output.err.put(f"trio-smtp: cannot start worker {number}: {exc.strerror}")
            worker = None
        if worker is None:
            self._due[number] = time.monotonic() + _YOUNG
            return
        del self._due[number]
        self._tell(
            f"worker {number} is now process {worker.pid}",
            {"event": "worker started", "worker": number, "pid": worker.pid},
        )

    def _fork(self, number: int) -> _Worker | None:
        """Start a worker and wait until it is serving; ``None`` if it ends first.

        Does not return in the worker.
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
            for sibling in self._workers.values():  # otherwise their pipes would stay open after the parent ends
                os.close(sibling.orders)
            self._work(Orders(number, orders, ready_end))
            raise AssertionError("a worker must exit")
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
    """Write the numbers of signals to a socket pair and return it. Read from the first; keep both open."""
    here, there = socket.socketpair()
    for end in (here, there):
        end.setblocking(False)
    for name in _WATCHED:
        signal.signal(getattr(signal, name), lambda number, frame: None)
    signal.set_wakeup_fd(there.fileno(), warn_on_full_buffer=False)
    return here, there


@contextmanager
def _no_signals() -> Iterator[None]:
    """Block signals: until :func:`_forget_signals`, a new worker would report its signals as the parent's."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {getattr(signal, name) for name in _WATCHED})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _forget_signals() -> None:
    """In a worker: ignore Ctrl-C, which the parent handles; leave SIGTERM to Trio."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
