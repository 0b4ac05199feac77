"""docs/messages.md, the table: smtplib.send_message and Client.send_message side by side, each row a test.

What smtplib does depends on the version of Python. Its columns are compared with what it does where this Python is one
of theirs; ours is compared everywhere.
"""

from __future__ import annotations

import email
import platform
import re
import smtplib
from collections.abc import Callable
from dataclasses import dataclass
from email.headerregistry import Address
from email.message import EmailMessage, Message
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from email.policy import compat32, default
from email.utils import make_msgid
from pathlib import Path
from typing import Any, TypeAlias

import pytest

import trio_smtp
from trio_smtp import LocalProtocolError
from trio_smtp.testing import open_server

PAGE = Path(__file__).parent.parent / "docs" / "messages.md"
AnyMessage: TypeAlias = "Message[Any, Any]"
Read = Callable[[EmailMessage, bytes], bool]
REFUSED = "refused"


@dataclass(frozen=True)
class Row:
    """What an application has, and whether it arrives.

    Attributes:
        make: the message.
        arrived: whether this is what was meant, by the message as it is read and by its octets.
        offers: the server's extensions.
        outcome: what is right: that it arrives, or that it is refused.
    """

    make: Callable[[], AnyMessage]
    arrived: Read
    offers: tuple[str, ...] = ("8BITMIME",)
    outcome: str = "as meant"


def composed(**fields: str) -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"] = "a@x.test", "b@y.test"
    for name, value in fields.items():
        name = name.replace("_", "-")
        del message[name]
        message[name] = value
    message.set_content("hello\n")
    return message


def older(body: str = "hello\n", **fields: str) -> AnyMessage:
    message = MIMEText(body)
    for name, value in {"From": "a@x.test", "To": "b@y.test", **fields}.items():
        message[name] = value
    return message


def parsed(text: str, policy: Any = default) -> AnyMessage:
    source = "From: a@x.test\nTo: b@y.test\nMIME-Version: 1.0\n" + text
    return email.message_from_bytes(source.replace("\n", "\r\n").encode(), policy=policy)


def same(name: str, value: str) -> Row:
    return Row(
        lambda: composed(**{name.replace("-", "_"): value}), lambda read, octets: unfolded(octets, name) == value
    )


def unfolded(octets: bytes, name: str) -> str:
    """The source of a field, on one line."""
    match = re.search(rf"^{name}: ([^\r\n]*(?:\r\n[ \t][^\r\n]*)*)".encode(), octets, re.MULTILINE | re.IGNORECASE)
    return match[1].replace(b"\r\n", b"").decode() if match is not None else ""


def inline_image() -> AnyMessage:
    message = composed()
    message.add_related(b"png", "image", "png", cid=make_msgid("1", "a-host-with-a-name-of-forty-characters.test"))
    return message


def many_people() -> AnyMessage:
    message = composed()
    del message["To"]
    message["To"] = [Address(f"Doe, John, {'Long Word ' * 8}Inc.", "b", "y.test")] * 2
    return message


def boundary_in_text() -> AnyMessage:
    message = MIMEMultipart(boundary="sep")
    message["From"], message["To"] = "a@x.test", "b@y.test"
    message.attach(MIMEText("one\n--sep\ntwo\n"))
    return message


def with_payload(payload: str) -> AnyMessage:
    message: AnyMessage = Message()
    message["From"], message["To"] = "a@x.test", "b@y.test"
    message.set_payload(payload)
    return message


SIGNED = """\
Content-Type: multipart/signed; micalg=pgp-sha256; protocol="application/pgp-signature"; boundary=s

--s
Content-Type: text/plain; charset=utf-8; format=flowed; delsp=yes; x-parameter="of some length, unfolded"
Content-Transfer-Encoding: 8bit

{}
--s
Content-Type: application/pgp-signature

abc
--s--
"""
NAME = "Content-Type: application/pdf; name=größe.pdf\nContent-Transfer-Encoding: base64\n\nQUJD\n"
BODY = "Content-Type: {}\nContent-Transfer-Encoding: {}\n\n{}\n"
LONG = f"<{'i' * 60}@{'h' * 40}.test>"

ROWS = {
    "`References` with long identifiers": same("References", f"{LONG} {LONG} {LONG}"),
    "`In-Reply-To` with a long identifier": same("In-Reply-To", LONG),
    "`List-Unsubscribe` with a long URI": same("List-Unsubscribe", f"<https://x.test/{'u' * 100}>, <mailto:u@x.test>"),
    "`List-Id` with a long name": same("List-Id", f"Things <{'l' * 80}.x.test>"),
    "`DKIM-Signature` of the application": same("DKIM-Signature", f"v=1; a=rsa-sha256; d=x.test; s=k; b={'b' * 344}"),
    "`Autocrypt` with a key": same("Autocrypt", f"addr=a@x.test; keydata={'k' * 300}"),
    "`X-SMTPAPI` with JSON": same("X-SMTPAPI", f'{{"category":"{"c" * 100}"}}'),
    "`Content-ID` of an inline image": Row(
        inline_image, lambda read, octets: b"Content-ID: <" in octets and b"=?" not in octets
    ),
    "a long display name with commas": Row(
        many_people, lambda read, octets: [a.addr_spec for a in read["To"].addresses] == ["b@y.test"] * 2
    ),
    "a subject with a long word and others that are not ASCII": Row(
        lambda: composed(Subject=f"{'x' * 70} ä ö"), lambda read, octets: read["Subject"] == f"{'x' * 70} ä ö"
    ),
    "a long subject with some words that are not ASCII": Row(
        lambda: composed(Subject=f"{'word ' * 14}ä ö ü word ä ö"),
        lambda read, octets: read["Subject"] == f"{'word ' * 14}ä ö ü word ä ö",
    ),
    "`From: Jürgen <j@x.test>` in a `MIMEText`": Row(
        lambda: older(From="Jürgen <j@x.test>", To="b@y.test"),
        lambda read, octets: read["From"].addresses == (Address("Jürgen", "j", "x.test"),),
    ),
    "an IDN domain in a `MIMEText`": Row(
        lambda: older(To="b@y.test, Jürgen <j@münchen.de>"),
        lambda read, octets: b"<j@xn--mnchen-3ya.de>" in octets,
    ),
    "an IDN domain in an `EmailMessage`": Row(
        lambda: composed(To="b@y.test, j@münchen.de"), lambda read, octets: b" j@xn--mnchen-3ya.de\r\n" in octets
    ),
    "a long field, parsed": Row(
        lambda: parsed(f"Subject: {'word ' * 30}end\n\nhello\n"),
        lambda read, octets: f"Subject: {'word ' * 30}end\r\n".encode() in octets,
    ),
    "a signed message to a server without 8BITMIME": Row(
        lambda: parsed(SIGNED.format("hällo")), lambda read, octets: octets.isascii(), (), REFUSED
    ),
    "an attachment with a raw UTF-8 name to such a server": Row(
        lambda: parsed(NAME, compat32),
        lambda read, octets: (
            octets.isascii() and read.get_filename() == read["Content-Type"].params["name"] == "größe.pdf"
        ),
        (),
    ),
    "8-bit data of no type to such a server": Row(
        lambda: parsed(BODY.format("application/octet-stream", "8bit", "hällo"), compat32),
        lambda read, octets: octets.isascii() and read.get_payload(decode=True) == "hällo\r\n".encode(),
        (),
    ),
    "HTML without a charset to such a server": Row(
        lambda: parsed(BODY.format("text/html", "8bit", "<p>hällo"), compat32),
        lambda read, octets: octets.isascii() and read.get_payload(decode=True) == "<p>hällo\r\n".encode(),
        (),
    ),
    "8-bit text labelled us-ascii to such a server": Row(
        lambda: parsed(BODY.format("text/plain; charset=us-ascii", "8bit", "hällo"), compat32),
        lambda read, octets: octets.isascii() and read.get_payload(decode=True) == "hällo\r\n".encode(),
        (),
    ),
    "an unknown charset to such a server": Row(
        lambda: parsed(BODY.format("text/plain; charset=x-y", "8bit", "hällo"), compat32),
        lambda read, octets: octets.isascii() and read.get_payload(decode=True) == "hällo\r\n".encode(),
        (),
    ),
    "quoted-printable with an 8-bit octet to such a server": Row(
        lambda: parsed(BODY.format("text/plain; charset=utf-8", "quoted-printable", "h=C3=A4llä"), compat32),
        lambda read, octets: octets.isascii() and read.get_payload(decode=True) == "hällä\r\n".encode(),
        (),
    ),
    "characters set as the payload of a `Message`": Row(
        lambda: with_payload("grüße\n"), lambda read, octets: read.get_payload(decode=True) == "grüße\r\n".encode()
    ),
    "a lone surrogate in a body": Row(lambda: with_payload("a\ud800"), lambda read, octets: True, outcome=REFUSED),
    "a body line of 2000 characters": Row(
        lambda: older("x" * 2000), lambda read, octets: max(map(len, octets.split(b"\r\n"))) <= 998
    ),
    "a body line that begins with `From `": Row(
        lambda: older("From here on\n"), lambda read, octets: octets.endswith(b"\r\n\r\nFrom here on\r\n")
    ),
    "the boundary in the text of a part": Row(
        boundary_in_text,
        lambda read, octets: [p.get_payload() for p in read.iter_parts()] == ["one\r\n--sep\r\ntwo\r\n"],
    ),
    "a line end in a `Message`'s field": Row(
        lambda: older(Subject="x\nBcc: evil@z.test"), lambda read, octets: read["Bcc"] is None, outcome=REFUSED
    ),
    "a field whose value is a number": Row(
        lambda: older(Subject=5),  # type: ignore[arg-type]
        lambda read, octets: True,
        outcome=REFUSED,
    ),
}


class Captured(smtplib.SMTP):
    """smtplib, connected to nothing: it keeps what it would send."""

    def __init__(self, offers: tuple[str, ...]) -> None:
        super().__init__()
        self.does_esmtp = True
        self.esmtp_features = {keyword.lower(): "" for keyword in offers}
        self.octets = b""

    def ehlo_or_helo_if_needed(self) -> None:
        pass

    def sendmail(self, from_addr: Any, to_addrs: Any, msg: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        self.octets = msg
        return {}


def outcome(row: Row, octets: bytes) -> str:
    read = email.message_from_bytes(octets, policy=default)
    assert isinstance(read, EmailMessage)
    try:
        return "as meant" if row.arrived(read, octets) else "broken"
    except Exception:  # what arrived cannot even be read
        return "broken"


def by_smtplib(row: Row) -> str:
    smtp = Captured(row.offers)
    try:
        smtp.send_message(row.make())
    except Exception as exc:
        return f"`{type(exc).__name__}`"
    return outcome(row, smtp.octets)


class Keeping(trio_smtp.Handler):
    def __init__(self) -> None:
        self.octets = b""

    async def on_data(self, session: trio_smtp.Session, envelope: trio_smtp.Envelope, body: trio_smtp.Body) -> None:
        self.octets = await body.read()


async def by_trio_smtp(row: Row) -> str:
    disabled = [keyword for keyword in ("8BITMIME", "SMTPUTF8") if keyword not in row.offers]
    config = trio_smtp.ServerConfig(disabled_extensions=disabled)
    handler = Keeping()
    async with (
        open_server(handler, config=config) as server,
        trio_smtp.open_client("localhost", stream=server.connect(), local_hostname="client.test") as client,
    ):
        try:
            await client.send_message(row.make())
        except LocalProtocolError:
            return REFUSED
    return outcome(row, handler.octets)


def table() -> dict[str, dict[str, str]]:
    """The page's table: the first column to the others by their titles."""
    lines = [
        line.strip().strip("|").split(" | ")
        for line in PAGE.read_text(encoding="utf-8").splitlines()
        if line[:1] == "|"
    ]
    cells = [[cell.strip() for cell in line] for line in lines if not set("".join(line)) <= set("-| ")]
    titles = next(line for line in cells if line[0] == "What is sent")
    return {line[0]: dict(zip(titles[1:], line[1:], strict=True)) for line in cells if len(line) == len(titles)}


def test_the_page_has_these_rows() -> None:
    assert list(table())[1:] == list(ROWS)


@pytest.mark.parametrize("name", ROWS)
async def test_it_arrives_as_it_was_meant_or_is_refused(name: str) -> None:
    row = ROWS[name]
    assert await by_trio_smtp(row) == row.outcome
    assert table()[name]["`Client.send_message`"] == row.outcome


@pytest.mark.parametrize("name", ROWS)
def test_smtplib_does_what_the_page_says(name: str) -> None:
    said = table()[name]
    version = f"smtplib {platform.python_version()}"
    if version not in said:
        pytest.skip(f"the page says nothing of {version}")
    assert said[version] == by_smtplib(ROWS[name])


if __name__ == "__main__":
    for title, kind in ROWS.items():
        print(f"{title}\t{by_smtplib(kind)}")  # noqa: T201
