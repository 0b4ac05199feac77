"""The trial of a new user: five lines with SQLite, then the same with Redis and workers on another host.

    python tests/outbox_namespaces.py --messages 300 --workers 3

The hosts are two network namespaces with a cable (a veth pair) between them, which takes root and `ip`: a mail server
and Redis are on one, the application and its workers on the other. First the application puts its messages into a file
and sends them itself. Then the same lines put them into Redis, and workers send them. In the end each message must have
come once. With --cut the cable is out for some seconds in the middle; what was on its way then may be in doubt, and
have come once or not at all. tests/test_outbox_namespaces.py runs it at a small size.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import trio

import trio_smtp
from trio_smtp.outbox import Entry, Outbox, OutboxConfig, State, StoreError, open_outbox

SERVERS, CLIENTS = "198.51.100.1", "198.51.100.2"  # RFC 5737
SMTP, REDIS = 2525, 6379
LIMIT = 300  # seconds that a program of a run may take


# --- the five lines, in programs of their own ---


async def put_and_work(url: str, messages: int) -> None:
    """What the manual shows, until SIGTERM; without messages it only works."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_cancel_at_sigterm, nursery.cancel_scope)
        async with open_outbox(url, config=OutboxConfig(retry_delays=(0.5,), lease=10)) as outbox:
            await put_all(outbox, messages)
            print("put", flush=True)  # noqa: T201 - for the driver
            async with trio_smtp.open_pool(SERVERS, SMTP, tls="none") as pool:
                await outbox.work(pool)


async def put(url: str, messages: int) -> None:
    """The same where workers send them."""
    async with open_outbox(url) as outbox:
        await put_all(outbox, messages)


async def put_all(outbox: Outbox, messages: int) -> None:
    for number in range(messages):
        content = f"Subject: {number}\r\n\r\nhello\r\n"
        await outbox.put("me@example.com", ["you@example.com"], content, key=f"order-{number}")


async def tell_fates(url: str) -> None:
    """Wait until nothing is queued or being sent, and print what became of each message."""
    fates: dict[str, list[str]] = {}
    async with open_outbox(url) as outbox:
        async with outbox.entries() as entries:
            ids = [entry.id async for entry in entries]
        for entry_id in ids:
            entry = await _settled(outbox, entry_id)
            worker = entry.last_attempt[0].split(" ")[1] if entry.last_attempt else ""
            fates[str(entry.key)] = [entry.state, worker]
    print(json.dumps(fates))  # noqa: T201 - for the driver


async def _settled(outbox: Outbox, entry_id: str) -> Entry:
    while True:
        try:
            return await outbox.wait(entry_id)
        except StoreError:  # the cable is out
            await trio.sleep(0.2)


async def receive() -> None:
    """A mail server that counts messages by subject, and prints the counts at SIGTERM."""
    accepted: Counter[str] = Counter()

    class Counting(trio_smtp.Handler):
        async def on_data(self, session: trio_smtp.Session, envelope: trio_smtp.Envelope, body: trio_smtp.Body) -> None:
            content = await body.read()
            await trio.sleep(0.01)  # as a server takes that writes to a disk
            accepted[content.decode().partition("\r\n")[0].removeprefix("Subject: ")] += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(_cancel_at_sigterm, nursery.cancel_scope)
        await nursery.start(partial(trio_smtp.serve, Counting(), SMTP, host=SERVERS))
        print("listening", flush=True)  # noqa: T201 - for the driver
    print(json.dumps(accepted))  # noqa: T201 - for the driver


async def _cancel_at_sigterm(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        await anext(signals)
        scope.cancel()


# --- two hosts and a cable ---


class Hosts:
    """Two network namespaces of this process's own, and what runs in them."""

    def __init__(self) -> None:
        self.servers, self.clients = f"ts{os.getpid()}s", f"ts{os.getpid()}c"
        self._processes: list[subprocess.Popen[str]] = []

    def build(self) -> None:
        """Make them. Raises OSError where that is not allowed."""
        for host in (self.servers, self.clients):
            ip("netns", "add", host)
        ip(
            "link",
            "add",
            self.servers,
            "netns",
            self.servers,
            "type",
            "veth",
            "peer",
            self.clients,
            "netns",
            self.clients,
        )
        for host, address in ((self.servers, SERVERS), (self.clients, CLIENTS)):
            ip("-netns", host, "address", "add", f"{address}/24", "dev", host)
            ip("-netns", host, "link", "set", "lo", "up")
            ip("-netns", host, "link", "set", host, "up")

    def remove(self) -> None:
        """End what runs in them, and remove them; the cable goes with them."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.communicate()
        for host in (self.servers, self.clients):
            subprocess.run(["ip", "netns", "delete", host], stderr=subprocess.DEVNULL, check=False)

    def plug(self, *, into: bool) -> None:
        """Plug the cable in, or pull it out."""
        ip("-netns", self.clients, "link", "set", self.clients, "up" if into else "down")

    def start(self, host: str, *job: str) -> subprocess.Popen[str]:
        """Run a job of this file on a host."""
        command = [*on(host), sys.executable, __file__, "--job", *job]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment(), text=True)
        self._processes.append(process)
        return process

    def run(self, host: str, *job: str) -> str:
        """Run one to its end, and return its output."""
        process = self.start(host, *job)
        output, _ = process.communicate(timeout=LIMIT)
        if process.returncode:
            raise AssertionError(f"{job[0]} ended with {process.returncode}")
        return output


def on(host: str) -> list[str]:
    """What comes before a command that is to run on this host."""
    return ["ip", "netns", "exec", host]


def ip(*words: str) -> None:
    """Run `ip`. Raises OSError with its own words if it fails."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONWARNINGS": "ignore"}


@contextmanager
def two_hosts() -> Iterator[Hosts]:
    """The hosts, removed at the end, whatever happens. Raises OSError where there can be none."""
    hosts = Hosts()
    try:
        hosts.build()
        yield hosts
    finally:
        hosts.remove()


def end(processes: Sequence[subprocess.Popen[str]]) -> list[str]:
    """Tell programs to end, and return their output; each ends with 0."""
    for process in processes:
        process.terminate()
    outputs = [process.communicate(timeout=LIMIT)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes)
    return outputs


# --- the driver ---


def play(store: str, *, messages: int, workers: int, cut: float = 0.0) -> dict[str, Any]:
    """One run with one store: what became of the messages, how many workers took part, and what is wrong."""
    with tempfile.TemporaryDirectory() as directory, two_hosts() as hosts, ExitStack() as stack:
        server = hosts.start(hosts.servers, "receive")
        assert server.stdout is not None
        assert server.stdout.readline() == "listening\n"
        if store == "sqlite":
            url = f"sqlite:{directory}/outbox.db"
            application = hosts.start(hosts.clients, "put_and_work", url, str(messages))
            running = [application]
            assert application.stdout is not None
            assert application.stdout.readline() == "put\n"
        else:
            from outbox_stores import redis_server

            stack.enter_context(redis_server(REDIS, bind=SERVERS, before=on(hosts.servers)))
            url = f"redis://{SERVERS}:{REDIS}/0"
            running = [hosts.start(hosts.clients, "put_and_work", url, "0") for _ in range(workers)]
            hosts.run(hosts.clients, "put", url, str(messages))
        if cut:
            hosts.plug(into=False)
            trio.run(trio.sleep, cut)
            hosts.plug(into=True)
        fates = json.loads(hosts.run(hosts.clients, "tell_fates", url))
        end(running)
        accepted = Counter(json.loads(end([server])[0]))
    return compare(fates, accepted, messages)


def compare(fates: dict[str, list[str]], accepted: Counter[str], messages: int) -> dict[str, Any]:
    """The outbox's word and the server's count, message by message."""
    wrong = []
    for number in range(messages):
        state, _ = fates.get(f"order-{number}", ("missing", ""))
        count = accepted.pop(str(number), 0)
        if not ((state == State.SENT and count == 1) or (state == State.IN_DOUBT and count in (0, 1))):
            wrong.append(f"order-{number}: {state}, accepted {count} times")
    wrong += [f"{subject}: accepted, and never put" for subject in accepted]
    return {
        "states": dict(Counter(state for state, _ in fates.values())),
        "workers": len({worker for _, worker in fates.values()}),
        "wrong": wrong,
    }


JOBS: dict[str, Any] = {"receive": receive, "put_and_work": put_and_work, "put": put, "tell_fates": tell_fates}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=300)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--cut", type=float, default=0.0, metavar="SECONDS")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the hosts are removed
    reports = {store: play(store, **vars(options)) for store in ("sqlite", "redis")}
    print(json.dumps(reports, indent=2))  # noqa: T201 - its output
    sys.exit(any(report["wrong"] for report in reports.values()))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--job"]:
        name, *words = sys.argv[2:]
        trio.run(JOBS[name], *(int(word) if word.isdecimal() else word for word in words))
    else:
        main()
