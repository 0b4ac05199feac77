# Round trips per message: one connection with a delay of 25 ms each way, so that only waiting counts.
from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from .client_work import ClientWork, measure, serving
from .clients import CLIENTS, Client
from .compare import Contenders
from .environment import Environment
from .process import Process, free_port
from .results import Sample

ROUND_TRIP = 0.05  # seconds
MESSAGES = 24  # times the depth of the pipeline, since the first and the last message wait alone


@dataclass(frozen=True)
class TripsWork:
    """A server behind the delay."""

    key: str
    title: str
    peer: str
    unit: str = "round trips"
    most_rounds: int = 1

    def why_not(self, environment: Environment) -> str | None:
        """Why it cannot run here; ``None`` if it can."""
        return environment.missing.get(self.peer)

    @contextmanager
    def contenders(self, environment: Environment, share: float) -> Iterator[Contenders]:
        """Every client, with one connection."""
        relay_port = free_port()
        with serving(self.peer, environment) as port:
            argv = environment.python_program("relay", relay_port, port, ROUND_TRIP)
            with Process(argv, environment=environment.variables()) as relay:
                relay.wait_for_port(relay_port)
                yield {
                    client.name: self._counter(environment, client, relay_port)
                    for client in CLIENTS
                    if self._takes_part(client, environment)
                }

    def _takes_part(self, client: Client, environment: Environment) -> bool:
        if client.why_not(environment) is not None or client.variant == "in turn":
            return False
        return self.peer != "smtp-sink" or not client.bdat

    def _counter(self, environment: Environment, client: Client, port: int) -> Callable[[], Sample]:
        messages = MESSAGES * client.depth
        options = ClientWork(self.key, self.title, messages).options(messages)

        def count() -> Sample:
            wall = measure(environment, client, port, options).wall
            assert wall is not None
            return Sample(wall / 1e6 / ROUND_TRIP, wall)

        return count


TRIPS_WORK = (
    TripsWork("trips-pipelining", "round trips per message at 50 ms, PIPELINING (smtp-sink)", "smtp-sink"),
    TripsWork("trips-chunking", "round trips per message at 50 ms, PIPELINING and CHUNKING (our server)", "trio_smtp"),
)
