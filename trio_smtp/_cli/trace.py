# Trace lines: what a delivering server writes above a message (RFC 5321 section 4.4).
#
# Everything in them that a peer chose (the EHLO name, addresses) is written so that it can neither end a line nor
# pretend to be another part of the header. This file does not know about files or sockets.
from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime

# What may stand for a host: labels of letters, digits, "-", "_" and "." (UTF-8 under RFC 6531), or an address literal.
_HOST = re.compile(r"[\w.-]{1,255}|\[[0-9A-Za-z.:-]{1,253}\]")
_NOT_HOST = re.compile(r"[^\w.:\[\]-]")
# Control characters, C1 ones included, what some readers take for line ends, and what UTF-8 cannot carry.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_MAX_TEXT = 900  # characters kept of one peer-given string, so that no line passes 998 octets in ASCII


@dataclass(frozen=True, kw_only=True, slots=True)
class Trace:
    """What is known about one message when its content begins.

    Attributes:
        queue_id: the name the message is stored under.
        hostname: this server.
        hello: the name the client gave with EHLO, HELO or LHLO; whatever it wrote.
        peer: the client's address, without a name looked up for it; ``None`` where it has none.
        protocol: ``ESMTPS`` and the like, see :func:`protocol_name`.
        tls: version and cipher, or ``""``.
        sender: the reverse path, ``""`` for the null sender.
        recipients: the forward paths, in order.
        date: when the message arrived.
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

    def to_bytes(self) -> bytes:
        """``Return-Path``, one ``Delivered-To`` for each recipient, and ``Received``; every line ends with CRLF."""
        lines = [f"Return-Path: <{_text(self.sender)}>"]
        lines += [f"Delivered-To: {_text(address)}" for address in self.recipients]
        literal = _address_literal(self.peer)
        lines.append(f"Received: from {_host(self.hello)}" + (f" ({literal})" if literal else ""))
        lines.append(f"\tby {_host(self.hostname)} (trio_smtp) with {self.protocol} id {_text(self.queue_id)}")
        if self.tls:
            lines.append(f"\t({_comment(self.tls)})")
        if len(self.recipients) == 1:  # RFC 5321 §7.2: several recipients are not to be told of each other
            lines.append(f"\tfor <{_text(self.recipients[0])}>")
        lines[-1] += ";"
        lines.append(f"\t{format_datetime(self.date)}")
        return "".join(line + "\r\n" for line in lines).encode("utf-8")


def protocol_name(*, esmtp: bool, lmtp: bool, tls: bool, authenticated: bool, smtputf8: bool) -> str:
    """The ``with`` clause: the names registered by RFC 3848 and RFC 6531 section 4.3."""
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
        address = ipaddress.ip_address(peer.partition("%")[0])  # a scope id means nothing to others
    except ValueError:
        return ""
    return f"[IPv6:{address}]" if address.version == 6 else f"[{address}]"  # RFC 5321 §4.1.3
