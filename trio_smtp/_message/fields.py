# A header field as octets.
#
# What has a source goes out as it came: a str, which is what a parser stores, and what an older Message is given. Only
# its line ends become CR LF. It is written anew where it cannot stay: octets that the server cannot take, or a line
# that is too long. What an EmailMessage is given it parses at once, and the source is gone; such a field is composed
# from what it says: addresses, parameters, or text. So is a Header object.
#
# Encoded words are for text. A field of another kind has none, whatever the length of its words (RFC 2047 §5).
from __future__ import annotations

import re
from collections.abc import Callable
from email.header import Header
from enum import Enum, auto
from typing import Any, Final

from .folding import fold, words_of
from .identifiers import ascii_identifiers, ascii_uris
from .mailboxes import mailbox_words, quoted, rewritten_words
from .mime import parameter_words, rewritten_parameters
from .target import MAX_LINE, USUAL_LINE, Target, lacking, unwritable
from .words import text_words

_NAME: Final = re.compile(r"[!-9;-~]+").fullmatch  # RFC 5322 §3.6.8
# A line end begins another field, or the body; VT, FF, FS, GS and RS end a line for str.splitlines(), by which the
# email package reads headers.
_BREAK: Final = re.compile(r"[\0\v\f\x1c-\x1e]|\r\n(?![ \t])|\r(?![ \t\n])|(?<!\r)\n(?![ \t])").search
_ENCODED_WORD: Final = re.compile(r"=\?[^?\s]+\?[A-Za-z]\?").search  # or the beginning of one
_ENCODED_LENGTH: Final = 76  # of a line with an encoded word (RFC 2047 §2)
_LONGEST_SOURCE: Final = 900  # octets of parameters with defects, which stay as they are
_UTF8_ALONE: Final = Target(eight_bit=False, utf8=True)
_FOLD: Final = re.compile(r"\r\n|[\r\n]").sub


class Kind(Enum):
    """What a field holds, and so how it may be written."""

    TEXT = auto()
    ADDRESSES = auto()
    MIME = auto()
    IDENTIFIERS = auto()
    URIS = auto()
    OTHER = auto()  # unknown, or known to be no text: encoded words only for what is not ASCII


KINDS: Final = {
    **dict.fromkeys(("subject", "comments", "content-description", "organization", "thread-topic"), Kind.TEXT),
    **dict.fromkeys(
        (
            *("from", "sender", "reply-to", "to", "cc", "bcc", "keywords"),
            *("resent-from", "resent-sender", "resent-reply-to", "resent-to", "resent-cc", "resent-bcc"),
            *("disposition-notification-to", "return-receipt-to", "errors-to", "mail-followup-to", "mail-reply-to"),
        ),
        Kind.ADDRESSES,
    ),
    **dict.fromkeys(("content-type", "content-disposition"), Kind.MIME),
    **dict.fromkeys(
        ("message-id", "in-reply-to", "references", "resent-message-id", "content-id", "original-message-id"),
        Kind.IDENTIFIERS,
    ),
    **dict.fromkeys(
        (
            *("list-id", "list-help", "list-unsubscribe", "list-subscribe", "list-post", "list-owner", "list-archive"),
            *("archived-at", "content-base", "content-location"),
        ),
        Kind.URIS,
    ),
}
# Tags whose base64 may have white space anywhere in it (RFC 6376 §3.5, RFC 8617 §4.1, Autocrypt 1.1).
_BASE64_TAGS: Final = {
    "dkim-signature": ("b", "bh"),
    "arc-message-signature": ("b", "bh"),
    "arc-seal": ("b",),
    "autocrypt": ("keydata",),
    "autocrypt-gossip": ("keydata",),
}
_TAG: Final = re.compile(r"([ \t]*)([A-Za-z0-9_-]+)=(.*)", re.DOTALL)
_PIECE: Final = 70  # octets of base64 on one line


def check_name(name: object) -> str:
    """The name of a field.

    Raises:
        LocalProtocolError: it is none.
    """
    if not isinstance(name, str) or not _NAME(name):
        raise unwritable(f"{name!r} is no name of a header field")
    return name


def write_field(name: str, value: Any, target: Target, length: int, *, is_signed: bool = False) -> bytes:
    """A header field, with CR LF at its end.

    Args:
        name: checked.
        value: a str, a Header, or what a header registry has made.
        target: what the server takes.
        length: of the lines of a composed field.
        is_signed: it is part of what a signature covers: what was parsed stays as it is, whatever the server takes.

    Raises:
        LocalProtocolError: it cannot be written.
    """
    if isinstance(value, Header):
        text = _FOLD("", _checked(name, _header_text(value, is_phrase=_kind(name) is Kind.ADDRESSES)))
        _octets(name, text)
        return _write_anew(name, text, target, length, is_source=False)
    if not isinstance(value, str):
        raise unwritable(f"the field {name} is a {type(value).__name__}")
    text = _checked(name, value)
    if hasattr(value, "fold"):
        return _compose(name, value, _FOLD("", text), target, length)
    octets = _octets(name, _FOLD("\r\n", text))
    field = name.encode("ascii") + b": " + octets + b"\r\n"
    is_short = max(map(len, field.split(b"\r\n"))) <= MAX_LINE
    if is_signed:
        if not octets.isascii() and not target.eight_bit:
            raise lacking("8BITMIME", f"the field {name} of a signed part, which must stay as it is, is not ASCII")
        if not is_short:
            raise unwritable(f"the field {name} of a signed part, which must stay as it is, has too long a line")
        return field
    if is_short and _may_stay(octets, target):
        return field
    return _write_anew(name, _FOLD("", text), target, length, is_source=True)


def unfold(text: str) -> str:
    """A field's body on one line."""
    return _FOLD("", text)


def is_raw_utf8(value: object) -> bool:
    """Whether a field's value has UTF-8 that was parsed from octets."""
    if not isinstance(value, str) or value.isascii() or hasattr(value, "fold"):
        return False
    try:
        return value.encode("utf-8", "surrogateescape").decode("utf-8") != value
    except UnicodeError:
        return False


def _checked(name: str, text: str) -> str:
    if _BREAK(text):
        raise unwritable(f"the field {name} has a line end that folds no line, or what may become one")
    return text


def _octets(name: str, text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise unwritable(f"the field {name} has a surrogate, which is no character") from None


def _may_stay(octets: bytes, target: Target) -> bool:
    if octets.isascii():
        return True
    try:
        octets.decode()
    except UnicodeDecodeError:
        return target.eight_bit  # in an encoding that is not known here
    return target.utf8


def _header_text(header: Header, *, is_phrase: bool) -> str:
    """What a Header says, as its own ``__str__`` joins its pieces, but with octets of an unknown encoding kept.

    Args:
        header: made of pieces, each with a charset.
        is_phrase: among addresses. There a piece with a charset is a display name beside the others: quoted, so that no
            comma in it ends an address. Where it is the only one it holds all there is, the address too.
    """
    pieces: list[tuple[str, bool]] = []
    for piece, charset in header._chunks:  # type: ignore[attr-defined]  # str() loses those octets
        is_encoded = charset not in (None, "us-ascii")
        if pieces and pieces[-1][1] == is_encoded:
            pieces[-1] = (pieces[-1][0] + piece, is_encoded)
        elif piece:
            pieces.append((piece, is_encoded))
    text = ""
    for piece, is_encoded in pieces:
        if text and text[-1] not in " \t" and piece[0] not in " \t":
            text += " "
        text += quoted(piece.strip(" \t")) if is_encoded and is_phrase and len(pieces) > 1 else piece
    return text


# -- composed


def _compose(name: str, value: Any, text: str, target: Target, length: int) -> bytes:
    """A field from a header object of the email package's registry."""
    _octets(name, text)
    groups = getattr(value, "groups", None)
    parameters = getattr(value, "params", None)
    if groups is not None:
        source = _source_of_addresses(value)
        words = words_of(source) if source is not None else mailbox_words(groups, utf8=target.utf8)
        return fold(name, words, length)
    if parameters is not None and not (text.isascii() and _has_defects(value) and len(text) < _LONGEST_SOURCE):
        head = getattr(value, "content_type", None) or getattr(value, "content_disposition", None) or ""
        if head.isascii():
            return fold(name, parameter_words(head, parameters.items(), utf8=target.utf8), length)
    return _write_anew(name, text, target, length, is_source=False)


def _has_defects(value: object) -> bool:
    return bool(getattr(value, "defects", None))


def _source_of_addresses(value: Any) -> str | None:
    """The source of a field with comments or defects, if all of it is still there: nothing of it was decoded."""
    tree: Any = getattr(value, "_parse_tree", None)
    source = "" if tree is None else str(tree)
    if not source or not source.isascii() or _BREAK(source):
        return None
    if not _has_defects(value) and not ("(" in source and _has_token(tree, "comment")):
        return None
    if _has_token(tree, "encoded-word"):
        return None
    # Of Address objects the tree is the email package's own attempt at a source.
    said = [(box.display_name or "", box.local_part or "", box.domain or "") for box in tree.all_mailboxes]
    meant = [(address.display_name, address.username, address.domain) for address in value.addresses]
    return _FOLD("", source) if said == meant else None


def _has_token(token: Any, kind: str) -> bool:
    if getattr(token, "token_type", "") == kind:
        return True
    return isinstance(token, list) and any(_has_token(inner, kind) for inner in token)


# -- text and sources


def _kind(name: str) -> Kind:
    return KINDS.get(name.lower(), Kind.OTHER)


def _write_anew(name: str, text: str, target: Target, length: int, *, is_source: bool) -> bytes:
    """A field from unfolded text: what it says, or a source that cannot stay as it is."""
    kind = _kind(name)
    may_stay = text.isascii() or (target.utf8 and _may_stay(text.encode("utf-8", "surrogateescape"), _UTF8_ALONE))
    if may_stay and kind is not Kind.TEXT and (kind is not Kind.OTHER or is_source or _is_plain(text)):
        return _fold_source(name, text, length)
    prefix, short = len(name) + len(": "), min(length, _ENCODED_LENGTH) if length <= USUAL_LINE else length
    write = None if may_stay else _WRITERS.get(kind)
    words = write(_decoded(text), prefix, short) if write is not None else None
    if words is None:
        is_text = kind is Kind.TEXT
        words = text_words(text, utf8=target.utf8, prefix=prefix, length=short, long_words=is_text, is_source=is_source)
    return fold(name, words, short if any(b"=?" in word for word in words) else length)


def _is_plain(text: str) -> bool:
    """Whether text is read back as it is where it is composed: it has no encoded words and no control characters."""
    return text.replace("\t", " ").isprintable() and _ENCODED_WORD(text) is None


def _write_addresses(text: str, prefix: int, length: int) -> list[bytes] | None:
    return rewritten_words(text, prefix=prefix, length=length)


def _write_mime(text: str, prefix: int, length: int) -> list[bytes] | None:
    return rewritten_parameters(text)


def _write_identifiers(text: str, prefix: int, length: int) -> list[bytes] | None:
    return words_of(ascii_identifiers(text))


def _write_uris(text: str, prefix: int, length: int) -> list[bytes] | None:
    text = ascii_uris(text)
    return text_words(text, utf8=False, prefix=prefix, length=length, long_words=False, is_source=True)


_WRITERS: Final[dict[Kind, Callable[[str, int, int], list[bytes] | None]]] = {
    Kind.ADDRESSES: _write_addresses,
    Kind.MIME: _write_mime,
    Kind.IDENTIFIERS: _write_identifiers,
    Kind.URIS: _write_uris,
}


def _decoded(text: str) -> str:
    """Characters for octets that are UTF-8; text in an unknown encoding stays as it is."""
    octets = text.encode("utf-8", "surrogateescape")
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return text


def _fold_source(name: str, text: str, length: int) -> bytes:
    words = words_of(text.lstrip(" \t"))
    tags = _BASE64_TAGS.get(name.lower())
    if tags is not None and any(len(word) > MAX_LINE - len(name) - 2 for word in words):
        words = [piece for word in words for piece in _cut(word, tags)]
    return fold(name, words, length)


def _cut(word: bytes, tags: tuple[str, ...]) -> list[bytes]:
    """A long word of base64 in pieces, where white space in it has no meaning."""
    parts = word.decode("utf-8", "surrogateescape").split(";")
    pieces: list[str] = []
    for number, part in enumerate(parts):
        text = part + (";" if number < len(parts) - 1 else "")
        match = _TAG.fullmatch(text)
        if match is None or match[2] not in tags or len(text) <= _PIECE:
            pieces.append(text)
            continue
        pieces.append(f"{match[1]}{match[2]}=")
        value = match[3]
        pieces.extend(f" {value[at : at + _PIECE]}" for at in range(0, len(value), _PIECE))
    return [piece.encode("utf-8", "surrogateescape") for piece in pieces if piece]
