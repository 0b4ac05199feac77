# The body of a part that has no parts: its octets, and the transfer encoding under which they can be sent.
#
# What can be sent stays as it is. Else the octets are decoded, if they were encoded, and encoded again (RFC 2045 §6,
# RFC 6152 §3). No charset is looked up for that: octets stay what they are, and so does the label. A charset counts
# only where the application has set characters, not octets.
from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from typing import Any, Final

from .._protocol.newlines import bare_in, to_crlf
from .target import has_long_line, unwritable

_SLICE: Final = 1 << 20  # characters at a time, since one call in C keeps all other threads waiting
_UUENCODE: Final = ("x-uuencode", "uuencode", "uue", "x-uue")
_NOT_BASE64: Final = re.compile(rb"[^A-Za-z0-9+/]")
_FIRST_WORD: Final = re.compile(r"[ \t\r\n]*([^\s;(]*)").match
_READABLE: Final = 64  # octets by which quoted-printable may be larger than base64: a person can read it
_LINE: Final = 57  # octets on a line of base64: 76 characters (RFC 2045 §6.8)


def encoding_of(source: object) -> str:
    """A Content-Transfer-Encoding in lower case, ``""`` if the field is missing."""
    match = _FIRST_WORD(source) if isinstance(source, str) else None
    return match[1].lower() if match is not None else ""


def has_characters(payload: object) -> bool:
    """Whether a payload is text that the application has set, and not octets as the email package keeps them."""
    if not isinstance(payload, str) or payload.isascii():
        return False
    try:
        payload.encode("ascii", "surrogateescape")
    except UnicodeEncodeError:
        return True
    return False


def octets_of(payload: Any, charset: str = "utf-8", *, is_binary: bool = False) -> bytes:
    """A payload as octets with CR LF line ends.

    Args:
        payload: a str, in which surrogates stand for octets above 127, or bytes, or ``None``.
        charset: for characters; one that does.
        is_binary: it has no lines, and no octet is changed.

    Raises:
        LocalProtocolError: it is something else, or has a surrogate that stands for nothing.
    """
    if payload is None:
        return b""
    if isinstance(payload, bytes | bytearray | memoryview):
        return bytes(payload) if is_binary else to_crlf(bytes(payload))
    if not isinstance(payload, str):
        raise unwritable(f"a body is a {type(payload).__name__}")
    try:
        pieces = (piece.encode(charset, "surrogateescape") for piece in _slices(payload))
        return b"".join(pieces if is_binary else map(to_crlf, pieces))
    except UnicodeEncodeError:
        raise unwritable("a body has a surrogate, which is no character") from None


def _slices(text: str) -> Iterator[str]:
    """Text in pieces that end where lines do."""
    at = 0
    while len(text) - at > _SLICE:
        end = text.find("\n", at + _SLICE) + 1
        if not end:
            break
        yield text[at:end]
        at = end
    yield text[at:]


def charset_for(text: str, charset: str | None) -> str | None:
    """The label's charset, where it has all the characters of a text; ``None`` for UTF-8 in its place."""
    if charset is None:
        return None
    try:
        text.encode(charset, "surrogateescape")
    except (LookupError, UnicodeError, ValueError):
        return None
    return charset if "a\r\n".encode(charset) == b"a\r\n" else None  # UTF-16 has no lines of octets


def can_stay(octets: bytes, *, eight_bit: bool) -> bool:
    """Whether octets are 7bit or, where the server takes it, 8bit data (RFC 2045 sections 2.7 and 2.8)."""
    is_taken = eight_bit or octets.isascii()
    return is_taken and b"\0" not in octets and not bare_in(octets) and not has_long_line(octets)


def reencode(octets: bytes, encoding: str, *, is_text: bool) -> tuple[bytes, str]:
    """Octets in an encoding of which every octet can be sent, and its name.

    Args:
        octets: with CR LF line ends.
        encoding: what they are said to be encoded in.
        is_text: of type text: quoted-printable, where most of it is ASCII.

    Raises:
        LocalProtocolError: they are in an encoding that is not known here.
    """
    if encoding == "base64":
        return encode_base64(_decode_base64(octets)), "base64"
    if encoding == "quoted-printable":
        octets = to_crlf(binascii.a2b_qp(octets))
    elif encoding in _UUENCODE:
        raise unwritable(f"a body in {encoding} has octets above 127, or NUL, or a line that is too long")
    # An encoding that is unknown here is none to its readers: "8-bit", "utf-8".
    if is_text and 2 * _high(octets) <= len(octets) // 3 + _READABLE and b"\0" not in octets:
        return encode_quoted(octets), "quoted-printable"
    return encode_base64(octets), "base64"


def _high(octets: bytes) -> int:
    """How many octets are above 127."""
    return len(octets) - len(octets.decode("ascii", "ignore"))


def encode_quoted(octets: bytes) -> bytes:
    """Text with CR LF line ends as quoted-printable."""
    pieces = []
    at = 0
    while at < len(octets):
        end = octets.find(b"\n", at + _SLICE) + 1 or len(octets)
        pieces.append(to_crlf(binascii.b2a_qp(octets[at:end], istext=True)))
        at = end
    return b"".join(pieces)


def dash_lines(octets: bytes) -> frozenset[bytes]:
    """What stands behind two hyphens in the lines that begin with them, and might be taken for a delimiter."""
    found = set()
    at = 0 if octets.startswith(b"--") else octets.find(b"\n--") + 1
    while at or octets.startswith(b"--"):
        end = octets.find(b"\n", at)
        found.add(octets[at + 2 : end if end >= 0 else len(octets)].rstrip(b" \t\r"))
        if end < 0:
            break
        at = octets.find(b"\n--", end) + 1
        if not at:
            break
    return frozenset(found)


def encode_base64(octets: bytes) -> bytes:
    """Base64 in lines of 76 characters, with CR LF."""
    step = _LINE * (_SLICE // _LINE)
    pieces = (base64.encodebytes(octets[at : at + step]) for at in range(0, len(octets), step))
    return b"".join(piece.replace(b"\n", b"\r\n") for piece in pieces)


def _decode_base64(octets: bytes) -> bytes:
    """What base64 with other octets in it says (RFC 2045 §6.8: they are ignored, and padding ends it)."""
    text = _NOT_BASE64.sub(b"", octets.partition(b"=")[0])
    text = text[: len(text) // 4 * 4 + (len(text) % 4 if len(text) % 4 > 1 else 0)]
    return binascii.a2b_base64(text + b"=" * (-len(text) % 4))
