# Line ends of message text: only CR LF is one (RFC 5321 §2.3.8), and nothing else may pass unnoticed.
#
# A CR or LF that stands alone ("bare") is read as a line end by some servers and as text by others, which is all that
# SMTP smuggling needs (CVE-2023-51764 and its kin). So both directions either refuse it or make it CR LF:
#
#     a server, BDAT text   BareNewlineChecker ("reject") or NewlineNormalizer ("normalize"), with one interface
#     a server, DATA        dotstuff.DotDecoder, which shares bare_in() and to_crlf()
#     a client, BDAT        NewlineEncoder, or encode_newlines() for a message that is at hand
#     a client, DATA        dotstuff.DotEncoder, encode_message()
#
# Chunks may be cut anywhere, between CR and LF too. What is kept from one chunk to the next is one CR at most, every
# octet is looked at a bounded number of times, and a chunk with nothing to change is handed on, not copied.
from __future__ import annotations

import io
from typing import Literal, TypeAlias

from .errors import LocalProtocolError

NewlinePolicy: TypeAlias = Literal["reject", "normalize"]

_REFUSAL = "the message has a bare CR or LF, which newlines='reject' does not send"


def is_reject(policy: NewlinePolicy) -> bool:
    """Look at a policy once, so that a misspelt one is an error and not silently the other one."""
    if policy == "reject":
        return True
    if policy == "normalize":
        return False
    raise ValueError(f"newlines is 'reject' or 'normalize', not {policy!r}")


def bare_in(text: bytes) -> bool:
    """Whether a CR without LF, or an LF without CR, is in this piece of text.

    The piece stands by itself: an LF at its start and a CR at its end count as bare.
    """
    # This class remembers which kinds of line end it met, and finds them in one pass of C: 0.42 ms per MiB where
    # counting \n, \r and \r\n takes 1.5 and a regular expression with look-behind 19. Latin-1 turns every octet into
    # the character of the same number and costs a memcpy, 0.05 ms.
    ends = io.IncrementalNewlineDecoder(None, False)
    ends.decode(str(text, "latin-1"), True)
    found = ends.newlines
    return found is not None and found != "\r\n"


def to_crlf(text: bytes) -> bytes:
    """Make every line end of this piece CR LF: a bare CR is one, a bare LF is one, CR LF stays as it is."""
    if b"\r" in text:
        text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return text.replace(b"\n", b"\r\n")


class BareNewlineChecker:
    """Pass text through and notice bare CR and LF, for a server that refuses them.

    Attributes:
        bare: a bare CR or LF was met. A CR at the very end of the text is known to be bare after :meth:`finish`.
    """

    __slots__ = ("_ends", "bare")

    def __init__(self) -> None:
        self.bare = False
        self._ends = io.IncrementalNewlineDecoder(None, False)  # it keeps a CR at the end of a chunk in mind

    def feed(self, data: bytes | bytearray) -> bytes:
        """Check the next chunk and return it, or ``b""`` once something bare was met."""
        return self._check(data, False)

    def finish(self) -> bytes:
        """Say that the text is complete, which makes a CR at its end bare. Returns ``b""``."""
        return self._check(b"", True)

    def _check(self, data: bytes | bytearray, final: bool) -> bytes:
        self._ends.decode(str(data, "latin-1"), final)
        found = self._ends.newlines
        self.bare = found is not None and found != "\r\n"
        return b"" if self.bare else bytes(data)


class NewlineNormalizer:
    """Make every bare CR and every bare LF of a text CR LF, however it is cut into chunks.

    Attributes:
        bare: a bare CR or LF was met (and replaced).
        line_start: what was returned so far is empty or ends with CR LF.
    """

    __slots__ = ("_held", "bare", "line_start")

    def __init__(self) -> None:
        self.bare = False
        self.line_start = True
        self._held = False  # the last chunk ended with a CR that waits for its LF

    def feed(self, data: bytes | bytearray) -> bytes:
        """Take the next chunk; return what can be said by now. A CR at its end waits for the next chunk."""
        if not data:
            return b""
        text = b"\r" + data if self._held else bytes(data)
        self._held = text.endswith(b"\r")
        if self._held:
            text = text[:-1]
            if not text:
                return b""
        return self._emit(text)

    def finish(self) -> bytes:
        """Say that the text is complete: a CR that still waited was bare. Returns the rest of the text."""
        if not self._held:
            return b""
        self._held = False
        return self._emit(b"\r")

    def _emit(self, text: bytes) -> bytes:
        if bare_in(text):
            self.bare = True
            text = to_crlf(text)
        self.line_start = text.endswith(b"\n")  # every LF is the end of a CR LF by now
        return text


class NewlineEncoder:
    """A client's message text for BDAT: CR LF line ends only, the last line ended too, no dots touched.

    Args:
        newlines: ``"normalize"`` makes bare CR and LF CR LF, ``"reject"`` raises ``LocalProtocolError`` for them.

    Once :meth:`encode` has raised, the message cannot be finished any more: so does :meth:`finish`.

    Attributes:
        size: octets of the text that was returned so far, as RFC 1870 counts them: without the end of the data and
            stuffed dots.
    """

    __slots__ = ("_reject", "_text", "size")

    def __init__(self, newlines: NewlinePolicy = "normalize") -> None:
        self._reject = is_reject(newlines)
        self._text = NewlineNormalizer()
        self.size = 0

    def encode(self, chunk: bytes | bytearray) -> bytes:
        """Return what of the message can be sent by now; a clean chunk is returned as it is, uncopied.

        Raises:
            LocalProtocolError: with ``"reject"``, for a bare CR or LF in this chunk or an earlier one.
        """
        return self._checked(self._text.feed(chunk))

    def finish(self) -> bytes:
        """Return what is still to be sent at the end: a CR LF where the message lacks its last one.

        Raises:
            LocalProtocolError: with ``"reject"``, for a bare CR or LF, as the CR at the end of a message is one.
        """
        last = self._checked(self._text.finish())
        if self._text.line_start:
            return last
        self.size += 2
        return b"\r\n"

    def _checked(self, text: bytes) -> bytes:
        if self._reject and self._text.bare:
            raise LocalProtocolError(_REFUSAL)
        self.size += len(text)
        return text


def encode_newlines(content: bytes, newlines: NewlinePolicy = "normalize") -> tuple[bytes, bytes]:
    """A whole message for BDAT as ``(text, tail)``: :class:`NewlineEncoder` in one go.

    Two pieces, so that a clean message is returned itself and not as a copy. ``tail`` is the missing last CR LF, or
    ``b""``; the octets for ``BDAT`` and for ``SIZE=`` are those of both pieces.

    Raises:
        LocalProtocolError: with ``"reject"``, for a bare CR or LF.
    """
    reject = is_reject(newlines)
    text = content
    if bare_in(text):
        if reject:
            raise LocalProtocolError(_REFUSAL)
        text = to_crlf(text)
    return text, b"" if not text or text.endswith(b"\n") else b"\r\n"
