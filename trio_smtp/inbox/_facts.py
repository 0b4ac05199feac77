# What a test or a developer wants to know of a message beyond what it says: links, codes, likely mistakes.
from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from ._html import MAX_LINKS, MAX_SEARCHED, links_of, remote_resources_of
from ._reading import Reading

MAX_CODES: Final = 100
_URL: Final = re.compile(r"https?://[^\s<>\"'\x00-\x1f]{1,2000}", re.IGNORECASE)
_DIGITS: Final = re.compile(r"(?<![\w.,:/#+@=-])\d{1,20}(?:[ -]\d{1,20})*(?![\w/@=-]|[.,:]\d)")
_BULK: Final = re.compile(r"bulk|list|junk", re.IGNORECASE)
_CLIPPED: Final = 102 * 1024  # octets of HTML after which Gmail cuts a message off
_MANY: Final = 50  # recipients of what is bulk mail in all likelihood
_ONCE: Final = ("From", "Sender", "Reply-To", "To", "Cc", "Message-ID", "In-Reply-To", "References", "Subject", "Date")


def links(reading: Reading) -> list[str]:
    """Where the links of a message lead, those of its HTML first, each once."""
    found = links_of(reading.html) if reading.html else []
    if reading.has_text:
        found += (_without_end(match[0]) for match in _URL.finditer(reading.text[:MAX_SEARCHED]))
    return list(dict.fromkeys(found))[:MAX_LINKS]


def _without_end(url: str) -> str:
    """An address without the punctuation of the sentence that it is in."""
    url = url.rstrip(".,;:!?*_'")
    return url[:-1] if url.endswith(")") and "(" not in url else url


def codes(reading: Reading) -> list[str]:
    """Numbers that look like one-time codes: of 4 to 8 digits, by themselves; ``123-456`` too, as ``123456``."""
    text = f"{reading.subject}\n{_URL.sub(' ', reading.text[:MAX_SEARCHED])}"
    found = (code for match in _DIGITS.finditer(text) for code in _codes(match[0]))
    return list(dict.fromkeys(found))[:MAX_CODES]


def _codes(digits: str) -> list[str]:
    """Those in groups of digits; of a date, or of a telephone number, there are none."""
    groups = re.split(r"[ -]", digits)
    if [len(group) for group in groups] == [3, 3]:
        return ["".join(groups)]
    return groups if "-" not in digits and all(4 <= len(group) <= 8 for group in groups) else []


def warnings(reading: Reading, content: bytes, *, recipients: int, smtputf8: bool) -> list[str]:
    """What mail programs or spam filters would stumble over.

    Args:
        reading: the message.
        content: its octets.
        recipients: how many the envelope has.
        smtputf8: the client has said that header fields may be UTF-8.
    """
    return [*_structure(reading, content), *_header(reading, content, smtputf8=smtputf8), *_bulk(reading, recipients)]


def _structure(reading: Reading, content: bytes) -> Iterator[str]:
    for defect in reading.defects:
        yield f"Broken MIME: {defect}."
    if reading.html and not reading.has_text:
        yield "There is no text part beside the HTML: some programs show only that, and spam filters count it."
    if any(len(line.rstrip(b"\r")) > 998 for line in content.split(b"\n")):  # RFC 5322 §2.1.1
        yield "A line is longer than 998 octets: servers may refuse it or break it."
    if b"\0" in content:
        yield "There is a NUL octet: many servers refuse that (RFC 5322 section 4)."
    if len(reading.html.encode("utf-8", "replace")) > _CLIPPED:
        yield "The HTML is larger than 102 KiB: Gmail shows only the beginning."
    remote = remote_resources_of(reading.html) if reading.html else 0
    if remote:
        yield f"{remote} pictures or other files would be loaded from elsewhere; here they are not."


def _header(reading: Reading, content: bytes, *, smtputf8: bool) -> Iterator[str]:
    names = [name.lower() for name, _ in reading.headers]
    for name in ("Date", "From", "Message-ID"):
        if name.lower() not in names:
            yield f"There is no {name} field."  # RFC 5322 §3.6; Message-ID should be there
    if "date" in names and reading.date is None:
        yield "The Date field cannot be understood."
    if not {"to", "cc", "bcc"} & set(names):
        yield "There is no To field."
    if not reading.subject.strip():
        yield "There is no subject."
    for name in _ONCE:
        if names.count(name.lower()) > 1:
            yield f"There is more than one {name} field."
    head = re.split(rb"\r?\n\r?\n", content, maxsplit=1)[0]
    if not head.isascii() and not smtputf8:
        yield "A header field has characters that are not ASCII and not encoded, without SMTPUTF8."


def _bulk(reading: Reading, recipients: int) -> Iterator[str]:
    names = {name.lower() for name, _ in reading.headers}
    is_bulk = bool(_BULK.search(reading.field("Precedence"))) or "list-id" in names or recipients >= _MANY
    if is_bulk and "list-unsubscribe" not in names:
        yield "This is bulk mail without a List-Unsubscribe field: large providers ask for it."
    if "list-unsubscribe" in names and "list-unsubscribe-post" not in names:
        yield "There is a List-Unsubscribe field without List-Unsubscribe-Post, for one click (RFC 8058)."
