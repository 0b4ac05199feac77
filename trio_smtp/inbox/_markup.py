# HTML cut into tags and text, in time that grows with its length whatever it is.
#
# The standard library's html.parser takes minutes for 300 KiB of "<a <a <a". Here each search that fails ends the work:
# a quote, a comment or a tag that has no end makes the rest disappear. What a browser would make of that is of no
# importance, since what is passed on is written anew (_html.py).
from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import unescape
from typing import Final

MAX_ATTRIBUTES: Final = 100  # of a tag
MAX_REFERENCE: Final = 4096  # digits; Python converts no longer ones

# Elements whose content has no tags, up to the end tag.
RAW: Final = frozenset(
    {"iframe", "noembed", "noframes", "noscript", "plaintext", "script", "style", "textarea", "title", "xmp"}
)
_NAME: Final = re.compile(r"[a-zA-Z][a-zA-Z0-9:-]{0,40}")
_ATTRIBUTE: Final = re.compile(r"[\s/]*([^\s\"'<>/=]{1,100})")
_EQUALS: Final = re.compile(r"\s*=\s*")
_BARE: Final = re.compile(r"[^\s\"'<>]*")
_LONG_REFERENCE: Final = re.compile(r"&#[0-9a-fA-FxX]{100,}")


@dataclass(frozen=True, slots=True)
class Text:
    """Characters between tags, references decoded."""

    text: str


@dataclass(frozen=True, slots=True)
class Start:
    """A start tag.

    Attributes:
        name: in lower case.
        attributes: names in lower case, values decoded, in order.
        content: of an element whose content has no tags; ``None`` for any other.
    """

    name: str
    attributes: list[tuple[str, str]] = field(default_factory=list)
    content: str | None = None


@dataclass(frozen=True, slots=True)
class End:
    """An end tag; its name is in lower case."""

    name: str


def cut(html: str) -> Iterator[Text | Start | End]:
    """The pieces of HTML, in order."""
    lower = html.lower() if len(html.lower()) == len(html) else html  # İ becomes two characters
    at = 0
    while at < len(html):
        tag = html.find("<", at)
        if tag < 0:
            yield Text(decoded(html[at:]))
            return
        if tag > at:
            yield Text(decoded(html[at:tag]))
        name = _NAME.match(html, tag + 1)
        if name is not None:
            attributes, at = _attributes(html, name.end())
            if at < 0:
                return
            if name[0].lower() in RAW:
                content, at = _raw(html, lower, at, name[0].lower())
                yield Start(name[0].lower(), attributes, content)
                if at < 0:
                    return
            else:
                yield Start(name[0].lower(), attributes)
        elif html.startswith(("<!", "<?", "</"), tag):
            end_name = _NAME.match(html, tag + 2) if html[tag + 1] == "/" else None
            if end_name is not None:
                yield End(end_name[0].lower())
            end, length = (html.find("-->", tag + 2), 3) if html.startswith("<!--", tag) else (html.find(">", tag), 1)
            if end < 0:
                return
            at = end + length
        else:
            yield Text("<")
            at = tag + 1


def names(text: str) -> frozenset[str]:
    """A list of names, which are separated by blanks."""
    return frozenset(text.split())


def decoded(text: str) -> str:
    """Text with its character references decoded; one with very many digits stays."""
    if "&" not in text:
        return text
    return unescape(_LONG_REFERENCE.sub("&amp;#", text))


def _attributes(html: str, at: int) -> tuple[list[tuple[str, str]], int]:
    """Those of a tag, and where what follows it begins; -1 if the tag has no end."""
    found: dict[str, str] = {}
    end = -1  # the next ">", looked for once: there may be very many stray characters before it
    while True:
        name = _ATTRIBUTE.match(html, at)
        if name is None:
            end = end if end >= at else html.find(">", at)
            if end < 0:
                return [], -1
            at = _behind_stray(html, at, end)
            if at > end:
                return list(found.items()), at
            continue
        value, at = _value(html, name.end())
        if at < 0:
            return [], -1
        if len(found) < MAX_ATTRIBUTES:
            found.setdefault(name[1].lower(), decoded(value))


def _behind_stray(html: str, at: int, end: int) -> int:
    """The position behind a character that begins no attribute, or behind the end of the tag."""
    while at < end and html[at] in " \t\r\n\f/":
        at += 1
    return at + 1


def _value(html: str, at: int) -> tuple[str, int]:
    """The value of an attribute, and the position behind it; -1 if a quote is missing."""
    equals = _EQUALS.match(html, at)
    if equals is None:
        return "", at
    at = equals.end()
    if at < len(html) and html[at] in "\"'":
        end = html.find(html[at], at + 1)
        return (html[at + 1 : end], end + 1) if end >= 0 else ("", -1)
    bare = _BARE.match(html, at)
    return (bare[0], bare.end()) if bare is not None else ("", at)


def _raw(html: str, lower: str, at: int, name: str) -> tuple[str, int]:
    """The content of an element without tags, and the position behind its end tag; -1 at the end of all."""
    end = lower.find(f"</{name}", at) if name != "plaintext" else -1
    if end < 0:
        return html[at:], -1
    behind = html.find(">", end)
    return html[at:end], behind + 1 if behind >= 0 else -1
