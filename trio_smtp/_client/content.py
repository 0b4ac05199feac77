# What a caller may send: bytes, str, an EmailMessage, a file's path, or an async iterable, all in one shape.
#
# Content says what it is before MAIL (octets at hand or a stream, its size, whether it has 8-bit octets), since the
# parameters of MAIL and whether the message may be sent at all depend on that. A stream is never held whole; content
# that can be produced again is `replayable`, and only such content is ever sent twice.
from __future__ import annotations

import codecs
import os
import re
import stat
import warnings
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable
from email.message import Message as EmailObject
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import Any, Final, TypeAlias

import trio

from .._message.header_envelope import header_needs_utf8
from .._message.missing import Missing
from .._message.serializer import serialize, survey
from .._protocol.errors import LocalProtocolError
from .._protocol.newlines import NewlineNormalizer

ContentLike: TypeAlias = (
    "bytes | bytearray | memoryview | str | EmailObject[Any, Any] | os.PathLike[str] | AsyncIterable[bytes]"
)
"""What can be sent: octets, text, a message object, a file's path, or chunks of octets."""

_FIELD: Final = re.compile(rb"[!-9;-~]+[ \t]*:").match
_CALLER: Final = 4  # frames up: where the message was made
SMALL_FILE: Final = 1 << 20  # octets: a file up to this size is read in one go, a larger one in blocks of this size


class Source:
    """Content made ready for one server.

    Attributes:
        whole: the octets, where they are at hand; else `chunks` streams them.
        size: octets with CR LF line ends (RFC 1870), ``None`` if unknown or if `whole` says it.
        raw_size: octets as they are, which is how BINARYMIME sends them.
        eight_bit: there are octets above 127; ``None`` if that is not known.
        has_nul: there is a NUL among what is to be streamed, as far as is known.
        utf8: the header has non-ASCII characters as UTF-8, which is what SMTPUTF8 is for (RFC 6531 section 3.4).
        chunks: what to stream, where `whole` is ``None``.
    """

    __slots__ = ("chunks", "eight_bit", "has_nul", "raw_size", "size", "utf8", "whole")

    def __init__(
        self,
        whole: bytes | None,
        *,
        size: int | None = None,
        raw_size: int | None = None,
        eight_bit: bool | None,
        utf8: bool = False,
        has_nul: bool = False,
        chunks: AsyncIterable[bytes] | None = None,
    ) -> None:
        self.whole = whole
        self.size = size
        self.raw_size = raw_size
        self.eight_bit = eight_bit
        self.utf8 = utf8
        self.has_nul = has_nul
        self.chunks = chunks


class Content(ABC):
    """One kind of content.

    Attributes:
        replayable: it can be produced again.
        at_hand: to open and send it waits for nothing but the server.
        needs_utf8: the server must offer SMTPUTF8, whatever the envelope.
        prefers_utf8: it has a header in UTF-8, and goes out as it is where the server offers SMTPUTF8.
        ready: the source, where it is the same for every server.
    """

    __slots__ = ()
    replayable: bool = True
    at_hand: bool = False
    needs_utf8: bool = False
    prefers_utf8: bool = False
    ready: Source | None = None

    @abstractmethod
    async def open(self, *, eight_bit: bool, utf8: bool, add_missing: bool = False) -> Source:
        """Make it ready for a server that takes 8-bit octets or not, in a transaction with SMTPUTF8 or without.

        With `add_missing`, a message object gets the Date and the Message-ID that it lacks; nothing else does.
        """


class Octets(Content):
    """Bytes, sent as they are."""

    __slots__ = ("ready",)
    at_hand = True

    def __init__(self, octets: bytes) -> None:
        if octets.isascii():
            self.ready: Source = Source(octets, eight_bit=False)
        else:
            self.ready = Source(octets, eight_bit=True, utf8=has_utf8_header(octets))

    async def open(self, *, eight_bit: bool, utf8: bool, add_missing: bool = False) -> Source:
        return self.ready


class MessageObject(Content):
    """An ``EmailMessage`` (or an older ``Message``), written out for what the server can take.

    A large one is written in a thread. A cancellation abandons that thread, which only reads the message.
    """

    __slots__ = ("_done", "_message", "_missing", "at_hand", "needs_utf8", "prefers_utf8")

    def __init__(self, message: EmailObject[Any, Any]) -> None:
        self._message = message
        self._done: dict[tuple[bool, bool], Source] = {}
        self._missing: Missing | None = None  # made once: a message that is sent again is the same message
        self.needs_utf8 = header_needs_utf8(message)
        is_large, self.prefers_utf8 = survey(message)
        self.at_hand = not is_large

    async def open(self, *, eight_bit: bool, utf8: bool, add_missing: bool = False) -> Source:
        source = self._done.get((eight_bit, utf8))
        if source is None:
            if add_missing and self._missing is None:
                self._missing = Missing.of(self._message)
            write = partial(_write_message, self._message, eight_bit=eight_bit, utf8=utf8, missing=self._missing)
            source = write() if self.at_hand else await trio.to_thread.run_sync(write, abandon_on_cancel=True)
            self._done[eight_bit, utf8] = source
        return source


def _write_message(message: EmailObject[Any, Any], *, eight_bit: bool, utf8: bool, missing: Missing | None) -> Source:
    octets = serialize(message, eight_bit=eight_bit, utf8=utf8, missing=missing)
    is_ascii = octets.isascii()
    return Source(octets, eight_bit=not is_ascii, utf8=utf8 and not is_ascii and has_utf8_header(octets))


class File(Content):
    """A file, read in a thread. It is looked through first, so that an unreadable one fails before MAIL.

    What can be read only once (a pipe, a terminal) is read whole and kept: opened again it would be empty.
    """

    __slots__ = ("_held", "_path")

    def __init__(self, path: os.PathLike[str]) -> None:
        self._path = Path(os.fspath(path))
        self._held: Octets | None = None

    async def open(self, *, eight_bit: bool, utf8: bool, add_missing: bool = False) -> Source:
        if self._held is not None:
            return self._held.ready
        found = await trio.to_thread.run_sync(_look_through, self._path, abandon_on_cancel=True)
        if isinstance(found, Octets):
            self._held = found
            return found.ready
        return Octets(found).ready if isinstance(found, bytes) else found


class _Blocks:
    """The blocks of a large file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __aiter__(self) -> _Reading:
        return _Reading(self._path)


class _Reading:
    """One pass through a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: trio._file_io.AsyncIOWrapper[BufferedReader] | None = None

    def __aiter__(self) -> _Reading:
        return self

    async def __anext__(self) -> bytes:
        if self._file is None:
            self._file = await trio.open_file(self._path, "rb")
        block = await self._file.read(SMALL_FILE)
        if not block:
            raise StopAsyncIteration
        return block

    async def aclose(self) -> None:
        """Close the file; the iteration is over."""
        if self._file is not None:
            await self._file.aclose()


class Stream(Content):
    """An async iterable of bytes."""

    __slots__ = ("ready", "replayable")

    def __init__(self, chunks: AsyncIterable[bytes]) -> None:
        self.ready: Source = Source(None, eight_bit=None, chunks=chunks)
        self.replayable = getattr(chunks, "replayable", False) is True

    async def open(self, *, eight_bit: bool, utf8: bool, add_missing: bool = False) -> Source:
        return self.ready


def as_content(content: ContentLike) -> Content:
    """The content of a message, in its shape.

    Raises:
        TypeError: it is of another type.
        LocalProtocolError: a str that cannot be encoded as UTF-8.
    """
    if isinstance(content, bytes):
        return Octets(content)
    if isinstance(content, str):
        if _is_bare_line(content):
            warnings.warn(
                f"{content[:80]!r} is sent as the text of the message, without a header; a file's name is a"
                " pathlib.Path",
                stacklevel=_CALLER,
            )
        try:
            return Octets(content.encode())
        except UnicodeEncodeError:  # a lone surrogate
            raise LocalProtocolError("the content cannot be encoded as UTF-8") from None
    if isinstance(content, EmailObject):
        return MessageObject(content)
    if isinstance(content, bytearray | memoryview):
        return Octets(bytes(content))
    if isinstance(content, os.PathLike):
        return File(content)
    if isinstance(content, AsyncIterable):
        return Stream(content)
    raise TypeError(
        f"content is bytes, str, an EmailMessage, a path or an async iterable of bytes, not {type(content).__name__}"
    )


def _is_bare_line(text: str) -> bool:
    """Whether a str is one line that is no header field: more often a file's name than a message."""
    return bool(text) and "\n" not in text and "\r" not in text and _FIELD(text.encode(errors="replace")) is None


def _look_through(path: Path) -> Octets | bytes | Source:
    """A small file's octets; a large one as what it says of itself, and its blocks.

    Whether its header is UTF-8 is known as far as the header stands in the first block.

    Of anything but a regular file: all there is to read, as content.
    """
    with path.open("rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return Octets(file.read())
        block = file.read(SMALL_FILE + 1)
        if len(block) <= SMALL_FILE:
            return block
        has_utf8 = has_utf8_header(block, whole=False)
        lines = NewlineNormalizer()
        size, raw_size, eight_bit, has_nul = 0, 0, False, False
        while block:
            raw_size += len(block)
            size += len(lines.feed(block))
            eight_bit = eight_bit or not block.isascii()
            has_nul = has_nul or b"\0" in block
            block = file.read(SMALL_FILE)
        size += len(lines.finish())
        size = size if lines.line_start else size + 2
        return Source(
            None,
            size=size,
            raw_size=raw_size,
            eight_bit=eight_bit,
            utf8=has_utf8,
            has_nul=has_nul,
            chunks=_Blocks(path),
        )


def has_utf8_header(octets: bytes, *, whole: bool = True) -> bool:
    """Whether the header section has octets above 127 that are UTF-8.

    Args:
        octets: a message, or its beginning.
        whole: nothing follows; else a character may be cut at the end.
    """
    if _FIELD(octets) is None:  # there is no header
        return False
    end = octets.find(b"\n\r\n")
    bare = octets.find(b"\n\n")
    end = min(at for at in (end, bare, len(octets)) if at >= 0)
    header = octets[:end]
    if header.isascii():
        return False
    try:
        codecs.utf_8_decode(header, "strict", whole or end < len(octets))
    except UnicodeDecodeError:
        return False
    return True
