# Folding: the words of a header field into lines.
#
# A word is an octet string that begins with the white space before it. A line may end before a word that has some, and
# then unfolding, which takes out only CR LF, gives back the same text (RFC 5322 §2.2.3). No word is ever cut here, and
# none begins a line without ink in it: a line of white space alone may end a header for some readers.
from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from .target import MAX_LINE, unwritable

_LONGEST_QUOTED: Final = 200  # characters of a quoted string that is kept on one line
# Possessive, and bounded: text that is made for it must cost no more time than other text.
_WORD: Final = re.compile(
    r'[ \t]*+(?:"(?:[^"\\]|\\.){0,%d}+"|[^ \t])++(?:[ \t]++\Z)?|[ \t]++\Z' % _LONGEST_QUOTED  # noqa: UP031
)
_PLAIN_WORD: Final = re.compile(r"[ \t]*+[^ \t]++(?:[ \t]++\Z)?|[ \t]++\Z")
_BLANK: Final = (b" ", b"\t")


def words_of(text: str) -> list[bytes]:
    """The words of an unfolded field body that stays as it is. A quoted string of moderate length is one word."""
    words: list[str] = []
    for word in _WORD.findall(text):
        if len(word) > _LONGEST_QUOTED:
            words.extend(_PLAIN_WORD.findall(word))
        else:
            words.append(word)
    return [word.encode("utf-8", "surrogateescape") for word in words]


def fold(name: str, words: Iterable[bytes], length: int) -> bytes:
    """A header field with its line ends, in lines of this length where the words allow it.

    Raises:
        LocalProtocolError: a word is too long for any line.
    """
    lines: list[bytes] = []
    line = name.encode("ascii") + b": "
    is_first = True
    for unit in _units(words):
        if not is_first and len(line) + len(unit) > length and unit.startswith(_BLANK):
            lines.append(line)
            line = unit
        else:
            line += unit
        is_first = False
    lines.append(line)
    if any(len(line) > MAX_LINE for line in lines):
        raise unwritable(
            f"the field {name} has a word that is too long for a line of {MAX_LINE} octets, and no white space in it"
        )
    return b"\r\n".join(lines) + b"\r\n"


def _units(words: Iterable[bytes]) -> Iterable[bytes]:
    """Words that have no white space before them joined to the word before."""
    unit = b""
    for word in words:
        if unit and word.startswith(_BLANK) and word.strip(b" \t"):
            yield unit
            unit = word
        else:
            unit += word
    if unit:
        yield unit
