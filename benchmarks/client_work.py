# Workloads for clients, and the servers that they send to. The client's process is measured.
#
# smtp-sink is written in C and does as little as possible. Our own server and Postfix offer CHUNKING, so a message can
# be sent in one write. One server serves all contenders of a workload, one after the other.
from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from . import postfix
from .clients import CLIENTS, OUR_CLIENT, Client
from .compare import Contenders
from .environment import Environment
from .process import Process, free_port
from .results import Sample
from .servers import SERVERS

KIB, MIB = 1024, 1024 * 1024
SETTLE = 0.02  # seconds until the client is idle


@dataclass(frozen=True)
class ClientWork:
    """One workload.

    Attributes:
        key: its name on the command line and in the results.
        title: a short description.
        messages: number of messages in one round.
        peer: ``"smtp-sink"``, ``"trio_smtp"`` or ``"Postfix"``.
        size: octets of each message.
        connections: number of connections at one time.
        recipients: number of recipients of each message.
        streamed: the message comes in pieces.
        prose: a large message is prose, with a dot in each line, and not base64.
        only: names of contenders; by default all that support the workload.
    """

    key: str
    title: str
    messages: int
    peer: str = "smtp-sink"
    size: int = KIB
    connections: int = 1
    recipients: int = 1
    streamed: bool = False
    prose: bool = False
    only: tuple[str, ...] = ()
    unit: str = "µs CPU"
    most_rounds: int = 99

    def why_not(self, environment: Environment) -> str | None:
        """Why it cannot run here; ``None`` if it can."""
        return postfix.why_not() if self.peer == "Postfix" else environment.missing.get(self.peer)

    @contextmanager
    def contenders(self, environment: Environment, share: float) -> Iterator[Contenders]:
        """The clients that support it, with one server for all of them."""
        options = self.options(max(2 * self.connections, int(self.messages * share)))
        options["warm_up"] = max(self.connections, int(self.messages / 3 * min(1.0, 4 * share)))
        with serving(self.peer, environment) as port:
            yield {
                client.name: partial(measure, environment, client, port, options)
                for client in self.clients(environment)
            }

    def clients(self, environment: Environment) -> list[Client]:
        """The clients that support it."""
        return [
            client
            for client in CLIENTS
            if client.why_not(environment) is None
            and (not self.only or client.name in self.only)
            and (self.connections == 1 or not client.one_connection)
            and (self.connections > 1 or client.variant != "in turn")
            and (self.peer != "smtp-sink" or not client.bdat)
        ]

    def options(self, messages: int) -> dict[str, int]:
        """The options of the client's program."""
        return {
            "messages": messages,
            "warm_up": self.connections,
            "size": self.size,
            "connections": self.connections,
            "recipients": self.recipients,
            "streamed": int(self.streamed),
            "prose": int(self.prose),
        }


_SERIAL = (OUR_CLIENT, "floor: lock-step", "floor: pipelined", "floor: BDAT", "aiosmtplib", "nodemailer pool")
CLIENT_WORK = (
    ClientWork("client-kept-1", "client, 1 KiB, 1 connection, into smtp-sink", 3000),
    ClientWork("pool-20", "client, 1 KiB, 20 connections, into smtp-sink", 6000, connections=20),
    ClientWork("client-1mib", "client, 1 MiB bytes, into smtp-sink", 120, size=MIB),
    ClientWork("client-1mib-prose", "client, 1 MiB of prose, into smtp-sink", 120, size=MIB, prose=True),
    ClientWork("client-1mib-streamed", "client, 1 MiB streamed, into smtp-sink", 120, size=MIB, streamed=True),
    ClientWork("client-recipients", "client, 1 KiB to 100 recipients, into smtp-sink", 400, recipients=100),
    ClientWork("pool-20-ours", "client, 1 KiB, 20 connections, into our server", 4000, "trio_smtp", connections=20),
    ClientWork("client-1mib-ours", "client, 1 MiB bytes, into our server", 60, "trio_smtp", size=MIB, only=_SERIAL),
    ClientWork("client-1-postfix", "client, 1 KiB, 1 connection, into Postfix", 300, "Postfix"),
    ClientWork("pool-20-postfix", "client, 1 KiB, 20 connections, into Postfix", 600, "Postfix", connections=20),
    ClientWork("client-1mib-postfix", "client, 1 MiB bytes, into Postfix", 40, "Postfix", size=MIB, only=_SERIAL),
)


@contextmanager
def serving(peer: str, environment: Environment) -> Iterator[int]:
    """Run the server that receives the messages; the block's value is its port."""
    if peer == "Postfix":
        with postfix.private_postfix() as port:
            yield port
        return
    port = free_port()
    server = next(server for server in SERVERS if server.name == peer)
    with Process(server.command(environment, port, "none"), environment=environment.variables()) as process:
        process.wait_for_port(port)
        yield port


def measure(environment: Environment, client: Client, port: int, options: dict[str, int]) -> Sample:
    """Start the client, let it warm up, and measure the CPU time of the messages."""
    with Process(client.command(environment, port, options), environment=environment.variables()) as process:
        process.hear()
        time.sleep(SETTLE)
        before = process.cpu()
        process.say("go")
        seconds = float(json.loads(process.hear())["seconds"])
        cpu = process.cpu() - before
        process.finish()
    return Sample(cpu / options["messages"] * 1e6, seconds / options["messages"] * 1e6)
