# NUL in the text of a message.
#
# It is legal in neither 7bit nor 8bit bodies (RFC 2045 section 2.7), and some hops drop it: of CR LF NUL . CR LF they
# make the end of the data (SMTP smuggling). So a client drops it before line ends and dots are looked at, or does not
# send the message; a server refuses the message at its true end (server/message.py). BINARYMIME (RFC 3030) may have it.
from __future__ import annotations

from typing import Final, Literal, TypeAlias

from .errors import LocalProtocolError

ServerNULPolicy: TypeAlias = Literal["reject", "keep"]
SERVER_NUL_POLICIES: Final = ("reject", "keep")
ClientNULPolicy: TypeAlias = Literal["reject", "drop", "keep"]
CLIENT_NUL_POLICIES: Final = ("reject", "drop", "keep")


def treat_nul(text: bytes | bytearray, policy: ClientNULPolicy) -> bytes | bytearray:
    """A piece of a message's text, cut anywhere, without NUL unless the policy is ``"keep"``.

    Raises:
        LocalProtocolError: with ``"reject"``, for a NUL.
    """
    if policy == "keep" or b"\0" not in text:
        return text
    if policy == "reject":
        raise nul_error()
    return text.replace(b"\0", b"")


def nul_error() -> LocalProtocolError:
    """The error for a message that has a NUL."""
    return LocalProtocolError("the message has a NUL, which nul='reject' does not allow")
