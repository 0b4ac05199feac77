from __future__ import annotations

import itertools
from typing import NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trio_smtp._protocol import dotstuff
from trio_smtp._protocol.dotstuff import END_OF_DATA, DotDecoder, DotEncoder, encode_message
from trio_smtp._protocol.errors import LocalProtocolError
from trio_smtp._protocol.newlines import NewlinePolicy, bare_in

POLICIES: tuple[NewlinePolicy, ...] = ("reject", "normalize")
bits = [b"\r", b"\n", b".", b"\0", b"a", b"\r\n", b"\r\n.", b"\n.", END_OF_DATA]
texts = st.lists(st.sampled_from(bits), max_size=20).map(b"".join)
octets = st.lists(st.sampled_from([b"\r", b"\n", b".", b"\0", b"a"]), max_size=20).map(b"".join)
cuts = st.lists(st.integers(0, 60), max_size=6)


def pieces(data: bytes, at: list[int]) -> list[bytes]:
    edges = [0, *sorted(i for i in at if i <= len(data)), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


def singles(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def chunkings(data: bytes) -> list[list[bytes]]:
    """Every way to cut the data into non-empty chunks."""
    inner = range(1, len(data))
    return [pieces(data, list(at)) for n in range(len(data)) for at in itertools.combinations(inner, n)] or [[]]


class Decoded(NamedTuple):
    done: bool
    bare: bool
    body: bytes | None  # None: it is refused, or not complete, and does not matter
    rest: bytes


def reference(wire: bytes, policy: NewlinePolicy) -> Decoded:
    """What the octets after DATA mean, one octet after the other."""
    seen = b"\r\n"  # that of the DATA command
    while not seen.endswith(END_OF_DATA):
        if len(seen) - 2 == len(wire):
            return Decoded(False, False, None, b"")
        seen += wire[len(seen) - 2 : len(seen) - 1]
    rest = wire[len(seen) - 2 :]
    text = seen[2:-3]
    body, bare, i = b"", False, 0
    while i < len(text):
        octet, following = text[i : i + 1], text[i + 1 : i + 2]
        after_crlf = (b"\r\n" + text[:i]).endswith(b"\r\n")
        if octet == b"\r" and following == b"\n":
            body += b"\r\n"
            i += 1
        elif octet in (b"\r", b"\n"):
            body += b"\r\n"
            bare = True
        elif octet == b"." and after_crlf and following not in (b"\r", b"\n"):
            pass
        else:
            body += octet
        i += 1
    return Decoded(True, bare, None if bare and policy == "reject" else body, rest)


def decode(chunks: list[bytes], policy: NewlinePolicy) -> Decoded:
    decoder = DotDecoder(policy)
    body = b""
    rest = b""
    for chunk in chunks:
        if decoder.done:
            rest += chunk
            continue
        was_bare = decoder.bare
        out = decoder.feed(chunk)
        assert type(out) is bytes
        assert len(decoder._held) <= 2
        body += out
        if policy == "normalize" or not decoder.bare:
            assert decoder.received == len(body)
        elif was_bare:
            assert out == b""
    if not decoder.done:
        assert decoder.rest == b""
        return Decoded(False, False, None, b"")
    refused = policy == "reject" and decoder.bare
    return Decoded(True, decoder.bare, None if refused else body, decoder.rest + rest)


def encode(chunks: list[bytes], policy: NewlinePolicy = "normalize") -> bytes:
    encoder = DotEncoder(policy)
    return b"".join(map(encoder.encode, chunks)) + encoder.finish()


def normal(content: bytes) -> bytes:
    """What a receiver gets of the content: CR LF line ends, the last line ended."""
    text = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")
    return text + b"\r\n" if text and not text.endswith(b"\r\n") else text


def stuffed(content: bytes) -> bytes:
    lines = normal(content).split(b"\r\n")
    return b"\r\n".join(b"." + line if line.startswith(b".") else line for line in lines) + b".\r\n"


# -- decoder: against the reference


def test_the_reference_itself() -> None:
    assert reference(b".\r\nQUIT", "reject") == (True, False, b"", b"QUIT")
    assert reference(b"..x\r\n.y\r\n.\r\n", "reject") == (True, False, b".x\r\ny\r\n", b"")
    assert reference(b"a\n..\n.\r\nb\r\n.\r\n", "normalize") == (True, True, b"a\r\n..\r\n.\r\nb\r\n", b"")
    assert reference(b"a\n.\r\n", "normalize").done is False


@settings(deadline=None, max_examples=1000)
@given(st.one_of(texts, octets), st.booleans(), cuts)
@example(b"a\r\n..\r\n", True, [1, 2, 3, 4, 5, 6])
@example(b"\r\n.\r\r\n.\n", True, [4])
@example(b".\n", True, [1])
@example(b"..\r\n.", True, [])
def test_decoder_agrees_with_the_reference(text: bytes, ended: bool, at: list[int]) -> None:
    wire = text + END_OF_DATA + b"NOOP\r\n" if ended else text
    for policy in POLICIES:
        expected = reference(wire, policy)
        assert decode([wire], policy) == expected
        assert decode(pieces(wire, at), policy) == expected
        assert decode(singles(wire), policy) == expected


@pytest.mark.parametrize("length", range(6))
def test_short_bodies_in_every_chunking(length: int) -> None:
    for octet in itertools.product(b"\r\n.a", repeat=length):
        wire = bytes(octet) + END_OF_DATA
        for policy in POLICIES:
            expected = reference(wire, policy)
            for chunks in chunkings(wire[:-4]):  # the last four octets come at once, to keep the number down
                assert decode([*chunks, wire[-4:]], policy) == expected, chunks


def test_the_end_in_every_chunking() -> None:
    wire = b"a\r\n..\r\n.\r\nQ"
    for policy in POLICIES:
        for chunks in chunkings(wire):
            assert decode(chunks, policy) == (True, False, b"a\r\n.\r\n", b"Q"), chunks


# -- decoder: the smuggling matrix; what each sequence becomes with "normalize", None where it is the end of the data

MATRIX: dict[str, tuple[bytes, bool, bytes | None]] = {
    "LF.LF": (b"\n.\n", True, b"\r\n.\r\n"),
    "LF.CRLF": (b"\n.\r\n", True, b"\r\n.\r\n"),
    "CRLF.LF": (b"\r\n.\n", True, b"\r\n.\r\n"),
    "CR.LF": (b"\r.\n", True, b"\r\n.\r\n"),
    "LF.CR": (b"\n.\r", True, b"\r\n.\r\n"),
    "CR.CR": (b"\r.\r", True, b"\r\n.\r\n"),
    "CR.CRLF": (b"\r.\r\n", True, b"\r\n.\r\n"),
    "CRLF.CR": (b"\r\n.\r", True, b"\r\n.\r\n"),
    "CRLF NUL.CRLF": (b"\r\n\0.\r\n", False, b"\r\n\0.\r\n"),
    "CRLF.NUL CRLF": (b"\r\n.\0\r\n", False, b"\r\n\0\r\n"),
    "CRLF.CRCRLF": (b"\r\n.\r\r\n", True, b"\r\n.\r\n\r\n"),
    "CRCRLF.CRLF": (b"\r\r\n.\r\n", True, None),
    "LF in a line": (b"x\ny", True, b"x\r\ny"),
    "CR in a line": (b"x\ry", True, b"x\r\ny"),
}
SMUGGLED = b"MAIL FROM:<smuggled@a>\r\nRCPT TO:<b@c>\r\nDATA\r\nsmuggled"


@pytest.mark.parametrize("row", MATRIX)
@pytest.mark.parametrize("policy", POLICIES)
def test_smuggling_matrix(row: str, policy: NewlinePolicy) -> None:
    sequence, bare, becomes = MATRIX[row]
    head = b"Subject: t\r\n\r\nbody"
    wire = head + sequence + SMUGGLED + END_OF_DATA + b"QUIT\r\n"
    if becomes is None:
        body, rest = head + b"\r\n\r\n", SMUGGLED + END_OF_DATA + b"QUIT\r\n"
    else:
        body, rest = head + becomes + SMUGGLED + b"\r\n", b"QUIT\r\n"
    expected = Decoded(True, bare, None if bare and policy == "reject" else body, rest)
    assert decode([wire], policy) == expected
    assert decode(singles(wire), policy) == expected
    for cut in range(len(wire) + 1):
        assert decode([wire[:cut], wire[cut:]], policy) == expected, cut


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(
    ("wire", "body"),
    [
        pytest.param(b".\r\n", b"", id="empty message"),
        pytest.param(b"..x\r\n.\r\n", b".x\r\n", id="stuffed first dot"),
        pytest.param(b"\r\n.\r\n", b"\r\n", id="one empty line"),
        pytest.param(b"..\r\n.\r\n", b".\r\n", id="a lone dot, stuffed"),
        pytest.param(b".a\r\n.\r\n", b"a\r\n", id="a first dot that was not stuffed"),
        pytest.param(b"a\r\n...\r\n.b.\r\n.\r\n", b"a\r\n..\r\nb.\r\n", id="one dot of many"),
        pytest.param(b"\0\xff\x80\r\n.\r\n", b"\0\xff\x80\r\n", id="NUL and 8-bit"),
    ],
)
def test_legal_messages(wire: bytes, body: bytes, policy: NewlinePolicy) -> None:
    expected = Decoded(True, False, body, b"RSET\r\n")
    wire += b"RSET\r\n"
    assert decode([wire], policy) == decode(singles(wire), policy) == expected
    for cut in range(len(wire) + 1):
        assert decode([wire[:cut], wire[cut:]], policy) == expected, cut


# -- decoder: what went wrong elsewhere


def test_a_command_cut_off_right_after_the_end_is_kept_as_it_is() -> None:
    decoder = DotDecoder("reject")
    assert decoder.feed(b"a\r\n.\r\nNO") == b"a\r\n"
    assert decoder.rest == b"NO"  # simplesmtp put a CR LF here


def test_a_chunk_that_ends_with_cr_cr_lf_loses_nothing() -> None:
    decoder = DotDecoder("normalize")
    out = decoder.feed(b"abc\r\r\n") + decoder.feed(b"def\r\n.\r\n")
    assert out == b"abc\r\n\r\ndef\r\n"  # simplesmtp made it abc CR def


def test_a_dot_after_a_bare_lf_was_never_stuffed() -> None:
    decoder = DotDecoder("normalize")
    assert decoder.feed(b"a\n..\n...b\r\n.\r\n") == b"a\r\n..\r\n...b\r\n"


def test_end_of_a_refused_message_is_found_and_its_octets_are_counted() -> None:
    decoder = DotDecoder("reject")
    decoder.feed(b"good\r\n")
    assert not decoder.bare
    assert decoder.feed(b"b\nd\r\n..x") == b""
    assert decoder.bare
    assert decoder.received == len(b"good\r\nb\nd\r\n.x")
    assert decoder.feed(b"more\r\n") == b""
    assert decoder.received == len(b"good\r\nb\nd\r\n.xmore\r\n")
    assert decoder.feed(b"\n.\r\n\r\n.\r\nQUIT\r\n") == b""
    assert decoder.done
    assert decoder.rest == b"QUIT\r\n"


@pytest.mark.parametrize("after", [b"", b"\r\n", b"\n.\r\n", b"\r.\r\n"])
def test_bare_newlines_after_the_end_are_not_of_this_message(after: bytes) -> None:
    assert decode([b"a\r\n.\r\n" + after], "reject") == (True, False, b"a\r\n", after)
    assert decode([b"..a\r\n.\r\n" + after], "reject") == (True, False, b".a\r\n", after)


def test_nothing_is_held_back_without_need() -> None:
    decoder = DotDecoder("reject")
    assert decoder.feed(b"a\r\n") == b"a\r\n"
    assert decoder.feed(b"b") == b"b"
    assert decoder.feed(b"\r") == b""
    assert decoder.feed(b"\n") == b"\r\n"
    assert decoder.feed(b"") == b""
    assert decoder.feed(b".c") == b"c"


def test_clean_chunks_are_handed_on_uncopied() -> None:
    clean = b"some text\r\nand more"
    assert DotDecoder("reject").feed(clean) is clean
    decoder = DotDecoder("normalize")
    assert decoder.feed(b"first a bare\n") == b"first a bare\r\n"
    assert decoder.feed(clean) is clean
    assert DotEncoder().encode(clean) is clean
    assert encode_message(clean)[0] is clean


def test_what_comes_out_cannot_change_with_the_callers_buffer() -> None:
    for feed in (DotDecoder("reject").feed, DotEncoder().encode):
        buffer = bytearray(b"abc\r\n")
        out = feed(buffer)
        buffer[:] = b"xxxxx"
        assert out == b"abc\r\n"
        assert type(out) is bytes
    decoder = DotDecoder("reject")
    assert decoder.feed(bytearray(b"..a\r\n.\r\nQ")) == b".a\r\n"
    assert type(decoder.rest) is bytes


def test_octets_after_the_end_are_refused() -> None:
    decoder = DotDecoder("reject")
    decoder.feed(b".\r\n")
    with pytest.raises(RuntimeError, match="data has ended"):
        decoder.feed(b"QUIT\r\n")


# -- work: how many octets are looked at, not how long it takes


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("unit", [b"\n", b"\r", b".", b"\r\n", b"\r\n..", b"\r\n.a", b"\r\n.\r", b"\n.\r\n", b"a"])
@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_dripping_octets_costs_no_more_than_linear_work(
    unit: bytes, step: int, policy: NewlinePolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at = 0

    def counting(text: bytes) -> bool:
        nonlocal looked_at
        looked_at += len(text)
        return bare_in(text)

    monkeypatch.setattr(dotstuff, "bare_in", counting)
    decoder = DotDecoder(policy)
    wire = unit * 1000
    feeds = 0
    for start in range(0, len(wire), step):
        decoder.feed(wire[start : start + step])
        assert len(decoder._held) <= 2
        feeds += 1
    assert not decoder.done
    assert looked_at <= len(wire) + 4 * feeds  # four: what was held, and the CR LF put before it
    assert decoder.received >= len(wire) // 2 - 2


# -- encoder


@settings(deadline=None, max_examples=1000)
@given(st.one_of(texts, octets), cuts)
@example(b".", [])
@example(b"\r.", [1])
@example(b"a\n.", [1, 2])
def test_encoder_puts_out_what_the_rules_say(content: bytes, at: list[int]) -> None:
    wire = stuffed(content)
    assert encode([content]) == wire
    assert encode(pieces(content, at)) == wire
    assert encode(singles(content)) == wire
    text, end, size = encode_message(content)
    assert text + end == wire
    assert size == len(normal(content))


@settings(deadline=None, max_examples=500)
@given(st.one_of(texts, octets), cuts, cuts)
def test_round_trip(content: bytes, at: list[int], also_at: list[int]) -> None:
    wire = encode(pieces(content, at))
    assert not bare_in(wire)
    expected = Decoded(True, False, normal(content), b"")
    for policy in POLICIES:
        assert decode(pieces(wire, also_at), policy) == expected
        assert decode(singles(wire), policy) == expected


@pytest.mark.parametrize("length", range(6))
def test_round_trip_of_short_contents_in_every_chunking(length: int) -> None:
    for octet in itertools.product(b"\r\n.a", repeat=length):
        content = bytes(octet)
        for chunks in chunkings(content):
            wire = encode(chunks)
            assert wire == stuffed(content), chunks
        assert decode([wire], "reject") == (True, False, normal(content), b"")


def test_round_trip_of_one_wire_in_every_chunking() -> None:
    content = b".\r\n..a\n."
    wire = encode([content])
    for chunks in chunkings(wire):
        assert decode(chunks, "reject") == (True, False, b".\r\n..a\r\n.\r\n", b""), chunks


@settings(deadline=None, max_examples=300)
@given(texts, cuts)
def test_reject_never_sends_the_end_of_a_message_with_bare_newlines(content: bytes, at: list[int]) -> None:
    if not bare_in(content):
        text, end, _ = encode_message(content, "reject")
        assert encode(pieces(content, at), "reject") == stuffed(content) == text + end
        return
    with pytest.raises(LocalProtocolError):
        encode_message(content, "reject")
    encoder = DotEncoder("reject")
    sent = b""

    def send() -> None:
        nonlocal sent
        for chunk in pieces(content, at):
            sent += encoder.encode(chunk)
        sent += encoder.finish()

    with pytest.raises(LocalProtocolError):
        send()
    assert not bare_in(sent)
    assert END_OF_DATA not in b"\r\n" + sent
    with pytest.raises(LocalProtocolError):
        encoder.finish()


@pytest.mark.parametrize(
    ("content", "wire"),
    [
        (b"", b".\r\n"),
        (b"a", b"a\r\n.\r\n"),
        (b"a\r", b"a\r\n.\r\n"),
        (b".", b"..\r\n.\r\n"),
        (b"a\n.\nQUIT", b"a\r\n..\r\nQUIT\r\n.\r\n"),
        (b"a\r.\r\nQUIT", b"a\r\n..\r\nQUIT\r\n.\r\n"),
        (b"a\r\n.\r\nQUIT", b"a\r\n..\r\nQUIT\r\n.\r\n"),
        (b"a\0\xff", b"a\0\xff\r\n.\r\n"),
    ],
)
def test_contents_that_other_clients_let_slip(content: bytes, wire: bytes) -> None:
    assert encode([content]) == encode(singles(content)) == wire


def test_a_misspelt_policy_is_an_error() -> None:
    with pytest.raises(ValueError, match="strict"):
        DotDecoder("strict")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="strict"):
        DotEncoder("strict")  # type: ignore[arg-type]
