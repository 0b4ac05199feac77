from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_smtp._protocol.errors import Delivery, LocalProtocolError
from trio_smtp._protocol.parameter_text import (
    format_params,
    required_extensions,
)


def test_format():
    assert format_params({}) == ""
    assert format_params({"size": 1234, "BODY": "8BITMIME", "SMTPUTF8": None}) == " SIZE=1234 BODY=8BITMIME SMTPUTF8"


@pytest.mark.parametrize("keyword", ["", "-X", "X Y", "X=", "X\r\n", "X\n", "é", "X_Y", "ſIZE", "X\0"])
def test_bad_keywords(keyword):
    with pytest.raises(LocalProtocolError, match="keyword") as info:
        format_params({keyword: None})
    assert info.value.delivery is Delivery.NOT_SENT


@pytest.mark.parametrize(
    "value", ["", " ", "a b", "a=b", "a\r\nDATA", "a\n", "a\0", "a\x7f", "\t", "a\x85", "a\u2028", "a\ud800"]
)
def test_bad_values(value):
    for smtputf8 in (False, True):
        with pytest.raises(LocalProtocolError, match="cannot be the value"):
            format_params({"X": value}, smtputf8=smtputf8)


def test_utf8_values_need_smtputf8():
    assert format_params({"X": "é"}, smtputf8=True) == " X=é"
    with pytest.raises(LocalProtocolError):
        format_params({"X": "é"})


def test_a_keyword_in_two_cases():
    with pytest.raises(LocalProtocolError, match="twice"):
        format_params({"SIZE": 1, "size": 1})


@given(st.dictionaries(st.text(max_size=8), st.one_of(st.none(), st.integers(), st.text(max_size=20))), st.booleans())
def test_what_is_written_arrives_as_it_was_meant(params, smtputf8):
    try:
        text = format_params(params, smtputf8=smtputf8)
    except LocalProtocolError:
        return
    items = text.split(" ")[1:]
    assert len(text.splitlines()) <= 1
    assert [item.partition("=")[0] for item in items] == [keyword.upper() for keyword in params]
    assert [item.partition("=")[2] for item in items] == ["" if v is None else str(v) for v in params.values()]


@pytest.mark.parametrize(
    ("command", "params", "extensions"),
    [
        ("MAIL", {}, set()),
        ("MAIL", {"size": 1, "RET": "FULL", "ENVID": "x"}, {"SIZE", "DSN"}),
        ("MAIL", {"BODY": "8BITMIME"}, {"8BITMIME"}),
        ("MAIL", {"body": "binarymime"}, {"8BITMIME", "BINARYMIME", "CHUNKING"}),
        ("MAIL", {"BY": "1;R", "HOLDFOR": "1"}, {"DELIVERBY", "FUTURERELEASE"}),
        ("MAIL", {"XOWN": None}, set()),
        ("RCPT", {"NOTIFY": "NEVER"}, {"DSN"}),
        ("RCPT", {"SIZE": 1}, set()),
    ],
)
def test_required_extensions(command, params, extensions):
    assert required_extensions(command, params) == extensions
