# A message object as octets: its structure walked, its fields and bodies written, the delimiters between them.
#
# Guarantees: CR LF line ends only; no line longer than MAX_LINE; no Bcc in the header; ASCII alone where the server
# does not take more; the object is left as it is, so that it may be written in a thread, and again for another server.
# Only LocalProtocolError leaves. What a signature covers (the parts of multipart/signed, RFC 1847) is never re-encoded:
# it is sent as it is, or not at all.
#
# The walk is a stack of generators, one for each part that is open: a part yields those in it and is given their
# octets. So depth costs no recursion, and a part inside itself is found.
from __future__ import annotations

import re
import secrets
from collections.abc import Generator
from dataclasses import dataclass
from email import message_from_bytes
from email.message import Message
from email.policy import compat32
from typing import Any, Final, NamedTuple, TypeAlias

from .._protocol.errors import LocalProtocolError
from .._protocol.newlines import to_crlf
from .bodies import can_stay, charset_for, dash_lines, encoding_of, has_characters, octets_of, reencode
from .fields import check_name, is_raw_utf8, unfold, write_field
from .mime import content_type_of, meaning, parameters_of
from .missing import Missing
from .target import MAX_LINE, Target, lacking, line_length, refusing, unwritable

IN_THREAD: Final = 1 << 18  # characters: a larger message takes longer to write than to hand to a thread
MAX_DEPTH: Final = 1000  # parts inside each other; the email package's parser stops far below
MAX_PARTS: Final = 100_000  # a few objects can be so many parts, if each of them is in several places
_PER_FIELD: Final = 256  # characters that a field costs, whatever its length
_HIDDEN: Final = ("bcc", "resent-bcc")  # RFC 5322 §3.6.3
_TYPE: Final = "content-type"
_ENCODING: Final = "content-transfer-encoding"
_NAMES: Final = {_TYPE: "Content-Type", _ENCODING: "Content-Transfer-Encoding"}
_BAD_BOUNDARY: Final = re.compile(r"[\0-\x1f\x7f]| $").search

_Message: TypeAlias = "Message[Any, Any]"


@dataclass(frozen=True, slots=True)
class _Octets:
    """A part that is written.

    Attributes:
        pieces: its octets; each ends where a line does, or the part.
        dashes: what stands in its lines behind two hyphens at their start, and may be taken for a delimiter.
    """

    pieces: list[bytes]
    dashes: frozenset[bytes]


class _Inner(NamedTuple):
    """A part inside another.

    Attributes:
        part: as the message object has it.
        is_message: it has a message's header: it is the whole, or stands in a message/rfc822.
        is_signed: a signature covers it.
    """

    part: Any
    is_message: bool
    is_signed: bool


_Writing: TypeAlias = "Generator[_Inner, _Octets, _Octets]"


@refusing
def serialize(message: _Message, *, eight_bit: bool, utf8: bool, missing: Missing | None = None) -> bytes:
    """Write a message with CR LF line ends, without Bcc.

    Args:
        message: left as it is.
        eight_bit: the server takes octets above 127; otherwise parts that have them are re-encoded.
        utf8: the transaction has SMTPUTF8: header fields may be UTF-8.
        missing: fields to add at the end of the header.

    Raises:
        LocalProtocolError: the message cannot be written. If only this server cannot take it, the error is an
            ExtensionNotSupportedError too.
    """
    target = Target(eight_bit=eight_bit, utf8=utf8)
    added = missing.fields if missing is not None else ()
    count, open_parts = 1, [message]
    writing = [_write(_Inner(message, True, False), target, is_root=True, added=added)]
    written: _Octets | None = None
    while True:
        try:
            inner = next(writing[-1]) if written is None else writing[-1].send(written)
        except StopIteration as stop:
            written = stop.value
            writing.pop()
            open_parts.pop()
            if not writing:
                return b"".join(stop.value.pieces)
            continue
        if len(writing) >= MAX_DEPTH or any(inner.part is other for other in open_parts):
            raise unwritable("its parts are inside each other without end")
        count += 1
        if count > MAX_PARTS:
            raise unwritable(f"it has more than {MAX_PARTS} parts")
        written = None
        open_parts.append(inner.part)
        writing.append(_write(inner, target, is_root=False, added=()))


@refusing
def survey(message: _Message) -> tuple[bool, bool]:
    """Whether a message is large, and whether a header in it has UTF-8 that was parsed from octets.

    Raises:
        LocalProtocolError: it is no message.
    """
    size, has_utf8 = 0, False
    seen: set[int] = set()
    parts: list[Any] = [message]
    while parts:
        part = parts.pop()
        if not isinstance(part, Message) or id(part) in seen:
            continue
        seen.add(id(part))
        for _, value in part.raw_items():
            size += _PER_FIELD + (len(value) if isinstance(value, str) else 0)
            has_utf8 = has_utf8 or is_raw_utf8(value)
        payload = part._payload  # type: ignore[attr-defined]  # get_payload() may decode
        if isinstance(payload, list):
            parts.extend(payload)
        elif isinstance(payload, str | bytes | bytearray):
            size += len(payload)
        elif isinstance(payload, Message):
            parts.append(payload)
    return size > IN_THREAD, has_utf8


def _write(inner: _Inner, target: Target, *, is_root: bool, added: tuple[tuple[str, str], ...]) -> _Writing:
    """One part."""
    part = inner.part
    if not isinstance(part, Message):
        raise unwritable(f"a part is a {type(part).__name__}")
    payload: Any = part._payload  # type: ignore[attr-defined]  # get_payload() may decode, or raise
    if isinstance(payload, Message):
        payload = [payload]
    header = _Header(inner, target, is_root=is_root, added=added)
    if not isinstance(payload, list):
        return (yield from _write_leaf(payload, header))
    kind = _main_type(part, header)
    name = "/".join(header.content_type)
    if kind == "multipart":
        return (yield from _write_multipart(part, payload, header))
    if kind != "message":
        raise unwritable(f"a part of type {name} has parts in it")
    if name == "message/delivery-status":
        return _write_blocks(payload, header)
    if len(payload) > 1:
        raise unwritable(f"a part of type {name} has several parts in it")
    written = yield from _inside(payload, header, is_message=True)
    header.drop_encoding()
    return _Octets([header.written(), *(piece for one in written for piece in one.pieces)], _dashes_of(written))


def _main_type(part: _Message, header: _Header) -> str:
    """What a part that has parts is, to the parser that may have made it."""
    try:
        return part.get_content_maintype()
    except Exception:
        return header.content_type[0]


def _inside(
    parts: list[Any], header: _Header, *, is_message: bool = False, is_signed: bool = False
) -> Generator[_Inner, _Octets, list[_Octets]]:
    written: list[_Octets] = []
    for part in parts:
        one = yield _Inner(part, is_message, is_signed or header.is_signed)
        written.append(one)
    return written


def _dashes_of(parts: list[_Octets]) -> frozenset[bytes]:
    return frozenset().union(*(part.dashes for part in parts))


# -- multipart


def _write_multipart(part: _Message, payload: list[Any], header: _Header) -> _Writing:
    inner = yield from _inside(payload, header, is_signed=header.content_type[1] == "signed")
    preamble = [_surroundings(part.preamble, header), b"\r\n"] if part.preamble is not None else []
    dashes = _dashes_of(inner).union(*map(dash_lines, preamble))
    boundary = _boundary(part, header, dashes)
    header.drop_encoding()
    delimiter = b"--" + boundary
    pieces = [header.written(), *preamble]
    pieces += [delimiter, b"\r\n"]
    for number, one in enumerate(inner):
        if number:
            pieces += [b"\r\n", delimiter, b"\r\n"]
        pieces += one.pieces
    pieces += [b"\r\n", delimiter, b"--"]  # without parts there is an empty one: a multipart has at least one
    if part.epilogue is not None:
        pieces += [b"\r\n", _surroundings(part.epilogue, header)]
    return _Octets(pieces, dashes | {boundary, boundary + b"--"})


def _boundary(part: _Message, header: _Header, dashes: frozenset[bytes]) -> bytes:
    """The boundary: the part's own, where it is of use, else a new one, which the header then names."""
    try:
        own = part.get_boundary()
    except Exception:
        own = None
    octets = own.encode("utf-8", "surrogateescape") if own else b""
    may_stay = octets.isascii() or header.target.eight_bit
    if own and may_stay and not _BAD_BOUNDARY(own) and not {octets, octets + b"--"} & dashes and len(octets) < 900:
        return octets
    if header.is_signed:
        raise unwritable("a signed multipart has no boundary that can be used")
    boundary = f"=={secrets.token_hex(16)}=="
    header.set_boundary(boundary)
    return boundary.encode()


def _surroundings(text: Any, header: _Header) -> bytes:
    """A preamble or an epilogue, which no reader shows: what cannot be sent of it is replaced."""
    octets = octets_of(text)
    if can_stay(octets, eight_bit=header.target.eight_bit):
        return octets
    if header.is_signed:
        raise _signed_refusal(octets, header.target)
    if not header.target.eight_bit:
        octets = octets.decode("ascii", "replace").replace("\ufffd", "?").encode()
    lines = octets.replace(b"\0", b"?").split(b"\r\n")
    return b"\r\n".join(line[at : at + MAX_LINE] for line in lines for at in range(0, len(line) or 1, MAX_LINE))


# -- message/delivery-status


def _write_blocks(blocks: list[Any], header: _Header) -> _Octets:
    """Blocks of fields with an empty line between them (RFC 3464 section 2.1). Nothing in them can be encoded."""
    texts: list[bytes] = []
    for block in blocks:
        if not isinstance(block, Message) or block.is_multipart():
            raise unwritable("a block of a delivery status has parts in it, or is no message object")
        fields = _Header(_Inner(block, is_message=False, is_signed=header.is_signed), header.target, is_root=False)
        # What is no field in a block its parser takes for a body, but there is no empty line before it.
        octets = octets_of(block._payload)  # type: ignore[attr-defined]
        if not can_stay(octets, eight_bit=header.target.eight_bit):
            raise lacking("8BITMIME", "a delivery status, which cannot be encoded, has octets above 127")
        if texts and texts[-1] and not texts[-1].endswith(b"\r\n"):
            texts[-1] += b"\r\n"
        texts.append(fields.written(end=b"") + octets)
    header.drop_encoding()
    text = b"\r\n".join(texts)
    return _Octets([header.written(), text], dash_lines(text))


# -- leaves


def _write_leaf(payload: Any, header: _Header) -> _Writing:
    octets = _leaf_octets(payload, header)
    eight_bit = header.target.eight_bit
    if can_stay(octets, eight_bit=eight_bit):
        return _Octets([header.written(), octets], dash_lines(octets))
    if header.is_signed:
        raise _signed_refusal(octets, header.target)
    main, sub = header.content_type
    if main == "message" and sub in ("rfc822", "global"):  # it has no encoding of its own (RFC 2045 §6.4)
        inner = yield _Inner(message_from_bytes(octets, policy=compat32), is_message=True, is_signed=False)
        header.drop_encoding()
        return _Octets([header.written(), *inner.pieces], inner.dashes)
    if main in ("message", "multipart"):
        raise lacking("8BITMIME", f"a part of type {main}/{sub}, which cannot be encoded, has octets above 127, or NUL")
    octets, encoding = reencode(octets, header.encoding, is_text=main == "text")
    header.set_encoding(encoding)
    return _Octets([header.written(), octets], dash_lines(octets))


def _leaf_octets(payload: Any, header: _Header) -> bytes:
    """The octets of a body. Where it has characters, the header says how they are encoded."""
    if not has_characters(payload):
        # "binary" has no lines, unless it is of a type that does. Where it has line ends of another kind than the
        # wire's it must be encoded: without BINARYMIME there is no other way for it (RFC 3030 §3).
        is_lines = header.encoding != "binary" or header.content_type[0] in ("text", "message", "multipart")
        return octets_of(payload, is_binary=not is_lines and not header.is_signed)
    charset = charset_for(payload, header.charset)
    if not header.is_signed:
        if charset is None and header.content_type[0] == "text":
            header.set_charset("utf-8")
        if header.encoding in ("", "7bit"):
            header.set_encoding("8bit")
    return octets_of(payload, charset or "utf-8")


def _signed_refusal(octets: bytes, target: Target) -> LocalProtocolError:
    """The error for octets that would have to be encoded, which would break the signature over them."""
    if not octets.isascii() and not target.eight_bit:
        return lacking("8BITMIME", "a signed part, which must stay as it is, has octets above 127")
    return unwritable(f"a signed part, which must stay as it is, has NUL or a line of more than {MAX_LINE} octets")


# -- the header of a part


class _Header:
    """The fields of a part, written once its body is known.

    Attributes:
        target: what the server takes.
        is_signed: the part is inside a multipart/signed.
        content_type: type and subtype, in lower case.
        charset: as the part says it.
        encoding: its Content-Transfer-Encoding, in lower case.
    """

    def __init__(
        self, inner: _Inner, target: Target, *, is_root: bool, added: tuple[tuple[str, str], ...] = ()
    ) -> None:
        part = inner.part
        self.target = target
        self.is_signed = inner.is_signed
        self._policy = part.policy
        self._length = line_length(getattr(part.policy, "max_line_length", None))
        self._is_message = inner.is_message
        self._added = added
        self._changes: dict[str, str | None] = {}
        self._items = [
            (check_name(name), value)
            for name, value in part.raw_items()
            if not (is_root and isinstance(name, str) and name.lower() in _HIDDEN)
        ]
        source = self._source(_TYPE)
        default = content_type_of(part.get_default_type()) if source is None else None
        self.content_type = content_type_of(source) or default or ("text", "plain")
        _, parameters = parameters_of(source or "")
        self.charset = next((meaning(text) for name, text in parameters if name.lower() == "charset"), None)
        self.encoding = encoding_of(self._source(_ENCODING))

    def _source(self, wanted: str) -> str | None:
        value = next((value for name, value in self._items if name.lower() == wanted), None)
        return unfold(value) if isinstance(value, str) else None

    def set_encoding(self, encoding: str | None) -> None:
        """Say another Content-Transfer-Encoding, or none."""
        self._changes[_ENCODING] = encoding

    def drop_encoding(self) -> None:
        """Of a part with parts: do not claim octets above 127 where none are left (RFC 2045 section 6.4)."""
        if self.encoding in ("8bit", "binary") and not self.target.eight_bit and not self.is_signed:
            self.set_encoding(None)

    def set_charset(self, charset: str) -> None:
        """Say another charset."""
        self._set_parameter("charset", charset)

    def set_boundary(self, boundary: str) -> None:
        """Say another boundary."""
        self._set_parameter("boundary", boundary)

    def _set_parameter(self, name: str, value: str) -> None:
        head, parameters = parameters_of(self._changes.get(_TYPE) or self._source(_TYPE) or "")
        if content_type_of(head) is None:
            head = "/".join(self.content_type)
        kept = [(own, text) for own, text in parameters if own.lower().partition("*")[0] != name]
        self._changes[_TYPE] = "; ".join([head, *(f"{own}={text}" for own, text in kept), f'{name}="{value}"'])

    def written(self, end: bytes = b"\r\n") -> bytes:
        """All fields, and the empty line after them."""
        changes = dict(self._changes)
        is_mime = not self._is_message or any(name.lower() == "mime-version" for name, _ in self._items)
        fields: list[tuple[str, Any]] = []
        for name, value in self._items:
            key = name.lower()
            if key not in self._changes:
                fields.append((name, value))
            elif (changed := changes.pop(key, None)) is not None:  # in place of the first one; there is one only
                fields.append((name, changed))
        fields += [(_NAMES[key], value) for key, value in changes.items() if value is not None]
        if self._changes and not is_mime:
            fields.append(("MIME-Version", "1.0"))
        return b"".join([*(self._field(name, value) for name, value in (*fields, *self._added)), end])

    def _field(self, name: str, value: Any) -> bytes:
        if self.is_signed and hasattr(value, "fold"):  # as the application has seen it when it made the signature
            octets = value.fold(policy=self._policy.clone(linesep="\r\n")).encode("utf-8", "surrogateescape")
            if not can_stay(octets, eight_bit=self.target.eight_bit):
                raise _signed_refusal(octets, self.target)
            return to_crlf(octets)
        return write_field(name, value, self.target, self._length, is_signed=self.is_signed)
