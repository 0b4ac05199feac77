# The parameters of MAIL and RCPT for one message on one connection, and whether the server can take the message at all.
#
# SIZE, BODY and SMTPUTF8 are found out; a caller's own values replace them. Guarantee: whatever the message needs and
# the server does not offer is an error here, before MAIL.
# Not known here: the commands and their order (encoder.py).
from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from .._protocol.errors import Delivery, ExtensionNotSupportedError, MessageTooLargeError, Stage
from .._protocol.extensions import Extensions
from .._protocol.parameter_text import beyond_offer, format_params, required_extensions
from .connection import ClientConnection
from .content import Source
from .message import Message, Params

_SIZE: Final = re.compile(r"[0-9]{1,20}").fullmatch  # RFC 1870 §6

# Octets go as they are or not at all. A message object is another thing: it says what may be encoded anew.
_EIGHT_BIT: Final = (
    "the message has 8-bit octets (an EmailMessage, from email.message_from_bytes(), is encoded anew where need be)"
)


def mail_params(connection: ClientConnection, message: Message, source: Source, size: int | None) -> tuple[str, bool]:
    """The parameters of MAIL as text, and whether the transaction has SMTPUTF8.

    Args:
        connection: to the server.
        message: with the caller's own parameters.
        source: its content, made ready for this server.
        size: in octets, if known.

    Raises:
        ExtensionNotSupportedError, MessageTooLargeError: the server cannot take this message.
    """
    extensions = connection.extensions
    given = message.mail_params
    utf8 = message.needs_utf8 or (source.utf8 and connection.offers_utf8)
    params = ""
    if size is not None and connection.offers_size:
        if extensions.size is not None and size > extensions.size:
            raise too_large(size, extensions.size, Stage.MAIL)
        if given is None or "SIZE" not in given:
            params = f" SIZE={size}"
    if source.eight_bit is None and connection.offers_8bit and (given is None or "BODY" not in given):
        params += " BODY=8BITMIME"  # not known: a stream is declared 8-bit wherever that is allowed
    elif source.eight_bit and (given is None or "BODY" not in given):
        require(extensions, {"8BITMIME"}, _EIGHT_BIT)
        params += " BODY=8BITMIME"
        if source.utf8:
            require(extensions, {"SMTPUTF8"}, "the header has UTF-8")
    if utf8:
        require(extensions, {"SMTPUTF8"}, "an address has non-ASCII characters before the @")
        if given is None or "SMTPUTF8" not in given:
            params += " SMTPUTF8"
    if given is not None:
        _check_given(connection, given)
        params += format_params(given, smtputf8=utf8)
    return params, utf8


def rcpt_params(connection: ClientConnection, message: Message, written: str, *, utf8: bool) -> str:
    """The parameters of RCPT for one recipient, as text.

    Raises:
        ExtensionNotSupportedError: the server does not offer what they need.
    """
    given = message.rcpt_params.get(written) if message.rcpt_params is not None else None
    if not given:
        return ""
    require(connection.extensions, required_extensions("RCPT", given), f"the parameters for {written}")
    return format_params(given, smtputf8=utf8)


def _check_given(connection: ClientConnection, given: Params) -> None:
    """Raise for parameters of MAIL that go beyond what the server offers."""
    extensions = connection.extensions
    require(extensions, required_extensions("MAIL", given), "the parameters for MAIL")
    limit, declared = extensions.size, str(given.get("SIZE"))
    if limit is not None and _SIZE(declared) and int(declared) > limit:
        raise too_large(int(declared), limit, Stage.MAIL)
    if beyond := beyond_offer(given, extensions):
        raise _unsupported(f"the parameters for MAIL: {beyond}")
    if str(given.get("BODY")).upper() == "BINARYMIME" and not connection.config.chunking:
        raise _unsupported("BODY=BINARYMIME needs BDAT, and chunking=False forbids it")
    if "REQUIRETLS" in given:
        tls = connection.wire.tls
        if tls is None or not tls.verified:  # RFC 8689 §4.2.1
            raise _unsupported("REQUIRETLS needs a connection under TLS with a verified certificate")


def require(extensions: Extensions, wanted: Iterable[str], why: str) -> None:
    """Raise ExtensionNotSupportedError unless the server offers all of these."""
    missing = [keyword for keyword in wanted if keyword not in extensions]
    if missing:
        raise _unsupported(f"{why}: that needs {', '.join(sorted(missing))}, which the server does not offer")


def _unsupported(text: str) -> ExtensionNotSupportedError:
    return ExtensionNotSupportedError(text, stage=Stage.MAIL, delivery=Delivery.NOT_SENT)


def too_large(size: int, limit: int, stage: Stage) -> MessageTooLargeError:
    """The error for a message that the server's SIZE forbids, before its end was sent."""
    has = "has" if stage is Stage.MAIL else "has at least"
    return MessageTooLargeError(
        f"the message {has} {size} octets, and the server takes {limit}", stage=stage, delivery=Delivery.NOT_SENT
    )
