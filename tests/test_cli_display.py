# Messages as people see them, and senders that would rather show something else.
from __future__ import annotations

import time
from email.message import EmailMessage

import pytest

from trio_smtp._cli import display
from trio_smtp._cli.display import html_to_text, show


def lines(content):
    return show(content.replace(b"\n", b"\r\n"), colour=False).splitlines()


def letter(**fields):
    message = EmailMessage()
    for name, value in fields.items():
        message[name] = value
    return message


def test_fields_are_decoded_and_in_one_order():
    message = letter(Subject="Grüße aus Łódź", To="Ada Lövelace <a@example.com>", From="b@example.net", X="hidden")
    message.set_content("Hallo\n\n.\n")
    assert lines(message.as_bytes()) == [
        "From      b@example.net",
        "To        Ada Lövelace <a@example.com>",
        "Subject   Grüße aus Łódź",
        "",
        "Hallo",
        "",
        ".",
    ]


def test_of_alternatives_the_plain_text_is_shown_and_attachments_are_a_line_each():
    message = letter(Subject="x")
    message.set_content("plain\n")
    message.add_alternative("<p>rich</p>", subtype="html")
    message.add_attachment(b"x" * 5000, maintype="application", subtype="pdf", filename="Überblick.pdf")
    message.add_attachment("text\n", filename="notes.txt")
    inner = letter(Subject="inner é")
    inner.set_content("x\n")
    message.add_attachment(inner)
    assert lines(message.as_bytes()) == [
        "Subject   x",
        "",
        "plain",
        "",
        "attachment: Überblick.pdf (application/pdf, 5,000 octets)",
        "attachment: notes.txt (text/plain, 6 octets)",
        "attachment: message 'inner é'",
    ]


def test_html_alone_is_shown_as_text():
    message = letter(Subject="x")
    message.set_content("<h1>Hi</h1><p>there</p>", subtype="html")
    assert lines(message.as_bytes()) == ["Subject   x", "", "Hi", "", "there"]


def test_an_empty_plain_text_gives_way_to_html():
    message = letter(Subject="x")
    message.set_content("\n")
    message.add_alternative("<p>rich</p>", subtype="html")
    assert lines(message.as_bytes()) == ["Subject   x", "", "rich"]


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>a <b>b</b>\n c</p><p>d<br>e", "a b c\n\nd\ne"),
        ("<div><div>a</div><div>b</div></div>", "a\nb"),
        ("<ul><li>one<li>two</ul>x", "- one\n- two\n\nx"),
        ("<head><title>t</title><style>p {}</style><body>a<script>b</script>c", "ac"),
        ("<a href='https://x.test/y'>here</a>", "here <https://x.test/y>"),
        ("<a href='https://x.test'>https://x.test</a> <a href='javascript:x'>no</a>", "https://x.test no"),
        ("<table><tr><td>a<td>b<tr><td>c</table>", "a b\nc"),
        ("a &amp; b &#8594; <img alt='a cat' src=x> <img src=y>", "a & b → a cat"),
        ("<p>unclosed <b", "unclosed <b"),
        ("<!-- a <b> -->c<!-- d", "c"),
        ("", ""),
    ],
)
def test_html_to_text(html, text):
    assert html_to_text(html) == text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no header\r\n",
        b"Subject: =?no-such-charset?q?x?=\r\n\r\nx\r\n",
        b"Subject: =?utf-8?b?%%%?=\r\n\r\nx\r\n",
        b"Content-Type: text/plain; charset=no-such-charset\r\n\r\nx\r\n",
        b"Content-Type: text/plain; charset=\xff\r\n\r\nx\r\n",
        b"Content-Transfer-Encoding: base64\r\n\r\n%%%\r\n",
        b"Content-Type: multipart/mixed\r\n\r\nno boundary\r\n",
        b"Content-Type: multipart/alternative; boundary=x\r\n\r\n--x--\r\n",
        b"Content-Type: message/rfc822\r\n\r\n",
        b"Subject: caf\xe9\r\n\r\ncaf\xe9\r\n",
    ],
)
def test_odd_messages_are_shown_somehow(content):
    assert isinstance(show(content, colour=True), str)


def test_nothing_in_a_message_reaches_the_terminal():
    evil = "\x1b]0;t\x07 \x9b31m \u202egnp.exe \r x"
    message = b"From: \x1b[31m\r\nSubject: =?utf-8?b?G1szMW0=?=\r\nContent-Type: text/html\r\n\r\n" + evil.encode()
    attachment = b'Content-Type: application/x; name="=?utf-8?b?G1szMW0=?="\r\n\r\nx'
    for content in (message, attachment, evil.encode()):
        text = show(content, colour=False)
        assert text.replace("\n", "").isprintable(), text


def nested(depth):
    parts = [b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(depth)]
    return b"".join(parts) + b"\r\nx\r\n" * 20_000


@pytest.mark.parametrize(
    "content",
    [
        nested(10_000),
        nested(display.MAX_MULTIPARTS + 1),
        b"Subject: " + b"=?" * 200_000 + b"\r\n\r\nx\r\n",
        b"Subject: x\r\n" + b" =?utf-8?q?a?=\r\n" * 50_000 + b"\r\nx\r\n",
        b"Content-Type: text/html\r\n\r\n" + b"<a href=https://x>" * 50_000 + b"</a>" * 50_000,
        b"Content-Type: text/html\r\n\r\n" + b"<div>" * 100_000,
        b"Content-Type: text/html\r\n\r\n" + b"<!--" * 100_000,
    ],
    ids=["deep", "too deep", "encoded words", "many encoded words", "links", "blocks", "comments"],
)
def test_no_message_takes_long_to_show(content):
    started = time.process_time()
    show(content, colour=False)
    assert time.process_time() - started < 5  # most take less than a tenth


def test_what_is_too_long_is_cut_and_says_so(monkeypatch):
    monkeypatch.setattr(display, "MAX_TEXT", 10)
    monkeypatch.setattr(display, "MAX_ATTACHMENTS", 2)
    message = letter(Subject="s" * 5000)
    message.set_content("0123456789abcde\n")
    for _ in range(5):
        message.add_attachment(b"x", maintype="image", subtype="png", filename="x.png")
    *head, cut, empty, first, second, more = lines(message.as_bytes())
    assert sum(map(len, head[:-1])) < display.MAX_FIELD + 100
    assert (head[-1], cut, empty, more) == ("0123456789", "(5 more characters)", "", "(3 more attachments)")
    assert first == second == "attachment: x.png (image/png, 1 octets)"
