# Encoded words (RFC 2047): text that is not ASCII, in a header that must be.
#
# Words that need no encoding stay as they are. Neighbours that do are encoded together, with the white space between
# them: a reader drops what stands between two encoded words. Only those characters are left unencoded that may be so in
# every place of a header (RFC 2047 §5 (3)).
from __future__ import annotations

import binascii
import re
from collections.abc import Iterator
from typing import Final

MAX_WORD: Final = 75  # RFC 2047 §2
_LONGEST: Final = 900  # octets of a word of text that may stay as it is; MAX_LINE, with room for the field's name
_READABLE: Final = 5  # octets by which "Q" may be longer than "B": a person can read it
_MANY_BLANKS: Final = 60  # characters of white space that may stay as they are
_SAFE: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!*+-/")
_QUOTED: Final = tuple(
    chr(octet) if octet in _SAFE else "_" if octet == 0x20 else f"={octet:02X}" for octet in range(256)
)
_PIECES: Final = re.compile(r"([ \t]*)([^ \t]*)")
_LOOKS_ENCODED: Final = re.compile(r"=\?")
_IS_ENCODED: Final = re.compile(r"=\?[^?\s]+\?[A-Za-z]\?[^?\s]*\?=").fullmatch


def is_encoded_word(text: str) -> bool:
    """Whether this is an encoded word, and nothing else."""
    return _IS_ENCODED(text) is not None


def encoded_words(text: str, *, first: int = MAX_WORD, length: int = MAX_WORD) -> list[bytes]:
    """Text as encoded words, each but the first with a space before it.

    Args:
        text: where octets of an unknown encoding were parsed, as the email package has them (surrogates).
        first: octets for the first word.
        length: octets for each further word.
    """
    octets = text.encode("utf-8", "surrogateescape")
    try:
        characters = [character.encode() for character in octets.decode()]
        charset = "utf-8"
    except UnicodeDecodeError:
        characters = [octets[at : at + 1] for at in range(len(octets))]
        charset = "unknown-8bit"  # RFC 1428
    quoted_size = sum(len(_QUOTED[octet]) for octet in octets)
    is_short = quoted_size < (len(octets) + 2) // 3 * 4 + _READABLE
    kind = "q" if charset != "utf-8" or is_short else "b"
    head = f"=?{charset}?{kind}?"
    words: list[str] = []
    room = max(first, len(head) + 14) - len(head) - len("?=")
    for chunk in _chunks(characters, kind, room, max(length, len(head) + 14) - len(head) - len("?=")):
        content = (
            binascii.b2a_base64(chunk, newline=False).decode()
            if kind == "b"
            else "".join(map(_QUOTED.__getitem__, chunk))
        )
        words.append((" " if words else "") + head + content + "?=")
    return [word.encode("ascii") for word in words]


def phrase_words(text: str) -> list[bytes]:
    """A display name as one encoded word, longer than :data:`MAX_WORD` if need be; as several only if no line holds it.

    Two encoded words are one text (RFC 2047 section 6.2), but the email package's own parser, up to Python 3.13 at
    least, leaves a space between two in a display name. It reads one of any length.
    """
    return encoded_words(text, first=_LONGEST, length=_LONGEST)


def _chunks(characters: list[bytes], kind: str, first: int, room: int) -> Iterator[bytes]:
    """The characters in pieces that fit, encoded, into this much room. None is cut (RFC 2047 §5)."""
    chunk, size, room_now = b"", 0, first
    for character in characters:
        quoted_size = sum(len(_QUOTED[octet]) for octet in character)
        size = size + quoted_size if kind == "q" else (len(chunk) + len(character) + 2) // 3 * 4
        if chunk and size > room_now:
            yield chunk
            chunk, room_now = b"", room
            size = quoted_size if kind == "q" else (len(character) + 2) // 3 * 4
        chunk += character
    if chunk:
        yield chunk


def text_words(
    text: str, *, utf8: bool, prefix: int, length: int, long_words: bool = True, is_source: bool = False
) -> list[bytes]:
    """The words of unstructured text, some of them encoded, for :func:`trio_smtp._message.folding.fold`.

    Args:
        text: without line ends.
        utf8: what is not ASCII may stay as UTF-8.
        prefix: octets on the first line before the text.
        length: of a line.
        long_words: words that are too long for a line become encoded words too.
        is_source: it is the source of a field, in which encoded words stay as they are; not what a field says.
    """
    words: list[bytes] = []
    blank = ""  # white space before the next word
    span: list[str] = []  # to be encoded: words, and the white space between them
    span_blank = ""  # white space before it
    limit = min(MAX_WORD, length - 1)

    def end_span() -> None:
        if span:
            first = limit if words else min(limit, length - prefix)
            head, *rest = encoded_words("".join(span), first=first, length=limit)
            words.append(span_blank.encode("ascii") + head)
            words.extend(rest)
            span.clear()

    last = ""
    for match in _PIECES.finditer(text):
        blank, word = match.groups()
        if not word:  # white space at the end, or nothing
            if span or (blank and not words):
                span.append(blank)
            elif blank:
                words.append(blank.encode("ascii"))
        elif _must_encode(word, utf8, long_words, is_source) or (
            not is_source and ((blank and not last) or len(blank) > _MANY_BLANKS)
        ):
            if span:
                span.append(blank)
            elif not last:
                span_blank = ""
                span.append(blank)
            else:
                span_blank, more = blank[:_MANY_BLANKS], blank[_MANY_BLANKS:]
                # A reader drops the white space between encoded words, so it is put into one of them.
                span.append(blank if is_source and is_encoded_word(last) else more)
            span.append(word)
        else:
            if span and is_source and is_encoded_word(word):
                span.append(blank)
            end_span()
            words.append(blank.encode("ascii") + word.encode("utf-8", "surrogateescape"))
        last = word or last
    end_span()
    return words


def _must_encode(word: str, utf8: bool, long_words: bool, is_source: bool) -> bool:
    if not word.isascii() and not (utf8 and _is_utf8(word)):
        return True
    if long_words and len(word.encode("utf-8", "surrogateescape")) > _LONGEST:
        return not (is_source and is_encoded_word(word))
    return not is_source and (not word.isprintable() or _LOOKS_ENCODED.search(word) is not None)


def _is_utf8(word: str) -> bool:
    try:
        word.encode("utf-8", "surrogateescape").decode()
    except UnicodeDecodeError:
        return False
    return True
