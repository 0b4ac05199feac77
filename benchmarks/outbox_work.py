# The outbox: what put and work cost for a message, in both stores, beside the same pool alone and the bare commits.
#
# CPU time is that of the processes under test, threads included, without the server's and Redis's. Wall time is from
# the word to begin to the end of the last process.
from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

from .client_work import serving
from .compare import Contenders
from .environment import Environment
from .process import Process, free_port
from .results import Sample

TASKS = 20  # at once, in each process
WAITING = 100_000  # entries that wait, for the contender that shows that they cost nothing
WORKERS = (1, 2, 4)


@dataclass(frozen=True)
class OutboxWork:
    """The one workload of its kind."""

    key: str
    title: str
    messages: int
    unit: str = "µs CPU"
    most_rounds: int = 5

    def why_not(self, environment: Environment) -> str | None:
        """Why it cannot run here; ``None`` if it can."""
        return None

    @contextmanager
    def contenders(self, environment: Environment, share: float) -> Iterator[Contenders]:
        """The outbox in both stores, the pool alone, and the floors."""
        messages = max(4 * TASKS, int(self.messages * share))
        found: Contenders = {}
        with ExitStack() as stack:
            port = stack.enter_context(serving("trio_smtp", environment))
            directory = stack.enter_context(tempfile.TemporaryDirectory())
            stores = {"SQLite": f"sqlite:{directory}/outbox"}
            if shutil.which("redis-server") is not None:
                stores["Redis"] = stack.enter_context(redis(environment, directory))
            run = partial(measure, environment, port, messages)
            for name, url in stores.items():
                found[f"trio_smtp: put, {name}"] = partial(run, "put", f"{url}0")
                found[f"floor: put, {name}"] = partial(run, "floor-put", f"{url}0")
                for workers in WORKERS:
                    found[f"trio_smtp: work, {name}, {workers} worker{'s' * (workers > 1)}"] = partial(
                        run, "work", f"{url}{workers}", workers
                    )
                found[f"floor: work, {name}"] = partial(run, "floor-work", f"{url}0")
            found["least outbox, SQLite"] = partial(run, "least", f"{stores['SQLite']}0")
            found["pool alone"] = partial(run, "pool", "-")
            waiting = f"sqlite:{directory}/waiting.db"
            filled: list[str] = []
            found["trio_smtp: work, SQLite, many waiting"] = partial(
                self._beside_many, filled, run, environment, waiting, max(1000, int(WAITING * share))
            )
            yield found

    def _beside_many(
        self, filled: list[str], run: partial[Sample], environment: Environment, url: str, number: int
    ) -> Sample:
        if not filled:
            one(environment, "wait", url, run.args[1], number)
            filled.append(url)
        return run("work", url)


@contextmanager
def redis(environment: Environment, directory: str) -> Iterator[str]:
    """A Redis that syncs each write; the block's value is its address, without the number of a database."""
    port = free_port()
    command = ["redis-server", "--port", str(port), "--dir", directory, "--save", ""]
    with Process([*command, "--appendonly", "yes", "--appendfsync", "always"]) as process:
        process.wait_for_port(port)
        yield f"redis://127.0.0.1:{port}/"


def one(environment: Environment, variant: str, url: str, port: int, messages: int) -> Sample:
    """One process, from its start to its end."""
    return together(environment, variant, url, port, messages, 1)


def together(environment: Environment, variant: str, url: str, port: int, messages: int, processes: int) -> Sample:
    """Several processes that begin at once; `messages` is how many there are in all, and each has its share."""
    messages = -(-messages // processes)
    argv = environment.python_program("outbox", variant, url, port, messages, TASKS)
    with ExitStack() as stack:
        running = [stack.enter_context(Process(argv, environment=environment.variables())) for _ in range(processes)]
        for process in running:
            process.hear()
        for process in running:
            process.say("go")
        told = [json.loads(process.hear()) for process in running]
        for process in running:
            process.finish()
    messages *= processes
    cpu = sum(float(each["cpu"]) for each in told) / messages * 1e6
    return Sample(cpu, max(float(each["seconds"]) for each in told) / messages * 1e6)


def measure(environment: Environment, port: int, messages: int, variant: str, url: str, processes: int = 1) -> Sample:
    """One round of a contender; a worker gets its messages first."""
    if variant == "work":
        spare = 0 if processes == 1 else 3 * TASKS * processes  # one may be quicker than another
        one(environment, "fill", url, port, messages + spare)
    return together(environment, variant, url, port, messages, processes)


OUTBOX_WORK = (OutboxWork("outbox", f"the outbox, 1 KiB, {TASKS} at once, into our server", 2000),)
