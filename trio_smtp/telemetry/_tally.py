# Events as numbers.
#
# A message makes some ten events, so each is a look-up in a table and one addition to a dict of our own: an instrument
# of Prometheus or OpenTelemetry costs several times as much for each. They read these numbers when they are asked for.
# Histograms go to what `histogram` makes.
#
# Any thread may read while the tasks of one Trio run count: what is read is copied by one call of C first. Two Trio
# runs in threads of one process want a tally each.
from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Protocol, TypeAlias
from weakref import ref

from trio_smtp import ClientEvent, Pool, PoolStatistics, ServerEvent, TraceEvent
from trio_smtp.outbox import OutboxEvent

from ._metrics import BY_NAME, Metric
from ._words import NONE, OTHER, Hosts, code_word, outcome_word

Labels: TypeAlias = tuple[str, ...]
Values: TypeAlias = Mapping[Labels, float]

_ON_THE_WAY: Final = ("queued", "sending")  # an outbox's recipients of whom nothing is to be counted yet


class Distribution(Protocol):
    """What takes the seconds of one metric with one set of labels."""

    def observe(self, seconds: float) -> None:
        """One more."""


MakeHistogram: TypeAlias = Callable[[Metric, Labels], Distribution]


class Histograms(dict[str | Labels, Distribution]):
    """One metric's distributions by their labels, or by the one label there is, made when they are wanted."""

    def __init__(self, name: str, make: MakeHistogram) -> None:
        super().__init__()
        self._metric: Metric = BY_NAME[name]
        self._make: MakeHistogram = make

    def __missing__(self, labels: str | Labels) -> Distribution:
        made = self[labels] = self._make(self._metric, (labels,) if isinstance(labels, str) else labels)
        return made


class _ByCode(dict[int, Distribution]):
    """Distributions by the outcomes of messages, found by their codes.

    Args:
        by_outcome: the distributions.
    """

    def __init__(self, by_outcome: Histograms) -> None:
        super().__init__()
        self._by_outcome = by_outcome

    def __missing__(self, code: int) -> Distribution:
        made = self[code] = self._by_outcome[outcome_word(code)]
        return made


class SessionTally:
    """What server and client have in common.

    Args:
        part: ``"server"`` or ``"client"``.
        make: makes the distributions.
    """

    def __init__(self, part: str, make: MakeHistogram) -> None:
        self.part: Final = part
        self.connections = 0
        self.open = 0
        self.octets = 0
        self.closed: defaultdict[str, int] = defaultdict(int)
        self.commands: defaultdict[tuple[str, int], int] = defaultdict(int)
        self.logins: defaultdict[tuple[str, int], int] = defaultdict(int)
        self.messages: defaultdict[int, int] = defaultdict(int)
        self.handshakes = Histograms(f"smtp_{part}_handshake_seconds", make)
        self._message_seconds = Histograms(f"smtp_{part}_message_seconds", make)
        self._by_code = _ByCode(self._message_seconds)

    def __repr__(self) -> str:
        return f"<SessionTally of the {self.part}: {self.connections} connections>"

    def command(self, event: ServerEvent | ClientEvent) -> None:
        self.commands[event.verb, event.code] += 1

    def auth(self, event: ServerEvent | ClientEvent) -> None:
        self.logins[event.detail, event.code] += 1

    def tls(self, event: ServerEvent | ClientEvent) -> None:
        self.handshakes["ok" if event.error is None else "failed"].observe(event.seconds)

    def message(self, event: ServerEvent | ClientEvent) -> None:
        code = event.code
        self.messages[code] += 1
        self.octets += event.octets
        self._by_code[code].observe(event.seconds)

    def values(self) -> dict[str, Values]:
        """Counters and gauges by the metric's name."""
        commands = self.commands.copy()
        prefix = f"smtp_{self.part}"
        return {
            f"{prefix}_connections_total": {(): self.connections},
            f"{prefix}_connections_open": {(): self.open},
            f"{prefix}_connections_closed_total": {(why,): n for why, n in self.closed.copy().items()},
            f"{prefix}_commands_total": _sum(((v or OTHER, code_word(c)), n) for (v, c), n in commands.items()),
            f"{prefix}_logins_total": _sum(
                ((mechanism or OTHER, code_word(code)), n) for (mechanism, code), n in self.logins.copy().items()
            ),
            f"{prefix}_messages_total": _sum(
                ((outcome_word(code), code_word(code)), n) for code, n in self.messages.copy().items()
            ),
            f"{prefix}_message_octets_total": {(): self.octets},
            f"{prefix}_recipients_total": _sum(
                ((outcome_word(code, OTHER),), n) for (verb, code), n in commands.items() if verb == "RCPT"
            ),
        }


class ServerTally:
    """A server's events as numbers.

    Args:
        make: makes the distributions.
    """

    def __init__(self, make: MakeHistogram) -> None:
        both = SessionTally("server", make)
        self.both = both
        self._refused: defaultdict[str, int] = defaultdict(int)
        self.hooks = Histograms("smtp_server_hook_seconds", make)
        self._failures: defaultdict[str, int] = defaultdict(int)
        self.takes: Final[dict[str, Callable[[ServerEvent], None]]] = {
            "connect": self._connect,
            "tls": both.tls,
            "auth": both.auth,
            "command": both.command,
            "hook": self._hook,
            "message": both.message,
            "refuse": self._refuse,
            "close": self._close,
        }

    def __repr__(self) -> str:
        return f"<ServerTally {self.both!r}>"

    def _connect(self, event: ServerEvent) -> None:
        self.both.connections += 1
        self.both.open += 1

    def _close(self, event: ServerEvent) -> None:
        self.both.open -= 1
        self.both.closed[event.detail] += 1

    def _refuse(self, event: ServerEvent) -> None:
        self._refused[event.detail] += 1

    def _hook(self, event: ServerEvent) -> None:
        self.hooks[event.detail].observe(event.seconds)
        if event.error is not None:
            self._failures[event.detail] += 1

    def values(self) -> dict[str, Values]:
        """Counters and gauges by the metric's name."""
        return {
            **self.both.values(),
            "smtp_server_connections_refused_total": {(why,): n for why, n in self._refused.copy().items()},
            "smtp_server_hook_failures_total": {(hook,): n for hook, n in self._failures.copy().items()},
        }


class ClientTally:
    """A client's events as numbers.

    Args:
        make: makes the distributions.
    """

    def __init__(self, make: MakeHistogram) -> None:
        both = SessionTally("client", make)
        self.both = both
        self._connects = Histograms("smtp_client_connect_seconds", make)
        self.takes: Final[dict[str, Callable[[ClientEvent], None]]] = {
            "connect": self._connect,
            "tls": both.tls,
            "auth": both.auth,
            "command": both.command,
            "message": both.message,
            "close": self._close,
        }

    def __repr__(self) -> str:
        return f"<ClientTally {self.both!r}>"

    def _connect(self, event: ClientEvent) -> None:
        outcome = outcome_word(event.code, "failed")
        self._connects[outcome].observe(event.seconds)
        if event.code:
            self.both.connections += 1
            self.both.open += 1

    def _close(self, event: ClientEvent) -> None:
        self.both.closed[event.detail] += 1
        if event.code:  # without a greeting it was not counted
            self.both.open -= 1

    def values(self) -> dict[str, Values]:
        """Counters and gauges by the metric's name."""
        return self.both.values()


class PoolTally:
    """The events of pools as numbers; their states are asked of themselves.

    Args:
        make: makes the distributions.
    """

    def __init__(self, make: MakeHistogram) -> None:
        self._pools: set[ref[Pool]] = set()  # no WeakSet: that is iterated in Python, while another thread may add
        self._hosts = Hosts()
        self._messages: defaultdict[str, int] = defaultdict(int)
        self._attempts: defaultdict[str, int] = defaultdict(int)
        self._retries = 0
        self._retired = 0
        self._message_seconds = Histograms("smtp_pool_message_seconds", make)
        self._waits = Histograms("smtp_pool_wait_seconds", make)
        self._connects = Histograms("smtp_pool_connect_seconds", make)
        self.takes: Final[dict[str, Callable[[TraceEvent], None]]] = {
            "wait": self._wait,
            "tls": self._ignore,
            "auth": self._ignore,
            "connect": self._connect,
            "send": self._send,
            "message": self._message,
            "retry": self._retry,
            "retire": self._retire,
            "alone": self._ignore,
        }

    def __repr__(self) -> str:
        return f"<PoolTally of {len(self._pools)} pools>"

    def _ignore(self, event: TraceEvent) -> None:
        pass

    def _wait(self, event: TraceEvent) -> None:
        self._waits[()].observe(event.seconds)

    def _connect(self, event: TraceEvent) -> None:
        if event.pool is not None:
            self._pools.add(
                ref(event.pool, self._pools.discard)
            )  # there is no message without a connection that was tried
        outcome = "ok" if event.error is None else "failed"
        self._connects[self._hosts.word(event.detail), outcome].observe(event.seconds)

    def _send(self, event: TraceEvent) -> None:
        self._attempts[delivery_word(event)] += 1

    def _message(self, event: TraceEvent) -> None:
        word = delivery_word(event)
        self._messages[word] += 1
        self._message_seconds[word].observe(event.seconds)

    def _retry(self, event: TraceEvent) -> None:
        self._retries += 1

    def _retire(self, event: TraceEvent) -> None:
        self._retired += 1

    def values(self) -> dict[str, Values]:
        """Counters and gauges by the metric's name."""
        states = [pool.statistics() for each in self._pools.copy() if (pool := each()) is not None]

        def of_all(what: Callable[[PoolStatistics], int]) -> Values:
            return {(): sum(map(what, states))}

        return {
            "smtp_pool_connections": of_all(lambda state: state.connections),
            "smtp_pool_idle": of_all(lambda state: state.idle),
            "smtp_pool_waiting": of_all(lambda state: state.waiting),
            "smtp_pool_in_flight": of_all(lambda state: state.in_flight),
            "smtp_pool_messages_total": {(word,): n for word, n in self._messages.copy().items()},
            "smtp_pool_attempts_total": {(word,): n for word, n in self._attempts.copy().items()},
            "smtp_pool_retries_total": {(): self._retries},
            "smtp_pool_connections_retired_total": {(): self._retired},
        }


class OutboxTally:
    """The events of outboxes as numbers; how many entries are in each state is the store's to say.

    Args:
        make: makes the distributions.
    """

    def __init__(self, make: MakeHistogram) -> None:
        self._entries = 0
        self._attempts: defaultdict[str, int] = defaultdict(int)
        self._recipients: defaultdict[str, int] = defaultdict(int)
        self._lost = 0
        self._failures = 0
        self._attempt_seconds = Histograms("smtp_outbox_attempt_seconds", make)
        self._entry_seconds = Histograms("smtp_outbox_entry_seconds", make)
        self.takes: Final[dict[str, Callable[[OutboxEvent], None]]] = {
            "put": self._put,
            "begin": self._ignore,
            "mark": self._ignore,
            "settle": self._settle,
            "doubt": self._change,
            "resolve": self._change,
            "lost": self._lose,
            "store": self._fail,
        }

    def __repr__(self) -> str:
        return f"<OutboxTally: {self._entries} entries>"

    def _ignore(self, event: OutboxEvent) -> None:
        pass

    def _put(self, event: OutboxEvent) -> None:
        self._entries += 1

    def _settle(self, event: OutboxEvent) -> None:
        if event.seconds:  # else there was no try: its time was over
            self._attempts[event.state] += 1
            self._attempt_seconds[event.state].observe(event.seconds)
        self._change(event)

    def _change(self, event: OutboxEvent) -> None:
        for state, number in event.states.items():
            if state not in _ON_THE_WAY:
                self._recipients[state] += number
        if event.age is not None:
            self._entry_seconds[event.state].observe(event.age)

    def _lose(self, event: OutboxEvent) -> None:
        self._lost += 1

    def _fail(self, event: OutboxEvent) -> None:
        self._failures += 1

    def values(self) -> dict[str, Values]:
        """Counters by the metric's name."""
        return {
            "smtp_outbox_entries_total": {(): self._entries},
            "smtp_outbox_attempts_total": {(state,): n for state, n in self._attempts.copy().items()},
            "smtp_outbox_recipients_total": {(state,): n for state, n in self._recipients.copy().items()},
            "smtp_outbox_claims_lost_total": {(): self._lost},
            "smtp_outbox_store_failures_total": {(): self._failures},
        }


class Tally:
    """The events of any number of servers, clients, pools and outboxes.

    Args:
        make: makes the distributions.

    Attributes:
        takes: what counts an event, by its type and its name, which is its first field.
        commands: answered commands by the type of their event, by verb and code.
        hooks: how long a server's hooks took, by their names.
    """

    def __init__(self, make: MakeHistogram) -> None:
        self._server = ServerTally(make)
        self._client = ClientTally(make)
        self._pool = PoolTally(make)
        self._outbox = OutboxTally(make)
        self.takes: Final[Mapping[type, Mapping[str, Callable[[Any], None]]]] = {
            ServerEvent: self._server.takes,
            ClientEvent: self._client.takes,
            TraceEvent: self._pool.takes,
            OutboxEvent: self._outbox.takes,
        }
        self.commands: Final[Mapping[type, dict[tuple[str, int], int]]] = {
            ServerEvent: self._server.both.commands,
            ClientEvent: self._client.both.commands,
        }
        self.hooks: Final = self._server.hooks

    def __repr__(self) -> str:
        return f"<Tally {self._server!r} {self._client!r} {self._pool!r} {self._outbox!r}>"

    def values(self) -> dict[str, Values]:
        """Counters and gauges by the metric's name, each with its values by their labels."""
        return {**self._server.values(), **self._client.values(), **self._pool.values(), **self._outbox.values()}


def delivery_word(event: TraceEvent) -> str:
    """What became of a message or a try: ``"accepted"``, a :class:`Delivery`, or ``"none"`` if that is not known."""
    if event.delivery is not None:
        return str(event.delivery)
    return "accepted" if event.error is None else NONE


def _sum(pairs: Iterable[tuple[Labels, float]]) -> Values:
    values: defaultdict[Labels, float] = defaultdict(float)
    for labels, number in pairs:
        values[labels] += number
    return values
