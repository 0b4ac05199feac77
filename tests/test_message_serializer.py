# The serialiser: the structure of a message object, and what becomes of it for servers that take less.
from __future__ import annotations

import email
from email.message import EmailMessage, Message
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from email.policy import Policy, compat32, default
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from message_objects import POLICIES, built_by_hand, policies, raw_messages, well_formed

from trio_smtp import Delivery, ExtensionNotSupportedError, LocalProtocolError
from trio_smtp._message import serializer
from trio_smtp._message.header_envelope import envelope_of, header_needs_utf8
from trio_smtp._message.serializer import IN_THREAD, MAX_DEPTH, serialize, survey

KINDS = ["default", "compat32"]
thoroughly = settings(suppress_health_check=list(HealthCheck), deadline=None)


def lines_are_right(octets: bytes, *, is_ascii: bool) -> None:
    for line in octets.split(b"\r\n"):
        assert len(line) <= 998
        assert b"\r" not in line
        assert b"\n" not in line
    assert not is_ascii or octets.isascii()


def parsed(octets: bytes | str, policy: str = "compat32") -> Message[Any, Any]:
    octets = octets.encode() if isinstance(octets, str) else octets
    return email.message_from_bytes(octets.replace(b"\n", b"\r\n"), policy=POLICIES[policy])


def parts_of(message: Message[Any, Any]) -> list[Message[Any, Any]]:
    assert message.is_multipart()
    return message.get_payload()  # type: ignore[return-value]


def seven_bit(message: Message[Any, Any]) -> bytes:
    return serialize(message, eight_bit=False, utf8=False)


def eight_bit(message: Message[Any, Any]) -> bytes:
    return serialize(message, eight_bit=True, utf8=False)


# -- whatever comes


@given(message=built_by_hand(), takes_eight_bit=st.booleans(), utf8=st.booleans())
@thoroughly
def test_whatever_a_message_holds_it_is_written_or_a_local_protocol_error(
    message: Message[Any, Any], takes_eight_bit: bool, utf8: bool
) -> None:
    refusals: list[LocalProtocolError] = []
    for ask in (envelope_of, header_needs_utf8, survey):
        try:
            ask(message)
        except LocalProtocolError as exc:
            refusals.append(exc)
    try:
        octets = serialize(message, eight_bit=takes_eight_bit, utf8=utf8)
    except LocalProtocolError as exc:
        refusals.append(exc)
    else:
        lines_are_right(octets, is_ascii=not takes_eight_bit and not utf8)
    assert all(refusal.delivery is Delivery.NOT_SENT for refusal in refusals)


def shape(message: Message[Any, Any]) -> list[tuple[str, bool]]:
    return [(part.get_content_type(), part.is_multipart()) for part in message.walk()]


@given(raw=raw_messages, policy=policies, takes_eight_bit=st.booleans(), utf8=st.booleans())
@thoroughly
def test_what_can_be_parsed_keeps_its_structure(
    raw: bytes, policy: Policy[Any], takes_eight_bit: bool, utf8: bool
) -> None:
    try:
        message = email.message_from_bytes(raw, policy=policy)
        before = shape(message)
    except Exception:  # the email package's own
        return
    try:
        octets = serialize(message, eight_bit=takes_eight_bit, utf8=utf8)
    except LocalProtocolError:
        return
    lines_are_right(octets, is_ascii=not takes_eight_bit and not utf8)
    assert shape(email.message_from_bytes(octets, policy=policy)) == before


def leaves(message: EmailMessage) -> list[tuple[str, str | None, str | None, Any]]:
    """Type, name, identifier and content of the parts; line ends count as one kind."""
    found = []
    for part in message.walk():
        if not part.is_multipart():
            content = part.get_content()
            found.append((part.get_content_type(), part.get_filename(), part["Content-ID"], content))
    return [
        (kind, name, cid, str(c).replace("\r\n", "\n") if isinstance(c, str) else c) for kind, name, cid, c in found
    ]


@given(message=well_formed(), takes_eight_bit=st.booleans())
@thoroughly
def test_a_composed_message_is_read_back_as_it_was_meant(message: EmailMessage, takes_eight_bit: bool) -> None:
    octets = serialize(message, eight_bit=takes_eight_bit, utf8=False)
    lines_are_right(octets, is_ascii=not takes_eight_bit)
    again = email.message_from_bytes(octets, policy=default)
    assert shape(again) == shape(message)
    assert leaves(again) == leaves(message)
    assert [part["Subject"] for part in again.walk()] == [part["Subject"] for part in message.walk()]


@given(message=well_formed(), takes_eight_bit=st.booleans())
@thoroughly
def test_the_object_is_left_as_it_was(message: EmailMessage, takes_eight_bit: bool) -> None:
    before = [(list(part._headers), repr(part._payload)) for part in message.walk()]  # type: ignore[attr-defined]
    serialize(message, eight_bit=takes_eight_bit, utf8=False)
    after = [(list(part._headers), repr(part._payload)) for part in message.walk()]  # type: ignore[attr-defined]
    assert after == before


# -- what was parsed goes out as it came

AS_IT_CAME = """\
Received: from a.test by b.test; Thu, 01 Jan 2026 00:00:00 +0000
DKIM-Signature: v=1; a=rsa-sha256; d=x.test;\ts=k; h=from:to; bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=; b=abc
Received: from c.test
  (c.test [192.0.2.1])
\tby a.test
Resent-From: z@x.test
Resent-Date: Thu, 01 Jan 2026 00:00:00 +0000
From: "A  B"   <a@x.test>,b@x.test
To: c@x.test (a comment)
Subject: =?iso-8859-1?q?gr=FC=DFe?=   and  =?utf-8?b?w7w=?=
  folded here and a line of more than seventy-eight characters which stays as long as it was before it was parsed
MIME-Version: 1.0
Content-Type: multipart/mixed;boundary = "b";
   charset=utf-8

A preamble

--b
Content-Type: text/plain; charset="iso-8859-1"

one

--b
content-transfer-encoding: BASE64
Content-Type: application/pdf; name=a b.pdf

QUJD
REVG==

--b
Content-Type: message/rfc822

Bcc: hidden@x.test
Subject: inner
Content-Type: multipart/alternative; boundary=c

--c

two
--c
Content-Type: text/html

<p>

--c--

--b
Content-Type: message/delivery-status

Reporting-MTA: dns; x.test

Final-Recipient: rfc822; a@x.test
Status: 5.1.1

--b--
An epilogue
"""


@pytest.mark.parametrize("policy", POLICIES)
def test_a_parsed_message_goes_out_octet_for_octet(policy: str) -> None:
    source = AS_IT_CAME
    if policy == "strict":
        source = source.replace("name=a b.pdf", "name=a.pdf")
    wanted = source.replace("\n", "\r\n").encode()
    message = email.message_from_bytes(wanted, policy=POLICIES[policy])
    for takes_eight_bit in (False, True):
        assert serialize(message, eight_bit=takes_eight_bit, utf8=False) == wanted
    unix = email.message_from_bytes(source.encode(), policy=POLICIES[policy])
    assert serialize(unix, eight_bit=True, utf8=False) == wanted


@pytest.mark.parametrize("policy", KINDS)
def test_raw_utf8_stays_where_the_server_takes_it(policy: str) -> None:
    source = 'From: Jürgen <j@x.test>\r\nSubject: Grüße\r\nContent-Type: text/plain; name="ü"\r\n\r\nhällo\r\n'.encode()
    message = email.message_from_bytes(source, policy=POLICIES[policy])
    assert serialize(message, eight_bit=True, utf8=True) == source
    assert survey(message) == (False, True)


def test_trace_and_resent_fields_keep_their_order() -> None:
    message = EmailMessage()
    order = ["Received", "Resent-Date", "Resent-From", "Received", "Resent-To", "X-A", "Date", "From", "X-A"]
    for number, name in enumerate(order):
        value = "Thu, 01 Jan 2026 00:00:00 +0000" if name.endswith("Date") else f"a{number}@x.test"
        message[name] = value
    header = eight_bit(message).split(b"\r\n")
    assert [line.partition(b":")[0].decode() for line in header if line] == order


def test_only_the_bcc_of_the_message_itself_is_left_out() -> None:
    inner = EmailMessage()
    inner["Bcc"] = "inner@x.test"
    inner.set_content("hi\n")
    message = EmailMessage()
    message["bcc"], message["Resent-Bcc"], message["To"] = "one@x.test", "two@x.test", "three@x.test"
    message.set_content("hi\n")
    message.add_attachment(inner)
    octets = eight_bit(message)
    assert b"inner@x.test" in octets
    assert b"one@x.test" not in octets
    assert b"two@x.test" not in octets
    assert message["bcc"] == "one@x.test"


# -- parts


@pytest.mark.parametrize("kind", ["EmailMessage", "MIMEMultipart"])
def test_a_multipart_without_a_boundary_gets_one(kind: str) -> None:
    message: Message[Any, Any] = EmailMessage() if kind == "EmailMessage" else MIMEMultipart()
    if isinstance(message, EmailMessage):
        message.make_mixed()
    message.attach(MIMEText("one"))
    message.attach(MIMEText("two"))
    again = email.message_from_bytes(eight_bit(message))
    assert [part.get_payload() for part in parts_of(again)] == ["one", "two"]
    assert message.get_boundary() is None


@pytest.mark.parametrize("preamble", [None, "--sep", "before\n--sep--\nafter"])
def test_a_boundary_that_stands_in_the_text_is_replaced(preamble: str | None) -> None:
    message = MIMEMultipart(boundary="sep")
    message.preamble = preamble
    message.attach(MIMEText("one\n--sep\nnot a part\n--sep--\nthe end"))
    message.attach(MIMEText("two"))
    again = email.message_from_bytes(eight_bit(message))
    assert [part.get_payload() for part in parts_of(again)] == [
        "one\r\n--sep\r\nnot a part\r\n--sep--\r\nthe end",
        "two",
    ]


@pytest.mark.parametrize("boundary", ["ü", "a\x01b", "ends with a space ", "b" * 950])
def test_a_boundary_that_cannot_be_written_is_replaced(boundary: str) -> None:
    message = MIMEMultipart()
    message.attach(MIMEText("one"))
    del message["Content-Type"]
    kind = f'multipart/mixed; type="text/plain"; boundary="{boundary}"'
    message._headers.append(("Content-Type", kind))  # type: ignore[attr-defined]
    again = email.message_from_bytes(seven_bit(message))
    assert [part.get_payload() for part in parts_of(again)] == ["one"]
    assert again.get_param("type") == "text/plain"


def test_a_multipart_without_parts_has_an_empty_one() -> None:
    again = email.message_from_bytes(eight_bit(MIMEMultipart()))
    assert [part.get_payload() for part in parts_of(again)] == [""]


KINDS_OF_PART = ["text/plain", "multipart/mixed", "message/rfc822", "message/delivery-status"]
WRONG: list[Any] = [5, object(), {}, ["text"], [None], [MIMEText("a"), 5], ("a",), "a\ud800b"]
SEVERAL = [MIMEText("a"), MIMEText("b")]


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        *((kind, payload) for kind in KINDS_OF_PART for payload in WRONG),
        ("text/plain", SEVERAL),
        ("message/rfc822", SEVERAL),
    ],
)
def test_a_payload_of_the_wrong_type_is_refused(kind: str, payload: Any) -> None:
    message: Message[Any, Any] = Message()
    message["Content-Type"] = kind
    message._payload = payload  # type: ignore[attr-defined]
    with pytest.raises(LocalProtocolError, match="cannot be written") as caught:
        eight_bit(message)
    assert caught.value.delivery is Delivery.NOT_SENT


@pytest.mark.parametrize("payload", [None, "", []])
def test_no_payload_is_an_empty_body(payload: Any) -> None:
    message: Message[Any, Any] = Message()
    message["Content-Type"] = "message/rfc822" if payload == [] else "text/plain"
    message._payload = payload  # type: ignore[attr-defined]
    assert eight_bit(message).endswith(b"\r\n\r\n")


def test_a_message_in_a_message_without_a_list_around_it() -> None:
    message: Message[Any, Any] = Message()
    message["Content-Type"] = "message/rfc822"
    message.set_payload(MIMEText("inner"))
    assert eight_bit(message).endswith(b"\r\n\r\ninner")


def test_a_part_inside_itself_is_refused() -> None:
    message = MIMEMultipart()
    inner = MIMEMultipart()
    message.attach(inner)
    inner.attach(message)
    assert survey(message) == (False, False)
    with pytest.raises(LocalProtocolError, match="without end"):
        eight_bit(message)


def test_depth_costs_no_recursion_and_has_a_limit() -> None:
    def nested(depth: int) -> MIMEMultipart:
        message = MIMEMultipart(boundary="b0")
        for number in range(1, depth):
            outer = MIMEMultipart(boundary=f"b{number}")
            outer.attach(message)
            message = outer
        return message

    assert eight_bit(nested(MAX_DEPTH)).count(b"multipart/mixed") == MAX_DEPTH
    with pytest.raises(LocalProtocolError, match="without end"):
        eight_bit(nested(MAX_DEPTH + 1))


def test_parts_have_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    message = MIMEText("x")
    outer: Message[Any, Any] = message
    for number in range(40):  # 2 ** 40 parts
        inner, outer = outer, MIMEMultipart(boundary=f"b{number}")
        outer.attach(inner)
        outer.attach(inner)
    monkeypatch.setattr(serializer, "MAX_PARTS", 1000)
    with pytest.raises(LocalProtocolError, match="more than 1000 parts"):
        eight_bit(outer)


# -- for a server without 8BITMIME

EIGHT_BIT = {
    "octet-stream": b"Content-Type: application/octet-stream\nContent-Transfer-Encoding: 8bit\n\n\xff\xfe\x80\n",
    "html without charset": b"Content-Type: text/html\n\n<p>\xfc</p>\n",
    "text without charset": b"Content-Type: text/plain\n\ngr\xfc\xdfe\n",
    "no content type": b"Subject: x\n\ngr\xfc\xdfe\n",
    "labelled us-ascii": b"Content-Type: text/plain; charset=us-ascii\n\ngr\xc3\xbc\xc3\x9fe\n",
    "unknown charset": b"Content-Type: text/plain; charset=x-unknown\nContent-Transfer-Encoding: 8bit\n\ngr\xfc\xdfe\n",
    "charset of another kind": b"Content-Type: text/plain; charset=base64\n\ngr\xfc\xdfe\n",
    "mostly not ascii": b"Content-Type: text/plain; charset=utf-8\n\n" + "日本語".encode() * 50 + b"\n",
    "unknown encoding": b"Content-Type: text/plain\nContent-Transfer-Encoding: utf-8\n\ngr\xfc\xdfe\n",
    "binary": b"Content-Type: image/png\nContent-Transfer-Encoding: binary\n\n\x89PNG\n\x1a\n\xff\n",
    "message": b"Content-Type: message/rfc822\nContent-Transfer-Encoding: 8bit\n\nSubject: x\n\ngr\xfc\xdfe\n",
    "multipart": b"Content-Type: multipart/mixed; boundary=b\nContent-Transfer-Encoding: 8bit\n"
    b"\n\xff\n--b\n\n\xfc\n--b--\n\xff\n",
}


@pytest.mark.parametrize("policy", KINDS)
@pytest.mark.parametrize("kind", EIGHT_BIT)
def test_eight_bit_text_is_encoded_for_a_server_that_takes_none(kind: str, policy: str) -> None:
    message = parsed(EIGHT_BIT[kind], policy)
    octets = seven_bit(message)
    lines_are_right(octets, is_ascii=True)
    again = email.message_from_bytes(octets, policy=POLICIES[policy])
    assert shape(again) == shape(message)
    before = [part.get_payload(decode=True) for part in message.walk() if not part.is_multipart()]
    assert [part.get_payload(decode=True) for part in again.walk() if not part.is_multipart()] == before
    assert eight_bit(message) == EIGHT_BIT[kind].replace(b"\n", b"\r\n")
    labels = [part.get_content_charset() for part in message.walk()]
    assert [part.get_content_charset() for part in again.walk()] == labels
    for part in again.walk():
        assert not part.is_multipart() or part["Content-Transfer-Encoding"] is None
    assert again["MIME-Version"] == "1.0" or again.is_multipart()


@pytest.mark.parametrize("policy", KINDS)
def test_quoted_printable_with_a_stray_octet_is_encoded_once(policy: str) -> None:
    message = parsed(
        b"Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: Quoted-Printable\n"
        b"\na=C3=BC\xc3\xbc=\nb =3D\n",
        policy,
    )
    again = email.message_from_bytes(seven_bit(message), policy=default)
    assert again.get_payload(decode=True) == "aüüb =\r\n".encode()


def test_base64_with_a_stray_octet_loses_it() -> None:
    message = parsed(b"Content-Type: image/png\nContent-Transfer-Encoding: base64\n\nQU\xffJD\nREVG\n")
    assert email.message_from_bytes(seven_bit(message)).get_payload(decode=True) == b"ABCDEF"


@pytest.mark.parametrize("policy", KINDS)
def test_an_attachment_with_a_raw_utf8_name_keeps_its_type_and_its_name(policy: str) -> None:
    message = parsed(
        'Content-Type: application/pdf; name="größe.pdf"\n'
        'Content-Disposition: attachment; size=3; filename="größe.pdf"\n'
        "Content-Transfer-Encoding: base64\n\nQUJD\n",
        policy,
    )
    for octets in (seven_bit(message), eight_bit(message)):
        assert octets.isascii()
        again = email.message_from_bytes(octets, policy=default)
        assert (again.get_content_type(), again.get_filename()) == ("application/pdf", "größe.pdf")
        assert again["Content-Disposition"].params["size"] == "3"


SIGNED = """\
Content-Type: multipart/signed; micalg=pgp-sha256; protocol="application/pgp-signature"; boundary=s

--s
Content-Type: text/plain;   charset=utf-8
X-Name: {field}
Content-Transfer-Encoding: 8bit

{body}
--s
Content-Type: application/pgp-signature

abc
--s--
"""


@pytest.mark.parametrize("policy", KINDS)
@pytest.mark.parametrize("text", [{"field": "x", "body": "grüße"}, {"field": "grüße", "body": "x"}])
def test_a_signed_part_is_sent_as_it_is_or_not_at_all(policy: str, text: dict[str, str]) -> None:
    message = parsed(SIGNED.format(**text), policy)
    assert eight_bit(message) == SIGNED.format(**text).replace("\n", "\r\n").encode()
    with pytest.raises(LocalProtocolError, match="8BITMIME") as caught:
        seven_bit(message)
    assert isinstance(caught.value, ExtensionNotSupportedError)
    assert caught.value.delivery is Delivery.NOT_SENT


@pytest.mark.parametrize(
    "text", [{"field": "x", "body": "b" * 999}, {"field": "y" * 999, "body": "x"}, {"field": "x", "body": "\0"}]
)
def test_a_signed_part_that_no_server_takes_is_refused(text: dict[str, str]) -> None:
    with pytest.raises(LocalProtocolError, match="signed part, which must stay as it is"):
        eight_bit(parsed(SIGNED.format(**text)))


def test_a_composed_signed_part_is_what_the_application_signed() -> None:
    part = EmailMessage()
    part["Subject"] = "a long subject, long enough to be folded by the email package " * 2 + "ü"
    part.set_content("hällo\n", cte="quoted-printable")
    signed = part.as_bytes(policy=part.policy.clone(linesep="\r\n"))
    message = MIMEMultipart("signed", boundary="s")
    message.attach(part)
    assert b"--s\r\n" + signed + b"\r\n--s--" in eight_bit(message)
    part.policy = POLICIES["SMTPUTF8"]
    assert "ü".encode() in eight_bit(message)
    with pytest.raises(ExtensionNotSupportedError):
        seven_bit(message)


def test_a_multipart_under_a_signature_without_a_usable_boundary_is_refused() -> None:
    message = MIMEMultipart("signed", boundary="s")
    inner = MIMEMultipart()
    inner.attach(MIMEText("x"))
    message.attach(inner)
    with pytest.raises(LocalProtocolError, match="no boundary"):
        eight_bit(message)
    inner.set_boundary("t")
    assert b"--t--" in eight_bit(message)
    inner.preamble = "ü"
    with pytest.raises(ExtensionNotSupportedError):
        seven_bit(message)


def test_the_blocks_of_a_delivery_status_are_kept_apart() -> None:
    message: Message[Any, Any] = Message()
    message["Content-Type"] = "message/delivery-status"
    first, second = Message(), Message()
    first["Status"], second["Status"] = "5.0.0", "5.1.1"
    first.set_payload("no line end")
    message._payload = [first, second]  # type: ignore[attr-defined]
    assert eight_bit(message).endswith(b"\r\n\r\nStatus: 5.0.0\r\nno line end\r\n\r\nStatus: 5.1.1\r\n")
    second.set_payload(b"\xff")
    with pytest.raises(ExtensionNotSupportedError):
        seven_bit(message)


def test_characters_in_a_part_that_is_no_text_are_utf8() -> None:
    message: Message[Any, Any] = Message()
    message["Content-Type"], message["Content-Transfer-Encoding"] = "application/json", "8bit"
    message.set_payload('"ü"')
    assert eight_bit(message).endswith('json\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"ü"'.encode())


def test_a_header_that_the_email_package_cannot_read_is_no_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> str:
        raise IndexError

    message = MIMEMultipart(boundary="b")
    message.attach(MIMEText("x"))
    monkeypatch.setattr(MIMEMultipart, "get_content_maintype", fail)
    monkeypatch.setattr(MIMEMultipart, "get_boundary", fail)
    octets = eight_bit(message)
    monkeypatch.undo()
    assert [part.get_payload() for part in parts_of(email.message_from_bytes(octets))] == ["x"]


@pytest.mark.parametrize("kind", ["message/partial", "multipart/mixed", "message/delivery-status"])
def test_a_type_that_cannot_be_encoded_is_refused(kind: str) -> None:
    message: Message[Any, Any] = Message()
    message["Content-Type"] = kind
    message.set_payload(b"\xff\n")
    with pytest.raises(LocalProtocolError, match="8BITMIME"):
        seven_bit(message)
    assert eight_bit(message).endswith(b"\xff\r\n")


# -- what no server takes


@pytest.mark.parametrize("text", ["x" * 999, "a\0b"])
def test_long_lines_and_nul_are_encoded_for_every_server(text: str) -> None:
    message = MIMEText(f"{text}\n")
    octets = eight_bit(message)
    lines_are_right(octets, is_ascii=True)
    assert email.message_from_bytes(octets).get_payload(decode=True) == f"{text}\r\n".encode()
    assert b"x" * 998 + b"\r\n" in eight_bit(MIMEText("x" * 998 + "\n"))


@pytest.mark.parametrize("octets", [b"a\nb\rc\r\nd", b"\x89PNG\r\n\x1a\n\0"])
def test_binary_data_is_encoded_unless_it_has_the_lines_of_the_wire(octets: bytes) -> None:
    message = EmailMessage()
    message.set_content(octets, "image", "png", cte="binary")
    again = email.message_from_bytes(eight_bit(message), policy=default)
    assert again.get_content() == octets
    assert again["Content-Transfer-Encoding"] == "base64"
    message.set_content(b"\xff\r\n", "image", "png", cte="binary")
    assert b"Content-Transfer-Encoding: binary" in eight_bit(message)


def test_long_lines_and_eight_bit_octets_around_the_parts_are_cut_and_replaced() -> None:
    message = MIMEMultipart(boundary="b")
    message.attach(MIMEText("x"))
    message.preamble, message.epilogue = "p" * 2000 + "\0", "ü"
    octets = seven_bit(message)
    lines_are_right(octets, is_ascii=True)
    assert octets.count(b"p") > 2000


# -- characters


@pytest.mark.parametrize(
    ("label", "charset", "read"),
    [
        (None, None, "utf-8"),
        ("text/plain", None, "utf-8"),
        ("text/plain; charset=us-ascii", "us-ascii", "utf-8"),
        ("text/plain; charset=iso-8859-1; format=flowed", "iso-8859-1", "iso-8859-1"),
        ("text/plain; charset=x-unknown", "x-unknown", "utf-8"),
        ("text/plain; charset=utf-16", "utf-16", "utf-8"),
        ("text/plain; charset=hex", "hex", "utf-8"),
    ],
)
def test_characters_in_a_body_are_encoded_and_labelled(label: str | None, charset: str | None, read: str) -> None:
    message: Message[Any, Any] = Message()
    if label is not None:
        message["Content-Type"] = label
    message.set_payload("grüße\n")
    for octets in (eight_bit(message), seven_bit(message)):
        again = email.message_from_bytes(octets, policy=default)
        assert again.get_content_charset() == read
        assert again.get_payload(decode=True) == "grüße\r\n".encode(read)
        assert again["MIME-Version"] == "1.0"
        assert again["Content-Type"].params.get("format") == ("flowed" if label and "flowed" in label else None)
    assert eight_bit(message).endswith("grüße\r\n".encode(read))


# -- how much there is


def test_a_message_is_large_by_its_text_and_by_its_fields() -> None:
    message = EmailMessage()
    message.set_content("x\n")
    assert survey(message) == (False, False)
    message.add_attachment(b"x" * IN_THREAD, maintype="a", subtype="b")
    assert survey(message) == (True, False)
    many: Message[Any, Any] = Message()
    many._headers = [("X", "y")] * 2000  # type: ignore[attr-defined]
    assert survey(many) == (True, False)


def test_no_message_is_no_message() -> None:
    with pytest.raises(LocalProtocolError):
        eight_bit("text")  # type: ignore[arg-type]


def test_compat32_is_the_policy_for_a_message_in_text() -> None:
    message: Message[Any, Any] = Message(policy=compat32)
    message["Content-Type"] = "message/rfc822"
    message.set_payload(b"Subject: gr\xc3\xbc\xc3\x9fe\r\n\r\n\xff\r\n")
    again = email.message_from_bytes(seven_bit(message), policy=default)
    [inner] = again.iter_parts() if again.is_multipart() else [again]
    assert inner["Subject"] == "grüße"
    assert inner.get_payload(decode=True) == b"\xff\r\n"
