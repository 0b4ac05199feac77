# Encoded words in the addresses of a header: the envelope never comes out of one (RFC 2047 section 5).
from __future__ import annotations

import email
from collections.abc import Callable
from email.header import Header, decode_header, make_header
from email.headerregistry import Address
from email.message import EmailMessage, Message
from email.policy import SMTP, SMTPUTF8, Policy, compat32, default
from typing import Any

import pytest

from trio_smtp import LocalProtocolError
from trio_smtp._message.header_envelope import envelope_of, header_needs_utf8

HIDDEN = [
    "=?utf-8?q?attacker=40evil.test=2C?=foo@trusted.test",
    "=?utf-8?q?attacker=40evil.test?=@trusted.test",
    "=?utf-8?q?attacker?=@trusted.test",
    "=?utf-8?b?YXR0YWNrZXJAZXZpbC50ZXN0LA==?=foo@trusted.test",
    "=?utf-8*en?Q?attacker=40evil.test=2C?=foo@trusted.test",
    "<=?utf-8?q?attacker=40evil.test=2C?=foo@trusted.test>",
    "Name <=?utf-8?q?attacker=40evil.test=2C?=foo@trusted.test>",
    '"=?utf-8?q?attacker=40evil.test=2C?="@trusted.test',
    '"=?utf-8?q?attacker=40evil.test=2C?=foo"@trusted.test',
    "foo.=?utf-8?q?attacker=40evil.test?=@trusted.test",
    "foo@=?utf-8?q?evil.test?=",
    "foo@=?utf-8?q?evil.test=2C?=trusted.test",
    "group: =?utf-8?q?attacker=40evil.test=2C?=foo@trusted.test;",
    "(comment) =?utf-8?q?attacker=40evil.test=2C?=foo@trusted.test",
    "=?utf-8?q?attacker=40evil.test=2C?=\r\n foo@trusted.test",
    "=?utf-8?q?attacker=40evil.test?= =?utf-8?q?=2C?=foo@trusted.test",
    "=?utf-8?q?attacker=40evil.test?=",
    "=?utf-8?q?=3Cattacker=40evil.test=3E?=",
]
ALLOWED = [
    "=?utf-8?q?attacker=40evil.test=2C?= <foo@trusted.test>",
    "=?utf-8?q?attacker=40evil.test,?= <foo@trusted.test>",
    '"=?utf-8?q?attacker=40evil.test=2C?=" <foo@trusted.test>',
    "=?utf-8?q?J=C3=BCrgen?= =?utf-8?q?attacker=40evil.test=2C?= <foo@trusted.test>",
    "foo@trusted.test (=?utf-8?q?attacker=40evil.test=2C?=)",
    "=?utf-8?q?attacker=40evil.test=3A?=: foo@trusted.test;",
]
FIELDS = ["To", "Cc", "Bcc", "From", "Sender", "Resent-To", "Resent-Cc", "Resent-Bcc", "Resent-From", "Resent-Sender"]
Make = Callable[[str, str], "Message[Any, Any]"]


def assigned(name: str, value: str) -> Message[Any, Any]:
    message = EmailMessage()
    message[name] = value.replace("\r\n", "")
    return message


def assigned_old(name: str, value: str) -> Message[Any, Any]:
    message: Message[Any, Any] = Message()
    message[name] = value
    return message


def parsed_by(policy: Policy[Any]) -> Make:
    return lambda name, value: email.message_from_bytes(f"{name}: {value}\r\n\r\ntext\r\n".encode(), policy=policy)


def header_object(name: str, value: str) -> Message[Any, Any]:
    message: Message[Any, Any] = Message()
    plain = value.replace("\r\n", "").replace("*en?", "?")  # decode_header() knows no languages
    message[name] = make_header(decode_header(plain))
    return message


KINDS: dict[str, Make] = {
    "assigned": assigned,
    "assigned-compat32": assigned_old,
    "header-object": header_object,
    **{f"parsed-{n}": parsed_by(p) for n, p in zip("0123", (default, SMTP, SMTPUTF8, compat32), strict=True)},
}


def whole(make: Make, name: str, value: str) -> Message[Any, Any]:
    message = make(name, value)
    if name.startswith("Resent-"):
        message["Resent-Date"] = "Thu, 01 Jan 2026 00:00:00 +0000"
    prefix = "Resent-" if name.startswith("Resent-") else ""
    for other in ("From", "To"):
        if prefix + other not in message:
            message[prefix + other] = "other@example.test"
    return message


def envelope(message: Message[Any, Any]) -> set[str]:
    try:
        sender, recipients = envelope_of(message)
    except LocalProtocolError:
        return set()
    return {sender, *recipients}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", HIDDEN)
def test_an_encoded_word_in_an_address_gives_no_envelope(kind: str, value: str) -> None:
    for name in FIELDS:
        got = envelope(whole(KINDS[kind], name, value))
        assert not any("evil" in address or "attacker" in address or "=?" in address for address in got), name


@pytest.mark.parametrize("kind", ["assigned", "assigned-compat32", "parsed-0", "parsed-3"])
@pytest.mark.parametrize("value", [v for v in HIDDEN if "\r" not in v and v.count("=?") == 1 and "3C" not in v])
def test_an_encoded_word_in_an_address_is_an_error_that_names_the_field(kind: str, value: str) -> None:
    with pytest.raises(LocalProtocolError, match="the field Cc has an encoded word"):
        envelope_of(whole(KINDS[kind], "Cc", value))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", ALLOWED)
def test_an_encoded_word_in_a_display_name_or_a_comment_is_no_matter(kind: str, value: str) -> None:
    assert envelope_of(whole(KINDS[kind], "To", value)) == ("other@example.test", ["foo@trusted.test"])


def test_addresses_that_are_objects_are_taken_as_they_are() -> None:
    message = EmailMessage()
    message["From"] = Address("=?utf-8?q?evil=40evil.test?=", "me", "example.test")
    message["To"] = [Address("Jürgen", "a", "example.test"), Address("", "b", "example.test")]
    assert envelope_of(message) == ("me@example.test", ["a@example.test", "b@example.test"])


@pytest.mark.parametrize("value", [None, 5, b"a@x.test", "\ud800 <a@x.test>"])
def test_a_field_of_the_wrong_type_names_no_address(value: Any) -> None:
    message: Any = Message()
    message["From"] = "a@x.test"
    message._headers.append(("To", value))
    for ask in (envelope_of, header_needs_utf8):
        with pytest.raises(LocalProtocolError):
            ask(message)


@pytest.mark.parametrize("content", ["text", b"octets", None, 5])
def test_what_is_no_message_object_is_a_type_error(content: Any) -> None:
    with pytest.raises(TypeError, match="takes an EmailMessage, not"):
        envelope_of(content)


def test_a_message_sent_on_twice_names_no_envelope() -> None:
    message: Message[Any, Any] = Message()
    message["From"] = "a@x.test"
    message["Resent-Date"] = message["resent-date"] = "x"
    with pytest.raises(LocalProtocolError, match="more than once"):
        envelope_of(message)


def test_a_header_object_in_one_encoded_word_names_no_address() -> None:
    message: Message[Any, Any] = Message()
    message["From"] = "me@example.test"
    message["To"] = Header("attacker@evil.test, foo@trusted.test", "utf-8")
    with pytest.raises(LocalProtocolError, match="the field To"):
        envelope_of(message)


@pytest.mark.parametrize("policy", [default, compat32])
def test_an_address_in_utf8_is_read_from_the_octets(policy: Policy[Any]) -> None:
    message = parsed_by(policy)("From", "jürgen@example.test")
    assert envelope_of(message) == ("jürgen@example.test", [])
    assert header_needs_utf8(message)


def test_an_encoded_word_in_an_address_is_no_matter_where_the_caller_names_the_envelope() -> None:
    for kind in KINDS.values():
        assert not header_needs_utf8(kind("To", HIDDEN[0]))
