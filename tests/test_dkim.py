"""The signer by itself: what it signs, with which keys, and what it refuses. Verified by dkimpy."""

from __future__ import annotations

import traceback

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from dkim_keys import DOMAIN, SELECTORS, is_valid, make_signer, pem, private_key, tags

from trio_smtp import Delivery, LocalProtocolError
from trio_smtp.dkim import DEFAULT_HEADERS, Signer

MESSAGE = (
    b"Received: from here by there; today\r\n"
    b"From: Me <me@x.test>\r\nTo: You <you@y.test>\r\nSubject: two  blanks,\r\n and a fold\r\n"
    b"List-Unsubscribe: <https://x.test/u?id=1>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
    b"X-Mine: 1\r\n\r\nhello  you \r\n.dots\r\n\r\n\r\n"
)


@pytest.mark.parametrize("selector", SELECTORS)
@pytest.mark.parametrize("as_text", [False, True])
def test_a_signed_message_is_valid(selector: str, as_text: bool) -> None:
    key = pem(selector)
    signed = Signer(DOMAIN, selector, key.decode() if as_text else key).sign(MESSAGE) + MESSAGE
    assert is_valid(signed)
    found = tags(signed)
    assert found["a"] == f"{selector}-sha256"
    assert found["c"] == "relaxed/relaxed"
    assert (found["d"], found["s"], found["i"]) == (DOMAIN, selector, f"@{DOMAIN}")
    assert "l" not in found


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_either_form_of_an_rsa_key(form: PrivateFormat, ends: str) -> None:
    key = pem("rsa", form).decode().replace("\n", ends)
    assert is_valid(Signer(DOMAIN, "rsa", key).sign(MESSAGE) + MESSAGE)


def test_what_is_signed() -> None:
    names = tags(make_signer().sign(MESSAGE) + MESSAGE)["h"].split(":")
    assert names == ["from", "from", "subject", "to", "list-unsubscribe", "list-unsubscribe-post"]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: b"From: Other <other@z.test>\r\n" + text,  # nothing can be put above From
        lambda text: text.replace(b"From: Me", b"From: You"),
        lambda text: text.replace(b"One-Click", b"Two-Clicks"),
        lambda text: text.replace(b"u?id=1", b"u?id=2"),
        lambda text: text.replace(b"hello", b"hallo"),
        lambda text: text + b"more\r\n",
    ],
)
def test_a_changed_message_is_not_valid(change) -> None:
    field = make_signer().sign(MESSAGE)
    assert change(MESSAGE) != MESSAGE
    try:
        assert not is_valid(field + change(MESSAGE))
    except Exception as exc:
        assert "body hash mismatch" in str(exc)  # noqa: PT017 - dkimpy says so of a body


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(b"two  blanks", b"two blanks"),
        lambda text: text.replace(b"blanks,\r\n and", b"blanks, and"),
        lambda text: text.replace(b"Subject:", b"SUBJECT:"),
        lambda text: text.replace(b"you \r\n", b"you\r\n"),
        lambda text: text + b"\r\n",
        lambda text: b"Received: from there by yonder; tomorrow\r\n" + text,
        lambda text: text.replace(b"X-Mine: 1\r\n", b""),
    ],
)
def test_what_happens_on_the_way_leaves_it_valid(change) -> None:
    """relaxed/relaxed, and nothing signed that servers add."""
    field = make_signer().sign(MESSAGE)
    assert change(MESSAGE) != MESSAGE
    assert is_valid(field + change(MESSAGE))


def test_headers_of_ones_own() -> None:
    signer = make_signer(headers=["Subject", "X-Mine", "Reply-To", "Cc", "cc"])
    field = signer.sign(MESSAGE)
    assert tags(field + MESSAGE)["h"].split(":") == ["from", "from", "subject", "x-mine", "cc"]
    assert is_valid(field + MESSAGE)
    assert not is_valid(field + b"Cc: them@z.test\r\n" + MESSAGE)  # given twice: signed as absent
    assert is_valid(field + b"Reply-To: them@z.test\r\n" + MESSAGE)


def test_each_field_of_a_name_is_signed() -> None:
    message = MESSAGE.replace(b"X-Mine: 1\r\n", b"X-Mine: 1\r\nX-Mine: 2\r\nx-mine: 3\r\n")
    field = make_signer(headers=["X-Mine"]).sign(message)
    assert tags(field + message)["h"] == "from:from:x-mine:x-mine:x-mine"
    assert not is_valid(field + message.replace(b"X-Mine: 1", b"X-Mine: 4"))


def test_a_second_signature_leaves_the_first_valid() -> None:
    once = make_signer("rsa").sign(MESSAGE) + MESSAGE
    twice = make_signer("ed25519").sign(once) + once
    assert is_valid(twice)
    assert is_valid(once)


@pytest.mark.parametrize("octets", ["Jürgen".encode(), b"J\xfcrgen"])
def test_eight_bit_headers_and_text(octets: bytes) -> None:
    message = b"From: " + octets + b" <j@x.test>\r\nSubject: " + octets + b"\r\n\r\n" + octets + b"\r\n"
    assert is_valid(make_signer().sign(message) + message)


@pytest.mark.parametrize(
    "message", [b"From: a@x.test\r\n", b"From: a@x.test\r\n\r\n", b"From: a@x.test\r\n\r\n\r\n\r\n"]
)
def test_no_text(message: bytes) -> None:
    assert is_valid(make_signer().sign(message) + message)


def test_the_identity() -> None:
    signed = make_signer(identity="Alice@mail.x.test").sign(MESSAGE) + MESSAGE
    assert tags(signed)["i"] == "Alice@mail.x.test"
    assert is_valid(signed)


@pytest.mark.parametrize("selector", SELECTORS)
def test_long_names_are_not_folded_in_the_middle(selector: str) -> None:
    """dkimpy folds a tag of more than 57 octets, which is then another one: verifiers read a space there."""
    domain = f"{'a' * 60}.{'b' * 60}.test"
    field = make_signer(selector, domain).sign(MESSAGE)
    assert tags(field + MESSAGE)["d"] == domain
    assert f"d={domain};".encode() in field
    assert is_valid(field + MESSAGE, domain)
    assert all(len(line) <= 998 for line in field.split(b"\r\n"))
    long = f"{'c' * 60}@{DOMAIN}"
    signed = make_signer(selector, identity=long).sign(MESSAGE) + MESSAGE
    assert f"i={long};".encode() in signed
    assert is_valid(signed)


def test_each_length_of_a_name_is_valid() -> None:
    for length in range(40, 64):
        domain = f"{'a' * (length - 5)}.test"
        field = make_signer("ed25519", domain).sign(MESSAGE)
        assert f"d={domain};".encode() in field, length
        assert f"i=@{domain};".encode() in field, length
        assert is_valid(field + MESSAGE, domain)


def test_a_domain_that_is_not_ascii_is_signed_for_by_its_a_labels() -> None:
    signer = make_signer(domain="Bücher.test", identity="me@BÜCHER.test")
    found = tags(signer.sign(MESSAGE) + MESSAGE)
    assert (found["d"], found["i"]) == ("xn--bcher-kva.test", "me@xn--bcher-kva.test")


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (b"", "header section"),
        (b"\r\nFrom: a@x.test\r\n", "header section"),
        (b" From: a@x.test\r\n\r\n", "header section"),
        (b"hello\r\n", "header section"),
        (b"From a@x.test Mon\r\nFrom: a@x.test\r\n\r\n", "header section"),
        (b"From: a@x.test\r\nno field\r\n\r\n", "header section"),
        (b"From : a@x.test\r\n\r\n", "header section"),
        (b"Subject: hi\r\n\r\nFrom: a@x.test\r\n", "no From"),
        (b"Subject: hi\r\n From: a@x.test\r\n\r\n", "no From"),
    ],
)
def test_what_cannot_be_signed(message: bytes, why: str) -> None:
    with pytest.raises(LocalProtocolError, match=why) as caught:
        make_signer().sign(message)
    assert caught.value.delivery is Delivery.NOT_SENT


SMALL = rsa.generate_private_key(65537, 1024)


def of(key, encryption=None) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("x.test", "s", of(SMALL, BestAvailableEncryption(b"secret"))), "encrypted"),
        (("x.test", "s", of(dsa.generate_private_key(1024))), "neither RSA nor Ed25519"),
        (("x.test", "s", b"/etc/dkim/key.pem"), "not its name"),
        (("x.test", "s", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), "cannot be read"),
        (("x.test", "s", pem("rsa")[:200]), "cannot be read"),
        (("test", "s", pem("rsa")), "not a domain"),
        (("x.test; d=y.test", "s", pem("rsa")), "not a domain"),
        (("x..test", "s", pem("rsa")), "not a domain"),
        (("ü" * 70 + ".test", "s", pem("rsa")), "not a domain"),
        (("x.test", "s\r\n", pem("rsa")), "not a selector"),
        (("x.test", "", pem("rsa")), "not a selector"),
    ],
)
def test_wrong_arguments(arguments, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        Signer(*arguments)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"identity": "me@y.test"}, "not in x.test"),
        ({"identity": "me@evilx.test"}, "not in x.test"),
        ({"identity": "me"}, "not an identity"),
        ({"identity": "m;e@x.test"}, "not an identity"),
        ({"identity": "ü@x.test"}, "not an identity"),
        ({"identity": "A" * 60 + "@x.test"}, "lower case"),
        ({"headers": ["Received"]}, "must not be signed"),
        ({"headers": ["DKIM-Signature"]}, "must not be signed"),
        ({"headers": ["Sub:ject"]}, "not the name"),
        ({"headers": ["Sub;ject"]}, "not the name"),
        ({"headers": [""]}, "not the name"),
    ],
)
def test_wrong_options(options, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        make_signer(**options)


@pytest.mark.parametrize(
    "arguments", [(b"x.test", "s", pem("rsa")), ("x.test", None, pem("rsa")), ("x.test", "s", private_key("rsa"))]
)
def test_wrong_types(arguments) -> None:
    with pytest.raises(TypeError):
        Signer(*arguments)


@pytest.mark.parametrize("options", [{"headers": "From"}, {"headers": [b"From"]}, {"identity": b"me@x.test"}])
def test_wrong_types_of_options(options) -> None:
    with pytest.raises(TypeError):
        make_signer(**options)


def test_the_least_key_there_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    assert b"a=rsa-sha256" in Signer("x.test", "s", of(SMALL)).sign(MESSAGE)
    monkeypatch.setattr("trio_smtp.dkim._signer._LEAST_BITS", 1025)
    with pytest.raises(ValueError, match="at least 1025 bits"):
        Signer("x.test", "s", of(SMALL))


def test_the_key_is_never_shown() -> None:
    key = of(SMALL)
    assert repr(Signer("x.test", "s1", key)) == "<trio_smtp.dkim.Signer s1._domainkey.x.test, rsa-sha256>"
    broken = key.replace(b"M", b"!", 1)
    try:
        Signer("x.test", "s", broken)
    except ValueError:
        shown = traceback.format_exc()
        assert key.splitlines()[3].decode() not in shown
    else:
        raise AssertionError("a broken key was taken")


def test_names_that_unsubscribing_by_one_click_needs() -> None:
    assert {"From", "List-Unsubscribe", "List-Unsubscribe-Post"} <= set(DEFAULT_HEADERS)
