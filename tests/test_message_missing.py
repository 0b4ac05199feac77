# Date and Message-ID, where they are missing and the caller asks for them.
from __future__ import annotations

import re
from email.message import EmailMessage, Message
from email.mime.text import MIMEText
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest

import trio_smtp
from trio_smtp import ClientConfig
from trio_smtp._message.missing import Missing
from trio_smtp.testing import open_sink


@pytest.mark.parametrize(
    ("author", "domain"),
    [
        ("a@ü…", "localhost"),
        ("a@x.test", "x.test"),
        ("Jü <a@münchen.de>", "xn--mnchen-3ya.de"),
        (None, "localhost"),
        ("a@[192.0.2.1]", "localhost"),
    ],
)
def test_an_identifier_is_at_the_domain_of_the_author(author: str | None, domain: str) -> None:
    message = EmailMessage()
    if author is not None:
        message["From"] = author
    (_, date), (_, identifier) = Missing.of(message).fields
    assert parsedate_to_datetime(date).tzinfo is not None
    assert re.fullmatch(rf"<[0-9a-f]{{32}}@{re.escape(domain)}>", identifier)
    assert Missing.of(message).fields[1] != ("Message-ID", identifier)


def test_a_header_that_cannot_be_read_is_refused() -> None:
    message: Any = Message()
    message._headers = [(None, "x")]
    with pytest.raises(trio_smtp.LocalProtocolError):
        Missing.of(message)


def test_what_there_is_is_not_added() -> None:
    message = MIMEText("x")
    message["date"], message["MESSAGE-ID"] = "x", "y"
    assert Missing.of(message).fields == ()


async def received(content: Any, *, add_missing: bool) -> bytes:
    config = ClientConfig(add_missing=add_missing)
    async with (
        open_sink() as sink,
        trio_smtp.open_client("localhost", stream=sink.connect(), config=config, **sink.client_options) as client,
    ):
        await client.send("a@x.test", ["b@y.test"], content)
        [message] = await sink.wait_for()
        return message.content


@pytest.mark.parametrize("kind", [EmailMessage, Message])
async def test_a_message_object_gets_date_and_message_id(kind: type[Message[Any, Any]]) -> None:
    message = kind()
    message["From"] = "a@x.test"
    message.set_payload("hi\n")
    octets = await received(message, add_missing=True)
    assert re.fullmatch(rb"From: a@x.test\r\nDate: [^\r]+\r\nMessage-ID: <\w+@x.test>\r\n\r\nhi\r\n", octets)
    assert message.keys() == ["From"]
    assert await received(message, add_missing=False) == b"From: a@x.test\r\n\r\nhi\r\n"


async def test_bytes_text_and_files_get_nothing(tmp_path: Path) -> None:
    path = tmp_path / "message"
    path.write_bytes(b"From: a@x.test\r\n\r\nhi\r\n")
    for content in (path.read_bytes(), path.read_bytes().decode(), path):
        assert await received(content, add_missing=True) == path.read_bytes()


async def test_a_message_that_is_sent_again_is_the_same_message() -> None:
    from trio_smtp._client.content import as_content

    message = EmailMessage()
    message["From"] = "a@x.test"
    message.set_content("ü\n")
    content = as_content(message)
    sources = [await content.open(eight_bit=e, utf8=False, add_missing=True) for e in (True, False)]
    headers = [re.findall(rb"^(?:Date|Message-ID): .*", source.whole or b"", re.MULTILINE) for source in sources]
    assert headers[0] == headers[1]
    assert len(headers[0]) == 2
