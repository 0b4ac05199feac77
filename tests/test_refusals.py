# Connections that get no session: each leaves a record, a flood of them does not leave a flood of records.
from __future__ import annotations

import contextlib
import errno
import logging
import os
import resource
import socket

import pytest
import trio
from loopback import serving_tcp
from support import DATA, Peer, Recorder, make_server
from trio.testing import memory_stream_pair

from trio_smtp._cli.descriptors import make_room_for
from trio_smtp._protocol.hosts import plain_host
from trio_smtp._server.descriptors import MAX_KEPT, SPARE, are_short
from trio_smtp._server.refusals import MAX_RECORDS, PERIOD


def records(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize(
    ("options", "reply", "words"),
    [
        ({"max_connections": 1}, "421 4.3.2…", "max_connections are open"),
        ({"max_connections_per_host": 1}, "421 4.7.0…", "max_connections_per_host are open"),
    ],
)
async def test_a_connection_too_many_leaves_one_record(options, reply, words, caplog):
    async with serving_tcp(make_server(**options)) as connect:
        await (await connect()).hello()
        refused = await connect()
        await refused.expect(reply)
    assert records(caplog) == [f"refused a connection from 127.0.0.1: {words}"]
    assert caplog.records[0].smtp_peer[0] == "127.0.0.1"


@pytest.mark.parametrize(
    ("octets", "words"),
    [
        (b"EHLO client.test\r\n", "it came without a valid PROXY header: not a PROXY header"),
        (b"PROXY TCP4 1\r\n", "it came without a valid PROXY header: a malformed PROXY line"),
        (b"PROXY TCP4", "the connection ended before its PROXY header"),
        (b"", None),  # a proxy looks whether the server is there
    ],
)
async def test_a_refused_proxy_header_leaves_one_record(octets, words, caplog):
    server = make_server(proxy_protocol_from=["127.0.0.1"])
    async with serving_tcp(server) as connect:
        peer = await connect()
        if octets:
            await peer.send(octets)
        with contextlib.suppress(trio.BrokenResourceError):  # the server closes what it has not read
            await peer.stream.send_eof()
            while await peer.stream.receive_some():
                pass
    assert len(records(caplog)) == (words is not None)
    assert (words or "") in "".join(records(caplog))


async def test_a_proxy_header_that_does_not_come_leaves_one_record(autojump_clock, caplog):
    server = make_server(proxy_protocol_from=["127.0.0.1"], proxy_timeout=3)
    async with serving_tcp(server) as connect:
        peer = await connect()
        await peer.closed()
    [record] = records(caplog)
    assert record.endswith("not within proxy_timeout")


async def test_a_slot_that_the_named_client_does_not_get_leaves_one_record(caplog):
    server = make_server(proxy_protocol_from=["127.0.0.1"], max_connections_per_host=1)
    header = b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 25\r\n"
    async with serving_tcp(server) as connect:
        first = await connect()
        await first.send(header)
        await first.expect("220…")
        second = await connect()
        await second.send(header)
        await second.expect("421 4.7.0…")
    assert records(caplog) == ["refused a connection from 192.0.2.7: max_connections_per_host are open"]


async def test_a_flood_is_counted_and_not_logged_one_by_one(autojump_clock, caplog):
    finish = trio.Event()

    async def on_hello(session, name):
        await finish.wait()

    server = make_server(Recorder(on_hello=on_hello), max_connections=1)

    async def refuse() -> None:
        near, far = memory_stream_pair()
        async with near:
            nursery.start_soon(server.serve_stream, far)
            assert (await near.receive_some()).startswith(b"421")

    async with trio.open_nursery() as nursery:
        near, far = memory_stream_pair()
        nursery.start_soon(server.serve_stream, far)
        await near.receive_some()
        await near.send_all(b"EHLO x\r\n")  # a connection whose hook runs makes no room
        for _ in range(MAX_RECORDS + 7):
            await refuse()
        assert len(records(caplog)) == MAX_RECORDS
        await trio.sleep(PERIOD)
        await refuse()
        finish.set()
        await near.aclose()
    assert len(records(caplog)) == MAX_RECORDS + 2
    assert records(caplog)[-2] == "refused 7 more connections than were logged: max_connections are open"
    assert server.statistics().refused_connections == MAX_RECORDS + 8


# ---- descriptors


@contextlib.contextmanager
def few_descriptors(number: int):
    """So many descriptors are left to this process."""
    lowest = os.dup(0)
    os.close(lowest)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + number, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_connections_are_refused_before_an_upload_cannot_open_its_file(tmp_path, caplog):
    opened = []

    class Files(Recorder):
        async def on_data(self, session, envelope, body):
            content = await body.read()
            opened.append(open(tmp_path / session.id, "wb"))  # noqa: SIM115, ASYNC230 - stays open on purpose
            opened[-1].write(content)

    async with serving_tcp(make_server(Files())) as connect:
        with few_descriptors(SPARE + 14):
            taken: list[Peer] = []
            refused: list[str] = []
            for _ in range(8):  # each takes two, since its client is here too, and may want one more
                peer = await connect()
                line = await peer.line()
                if line.startswith("220 "):
                    taken.append(peer)
                else:
                    refused.append(line)
            assert taken
            assert set(refused) == {"421 4.3.2 too many connections, try again later"}
            assert len(refused) > 1
            for peer in taken:
                await peer.ask("EHLO client.test")
                await peer.speak(DATA + "    C: x\n    C: .\n    S: 250 2.0.0 OK: queued")
    for file in opened:
        file.close()
    assert len(opened) == len(taken)
    [record] = records(caplog)
    assert "short of file descriptors" in record


class Short(trio.abc.Listener[trio.abc.Stream]):
    """A listener in a process that has no descriptor left."""

    async def accept(self) -> trio.abc.Stream:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


async def test_a_shortage_while_accepting_is_told_once_a_minute_and_not_at_each_try(autojump_clock, caplog):
    with trio.move_on_after(61):
        await make_server().serve_listeners([Short()])
    assert [record[:13] for record in records(caplog)] == ["accept failed"] * 2


async def test_a_stream_without_a_descriptor_is_never_refused_for_want_of_one(caplog):
    with few_descriptors(1):
        near, far = memory_stream_pair()
        async with trio.open_nursery() as nursery, near:
            nursery.start_soon(make_server().serve_stream, far)
            assert (await near.receive_some()).startswith(b"220 ")
    assert not records(caplog)


async def test_no_more_descriptors_are_kept_than_messages_are_likely_to_come_at_once():
    near, far = socket.socketpair()
    with far:
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(near))
        needed = near.fileno() + 1 + MAX_KEPT + SPARE
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        try:
            for limit, is_short in ((needed, False), (needed - 1, True)):
                resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
                assert are_short(stream, MAX_KEPT) is is_short
                assert are_short(stream, 10 * MAX_KEPT) is is_short
            assert not are_short(stream, MAX_KEPT - 1)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        await stream.aclose()


def test_the_command_line_raises_its_own_limit():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
        make_room_for(None)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (200, hard)
        make_room_for(10)  # enough is there
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (200, hard)
        make_room_for(1000)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (2128, hard)
        make_room_for(hard)  # no more than the system allows
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# ---- one form of an address


@pytest.mark.parametrize(
    ("host", "plain"),
    [
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::FFFF:c000:201", "192.0.2.1"),
        ("0:0:0:0:0:ffff:192.0.2.1", "192.0.2.1"),
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("no:address", "no:address"),
    ],
)
def test_an_ipv4_address_is_one_however_it_is_written(host, plain):
    assert plain_host(host) == plain


async def test_the_sessions_host_is_the_ipv4_address_that_the_proxy_means():
    recorder = Recorder()
    server = make_server(recorder, proxy_protocol_from=["127.0.0.1"])
    async with serving_tcp(server) as connect:
        peer = await connect()
        await peer.send(b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:192.0.2.2 4711 25\r\n")
        await peer.hello()
        assert recorder.sessions[0].host == "192.0.2.1"
        assert recorder.sessions[0].local == ("192.0.2.2", 25)


async def test_the_sessions_host_is_the_ipv4_address_that_a_relay_means():
    recorder = Recorder()
    server = make_server(recorder, xclient_from=["127.0.0.1"])
    async with serving_tcp(server) as connect:
        peer = await connect()
        await peer.hello()
        await peer.ask("XCLIENT ADDR=IPV6:::ffff:192.0.2.1")
        assert recorder.sessions[0].host == "192.0.2.1"


async def test_the_sessions_host_on_a_socket_for_both_families_is_an_ipv4_address():
    recorder = Recorder()
    both = trio.socket.socket(trio.socket.AF_INET6)
    try:
        both.setsockopt(trio.socket.IPPROTO_IPV6, trio.socket.IPV6_V6ONLY, 0)
        await both.bind(("::", 0))
    except OSError:
        both.close()
        pytest.skip("there is no IPv6 here")
    both.listen()
    async with trio.open_nursery() as nursery:
        await nursery.start(make_server(recorder).serve_listeners, [trio.SocketListener(both)])
        async with await trio.open_tcp_stream("127.0.0.1", both.getsockname()[1]) as stream:
            await stream.receive_some()
            assert recorder.sessions[0].host == "127.0.0.1"
            assert recorder.sessions[0].local[0] == "127.0.0.1"
        nursery.cancel_scope.cancel()
