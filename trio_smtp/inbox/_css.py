# CSS of a message: written anew without what would be fetched, and the addresses of that.
#
# CSS is cut as CSS Syntax Level 3 says (escapes, comments, strings, `url(` without quotes), and each piece is written
# in one plain form, so that a browser reads what is passed on as it was read here. At-rules and functions that are not
# in the lists below are replaced by `none`, with what follows them up to the next `;`, `{` or `}`: `@import`,
# `image-set("…")`, `src("…")`, and what will be invented.
from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

from ._markup import names

MAX_CSS_NAME: Final = 200  # characters of a name; a longer one is dropped

_AT_RULES: Final = names("media supports keyframes -webkit-keyframes -moz-keyframes layer container page")
_FUNCTIONS: Final = names(
    "rgb rgba hsl hsla hwb lab lch oklab oklch color color-mix light-dark calc min max clamp round abs sign var env"
    " attr"
    " counter counters linear-gradient radial-gradient conic-gradient repeating-linear-gradient"
    " repeating-radial-gradient repeating-conic-gradient -webkit-linear-gradient -moz-linear-gradient -webkit-gradient"
    " from to color-stop translate translatex translatey translate3d scale scalex scaley rotate skew skewx skewy matrix"
    " cubic-bezier steps rect inset circle ellipse polygon blur brightness contrast drop-shadow grayscale hue-rotate"
    " invert opacity saturate sepia minmax repeat fit-content"
    " not is where has matches lang dir nth-child nth-last-child nth-of-type nth-last-of-type selector"
    " and or only"  # @media not(…)
)
_ESCAPE: Final = r"\\(?:[0-9a-fA-F]{1,6}(?:\r\n|[ \t\r\n\f])?|[^\r\n\f0-9a-fA-F])"
_STRING: Final = r"\"(?:[^\"\\\r\n\f]|\\(?:\r\n|.))*\"|'(?:[^'\\\r\n\f]|\\(?:\r\n|.))*'"
_PIECE: Final = re.compile(
    rf"""
    (?P<comment>/\*(?:.*?\*/|.*)|<(?:!--)?|-->)
    | (?P<string>{_STRING})
    | (?P<at>@)?(?P<name>(?:[A-Za-z0-9_\-]|[^\x01-\x7f]|{_ESCAPE})+)(?P<call>\()?
    | (?P<broken>["'][^\r\n\f]*)
    | (?P<other>[ \t\r\n\f()\[\]*:,.\#>+~=%!|&?$^`]+|.)
    """,
    re.DOTALL | re.VERBOSE,
)
_ESCAPED: Final = re.compile(r"\\(?:([0-9a-fA-F]{1,6})(?:\r\n|[ \t\r\n\f])?|(\r\n|.))", re.DOTALL)
_BEHIND_URL: Final = re.compile(
    rf"[ \t\r\n\f]*(?:(?P<string>{_STRING})[^)]*|(?P<bare>(?:[^)\\]|\\.)*))(?:\)|\Z|\\\Z)", re.DOTALL
)
_NOT_PLAIN: Final = re.compile(r"[^A-Za-z0-9_\-\x80-\ud7ff\ue000-\U0010ffff]")
_NOT_IN_STRING: Final = re.compile(r"[\x00-\x1f\"\\<\x7f\ud800-\udfff]")
_ENDS: Final = frozenset(";{}")


def clean(css: str, allowed: Callable[[str], str]) -> str:
    """CSS written anew, without what would be fetched. ``<`` is not in it.

    Args:
        css: a style sheet, or the value of a ``style`` attribute.
        allowed: makes, of the address in a ``url()``, the one that is written; ``""`` for none.
    """

    def url(address: str) -> str:
        written = allowed(address)
        return f"url({_string(written)})" if written else "none"

    return "".join(_rewritten(css, url, lambda address: ""))


def addresses_in(css: str) -> list[str]:
    """The addresses that a browser may fetch for CSS: in ``url()``, ``@import``, ``image-set()`` and the like."""
    found: list[str] = []

    def note(address: str) -> str:
        found.append(address)
        return ""

    for _ in _rewritten(css, note, note):
        pass
    return found


def _rewritten(css: str, url: Callable[[str], str], dropped: Callable[[str], object]) -> Iterator[str]:
    """The pieces to write. `url` is asked about addresses, `dropped` hears of strings that are not written."""
    at, drops = 0, False
    while (piece := _PIECE.match(css, at)) is not None:
        at = piece.end()
        kind = piece.lastgroup
        if piece["name"] is not None:
            name = _decoded(piece["name"])
            plain = name.lower()
            first = piece["at"] or ""
            if piece["call"] and plain == "url":
                address = _BEHIND_URL.match(css, at)
                assert address is not None  # whatever follows
                at = address.end()
                text = address["string"]
                written = url(_decoded(text[1:-1] if text is not None else address["bare"].strip(" \t\r\n\f")))
                if not drops:
                    yield first + written
            elif not drops:
                is_known = plain in (_AT_RULES if piece["at"] else _FUNCTIONS) or not (piece["at"] or piece["call"])
                drops = not is_known or len(name) > MAX_CSS_NAME
                yield f"{first}none" if drops else f"{first}{_name(piece['name'], name)}{piece['call'] or ''}"
        elif kind == "string":
            text = _decoded(piece["string"][1:-1])
            if drops:
                dropped(text)
            else:
                yield _string(text)
        elif kind == "other":
            drops = drops and piece["other"] not in _ENDS
            if not drops:
                yield piece["other"] if piece["other"] != "\\" else ""
        elif kind == "comment" and not drops:
            yield "/**/"  # it separates: u/**/rl( is no url(


def _decoded(text: str) -> str:
    def character(match: re.Match[str]) -> str:
        if match[1] is None:
            return "" if match[2] in ("\n", "\r\n", "\r", "\f") else match[2]
        number = int(match[1], 16)
        return chr(number) if 0 < number < 0xD800 or 0xDFFF < number <= 0x10FFFF else "\ufffd"

    return _ESCAPED.sub(character, text).replace("\0", "\ufffd")


def _hexadecimal(match: re.Match[str]) -> str:
    return f"\\{ord(match[0]):x} " if not "\ud800" <= match[0] <= "\udfff" else "\ufffd"


def _name(raw: str, name: str) -> str:
    if raw[0] == "\\" and name[0].isdigit():  # a name, and no number
        return f"\\{ord(name[0]):x} " + _NOT_PLAIN.sub(_hexadecimal, name[1:])
    return _NOT_PLAIN.sub(_hexadecimal, name)


def _string(text: str) -> str:
    return f'"{_NOT_IN_STRING.sub(_hexadecimal, text)}"'
