# The handler of `relay`: that of `forward`, which reports each message that the next server has accepted.
from __future__ import annotations

from collections.abc import Callable, Mapping

import trio_smtp

from .handlers import Received, received


class Relaying:
    """The hooks of a handler that relays, with reports.

    Args:
        inner: the handler, as :func:`trio_smtp.forward` makes it.
        report: called for each message that the next server has accepted, before the client gets its reply.
        lmtp: the server speaks LMTP.
    """

    def __init__(self, inner: trio_smtp.Handler, report: Callable[[Received], None], *, lmtp: bool) -> None:
        self._inner = inner
        self._report = report
        self._lmtp = lmtp
        self.on_mail = inner.on_mail
        self.on_rcpt = inner.on_rcpt
        self.on_reset = inner.on_reset
        self.on_close = inner.on_close

    async def on_data(
        self, session: trio_smtp.Session, envelope: trio_smtp.Envelope, body: trio_smtp.Body
    ) -> trio_smtp.Reply | Mapping[str, trio_smtp.Reply | str | None]:
        """Hand the text on; the reply to it is the next server's."""
        answer = await self._inner.on_data(session, envelope, body)
        assert isinstance(answer, trio_smtp.Reply | Mapping)
        if isinstance(answer, trio_smtp.Reply):
            answers: Mapping[str, object] = {each.address: answer for each in envelope.recipients}
        else:
            answers = answer
        accepted = [
            (name, each) for name, each in answers.items() if isinstance(each, trio_smtp.Reply) and each.is_success
        ]
        if accepted:
            recipients, replies = zip(*accepted, strict=True)
            self._report(
                received(
                    session,
                    envelope,
                    size=body.received,
                    lmtp=self._lmtp,
                    recipients=recipients,
                    reply=", ".join(dict.fromkeys(map(str, replies))),
                )
            )
        return answer
