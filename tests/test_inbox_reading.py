# trio_smtp.inbox: what messages say, whatever they are.
from __future__ import annotations

import email
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inbox_support import PLAIN, png, rich

from trio_smtp.inbox import _reading
from trio_smtp.inbox._reading import Address, decode_text, decode_words, read_message


def test_a_plain_message():
    reading = read_message(PLAIN)
    assert reading.author == Address("Ann Example", "ann@example.com")
    assert reading.to == [Address("Bob", "bob@example.com")]
    assert (reading.subject, reading.message_id) == ("Hello there", "one@example.com")
    assert reading.date == datetime(2026, 11, 27, 9, 0, tzinfo=UTC)
    assert (reading.text, reading.html, reading.has_text) == ("How are you?\n", "", True)
    assert reading.snippet == "How are you?"
    assert (reading.parts, reading.defects, reading.cc, reading.bcc, reading.reply_to) == ([], [], [], [], [])
    assert reading.headers[0] == ("From", "Ann Example <ann@example.com>")


def test_texts_pictures_and_attachments():
    reading = read_message(rich().as_bytes())
    assert reading.text.startswith("Your code is 482913.")
    assert "cid:logo" in reading.html
    assert [(part.part_id, part.file_name, part.content_type, part.is_inline) for part in reading.parts] == [
        ("1.2.2", "logo", "image/png", True),
        ("2", "chart.png", "image/png", False),
        ("3", "numbers.csv", "text/csv", False),
    ]
    assert reading.inline[0].content_id == "logo"
    assert reading.attachments[0].content == png()


def test_html_alone_has_its_text_as_well():
    reading = read_message(b"Content-Type: text/html\r\n\r\n<h1>News</h1><p>of the\r\nweek</p><style>p{}</style>")
    assert (reading.text, reading.has_text) == ("News\n\nof the week", False)


def test_a_message_in_a_message_is_an_attachment():
    content = (
        b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nsee below\r\n'
        b"--b\r\nContent-Type: message/rfc822\r\n\r\n" + PLAIN + b"--b--\r\n"
    )
    [part] = read_message(content).parts
    assert (part.part_id, part.content_type, part.file_name) == ("2", "message/rfc822", "part-2.eml")
    assert b"Subject: Hello there" in part.content


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("plain", "plain"),
        ("=?utf-8?q?caf=C3=A9?=", "café"),
        ("=?UTF-8?B?Y2Fmw6k=?= au lait", "café au lait"),
        ("=?utf-8?q?a?= =?utf-8?q?b?=", "ab"),
        ("=?utf-8?b?ww==?= =?utf-8?b?qQ==?=", "é"),  # a character split between two words
        ("=?utf-8?b?caf?", "=?utf-8?b?caf?"),
        ("=?no-such?q?abc?=", "abc"),
        ("=?utf-8*en?q?abc?=", "abc"),
        ("=?utf-8?b?!!!?=", ""),
    ],
)
def test_encoded_words(value, wanted):
    assert decode_words(value) == wanted


def test_octets_that_are_not_ascii_are_utf_8_or_latin_1():
    assert read_message("Subject: café\r\n\r\n".encode()).subject == "café"
    assert read_message("Subject: café\r\n\r\n".encode("latin-1")).subject == "café"


@pytest.mark.parametrize("charset", ["no-such", "idna", "punycode", "hex", "rot13", "", None])
def test_charsets_that_are_none(charset):
    assert decode_text("é\r\n".encode(), charset) == "é\n"


def test_control_characters_and_directories_are_in_no_name():
    content = (
        b"From: =?utf-8?q?Ann=0D=0ABcc=3A_x?= <ann@example.com>\r\nSubject: =?utf-8?q?a=00=0A=E2=80=A8b?=\r\n"
        b"Content-Type: application/pdf; name*=utf-8''..%2F..%5Cetc%2Fpass%0Awd\r\n\r\nx"
    )
    reading = read_message(content)
    assert reading.author == Address("Ann  Bcc: x", "ann@example.com")
    assert reading.subject == "a   b"
    assert [part.file_name for part in reading.parts] == ["passwd"]
    for name in ("..", ".", "/", "a/.."):
        [part] = read_message(b'Content-Type: application/pdf; name="%b"\r\n\r\nx' % name.encode()).parts
        assert part.file_name == "part-1"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\r\n",
        b"no header at all",
        b"From\r\n: x\r\nSubject",
        b"From: ((((((((\r\nTo: <<<>>>, ,;:@\r\nDate: Fri, 99 Foo 99999 99:99:99 +9999\r\n\r\n",
        b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\nnever closed',
        b"Content-Type: multipart/mixed\r\n\r\nno boundary",
        b"Content-Type: \xff/\xfe; charset*=x'y'%\r\nContent-Transfer-Encoding: base64\r\n\r\n!!!\xff",
        b"Content-Type: text/plain; charset=\xff\r\n\r\nx",
        b"Content-Type: message/rfc822\r\n\r\n",
        b"Content-Type: message/delivery-status\r\n\r\nx",
        b"Content-Disposition: attachment; filename*=utf-8''%ff%fe\r\nContent-Type: image/png\r\n\r\nx",
        b"Content-Transfer-Encoding: uuencode\r\n\r\nbegin 666 x\n!!!!",
        b"Subject: " + b"=?utf-8?q?" * 1000 + b"\r\n\r\n",
        b"From: " + b"(" * 50_000 + b"\r\n\r\n",
    ],
)
def test_anything_has_a_reading(content):
    reading = read_message(content)
    assert isinstance(reading.snippet, str)


def test_multiparts_inside_each_other_are_read_to_a_depth():
    for depth in (_reading.MAX_DEPTH + 10, 1200, 2000):
        content = b"".join(
            b'Content-Type: multipart/mixed; boundary="%d"\r\n\r\n--%d\r\n' % (number, number)
            for number in range(depth)
        )
        reading = read_message(b"Subject: deep\r\n" + content + b"\r\nthe end")
        assert reading.subject == "deep"
        assert reading.defects


def test_no_more_parts_than_the_limit():
    part = b"--b\r\nContent-Type: image/png\r\n\r\nx\r\n"
    reading = read_message(b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n' + part * 1200 + b"--b--\r\n")
    assert len(reading.parts) == _reading.MAX_PARTS - 1  # the multipart is one
    assert "only the first 1000 parts are shown" in reading.defects


@pytest.mark.parametrize(
    "content",
    [
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\n" * (_reading.MAX_SEPARATORS + 1),
        b"".join(
            b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (number, number) for number in range(400)
        )
        + b"x\r\n" * 30_000,
        b"X: y\r\n" * 21_000 + b"\r\nx",
        b"X: y\r\n" * 21_000,
        b"Content-Type: text/plain" + b"; a=b" * 20_000 + b"\r\n\r\nx",
        b"Content-Type: text/plain" + b";\r\n a=b" * 20_000 + b"\r\n\r\nx",
    ],
    ids=["parts", "nested", "fields", "fields alone", "parameters", "folded parameters"],
)
def test_what_takes_the_parser_too_long_has_no_structure(content, monkeypatch):
    real = email.message_from_bytes

    def parse(octets, **options):
        assert len(octets) < 2 * _reading.MAX_FIELD  # the header alone
        return real(octets, **options)

    monkeypatch.setattr(email, "message_from_bytes", parse)
    reading = read_message(b"Subject: hi\r\n" + content)
    assert reading.defects == ["the MIME structure cannot be read"]
    assert (reading.subject, reading.parts) == ("hi", [])


def test_a_long_text_without_a_header_is_shown():
    reading = read_message(b"just a line of text\r\n" * 25_000)
    assert "just a line of text" in reading.text


def test_no_more_fields_than_the_limit():
    assert len(read_message(b"X: y\r\n" * 12_000 + b"\r\n").headers) == _reading.MAX_FIELDS


def test_long_fields_addresses_and_texts_are_cut():
    many = b", ".join(b"a%d@b.test" % number for number in range(1500))
    reading = read_message(b"To: " + many + b"\r\nSubject: " + b"x" * 100_000 + b"\r\n\r\n" + b"y" * 5_000_000)
    assert len(reading.to) == _reading.MAX_ADDRESSES
    assert len(reading.subject) == _reading.MAX_FIELD
    assert len(reading.text) == _reading.MAX_TEXT
    assert reading.snippet.endswith("...")
    assert len(reading.snippet) <= _reading.MAX_SNIPPET + 3


def test_what_is_broken_is_named():
    reading = read_message(b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\n\r\nnever closed')
    assert reading.defects == ["close boundary not found"]


def test_a_date_without_a_zone_is_utc_and_a_strange_one_is_none():
    assert read_message(b"Date: Fri, 27 Nov 2026 10:00:00 -0000\r\n\r\n").date == datetime(2026, 11, 27, 10, tzinfo=UTC)
    assert read_message(b"Date: Fri, 31 Dec 9999 23:59:59 -1400\r\n\r\n").date is None
    assert read_message(b"Date: tomorrow\r\n\r\n").date is None


def test_fields_by_name():
    reading = read_message(b"X-A: =?utf-8?q?=C3=A9?=\r\nx-a: 2\r\n\r\n")
    assert reading.field("x-A") == "é"
    assert reading.fields("X-a") == ["é", "2"]
    assert reading.field("X-B") == ""


@given(
    st.binary(max_size=300),
    st.sampled_from([b"", b"Content-Type: multipart/mixed; boundary=b\r\n", b"From: ", b"--b\r\n"]),
)
def test_random_octets_have_a_reading(content, before):
    reading = read_message(before + content)
    reading.text.encode()  # no lone surrogates anywhere: SQLite and JSON take none
    reading.subject.encode()
    for part in reading.parts:
        part.file_name.encode()
