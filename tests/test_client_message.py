"""A message as a caller gives it: checked when it is made, and not changed afterwards."""

from __future__ import annotations

from typing import Any

import pytest

from trio_smtp import Delivery, LocalProtocolError
from trio_smtp._client.message import Message

TEXT = b"hi\r\n"


def test_the_callers_spelling_is_the_key_and_a_repeated_recipient_is_sent_once() -> None:
    message = Message("a@x.test", ["b@y.test", "c@Y.test", "b@y.test"], TEXT)
    assert list(message.recipients) == ["b@y.test", "c@Y.test"]
    assert (message.sender, message.mail_params, message.rcpt_params) == ("a@x.test", None, None)
    assert repr(message) == "<Message from 'a@x.test' to 2>"


@pytest.mark.parametrize(
    ("sender", "recipients", "params", "is_ascii", "needs_utf8"),
    [
        ("a@x.test", ["b@y.test"], {}, True, False),
        ("a@x.test", ["b@bücher.test"], {}, False, False),  # a domain has an ASCII form
        ("ä@x.test", ["b@y.test"], {}, False, True),
        ("a@x.test", ["b@y.test", "ü@y.test"], {}, False, True),
        ("a@x.test", ["b@y.test"], {"smtputf8": None}, True, True),
        ("", ["postmaster"], {}, True, False),
    ],
)
def test_what_the_addresses_need(
    sender: str, recipients: list[str], params: dict[str, Any], is_ascii: bool, needs_utf8: bool
) -> None:
    message = Message(sender, recipients, TEXT, params)
    assert (message.is_ascii, message.needs_utf8) == (is_ascii, needs_utf8)


@pytest.mark.parametrize(("body", "binary"), [("BINARYMIME", True), ("binarymime", True), ("8BITMIME", False)])
def test_binary_by_its_parameter(body: str, binary: bool) -> None:
    message = Message("a@x.test", ["b@y.test"], TEXT, {"body": body})
    assert message.is_binary is binary
    assert message.mail_params == {"BODY": body}


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (("a\r\nb@x.test", ["b@y.test"], TEXT), {}),
        (("a@x.test", ["b y@y.test"], TEXT), {}),
        (("a@x.test", [], TEXT), {}),
        (("a@x.test", ["b@y.test"], TEXT), {"mail_params": {"X": "a b"}}),
        (("a@x.test", ["b@y.test"], TEXT), {"rcpt_params": {"b@y.test": {"X": "\r\n"}}}),
        (("a@x.test", ["b@y.test"], TEXT), {"rcpt_params": {"c@y.test": {}}}),
    ],
)
def test_what_cannot_be_sent(arguments: Any, options: dict[str, Any]) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        Message(*arguments, **options)
    assert caught.value.delivery is Delivery.NOT_SENT


@pytest.mark.parametrize(
    "arguments", [("a@x.test", "b@y.test", TEXT), ("a@x.test", [1], TEXT), ("a@x.test", ["b@y.test"], 1)]
)
def test_what_is_of_the_wrong_type(arguments: Any) -> None:
    with pytest.raises(TypeError):
        Message(*arguments)
