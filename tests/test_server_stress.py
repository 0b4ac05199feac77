# A server that is nearly full, or full: who makes room, who does not, and how long peers may keep it waiting.
from __future__ import annotations

import math

import pytest
import trio
from loopback import serving_tcp
from support import DATA, MAIL, Peer, Recorder, make_server, serving
from tls_support import server_context
from trio.testing import lockstep_stream_pair, wait_all_tasks_blocked

from trio_smtp import ConnectionLostError, Discard, Server, ServerConfig
from trio_smtp._server.stress import FEW_SLOTS, LOOK, MANY, NEWCOMER, PATIENCE, SHORTER_WAITS, Room, Stress

ROOM = "421 4.3.2 too many connections, and this one has been of no use for the longest time"
FULL = "421 4.3.2 too many connections, try again later\r\n"
LONGER = NEWCOMER + 0.1


# ---- who makes room


class Occupant:
    """A connection as numbers."""

    def __init__(self, useless_since: float, stalled: float = 0.0) -> None:
        self.useless_since = useless_since
        self.stalled = stalled

    def has_stalled_for(self, now: float) -> float:
        return self.stalled


def choose(connections: list[Occupant], now: float) -> Occupant | None:
    return Room[Occupant]().choose(connections, now)


def test_the_one_that_has_been_of_no_use_for_the_longest_time_makes_room():
    connections = [Occupant(50), Occupant(20), Occupant(99.9), Occupant(math.inf, 1000)]
    assert choose(connections, 100) is connections[1]
    assert choose(connections[2:3], 100) is None  # a newcomer
    assert choose([Occupant(100 - NEWCOMER)], 100) is not None
    assert choose([], 100) is None


def test_a_transaction_makes_room_only_if_it_has_stalled_and_all_others_are_of_use():
    connections = [Occupant(math.inf, PATIENCE), Occupant(math.inf, PATIENCE + 1), Occupant(math.inf, PATIENCE + 2)]
    assert choose(connections, 100) is connections[2]
    assert choose(connections[:1], 100) is None
    idle = Occupant(10)
    assert choose([*connections, idle], 100) is choose([idle, *connections], 100) is idle


class Looked(list[Occupant]):
    """Connections that count how often all of them are looked at."""

    looks = 0

    def __iter__(self):
        self.looks += 1
        return super().__iter__()


def test_many_are_chosen_with_one_look():
    connections = Looked(Occupant(number) for number in range(MANY * 3 - 1))
    room: Room[Occupant] = Room()
    for number in range(MANY * 3 - 1):
        assert room.choose(connections, 100) is connections[number]
        connections[number].useless_since = math.inf
    assert connections.looks == 3
    assert room.choose(connections, 100) is None
    assert connections.looks == 3
    assert repr(room) == "<Room: 0 candidates>"


def test_what_was_looked_at_is_looked_at_again_later():
    connections = Looked([Occupant(math.inf, 1), Occupant(math.inf, 1)])
    room: Room[Occupant] = Room()
    for _ in range(100):
        assert room.choose(connections, 100) is None
    assert connections.looks == 2  # once for those of no use, once for those that stall
    connections[1].useless_since = 50
    assert room.choose(connections, 100 + LOOK / 2) is None
    assert room.choose(connections, 100 + LOOK) is connections[1]


def test_a_candidate_that_is_of_use_meanwhile_stays():
    connections = [Occupant(1), Occupant(2), Occupant(3)]
    room: Room[Occupant] = Room()
    assert room.choose(connections, 100) is connections[0]
    connections[1].useless_since = math.inf
    assert room.choose(connections, 100) is connections[2]
    room = Room()
    assert room.choose(connections, 100) is connections[0]
    room.forget(connections[2])
    assert room.choose(connections, 100) is None


async def test_an_idle_session_makes_room_for_a_new_one(autojump_clock, caplog):
    handler = Recorder()
    server = make_server(handler, max_connections=2)
    async with serving(server) as connect:
        first = connect()
        await first.hello()
        await trio.sleep(LONGER)
        second = connect()
        await second.hello()
        await trio.sleep(LONGER)
        third = connect()
        assert await third.code() == "220"
        assert await first.line() == ROOM
        assert await first.line() == "<closed>"
        assert await second.ask("NOOP") == "250 2.0.0 OK"
        statistics = server.statistics()
        assert (statistics.total_connections, statistics.refused_connections, statistics.ended_for_others) == (3, 0, 1)
    assert handler.count("on_close") == 3
    assert [record.getMessage() for record in caplog.records] == [
        "ended a connection from a stream without an address: it has been of no use for the longest time, and another"
        " one needs room: max_connections are open"
    ]


async def test_a_newcomer_does_not_make_room(autojump_clock):
    async with serving(make_server(max_connections=1)) as connect:
        peer = connect()
        await peer.hello()
        assert await connect().rest() == FULL
        assert await peer.ask("NOOP") == "250 2.0.0 OK"


async def test_an_accepted_message_is_of_use(autojump_clock):
    async with serving(make_server(max_connections=2)) as connect:
        first, second = connect(), connect()
        for peer in (first, second):
            await peer.hello()
        await trio.sleep(LONGER)
        await first.speak(DATA + "C: x\nC: .\nS: 250…")
        await trio.sleep(LONGER)
        assert await connect().code() == "220"
        assert await second.line() == ROOM
        assert await first.ask("NOOP") == "250 2.0.0 OK"


@pytest.mark.parametrize("stage", [MAIL, DATA, DATA + "C: text", MAIL + "C: BDAT 0\nS: 250…"])
async def test_no_transaction_in_progress_is_cut(stage: str, autojump_clock):
    handler = Recorder()
    async with serving(make_server(handler, max_connections=1)) as connect:
        peer = connect()
        await peer.hello()
        await trio.sleep(LONGER)
        await peer.speak(stage)
        await trio.sleep(PATIENCE - 0.1)
        assert await connect().rest() == FULL
        end = ["", "C: DATA\nS: 354…\n"][stage is MAIL]
        end += "C: BDAT 0 LAST" if "BDAT" in stage else "C: ."
        await peer.speak(end + "\nS: 250 2.0.0 OK: queued")
    assert len(handler.messages) == 1


@pytest.mark.parametrize("stage", [MAIL, DATA, DATA + "C: text", MAIL + "C: BDAT 0\nS: 250…", MAIL + "C: BDAT 9"])
async def test_a_transaction_that_stalls_makes_room_if_no_session_is_idle(stage: str, autojump_clock):
    handler = Recorder()
    async with serving(make_server(handler, max_connections=1)) as connect:
        peer = connect()
        await peer.hello()
        await peer.speak(stage)
        await trio.sleep(PATIENCE + 0.1)
        assert await connect().code() == "220"
        assert await peer.line() == ROOM
        assert handler.messages == []
        assert handler.count("on_reset") == 1


async def test_a_client_that_has_not_read_the_354_yet_has_its_time_too(autojump_clock):
    """Each reply waits until it is read: that to DATA does while the hook waits for the message."""
    server = make_server(max_connections=1)
    near, far = lockstep_stream_pair()
    async with serving(server) as connect, trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_stream, far)
        slow = Peer(near)
        await slow.hello()
        await slow.speak(MAIL)
        await trio.sleep(10 * PATIENCE)
        await slow.send_line("DATA")
        await trio.sleep(PATIENCE - 0.5)
        assert await connect().code() == "421"
        await slow.speak("S: 354…\nC: .\nS: 250…\nC: QUIT\nS: 221…\nS: <closed>")


async def test_the_hook_of_a_message_that_makes_room_is_told(autojump_clock):
    errors = []

    async def on_data(session, envelope, body):
        try:
            await body.read()
        except ConnectionLostError as exc:
            errors.append(str(exc))
            raise

    async with serving(make_server(Recorder(on_data=on_data), max_connections=1)) as connect:
        peer = connect()
        await peer.hello()
        await peer.speak(DATA)
        await trio.sleep(PATIENCE + 0.1)
        assert await connect().code() == "220"
        assert await peer.line() == ROOM
    assert errors == ["the message was cut off: the server is full"]


async def test_a_slow_and_steady_message_is_not_cut_and_a_trickle_is(autojump_clock):
    async with serving(make_server(max_connections=1)) as connect:
        peer = connect()
        await peer.hello()
        await peer.speak(DATA)
        for _ in range(30):
            await peer.send("x" * 598 + "\r\n")
            await trio.sleep(1)
        assert await connect().rest() == FULL
        for _ in range(6):
            await peer.send("x")
            await trio.sleep(1)
        assert await connect().code() == "220"
        assert await peer.line() == ROOM


async def test_a_session_whose_hook_runs_makes_no_room(autojump_clock):
    finish = trio.Event()

    async def wait(session, *args):
        await finish.wait()

    async with serving(make_server(Recorder(on_rcpt=wait, on_hello=wait), max_connections=1)) as connect:
        peer = connect()
        await peer.reply()
        await peer.send("EHLO x\r\n")
        await trio.sleep(60)
        assert await connect().rest() == FULL
        finish.set()
        await peer.reply()
    finish = trio.Event()
    async with serving(make_server(Recorder(on_rcpt=wait), max_connections=1)) as connect:
        peer = connect()
        await peer.hello()
        await peer.speak("C: MAIL FROM:<a@a.test>\nS: 250…\nC: RCPT TO:<b@b.test>")
        await trio.sleep(60)
        assert await connect().rest() == FULL
        finish.set()
        await peer.reply()


async def test_a_host_that_has_all_its_slots_takes_none_from_others(autojump_clock):
    async with serving_tcp(make_server(max_connections=2, max_connections_per_host=2)) as connect:
        peers = [await connect(), await connect()]
        for peer in peers:
            await peer.hello()
        await trio.sleep(LONGER)
        assert await (await connect()).rest() == "421 4.7.0 too many connections from your host\r\n"
        for peer in peers:
            assert await peer.ask("NOOP") == "250 2.0.0 OK"


async def test_a_handshake_that_does_not_come_makes_room_without_a_word(autojump_clock):
    server = make_server(max_connections=1, ssl_context=server_context(), implicit_tls=True)
    async with serving_tcp(server) as connect:
        silent = await connect()
        while not server.sessions:
            await trio.lowlevel.checkpoint()
        await trio.sleep(LONGER)
        other = await connect()
        assert await silent.rest() == ""
        assert server.statistics().total_connections == 2
        await other.aclose()


async def test_a_client_that_reads_nothing_makes_room(autojump_clock):
    server = make_server(max_connections=1, max_junk_commands=None)
    async with serving_tcp(server) as connect:
        peer = await connect()
        await peer.hello()
        with trio.move_on_after(1):
            while True:
                await peer.send("HELP\r\n" * 1000)
        await trio.sleep(1)
        assert await (await connect()).code() == "220"
        assert server.statistics().ended_for_others == 1


async def test_how_many_make_room_at_one_time_is_bounded(autojump_clock, monkeypatch):
    monkeypatch.setattr("trio_smtp._server.server.MAX_LEAVING", 1)
    finish = trio.Event()

    async def on_close(session):
        await finish.wait()

    server = make_server(Recorder(on_close=on_close), max_connections=2)
    async with serving(server) as connect:
        for peer in (connect(), connect()):
            await peer.hello()
        await trio.sleep(LONGER)
        assert await connect().code() == "220"
        assert await connect().rest() == FULL
        assert len(server.sessions) == 3
        finish.set()
        await wait_all_tasks_blocked()
        assert len(server.sessions) == 2
        assert await connect().code() == "220"


async def test_where_descriptors_are_short_a_session_makes_room_at_once(autojump_clock, monkeypatch, caplog):
    server = make_server()
    async with serving_tcp(server) as connect:
        peer = await connect()
        await peer.hello()
        await trio.sleep(LONGER)
        monkeypatch.setattr("trio_smtp._server.server.are_short", lambda stream, sessions: True)
        assert await (await connect()).code() == "220"
        assert await peer.line() == ROOM
        assert await (await connect()).rest() == FULL
    assert "another one needs room: the process is short of file descriptors" in caplog.text


# ---- how long the server waits


def test_waits_are_shorter_as_slots_run_short():
    stress = Stress(100, 300)
    assert stress.begins_at == 75
    limits = []
    for taken in (0, 74, 75, 89, 90, 99, 100):
        stress.note(taken, 0)
        limits.append(stress.limit)
    (_, some), (_, few), (_, none) = SHORTER_WAITS
    assert limits == [math.inf, math.inf, some, some, few, few, none]
    assert stress.command_limit == none
    assert not stress.note(50, 10)
    assert (stress.limit, stress.command_limit) == (math.inf, 300)
    assert stress.note(75, 10)
    assert not stress.note(76, 10)
    assert repr(stress) == "<Stress of 100 slots: 60 s>"


def test_waits_in_progress_are_not_looked_at_for_each_connection():
    stress = Stress(100)
    assert [stress.note(taken, 5) for taken in (75, 74, 75, 90, 89, 90)] == [True, False, False, True, False, False]
    stress.note(74, 6)
    assert stress.note(75, 6)


def test_a_limit_that_is_shorter_stays():
    stress = Stress(100, 5)
    stress.note(100, 0)
    assert stress.command_limit == 5


@pytest.mark.parametrize("slots", [None, FEW_SLOTS - 1])
def test_a_server_with_few_slots_or_any_number_of_them_has_no_stress(slots: int | None):
    stress = Stress(slots, 300)
    assert stress.begins_at == math.inf
    assert not stress.note(10**6, 0)
    assert stress.command_limit == 300


@pytest.mark.parametrize("kind", [serving, serving_tcp])
@pytest.mark.parametrize("stage", ["", DATA])
async def test_a_wait_that_has_begun_before_becomes_shorter_too(kind, stage: str, autojump_clock):
    server = Server(Discard(), config=ServerConfig(hostname="mx.test", max_connections=FEW_SLOTS))
    async with kind(server) as connect:

        async def open_one():
            peer = connect()
            return await peer if kind is serving_tcp else peer

        peers = [await open_one()]
        await peers[0].hello()
        if stage:
            await peers[0].speak(stage)
        while len(peers) < FEW_SLOTS * SHORTER_WAITS[0][0]:
            peers.append(await open_one())
            await peers[-1].hello()
        began = trio.current_time()
        assert (await peers[0].line()).startswith("421 4.4.2")
        assert trio.current_time() - began == pytest.approx(SHORTER_WAITS[0][1], abs=1)
