# What a caller may send: bytes, str, an EmailMessage, a file's path, or an async iterable, all in one shape.
#
# Content says what it is before MAIL (octets at hand or a stream, its size, whether it has 8-bit octets), since the
# parameters of MAIL and whether the message may be sent at all depend on that. A stream is never held whole; content
# that can be produced again is `replayable`, and only such content is ever sent twice.
from __future__ import annotations

import os
import stat
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable
from email.message import Message
from io import BufferedReader
from pathlib import Path
from typing import Any, Final, TypeAlias

import trio

from .._protocol.errors import LocalProtocolError
from .._protocol.newlines import NewlineNormalizer
from .serialize import has_utf8_header, header_needs_utf8, serialize

ContentLike: TypeAlias = (
    "bytes | bytearray | memoryview | str | Message[Any, Any] | os.PathLike[str] | AsyncIterable[bytes]"
)

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
        ready: the source, where it is the same for every server.
    """

    __slots__ = ()
    replayable: bool = True
    at_hand: bool = False
    needs_utf8: bool = False
    ready: Source | None = None

    @abstractmethod
    async def open(self, *, eight_bit: bool, utf8: bool) -> Source:
        """Make it ready for a server that takes 8-bit octets or not, in a transaction with SMTPUTF8 or without."""


class Octets(Content):
    """Bytes, sent as they are."""

    __slots__ = ("ready",)
    at_hand = True

    def __init__(self, octets: bytes) -> None:
        if octets.isascii():
            self.ready: Source = Source(octets, eight_bit=False)
        else:
            self.ready = Source(octets, eight_bit=True, utf8=has_utf8_header(octets))

    async def open(self, *, eight_bit: bool, utf8: bool) -> Source:
        return self.ready


class MessageObject(Content):
    """An ``EmailMessage`` (or an older ``Message``), written out for what the server can take."""

    __slots__ = ("_done", "_message", "needs_utf8")
    at_hand = True

    def __init__(self, message: Message[Any, Any]) -> None:
        self._message = message
        self._done: dict[tuple[bool, bool], Source] = {}
        self.needs_utf8 = header_needs_utf8(message)

    async def open(self, *, eight_bit: bool, utf8: bool) -> Source:
        source = self._done.get((eight_bit, utf8))
        if source is None:
            octets = serialize(self._message, eight_bit=eight_bit, utf8=utf8)
            source = self._done[eight_bit, utf8] = Source(octets, eight_bit=not octets.isascii())
        return source


class File(Content):
    """A file, read in a thread. It is looked through first, so that an unreadable one fails before MAIL.

    What can be read only once (a pipe, a terminal) is read whole and kept: opened again it would be empty.
    """

    __slots__ = ("_held", "_path")

    def __init__(self, path: os.PathLike[str]) -> None:
        self._path = Path(os.fspath(path))
        self._held: Octets | None = None

    async def open(self, *, eight_bit: bool, utf8: bool) -> Source:
        if self._held is not None:
            return self._held.ready
        found = await trio.to_thread.run_sync(_look_through, self._path, abandon_on_cancel=True)
        if isinstance(found, Octets):
            self._held = found
            return found.ready
        if isinstance(found, bytes):
            return Octets(found).ready
        found.chunks = _Blocks(self._path)
        return found


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

    async def open(self, *, eight_bit: bool, utf8: bool) -> Source:
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
        try:
            return Octets(content.encode())
        except UnicodeEncodeError:  # a lone surrogate
            raise LocalProtocolError("the content cannot be encoded as UTF-8") from None
    if isinstance(content, Message):
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


def _look_through(path: Path) -> Octets | bytes | Source:
    """A small file's octets; of a large one, all that :class:`Source` says of it but the blocks.

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
        return Source(None, size=size, raw_size=raw_size, eight_bit=eight_bit, utf8=has_utf8, has_nul=has_nul)
