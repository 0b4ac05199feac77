"""Fail anywhere, cancel anywhere: scenarios, the points at which each is made to fail, and what must hold afterwards.

A scenario is played once undisturbed, to see what passes; then once for every point: each octet of the dialogue in
clear, the edges of the blocks of a long text and the octets beside them, the edges of TLS records and the octets beside
them, and each turn of the scheduler for a cancellation. The connection fails at the client's end of a memory stream,
below TLS. After every run:

* the call has returned or raised once, and no task, connection or token is left;
* what it says of each recipient agrees with the server's own book, and no recipient has anything twice;
* ``unknown`` is only said where the end of the message was on its way;
* where tries are left and nothing can have been accepted, the message has got through;
* the next message through the same pool is sent and right.
"""

from __future__ import annotations

import functools
import math
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
import trio
import trio.testing
from fault_server import PASSWORD, USER, Ledger, Manner, Session
from tls_support import NAME, client_context

import trio_smtp
from trio_smtp import ClientConfig, Delivery, PoolConfig
from trio_smtp._wire.stream_wire import StreamWire

Fault = Literal["cut", "reset", "stall"]
FAULTS: tuple[Fault, ...] = ("cut", "reset", "stall")
PLACES = ("before", "first", "header", "middle", "last")  # in a TLS record
_WHOLE = 1500  # octets in one direction up to which every one is tried


@dataclass(frozen=True)
class Point:
    """Where a connection fails: so many octets in clear have passed, or so many TLS records and a part of one."""

    direction: Literal["send", "receive"]
    octets: int = 0
    record: int | None = None
    place: str = "before"


class Meter:
    """Counts what passes in one direction, and says where to stop."""

    def __init__(self, stop: Point | None) -> None:
        self.stop = stop
        self.octets = 0
        self.records = 0
        self.edges: list[int] = []

    def admit(self, data: bytes | bytearray | memoryview) -> int:
        """How many of these octets may pass."""
        if not self.records and data[:2] != b"\x16\x03":
            room = math.inf if self.stop is None or self.stop.record is not None else self.stop.octets - self.octets
            self.octets += len(data)
            self.edges.append(self.octets)
            return min(int(room), len(data)) if room < len(data) else len(data)
        at = 0
        while at < len(data):  # whole records: they are written whole, and memory streams cut nothing
            size = 5 + int.from_bytes(data[at + 3 : at + 5], "big")
            if self.stop is not None and self.stop.record == self.records:
                return (
                    at + {"before": 0, "first": 1, "header": 5, "middle": size // 2, "last": size - 1}[self.stop.place]
                )
            self.records += 1
            at += size
        assert at == len(data)
        return at


class Flaw(trio.abc.Stream):
    """The client's end of a stream that fails at a point."""

    def __init__(self, stream: trio.abc.Stream, point: Point | None, fault: Fault) -> None:
        self._stream = stream
        self._fault = fault
        self.meters = {
            name: Meter(point if point is not None and point.direction == name else None)
            for name in ("send", "receive")
        }
        self.failed = False

    def mend(self) -> None:
        """Let everything pass, if it has not failed yet."""
        for meter in self.meters.values():
            meter.stop = None

    async def _fail(self) -> None:
        if not self.failed:
            self.failed = True
            if self._fault != "stall":
                await self._stream.aclose()
        if self._fault == "stall":
            await trio.sleep_forever()
        if self._fault == "reset":
            raise trio.BrokenResourceError

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        admitted = 0 if self.failed else self.meters["send"].admit(data)
        if admitted < len(data) or self.failed:
            if admitted:
                await self._stream.send_all(data[:admitted])
            await self._fail()
            raise trio.BrokenResourceError
        await self._stream.send_all(data)

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if self.failed:
            await self._fail()
            return b""
        data = await self._stream.receive_some()
        if not data:
            return data
        admitted = self.meters["receive"].admit(data)
        if admitted < len(data):
            self.failed = True
            if self._fault != "stall":
                await self._stream.aclose()
            if not admitted:
                await self._fail()
        return data[:admitted]

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


class Pieces:
    """A text that comes in pieces."""

    def __init__(self, text: bytes, size: int, replayable: bool) -> None:
        self._text = text
        self._size = size
        self.replayable = replayable

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for at in range(0, len(self._text), self._size):
            await trio.lowlevel.checkpoint()
            yield self._text[at : at + self._size]


@dataclass(frozen=True)
class Scenario:
    """What is played.

    Attributes:
        name: in the tests' names.
        manner: the server's.
        warm: a message has gone over the connection before.
        recipients: of each message.
        size: octets of its text, about.
        streamed: it comes in pieces; ``"once"``, or ``"again"`` if it can be produced again.
        together: so many messages at one time over one connection.
        hosts: so many, of which the first has the flaw.
        close: the pool is left as soon as the message was sent, and fails then, too.
        early: small messages leave in one write with their envelopes (``early_text``).
        config: of the pool, above all `connect_retries`.
    """

    name: str
    manner: Manner
    warm: bool = False
    recipients: tuple[str, ...] = ("b@y.test",)
    size: int = 20
    streamed: str = ""
    together: int = 1
    hosts: int = 1
    close: bool = False
    early: bool = False
    config: dict[str, Any] = field(default_factory=dict)

    @property
    def wanted(self) -> list[str]:
        """Who is to get it."""
        return [name for name in self.recipients if not name.startswith(("no", "full"))]

    def text(self, number: int) -> bytes:
        line = b"." * 30 + b" line of %d\r\n" % number
        return line * (self.size // len(line)) + _mark(number)

    def content(self, number: int) -> bytes | Pieces:
        text = self.text(number)
        return Pieces(text, self.size // 3 + 1, self.streamed == "again") if self.streamed else text


def _mark(number: int) -> bytes:
    return b"the end of %d\r\n" % number


class Run:
    """Plays a scenario over a network of memory streams, any number of times."""

    def __init__(self, scenario: Scenario, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
        self.scenario = scenario
        self.count = 0  # runs
        self.point: Point | None = None
        self.fault: Fault = "cut"
        self._nursery = nursery
        self._open = 0
        self._all_closed = trio.Event()
        self._connections = 0
        self.flaw: Flaw | None = None
        self.ledger = Ledger()
        self.marks = {"send": (0, 0), "receive": (0, 0)}  # octets and records that passed before the message
        self.ends: dict[str, tuple[int, int]] = {}  # and when it was over
        self._said = bytearray()  # by the client, before TLS, on all connections
        say = StreamWire.send

        async def send(wire: StreamWire, data: bytes, deadline: float = math.inf) -> None:
            self._said += data
            await say(wire, data, deadline)

        async def run_sync(work: Callable[..., Any], *args: Any, **options: Any) -> Any:
            await trio.lowlevel.checkpoint()
            return _derived(work) if type(work).__name__ == "DeriveKey" else work(*args)

        monkeypatch.setattr(StreamWire, "send", send)
        monkeypatch.setattr(trio, "open_tcp_stream", self.connect)
        monkeypatch.setattr(trio.to_thread, "run_sync", run_sync)

    # -- the network

    async def connect(self, host: str, port: int, **options: Any) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        ours, theirs = trio.testing.memory_stream_pair()
        self._connections += 1
        self._open += 1
        session = Session(theirs, self._connections, self.scenario.manner, self.ledger)
        self._nursery.start_soon(self._serve, session, theirs)
        if self.flaw is not None:
            return ours
        self.flaw = Flaw(ours, self.point, self.fault)
        return self.flaw

    async def _serve(self, session: Session, stream: trio.abc.Stream) -> None:
        try:
            await session.run()
        finally:
            await trio.aclose_forcefully(stream)
            self._open -= 1
            if not self._open:
                self._all_closed.set()

    def _pool(self) -> Any:
        scenario = self.scenario
        manner = scenario.manner
        options: dict[str, Any] = {"tls": manner.tls}
        if manner.tls != "none":
            options["ssl_context"] = client_context_once()
        if manner.auth:
            options["auth"] = (USER, PASSWORD)
            options["allow_insecure_auth"] = True
        config = {"connect_retries": 0, "idle_timeout": None, "max_connections": 1} | scenario.config
        if scenario.together > 1:
            config["pipeline_depth"] = scenario.together
        return trio_smtp.open_pool(
            NAME if scenario.hosts == 1 else [(NAME, 2525), ("localhost", 2526)],
            2525,
            config=PoolConfig(**config),
            client_config=ClientConfig(end_grace=5, early_text=scenario.early),
            local_hostname="me.test",
            lmtp=manner.lmtp,
            **options,
        )

    # -- one run

    async def once(
        self, *, point: Point | None = None, fault: Fault = "cut", turns: int | None = None, whole: bool = False
    ) -> bool:
        """Play it; whether the fault or the cancellation (of the call, or of the `whole` block) was met."""
        self.count += 1
        self.point, self.fault = point, fault
        self.flaw = None
        self.ledger = Ledger()
        self._connections = 0
        self._said.clear()
        self._all_closed = trio.Event()
        scenario = self.scenario
        outcomes: dict[int, object] = {}
        scopes = {number: trio.CancelScope() for number in range(1, scenario.together + 1)}
        victim = trio.CancelScope() if whole else scopes[(scenario.together + 1) // 2]
        self._cancelled = False
        self._over: set[trio.CancelScope] = set()
        pool: Any = None
        async with trio.open_nursery() as nursery:
            with victim if whole else trio.CancelScope():
                async with self._pool() as pool:
                    if scenario.warm:
                        await self._warm_up(pool)
                    if turns is not None:
                        nursery.start_soon(self._cancel_after, turns, victim)
                    async with trio.open_nursery() as senders:
                        for number, scope in scopes.items():
                            senders.start_soon(self._send, pool, number, scope, outcomes)
                    self._check_idle(pool)
                    if not scenario.close and not whole:
                        await self._send_next(pool)
            self._over.add(victim)
            nursery.cancel_scope.cancel()
        limiter = pool._dispatcher._limiter if pool is not None else None
        assert limiter is None or limiter.borrowed_tokens == 0, "a token is left"
        with trio.fail_after(1000):
            if self._open:
                await self._all_closed.wait()
        for number, scope in scopes.items():
            self._check(number, outcomes.get(number), self._cancelled and (whole or scope is victim))
        return self._cancelled if turns is not None else self.flaw is not None and self.flaw.failed

    async def _cancel_after(self, turns: int, victim: trio.CancelScope) -> None:
        for _ in range(turns):
            await trio.lowlevel.checkpoint()
        if victim not in self._over:
            self._cancelled = True
            victim.cancel()

    async def _warm_up(self, pool: Any) -> None:
        try:
            await pool.send("a@x.test", ["b@y.test"], b"warm\r\n")
        except trio_smtp.SMTPError:
            pass  # the fault has met this message: that is the case without it
        if self.flaw is not None:
            self.marks = {name: (meter.octets, meter.records) for name, meter in self.flaw.meters.items()}

    async def _send(self, pool: Any, number: int, scope: trio.CancelScope, outcomes: dict[int, object]) -> None:
        with scope:
            try:
                outcome = await pool.send("a@x.test", self.scenario.recipients, self.scenario.content(number))
            except trio_smtp.SMTPError as exc:
                outcome = exc
            assert number not in outcomes
            outcomes[number] = outcome
        self._over.add(scope)

    def _check_idle(self, pool: Any) -> None:
        now = pool.statistics()
        assert (now.waiting, now.in_flight) == (0, 0)
        assert pool._dispatcher._limiter.borrowed_tokens == now.connections

    async def _send_next(self, pool: Any) -> None:
        if self.flaw is not None:
            self.ends = {name: (meter.octets, meter.records) for name, meter in self.flaw.meters.items()}
            self.flaw.mend()
            await trio.sleep(2)  # on a connection that has just answered, a message may end in doubt
        before = len(self.ledger.order)
        result = await pool.send("a@x.test", ["b@y.test"], b"next\r\n")
        assert result.accepted == ["b@y.test"]
        assert self.ledger.order[before:] == [b"next\r\n"]

    # -- what must hold

    def _check(self, number: int, outcome: object, cancelled: bool) -> None:
        scenario, text = self.scenario, self.scenario.text(number)
        known = {self.scenario.text(other) for other in range(1, scenario.together + 1)} | {b"warm\r\n", b"next\r\n"}
        assert known.issuperset(self.ledger.order), "corrupted"
        have = self.ledger.who_has(text)
        assert have <= set(scenario.wanted)
        twice = [key for key, count in self.ledger.accepted.items() if count > 1 and key[0] == text]
        if isinstance(outcome, trio_smtp.SendResult):
            assert set(outcome.accepted) == have, "lost"
            assert set(outcome.refused) == set(scenario.recipients) - have
            assert not twice or outcome.maybe_duplicate, "sent twice"
            return
        if outcome is None:
            assert cancelled, "neither returned nor raised"
            assert not twice, "sent twice"
            return
        assert isinstance(outcome, trio_smtp.SMTPError)
        self._check_error(outcome, have, number)
        assert not twice or scenario.config.get("on_unknown") == "retry", "sent twice"
        if cancelled:
            return
        if scenario.config.get("connect_retries") and scenario.streamed != "once":
            assert outcome.delivery is Delivery.UNKNOWN, f"not tried again after {outcome!r}"
        if scenario.hosts > 1:
            assert b"MAIL" in self._said, f"the other host was not tried after {outcome!r}"

    def _check_error(self, error: trio_smtp.SMTPError, have: set[str], number: int) -> None:
        assert error.delivery is not None
        assert set(error.accepted) <= have, "said to be accepted, and is not"
        assert have <= {*error.accepted, *error.unknown}, f"{error!r} says {error.delivery}, and {have} have it"
        assert not have & set(error.refused)
        if error.delivery is Delivery.UNKNOWN:
            assert _mark(number) in self._said, "unknown, and the end was not on its way"
        else:
            assert not error.unknown

    # -- points

    async def points(self) -> list[Point]:
        """Play the scenario undisturbed, and list where it can fail."""
        self.marks = {"send": (0, 0), "receive": (0, 0)}
        self.ends = {}
        assert not await self.once()
        assert self.flaw is not None
        return [
            point
            for name, meter in self.flaw.meters.items()
            for point in _points(name, meter, self.marks[name], self.ends.get(name, (meter.octets, meter.records)))
        ]


def _points(direction: Any, meter: Meter, first: tuple[int, int], last: tuple[int, int]) -> Iterator[Point]:
    if last[0] - first[0] <= _WHOLE:
        chosen = set(range(first[0], last[0]))
    else:  # every octet of the dialogue; of a long text the edges of what was sent at once, and the octets beside them
        chosen = set()
        for start, end in zip([0, *meter.edges], meter.edges, strict=False):
            inside = range(start, end) if end - start < _WHOLE // 4 else (start, start + 1, (start + end) // 2, end - 1)
            chosen.update(at for at in inside if first[0] <= at < last[0])
    for at in sorted(chosen):
        yield Point(direction, at)
    for record in range(first[1], last[1]):
        for place in PLACES:
            yield Point(direction, record=record, place=place)


@functools.cache
def client_context_once() -> Any:
    return client_context()


@functools.cache
def _derived(work: Callable[[], bytes]) -> bytes:
    return work()


@asynccontextmanager
async def playing(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Run]:
    """A run of a scenario, and its network."""
    async with trio.open_nursery() as nursery:
        yield Run(scenario, nursery, monkeypatch)
