# trio_smtp.inbox: links, codes and warnings.
from __future__ import annotations

import time

import pytest
from inbox_support import PLAIN, rich

from trio_smtp.inbox import _facts
from trio_smtp.inbox._facts import codes, links, warnings
from trio_smtp.inbox._html import MAX_LINKS
from trio_smtp.inbox._reading import read_message


def reading_of(text: str, subject: str = ""):
    return read_message(f"Subject: {subject}\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{text}".encode())


def test_links_of_the_html_come_first():
    assert links(read_message(rich().as_bytes())) == ["https://example.com/in", "https://example.com/text"]


def test_links_are_without_the_sentence_around_them():
    text = "See https://a.test/x. Or (https://b.test/y), https://c.test/(z)! <https://d.test> https://a.test/x"
    assert links(reading_of(text)) == ["https://a.test/x", "https://b.test/y", "https://c.test/(z)", "https://d.test"]


def test_no_more_links_than_the_limit():
    assert len(links(reading_of(" ".join(f"https://a.test/{n}" for n in range(1500))))) == MAX_LINKS


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Your code is 482913.", ["482913"]),
        ("Code: 1234", ["1234"]),
        ("12345678 and 1234", ["12345678", "1234"]),
        ("123-456 or 123 456", ["123456"]),
        ("call 0123 456 789", []),
        ("https://a.test/482913?t=123456", []),
        ("2026-11-27 10:00:00", []),
        ("1,234,567.89 and 3.14159", []),
        ("order #12345, a1234, 1234b", []),
        ("123 and 123456789", []),
        ("482913 482913", ["482913"]),
        ("<482913>", ["482913"]),
        ("482913!", ["482913"]),
    ],
)
def test_codes(text, wanted):
    assert codes(reading_of(text)) == wanted


def test_the_subject_may_have_the_code():
    assert codes(reading_of("654321", subject="123456 is your code")) == ["123456", "654321"]


def test_no_more_codes_than_the_limit():
    assert len(codes(reading_of(" x ".join(str(n) for n in range(1000, 2000))))) == _facts.MAX_CODES


GOOD = PLAIN


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (GOOD.replace(b"Date: Fri, 27 Nov 2026 10:00:00 +0100\r\n", b""), "no Date"),
        (GOOD.replace(b"Fri, 27 Nov 2026 10:00:00 +0100", b"yesterday"), "Date field cannot be understood"),
        (GOOD.replace(b"Message-ID", b"X-ID"), "no Message-ID"),
        (GOOD.replace(b"From:", b"X-From:"), "no From"),
        (GOOD.replace(b"To:", b"X-To:"), "no To"),
        (GOOD.replace(b"Hello there", b""), "no subject"),
        (b"Subject: again\r\n" + GOOD, "more than one Subject"),
        (b"X-A: caf\xc3\xa9\r\n" + GOOD, "not ASCII"),
        (GOOD + b"x" * 999 + b"\r\n", "998 octets"),
        (b"Content-Type: text/html\r\n" + GOOD, "no text part"),
        (b"Content-Type: text/html\r\n" + GOOD + b"<p>" * 50_000, "102 KiB"),
        (b"Content-Type: text/html\r\n" + GOOD + b"<img src=https://a.test/x>", "1 pictures or other files"),
        (GOOD + b"a\0b\r\n", "NUL"),
        (b"Precedence: bulk\r\n" + GOOD, "without a List-Unsubscribe"),
        (b"List-Id: <x.test>\r\n" + GOOD, "without a List-Unsubscribe"),
        (b"List-Unsubscribe: <https://a.test>\r\n" + GOOD, "without List-Unsubscribe-Post"),
        (b'Content-Type: multipart/mixed; boundary="b"\r\n' + GOOD, "Broken MIME"),
    ],
)
def test_warnings(content, word):
    found = warnings(read_message(content), content, recipients=1, smtputf8=False)
    assert [each for each in found if word in each], found


def test_a_good_message_has_no_warnings():
    assert warnings(read_message(GOOD), GOOD, recipients=1, smtputf8=False) == []
    long = GOOD + b"x" * 998 + b"\r\n"
    assert warnings(read_message(long), long, recipients=1, smtputf8=False) == []
    utf8 = b"X-A: caf\xc3\xa9\r\n" + GOOD
    assert warnings(read_message(utf8), utf8, recipients=1, smtputf8=True) == []


def test_many_lines_that_are_nearly_too_long_take_no_time():
    content = GOOD + (b"x" * 998 + b"\r\n") * 20_000
    begin = time.process_time()
    assert warnings(read_message(content), content, recipients=1, smtputf8=False) == []
    assert time.process_time() - begin < 20  # seconds; a regular expression takes minutes, this less than one


def test_many_recipients_are_bulk():
    assert "bulk" in warnings(read_message(GOOD), GOOD, recipients=50, smtputf8=False)[0]
