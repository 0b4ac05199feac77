# What a message says, read as mail programs read it: header fields, addresses, texts and attachments.
#
# Guarantee: any octets have a reading. What is broken is shown as well as it can be, and named in `defects`; nothing is
# raised. It does not know where messages are kept, or how they are shown.
from __future__ import annotations

import binascii
import email
import email.policy
import quopri
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import Message
from email.utils import getaddresses, parsedate_to_datetime
from itertools import islice
from typing import Final

from ._html import text_of

MAX_PARTS: Final = 1000  # parts of a message; further ones are left out
MAX_SEPARATORS: Final = 20_000  # lines that may begin a part; with more, a message has no structure
MAX_CHECKS: Final = 10_000_000  # lines times boundaries, as many as the standard library's parser compares; likewise
MAX_FIELDS: Final = 10_000  # header fields; further ones are left out
MAX_DEPTH: Final = 50  # multiparts inside each other; deeper ones are left out
MAX_TEXT: Final = 4 * 1024 * 1024  # characters of a text that are shown
MAX_FIELD: Final = 65536  # characters of a header field that are looked at
MAX_ADDRESSES: Final = 1000  # of one header field
MAX_SNIPPET: Final = 200  # characters, before the dots

_BOUNDARY: Final = re.compile(rb"boundary\s*\*?\d{0,9}\*?=", re.IGNORECASE)
_CONTENT_FIELD: Final = re.compile(rb"^content-[a-z-]{1,40}:(?:[^\n]*\n[ \t])*[^\n]*", re.IGNORECASE | re.MULTILINE)
_ENCODED_WORD: Final = re.compile(r"=\?([^?\s*]{1,40})(?:\*[^?\s]*)?\?([bBqQ])\?([^?]*)\?=")
_BETWEEN_WORDS: Final = re.compile(r"(\?=)[ \t\r\n]+(?==\?[^?\s]{1,80}\?[bBqQ]\?)")
_FOLD: Final = re.compile(r"\r?\n(?=[ \t])|[\r\n]")
_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_CONTENT_TYPE: Final = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,80}/[a-z0-9][a-z0-9!#$&^_.+-]{0,80}")
_NO_CHARSETS: Final = frozenset({"idna", "punycode", "unicode-escape", "raw-unicode-escape", "undefined"})


@dataclass(frozen=True, slots=True)
class Address:
    """A mailbox of a header field.

    Attributes:
        name: the display name, decoded; ``""`` without one.
        address: the address, ``""`` if there is none in what was written.
    """

    name: str
    address: str

    def to_json(self) -> dict[str, str]:
        """As Mailpit has it."""
        return {"Name": self.name, "Address": self.address}


@dataclass(frozen=True, kw_only=True)
class Part:
    """An attachment, or a part that the HTML text shows.

    Attributes:
        part_id: its place: ``"2"``, ``"1.2"``.
        file_name: without directories; never empty.
        content_type: ``image/png``, without parameters; always well-formed.
        content_id: without angle brackets, ``""`` without one.
        is_inline: it belongs to the text.
        content: decoded.
    """

    part_id: str
    file_name: str
    content_type: str
    content_id: str
    is_inline: bool
    content: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A message, read.

    Attributes:
        headers: name and value, unfolded but not decoded, in order.
        message_id: without angle brackets.
        subject: decoded.
        date: of the ``Date`` field, with a time zone; ``None`` without a usable one.
        author: the first mailbox of ``From``.
        to, cc, bcc, reply_to: of the header.
        return_path: of the header, ``""`` without one.
        text: the text parts, or the HTML's text if there are none.
        html: the HTML parts.
        has_text: there is a text part.
        parts: attachments and inline parts.
        defects: what is broken, in words.
    """

    headers: list[tuple[str, str]]
    message_id: str
    subject: str
    date: datetime | None
    author: Address | None
    to: list[Address]
    cc: list[Address]
    bcc: list[Address]
    reply_to: list[Address]
    return_path: str
    text: str
    html: str
    has_text: bool
    parts: list[Part]
    defects: list[str]

    @property
    def attachments(self) -> list[Part]:
        """The parts that are not inline."""
        return [part for part in self.parts if not part.is_inline]

    @property
    def inline(self) -> list[Part]:
        """The parts that belong to the text."""
        return [part for part in self.parts if part.is_inline]

    @property
    def snippet(self) -> str:
        """The beginning of the text, in one line."""
        words = " ".join(self.text[: 4 * MAX_SNIPPET].replace("\ufeff", " ").split())
        return words if len(words) <= MAX_SNIPPET else words[:MAX_SNIPPET].rstrip() + "..."

    def field(self, name: str) -> str:
        """The first header field of this name, decoded; ``""`` without one."""
        return next((decode_words(value) for key, value in self.headers if key.lower() == name.lower()), "")

    def fields(self, name: str) -> list[str]:
        """All header fields of this name, decoded."""
        return [decode_words(value) for key, value in self.headers if key.lower() == name.lower()]


def read_message(content: bytes) -> Reading:
    """Read a message, whatever it is."""
    defects: list[str] = []
    message = _parse(content)
    if message is None:
        defects.append("the MIME structure cannot be read")
        message = _without_structure(content)
    headers = [(name, _unfold(str(value))) for name, value in islice(message.raw_items(), MAX_FIELDS)]
    texts, pages, parts = _Collector(defects).collect(message)
    text, html = "\n".join(texts)[:MAX_TEXT], "\n".join(pages)[:MAX_TEXT]
    first = {name.lower(): value for name, value in reversed(headers)}
    authors = _addresses(headers, "from")
    return Reading(
        headers=headers,
        message_id=_printable(decode_words(first.get("message-id", ""))).strip().strip("<>"),
        subject=_printable(decode_words(first.get("subject", ""))),
        date=_date(first.get("date")),
        author=authors[0] if authors else None,
        to=_addresses(headers, "to"),
        cc=_addresses(headers, "cc"),
        bcc=_addresses(headers, "bcc"),
        reply_to=_addresses(headers, "reply-to"),
        return_path=_printable(first.get("return-path", "")).strip().strip("<>"),
        text=text if texts else text_of(html),
        html=html,
        has_text=bool(texts),
        parts=parts,
        defects=list(dict.fromkeys(defects)),
    )


def _parse(content: bytes) -> Message | None:
    """The message with its parts; ``None`` for one that it would take too long to parse."""
    if (
        _lines_of_header(content) > 2 * MAX_FIELDS
        or content.count(b"\n--") > MAX_SEPARATORS
        or len(_BOUNDARY.findall(content)) * content.count(b"\n") > MAX_CHECKS
        or any(match.end() - match.start() > MAX_FIELD for match in _CONTENT_FIELD.finditer(content))
    ):
        return None
    try:
        return email.message_from_bytes(content, policy=email.policy.compat32)
    except (Exception, RecursionError):  # multiparts inside each other, hundreds deep
        return None


def _lines_of_header(content: bytes) -> int:
    end = min((at for at in (content.find(b"\n\r\n"), content.find(b"\n\n")) if at >= 0), default=len(content))
    return content.count(b"\n", 0, end)


def _without_structure(content: bytes) -> Message:
    """A message whose body is one plain text."""
    head, _, body = content.replace(b"\r\n", b"\n").partition(b"\n\n")
    kept = _CONTENT_FIELD.sub(b"X-Content:", head[:MAX_FIELD])
    message = email.message_from_bytes(kept + b"\n\n", policy=email.policy.compat32)
    message.set_payload((head[MAX_FIELD:] + body).decode("utf-8", "replace"), "utf-8")
    return message


class _Collector:
    """Walks over the parts of a message."""

    def __init__(self, defects: list[str]) -> None:
        self._defects = defects
        self._texts: list[str] = []
        self._pages: list[str] = []
        self._parts: list[Part] = []

    def collect(self, message: Message) -> tuple[list[str], list[str], list[Part]]:
        for number, (part_id, part, parent) in enumerate(_walk(message, "", "", 0)):
            if number >= MAX_PARTS:
                self._defects.append(f"only the first {MAX_PARTS} parts are shown")
                break
            self._defects += (_words_of(defect) for defect in part.defects)
            if not part.is_multipart() or part.get_content_maintype() == "message":
                self._take(part_id, part, parent)
            elif part_id.count(".") >= MAX_DEPTH - 1:
                self._defects.append(f"parts more than {MAX_DEPTH} deep are not shown")
        return self._texts, self._pages, self._parts

    def _take(self, part_id: str, part: Message, parent: str) -> None:
        kind = _content_type(part)
        disposition = str(part.get("content-disposition", "")).partition(";")[0].strip().lower()
        name = _file_name(part)
        if disposition != "attachment" and not name and kind in ("text/plain", "text/html"):
            text = decode_text(_content(part), _charset(part))
            (self._texts if kind == "text/plain" else self._pages).append(text)
            return
        content_id = _printable(str(part.get("content-id", ""))).strip().strip("<>")
        is_inline = disposition == "inline" or (not disposition and bool(content_id) and parent == "multipart/related")
        self._parts.append(
            Part(
                part_id=part_id,
                file_name=name or content_id.replace("/", "_").replace("\\", "_") or f"part-{part_id}{_suffix(kind)}",
                content_type=kind,
                content_id=content_id,
                is_inline=is_inline,
                content=_content(part),
            )
        )


def _walk(part: Message, part_id: str, parent: str, depth: int) -> Iterator[tuple[str, Message, str]]:
    """Each part with its number and the type of the multipart around it; no deeper than the limit."""
    yield part_id or "1", part, parent
    if part.is_multipart() and part.get_content_maintype() != "message" and depth < MAX_DEPTH:
        kind = part.get_content_type()
        for number, child in enumerate(part.get_payload(), 1):
            if isinstance(child, Message):
                yield from _walk(child, f"{part_id}.{number}" if part_id else str(number), kind, depth + 1)


def _content(part: Message) -> bytes:
    if part.get_content_maintype() == "message" and part.is_multipart():
        try:
            return b"\n".join(child.as_bytes() for child in part.get_payload() if isinstance(child, Message))
        except Exception:  # the generator of the standard library, given something broken
            return b""
    try:
        payload = part.get_payload(decode=True)
    except Exception:  # likewise its decoders
        payload = None
    return payload if isinstance(payload, bytes) else b""


def _content_type(part: Message) -> str:
    kind = part.get_content_type().lower()
    return kind if _CONTENT_TYPE.fullmatch(kind) else "application/octet-stream"


def _charset(part: Message) -> str | None:
    try:
        return part.get_content_charset()
    except Exception:  # a parameter in RFC 2231's form that is none
        return None


def _file_name(part: Message) -> str:
    try:
        name = part.get_filename("")
    except Exception:  # likewise
        return ""
    name = _printable(decode_words(_unfold(str(name)))).replace("\\", "/").rpartition("/")[2].strip()
    return name[:255] if name not in {".", ".."} else ""


def _suffix(kind: str) -> str:
    return {"message/rfc822": ".eml", "text/plain": ".txt", "text/html": ".html", "text/calendar": ".ics"}.get(kind, "")


def _words_of(defect: object) -> str:
    """``NoBoundaryInMultipartDefect`` → "no boundary in multipart"."""
    name = type(defect).__name__.removesuffix("Defect")
    return re.sub(r"(?<!^)(?=[A-Z])", " ", name).lower()


def decode_text(content: bytes, charset: str | None) -> str:
    """Octets as text: by their charset, else as UTF-8, else as Latin-1. Line ends become LF."""
    text = _decode(content, charset).replace("\r\n", "\n").replace("\r", "\n")
    return text.encode("utf-8", "replace").decode("utf-8")  # lone surrogates can be in no answer


def _decode(content: bytes, charset: str | None) -> str:
    if charset is not None and charset.lower().replace("_", "-") not in _NO_CHARSETS:
        try:
            return content.decode(charset, "replace" if charset.lower() not in ("us-ascii", "ascii") else "strict")
        except (LookupError, ValueError):
            pass
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _unfold(value: str) -> str:
    """A header field in one line; octets that are not ASCII are taken for UTF-8."""
    octets = value[:MAX_FIELD].encode("utf-8", "surrogateescape")
    return _FOLD.sub("", _decode(octets, None)).strip()


def decode_words(value: str) -> str:
    """The text of a header field: encoded words decoded (RFC 2047), as far as they can be."""
    if "=?" not in value:
        return value
    value = _BETWEEN_WORDS.sub(r"\1", value)  # RFC 2047 §6.2
    result: list[str] = []
    end, octets, charset = 0, b"", ""
    for match in _ENCODED_WORD.finditer(value):
        joined = match.start() == end and match[1].lower() == charset
        if not joined:  # else a character may have been split between two words, against §5
            result.append(_decode(octets, charset or None) + value[end : match.start()])
            octets = b""
        octets += _word(match[2], match[3])
        end, charset = match.end(), match[1].lower()
    result.append(_decode(octets, charset or None) + value[end:])
    return "".join(result)


def _word(encoding: str, text: str) -> bytes:
    octets = text.encode("utf-8", "replace")
    if encoding in "qQ":
        return quopri.decodestring(octets, header=True)
    try:
        return binascii.a2b_base64(octets + b"=" * (-len(octets) % 4))
    except binascii.Error:
        return octets


def _printable(text: str) -> str:
    return _UNPRINTABLE.sub(" ", text)


def _addresses(headers: list[tuple[str, str]], name: str) -> list[Address]:
    result: list[Address] = []
    for value in islice((value for key, value in headers if key.lower() == name), MAX_ADDRESSES):
        try:
            pairs = getaddresses([value])
        except (Exception, RecursionError):  # comments inside each other
            pairs = []
        found = [_address(display, address) for display, address in pairs if display or address]
        result += found or ([Address(_printable(decode_words(value)), "")] if value else [])
    return result[:MAX_ADDRESSES]


def _address(display: str, address: str) -> Address:
    return Address(_printable(decode_words(display)).strip(), _printable(address).strip())


def _date(value: str | None) -> datetime | None:
    if value is None:
        return None
    try:
        date = parsedate_to_datetime(value)
        date = date if date.tzinfo is not None else date.replace(tzinfo=UTC)
        date.astimezone(UTC)  # the year 1 has no such time east of Greenwich
    except (Exception, RecursionError):  # ValueError, TypeError, IndexError, OverflowError, by version
        return None
    return date
