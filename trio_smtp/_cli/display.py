# A message as a person wants to see it: its main fields decoded, its text, a line for each attachment.
#
# Guarantees: what a sender wrote cannot control the terminal or imitate our own lines' colours, and costs limited time:
# whatever is too deep, too long or too odd is cut or shown as it came. It knows no sockets, stores or streams.
from __future__ import annotations

import re
from collections.abc import Iterator
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from email.message import Message
from email.parser import BytesParser
from email.policy import compat32
from html import unescape
from typing import Any, Final

import click

FIELDS: Final = ("From", "Sender", "Reply-To", "To", "Cc", "Subject", "Date")
MAX_FIELD: Final = 2000  # characters of a field that are looked at: decoding takes more time than its length
MAX_TEXT: Final = 256 * 1024  # characters of text that are shown
MAX_HTML: Final = 512 * 1024  # characters of HTML that are read
MAX_MULTIPARTS: Final = 50  # containers in a message; the time that parsing takes grows with their depth
MAX_ATTACHMENTS: Final = 50  # lines about attachments

# Control characters but TAB and LF, line ends of Unicode, and what makes text run the other way.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_NAME_WIDTH: Final = max(map(len, FIELDS)) + 2  # also of the handlers' own line


def safe(text: str) -> str:
    """The text with its control characters as escapes."""
    return _CONTROL.sub(
        lambda match: f"\\x{ord(match[0]):02x}" if match[0] < "\xff" else f"\\u{ord(match[0]):04x}", text
    )


def raw(content: bytes | bytearray) -> str:
    """A message as it came, but for control characters and octets that are not UTF-8, which are escaped."""
    return safe(content.decode("utf-8", "backslashreplace").replace("\r\n", "\n"))


def field(name: str, value: str, *, colour: bool) -> str:
    """A line with a name and a value."""
    words = f"{name:<{_NAME_WIDTH}}"
    return (click.style(words, fg="cyan") if colour else words) + safe(value).replace("\n", " ")


def show(content: bytes | bytearray, *, colour: bool) -> str:
    """Fields, text and attachments of a message; as it came where it cannot be read.

    Args:
        content: the message, with CRLF line ends.
        colour: for a terminal that has some.
    """
    if content.lower().count(b"multipart/") > MAX_MULTIPARTS:
        return raw(content)
    try:
        return "\n".join(_lines(BytesParser(policy=compat32).parsebytes(bytes(content)), colour))
    except Exception:  # the parser was not written for senders that want it to fail
        return raw(content)


def _lines(message: Message[str, str], colour: bool) -> Iterator[str]:
    found = [(name.lower(), value) for name, value in message.raw_items()]
    for wanted in FIELDS:
        values = [value for name, value in found if name == wanted.lower()]
        if values:
            yield field(wanted, _decoded(values[0]), colour=colour)
    texts, attachments = [], []
    for part in _leaves(message):
        text = None if _is_attachment(part) else _text(part)
        if text is None:
            attachments.append(_description(part))
        else:
            texts.append(text.strip("\n"))
    text = "\n\n".join(filter(None, texts))
    if text or not found:
        yield ""
        yield safe(text[:MAX_TEXT])
    if len(text) > MAX_TEXT:
        yield _dim(f"({len(text) - MAX_TEXT:,} more characters)", colour)
    if attachments:
        yield ""
    for words in attachments[:MAX_ATTACHMENTS]:
        yield _dim("attachment: ", colour) + safe(words)
    if len(attachments) > MAX_ATTACHMENTS:
        yield _dim(f"({len(attachments) - MAX_ATTACHMENTS:,} more attachments)", colour)


def _dim(words: str, colour: bool) -> str:
    return click.style(words, dim=True) if colour else words


def _decoded(value: Any) -> str:
    """A field's value with its encoded words decoded, on one line."""
    text = str(value)[:MAX_FIELD].encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    text = re.sub(r"\r?\n[ \t]", " ", text)
    try:
        return str(make_header(decode_header(text)))
    except (HeaderParseError, LookupError, ValueError):
        return text


def _leaves(part: Message[str, str]) -> Iterator[Message[str, str]]:
    """The parts to show: of alternatives one, of other containers all."""
    payload: Any = part.get_payload()
    if not part.is_multipart() or part.get_content_maintype() == "message":
        yield part
    elif part.get_content_subtype() == "alternative":
        yield from _leaves(_best(payload))
    else:
        for member in payload:
            yield from _leaves(member)


def _best(alternatives: list[Any]) -> Message[str, str]:
    """Plain text if there is some; else the last, which is the richest (RFC 2046 section 5.1.4)."""
    for part in alternatives:
        if part.get_content_type() == "text/plain" and part.get_payload().strip():
            return part  # type: ignore[no-any-return]
    return alternatives[-1]  # type: ignore[no-any-return]


def _is_attachment(part: Message[str, str]) -> bool:
    return part.get_content_maintype() != "text" or part.get_content_disposition() == "attachment"


def _text(part: Message[str, str]) -> str | None:
    payload = part.get_payload(decode=True)
    if not isinstance(payload, bytes):
        return None
    try:
        text = payload.decode(part.get_content_charset("utf-8"), "replace")
    except LookupError:  # a charset that Python does not know
        text = payload.decode("utf-8", "replace")
    text = text.replace("\r\n", "\n")
    return html_to_text(text) if part.get_content_subtype() == "html" else text


def _description(part: Message[str, str]) -> str:
    name = _decoded(part.get_filename() or "without a name")
    if part.get_content_maintype() == "message":
        inner: Any = part.get_payload()
        subject = _decoded(inner[0]["Subject"] or "") if part.is_multipart() else ""
        return f"message {subject!r}" if subject else "a message"
    payload = part.get_payload(decode=True)
    size = len(payload) if isinstance(payload, bytes) else 0
    return f"{name} ({part.get_content_type()}, {size:,} octets)"


# --- HTML ---
#
# Not by html.parser: the time that it takes grows with the square of what is wrong with a text (CVE-2025-6069).

_TAG = re.compile(r"(<[^<>]*>)")
_TAG_NAME = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9]*)")
_LINK = re.compile(r"""\bhref\s*=\s*["']?((?:https?:|mailto:)[^"'\s>]+)""", re.IGNORECASE)
_ALTERNATIVE = re.compile(r"""\balt\s*=\s*(?:"([^"]*)"|'([^']*)')""", re.IGNORECASE)
_HIDDEN: Final = frozenset({"script", "style", "head", "title", "template"})
_PARAGRAPHS: Final = frozenset({"blockquote", "h1", "h2", "h3", "h4", "h5", "h6", "ol", "p", "pre", "table", "ul"})
_BLOCKS: Final = _PARAGRAPHS | frozenset(
    {"address", "article", "aside", "dd", "div", "dl", "dt", "figure", "footer", "form", "header", "hr", "li", "main"}
    | {"nav", "section", "tbody", "tfoot", "thead", "tr"}
)


def html_to_text(html: str) -> str:
    """The words of an HTML text: blocks on lines of their own, the targets of links behind them."""
    reader = _HTMLReader()
    for number, token in enumerate(_TAG.split("".join(_without_comments(html[:MAX_HTML])))):
        if number % 2:
            reader.read_tag(token)
        else:
            reader.read_words(token)
    lines = [re.sub(r"[ \t\r\f]+", " ", line).strip() for line in "".join(reader.words).split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip("\n")


def _without_comments(html: str) -> Iterator[str]:
    at = 0
    while (start := html.find("<!--", at)) >= 0:
        yield html[at:start]
        at = html.find("-->", start + 4) + 3
        if at < 3:  # not closed: all the rest is a comment
            return
    yield html[at:]


class _HTMLReader:
    """Collects words and line ends."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self._ends: int = 2  # line ends behind the last word
        self._hidden: str | None = None  # the element whose content is not shown
        self._link: tuple[str, int] | None = None  # of the link that is open: the target, and where its words begin

    def read_tag(self, tag: str) -> None:
        match = _TAG_NAME.match(tag)
        if match is None:
            return
        closes, name = bool(match[1]), match[2].lower()
        if self._hidden is not None:
            if (closes and name == self._hidden) or name == "body":  # the end of the head may be left out
                self._hidden = None
            return
        if name in _HIDDEN and not closes:
            self._hidden = name
        elif name == "a":
            self._read_link(tag, closes=closes)
        elif name == "br":
            self._end_lines(self._ends + 1)
        elif name in ("td", "th"):
            self.read_words(" ")
        elif name == "img" and (words := _ALTERNATIVE.search(tag)):
            self.read_words(words[1] or words[2] or "")
        if name in _BLOCKS:
            self._end_lines(2 if name in _PARAGRAPHS else 1)
        if name == "li" and not closes:
            self.read_words("- ")

    def read_words(self, words: str) -> None:
        """Text between tags."""
        if self._hidden is not None or not words or (self._ends and words.isspace()):
            return
        self.words.append(unescape(re.sub(r"\s+", " ", words)))
        self._ends = 0

    def _read_link(self, tag: str, *, closes: bool) -> None:
        if not closes:
            target = _LINK.search(tag)
            self._link = None if target is None else (target[1], len(self.words))
        elif self._link is not None:
            (words, start), self._link = self._link, None
            if words not in "".join(self.words[start:]):
                self.read_words(f" <{words}>")

    def _end_lines(self, count: int) -> None:
        """See that there are so many line ends behind the last word."""
        if self._ends < count:
            self.words.append("\n" * (count - self._ends))
            self._ends = count
