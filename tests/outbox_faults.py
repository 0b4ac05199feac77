"""Faults that an outbox must survive: workers, the store and the clock are attacked while messages are sent.

    python tests/outbox_faults.py --store redis --fault kill --messages 1000 --workers 4 --faults 20

A driver puts messages, runs workers as processes of their own, and a server that counts what it accepts; it attacks. Of
each ten messages the server refuses one for good, and counts the delivery reports that come of that. In the end nothing
may be queued, and for each message the server's count must fit the outbox's word: one for "sent", one or none for
"in_doubt", none for "refused", and never two. For each that was refused there is one report, of which the same holds.
tests/test_outbox_faults.py runs each kind at a small size.

    kill        a worker is killed (SIGKILL) and started again
    kill_all    all workers are
    store       Redis is killed, and started again
    stop        a worker is stopped (SIGSTOP) for longer than its lease, and goes on
    partition   the way between workers and Redis is cut for longer than a lease
    clock       a worker's clock jumps, an hour ahead and back (SQLite; a Redis has one clock for all)
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import trio

import trio_smtp
from trio_smtp.outbox import OutboxConfig, State, StoreError, open_outbox
from trio_smtp.reports import parse_report

LEASE = 1.5  # seconds
LIMIT = 600  # seconds that a run may take
FAULTS = {
    "sqlite": ("kill", "kill_all", "stop", "clock"),
    "redis": ("kill", "kill_all", "store", "stop", "partition"),
}


# --- a worker: a process of its own ---


async def work(url: str, port: int, clock: str) -> None:
    """Work until SIGTERM. The clock is off by the seconds that the file says."""
    real = time.time

    def shifted() -> float:
        words = Path(clock).read_text(encoding="ascii") if clock else "0"
        return real() + float(words or "0")

    if clock:
        from trio_smtp.outbox import _sqlite

        _sqlite.SQLiteStore.__init__.__defaults__ = (shifted,)
    config = OutboxConfig(lease=LEASE, retry_delays=(0.2,), report_from="postmaster@mx.test")
    pool_config = trio_smtp.PoolConfig(connect_retries=0)
    while True:
        try:
            async with (
                open_outbox(url, config=config) as outbox,
                trio_smtp.open_pool("127.0.0.1", port, config=pool_config, max_connections=3, tls="none") as pool,
                trio.open_nursery() as nursery,
            ):
                nursery.start_soon(_cancel_at_sigterm, nursery.cancel_scope)
                await outbox.work(pool)
            return
        except StoreError:  # it is away just now: begin again, as a supervisor would
            await trio.sleep(0.05)


async def _cancel_at_sigterm(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        await anext(signals)
        scope.cancel()


# --- the server: it counts ---


class Counting(trio_smtp.Handler):
    """Counts the messages that it has accepted, by subject; each takes a moment, so that faults find it busy."""

    def __init__(self, chance: random.Random) -> None:
        self.accepted: Counter[str] = Counter()
        self._chance = chance
        self._more = trio.Event()

    async def on_data(
        self, session: trio_smtp.Session, envelope: trio_smtp.Envelope, body: trio_smtp.Body
    ) -> str | trio_smtp.Reply:
        content = await body.read()
        if self._chance.random() < 0.05:
            return trio_smtp.Reply(451, "later", "4.3.0")
        await trio.sleep(self._chance.random() * 0.05)
        subject = subject_of(content)
        if envelope.sender.address and subject.endswith("7"):
            return trio_smtp.Reply(550, "nobody wants a 7", "5.7.1")
        if not envelope.sender.address:
            subject = f"Report on {subject_of(parse_report(content).returned)}"
        self.accepted[subject] += 1  # from here on, the 250 is on its way
        self._more.set()
        self._more = trio.Event()
        await trio.sleep(self._chance.random() * 0.05)
        return "ok"

    async def wait_for(self, number: int) -> None:
        """Wait until so many were accepted."""
        with trio.fail_after(LIMIT):
            while self.accepted.total() < number:
                await self._more.wait()


def subject_of(content: bytes) -> str:
    return content.decode().partition("\r\n")[0]


class Relay:
    """A way to a UNIX socket that can be cut: what is on it stays away, and nothing new gets through."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._is_cut = False
        self._healed = trio.Event()
        self.port = 0

    async def open(self, nursery: trio.Nursery) -> None:
        """Listen, in the nursery's tasks."""
        listeners = await nursery.start(partial(trio.serve_tcp, self._serve, 0, host="127.0.0.1"))
        self.port = listeners[0].socket.getsockname()[1]

    def cut(self) -> None:
        self._is_cut = True
        self._healed = trio.Event()

    def heal(self) -> None:
        self._is_cut = False
        self._healed.set()

    async def _serve(self, client: trio.SocketStream) -> None:
        try:
            if self._is_cut:
                await self._healed.wait()
            async with client, await trio.open_unix_socket(self._path) as server, trio.open_nursery() as nursery:
                nursery.start_soon(self._copy, client, server, nursery.cancel_scope)
                nursery.start_soon(self._copy, server, client, nursery.cancel_scope)
        except (OSError, trio.BrokenResourceError):
            pass

    async def _copy(self, source: trio.SocketStream, target: trio.SocketStream, scope: trio.CancelScope) -> None:
        try:
            async for data in source:
                if self._is_cut:
                    await self._healed.wait()
                    break  # what was on the way is lost
                await target.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        scope.cancel()


# --- the driver ---


@dataclass
class Driver:
    """One run."""

    store: str
    fault: str
    messages: int
    workers: int
    faults: int
    seed: int
    directory: str
    url: str = ""
    worker_url: str = ""
    port: int = 0
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    clocks: list[str] = field(default_factory=list)

    async def run(self) -> dict[str, Any]:
        chance = random.Random(self.seed)
        handler = Counting(chance)
        with ExitStack() as stack:
            redis = None
            if self.store == "redis":
                from outbox_stores import redis_server

                redis = stack.enter_context(redis_server())
                self.url = self.worker_url = redis.url
            else:
                self.url = self.worker_url = f"sqlite:{self.directory}/outbox.db"
            async with trio.open_nursery() as nursery:
                listeners = await nursery.start(partial(trio_smtp.serve, handler, 0, host="127.0.0.1"))
                self.port = listeners[0].socket.getsockname()[1]
                relay = None
                if self.fault == "partition":
                    assert redis is not None
                    relay = Relay(redis.socket)
                    await relay.open(nursery)
                    self.worker_url = f"redis://127.0.0.1:{relay.port}/0"
                await self._put_all()
                for number in range(self.workers):
                    self._start_worker(number)
                try:
                    for number in range(self.faults):
                        await handler.wait_for(self.messages * (number + 1) // (self.faults + 2))
                        await self._attack(chance, redis, relay)
                    counts = await self._wait_until_nothing_is_left()
                finally:
                    with trio.move_on_after(60, shield=True):
                        await self._end_workers()
                report = await self._compare(handler.accepted)
                report["ended_with"] = sorted({process.returncode for process in self.processes})
                report["left"] = counts
                nursery.cancel_scope.cancel()
        return report

    async def _put_all(self) -> None:
        async with open_outbox(self.url) as outbox, trio.open_nursery() as nursery:
            for number in range(self.messages):
                content = f"Subject: {number}\r\n\r\nhello\r\n"
                nursery.start_soon(partial(outbox.put, "a@x.test", ["b@y.test"], content, key=str(number)))

    def _start_worker(self, number: int) -> None:
        clock = ""
        if self.fault == "clock":
            clock = f"{self.directory}/clock{number}"
            if number >= len(self.clocks):
                self.clocks.append(clock)
                Path(clock).write_text("0", encoding="ascii")
        command = [sys.executable, __file__, "--work", self.worker_url, str(self.port), clock]
        process = subprocess.Popen(command, env={**os.environ, "PYTHONWARNINGS": "ignore"})
        if number < len(self.processes):
            self.processes[number] = process
        else:
            self.processes.append(process)

    async def _attack(self, chance: random.Random, redis, relay) -> None:
        victim = chance.randrange(self.workers)
        if self.fault in ("kill", "kill_all"):
            victims = range(self.workers) if self.fault == "kill_all" else [victim]
            for number in victims:
                self.processes[number].kill()
            for number in victims:
                self.processes[number].wait()
                self._start_worker(number)
        elif self.fault == "store":
            redis.kill()
            await trio.sleep(chance.random() * 0.5)
            await trio.to_thread.run_sync(redis.start)
        elif self.fault == "stop":
            os.kill(self.processes[victim].pid, signal.SIGSTOP)
            await trio.sleep(LEASE * 1.5)
            os.kill(self.processes[victim].pid, signal.SIGCONT)
        elif self.fault == "partition":
            relay.cut()
            await trio.sleep(LEASE * 1.5)
            relay.heal()
        else:
            offset = chance.choice([3600, 0, -3600])
            await trio.Path(self.clocks[victim]).write_text(str(offset), encoding="ascii")

    async def _wait_until_nothing_is_left(self) -> dict[str, int]:
        for clock in self.clocks:
            await trio.Path(clock).write_text("0", encoding="ascii")
        with trio.fail_after(LIMIT):
            async with open_outbox(self.url) as outbox:
                while True:
                    try:
                        counts = await outbox.statistics()
                        if not counts.queued and not counts.sending:
                            return {state.value: getattr(counts, state.value) for state in State}
                    except StoreError:
                        pass
                    await trio.sleep(0.2)

    async def _end_workers(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                os.kill(process.pid, signal.SIGCONT)
                process.terminate()
        for process in self.processes:
            await trio.to_thread.run_sync(process.wait)

    async def _compare(self, accepted: Counter[str]) -> dict[str, Any]:
        """The outbox's word and the server's count, message by message."""
        wrong, doubts, sent, refused = [], 0, 0, 0
        reports = Counter({subject: accepted.pop(subject) for subject in list(accepted) if "Report" in subject})
        fates: Counter[State] = Counter()  # of the reports
        async with open_outbox(self.url) as outbox, outbox.entries() as entries:
            async for entry in entries:
                if entry.key is None:
                    fates[entry.state] += 1
                    continue
                count = accepted.pop(f"Subject: {entry.key}", 0)
                if entry.state is State.SENT and count == 1:
                    sent += 1
                elif entry.state is State.IN_DOUBT and count in (0, 1):
                    doubts += 1
                elif entry.state is State.REFUSED and count == 0:
                    refused += 1
                    reports[f"Report on Subject: {entry.key}"] += 0
                else:
                    wrong.append(f"{entry.key}: {entry.state}, accepted {count} times, {entry.last_attempt}")
        wrong += [f"{subject}: accepted, and not in the outbox" for subject in accepted]
        if sent + doubts + refused != self.messages:
            wrong.append(f"{self.messages} were put, {sent} were sent, {doubts} are in doubt, {refused} were refused")
        wrong += self._compare_reports(reports, fates, refused)
        return {"sent": sent, "in_doubt": doubts, "refused": refused, "reports": fates.total(), "wrong": wrong}

    def _compare_reports(self, accepted: Counter[str], fates: Counter[State], refused: int) -> list[str]:
        """One for each message that was refused: in the outbox, and, if that is certain, at the server."""
        wrong = [f"{subject}: accepted {count} times" for subject, count in accepted.items() if count > 1]
        if fates.total() != refused or set(fates) - {State.SENT, State.IN_DOUBT}:
            wrong.append(f"{refused} were refused, and the outbox has these reports: {dict(fates)}")
        if len(accepted) != refused:
            wrong.append(f"{refused} were refused, and the server has reports on others too: {dict(accepted)}")
        if not fates[State.SENT] <= accepted.total() <= fates.total():
            wrong.append(f"the server has {accepted.total()} reports, and the outbox says {dict(fates)}")
        return wrong


def play(store: str, fault: str, *, messages: int, workers: int, faults: int, seed: int = 1) -> dict[str, Any]:
    """One run, and what came of it: how many were sent, how many are in doubt, and what is wrong."""
    with tempfile.TemporaryDirectory() as directory:
        driver = Driver(store, fault, messages, workers, faults, seed, directory)
        return trio.run(driver.run)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", choices=sorted(FAULTS), default="sqlite")
    parser.add_argument("--fault", default="kill")
    parser.add_argument("--messages", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--faults", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if options.fault not in FAULTS[options.store]:
        parser.error(f"--fault is one of {', '.join(FAULTS[options.store])} with --store {options.store}")
    report = play(**vars(options))
    print(json.dumps(report, indent=2))  # noqa: T201 - its output
    sys.exit(bool(report["wrong"]))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        trio.run(work, sys.argv[2], int(sys.argv[3]), sys.argv[4])
    else:
        main()
