# Workloads for servers, and how the CPU time of a message is measured.
#
# smtp-source sends the messages if it can. It is written in C, so servers do not wait for it, and it belongs to none of
# the contenders. It sends HELO and waits for every reply. programs/load.py does what it cannot.
from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from .compare import Contenders
from .environment import Environment, tool
from .process import Process, free_port
from .results import Sample
from .servers import SERVERS, Server

LIMIT = 180.0  # seconds that one load may take
SETTLE = 0.05  # seconds until the server is idle
KIB, MIB = 1024, 1024 * 1024


@dataclass(frozen=True)
class ServerWork:
    """One workload.

    Attributes:
        key: its name on the command line and in the results.
        title: a short description.
        messages: number of messages in one round.
        size: octets of each message.
        connections: number of connections at one time.
        reconnect: one connection per message.
        recipients: number of recipients of each message.
        tls: ``"none"``, ``"starttls"`` or ``"implicit"``.
        resume: TLS sessions are resumed.
        form: ``"lock-step"``, ``"pipelined"``, ``"bdat"``, or ``"pool"``, where our own pool sends.
        prose: a large message is prose, with a dot in each line, and not base64.
        only: names of contenders; by default all.
    """

    key: str
    title: str
    messages: int
    size: int = KIB
    connections: int = 20
    reconnect: bool = False
    recipients: int = 1
    tls: str = "none"
    resume: bool = False
    form: str = "lock-step"
    prose: bool = False
    only: tuple[str, ...] = ()
    unit: str = "µs CPU"
    most_rounds: int = 99

    def why_not(self, environment: Environment) -> str | None:
        """Why it cannot run here; ``None`` if it can."""
        return environment.missing.get("TLS") if self.tls != "none" else None

    @contextmanager
    def contenders(self, environment: Environment, share: float) -> Iterator[Contenders]:
        """The servers that support it."""
        messages = max(self.connections, int(self.messages * share))
        yield {
            server.name: partial(measure, environment, server, self, messages, self.warm_up(share))
            for server in SERVERS
            if (not self.only or server.name in self.only) and server.why_not(environment, self.tls) is None
        }

    def warm_up(self, share: float) -> int:
        """The number of warm-up messages. With fewer, Node and the caches look slow."""
        return max(self.connections, int(self.messages / 3 * min(1.0, 4 * share)))

    def load(self, environment: Environment, port: int, messages: int) -> list[str]:
        """The command that sends the messages."""
        by_source = self.tls == "none" and self.form == "lock-step" and not self.prose
        if by_source and "smtp-source" not in environment.missing:
            return self._smtp_source(port, messages)
        if self.form == "pool":
            pool = ["--variant", "pool", "--messages", messages, "--connections", self.connections]
            return environment.python_program("send_trio_smtp", port, *pool)
        options: list[object] = [port, "--messages", messages, "--connections", self.connections, "--size", self.size]
        options += ["--recipients", self.recipients, "--form", self.form, "--tls", self.tls]
        options += ["--prose"] * self.prose
        options += ["--reconnect"] * self.reconnect + ["--resume"] * self.resume
        return environment.python_program("load", *options)

    def _smtp_source(self, port: int, messages: int) -> list[str]:
        argv = [tool("smtp-source") or "smtp-source", "-l", str(self.size), "-m", str(messages)]
        argv += ["-s", str(self.connections), "-r", str(self.recipients)]
        argv += [] if self.reconnect else ["-d"]
        return [*argv, "-f", "a@test.example", "-t", "b@test.example", f"127.0.0.1:{port}"]


_BDAT = ("trio_smtp",)
_PIPELINED = ("trio_smtp", "floor: SocketStream", "floor: descriptor", "aiosmtpd", "smtp-server", "smtp-sink")
SERVER_WORK = (
    ServerWork("kept-1", "server, 1 KiB, 1 kept connection", 3000, connections=1),
    ServerWork("kept-20", "server, 1 KiB, 20 kept connections", 6000),
    ServerWork("kept-200", "server, 1 KiB, 200 kept connections", 6000, connections=200),
    ServerWork("kept-1000", "server, 1 KiB, 1000 kept connections", 10000, connections=1000),
    ServerWork("each", "server, 1 KiB, one connection per message", 2500, reconnect=True),
    ServerWork("1mib", "server, 1 MiB, 4 kept connections", 120, size=MIB, connections=4),
    ServerWork("1mib-prose", "server, 1 MiB of prose, 4 kept connections", 120, size=MIB, connections=4, prose=True),
    ServerWork("25mib", "server, 25 MiB, 2 kept connections", 6, size=25 * MIB, connections=2),
    ServerWork("recipients", "server, 1 KiB to 100 recipients, 20 kept connections", 400, recipients=100),
    ServerWork("pipelined", "server, 1 KiB pipelined, 20 kept connections", 6000, form="pipelined", only=_PIPELINED),
    ServerWork("bdat", "server, 1 KiB by BDAT in one write, 20 kept connections", 6000, form="bdat", only=_BDAT),
    ServerWork("from-pool", "server, 1 KiB from our own pool, 20 kept connections", 6000, form="pool"),
    ServerWork("tls-kept-20", "server, 1 KiB over TLS, 20 kept connections", 4000, tls="implicit"),
    ServerWork("tls-1mib", "server, 1 MiB over TLS, 4 kept connections", 100, size=MIB, connections=4, tls="implicit"),
    ServerWork("tls-each", "server, one TLS connection per message, new sessions", 800, tls="implicit", reconnect=True),
    ServerWork(
        "tls-resumed",
        "server, one TLS connection per message, resumed sessions",
        800,
        tls="implicit",
        reconnect=True,
        resume=True,
    ),
    ServerWork("starttls-each", "server, one STARTTLS connection per message", 800, tls="starttls", reconnect=True),
)


def measure(environment: Environment, server: Server, work: ServerWork, messages: int, warm_up: int) -> Sample:
    """Start the server, warm it up, and measure the CPU time of the messages."""
    port = free_port()
    variables = environment.variables()
    with Process(server.command(environment, port, work.tls), environment=variables) as process:
        process.wait_for_port(port)
        _run(work.load(environment, port, warm_up), variables)
        before = process.cpu()
        seconds = _run(work.load(environment, port, messages), variables)
        time.sleep(SETTLE)
        cpu = process.cpu() - before
    return Sample(cpu / messages * 1e6, seconds / messages * 1e6)


def _run(argv: list[str], variables: dict[str, str]) -> float:
    """Run a load to its end. Return the seconds that it took."""
    began = time.perf_counter()
    with Process(argv, environment=variables) as load:
        load.say("go")  # a client program waits for it, the others ignore it
        load.close_input()
        load.wait(LIMIT)
        seconds = time.perf_counter() - began
        try:
            return float(json.loads(load.last_line())["seconds"])
        except ValueError:  # smtp-source prints nothing
            return seconds
