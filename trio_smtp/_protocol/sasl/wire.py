# SASL's encodings inside SMTP: base64 lines, text fields, and the GS2 header of RFC 5801.
#
# For any octets from a client, the functions for the server's side either return the value or raise SASLError, which
# carries the reply that ends the exchange. Nothing here knows mechanisms or keeps state.
from __future__ import annotations

import binascii
import re
from typing import Final

from ..errors import AuthenticationError, Stage
from ..replies import Reply
from .saslprep import SASLprepError, saslprep

MAX_NAME: Final = 255  # octets of an authcid, authzid or nonce; RFC 4616 §2 requires this many, not more
MAX_PASSWORD: Final = 4096  # octets; RFC 4616 §2 requires 255, but clients send signed tokens as passwords
REFUSED: Final = Reply(535, "authentication failed", "5.7.8")  # RFC 4954 §6; the same text for every reason

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")  # could end a line, in a log for instance
_SASLNAME = re.compile(rb"(?:[^,=\x00]|=2C|=3D)+")  # RFC 5801 §4


class SASLError(Exception):
    """The exchange is over; the server answers ``reply``. Internal: hooks and callers never see it."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


def malformed(what: str) -> SASLError:
    """The error for a malformed response: 501 5.5.2 (RFC 4954 section 4)."""
    return SASLError(Reply(501, what, "5.5.2"))


# ---- base64


def decode_response(line: bytes | bytearray, *, initial: bool = False) -> bytes:
    """Decode a line of the exchange, or the initial response of the AUTH command.

    The caller handles ``*`` (cancel) before, and an AUTH command without an initial response.

    Args:
        line: the octets without CRLF.
        initial: the octets are the argument of AUTH, where ``=`` is an empty response. In the exchange, an empty
            response is an empty line (RFC 4954 section 4).

    Raises:
        SASLError: 501 5.5.2: not strict base64 (spaces, missing padding, text after the end).
    """
    if initial:
        if line == b"=":
            return b""
        if not line:
            raise malformed("empty initial response")
    try:
        return binascii.a2b_base64(line, strict_mode=True)
    except binascii.Error:
        raise malformed("cannot decode base64") from None


def encode_challenge(data: bytes) -> bytes:
    """Base64 without line ends: the text of a 334 reply, or the client's line."""
    return binascii.b2a_base64(data, newline=False)


def decode_challenge(reply: Reply) -> bytes:
    """Decode the text of a server's 334 reply.

    Raises:
        AuthenticationError: the reply has several lines, or is not base64. The client then answers ``*``.
    """
    # ReplyReader removes the code; a 334 has no enhanced code (RFC 2034 §4).
    if len(reply.lines) != 1:
        raise AuthenticationError("the 334 reply has several lines", reply=reply, stage=Stage.AUTH)
    try:
        return binascii.a2b_base64(reply.lines[0].strip().encode(), strict_mode=True)
    except binascii.Error:
        raise AuthenticationError("the text of the 334 reply is not base64", reply=reply, stage=Stage.AUTH) from None


# ---- fields


def text_field(raw: bytes, what: str, limit: int = MAX_NAME) -> str:
    """Decode a field that may be empty: UTF-8 without NUL, of at most `limit` octets (RFC 4616 section 2)."""
    if len(raw) > limit:
        raise malformed(f"{what} is too long")
    if b"\0" in raw:
        raise malformed(f"NUL in the {what}")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise malformed(f"the {what} is not UTF-8") from None


def identity_field(raw: bytes) -> str:
    """Decode an identity that may be empty and is not prepared: an authorization identity, or the user of a token."""
    text = text_field(raw, "identity")
    if _CONTROL.search(text):
        raise malformed("control characters in the identity")
    return text


def username_field(raw: bytes) -> str:
    """Decode and prepare a user name, ready for the application to look up."""
    text = text_field(raw, "user name")
    if not text:
        raise malformed("empty user name")
    try:
        return prepare_username(text)
    except SASLprepError:
        raise malformed("the user name has characters that are not allowed") from None


def password_field(raw: bytes) -> str:
    """Decode a password. It is prepared only to compare it; the application gets it as it was sent."""
    text = text_field(raw, "password", MAX_PASSWORD)
    if not text:
        raise malformed("empty password")
    return text


def prepare_username(text: str) -> str:
    """SASLprep for a user name; a printable name that SASLprep prohibits is returned unchanged.

    ``דוד@example.com``, for example, breaks the rule about writing directions (RFC 3454 section 6), but it is a valid
    address and so may be a user name. Names with control characters are still refused.
    """
    try:
        return saslprep(text, stored=False)  # RFC 5802 §5.1, RFC 4616 §2: a query string
    except SASLprepError:
        if text.isprintable() and text.strip():
            return text
        raise


# ---- saslname and the GS2 header, with which SCRAM and OAUTHBEARER start


def quote_saslname(name: str) -> bytes:
    """Escape commas and equal signs in a name (RFC 5801 section 4)."""
    return name.encode().replace(b"=", b"=3D").replace(b",", b"=2C")


def unquote_saslname(raw: bytes) -> bytes:
    """Undo :func:`quote_saslname`; another use of ``=`` is refused (RFC 5802 section 5.1)."""
    if not _SASLNAME.fullmatch(raw):
        raise malformed("bad name")
    return raw.replace(b"=2C", b",").replace(b"=3D", b"=")


def split_gs2_header(message: bytes) -> tuple[bytes, str | None, bytes]:
    """Split ``n,a=authzid,`` from a client's first message.

    Returns:
        The header as sent (SCRAM's ``c=`` repeats it), the authorization identity or ``None``, and the rest.

    Raises:
        SASLError: there is no such header, or it asks for channel binding, which no mechanism here offers.
    """
    parts = message.split(b",", 2)
    if len(parts) != 3:
        raise malformed("no GS2 header")
    flag, identity, rest = parts
    if flag.startswith(b"p="):
        raise SASLError(Reply(501, "channel binding is not supported", "5.5.4"))
    # "y": the client supports channel binding and believes the server does not. That is true, so it is no downgrade
    # (RFC 5802 §6).
    if flag not in (b"n", b"y"):
        raise malformed("bad GS2 header")
    authorization_id = None
    if identity:
        if not identity.startswith(b"a="):
            raise malformed("bad GS2 header")
        authorization_id = identity_field(unquote_saslname(identity[2:]))
    return message[: len(message) - len(rest)], authorization_id, rest
