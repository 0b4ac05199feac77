# Memory of idle sessions: connect, send EHLO (over TLS after the handshake), then stay idle.
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from .compare import Contenders
from .environment import Environment
from .process import Process, free_port
from .results import Sample
from .servers import FLOOR, OURS, SERVERS, Server

SESSIONS = 10_000
FIRST = 50  # sessions before the measurement, so that one-time allocations are not counted
WHO = (OURS, FLOOR, "aiosmtpd", "smtp-server")


@dataclass(frozen=True)
class IdleWork:
    """Many sessions at one time."""

    key: str
    title: str
    tls: str
    unit: str = "KiB per session"
    most_rounds: int = 1

    def why_not(self, environment: Environment) -> str | None:
        """Why it cannot run here; ``None`` if it can."""
        return environment.missing.get("TLS") if self.tls != "none" else None

    @contextmanager
    def contenders(self, environment: Environment, share: float) -> Iterator[Contenders]:
        """The servers to compare. The number of sessions does not depend on `share`."""
        yield {
            server.name: partial(self.measure, environment, server)
            for server in SERVERS
            if server.name in WHO and server.why_not(environment, self.tls) is None
        }

    def measure(self, environment: Environment, server: Server) -> Sample:
        """Measure the memory before and after."""
        port = free_port()
        variables = environment.variables()
        with Process(server.command(environment, port, self.tls), environment=variables) as process:
            process.wait_for_port(port)
            with Process(environment.python_program("idle", port, FIRST, self.tls), environment=variables) as first:
                first.hear()
                first.finish()
            before = process.memory()
            with Process(environment.python_program("idle", port, SESSIONS, self.tls), environment=variables) as idle:
                idle.hear()
                return Sample((process.memory() - before) / SESSIONS / 1024)


IDLE_WORK = (
    IdleWork("idle", f"memory of an idle session, of {SESSIONS}", "none"),
    IdleWork("idle-tls", f"memory of an idle TLS session, of {SESSIONS}", "implicit"),
)
