# Header fields: what is read back is what was meant, on every Python; and what is no text is never an encoded word.
from __future__ import annotations

import email
from email.header import Header
from email.headerregistry import Address, Group
from email.message import EmailMessage, Message
from email.mime.text import MIMEText
from email.policy import Policy, default
from email.utils import make_msgid
from typing import Any

import pytest
from growth import assert_no_square
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from message_objects import DOMAINS, POLICIES, addresses, names_and_addresses, policies, said_by, sources, texts

from trio_smtp import ExtensionNotSupportedError, LocalProtocolError
from trio_smtp._message.fields import KINDS, Kind, check_name, is_raw_utf8, write_field
from trio_smtp._message.identifiers import ascii_uris
from trio_smtp._message.serializer import serialize
from trio_smtp._message.target import Target

ASCII = Target(eight_bit=True, utf8=False)
UTF8 = Target(eight_bit=True, utf8=True)
SEVEN = Target(eight_bit=False, utf8=False)
thoroughly = settings(suppress_health_check=list(HealthCheck), deadline=None)


def written(message: Message[Any, Any], *, utf8: bool = False) -> bytes:
    return serialize(message, eight_bit=True, utf8=utf8)


def read(octets: bytes) -> EmailMessage:
    for line in octets.split(b"\r\n\r\n")[0].split(b"\r\n"):
        assert line.strip()
        assert len(line) <= 998
    return email.message_from_string(octets.decode(), policy=default)


def field(name: str, value: str, target: Target = ASCII) -> str:
    """A field of an EmailMessage."""
    message = EmailMessage()
    message[name] = value
    return write_field(name, message[name], target, 78).decode("utf-8", "surrogateescape")


def source(name: str, value: str, target: Target = ASCII) -> str:
    """A field that has a source."""
    return write_field(name, value, target, 78).decode("utf-8", "surrogateescape")


# -- properties


@given(
    text=texts,
    name=st.sampled_from(["Subject", "Comments", "X-Thing", "Content-Description"]),
    utf8=st.booleans(),
    policy=policies,
)
@thoroughly
def test_text_is_read_back_as_it_was_set(text: str, name: str, utf8: bool, policy: Policy[Any]) -> None:
    message = EmailMessage(policy) if policy.__class__ is default.__class__ else EmailMessage()
    try:
        message[name] = text
        meant = str(message[name])
    except Exception:  # the email package's own
        return
    try:
        octets = written(message, utf8=utf8)
    except LocalProtocolError as exc:
        too_long = any(len(word.encode()) > 900 for word in text.split())
        if "too long" in str(exc) and too_long and name == "X-Thing":
            return
        raise
    assert utf8 or octets.isascii()
    again = read(octets)
    assert again.keys() == [name]
    assert str(again[name]) == (meant if name != "X-Thing" or str(again[name]) == meant else meant.lstrip())


@given(
    people=st.lists(addresses, min_size=1, max_size=6),
    name=st.sampled_from(["To", "From", "Cc", "Reply-To"]),
    utf8=st.booleans(),
)
@thoroughly
def test_addresses_are_read_back_as_they_were_set(people: list[tuple[str, str, str]], name: str, utf8: bool) -> None:
    message = EmailMessage()
    try:
        message[name] = [Address(*person) for person in people]
    except Exception:  # the email package's own
        return
    meant = names_and_addresses(message, name)
    octets = written(message, utf8=utf8)
    assert utf8 or octets.isascii()
    assert names_and_addresses(read(octets), name) == [(n, u, d if utf8 else DOMAINS[d]) for n, u, d in meant]


@given(text=sources, name=st.sampled_from(["To", "From", "Cc"]), kind=st.sampled_from(["EmailMessage", "Message"]))
@thoroughly
def test_addresses_in_a_source_are_read_back_as_they_were_set(text: str, name: str, kind: str) -> None:
    composed = EmailMessage()
    composed[name] = text
    meant = [(n, u, DOMAINS.get(d, d)) for n, u, d in names_and_addresses(composed, name)]
    message: Message[Any, Any] = composed
    if kind == "Message":
        message = Message()
        message[name] = text
    octets = written(message)
    assert octets.isascii()
    assert names_and_addresses(read(octets), name) == meant


@given(name=texts, long=st.booleans())
@thoroughly
def test_a_file_name_is_read_back_as_it_was_set(name: str, long: bool) -> None:
    message = EmailMessage()
    try:
        message.add_header("Content-Disposition", "attachment", filename=name[:300] * (5 if long else 1))
        meant = message.get_filename()
    except Exception:  # the email package's own
        return
    again = read(written(message))
    assert again.get_content_disposition() == "attachment"
    assert again.get_filename() == meant


# -- what is no text

NOT_TEXT = {
    "References": " ".join(f"<{'r' * 60}{number}@{'h' * 60}.test>" for number in range(8)),
    "In-Reply-To": f"<{'i' * 120}@x.test>",
    "Message-ID": f"<{'i' * 120}@x.test>",
    "Content-ID": f"<{'c' * 120}@x.test>",
    "List-Unsubscribe": f"<https://x.test/{'u' * 300}>, <mailto:u@x.test?subject={'s' * 100}>",
    "List-Unsubscribe-Post": "List-Unsubscribe=One-Click" + "k" * 100,
    "List-Id": f"A list of things <{'l' * 100}.x.test>",
    "DKIM-Signature": f"v=1; a=rsa-sha256; d=x.test; s=k; h=from:to; bh={'h' * 44}; b={'b' * 344}",
    "ARC-Seal": f"i=1; a=rsa-sha256; d=x.test; s=k; cv=none; b={'b' * 344}",
    "Autocrypt": f"addr=a@x.test; prefer-encrypt=mutual; keydata={'k' * 800}",
    "X-SMTPAPI": f'{{"to": ["{"t" * 200}@x.test"], "category": "{"c" * 300}"}}',
    "X-Mailgun-Variables": f'{{"id":"{"v" * 400}"}}',
    "Received": f"from {'h' * 100}.test by y.test; Thu, 01 Jan 2026 00:00:00 +0000",
    "Authentication-Results": f"x.test; dkim=pass header.d={'d' * 100}.test",
    "Feedback-ID": "f" * 200,
    "X-Anything": "x" * 900,
}


@pytest.mark.parametrize("policy", ["default", "SMTP", "SMTPUTF8", "short lines", "tiny lines", "lines without end"])
@pytest.mark.parametrize("name", NOT_TEXT)
def test_a_field_that_is_no_text_has_no_encoded_words(name: str, policy: str) -> None:
    message = EmailMessage(POLICIES[policy])
    message[name] = NOT_TEXT[name]
    octets = written(message)
    assert b"=?" not in octets
    assert octets.replace(b"\r\n", b"") == f"{name}: {NOT_TEXT[name]}".encode()
    assert str(read(octets)[name]) == NOT_TEXT[name]


def test_an_inline_image_is_found_by_its_identifier_whatever_the_hosts_name() -> None:
    cid = make_msgid(domain="a-host-name-of-many-characters.with.labels.x.test")
    message = EmailMessage()
    message.set_content("x\n")
    message.add_related(b"png", "image", "png", cid=cid)
    assert f"Content-ID: {cid}\r\n".encode() in written(message)


def test_base64_that_is_too_long_for_a_line_is_folded_where_that_has_no_meaning() -> None:
    key = "k" * 3000
    octets = field("Autocrypt", f"addr=a@x.test; keydata={key}")
    assert read(octets.encode() + b"\r\n")["Autocrypt"].replace(" ", "") == f"addr=a@x.test;keydata={key}"
    octets = field("DKIM-Signature", f"v=1;b={'b' * 1500};s=k")
    assert read(octets.encode() + b"\r\n")["DKIM-Signature"].replace(" ", "") == f"v=1;b={'b' * 1500};s=k"


@pytest.mark.parametrize("name", ["References", "X-SMTPAPI", "Date", "Autocrypt"])
def test_a_word_that_is_too_long_for_a_line_is_refused_where_it_cannot_be_encoded(name: str) -> None:
    message: Message[Any, Any] = Message()
    message[name] = "w" * 999
    with pytest.raises(LocalProtocolError, match=f"the field {name} has a word that is too long"):
        written(message)
    message.replace_header(name, "w" * (996 - len(name)))
    assert b"w" * (996 - len(name)) in written(message)


def test_a_source_with_a_line_that_is_too_long_is_folded_at_its_white_space() -> None:
    value = " ".join(["word"] * 300)
    for name in ("Subject", "X-A", "To"):
        octets = source(name, value)
        assert len(octets.split("\r\n")[0]) < 80
        assert octets.replace("\r\n", "") == f"{name}: {value}"
    subject = source("Subject", "=?utf-8?q?=C3=BC?= " + "w" * 1200)
    assert said_by(subject.encode() + b"\r\n", "Subject") == "ü" + " " + "w" * 1200


# -- addresses


@pytest.mark.parametrize("name", ["To", "From", "Cc", "Reply-To"])
def test_a_long_quoted_name_with_a_comma_stays_one_address(name: str) -> None:
    long = "Doe, John, Department of Very Long Names and of Names that are Longer Still, Example Company, Inc."
    octets = field(name, f'"{long}" <b@x.test>, "Roe, Jane" <c@x.test>')
    again = read(octets.encode() + b"\r\n")
    assert names_and_addresses(again, name) == [(long, "b", "x.test"), ("Roe, Jane", "c", "x.test")]


@pytest.mark.parametrize("kind", ["str", "one Header", "Header in pieces", "EmailMessage"])
def test_an_address_stands_outside_the_encoded_word_and_its_domain_is_ascii(kind: str) -> None:
    value = "Jürgen, Größe <j@münchen.de>" if kind != "EmailMessage" else '"Jürgen, Größe" <j@münchen.de>'
    message: Message[Any, Any] = EmailMessage() if kind == "EmailMessage" else MIMEText("x")
    if kind == "str":
        value = '"Jürgen, Größe" <j@münchen.de>'
        message["From"] = value
    elif kind == "one Header":
        message["From"] = Header('"Jürgen, Größe" <j@münchen.de>', "utf-8")
    elif kind == "Header in pieces":
        header = Header("Jürgen, ", "utf-8")
        header.append("Größe", "iso-8859-1")
        header.append("<j@xn--mnchen-3ya.de>", "us-ascii")
        message["From"] = header
    else:
        message["From"] = value
    octets = written(message)
    assert b"<j@xn--mnchen-3ya.de>" in octets
    assert names_and_addresses(read(octets), "From") == [("Jürgen, Größe", "j", "xn--mnchen-3ya.de")]


def test_groups_comments_and_old_forms_are_kept() -> None:
    message = EmailMessage()
    message["To"] = [
        Group("Größe", [Address("B, b", "b", "x.test"), Address("", "c", "x.test")]),
        Address("", "d", "x.test"),
    ]
    assert field("Cc", "undisclosed:;") == "Cc: undisclosed:;\r\n"
    assert field("Cc", "a@x.test (Joe), b@x.test") == "Cc: a@x.test (Joe), b@x.test\r\n"
    assert field("Cc", "no address") == "Cc: no address\r\n"
    [group, single] = read(written(message))["To"].groups
    assert (group.display_name, [a.display_name for a in group.addresses]) == ("Größe", ["B, b", ""])
    assert single.addresses[0].addr_spec == "d@x.test"


@pytest.mark.parametrize("name", ["To", "Disposition-Notification-To", "Message-ID", "References"])
@pytest.mark.parametrize("kind", [EmailMessage, Message])
def test_a_local_part_that_is_not_ascii_is_refused_where_the_server_takes_none(
    name: str, kind: type[Message[Any, Any]]
) -> None:
    message = kind()
    message[name] = "<jürgen@x.test>"
    with pytest.raises(LocalProtocolError, match="SMTPUTF8") as caught:
        written(message)
    assert isinstance(caught.value, ExtensionNotSupportedError)
    assert "jürgen@x.test".encode() in written(message, utf8=True)


@pytest.mark.parametrize("name", ["Message-ID", "References", "Content-ID", "In-Reply-To"])
def test_the_domain_of_a_message_identifier_becomes_ascii(name: str) -> None:
    assert source(name, "<a@münchen.de> <b@x.test>") == f"{name}: <a@xn--mnchen-3ya.de> <b@x.test>\r\n"


def test_an_address_that_cannot_be_one_is_refused() -> None:
    message = EmailMessage()
    message["To"] = Address("", "a", "x.test")
    for username, domain in (("a\tb", "x.test"), ("a", "x y"), ("a", "é…")):
        message["To"].addresses[0]._username = username
        message["To"].addresses[0]._domain = domain
        with pytest.raises(LocalProtocolError):
            written(message)


@pytest.mark.parametrize("text", ["<", '<"', "(", "[", "ü ", '"\\', ";"])
@pytest.mark.parametrize("name", ["To", "Content-Type", "List-Id", "References", "Subject", "X-A"])
def test_text_that_is_made_for_it_takes_no_longer(name: str, text: str) -> None:
    def write(size: int) -> None:
        many = text * (size // len(text))
        for value in (many + "ü", "ü" + many, many + "ü@" + "ü" * size):
            try:
                source(name, value)
            except LocalProtocolError:
                pass

    assert_no_square(write, 2000)


# -- the rest


def test_adjacent_encoded_words_keep_the_space_between_them() -> None:
    for text in ("Grüße Müller", "größe " * 30 + "x", "日本 語" * 20, "a ü b ü  ü c", " ü "):
        octets = field("Subject", text).encode() + b"\r\n"
        assert str(read(octets)["Subject"]) == text
        assert said_by(octets, "Subject").strip() == text.strip()
        assert all(len(line) <= 76 for line in octets.split(b"\r\n"))


def test_uris_are_ascii_and_the_text_around_them_is_encoded() -> None:
    assert source("List-Unsubscribe", "<https://münchen.de/ü?x=ü>") == (
        "List-Unsubscribe: <https://xn--mnchen-3ya.de/%C3%BC?x=%C3%BC>\r\n"
    )
    assert source("List-Id", "Größe <l.x.test>") == "List-Id: =?utf-8?q?Gr=C3=B6=C3=9Fe?= <l.x.test>\r\n"


@pytest.mark.parametrize(
    ("uri", "written_as"),
    [
        ("mailto:ü@x.test", "mailto:%C3%BC@x.test"),
        ("https://ü…/", "https://%C3%BC%E2%80%A6/"),
        (f"https://{'ü' * 300}/", f"https://{'%C3%BC' * 300}/"),
        ("https://ü@x.test:1/?q#ü", "https://%C3%BC@x.test:1/?q#%C3%BC"),
    ],
)
def test_an_iri_of_another_kind_is_escaped(uri: str, written_as: str) -> None:
    octets = source("Archived-At", f"<{uri}>") if len(written_as) < 900 else ""
    assert octets in ("", f"Archived-At: <{written_as}>\r\n")
    assert ascii_uris(f"<{uri}>") == f"<{written_as}>"


def test_odd_sources_of_addresses() -> None:
    assert source("To", "ü) <a@x.test>") == "To: =?utf-8?q?=C3=BC?= ) <a@x.test>\r\n"
    assert source("To", "Jü Bär a@x.test") == "To: =?utf-8?q?J=C3=BC_B=C3=A4r?= a@x.test\r\n"
    assert source("To", '"a b"@münchen.de') == 'To: "a b"@xn--mnchen-3ya.de\r\n'
    assert source("To", "a (open ü") == "To: a (=?utf-8?q?open_=C3=BC?=)\r\n"
    assert source("To", "a @ münchen.de (c)") == "To: a@xn--mnchen-3ya.de (c)\r\n"
    for bad in ("a@" + "ü" * 2000, "a@ü…", '"ü"@x.test'):
        with pytest.raises(LocalProtocolError):
            source("To", bad)


def test_an_address_object_without_a_local_part_or_a_domain() -> None:
    message = EmailMessage()
    message["To"] = [Address("", "", "x.test"), Address("", "a"), Address("A"), Address("", 'a"b c', "x.test")]
    assert written(message) == b'To: ""@x.test, a, A <>, "a\\"b c"@x.test\r\n\r\n'


def test_text_in_utf8_with_octets_of_another_kind() -> None:
    raw = "ü ".encode() + b"\xfc"
    text = raw.decode("ascii", "surrogateescape")
    assert source("Subject", text + " " + "w" * 1000, UTF8).startswith("Subject: ")
    assert write_field("X", "ü \udcfc " + "w " * 600, UTF8, 78).startswith("X: ü =?unknown-8bit?q?=FC?= w".encode())


def test_keywords_are_encoded_one_by_one() -> None:
    assert source("Keywords", "eins, größe, drei") == "Keywords: eins, =?utf-8?q?gr=C3=B6=C3=9Fe?=, drei\r\n"


def test_octets_in_an_unknown_encoding_stay_or_say_so() -> None:
    raw = b"gr\xfc\xdfe".decode("ascii", "surrogateescape")
    assert source("Subject", raw).encode("utf-8", "surrogateescape") == b"Subject: gr\xfc\xdfe\r\n"
    assert source("Subject", raw, UTF8).encode("utf-8", "surrogateescape") == b"Subject: gr\xfc\xdfe\r\n"
    assert source("Subject", raw, SEVEN) == "Subject: =?unknown-8bit?q?gr=FC=DFe?=\r\n"
    assert source("To", f"{raw} <a@x.test>", SEVEN) == "To: =?unknown-8bit?q?gr=FC=DFe?= <a@x.test>\r\n"
    assert source("Content-Type", f"a/b; name={raw}", SEVEN) == "Content-Type: a/b; name*=unknown-8bit''gr%FC%DFe\r\n"
    with pytest.raises(LocalProtocolError):
        source("To", f"{raw}@x.test", SEVEN)


def test_a_header_of_an_older_message_that_is_copied_keeps_its_octets() -> None:
    parsed = email.message_from_bytes(b"Subject: gr\xfc\xdfe\r\n\r\n")
    message: Message[Any, Any] = Message()
    message["Subject"] = parsed["Subject"]
    assert isinstance(message["Subject"], Header)
    assert written(message) == b"Subject: =?unknown-8bit?q?gr=FC=DFe?=\r\n\r\n"


@pytest.mark.parametrize("value", [None, 5, b"x", object(), ["a"], True])
def test_a_value_of_the_wrong_type_is_refused(value: Any) -> None:
    with pytest.raises(LocalProtocolError, match="the field X is a"):
        write_field("X", value, ASCII, 78)


@pytest.mark.parametrize("value", ["a\ud800b", "\udcff\ud800"])
def test_a_lone_surrogate_is_refused(value: str) -> None:
    for name in ("Subject", "To", "X"):
        with pytest.raises(LocalProtocolError, match="surrogate"):
            source(name, value)


@pytest.mark.parametrize("name", ["", "a b", "a:b", "ü", "a\nb", "\x7f", None, 5, b"X"])
def test_a_name_that_is_none_is_refused(name: Any) -> None:
    with pytest.raises(LocalProtocolError, match="no name of a header field"):
        check_name(name)
    assert check_name("X-Fine_Name!") == "X-Fine_Name!"


@pytest.mark.parametrize("end", ["\r\n", "\n", "\r"])
def test_line_ends_that_fold_become_cr_lf(end: str) -> None:
    assert source("Subject", f"a{end} b{end}\tc") == "Subject: a\r\n b\r\n\tc\r\n"
    for bad in (f"a{end}b", f"a{end}", f"a{end}{end} b"):
        with pytest.raises(LocalProtocolError, match="line end"):
            source("Subject", bad)


def test_what_counts_as_utf8_that_was_parsed() -> None:
    parsed = "ü".encode().decode("ascii", "surrogateescape")
    assert is_raw_utf8(parsed)
    for value in ("ü", "u", "\udcff", "\ud800", None, Header(parsed)):
        assert not is_raw_utf8(value)


def test_names_in_the_table_are_in_lower_case() -> None:
    assert all(name == name.lower() for name in KINDS)
    assert set(KINDS.values()) == set(Kind) - {Kind.OTHER}
