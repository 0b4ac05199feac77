# Signatures over messages, such as DKIM's (RFC 6376): the last change before the wire.
#
# What is signed is what is sent: the signer gets the octets when line ends, charsets and encodings are what this server
# gets, and what follows (dots doubled, BDAT or DATA, blocks) is undone by the server. A form of the message is signed
# once, and kept for further transactions and further tries.
# Not known here: what a signature is.
from __future__ import annotations

import re
from contextlib import aclosing, nullcontext
from typing import Any, Final, Protocol

import trio

from .._protocol.errors import Delivery, LocalProtocolError
from .._protocol.newlines import encode_newlines
from .._protocol.nul import treat_nul
from .config import ClientConfig
from .content import Content, Octets, Source, has_utf8_header

_FIELDS: Final = re.compile(rb"(?:[!-9;-~]+[ \t]*:[^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*)*").fullmatch
IN_THREAD: Final = 1 << 16  # octets of a message from which on it is signed in a thread


class MessageSigner(Protocol):
    """What ``sign=`` takes: an object that signs messages, as :class:`trio_smtp.dkim.Signer` does."""

    def sign(self, message: bytes, /) -> bytes:
        """Make the header fields that are to stand above a message.

        Called in a thread for a message of 64 KiB and more, maybe in several at a time.

        Args:
            message: all of it, with CR LF line ends, as it will be sent.

        Returns:
            Whole header fields, each with its CR LF; or nothing. With anything else the message is not sent.

        Raises:
            LocalProtocolError: the message cannot be signed; it is not sent.
        """
        ...


class Signing:
    """What is to be signed by whom.

    Args:
        signer: makes the signatures.
        config: what becomes of bare CR and LF, and of NUL, before.

    Raises:
        TypeError: `signer` has no method ``sign``.
    """

    __slots__ = ("config", "signer")

    def __init__(self, signer: MessageSigner, config: ClientConfig) -> None:
        if isinstance(signer, type) or not callable(getattr(signer, "sign", None)):
            raise TypeError(
                f"sign must be an object with a method sign, such as a trio_smtp.dkim.Signer, not {signer!r}"
            )
        self.signer: Final = signer
        self.config: Final = config

    def __repr__(self) -> str:
        return f"<Signing by {self.signer!r}>"

    def cover(self, content: Content, *, is_binary: bool = False) -> Signed:
        """The content with a signature.

        Raises:
            LocalProtocolError: it can be had only once, and the signature goes first; or it goes out as it is, and
                is no text of lines.
        """
        if not content.replayable:
            raise LocalProtocolError(
                "a stream cannot be signed unless it is replayable: the signature stands above the text",
                delivery=Delivery.NOT_SENT,
            )
        if is_binary:  # RFC 6376 §5.3
            raise LocalProtocolError("a message with BODY=BINARYMIME cannot be signed", delivery=Delivery.NOT_SENT)
        return Signed(content, self)


class Signed(Content):
    """Content below its signature. It is held whole."""

    __slots__ = ("_content", "_done", "_signing", "at_hand", "needs_utf8", "prefers_utf8")

    def __init__(self, content: Content, signing: Signing) -> None:
        self._content = content
        self._signing = signing
        self._done: dict[tuple[bool, bool], Source] = {}
        self.needs_utf8 = content.needs_utf8
        self.prefers_utf8 = content.prefers_utf8
        ready = content.ready if isinstance(content, Octets) else None
        self.at_hand = ready is not None and ready.whole is not None and len(ready.whole) < IN_THREAD

    async def open(self, *, eight_bit: bool, utf8: bool, add_missing: bool = False) -> Source:
        form = (False, False) if self._content.ready is not None else (eight_bit, utf8)
        source = self._done.get(form)
        if source is None:
            source = self._done[form] = await self._sign(
                await self._content.open(eight_bit=eight_bit, utf8=utf8, add_missing=add_missing)
            )
        return source

    async def _sign(self, source: Source) -> Source:
        octets = source.whole if source.whole is not None else await _read(source.chunks)
        if len(octets) < IN_THREAD:
            signed = _sign(octets, self._signing)
        else:
            signed = await trio.to_thread.run_sync(_sign, octets, self._signing, abandon_on_cancel=True)
        if source.eight_bit is None:
            return Source(signed, eight_bit=not signed.isascii(), utf8=has_utf8_header(signed))
        return Source(signed, eight_bit=source.eight_bit, utf8=source.utf8)


async def _read(chunks: Any) -> bytes:
    """All of a stream that can be read again."""
    found = bytearray()
    reading = aiter(chunks)
    async with aclosing(reading) if hasattr(reading, "aclose") else nullcontext():
        async for chunk in reading:
            if not isinstance(chunk, bytes | bytearray):
                raise TypeError(f"message text comes as bytes, not {type(chunk).__name__}")
            found += chunk
    return bytes(found)


def _sign(octets: bytes, signing: Signing) -> bytes:
    """The message with its line ends, below its signature."""
    config = signing.config
    text, tail = encode_newlines(bytes(treat_nul(octets, config.nul)), config.newlines)
    message = text + tail if tail else text
    fields = signing.signer.sign(message)
    if not isinstance(fields, bytes):
        raise TypeError(f"a signer returns the header fields as bytes, not {type(fields).__name__}")
    if _FIELDS(fields) is None:  # else it would change the first field of the message, or make a body of all of them
        raise LocalProtocolError(
            f"a signer returns whole header fields, each with its CR LF, not {fields!r:.80}", delivery=Delivery.NOT_SENT
        )
    return fields + message
