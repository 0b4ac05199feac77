# The effect of eight large uploads on other sessions: the 99th percentile of another session's NOOP meanwhile.
#
# The server has one processor. The uploads and the other session share a second one, the uploads with a lower priority.
from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from .compare import Contenders
from .environment import Environment
from .process import Process, free_port
from .results import Sample
from .servers import FLOOR, OURS, SERVERS, Server

UPLOADS = 8
UPLOAD = 25 << 20
NEVER_DONE = 100_000  # messages; the uploads are stopped when the other session is done
NOOPS = 2000
WHO = (OURS, FLOOR, "aiosmtpd", "smtp-server")


@dataclass(frozen=True)
class LatencyWork:
    """The one workload of its kind."""

    key: str
    title: str
    unit: str = "ms"
    most_rounds: int = 3

    def why_not(self, environment: Environment) -> str | None:
        """Why it cannot run here; ``None`` if it can."""
        return None if len(environment.processors) > 1 else "needs two processors"

    @contextmanager
    def contenders(self, environment: Environment, share: float) -> Iterator[Contenders]:
        """The servers to compare."""
        noops = max(200, int(NOOPS * share))
        yield {
            server.name: partial(measure, environment, server, noops)
            for server in SERVERS
            if server.name in WHO and server.why_not(environment, "none") is None
        }


def measure(environment: Environment, server: Server, noops: int) -> Sample:
    """Measure NOOP during the uploads."""
    port = free_port()
    variables = environment.variables()
    load = ["--messages", NEVER_DONE, "--connections", UPLOADS, "--size", UPLOAD]
    with Process(server.command(environment, port, "none"), environment=variables) as process:
        process.wait_for_port(port)
        os.sched_setaffinity(process.pid, {environment.processors[0]})
        with Process(environment.python_program("load", port, *load), environment=variables) as uploads:
            os.sched_setaffinity(uploads.pid, {environment.processors[1]})
            os.setpriority(os.PRIO_PROCESS, uploads.pid, 10)
            with Process(environment.python_program("noop", port, noops), environment=variables) as other:
                os.sched_setaffinity(other.pid, {environment.processors[1]})
                return Sample(float(json.loads(other.hear())["p99"]) * 1e3)


LATENCY_WORK = (LatencyWork("noop-p99", f"another session's NOOP, 99th percentile, during {UPLOADS} uploads"),)
