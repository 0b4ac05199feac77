# Several processes with the same listening sockets: a parent that watches, and workers, forked from it, that serve.
#
# The parent opens the sockets and forks; it accepts no connections. It runs no event loop, so it can fork again when a
# worker dies. New connections meanwhile wait in the sockets' queue, which all workers share. With SO_REUSEPORT, a
# socket for each worker, the queue of a dead worker would be lost.
#
# The parent gives orders through a pipe to each worker, not by signals. Ctrl-C and most service managers signal the
# whole process group, and a worker that counted its parent's signal as a second one would drop the messages that it is
# receiving. The end of the pipe is an order too: if the parent dies, for any reason, its workers end gracefully.
#
# Guarantees: the parent waits in one place, for signals, for workers that start, and for moments that are due. So it
# hears signals while a worker starts, and while it gives up; a worker that hangs is killed.
from __future__ import annotations

import math
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import trio

from .errors import CommandError, Status
from .output import Output
from .signals import ENDING, RELOAD, STATISTICS, WATCHED, Wishes

END: Final = b"e"
AT_ONCE: Final = b"n"
AVAILABLE: Final = hasattr(os, "fork")
START_LIMIT: Final = 30.0  # seconds: a worker that does not serve by then is killed
END_LIMIT: Final = 30.0  # seconds: the same for one that is still there after another one could not be started
_YOUNG: Final = 1.0  # seconds: a worker that dies earlier is replaced only after this delay
_SOON: Final = 0.05  # seconds until the next try to write what the output did not take
# Signals that are passed on.
_ORDERS: Final[dict[int, bytes]] = {number: order for number, order in ((RELOAD, b"h"), (STATISTICS, b"u")) if number}

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

    async def obey(self, wishes: Wishes) -> None:
        """Pass the parent's orders on. If the parent is gone, that is one to end."""
        numbers = {order: number for number, order in _ORDERS.items()}
        async with trio.lowlevel.FdStream(self._orders) as stream:
            while orders := await stream.receive_some():
                for order in (orders[at : at + 1] for at in range(len(orders))):
                    if order in numbers:
                        wishes.take(numbers[order])
                        continue
                    wishes.end.set()
                    if order == AT_ONCE:
                        wishes.at_once.set()
            wishes.end.set()


@dataclass(slots=True)
class _Worker:
    number: int
    pid: int
    orders: int  # the writing end
    ready: int | None  # the reading end, while it starts
    since: float
    replaces: bool  # another worker of this number
    hung: bool = False


class Parent:
    """Starts workers, replaces those that die, and ends them.

    Args:
        count: number of workers.
        close: closes the listening sockets.
        work: the function that each worker runs.
        output: of this process, which has no thread that could write: it could not fork then.
        tell: reports to the user, through `output`.
        can_reload: SIGHUP does not ask for the end.
    """

    def __init__(
        self,
        count: int,
        close: Callable[[], None],
        work: Work,
        output: Output,
        tell: Tell,
        *,
        can_reload: bool,
    ) -> None:
        self._count = count
        self._close = close
        self._work = work
        self._output = output
        self._tell = tell
        self._can_reload = can_reload
        self._workers: dict[int, _Worker] = {}  # by number
        self._due: dict[int, float] = {}  # when to start the successors of workers that died early
        self._signals = 0  # received so far that ask for an end
        self._failed = False
        self._early: str | None = None  # why a worker ended before all were serving
        self._are_serving = False  # all have been, once
        self._given_up_by = math.inf  # when workers that are still there are killed

    def start(self) -> list[int]:
        """Start all workers and return their process ids once they are serving; none if a signal has asked for the end.

        Raises:
            CommandError: one of them could not be started.
        """
        self._wakeups, self._wakeups_end = _listen_to_signals()
        try:
            for number in range(1, self._count + 1):
                if self._early is None and not self._signals:
                    self._fork(number, replaces=False)
                # One after the other: what is wrong with all of them is said once.
                while self._early is None and any(worker.ready is not None for worker in self._workers.values()):
                    self._turn()
        except OSError as exc:
            self._give_up()
            raise CommandError(f"cannot start a worker: {exc.strerror}", Status.SYSTEM) from exc
        if self._early is not None and not self._signals:  # the worker has printed the reason
            self._give_up()
            raise CommandError(self._early, Status.INTERNAL)
        self._are_serving = True
        return [] if self._signals else [worker.pid for worker in self._workers.values()]

    def watch(self) -> Status:
        """Watch the workers until a signal has ended them."""
        while self._workers or (self._due and not self._signals):
            self._turn()
        return Status.INTERNAL if self._failed else Status.OK

    def _give_up(self) -> None:
        """End the workers that there are, for which there is a time."""
        self._given_up_by = time.monotonic() + END_LIMIT
        for worker in self._workers.values():
            os.kill(worker.pid, signal.SIGTERM)
        while self._workers:
            self._turn()

    def _is_killed_at(self, worker: _Worker) -> float:
        return min(worker.since + START_LIMIT if worker.ready is not None else math.inf, self._given_up_by)

    def _turn(self) -> None:
        """Wait for something to do, and do it."""
        for number in self._wait():
            self._obey(number)
        for worker in tuple(self._workers.values()):
            pid, status = os.waitpid(worker.pid, os.WNOHANG)
            if pid:
                self._bury(worker, status)
            elif time.monotonic() >= self._is_killed_at(worker):
                worker.hung = True
                os.kill(worker.pid, signal.SIGKILL)
        for worker_number, due in tuple(self._due.items()):
            if not self._signals and due <= time.monotonic():
                self._replace(worker_number)

    def _wait(self) -> bytes:
        """Wait, and return the numbers of signals."""
        starting = {worker.ready: worker for worker in self._workers.values() if worker.ready is not None}
        moments = [self._is_killed_at(worker) for worker in self._workers.values() if not worker.hung]
        if not self._signals:
            moments += self._due.values()
        soonest = min(moments, default=math.inf)
        timeout = max(0.0, soonest - time.monotonic()) if soonest < math.inf else None
        if self._output.pump():  # a reader is slow, or it is a worker's turn
            timeout = _SOON if timeout is None else min(timeout, _SOON)
        wakeups = self._wakeups.fileno()
        readable = select.select([wakeups, *starting], [], [], timeout)[0]
        for fd in readable:
            if fd != wakeups:
                self._note_start(starting[fd])
        return self._wakeups.recv(4096) if wakeups in readable else b""

    def _note_start(self, worker: _Worker) -> None:
        assert worker.ready is not None
        serves = os.read(worker.ready, 1)
        os.close(worker.ready)
        worker.ready = None
        if not serves:  # it is about to die
            self._early = self._early or _early_words(worker)
        elif worker.replaces:
            self._tell(
                f"worker {worker.number} is now process {worker.pid}",
                {"event": "worker started", "worker": worker.number, "pid": worker.pid},
            )

    def _obey(self, number: int) -> None:
        if number in ENDING or (number == RELOAD and not self._can_reload):
            self._end()
        elif number in _ORDERS:
            for worker in self._workers.values():
                _order(worker, _ORDERS[number])

    def _end(self) -> None:
        """Handle a signal: the first ends gracefully, the second at once, the third kills."""
        self._signals += 1
        if self._signals == 1:
            self._tell("ending: messages that are being received may finish", {"event": "ending"})
            self._close()  # otherwise the system would keep accepting connections
        for worker in self._workers.values():
            if self._signals > 2:
                os.kill(worker.pid, signal.SIGKILL)
            else:
                _order(worker, END if self._signals == 1 else AT_ONCE)

    def _bury(self, worker: _Worker, status: int) -> None:
        del self._workers[worker.number]
        os.close(worker.orders)
        if worker.ready is not None:
            os.close(worker.ready)
        code = os.waitstatus_to_exitcode(status)
        if self._signals:
            self._failed = self._failed or code > 0
            return
        why = "ended" if code == 0 else f"failed with status {code}" if code > 0 else f"was killed by {_name(-code)}"
        if worker.hung:
            why = _hung_words()
        if not self._are_serving:
            self._early = self._early or _early_words(worker)
            return
        self._tell(
            f"worker {worker.number} (process {worker.pid}) {why}; it will be replaced",
            {"event": "worker ended", "worker": worker.number, "pid": worker.pid, "reason": why},
        )
        now = time.monotonic()
        self._due[worker.number] = now if now - worker.since > _YOUNG else now + _YOUNG

    def _replace(self, number: int) -> None:
        try:
            self._fork(number, replaces=True)
        except OSError as exc:
            self._output.err.put(f"trio-smtp: cannot start worker {number}: {exc.strerror}")
            self._due[number] = time.monotonic() + _YOUNG
        else:
            del self._due[number]

    def _fork(self, number: int, *, replaces: bool) -> None:
        """Start a worker. Does not return in the worker."""
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
                if sibling.ready is not None:
                    os.close(sibling.ready)
            self._work(Orders(number, orders, ready_end))
            raise AssertionError("a worker must exit")
        os.close(orders)
        os.close(ready_end)
        os.set_blocking(orders_end, False)
        self._workers[number] = _Worker(number, pid, orders_end, ready, time.monotonic(), replaces)


def _early_words(worker: _Worker) -> str:
    return f"worker {worker.number} {_hung_words() if worker.hung else 'ended before it was serving'}"


def _hung_words() -> str:
    return f"did not serve within {START_LIMIT:g} s and was killed"


def _order(worker: _Worker, order: bytes) -> None:
    try:
        os.write(worker.orders, order)
    except (BrokenPipeError, BlockingIOError):  # it is dead, and watch() will notice; or it has stopped to listen
        pass


_HEARD: Final = WATCHED | ({signal.SIGCHLD} if AVAILABLE else set())


def _listen_to_signals() -> tuple[socket.socket, socket.socket]:
    """Write the numbers of signals to a socket pair and return it. Read from the first; keep both open."""
    here, there = socket.socketpair()
    for end in (here, there):
        end.setblocking(False)
    for number in _HEARD:
        signal.signal(number, lambda number, frame: None)
    signal.set_wakeup_fd(there.fileno(), warn_on_full_buffer=False)
    return here, there


@contextmanager
def _no_signals() -> Iterator[None]:
    """Block signals: until :func:`_forget_signals`, a new worker would report its signals as the parent's."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _forget_signals() -> None:
    """In a worker: ignore Ctrl-C, which the parent handles; leave SIGTERM to Trio, and so the others when it runs."""
    signal.set_wakeup_fd(-1)
    for number in _HEARD:
        signal.signal(number, signal.SIG_DFL if number in (signal.SIGTERM, signal.SIGCHLD) else signal.SIG_IGN)


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
