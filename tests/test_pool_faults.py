"""Fail anywhere, cancel anywhere: every scenario at every point; see faults.py for what is held against it.

The usual run changes the kind of fault from point to point, of those that come in three variants takes the points in
turn, and ends in about a minute. ``pytest tests/test_pool_faults.py --all-faults`` tries every kind at every point.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import trio
import trio.testing
from client_peer import Peer
from fault_server import Manner
from faults import FAULTS, Scenario, playing
from pool_server import network, pool_of

from trio_smtp import ClientConfig, ConnectionLostError, Delivery, PoolConfig
from trio_smtp._pool import pool as pool_module
from trio_smtp._pool.attempt import Attempt

LOCK_STEP = Manner(offers=("SIZE",))
PIPELINING = Manner()
CHUNKING = Manner(offers=("PIPELINING", "CHUNKING"))
SERVERS = {"lock-step": LOCK_STEP, "pipelining": PIPELINING, "chunking": CHUNKING}
BLOCKS = 600_000  # octets: three blocks, and three chunks of BDAT

PLAIN = [
    Scenario(f"{name}{', reused' * warm}", manner, warm=warm)
    for name, manner in SERVERS.items()
    for warm in (False, True)
]
SCENARIOS = [
    *PLAIN,
    *(
        Scenario(f"{tls}, {name}{', reused' * warm}", replace(manner, tls=tls), warm=warm)
        for tls, name in (("starttls", "pipelining"), ("implicit", "chunking"))
        for manner in (SERVERS[name],)
        for warm in (False, True)
    ),
    Scenario("AUTH PLAIN", replace(LOCK_STEP, auth="PLAIN")),
    Scenario("AUTH SCRAM", replace(PIPELINING, auth="SCRAM-SHA-256")),
    Scenario("starttls, AUTH SCRAM", replace(CHUNKING, tls="starttls", auth="SCRAM-SHA-256")),
    *(
        Scenario(f"some refused, {name}", manner, warm=True, recipients=("b@y.test", "no@y.test", "c@y.test"))
        for name, manner in SERVERS.items()
    ),
    *(Scenario(f"big, {name}", manner, warm=True, size=BLOCKS) for name, manner in SERVERS.items()),
    *(
        Scenario(f"streamed {streamed}, {name}", manner, warm=True, size=BLOCKS, streamed=streamed)
        for name, manner in SERVERS.items()
        for streamed in ("once", "again")
    ),
    Scenario("big under TLS", replace(CHUNKING, tls="implicit"), warm=True, size=BLOCKS // 2),
    *(
        Scenario(f"LMTP, {name}", replace(manner, lmtp=True), warm=True, recipients=("b@y.test", "full@y", "c@y.test"))
        for name, manner in SERVERS.items()
    ),
    *(
        Scenario(
            f"split, {name}",
            replace(manner, offers=(*manner.offers, "LIMITS RCPTMAX=2"), most_recipients=2),
            recipients=("b@y.test", "no@y.test", "c@y.test", "d@y.test", "e@y.test"),
        )
        for name, manner in SERVERS.items()
    ),
    *(
        Scenario(
            f"too many at once, {name}{', three in flight' * (together > 1)}",
            replace(manner, most_recipients=2),
            recipients=("b@y.test", "no@y.test", "c@y.test", "d@y.test", "e@y.test"),
            together=together,
        )
        for name, manner in SERVERS.items()
        for together in (1, 3)
        if together == 1 or name == "pipelining"
    ),
    Scenario("closing", PIPELINING, close=True),
    Scenario("closing under TLS", replace(PIPELINING, tls="starttls"), close=True),
    *(
        Scenario(f"three in flight, {name}{', reused' * warm}", SERVERS[name], warm=warm, together=3)
        for name in ("pipelining", "chunking")
        for warm in (False, True)
    ),
    Scenario("two hosts", PIPELINING, hosts=2),
    Scenario("two hosts, TLS and AUTH", replace(CHUNKING, tls="starttls", auth="PLAIN"), hosts=2),
]
ONE_WRITE = [  # what the one-write form may be: for small messages, with PIPELINING and CHUNKING
    "chunking",
    "chunking, reused",
    "implicit, chunking, reused",
    "some refused, chunking",
    "LMTP, chunking",
    "split, chunking",
    "too many at once, chunking",
    "three in flight, chunking",
    "three in flight, chunking, reused",
]
SCENARIOS += [
    replace(scenario, name=f"early text, {scenario.name}", early=True)
    for name in ONE_WRITE
    for scenario in SCENARIOS
    if scenario.name == name
]
assert len({scenario.name for scenario in SCENARIOS[-len(ONE_WRITE) :]}) == len(ONE_WRITE)
# The scenario with the most points and the longest runs: into how many tests each way of playing it is cut, so that
# they take no longer than those of others, and processes share them evenly.
LONGEST = "too many at once, pipelining, three in flight"
FAULT_PARTS = {LONGEST: 5}
CANCEL_PARTS = {LONGEST: 3}
VARIANTS: dict[str, dict[str, Any]] = {
    "": {},
    "again": {"connect_retries": 2},
    "at least once": {"connect_retries": 2, "on_unknown": "retry"},
}


def in_parts(parts: Mapping[str, int]) -> pytest.MarkDecorator:
    """All scenarios; those that are named here in that many parts."""
    cases = [
        pytest.param(scenario, slice(part, None, count), id=scenario.name + f", {part + 1} of {count}" * (count > 1))
        for scenario in SCENARIOS
        for count in (parts.get(scenario.name, 1),)
        for part in range(count)
    ]
    return pytest.mark.parametrize(("scenario", "part"), cases)


@in_parts(FAULT_PARTS)
async def test_fault_at_every_point(
    scenario: Scenario,
    part: slice,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: trio.testing.MockClock,
    request: pytest.FixtureRequest,
    record_property,
) -> None:
    every = request.config.getoption("--all-faults")
    variants = [replace(scenario, config=scenario.config | config) for config in VARIANTS.values()]
    async with playing(scenario, monkeypatch) as run:
        points = await run.points()
        met = 0
        for turn, point in list(enumerate(points))[part]:
            for kind, fault in enumerate(FAULTS):
                for number, run.scenario in enumerate(variants):
                    if every or (kind, number) == (turn % 3, turn // 3 % 3):
                        met += await run.once(point=point, fault=fault)
        record_property("runs", run.count)
    assert len(points) >= 20
    assert met > (run.count - 1) * 0.9, "the faults were hardly ever met"


@pytest.mark.parametrize("whole", [False, True], ids=["the call", "the pool"])
@in_parts(CANCEL_PARTS)
async def test_cancelled_at_every_turn(
    scenario: Scenario,
    part: slice,
    whole: bool,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: trio.testing.MockClock,
    request: pytest.FixtureRequest,
    record_property,
) -> None:
    again = 10 if request.config.getoption("--all-faults") else 1  # the order of tasks in a turn is Trio's secret
    async with playing(scenario, monkeypatch) as run:
        await run.points()
        for _ in range(again):
            turns = part.start
            while await run.once(turns=turns, whole=whole):
                turns += part.step
            assert turns > 8
        record_property("runs", run.count)


async def test_caller_cancelled_in_the_turn_of_the_last_reply_leaves_the_connection_to_the_next_message(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """The task of the connection has been woken by the reply and has not run yet when its wait is interrupted."""
    attempts: list[Attempt] = []

    class Recorded(Attempt):
        __slots__ = ()

        def __init__(self, message, **options) -> None:
            super().__init__(message, **options)
            attempts.append(self)

    monkeypatch.setattr(pool_module, "Attempt", Recorded)

    async with network(monkeypatch) as net:

        async def script(peer: Peer, number: int) -> None:
            await peer.greet("PIPELINING")
            while await net.message(peer):  # say() ends with the octets handed over, and gives other tasks no turn
                if len(net.accepted) == 2:
                    attempts[1].end_wait()

        net.script = script
        async with pool_of(PoolConfig(connect_retries=0), max_connections=1) as pool:
            for number in range(3):
                await pool.send("a@x.test", ["b@y.test"], b"%d\r\n" % number)
    assert net.accepted == [b"0\r\n", b"1\r\n", b"2\r\n"]
    assert net.connections == 1


async def test_lmtp_unanswered_recipients_of_a_message_whose_end_has_left_are_unknown(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    async with network(monkeypatch) as net:

        async def script(peer: Peer, number: int) -> None:
            await peer.greet_lmtp("PIPELINING", "CHUNKING")
            await peer.line()

        net.script = script
        async with pool_of(lmtp=True, client_config=ClientConfig(early_text=True)) as pool:
            with pytest.raises(ConnectionLostError) as caught:
                await pool.send("a@x.test", ["b@y.test", "c@y.test"], b"text\r\n")
    assert caught.value.delivery is Delivery.UNKNOWN
    assert caught.value.unknown == ["b@y.test", "c@y.test"]
