# The handlers of `serve --outbox`: an outbox's handler, with reports and a login.
#
# An outbox can be opened only once the server's tasks run. So the handler is made first, and given the outbox's then.
from __future__ import annotations

from collections.abc import Callable, Mapping

import trio_smtp

from .handlers import Received
from .received import protocol_name


class Queue(trio_smtp.Handler):
    """Puts every message into an outbox, reports it, and answers with its id.

    Args:
        report: called for each message that is durable, before the client gets its reply.
        lmtp: the server speaks LMTP.
    """

    def __init__(self, report: Callable[[Received], None], *, lmtp: bool = False) -> None:
        self._report = report
        self._lmtp = lmtp
        self._inner: trio_smtp.Handler | None = None

    def attach(self, handler: trio_smtp.Handler) -> None:
        """The outbox's handler."""
        self._inner = handler

    async def on_data(self, session: trio_smtp.Session, envelope: trio_smtp.Envelope, body: trio_smtp.Body) -> str:
        """Put the message into the outbox."""
        assert self._inner is not None
        queue_id = str(await self._inner.on_data(session, envelope, body))
        self._report(
            Received(
                queue_id=queue_id,
                sender=envelope.sender.address,
                recipients=tuple(recipient.address for recipient in envelope.recipients),
                size=body.received,
                peer=str(session.peer[0]) if session.peer else "",
                protocol=protocol_name(
                    esmtp=session.esmtp,
                    lmtp=self._lmtp,
                    tls=session.tls is not None,
                    authenticated=session.identity is not None,
                    smtputf8=envelope.sender.smtputf8,
                ),
                identity=None if session.identity is None else str(session.identity),
            )
        )
        return queue_id


class PrivateQueue(Queue):
    """An outbox for clients that log in.

    Args:
        users: name to password.
    """

    def __init__(self, report: Callable[[Received], None], *, users: Mapping[str, str], lmtp: bool = False) -> None:
        super().__init__(report, lmtp=lmtp)
        self._users = dict(users)

    async def on_auth(self, session: trio_smtp.Session, credentials: trio_smtp.Credentials) -> bool:
        """Whether the password is correct. An unknown user takes as long and gets the same reply."""
        return credentials.check_password(self._users.get(credentials.username))
