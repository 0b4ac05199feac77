"""Message objects for tests, made in every way there is, and what they say when they are read back."""

from __future__ import annotations

import email
import re
from email.header import Header, decode_header, make_header
from email.headerregistry import Address
from email.message import EmailMessage, Message
from email.policy import SMTP, SMTPUTF8, Policy, compat32, default
from typing import Any

from hypothesis import strategies as st

POLICIES: dict[str, Policy[Any]] = {
    "default": default,
    "SMTP": SMTP,
    "SMTPUTF8": SMTPUTF8,
    "compat32": compat32,
    "short lines": default.clone(max_line_length=40),
    "tiny lines": default.clone(max_line_length=1),
    "lines without end": default.clone(max_line_length=0),
    "no folding": compat32.clone(max_line_length=None),
    "7bit": default.clone(cte_type="7bit"),
    "strict": default.clone(raise_on_defect=True),
}
policies = st.sampled_from(sorted(POLICIES)).map(POLICIES.__getitem__)

# -- headers

_characters = st.sampled_from('abcdefgh  \t,;:"\\()<>@.=?_/üß日😀é-[]\x01\x7f\x85\u2028') | st.characters(
    codec="utf-8",
    exclude_characters="\0\n\r\v\f\x1c\x1d\x1e",  # those are refused: tests/test_content.py
)
_pieces = [
    "Hello",
    "World",
    "Grüße",
    "日本",
    "=?utf-8?q?x?=",
    "=?",
    "  ",
    "a" * 80,
    "ü" * 50,
    "Doe,",
    '"x"',
    "b" * 1200,
]
texts = st.text(_characters, max_size=150) | st.lists(st.sampled_from(_pieces), max_size=20).map(" ".join)
names = st.text(_characters, max_size=60) | texts.filter(lambda text: len(text) < 600)
local_parts = st.text(st.sampled_from('abc.+-_ "\\(),;:<>@'), min_size=1, max_size=20) | st.just("joe")
DOMAINS = {
    "example.com": "example.com",
    "münchen.de": "xn--mnchen-3ya.de",
    "[192.0.2.1]": "[192.0.2.1]",
    "日本.example": "xn--wgv71a.example",
}
addresses = st.tuples(names, local_parts, st.sampled_from(sorted(DOMAINS)))
SOURCES = [
    "a@b.example",
    "Joe <a@b.example>",
    '"Doe, J" <a@b.example>',
    "=?utf-8?q?J=C3=BC?= <a@b.example>",
    "(c) a@b.example",
    "a@b.example (c, d)",
    "Grp: a@b.example, d@e.example;",
    "Jü <a@b.example>",
    '"Jü, x" <a@b.example>',
    "Jü Bär =?utf-8?q?C?= Bö <a@b.example>",
    "Empty:;",
    '"q q"@b.example',
    "x@münchen.de",
    "x@b.example (ü)",
]
sources = st.lists(st.sampled_from(SOURCES), min_size=1, max_size=6).map(", ".join)


def names_and_addresses(message: Message[Any, Any], name: str) -> list[tuple[str, str, str]]:
    """Display name, local part and domain of each address of a field. White space in a name counts as one space."""
    found: list[Address] = list(message[name].addresses)
    return [(re.sub(r"\s+", " ", one.display_name), one.username, one.domain) for one in found]


def said_by(octets: bytes, name: str) -> str:
    """The text of a field, read by the older of the email package's two readers."""
    return str(make_header(decode_header(email.message_from_bytes(octets)[name])))


# -- whole messages

CONTENT_TYPES = [
    "text/plain",
    "text/plain; charset=utf-8",
    "text/html; charset=foo",
    "text/plain; charset=utf-16",
    "text/plain; charset*=utf-8''utf-8",
    "multipart/mixed",
    "multipart/signed",
    "multipart/digest",
    "multipart/mixed; boundary=x",
    'multipart/mixed; boundary="a b"',
    'multipart/mixed; boundary="ü"',
    "message/rfc822",
    "message/delivery-status",
    "message/partial",
    "application/octet-stream",
    'image/png; name="ü.png"',
    "junk",
]
ENCODINGS = ["7bit", "8bit", "binary", "base64", "quoted-printable", "x-uuencode", "utf-8", "BASE64", "", "foo"]
FIELDS = [
    *("Subject", "To", "From", "Content-Type", "Content-Disposition", "Content-Transfer-Encoding", "X-A", "Message-ID"),
    *("References", "Date", "MIME-Version", "Bcc", "Resent-To", "Resent-Date", "List-Id", "Keywords", "DKIM-Signature"),
    *("Autocrypt", "Content-ID", "Content-Description"),
]
_headers = st.builds(lambda text: Header(text, "utf-8"), st.text(st.sampled_from("aü<>@, "), max_size=30))
anything: st.SearchStrategy[Any] = st.one_of(
    *(st.none(), st.integers(), st.booleans(), st.binary(max_size=30), st.just(object()), st.just({}), _headers),
    *(st.text(max_size=40), st.text(st.sampled_from("a\ud800\udcff\udc80ü\r\n\t :"), max_size=20)),
    st.lists(st.none() | st.text(max_size=3), max_size=3),
)
bodies = st.text(st.sampled_from("a\n-ü\udcff\0 \r=.x"), max_size=60) | st.text(max_size=60) | st.just("x" * 2000)


@st.composite
def built_by_hand(draw: st.DrawFn, depth: int = 3) -> Message[Any, Any]:
    """A message with anything in it, also what does not belong there."""
    policy = draw(policies)
    message: Any = (
        Message() if policy.__class__ is compat32.__class__ else draw(st.sampled_from([EmailMessage, Message]))(policy)
    )
    for name, value in draw(
        st.lists(st.tuples(st.sampled_from(FIELDS) | st.text(max_size=5) | st.none(), anything), max_size=3)
    ):
        if draw(st.booleans()):
            _set(message, name, value)
        else:
            message._headers.append((name, value))
    if draw(st.booleans()):
        _set(message, "Content-Type", draw(st.sampled_from(CONTENT_TYPES)))
    if draw(st.booleans()):
        _set(message, "Content-Transfer-Encoding", draw(st.sampled_from(ENCODINGS)))
    kind = draw(st.sampled_from(["anything", "parts", "part", "text", "nothing"] if depth else ["anything", "text"]))
    if kind == "anything":
        message._payload = draw(anything)
    elif kind == "parts":
        message._payload = [draw(built_by_hand(depth=depth - 1)) for _ in range(draw(st.integers(0, 3)))]
    elif kind == "part":
        message._payload = draw(built_by_hand(depth=depth - 1))
    elif kind == "text":
        message._payload = draw(bodies)
    if draw(st.integers(0, 5)) == 0:
        message.preamble, message.epilogue = draw(anything), draw(anything)
    return message


def _set(message: Message[Any, Any], name: Any, value: Any) -> None:
    try:
        message[name] = value
    except Exception:  # an EmailMessage refuses much by itself
        pass


_lines = [
    *(b"Subject: x\r\n", b"Content-Type: multipart/mixed; boundary=b\r\n", b"Content-Type: message/rfc822\r\n"),
    *(
        b"\r\n",
        b"--b\r\n",
        b"--b--\r\n",
        b"text \xff\xc3\xbc\r\n",
        b"Content-Transfer-Encoding: 8bit\r\n",
        b"\xff: a\r\n",
    ),
    *(b"Content-Type: text/plain; charset=x\r\n", b"X: " + b"w" * 1200 + b"\r\n", b"y" * 1500 + b"\r\n", b" cont\r\n"),
    *(b"To: J\xc3\xbc <a@b.c>\r\n", b"Content-Type: message/delivery-status\r\n", b"From x\r\n", b"\0", b"\n"),
    *(b"Content-Type: multipart/signed; boundary=b\r\n", b"Content-Transfer-Encoding: base64\r\n", b"YWJj\xff\r\n"),
    *(b"Content-Disposition: attachment; filename=\xc3\xbc\r\n", b"Content-Transfer-Encoding: quoted-printable\r\n"),
]
raw_messages = st.lists(st.sampled_from(_lines), max_size=25).map(
    lambda lines: b"".join(lines).rstrip(b"\r\n") + b"\r\n"
)


@st.composite
def well_formed(draw: st.DrawFn, depth: int = 2) -> EmailMessage:
    """A message as an application composes one."""
    message = EmailMessage(policy=draw(st.sampled_from([default, SMTP, SMTPUTF8])))
    body = (
        draw(st.text(st.sampled_from("abc äöü日\t.-="), max_size=200))
        + "\n"
        + draw(st.sampled_from(["", "--x\n", "x" * 1200 + "\n"]))
    )
    body = "\n".join(line.rstrip("\r") for line in body.splitlines()) + "\n"
    message.set_content(body, cte=draw(st.sampled_from([None, "8bit", "base64", "quoted-printable"])))
    if draw(st.booleans()):
        message.add_alternative(f"<p>{body}</p>", subtype="html")
    for number in range(draw(st.integers(0, 2))):
        name = draw(
            st.sampled_from(["a.bin", "größe.pdf", "日本" * 30 + ".txt", 'a "quoted"; name.txt', "x" * 120 + ".bin"])
        )
        if depth and draw(st.booleans()):
            message.add_attachment(draw(well_formed(depth=depth - 1)))
        else:
            octets = draw(st.binary(max_size=200))
            message.add_attachment(
                octets, maintype="application", subtype="x-test", filename=name, cid=f"<{number}@{'h' * 60}.test>"
            )
    message["Subject"] = draw(st.text(st.sampled_from("abc äöü日=?_"), max_size=120))
    return message
