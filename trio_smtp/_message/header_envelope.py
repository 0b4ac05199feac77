# The envelope as a header names it, from the source of its fields.
#
# An encoded word is never decoded on the way: what it says may be another address, or several (RFC 2047 §5).
from __future__ import annotations

import re
from collections.abc import Iterator
from email.header import Header
from email.message import Message
from email.policy import Policy
from email.utils import getaddresses
from typing import Any, Final

from .._protocol.addresses import needs_smtputf8
from .._protocol.errors import Delivery, LocalProtocolError
from .target import refusing, unwritable

_ADDRESSED: Final = ("From", "Sender", "Reply-To", "To", "Cc", "Resent-From", "Resent-Sender", "Resent-To", "Resent-Cc")
_FOLD: Final = re.compile(r"\r?\n(?=[ \t])").sub
# RFC 2047 §2, with what mailers leave unencoded in it; or the beginning of what may be read as one. The mask is a
# character for private use: an atom to a parser of addresses, and nothing to decode.
_ENCODED_WORD: Final = re.compile(r"=\?(?:[^?\s]*\?[A-Za-z]\?[^?\s]*\?=)?").sub
_MASK: Final = "\ue000"
_OBSOLETE: Final = ("obs-local-part", "invalid-obs-local-part")


@refusing
def header_needs_utf8(message: Message[Any, Any]) -> bool:
    """Whether the header names an address whose local part only SMTPUTF8 can carry.

    Raises:
        LocalProtocolError: a field of addresses that cannot be read.
    """
    found = addresses_of(message, _ADDRESSED)
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
    return _envelope_of(message, need_sender)


@refusing
def _envelope_of(message: Message[Any, Any], need_sender: bool) -> tuple[str, list[str]]:
    resent = sum(name.lower() == "resent-date" for name, _ in message.raw_items())
    if resent > 1:
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
        for address in addresses_of(message, (name,)):
            if address is None:
                raise LocalProtocolError(
                    f"an address in the field {name} has an encoded word in it, which RFC 2047 does not allow",
                    delivery=Delivery.NOT_SENT,
                )
            found.append(address)
    return found


def addresses_of(message: Message[Any, Any], names: tuple[str, ...]) -> Iterator[str | None]:
    """The addresses of these fields, none of them decoded; ``None`` for one with an encoded word in it."""
    for wanted in names:
        for name, value in message.raw_items():
            if name.lower() == wanted.lower():
                yield from _addresses_in(message.policy, name, value)


def _addresses_in(policy: Policy[Any], name: str, value: Any) -> Iterator[str | None]:
    tree = getattr(value, "_parse_tree", None)
    if tree is not None and hasattr(value, "addresses"):  # parsed when it was set; the source is gone
        is_bad = _has_encoded_address(tree)
        specs = [address.addr_spec for address in value.addresses]
        yield from (None if is_bad or "=?" in spec else spec for spec in specs)
        return
    if not isinstance(value, str | Header):
        raise unwritable(f"the field {name} is a {type(value).__name__}")
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
