# An EmailMessage as octets for a given server, and its envelope as its header names it.
#
# What a server can take is known only after EHLO. So a message is written once per kind of server: with 8-bit text if
# 8BITMIME is offered, else re-encoded; with UTF-8 in the header in a transaction with SMTPUTF8, else as encoded words.
# Bcc is never written (RFC 5322 §3.6.3). The message itself is not changed.
from __future__ import annotations

import codecs
import copy
import io
import re
from collections.abc import Iterator
from email import encoders
from email.errors import MessageError
from email.generator import BytesGenerator
from email.header import Header
from email.headerregistry import Address, Group
from email.message import Message
from email.policy import SMTP, Policy
from email.utils import getaddresses
from typing import Any, Final

from .._protocol.addresses import needs_smtputf8, to_ascii
from .._protocol.errors import Delivery, LocalProtocolError

_HIDDEN: Final = ("Bcc", "Resent-Bcc")
_ADDRESSED: Final = ("From", "Sender", "Reply-To", "To", "Cc", "Resent-From", "Resent-Sender", "Resent-To", "Resent-Cc")
# An older Message takes any header; a line end in one begins another field, or the body. The email package folds by
# str.splitlines(), for which VT, FF, FS, GS and RS end a line too. It makes encoded words of NEL, LS and PS.
_BAD_NAME: Final = re.compile(r"[\0\n\v\f\r\x1c-\x1e:]").search
_FIELD: Final = re.compile(rb"[!-9;-~]+[ \t]*:").match
_FOLD: Final = re.compile(r"\r?\n(?=[ \t])").sub
# RFC 2047 §2, with what mailers leave unencoded in it; or the beginning of what may be read as one. The mask is a
# character for private use: an atom to a parser of addresses, and nothing to decode.
_ENCODED_WORD: Final = re.compile(r"=\?(?:[^?\s]*\?[A-Za-z]\?[^?\s]*\?=)?").sub
_MASK: Final = "\ue000"
_OBSOLETE: Final = ("obs-local-part", "invalid-obs-local-part")
_BREAK: Final = re.compile(r"[\0\v\f\x1c-\x1e]|\r(?!\n)|\n(?![ \t])").search


def serialize(message: Message[Any, Any], *, eight_bit: bool, utf8: bool) -> bytes:
    """Write a message with CR LF line ends, without Bcc.

    Args:
        message: left as it is.
        eight_bit: the server takes octets above 127; otherwise parts that have them are re-encoded.
        utf8: the transaction has SMTPUTF8: the header may be UTF-8.

    Raises:
        LocalProtocolError: a header field that would end before its end, or a message that cannot be written.
    """
    for part in message.walk():
        for name, value in part.raw_items():
            if _BAD_NAME(name) or _BREAK(str(value)):
                raise LocalProtocolError(
                    f"the header field {name!r} has a line end that folds no line, or what may become one",
                    delivery=Delivery.NOT_SENT,
                )
    message = _without_bcc(message)
    if not utf8:
        message = _with_ascii_domains(_with_encoded_words(message))
    octets = _write(message, eight_bit, utf8)
    if eight_bit or octets.isascii():
        return octets
    # cte_type="7bit" re-encodes text whose charset is known; what is left is re-encoded here, part by part.
    plain = copy.deepcopy(message)
    for part in plain.walk():
        if not part.is_multipart() and part.get("Content-Transfer-Encoding", "").lower() in ("8bit", "binary"):
            payload = part.get_payload(decode=True)
            del part["Content-Transfer-Encoding"]
            part.set_payload(payload)
            encoders.encode_base64(part)
        elif part.get("Content-Transfer-Encoding", "").lower() in ("8bit", "binary"):
            del part["Content-Transfer-Encoding"]  # of a container: RFC 2045 §6.4
    return _write(plain, False, utf8)


def _write(message: Message[Any, Any], eight_bit: bool, utf8: bool) -> bytes:
    changes: dict[str, Any] = {"linesep": "\r\n", "cte_type": "8bit" if eight_bit else "7bit"}
    if hasattr(message.policy, "utf8"):
        changes["utf8"] = utf8
    out = io.BytesIO()
    generator = BytesGenerator(out, mangle_from_=False, policy=message.policy.clone(**changes))
    try:
        generator.flatten(message)
    except MessageError as exc:
        raise LocalProtocolError(f"the message cannot be written: {exc}", delivery=Delivery.NOT_SENT) from exc
    return out.getvalue()


def _without_bcc(message: Message[Any, Any]) -> Message[Any, Any]:
    if not any(name in message for name in _HIDDEN):
        return message
    visible = _with_own_header(message)
    for name in _HIDDEN:
        del visible[name]
    return visible


def _with_encoded_words(message: Message[Any, Any]) -> Message[Any, Any]:
    """Encoded words for UTF-8 that was parsed from octets, which the email package keeps where 8-bit text may be."""
    changed = message
    for at, (name, value) in enumerate(message.raw_items()):
        if not isinstance(value, str) or value.isascii():
            continue
        try:
            text = value.encode("utf-8", "surrogateescape").decode("utf-8")
        except UnicodeError:
            continue  # in some unknown encoding
        if text != value:
            if changed is message:
                changed = _with_own_header(message)
            folded = SMTP.header_factory(name, _FOLD("", text)).fold(policy=SMTP)
            changed._headers[at] = (name, folded[len(name) + 1 :].strip())  # type: ignore[attr-defined]
    return changed


def _with_ascii_domains(message: Message[Any, Any]) -> Message[Any, Any]:
    """A-labels where the email package would make encoded words, which cannot stand in an address (RFC 2047 §5)."""
    changed = message
    for name in _ADDRESSED:
        value = message.get(name)
        groups = getattr(value, "groups", ())
        if not any(not a.domain.isascii() and a.username.isascii() for group in groups for a in group.addresses):
            continue
        if changed is message:
            changed = _with_own_header(message)
        changed.replace_header(name, tuple(Group(g.display_name, tuple(map(_ascii, g.addresses))) for g in groups))
    return changed


def _ascii(address: Address) -> Address:
    if address.domain.isascii() or not address.username.isascii():
        return address
    return Address(address.display_name, address.username, to_ascii(f"@{address.domain}")[1:])


def _with_own_header(message: Message[Any, Any]) -> Message[Any, Any]:
    """A shallow copy whose header can be changed; the body is shared."""
    changed = copy.copy(message)
    changed._headers = list(message._headers)  # type: ignore[attr-defined]
    return changed


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


def header_needs_utf8(message: Message[Any, Any]) -> bool:
    """Whether the header names an address whose local part only SMTPUTF8 can carry."""
    found = _addresses(message, _ADDRESSED)
    return any(address is not None and needs_smtputf8(address) for address in found)


def envelope_of(message: Message[Any, Any], *, need_sender: bool = True) -> tuple[str, list[str]]:
    """Sender and recipients as the source of the header names them; of a message sent on, the Resent- fields count.

    Raises:
        TypeError: it is no message object.
        LocalProtocolError: there is no sender, there are several sets of Resent- fields, or an address has an encoded
            word in it, which RFC 2047 section 5 forbids: its decoded form may be another address, or several.
    """
    if not isinstance(message, Message):
        raise TypeError(
            f"send_message() takes an EmailMessage, not {type(message).__name__}; text and octets go with"
            " send(sender, recipients, content)"
        )
    resent = message.get_all("Resent-Date", [])
    if len(resent) > 1:
        raise LocalProtocolError(
            "the message was sent on more than once: say sender and recipients yourself", delivery=Delivery.NOT_SENT
        )
    prefix = "Resent-" if resent else ""
    senders = _envelope_addresses(message, (prefix + "Sender",)) or _envelope_addresses(message, (prefix + "From",))
    recipients = _envelope_addresses(message, (prefix + "To", prefix + "Cc", prefix + "Bcc"))
    if not senders and need_sender:
        raise LocalProtocolError(f"the message has no {prefix}From", delivery=Delivery.NOT_SENT)
    return (senders[0] if senders else ""), recipients


def _envelope_addresses(message: Message[Any, Any], names: tuple[str, ...]) -> list[str]:
    found: list[str] = []
    for name in names:
        for address in _addresses(message, (name,)):
            if address is None:
                raise LocalProtocolError(
                    f"an address in the field {name} has an encoded word in it, which RFC 2047 does not allow",
                    delivery=Delivery.NOT_SENT,
                )
            found.append(address)
    return found


def _addresses(message: Message[Any, Any], names: tuple[str, ...]) -> Iterator[str | None]:
    """The addresses of these fields, none of them decoded; ``None`` for one with an encoded word in it."""
    for wanted in names:
        for name, value in message.raw_items():
            if name.lower() == wanted.lower():
                yield from _addresses_of(message.policy, name, value)


def _addresses_of(policy: Policy[Any], name: str, value: Any) -> Iterator[str | None]:
    tree = getattr(value, "_parse_tree", None)
    if tree is not None and hasattr(value, "addresses"):  # parsed when it was set; the source is gone
        is_bad = _has_encoded_address(tree)
        specs = [address.addr_spec for address in value.addresses]
        yield from (None if is_bad or "=?" in spec else spec for spec in specs)
        return
    source = value.encode() if isinstance(value, Header) else str(value)
    source = source.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    source = _ENCODED_WORD(_MASK, _FOLD("", source))
    factory = getattr(policy, "header_factory", None)
    if factory is None:
        specs = [address for _, address in getaddresses([source]) if address]
    else:
        specs = [address.addr_spec for address in getattr(factory(name, source), "addresses", ())]
    yield from (None if _MASK in spec else spec for spec in specs)


def _has_encoded_address(token: Any, within: bool = False) -> bool:
    """Whether an addr-spec had an encoded word in it, as far as what it was parsed into can show.

    The email package decodes one at the start of a local part, and parses the result as an obsolete local part
    (cpython #152519). Nothing tells the two apart then. No message may be written with the latter (RFC 5322 section 4).
    """
    kind = getattr(token, "token_type", "")
    if kind in _OBSOLETE or (kind == "encoded-word" and within):
        return True
    if kind in ("comment", "encoded-word") or not isinstance(token, list):
        return False
    within = kind != "display-name" and (within or kind in ("addr-spec", "invalid-mailbox"))
    return any(_has_encoded_address(child, within) for child in token)
