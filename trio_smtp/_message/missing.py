# The fields that a message must have, or should, and an application may have left out: Date and Message-ID.
from __future__ import annotations

import secrets
from dataclasses import dataclass
from email.message import Message
from email.utils import formatdate
from typing import Any

from .._protocol.addresses import to_ascii
from .header_envelope import addresses_of
from .target import refusing


@dataclass(frozen=True, slots=True)
class Missing:
    """Values for fields that are missing (RFC 5322 section 3.6), the same for every time a message is written.

    Attributes:
        fields: name and value.
    """

    fields: tuple[tuple[str, str], ...]

    @classmethod
    @refusing
    def of(cls, message: Message[Any, Any]) -> Missing:
        """What this message lacks. The identifier is random, at the domain of the author.

        Raises:
            LocalProtocolError: its header cannot be read.
        """
        fields: list[tuple[str, str]] = []
        if "Date" not in message:
            fields.append(("Date", formatdate(localtime=True)))
        if "Message-ID" not in message:
            fields.append(("Message-ID", f"<{secrets.token_hex(16)}@{_domain(message)}>"))
        return cls(tuple(fields))


def _domain(message: Message[Any, Any]) -> str:
    for address in addresses_of(message, ("From", "Sender")):
        if address is not None and "@" in address:
            try:
                domain = to_ascii(f"x@{address.rpartition('@')[2]}")[len("x@") :]
            except ValueError:
                continue
            if domain.replace(".", "").replace("-", "").isalnum() and domain.isascii():
                return domain
    return "localhost"
