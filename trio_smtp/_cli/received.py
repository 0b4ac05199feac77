# Trace lines: the header fields that a delivering server adds above a message (RFC 5321 section 4.4).
#
# Text that a peer chose (the EHLO name, addresses) is sanitised: it cannot end a line or imitate another part of the
# header. This module does not know files or sockets.
from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime

# A host: labels of letters, digits, "-", "_" and "." (UTF-8 under RFC 6531), or an address literal.
_HOST = re.compile(r"[\w.-]{1,255}|\[[0-9A-Za-z.:-]{1,253}\]")
_NOT_HOST = re.compile(r"[^\w.:\[\]-]")
# Control characters (C0 and C1), Unicode line ends, and surrogates.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_MAX_TEXT = 900  # characters of one string from a peer, so that no ASCII line exceeds 998 octets


@dataclass(frozen=True, kw_only=True, slots=True)
class ReceivedFields:
    """The facts for the trace lines of one message.

    Attributes:
        queue_id: the name under which the message is stored.
        hostname: this server.
        hello: the name that the client gave with EHLO, HELO or LHLO, unchecked.
        peer: the client's address; ``None`` if it has none.
        protocol: ``ESMTPS``, for example; see :func:`protocol_name`.
        tls: version and cipher, or ``""``.
        sender: the reverse path, ``""`` for the null sender.
        recipients: the forward paths, in order.
        date: when the message arrived.
        identity: the user that the client logged in as, or ``None``; for reports, not written above the message.
    """

    queue_id: str
    hostname: str
    hello: str
    peer: str | None
    protocol: str
    tls: str
    sender: str
    recipients: Sequence[str]
    date: datetime
    identity: str | None = None

    def to_bytes(self) -> bytes:
        """``Return-Path``, one ``Delivered-To`` for each recipient, and ``Received``; every line ends with CRLF."""
        lines = [f"Return-Path: <{_text(self.sender)}>"]
        lines += [f"Delivered-To: {_text(address)}" for address in self.recipients]
        literal = _address_literal(self.peer)
        lines.append(f"Received: from {_host(self.hello)}" + (f" ({literal})" if literal else ""))
        lines.append(f"\tby {_host(self.hostname)} (trio_smtp) with {self.protocol} id {_text(self.queue_id)}")
        if self.tls:
            lines.append(f"\t({_comment(self.tls)})")
        if len(self.recipients) == 1:  # RFC 5321 §7.2: do not disclose other recipients
            lines.append(f"\tfor <{_text(self.recipients[0])}>")
        lines[-1] += ";"
        lines.append(f"\t{format_datetime(self.date)}")
        return "".join(line + "\r\n" for line in lines).encode("utf-8")


def protocol_name(*, esmtp: bool, lmtp: bool, tls: bool, authenticated: bool, smtputf8: bool) -> str:
    """The name for the ``with`` clause (RFC 3848, RFC 6531 section 4.3)."""
    if not (esmtp or lmtp):
        return "SMTP"  # nothing is registered for HELO with TLS
    name = "LMTP" if lmtp else "ESMTP"
    if smtputf8:
        name = "UTF8LMTP" if lmtp else "UTF8SMTP"
    return name + "S" * tls + "A" * authenticated


def _text(value: str) -> str:
    return _UNSAFE.sub("?", value[:_MAX_TEXT])


def _host(value: str) -> str:
    if _HOST.fullmatch(value) and not _UNSAFE.search(value):
        return value
    return _NOT_HOST.sub("?", _UNSAFE.sub("?", value[:255])) or "unknown"


def _comment(value: str) -> str:
    return re.sub(r"[()\\]", "?", _text(value))


def _address_literal(peer: str | None) -> str:
    if peer is None:
        return ""
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])  # a scope id has no meaning on other hosts
    except ValueError:
        return ""
    return f"[IPv6:{address}]" if address.version == 6 else f"[{address}]"  # RFC 5321 §4.1.3
