# A message of 1 GiB: the growth of a process's peak memory while it passes through.
#
# Only contenders that stream take part: aiosmtpd, aiosmtplib, smtplib and smtpproto hold the whole message in memory.
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from .client_work import ClientWork, serving
from .clients import CLIENTS, Client
from .compare import Contenders
from .environment import Environment
from .process import Process, free_port
from .results import Sample
from .server_work import LIMIT, ServerWork
from .servers import FLOOR, OURS, SERVERS, Server

MIB, GIB = 1 << 20, 1 << 30
WHO = (OURS, FLOOR, "smtp-server")


@dataclass(frozen=True)
class LargeWork:
    """One direction."""

    key: str
    title: str
    unit: str = "MiB"
    most_rounds: int = 2

    def why_not(self, environment: Environment) -> str | None:
        """Why it cannot run here; ``None`` if it can."""
        return environment.missing.get("smtp-sink")

    @contextmanager
    def contenders(self, environment: Environment, share: float) -> Iterator[Contenders]:
        """The servers or the clients. The size does not depend on `share`."""
        if self.key == "1gib-in":
            yield {
                server.name: partial(into_server, environment, server)
                for server in SERVERS
                if server.name in WHO and server.why_not(environment, "none") is None
            }
            return
        with serving("smtp-sink", environment) as port:
            yield {
                client.name: partial(out_of_client, environment, client, port)
                for client in CLIENTS
                if client.streams and client.why_not(environment) is None
            }


def into_server(environment: Environment, server: Server) -> Sample:
    """Send the message into a server."""
    port = free_port()
    variables = environment.variables()
    with Process(server.command(environment, port, "none"), environment=variables) as process:
        process.wait_for_port(port)
        for octets in (4 * MIB, GIB):
            load = ServerWork("", "", 1, size=octets, connections=1).load(environment, port, 1)
            process.reset_peak()
            before = process.peak()
            with Process(load, environment=variables) as sender:
                sender.wait(LIMIT)
        return Sample((process.peak() - before) / MIB)


def out_of_client(environment: Environment, client: Client, port: int) -> Sample:
    """Send the message from a client."""
    options = ClientWork("", "", 1, size=GIB, streamed=True).options(1) | {"warm_up": 0}
    with Process(client.command(environment, port, options), environment=environment.variables()) as process:
        process.hear()
        process.reset_peak()
        before = process.peak()
        process.say("go")
        process.hear()
        grown = process.peak() - before
        process.finish()
    return Sample(grown / MIB)


LARGE_WORK = (
    LargeWork("1gib-in", "1 GiB streamed in: growth of the server's peak memory"),
    LargeWork("1gib-out", "1 GiB streamed out: growth of the client's peak memory"),
)
