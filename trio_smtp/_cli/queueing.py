# The handler of `serve --outbox`: an outbox's handler, with reports.
from __future__ import annotations

from collections.abc import Callable

import trio_smtp

from .handlers import Received, received


class Queue(trio_smtp.Handler):
    """Puts every message into an outbox, reports it, and answers with its id.

    Args:
        inner: the outbox's handler.
        report: called for each message that is durable, before the client gets its reply.
        lmtp: the server speaks LMTP.
    """

    def __init__(self, inner: trio_smtp.Handler, report: Callable[[Received], None], *, lmtp: bool = False) -> None:
        self._inner = inner
        self._report = report
        self._lmtp = lmtp

    async def on_data(self, session: trio_smtp.Session, envelope: trio_smtp.Envelope, body: trio_smtp.Body) -> str:
        """Put the message into the outbox."""
        queue_id = str(await self._inner.on_data(session, envelope, body))
        self._report(received(session, envelope, queue_id=queue_id, size=body.received, lmtp=self._lmtp))
        return queue_id
