# Bodies: their octets, and the encodings under which they can be sent.
from __future__ import annotations

import quopri

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_smtp import LocalProtocolError
from trio_smtp._message.bodies import (
    can_stay,
    charset_for,
    dash_lines,
    encode_base64,
    encode_quoted,
    encoding_of,
    has_characters,
    octets_of,
    reencode,
)


@given(text=st.text(st.sampled_from("aü =.\t\nF-"), max_size=400))
def test_quoted_printable_is_read_back(text: str) -> None:
    octets = text.encode().replace(b"\n", b"\r\n")
    encoded = encode_quoted(octets)
    assert encoded.isascii()
    assert all(len(line) <= 76 for line in encoded.split(b"\r\n"))
    assert quopri.decodestring(encoded) == octets


@given(octets=st.binary(max_size=300))
def test_base64_that_was_encoded_is_decoded_before_it_is_encoded_again(octets: bytes) -> None:
    encoded = encode_base64(octets)
    assert encoded == b"" or encoded.endswith(b"\r\n")
    for spoilt in (encoded, encoded.replace(b"\r\n", b"\xff\r\n"), encoded.replace(b"=", b"")):
        assert reencode(spoilt, "base64", is_text=False) == (encoded, "base64")


def test_large_bodies_are_encoded_in_slices() -> None:
    text = ("ü" + "x" * 50 + "\r\n").encode() * 60_000
    assert quopri.decodestring(encode_quoted(text)) == text
    assert reencode(encode_base64(text), "base64", is_text=False)[0] == encode_base64(text)
    assert octets_of("x\n" * 2_000_000) == b"x\r\n" * 2_000_000
    assert octets_of("x" * 3_000_000) == b"x" * 3_000_000


@pytest.mark.parametrize(
    ("octets", "encoding", "is_text", "name"),
    [
        ("grüße".encode(), "", True, "quoted-printable"),
        ("日本".encode() * 30, "8bit", True, "base64"),
        (b"\xff", "8bit", False, "base64"),
        (b"a\0", "7bit", True, "base64"),
        (b"a=C3=BC\xff", "quoted-printable", True, "quoted-printable"),
        (b"x" * 2000, "x-unknown", True, "quoted-printable"),
    ],
)
def test_the_encoding_that_is_chosen(octets: bytes, encoding: str, is_text: bool, name: str) -> None:
    encoded, chosen = reencode(octets, encoding, is_text=is_text)
    assert chosen == name
    assert can_stay(encoded, eight_bit=False)


def test_uuencode_is_refused() -> None:
    with pytest.raises(LocalProtocolError, match="x-uuencode"):
        reencode(b"\xff", "x-uuencode", is_text=False)


@pytest.mark.parametrize(
    ("source", "encoding"),
    [("Base64", "base64"), (" 8bit (comment)", "8bit"), ("", ""), (None, ""), ("7bit; x", "7bit"), (5, "")],
)
def test_the_encoding_that_a_field_says(source: object, encoding: str) -> None:
    assert encoding_of(source) == encoding


def test_characters_and_octets() -> None:
    assert has_characters("ü")
    for payload in ("u", "\udcff", b"\xff", None, 5):
        assert not has_characters(payload)
    assert octets_of("\udcffü\r\n\r\n\n") == b"\xff\xc3\xbc\r\n\r\n\r\n"
    assert octets_of(bytearray(b"a\rb")) == b"a\r\nb"
    assert octets_of(None) == b""
    for wrong in (5, ["a"], "\ud800"):
        with pytest.raises(LocalProtocolError):
            octets_of(wrong)


@pytest.mark.parametrize(
    ("charset", "chosen"),
    [
        (None, None),
        ("utf-8", "utf-8"),
        ("latin-1", "latin-1"),
        ("us-ascii", None),
        ("x", None),
        ("utf-16", None),
        ("hex", None),
        ("a\0", None),
    ],
)
def test_the_charset_for_characters(charset: str | None, chosen: str | None) -> None:
    assert charset_for("grüße", charset) == chosen


def test_lines_that_may_be_taken_for_delimiters() -> None:
    assert dash_lines(b"--a \r\nb--c\r\n--d--\r\n-e\r\n--") == {b"a", b"d--", b""}
    assert dash_lines(b"a\r\n--b") == {b"b"}
    assert dash_lines(b"--") == {b""}
    assert dash_lines(b"nothing") == frozenset()
