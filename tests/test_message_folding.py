# Folding, and the limits of lines.
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_smtp import ExtensionNotSupportedError, LocalProtocolError
from trio_smtp._message.folding import fold, words_of
from trio_smtp._message.target import MAX_LINE, Target, has_long_line, lacking, line_length, refusing

WORDS = st.text(st.sampled_from('ab" \t\\'), max_size=300)


@given(text=WORDS.map(str.lstrip), length=st.integers(20, 100))
def test_unfolding_gives_back_the_text(text: str, length: int) -> None:
    lines = fold("X", words_of(text), length).split(b"\r\n")
    assert b"".join(lines).decode() == f"X: {text}"
    assert all(line.strip() for line in lines[:-1])
    for line in lines[1:-1]:
        assert line[:1] in (b" ", b"\t")


def test_lines_are_as_long_as_asked_for_where_words_allow_it() -> None:
    folded = fold("X", words_of("word " * 50), 30)
    assert max(map(len, folded.split(b"\r\n"))) <= 30
    assert fold("X", words_of('aa bb "quoted string" c'), 20).split(b"\r\n")[1] == b' "quoted string" c'
    assert fold("X", words_of(f'"{"word " * 100}"'), 30).count(b"\r\n") > 10  # a long one may be folded


@pytest.mark.parametrize(
    "text", ['"a"' * 5000 + "x ", '"' + '\\"' * 20_000 + " x", "\\" * 50_000, '"' * 50_001 + " ", " " * 50_000 + "x"]
)
def test_text_that_is_made_for_it_takes_no_longer(text: str) -> None:
    assert b"".join(words_of(text)).decode() == text  # or it would take years


def test_a_word_has_a_limit() -> None:
    assert fold("X", [b"w" * (MAX_LINE - 3)], 78) == b"X: " + b"w" * (MAX_LINE - 3) + b"\r\n"
    with pytest.raises(LocalProtocolError, match="too long"):
        fold("X", [b"w" * (MAX_LINE - 2)], 78)


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("before", [b"", b"x", b"x" * 998])
def test_long_lines_are_found(end: bytes, before: bytes) -> None:
    for last in (b"", end):
        assert not has_long_line(before + end + b"y" * 998 + last)
        assert has_long_line(before + end + b"y" * 999 + last)
        assert has_long_line(b"y" * 999 + end + before + last)


@given(st.lists(st.integers(0, 1003), max_size=6), st.sampled_from([b"\n", b"\r\n"]))
def test_long_lines_are_found_wherever_they_are(lengths: list[int], end: bytes) -> None:
    text = b"".join(b"x" * length + end for length in lengths)
    assert has_long_line(text) == any(length > MAX_LINE for length in lengths)


@pytest.mark.parametrize(
    ("wanted", "length"),
    [(78, 78), (1, 40), (5000, 998), (0, 998), (None, 998), (-5, 78), ("78", 78), (True, 40), (998, 998)],
)
def test_the_length_of_a_line_by_a_policy(wanted: object, length: int) -> None:
    assert line_length(wanted) == length


def test_what_a_message_object_raises_becomes_one_error() -> None:
    @refusing
    def fail(error: Exception) -> None:
        raise error

    with pytest.raises(LocalProtocolError, match="IndexError: no") as caught:
        fail(IndexError("no"))
    assert isinstance(caught.value.__cause__, IndexError)
    missing = lacking("8BITMIME", "it")
    assert isinstance(missing, ExtensionNotSupportedError)
    with pytest.raises(LocalProtocolError) as caught:
        fail(missing)
    assert caught.value is missing
    assert Target(eight_bit=True, utf8=False) == Target(True, False)
