# put() inside an application's own SQLite transaction: the message is there if, and only if, the order is.
from __future__ import annotations

import email.message
import sqlite3
import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from trio_smtp import Params, prepare_message

from ._config import OutboxConfig
from ._outbox import Ticket
from ._records import make_record
from ._schema import check_version
from ._sqlite import insert, new_row


def put_in_transaction(
    connection: sqlite3.Connection,
    sender: str | None,
    recipients: Iterable[str] | None,
    content: bytes | bytearray | memoryview | str | email.message.Message[Any, Any],
    *,
    key: str | None = None,
    not_before: datetime | None = None,
    give_up_after: float | None = None,
    priority: int = 0,
    mail_params: Params | None = None,
    rcpt_params: Mapping[str, Params] | None = None,
    config: OutboxConfig | None = None,
) -> Ticket:
    """Put a message into the outbox in the same file, in the transaction that is open on `connection`.

    It is in the outbox once you commit, with all else that the transaction holds, and never if you roll back. Workers
    in other processes see it then. It blocks as any statement does.

    Args:
        connection: yours, to the file that ``open_outbox("sqlite:FILE")`` has opened before. It is as durable as your
            commit: leave ``PRAGMA synchronous`` at ``FULL``, its default.
        sender: the reverse path; ``None``: that of the header of an ``EmailMessage``.
        recipients: addresses; ``None``: those of the header of an ``EmailMessage``.
        content: the message, at hand.
        key, not_before, give_up_after, priority, mail_params, rcpt_params: as in :meth:`Outbox.put`.
        config: for ``max_size`` and ``give_up_after``.

    Raises:
        TypeError, ValueError, LocalProtocolError, MessageTooLargeError: as :meth:`Outbox.put`; nothing was written.
        ValueError: no transaction is open: the message would be there without what it belongs to.
        StoreError: the file's outbox is of another version.
        sqlite3.Error: of your connection, as it is.
    """
    if not connection.in_transaction:
        raise ValueError("no transaction is open on this connection: begin one, and put the message in it")
    now = time.time()
    message = prepare_message(sender, recipients, content, mail_params=mail_params, rcpt_params=rcpt_params)
    record = make_record(
        message,
        now,
        OutboxConfig() if config is None else config,
        key=key,
        not_before=not_before,
        give_up_after=give_up_after,
        priority=priority,
    )
    check_version(connection)
    return Ticket(*insert(connection, new_row(record, now), message.content))
