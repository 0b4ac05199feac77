from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_smtp._protocol.xtext import CONTROL, decode_utf8_addr, decode_xtext

printable = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1)
readable = st.text(min_size=1).filter(lambda text: not CONTROL.search(text))


def encode_xtext(text):
    """The encoder of RFC 3461 section 4, which only a client's application needs."""
    return re.sub(r"[^!-*,-<>-~]", lambda match: f"+{ord(match[0]):02X}", text)


def encode_utf8_addr(address, *, smtputf8=False):
    """The encoders of RFC 6533 section 3."""
    special = r"[^!-*,-<>-\[\]-~\xa0-\U0010ffff]" if smtputf8 else r"[^!-*,-<>-\[\]-~]"
    return re.sub(special, lambda match: f"\\x{{{ord(match[0]):02X}}}", address)


@pytest.mark.parametrize(
    ("raw", "encoded"),
    [
        ("QQ314159", "QQ314159"),
        ("a+b", "a+2Bb"),
        ("a=b", "a+3Db"),
        ("a b", "a+20b"),
        ("!~", "!~"),
        ("<>", "<>"),
    ],
)
def test_decode(raw, encoded):
    assert encode_xtext(raw) == encoded
    assert decode_xtext(encoded) == raw


@pytest.mark.parametrize(
    "text",
    ["", "a=b", "a b", "+2b", "+2", "+", "a+", "+GG", "+2G", "é", "a\x7f", "++2B", "a\n", "a\0", "+ 2", "+-1"],
)
def test_decode_refuses_what_is_no_xtext(text):
    with pytest.raises(ValueError, match="not xtext"):
        decode_xtext(text)


@pytest.mark.parametrize("text", ["+00", "a+0D+0Ab", "+0A", "+7F", "+1F", "+80", "+FF", "a+00"])
def test_decode_refuses_what_is_not_printable(text):
    with pytest.raises(ValueError, match="printable"):
        decode_xtext(text)


def test_decode_knows_every_printable_character_and_no_other():
    decoded = set()
    for code in range(256):
        try:
            decoded.add(decode_xtext(f"+{code:02X}"))
        except ValueError:
            continue
    assert decoded == {chr(code) for code in range(0x20, 0x7F)}


@given(printable)
def test_xtext_round_trip(text):
    encoded = encode_xtext(text)
    assert decode_xtext(encoded) == text
    assert not set(encoded) & set("= \r\n")


@pytest.mark.parametrize(
    ("raw", "ascii_form", "utf8_form"),
    [
        ("bob@example.com", "bob@example.com", "bob@example.com"),
        ("jürgen@example.com", "j\\x{FC}rgen@example.com", "jürgen@example.com"),
        ("用户@例", "\\x{7528}\\x{6237}@\\x{4F8B}", "用户@例"),
        ("\U0001f4e7@x", "\\x{1F4E7}@x", "\U0001f4e7@x"),
        ("\U0010fffd@x", "\\x{10FFFD}@x", "\U0010fffd@x"),
        ("a+b=c\\d e", "a\\x{2B}b\\x{3D}c\\x{5C}d\\x{20}e", "a\\x{2B}b\\x{3D}c\\x{5C}d\\x{20}e"),
    ],
)
def test_utf8_addr(raw, ascii_form, utf8_form):
    assert encode_utf8_addr(raw) == ascii_form
    assert encode_utf8_addr(raw, smtputf8=True) == utf8_form
    assert decode_utf8_addr(ascii_form) == raw
    assert decode_utf8_addr(utf8_form, smtputf8=True) == raw


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a+2Bb",
        "a=b",
        "a b",
        "\\",
        "\\x",
        "\\x{}",
        "\\x{F}",
        "\\x{fc}",
        "\\x{0FC}",
        "\\x{110000}",
        "\\x{0010FFFF}",
        "\\x{FC",
        "\\n",
        "\\x{D800}",
        "\\x{DFFF}",
        "\\x{00}",
        "\\x{0D}",
        "\\x{0A}",
        "\\x{85}",
        "\\x{2028}",
        "\x85",
    ],
)
def test_decode_utf8_addr_refuses(text):
    with pytest.raises(ValueError, match=r"utf-8-addr-xtext|UTF-8 needs"):
        decode_utf8_addr(text)
    with pytest.raises(ValueError, match="utf-8-addr-xtext"):
        decode_utf8_addr(text, smtputf8=True)


def test_unitext_needs_smtputf8():
    with pytest.raises(ValueError, match="needs SMTPUTF8"):
        decode_utf8_addr("jürgen@example.com")


@given(readable, st.booleans())
def test_utf8_addr_round_trip(text, smtputf8):
    encoded = encode_utf8_addr(text, smtputf8=smtputf8)
    assert decode_utf8_addr(encoded, smtputf8=smtputf8) == text
    assert smtputf8 or encoded.isascii()
    assert not set(encoded) & set("+= ")


@given(st.text())
def test_decoders_raise_value_error_or_hand_out_clean_text(text):
    for decode in (decode_xtext, decode_utf8_addr, lambda t: decode_utf8_addr(t, smtputf8=True)):
        try:
            decoded = decode(text)
        except ValueError:
            continue
        assert len(decoded.splitlines()) == 1
