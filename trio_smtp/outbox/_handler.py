# A handler for a server: what it receives goes into an outbox, and 250 means that it is durable there.
from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Final, Protocol

from trio_smtp import Body, Envelope, Handler, MessageTooLargeError, Reject, Sender, Session

from ._errors import StoreError
from ._hop_parameters import mail_params, rcpt_params

_HOPS: Final = 100  # Received lines; a message with more is in a loop (RFC 5321 section 6.3)
_UNSAFE: Final = re.compile(r"[^\w.:\[\]-]")
_HEADER_END: Final = re.compile(rb"\r\n\r\n")
_RECEIVED: Final = re.compile(rb"^received:", re.IGNORECASE | re.MULTILINE)


class _Ticket(Protocol):
    @property
    def id(self) -> str: ...


Put = Callable[..., Awaitable[_Ticket]]


class QueueHandler(Handler):
    """Puts each message into an outbox.

    Args:
        put: the outbox's.
        received_by: this server's name, for a ``Received`` line; ``None`` for none.
    """

    def __init__(self, put: Put, received_by: str | None) -> None:
        self._put: Final = put
        self._received_by: Final = received_by

    async def on_data(self, session: Session, envelope: Envelope, body: Body) -> str:
        """Take the message, and answer with its id."""
        along = mail_params(envelope.sender)
        content = await body.read()
        if self._received_by is not None:
            if _hops(content) >= _HOPS:
                raise Reject(554, "too many hops: this message is in a loop", "5.4.6")
            content = _received(session, envelope, self._received_by) + content
        try:
            ticket = await self._put(
                envelope.sender.address,
                [recipient.address for recipient in envelope.recipients],
                content,
                not_before=_held_until(envelope.sender),
                priority=envelope.sender.mt_priority or 0,
                mail_params=along,
                rcpt_params=rcpt_params(envelope.recipients),
            )
        except MessageTooLargeError as exc:
            raise Reject(552, "the message is too large", "5.3.4") from exc
        except StoreError as exc:
            raise Reject(451, "the queue cannot take it now", "4.3.0") from exc
        return ticket.id


def _held_until(sender: Sender) -> datetime | None:
    """When the message may go on (RFC 4865)."""
    if sender.hold_for is not None:
        return datetime.now(UTC) + timedelta(seconds=sender.hold_for)
    return sender.hold_until


def _hops(content: bytes) -> int:
    end = _HEADER_END.search(content)
    return len(_RECEIVED.findall(content, 0, len(content) if end is None else end.start()))


def _received(session: Session, envelope: Envelope, name: str) -> bytes:
    hello = _UNSAFE.sub("?", (session.hello or "unknown")[:255])
    peer = f" ([{_UNSAFE.sub('?', str(session.peer[0]))}])" if session.peer else ""
    kind = ("UTF8SMTP" if envelope.sender.smtputf8 else "ESMTP") if session.esmtp else "SMTP"
    if session.esmtp:
        kind += "S" * (session.tls is not None) + "A" * (session.identity is not None)
    lines = (
        f"Received: from {hello}{peer}",
        f"\tby {_UNSAFE.sub('?', name)} (trio_smtp) with {kind};",
        f"\t{format_datetime(datetime.now(UTC))}",
    )
    return "".join(f"{line}\r\n" for line in lines).encode()
