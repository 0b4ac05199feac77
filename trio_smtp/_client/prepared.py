# A message that is checked and written out now, to be kept and sent later: by an outbox, for example.
#
# What a server can take is not known yet. So an EmailMessage is written for the least able one: 7-bit, with encoded
# words, and with UTF-8 in the header only where an address needs SMTPUTF8 anyway. What has no such form, since it is
# signed, is written as it is, and needs a server that takes it.
from __future__ import annotations

import email.message
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .._message.header_envelope import header_needs_utf8
from .._message.serializer import serialize
from .._protocol.errors import ExtensionNotSupportedError
from .client import message_envelope
from .message import Message, Params


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedMessage:
    """A checked message, written out; see :func:`prepare_message`.

    Attributes:
        sender: the reverse path, ``""`` for none.
        recipients: addresses as the caller wrote them, each once.
        content: header and text.
        mail_params: parameters of MAIL by keyword in upper case, ``None`` for none.
        rcpt_params: parameters of RCPT by recipient, ``None`` for none.
    """

    sender: str
    recipients: tuple[str, ...]
    content: bytes
    mail_params: dict[str, str | int | None] | None = None
    rcpt_params: dict[str, dict[str, str | int | None]] | None = None


def prepare_message(
    sender: str | None,
    recipients: Iterable[str] | None,
    content: bytes | bytearray | memoryview | str | email.message.Message[Any, Any],
    *,
    mail_params: Params | None = None,
    rcpt_params: Mapping[str, Params] | None = None,
) -> PreparedMessage:
    """Check a message as :meth:`Client.send` does, and write it out, for any server.

    Args:
        sender: the reverse path; ``None``: that of the header of an ``EmailMessage``.
        recipients: addresses; ``None``: those of the header of an ``EmailMessage``: To, Cc and Bcc.
        content: the message, at hand. What is written of an ``EmailMessage`` has no Bcc.
        mail_params: as in :meth:`Client.send`.
        rcpt_params: as in :meth:`Client.send`.

    Raises:
        TypeError: `recipients` is a str; `content` is of another type; or there is no header to take an envelope from.
        LocalProtocolError: an address, a parameter or a message that cannot be sent, or no recipients.
    """
    if sender is None or recipients is None:
        if not isinstance(content, email.message.Message):
            raise TypeError("only an EmailMessage names its sender and recipients")
        sender, recipients = message_envelope(content, sender, recipients)
    if isinstance(content, email.message.Message):
        octets = _write(content)
    elif isinstance(content, str | bytes | bytearray | memoryview):
        octets = b""  # taken from the checked message below
    else:
        raise TypeError(f"content at hand must be bytes, str or an EmailMessage, not {type(content).__name__}")
    checked = Message(sender, recipients, content, mail_params, rcpt_params)
    if checked.content.ready is not None:
        octets = checked.content.ready.whole or b""
    return PreparedMessage(
        sender=checked.sender,
        recipients=tuple(checked.recipients),
        content=octets,
        mail_params=checked.mail_params,
        rcpt_params=checked.rcpt_params,
    )


def _write(message: email.message.Message[Any, Any]) -> bytes:
    utf8 = header_needs_utf8(message)
    try:
        return serialize(message, eight_bit=False, utf8=utf8)
    except ExtensionNotSupportedError:
        pass
    try:
        return serialize(message, eight_bit=True, utf8=utf8)
    except ExtensionNotSupportedError:
        return serialize(message, eight_bit=True, utf8=True)
