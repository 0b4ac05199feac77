from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trio_smtp._protocol.errors import LocalProtocolError
from trio_smtp._protocol.newlines import (
    BareNewlineChecker,
    NewlineEncoder,
    NewlineNormalizer,
    bare_in,
    encode_newlines,
    to_crlf,
)

texts = st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b".", b"\0", b"a", b"\xe4"]), max_size=30).map(b"".join)
cuts = st.lists(st.integers(0, 40), max_size=6)


def pieces(data: bytes, at: list[int]) -> list[bytes]:
    edges = [0, *sorted(i for i in at if i <= len(data)), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


def chunkings(data: bytes) -> list[list[bytes]]:
    """Every way to cut the data into non-empty chunks."""
    inner = range(1, len(data))
    return [pieces(data, list(at)) for n in range(len(data)) for at in itertools.combinations(inner, n)] or [[]]


def reference(text: bytes) -> tuple[bytes, bool]:
    """The text with CR LF line ends, and whether it had others: one octet after the other."""
    out, bare, i = b"", False, 0
    while i < len(text):
        if text[i : i + 2] == b"\r\n":
            out += b"\r\n"
            i += 2
        elif text[i : i + 1] in (b"\r", b"\n"):
            out += b"\r\n"
            bare = True
            i += 1
        else:
            out += text[i : i + 1]
            i += 1
    return out, bare


def finished(text: bytes) -> bytes:
    out, _ = reference(text)
    return out + b"\r\n" if out and not out.endswith(b"\r\n") else out


def test_the_reference_itself() -> None:
    assert reference(b"a\r\nb") == (b"a\r\nb", False)
    assert reference(b"a\rb\nc\r\r\n\n") == (b"a\r\nb\r\nc\r\n\r\n\r\n", True)


@settings(deadline=None, max_examples=500)
@given(texts)
def test_pieces_that_stand_by_themselves(text: bytes) -> None:
    assert (to_crlf(text), bare_in(text)) == reference(text)


@settings(deadline=None, max_examples=500)
@given(texts, cuts)
@example(b"\r\n", [1])
@example(b"\r\r\n", [1, 2])
@example(b"a\r", [2])
def test_checker_and_normalizer_agree_with_the_reference(text: bytes, at: list[int]) -> None:
    normal, bare = reference(text)
    for chunks in ([text], pieces(text, at), [text[i : i + 1] for i in range(len(text))]):
        checker, normalizer = BareNewlineChecker(), NewlineNormalizer()
        passed = [checker.feed(chunk) for chunk in chunks]
        out = b"".join(normalizer.feed(chunk) for chunk in chunks)
        assert normal.startswith(out)
        passed.append(checker.finish())
        assert checker.bare is bare
        if not bare:
            assert b"".join(passed) == text
        assert out + normalizer.finish() == normal
        assert normalizer.bare is bare
        assert normalizer.line_start is (normal == b"" or normal.endswith(b"\r\n"))


@pytest.mark.parametrize("length", range(6))
def test_short_texts_in_every_chunking(length: int) -> None:
    for octets in itertools.product(b"\r\na", repeat=length):
        text = bytes(octets)
        normal, bare = reference(text)
        for chunks in chunkings(text):
            normalizer, checker = NewlineNormalizer(), BareNewlineChecker()
            assert b"".join(map(normalizer.feed, chunks)) + normalizer.finish() == normal, chunks
            for chunk in chunks:
                checker.feed(chunk)
            checker.finish()
            assert checker.bare is bare, chunks


def test_cr_at_the_end_of_a_chunk_is_not_bare_yet() -> None:
    checker = BareNewlineChecker()
    assert checker.feed(b"a\r") == b"a\r"
    assert not checker.bare
    assert checker.feed(b"\nb\r") == b"\nb\r"
    assert not checker.bare
    checker.finish()
    assert checker.bare


def test_checker_hands_on_nothing_after_something_bare() -> None:
    checker = BareNewlineChecker()
    assert checker.feed(b"good\r\n") == b"good\r\n"
    assert checker.feed(b"b\nd") == b""
    assert checker.feed(b"clean again\r\n") == b""
    assert checker.finish() == b""
    assert checker.bare


def test_clean_chunks_are_handed_on_uncopied() -> None:
    clean = b"some text\r\nand more"
    assert BareNewlineChecker().feed(clean) is clean
    assert NewlineNormalizer().feed(clean) is clean
    assert NewlineEncoder().encode(clean) is clean
    assert encode_newlines(clean)[0] is clean


def test_what_comes_out_cannot_change_with_the_callers_buffer() -> None:
    for feed in (BareNewlineChecker().feed, NewlineNormalizer().feed, NewlineEncoder().encode):
        buffer = bytearray(b"abc\r\n")
        out = feed(buffer)
        buffer[:] = b"xxxxx"
        assert out == b"abc\r\n"
        assert type(out) is bytes


@settings(deadline=None, max_examples=500)
@given(texts, cuts)
def test_encoder_agrees_with_the_reference(text: bytes, at: list[int]) -> None:
    for chunks in ([text], pieces(text, at), [text[i : i + 1] for i in range(len(text))]):
        encoder = NewlineEncoder()
        assert b"".join(map(encoder.encode, chunks)) + encoder.finish() == finished(text)
    assert b"".join(encode_newlines(text)) == finished(text)


@settings(deadline=None, max_examples=300)
@given(texts, cuts)
def test_reject_sends_nothing_bare_and_never_the_end(text: bytes, at: list[int]) -> None:
    encoder = NewlineEncoder("reject")
    sent = b""

    def send() -> None:
        nonlocal sent
        for chunk in pieces(text, at):
            sent += encoder.encode(chunk)
        sent += encoder.finish()

    if reference(text)[1]:
        with pytest.raises(LocalProtocolError):
            send()
        assert not reference(sent)[1]
        with pytest.raises(LocalProtocolError):
            encoder.finish()
        with pytest.raises(LocalProtocolError):
            encoder.encode(b"clean")
        with pytest.raises(LocalProtocolError):
            encode_newlines(text, "reject")
    else:
        send()
        assert sent == finished(text) == b"".join(encode_newlines(text, "reject"))


def test_a_cr_at_the_very_end_is_refused_too() -> None:
    encoder = NewlineEncoder("reject")
    encoder.encode(b"a\r")
    with pytest.raises(LocalProtocolError, match="bare"):
        encoder.finish()


@pytest.mark.parametrize(
    ("content", "size"),
    [(b"", 0), (b"a", 3), (b"a\r\n", 3), (b"a\n", 3), (b"a\r", 3), (b"\n", 2), (b".\r\n.\r\n", 6), (b"a\nb\r\nc", 9)],
)
def test_size_counts_line_ends_and_no_stuffed_dots(content: bytes, size: int) -> None:
    assert sum(map(len, encode_newlines(content))) == size
    encoder = NewlineEncoder()
    encoder.encode(content)
    encoder.finish()
    assert encoder.size == size


@pytest.mark.parametrize("octet", [b"\n", b"\r", b"a"])
def test_single_octets_keep_nothing_but_one_cr(octet: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at = 0

    def counting(text: bytes) -> bool:
        nonlocal looked_at
        looked_at += len(text)
        return bare_in(text)

    monkeypatch.setattr("trio_smtp._protocol.newlines.bare_in", counting)
    normalizer = NewlineNormalizer()
    count, returned = 2000, 0
    for _ in range(count):
        returned += len(normalizer.feed(octet))
    assert count <= looked_at + 1 <= 2 * count
    assert returned >= count - 1


def test_a_misspelt_policy_is_an_error() -> None:
    with pytest.raises(ValueError, match="normalise"):
        NewlineEncoder("normalise")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Reject"):
        encode_newlines(b"", "Reject")  # type: ignore[arg-type]
