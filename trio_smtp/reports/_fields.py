# Header fields as octets, written and read: those of a message, of a part, and of the groups of a status part.
#
# A value that is written cannot end its field: what is not printable is a blank. A value that is read has a bounded
# length, and is printable.
from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

MAX_HEADER: Final = 256 << 10  # octets of one header section
MAX_FIELD: Final = 8 << 10  # characters of one field's value; the rest is cut
MAX_LINES: Final = 200  # of one field's value; the rest is left out
_WORD: Final = 950  # characters after which a word is cut, since a line has 998 at most
_LINE: Final = 76  # characters in a line of ours, where there is a blank to fold at
CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
is_message_id: Final = re.compile(r"<[!-;=?-~]{1,900}>").fullmatch


def write_fields(fields: Mapping[str, str | None], utf8: bool) -> bytes:
    """Header fields, without those that are ``None``: folded at blanks, and ASCII unless `utf8`."""
    lines: list[str] = []
    for name, value in fields.items():
        if value is None:
            continue
        line, value = f"{name}:", CONTROL.sub(" ", value)[:MAX_FIELD]
        if not utf8:  # RFC 6533 §3, utf-8-addr-xtext
            value = re.sub(r"[^\x00-\x7f]", lambda found: f"\\x{{{ord(found[0]):02X}}}", value)
        for word in _words(value):
            if len(line) + len(word) >= _LINE and line.strip() and word:
                lines.append(line)
                line = ""
            line += f" {word}"
        lines.append(line)
    return "\r\n".join([*lines, ""]).encode()


def _words(text: str) -> Iterator[str]:
    for word in text.split(" "):
        yield word[:_WORD]
        yield from (word[at : at + _WORD] for at in range(_WORD, len(word), _WORD))


def header_end(octets: bytes) -> int:
    """Where the blank line begins that ends a header section."""
    if octets.startswith((b"\n", b"\r\n")):
        return 0
    found = [at + 1 for at in (octets.find(b"\n\n"), octets.find(b"\n\r\n")) if at >= 0]
    return min(found, default=len(octets))


def read_fields(section: bytes) -> Iterator[tuple[str, str]]:
    """The fields of a header section, or of a group of a status part: names in lower case, values unfolded."""
    for name, lines in read_lines(section):
        yield name, " ".join(lines)[:MAX_FIELD].strip()


def read_lines(section: bytes) -> Iterator[tuple[str, list[str]]]:
    """The same, with the lines of a value one by one, and what is not printable replaced."""
    name = ""
    lines: list[str] = []
    for raw in section.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"):
        is_more = raw[:1] in (b" ", b"\t")
        if is_more and len(lines) >= MAX_LINES:
            continue
        line = raw[: MAX_FIELD + 100].decode("utf-8", "replace")
        if is_more:
            lines.append(CONTROL.sub("\ufffd", line.replace("\t", " ").strip()))
            continue
        if name:
            yield name, lines
        name, colon, value = line.partition(":")
        name = name.strip().lower() if colon else ""
        lines = [CONTROL.sub("\ufffd", value.replace("\t", " ").strip())]
    if name:
        yield name, lines
