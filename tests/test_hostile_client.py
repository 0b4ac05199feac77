"""Hostile input for a client as far as it is bytes alone: sent to the core, whole and in pieces.

What needs streams, TLS and time is tested with the modules it is about. docs/hostile-input.md lists the rules and their
tests.
"""

from __future__ import annotations

import pytest

from trio_smtp import RemoteProtocolError
from trio_smtp._protocol.client.commands import NOOP, STARTTLS, Verb, hello
from trio_smtp._protocol.client.protocol import ClientProtocol, State
from trio_smtp._protocol.extensions import Extensions
from trio_smtp._protocol.replies import Reply

GREETING = b"220 mx.test\r\n"
OFFER = b"250-mx.test\r\n250-PIPELINING\r\n250 STARTTLS\r\n"


def replies(protocol: ClientProtocol, data: bytes, size: int = 0) -> list[Reply]:
    """What comes of a server's octets, in pieces of `size`, 0 for whole."""
    step = size or len(data)
    found = []
    for at in range(0, len(data), step):
        protocol.receive_data(data[at : at + step])
        while (event := protocol.next_event()) is not None:
            found.append(event[1])
    return found


def ready() -> ClientProtocol:
    protocol = ClientProtocol()
    replies(protocol, GREETING)
    protocol.send(hello(Verb.EHLO, "x"))
    replies(protocol, OFFER)
    return protocol


@pytest.mark.parametrize("injected", [b"250-evil\r\n250 AUTH PLAIN\r\n", b"250 evil\r\n", b"2", b"\r\n", b"\x16\x03"])
def test_octets_behind_the_answer_to_starttls_are_never_a_reply(injected: bytes) -> None:
    wire = b"220 go ahead\r\n" + injected
    for size in range(len(wire)):
        protocol = ready()
        protocol.send(STARTTLS)
        got = []
        try:
            got = replies(protocol, wire, size)
        except RemoteProtocolError:
            assert protocol.state is State.CLOSED
        assert len(got) <= 1
        assert not protocol.is_silent or protocol.state is State.CLOSED  # what the opening of a connection looks at


def test_only_the_latest_offer_counts() -> None:
    first = Extensions.from_lines(("mx.test", "SIZE 1000", "AUTH PLAIN", "STARTTLS"))
    second = Extensions.from_lines(("mx.test", "8BITMIME"))
    assert "AUTH" in first
    assert set(second) == {"8BITMIME"}
    assert (second.auth, second.size) == ((), None)


@pytest.mark.parametrize(
    "flood",
    [b"250-x\r\n" * 100_000, b"250 " + b"x" * 1_000_000, b"250-" + b"x" * 1_000_000 + b"\r\n", b"x" * 1_000_000],
    ids=["lines", "line", "line with an end", "garbage"],
)
@pytest.mark.parametrize("size", [1, 4096, 0])
def test_a_reply_is_bounded(flood: bytes, size: int) -> None:
    protocol = ready()
    protocol.send(NOOP)
    if size == 1:
        flood = flood[:70_000]
    with pytest.raises(RemoteProtocolError):
        replies(protocol, flood, size)
    assert protocol.state is State.CLOSED


@pytest.mark.parametrize(
    "wire",
    [
        b"250-a\r\n251 b\r\n",
        b"250-a\r\n550 b\r\n",
        b"2500 x\r\n",
        b"25 x\r\n",
        b"abc\r\n",
        b"250_x\r\n",
        b"050 x\r\n",
        b"150 x\r\n",
        b"650 x\r\n",
        b" 250 x\r\n",
        b"\xff\xfe\r\n",
        b"354 go on\r\n",  # no answer to EHLO
    ],
)
def test_what_is_no_reply_ends_the_connection(wire: bytes) -> None:
    for size in range(len(wire)):
        protocol = ClientProtocol()
        replies(protocol, GREETING)
        protocol.send(hello(Verb.EHLO, "x"))
        with pytest.raises(RemoteProtocolError):
            replies(protocol, wire, size)
        assert protocol.state is State.CLOSED


def test_a_reply_to_nothing_is_noticed_at_once() -> None:
    protocol = ready()
    protocol.send(NOOP)
    with pytest.raises(RemoteProtocolError):
        replies(protocol, b"250 one\r\n250 two\r\n")
    protocol = ready()
    protocol.receive_data(b"250 ea")
    assert not protocol.is_silent
    assert not protocol.is_reusable
    with pytest.raises(RemoteProtocolError):
        protocol.send(NOOP)


@pytest.mark.parametrize(
    ("text", "enhanced", "left"),
    [
        (b"5.1.1 text", None, "5.1.1 text"),
        (b"2.1 text", None, "2.1 text"),
        (b"2.1.1.1 text", None, "2.1.1.1 text"),
        (b"2.1000.1 text", None, "2.1000.1 text"),
        (b"2.01.1 text", None, "2.01.1 text"),
        (b"2.1.1text", None, "2.1.1text"),
        (b"2.1.1", "2.1.1", ""),
        (b"2.1.1 text", "2.1.1", "text"),
        (b"", None, ""),
    ],
)
def test_an_enhanced_code_that_is_none_is_text(text: bytes, enhanced: str | None, left: str) -> None:
    wire = b"250 " + text + b"\r\n"
    for size in range(len(wire)):
        protocol = ready()
        protocol.send(NOOP)
        [reply] = replies(protocol, wire, size)
        assert (reply.code, reply.enhanced, reply.text) == (250, enhanced, left)


def test_nothing_is_left_of_the_reply_before() -> None:
    protocol = ready()
    protocol.send(NOOP)
    assert replies(protocol, b"250 2.1.5 fine\r\n")[0].enhanced == "2.1.5"
    protocol.send(NOOP)
    assert replies(protocol, b"250\r\n")[0].enhanced is None


@pytest.mark.parametrize("wire", [b"250\r\n", b"250-\r\n250 \r\n", b"250-a\r\n250\r\n", b"250 a\n"])
def test_odd_but_legal_replies_are_taken_however_they_are_cut(wire: bytes) -> None:
    for size in range(len(wire)):
        protocol = ready()
        protocol.send(NOOP)
        assert [reply.code for reply in replies(protocol, wire, size)] == [250]
