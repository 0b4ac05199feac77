# trio_smtp.inbox: a message from the JSON that is to be sent.
from __future__ import annotations

import base64

import pytest
from inbox_support import png

from trio_smtp.inbox._compose import compose
from trio_smtp.inbox._reading import read_message

BASE = {"From": {"Email": "ann@example.com", "Name": "Ann"}, "To": [{"Email": "bob@example.com"}], "Subject": "Hi"}


def test_all_that_there_may_be():
    composed = compose(
        {
            **BASE,
            "Cc": [{"Email": "carol@example.com", "Name": "Carol, née X"}],
            "Bcc": ["eve@example.com"],
            "ReplyTo": [{"Email": "re@example.com"}],
            "Text": "text",
            "HTML": "<p>html <img src=cid:logo>",
            "Headers": {"X-IP": "192.0.2.1"},
            "Tags": ["a", "b"],
            "Attachments": [
                {"Filename": "a.txt", "Content": base64.b64encode(b"abc").decode()},
                {
                    "Filename": "l.png",
                    "Content": "data:image/png;base64," + base64.b64encode(png()).decode(),
                    "ContentID": "logo",
                },
                {"Filename": "x", "Content": "", "ContentType": "application/x-thing; a=b"},
            ],
        }
    )
    assert (composed.sender, composed.recipients) == (
        "ann@example.com",
        ["bob@example.com", "carol@example.com", "eve@example.com"],
    )
    reading = read_message(composed.message.as_bytes())
    assert reading.author is not None
    assert (reading.author.name, reading.subject, reading.text, reading.bcc) == ("Ann", "Hi", "text\n", [])
    assert reading.cc[0].name == "Carol, née X"
    assert reading.html.startswith("<p>html")
    assert (reading.field("X-IP"), reading.field("X-Tags"), reading.reply_to[0].address) == (
        "192.0.2.1",
        "a, b",
        "re@example.com",
    )
    assert reading.date is not None
    assert reading.message_id.endswith("@inbox.localhost")
    assert [(part.file_name, part.content_type, part.is_inline) for part in reading.parts] == [
        ("a.txt", "text/plain", False),
        ("l.png", "image/png", True),
        ("x", "application/x-thing", False),
    ]
    assert reading.inline[0].content == png()


def test_html_alone_and_nothing_at_all():
    assert read_message(compose({**BASE, "HTML": "<p>x"}).message.as_bytes()).has_text is False
    assert read_message(compose(BASE).message.as_bytes()).text.strip() == ""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"From": None}, "From has no address"),
        ({"From": {"Email": "nobody"}}, "invalid From"),
        ({"From": {"Email": "a@b.test\r\nBcc: x"}}, "invalid From"),
        ({"From": {"Email": "a@b.test", "Name": 1}}, "From has no address"),
        ({"From": {"Email": "a@b.test", "Name": "x\r\nBcc: y"}}, "invalid From"),
        ({"To": [{"Email": ""}]}, "invalid To"),
        ({"To": "bob@example.com"}, "To is a list"),
        ({"To": [{"Email": "a@b.test"}] * 1001}, "at most 1000"),
        ({"To": []}, "no recipient"),
        ({"Bcc": [1]}, "Bcc has no address"),
        ({"Subject": 1}, "Subject is a text"),
        ({"Subject": "a\nBcc: x"}, "linefeed"),
        ({"Headers": []}, None),
        ({"Headers": ["x"]}, "Headers is an object"),
        ({"Headers": {"subject": "x"}}, "cannot overwrite"),
        ({"Headers": {"X-A": 1}}, "no header field"),
        ({"Headers": {"X: A": "x"}}, "no header field"),
        ({"Headers": {"X-A": "x\r\nBcc: y"}}, "linefeed|CR|newline"),
        ({"Attachments": ["x"]}, "an attachment has"),
        ({"Attachments": [{"Filename": "a", "Content": "%%%"}]}, 'base64 attachment "a"'),
        ({"Attachments": [{"Filename": "a", "Content": "", "ContentType": "nothing"}]}, "content type"),
        ({"Attachments": [{"Filename": "a", "Content": "", "ContentType": "multipart/mixed"}]}, "content type"),
    ],
)
def test_what_makes_no_message(change, words):
    if words is None:
        compose({**BASE, **change})
        return
    with pytest.raises(ValueError, match=words):
        compose({**BASE, **change})


@pytest.mark.parametrize("data", [None, [], "x", 1])
def test_what_is_no_object(data):
    with pytest.raises(ValueError, match="JSON object"):
        compose(data)
