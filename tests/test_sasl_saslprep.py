# SASLprep, by the examples of RFC 4013 section 3 and the tables of RFC 3454.
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_smtp._protocol.sasl.saslprep import SASLprepError, saslprep


@pytest.mark.parametrize(
    ("text", "prepared"),
    [
        ("I\u00adX", "IX"),
        ("user", "user"),
        ("USER", "USER"),
        ("\u00aa", "a"),
        ("\u2168", "IX"),
        ("a\u00a0b\u3000c", "a b c"),
        ("\u0627", "\u0627"),
        ("\u06271\u0628", "\u06271\u0628"),
        ("e\u0301", "\u00e9"),
        (" leading and trailing ", " leading and trailing "),
    ],
)
def test_prepared(text, prepared):
    assert saslprep(text, stored=True) == prepared
    assert saslprep(text, stored=False) == prepared


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\u0007",
        "a\x7f",
        "é\x00",
        "\u00ad",  # nothing is left
        "\u06271",  # RFC 4013 §3: right to left, and does not end so
        "\u0627a\u0628",  # both directions
        "\ue000",  # private use
        "\ufdd0",  # no character
        chr(0xD800),  # surrogate
        "\ufffd",  # inappropriate for plain text
        "\u2ff0",  # for canonical representation
        "\u202e",  # changes the direction
        "\U000e0041",  # tag
        "é\u0085",
    ],
)
def test_prohibited(text):
    for stored in (True, False):
        with pytest.raises(SASLprepError) as caught:
            saslprep(text, stored=stored)
        assert not text or text not in str(caught.value)


def test_unassigned_in_unicode_3_2_is_for_queries_only():
    assert saslprep("pass😀", stored=False) == "pass😀"
    with pytest.raises(SASLprepError):
        saslprep("pass😀", stored=True)


@given(st.text(), st.booleans())
def test_preparing_twice_changes_nothing(text, stored):
    try:
        once = saslprep(text, stored=stored)
    except SASLprepError:
        return
    assert saslprep(once, stored=stored) == once


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1))
def test_printable_ascii_is_left_alone(text):
    assert saslprep(text, stored=True) == text
