# What stands between angle brackets and is no mailbox: message identifiers and URIs. Encoded words cannot stand there.
from __future__ import annotations

import re
from typing import Final

from .._protocol.addresses import to_ascii
from .._protocol.domains import MAX_DOMAIN
from .mailboxes import ascii_address
from .target import lacking

_ANGLE: Final = re.compile(r"<([^<>]*)>")
_URI: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://(?:[^/?#@]*@)?)([^/?#:]*)(.*)", re.DOTALL)


def ascii_identifiers(text: str) -> str:
    """Message identifiers whose domains are in A-labels.

    Raises:
        LocalProtocolError: something else is not ASCII.
    """
    text = _ANGLE.sub(lambda match: f"<{ascii_address(match[1], False)}>", text)
    if not text.isascii():
        raise lacking("SMTPUTF8", f"{text!r} has no form in ASCII")
    return text


def ascii_uris(text: str) -> str:
    """URIs in place of IRIs between angle brackets (RFC 3987 section 3.1). The text around them stays as it is."""
    return _ANGLE.sub(lambda match: f"<{_uri(match[1])}>", text)


def _uri(text: str) -> str:
    if text.isascii():
        return text
    match = _URI.fullmatch(text)
    if match is None:
        return _percent(text)
    head, host, rest = match.groups()
    try:
        if len(host) > MAX_DOMAIN:
            raise ValueError
        host = to_ascii(f"x@{host}")[len("x@") :]
    except ValueError:
        host = _percent(host)
    return _percent(head) + host + _percent(rest)


def _percent(text: str) -> str:
    octets = text.encode("utf-8", "surrogateescape")
    return "".join(chr(octet) if octet < 0x80 else f"%{octet:02X}" for octet in octets)
