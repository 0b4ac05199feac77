# The record of a message that is put: its arguments checked, its id given.
from __future__ import annotations

import math
import secrets
from datetime import datetime
from typing import Final

from trio_smtp import Delivery, MessageTooLargeError, PreparedMessage

from ._config import OutboxConfig
from ._states import Fate, Record

_MOST: Final = 2**31 - 1  # the highest priority


def make_record(
    message: PreparedMessage,
    now: float,
    config: OutboxConfig,
    *,
    key: str | None,
    not_before: datetime | None,
    give_up_after: float | None,
    priority: int,
) -> Record:
    """The record of a message that is put now.

    Raises:
        TypeError, ValueError: an argument of the wrong kind, or out of range.
        MessageTooLargeError: larger than ``max_size``.
    """
    if key is not None and not isinstance(key, str):
        raise TypeError(f"key is a str, not {key!r}")
    if isinstance(priority, bool) or not isinstance(priority, int):
        raise TypeError(f"priority is an int, not {priority!r}")
    if not -_MOST <= priority <= _MOST:
        raise ValueError(f"priority is between {-_MOST} and {_MOST}, not {priority}")
    if not_before is not None and not_before.utcoffset() is None:
        raise ValueError("not_before needs a time zone: datetime.now(UTC), for example")
    patience = config.give_up_after if give_up_after is None else give_up_after
    if isinstance(patience, bool) or not isinstance(patience, int | float):
        raise TypeError(f"give_up_after is a number of seconds, not {patience!r}")
    if not 0 <= patience < math.inf:
        raise ValueError(f"give_up_after must be at least 0 and finite, not {patience!r}")
    check_size(len(message.content), config.max_size)
    due = now if not_before is None else max(now, not_before.timestamp())
    return new_record(message, now, due=due, patience=patience, key=key, priority=priority)


def new_record(
    message: PreparedMessage, now: float, *, due: float, patience: float, key: str | None = None, priority: int = 0
) -> Record:
    """A record with these values, which are not checked."""
    return Record(
        id=_new_id(now),
        key=key,
        sender=message.sender,
        recipients=dict.fromkeys(message.recipients, Fate(due=due)),
        size=len(message.content),
        created=now,
        expires=due + patience,
        priority=priority,
        mail_params=message.mail_params,
        rcpt_params=message.rcpt_params,
    )


def check_size(size: int, limit: int) -> None:
    """Raise MessageTooLargeError if a message of this size may not go into the outbox."""
    if size > limit:
        raise MessageTooLargeError(f"the message has more than the outbox's {limit} octets", delivery=Delivery.NOT_SENT)


def _new_id(now: float) -> str:
    """Unique, and in the order of time; letters first, since a reply may begin with it."""
    return f"m{int(now * 1000):011x}{secrets.token_hex(6)}"
