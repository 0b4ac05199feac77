"""The PROXY protocol, versions 1 and 2: the header, the server behind a proxy, and who may send one."""

from __future__ import annotations

import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
import trustme
from cli_process import tool
from hypothesis import given
from hypothesis import strategies as st

import trio_smtp
from trio_smtp import ProxyHeader, RemoteProtocolError, Reply, Server, ServerConfig, Session
from trio_smtp._protocol.proxy import MAX_LENGTH, MAX_LINE, SIGNATURE, ProxyReader

V1 = b"PROXY TCP4 192.0.2.7 198.51.100.1 40123 25\r\n"
V1_HEADER = ProxyHeader(("192.0.2.7", 40123), ("198.51.100.1", 25), 1)
V2_HEADER = ProxyHeader(
    ("2001:db8::7", 40123), ("2001:db8::1", 25), 2, ((2, b"mx.example.com"), (0x20, b"\x01\0\0\0\0"))
)
HEADERS = [
    V1_HEADER,
    ProxyHeader(("2001:db8::7", 1), ("::1", 65535), 1),
    ProxyHeader(version=1),
    ProxyHeader(("192.0.2.7", 40123), ("198.51.100.1", 25)),
    V2_HEADER,
    ProxyHeader(),
]


def read(data: bytes, size: int | None = None) -> tuple[ProxyHeader | None, bytes]:
    """Give `data` to a reader, whole or in pieces of `size`; the header and what came after it."""
    reader = ProxyReader()
    step = size or len(data) or 1
    for at in range(0, len(data), step):
        header = reader.receive_data(data[at : at + step])
        if header is not None:
            return header, reader.rest + data[at + step :]
    return None, b""


def binary(command: int, kind: int, rest: bytes, length: int | None = None) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, kind, len(rest) if length is None else length) + rest


# ---- the header


@pytest.mark.parametrize("header", HEADERS, ids=str)
@pytest.mark.parametrize("follows", [b"", b"EHLO there\r\n", b"\x16\x03\x01"])
def test_what_is_written_is_read_whole_and_in_pieces(header: ProxyHeader, follows: bytes) -> None:
    wire = header.to_bytes() + follows
    for size in (None, 1, 2, 3, 7, 16):
        assert read(wire, size) == (header, follows)


@pytest.mark.parametrize("header", HEADERS, ids=str)
def test_who_reads_no_more_than_wanted_never_reads_past_the_header(header: ProxyHeader) -> None:
    wanted_keeps_count(header.to_bytes())


def wanted_keeps_count(wire: bytes) -> None:
    """Read as the server does: exactly the header, in a bounded number of reads."""
    reader = ProxyReader()
    at = 0
    for _ in range(50):
        step = reader.wanted
        assert step > 0
        if reader.receive_data(wire[at : at + step]) is not None:
            assert at + step == len(wire)
            assert (reader.wanted, reader.rest) == (0, b"")
            return
        at += step
    pytest.fail("too many reads")


@given(
    st.tuples(st.ip_addresses(v=4), st.integers(0, 65535), st.ip_addresses(v=4), st.integers(0, 65535))
    | st.tuples(st.ip_addresses(v=6), st.integers(0, 65535), st.ip_addresses(v=6), st.integers(0, 65535)),
    st.integers(1, 2),
)
def test_any_addresses_survive(ends: tuple[object, int, object, int], version: int) -> None:
    source, sport, destination, dport = ends
    header = ProxyHeader((str(source), sport), (str(destination), dport), version)
    assert read(header.to_bytes()) == (header, b"")
    wanted_keeps_count(header.to_bytes())


@given(
    st.binary(max_size=300)
    | st.binary(max_size=60).map(SIGNATURE.__add__)
    | st.binary(max_size=110).map(b"PROXY ".__add__)
)
def test_any_octets_are_a_header_or_an_error_however_they_are_cut(data: bytes) -> None:
    outcomes: list[tuple[ProxyHeader | None, bytes] | None] = []
    for size in (None, 1):
        try:
            outcomes.append(read(data, size))
        except RemoteProtocolError:
            outcomes.append(None)
    assert outcomes[0] == outcomes[1]


def test_a_line_of_107_octets_is_the_longest() -> None:
    longest = b"PROXY UNKNOWN " + b"x" * (MAX_LINE - 16) + b"\r\n"
    assert len(longest) == 107
    assert read(longest + b"more") == (ProxyHeader(version=1), b"more")
    with pytest.raises(RemoteProtocolError):
        read(longest[:-2] + b"x\r\n")
    with pytest.raises(RemoteProtocolError):
        read(longest[:-2] + b"xxxxxx", 1)


def test_version_2_length_is_capped() -> None:
    assert read(binary(0x21, 0x00, b"\x04\x0f\xfd" + bytes(MAX_LENGTH - 3)))[0] is not None
    with pytest.raises(RemoteProtocolError):
        read(binary(0x21, 0x00, b"", MAX_LENGTH + 1))
    with pytest.raises(RemoteProtocolError):
        read(binary(0x21, 0x11, b"", 65535))


@pytest.mark.parametrize(
    "wire",
    [
        b"PROXY UNKNOWN\r\n",
        b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n",
        binary(0x20, 0x00, b""),
        binary(0x20, 0x11, bytes(12)),
        binary(0x20, 0x11, b"ab"),  # LOCAL: nothing behind it counts
        binary(0x21, 0x00, b""),
        binary(0x21, 0x12, bytes(12)),  # UDP
        binary(0x21, 0x31, bytes(216)),  # UNIX
    ],
)
def test_unknown_and_local_name_nobody(wire: bytes) -> None:
    header, _ = read(wire)
    assert header is not None
    assert header.source is None
    assert header.destination is None


@pytest.mark.parametrize(
    "wire",
    [
        b"EHLO there\r\n",
        b"proxy TCP4 192.0.2.7 198.51.100.1 40123 25\r\n",
        V1.replace(b"\r\n", b"\n"),
        V1.replace(b"\r\n", b" \r\n"),
        V1.replace(b" 25", b"  25"),
        V1.replace(b" 25", b" 65536"),
        V1.replace(b" 25", b" 025"),
        V1.replace(b" 25", b" -1"),
        V1.replace(b" 25", b""),
        V1.replace(b"192.0.2.7", b"192.0.2.256"),
        V1.replace(b"192.0.2.7", b"192.0.2.07"),
        V1.replace(b"192.0.2.7", b"::1"),
        V1.replace(b"TCP4", b"TCP6"),
        V1.replace(b"TCP4", b"UDP4"),
        b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
        b"PROXY\r\n",
        b"PROXY \r\n" + b"x" * 20,
        b"PROXY UNKNOWNx\r\n",
        b"PROXY UNKNOWN \x00\r\n",
        binary(0x11, 0x11, bytes(12)),  # version 1 in binary
        binary(0x22, 0x11, bytes(12)),  # no such command
        binary(0x21, 0x13, bytes(12)),  # no such transport
        binary(0x21, 0x41, bytes(12)),  # no such family
        binary(0x21, 0x11, bytes(11)),
        binary(0x21, 0x21, bytes(35)),
        binary(0x21, 0x11, bytes(12) + b"\x02\x00"),
        binary(0x21, 0x11, bytes(12) + b"\x02\x00\x05abcd"),
        SIGNATURE[:-1] + b"\r" + bytes(20),
    ],
)
def test_anything_else_is_no_header(wire: bytes) -> None:
    for size in (None, 1):
        with pytest.raises(RemoteProtocolError):
            read(wire, size)


def test_a_header_knows_the_name_that_was_asked_for() -> None:
    assert V2_HEADER.authority == "mx.example.com"
    assert V1_HEADER.authority is None


@pytest.mark.parametrize(
    "arguments",
    [
        {"version": 3},
        {"source": ("192.0.2.7", 1)},
        {"source": ("192.0.2.7", 1), "destination": ("::1", 1)},
        {"source": ("192.0.2.7", 1), "destination": ("192.0.2.8", 65536)},
        {"source": ("fe80::1%lo", 1), "destination": ("::1", 1)},
        {"source": ("mail.example", 1), "destination": ("192.0.2.8", 1)},
        {"version": 1, "tlvs": ((2, b"x"),)},
        {"source": ("192.0.2.7", "1"), "destination": ("192.0.2.8", 1)},
        {"source": ("192.0.2.7", 1.5), "destination": ("192.0.2.8", 1)},
        {"source": (16909060, 1), "destination": ("192.0.2.8", 1)},
        {"source": ("192.0.2.7", -1), "destination": ("192.0.2.8", 1)},
        {"tlvs": ((256, b"x"),)},
        {"tlvs": ((-1, b"x"),)},
        {"tlvs": ((2, "x"),)},
        {"tlvs": ((2, bytes(70_000)),)},
    ],
)
def test_a_header_that_could_not_be_read_is_not_made(arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        ProxyHeader(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("ends", [{}, {"source": ("::1", 1), "destination": ("::2", 2)}])
def test_the_longest_header_and_one_that_is_too_long(ends: dict[str, object]) -> None:
    """The caller hears of it when it is made, and not when the connection is there."""
    room = MAX_LENGTH - 3 - (36 if ends else 0)
    header = ProxyHeader(tlvs=((4, bytes(room)),), **ends)  # type: ignore[arg-type]
    assert len(header.to_bytes()) == 16 + MAX_LENGTH
    assert read(header.to_bytes()) == (header if ends else ProxyHeader(), b"")
    with pytest.raises(ValueError, match="4096"):
        ProxyHeader(tlvs=((4, bytes(room + 1)),), **ends)  # type: ignore[arg-type]


# ---- the server behind a proxy


class Witness(trio_smtp.Discard):
    """Keeps the sessions that reached it."""

    def __init__(self) -> None:
        self.sessions: list[Session] = []

    async def on_connect(self, session: Session) -> Reply | None:
        self.sessions.append(session)
        return None


BEHIND = ServerConfig(hostname="mx.test", proxy_protocol_from=["127.0.0.0/8"])


@asynccontextmanager
async def serving(
    config: ServerConfig = BEHIND, ssl_context: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[Server, Witness, trio.abc.Listener[trio.SocketStream]]]:
    witness = Witness()
    server = Server(witness, config=config, ssl_context=ssl_context, implicit_tls=ssl_context is not None)
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(server.serve, 0, host="127.0.0.1"))
        yield server, witness, listeners[0]
        nursery.cancel_scope.cancel()


async def connect(listener: trio.abc.Listener[trio.SocketStream]) -> trio.SocketStream:
    return await trio.testing.open_stream_to_socket_listener(listener)  # type: ignore[arg-type]


async def read_until(stream: trio.abc.ReceiveStream, end: bytes = b"\r\n") -> bytes:
    data = b""
    while not data.endswith(end) and (more := await stream.receive_some()):
        data += more
    return data


async def read_all(stream: trio.abc.ReceiveStream) -> bytes:
    return b"".join([chunk async for chunk in stream])


@pytest.mark.parametrize("header", HEADERS, ids=str)
async def test_the_session_is_the_clients_not_the_proxys(header: ProxyHeader) -> None:
    async with serving() as (_, witness, listener):
        stream = await connect(listener)
        await stream.send_all(header.to_bytes() + b"EHLO there\r\nQUIT\r\n")  # what follows is neither lost nor early
        answer = await read_all(stream)
        assert answer.startswith(b"220 mx.test")
        assert answer.endswith(b"\r\n221 2.0.0 mx.test closing connection\r\n")
        [session] = witness.sessions
        assert session.proxy == header
        if header.source is None:
            assert session.peer == stream.socket.getsockname()
            assert session.local == stream.socket.getpeername()
        else:
            assert session.peer == header.source
            assert session.local == header.destination
        await stream.aclose()


async def test_a_header_in_single_octets() -> None:
    async with serving() as (_, witness, listener):
        stream = await connect(listener)
        for octet in V2_HEADER.to_bytes() + b"QUIT\r\n":
            await stream.send_all(bytes([octet]))
            await trio.testing.wait_all_tasks_blocked()
        assert (await read_all(stream)).endswith(b"221 2.0.0 mx.test closing connection\r\n")
        assert witness.sessions[0].peer == V2_HEADER.source
        await stream.aclose()


@pytest.mark.parametrize("header", [V1_HEADER, V2_HEADER], ids=str)
async def test_implicit_tls_comes_after_the_header(header: ProxyHeader) -> None:
    authority = trustme.CA()
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("mx.test").configure_cert(server_context)
    client_context = ssl.create_default_context()
    authority.configure_trust(client_context)
    async with serving(ssl_context=server_context) as (_, witness, listener):
        bare = await connect(listener)
        # The header and the first octets of the handshake arrive in one piece.
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = client_context.wrap_bio(incoming, outgoing, server_hostname="mx.test")
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        await bare.send_all(header.to_bytes() + outgoing.read())
        while True:
            incoming.write(await bare.receive_some())
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                pass
        await bare.send_all(outgoing.read())
        greeting = b""
        while not greeting.endswith(b"\r\n"):
            incoming.write(await bare.receive_some())
            try:
                greeting += tls.read()
            except ssl.SSLWantReadError:
                pass
        assert greeting.startswith(b"220 mx.test")
        assert witness.sessions[0].peer == header.source
        assert witness.sessions[0].tls is not None
        await bare.aclose()


@pytest.mark.parametrize(
    "wire", [b"EHLO there\r\n", V1[:-2] + b"\n", b"PROXY " + b"x" * 200, binary(0x21, 0x11, b"", 65535), V1[:20], b""]
)
async def test_a_bad_header_or_none_ends_the_connection_without_a_word(wire: bytes) -> None:
    async with serving() as (server, witness, listener):
        stream = await connect(listener)
        await stream.send_all(wire)
        await stream.send_eof()
        try:
            answer = await read_all(stream)
        except trio.BrokenResourceError:  # reset, since not all was read
            answer = b""
        assert answer == b""
        assert witness.sessions == []
        assert server.statistics().refused_connections == 1
        assert server.statistics().total_connections == 0
        await stream.aclose()


async def test_the_header_has_a_time_limit_of_its_own(autojump_clock: trio.testing.MockClock) -> None:
    async with serving() as (_, witness, listener):
        stream = await connect(listener)
        await stream.send_all(V1[:10])
        began = trio.current_time()
        assert await read_all(stream) == b""
        assert 5 <= trio.current_time() - began < 10
        assert witness.sessions == []
        await stream.aclose()


async def test_a_cancellation_that_comes_with_the_time_limit_closes_the_stream(
    autojump_clock: trio.testing.MockClock,
) -> None:
    server = Server(trio_smtp.Discard(), config=BEHIND)
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    near = await connect(listener)
    far = await listener.accept()
    with trio.move_on_after(5) as scope:
        await server.serve_stream(far)
    assert scope.cancelled_caught
    assert far.socket.fileno() == -1
    await near.aclose()
    await listener.aclose()


async def test_shutdown_does_not_wait_for_a_header() -> None:
    async with serving(ServerConfig(proxy_protocol_from=["127.0.0.1"], proxy_timeout=None)) as (
        server,
        witness,
        listener,
    ):
        stream = await connect(listener)
        await trio.testing.wait_all_tasks_blocked()
        await server.shutdown()
        assert await read_all(stream) == b""
        assert witness.sessions == []
        await stream.aclose()


async def test_shutdown_that_comes_with_the_end_of_a_header_is_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No session was there yet for shutdown() to find, and none may begin after it."""

    async def read(stream: trio.abc.Stream) -> ProxyHeader:
        server._context.close()  # shutdown(), whose cancellation meets a task that has its header already
        return ProxyHeader(("192.0.2.7", 4711), ("192.0.2.1", 25))

    server = Server(trio_smtp.Discard(), config=ServerConfig(proxy_protocol_from=["127.0.0.1"]))
    monkeypatch.setattr("trio_smtp._server.server.read_proxy_header", read)
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        near = await connect(listener)
        far = await listener.accept()
        nursery.start_soon(server.serve_stream, far)
        with trio.fail_after(5):
            assert (await near.receive_some()).startswith(b"421 4.3.2")
        await near.aclose()
        await listener.aclose()


@pytest.mark.parametrize("wire", [V1, V2_HEADER.to_bytes()])
async def test_nobody_else_can_say_who_they_are(wire: bytes) -> None:
    """From a peer that is not listed the header is a foreign command."""
    async with serving(ServerConfig(hostname="mx.test", proxy_protocol_from=["192.0.2.0/24"])) as (
        _,
        witness,
        listener,
    ):
        stream = await connect(listener)
        assert (await read_until(stream)).startswith(b"220 ")
        await stream.send_all(wire + b"EHLO there\r\n")
        codes = [line[:3] for line in (await read_all(stream)).splitlines()]
        assert set(codes) <= {b"554", b"500", b"501"}
        assert witness.sessions[0].peer == stream.socket.getsockname()
        assert witness.sessions[0].proxy is None
        await stream.aclose()


async def test_a_client_takes_a_slot_of_its_own_address_not_of_the_proxys() -> None:
    config = ServerConfig(hostname="mx.test", proxy_protocol_from=["127.0.0.1"], max_connections_per_host=1)
    async with serving(config) as (server, _, listener):
        streams = []
        for octet in (1, 2, 3):
            stream = await connect(listener)
            await stream.send_all(b"PROXY TCP4 192.0.2.%d 198.51.100.1 1 25\r\n" % octet)
            assert (await read_until(stream)).startswith(b"220 ")
            streams.append(stream)
        again = await connect(listener)
        await again.send_all(b"PROXY TCP4 192.0.2.1 198.51.100.1 2 25\r\n")
        assert await read_all(again) == b"421 4.7.0 too many connections from your host\r\n"
        assert server.statistics().connections == 3
        streams.append(again)
        await streams[0].send_all(b"QUIT\r\n")  # the slot is given back
        await read_all(streams[0])
        await trio.testing.wait_all_tasks_blocked()
        again = await connect(listener)
        await again.send_all(b"PROXY TCP4 192.0.2.1 198.51.100.1 3 25\r\n")
        assert (await read_until(again)).startswith(b"220 ")
        for stream in (*streams, again):
            await stream.aclose()


async def test_who_sends_no_header_takes_a_slot_all_the_same() -> None:
    async with serving(ServerConfig(proxy_protocol_from=["127.0.0.1"], max_connections=1)) as (_, _witness, listener):
        silent = await connect(listener)
        await trio.testing.wait_all_tasks_blocked()
        late = await connect(listener)
        assert await read_all(late) == b"421 4.3.2 too many connections, try again later\r\n"
        await silent.send_all(b"nonsense\r\n")
        assert await read_all(silent) == b""
        await trio.testing.wait_all_tasks_blocked()
        again = await connect(listener)
        await again.send_all(V1)
        assert (await read_until(again)).startswith(b"220 ")
        for stream in (silent, late, again):
            await stream.aclose()


# ---- the client


@pytest.mark.parametrize("header", HEADERS, ids=str)
async def test_the_client_says_who_it_speaks_for(header: ProxyHeader) -> None:
    async with serving() as (_, witness, listener):
        port = listener.socket.getsockname()[1]  # type: ignore[attr-defined]
        async with trio_smtp.open_client("127.0.0.1", port, proxy_header=header) as client:
            await client.noop()
        assert witness.sessions[0].proxy == header


async def test_the_pool_says_it_on_every_connection() -> None:
    async with serving() as (_, witness, listener):
        port = listener.socket.getsockname()[1]  # type: ignore[attr-defined]
        async with trio_smtp.open_pool("127.0.0.1", port, proxy_header=V2_HEADER) as pool:
            await pool.send("a@a.test", ["b@b.test"], b"hi\r\n")
        assert witness.sessions[0].peer == V2_HEADER.source


async def test_the_clients_handshake_comes_after_the_header() -> None:
    authority = trustme.CA()
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server_context)
    client_context = ssl.create_default_context()
    authority.configure_trust(client_context)
    async with serving(ssl_context=server_context) as (_, witness, listener):
        port = listener.socket.getsockname()[1]  # type: ignore[attr-defined]
        async with trio_smtp.open_client(
            "127.0.0.1", port, tls="implicit", ssl_context=client_context, proxy_header=V1_HEADER
        ) as client:
            assert client.tls is not None
        assert witness.sessions[0].peer == V1_HEADER.source


async def test_a_proxy_header_is_a_proxy_header() -> None:
    with pytest.raises(TypeError, match="proxy_header"):
        async with trio_smtp.open_client("127.0.0.1", 1, proxy_header=V1):  # type: ignore[arg-type]
            pass


# ---- a client that others wrote


@pytest.mark.parametrize(
    "arguments",
    [
        "--proxy-version 1 --proxy-family TCP4 --proxy-source 192.0.2.7 --proxy-dest 192.0.2.8",
        "--proxy-version 2 --proxy-family AF_INET --proxy-source 192.0.2.7 --proxy-dest 192.0.2.8",
    ],
)
async def test_swaks_speaks_for_another(arguments: str) -> None:
    swaks = tool("swaks")
    if arguments.startswith("--proxy-version 2"):
        arguments += " --proxy-protocol STREAM --proxy-command PROXY"
    arguments += " --proxy-source-port 1234 --proxy-dest-port 25 --from a@a.test --to b@b.test --helo client.test"
    async with serving() as (_, witness, listener):
        port = listener.socket.getsockname()[1]  # type: ignore[attr-defined]
        command = [swaks, "--server", f"127.0.0.1:{port}", "--timeout", "20", *arguments.split()]
        done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
        assert done.returncode == 0, done.stdout
        assert witness.sessions[0].peer == ("192.0.2.7", 1234)
        assert witness.sessions[0].local == ("192.0.2.8", 25)
