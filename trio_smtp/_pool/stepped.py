# A message in steps through a pool: on a connection that it has for itself, until close().
#
# Guarantee: close() gives the connection back, whatever state it is in, and is to be called once, at the end.
from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Mapping
from typing import Final

import trio

from .._client.refusals import is_about_connection
from .._client.report import SendResult
from .._client.steps import Steps, given_params
from .._protocol.errors import Delivery, SenderRefusedError, Stage
from .._protocol.replies import Reply
from .loan import Loan
from .trace import Fate, Tracer, fate_by


class SteppedMessage:
    """One message; made by ``Pool._begin``, which says MAIL.

    Args:
        loan: its connection.
        steps: what is said on that.
        tracer: is told of the message when its text is over.
        number: which message of the pool it is.
        count: is called then, with the error if it came to one.

    Attributes:
        reply: to MAIL.
        lmtp: the text has a reply for each recipient.
    """

    __slots__ = ("_count", "_loan", "_number", "_started", "_steps", "_tracer", "lmtp", "reply")

    def __init__(
        self, loan: Loan, steps: Steps, tracer: Tracer, number: int, count: Callable[[Exception | None], None]
    ) -> None:
        assert loan.connection is not None
        self._loan: Final = loan
        self._steps: Final = steps
        self._tracer: Final = tracer
        self._number: Final = number
        self._count: Final = count
        self._started = trio.current_time()
        self.lmtp: Final = loan.connection.client.lmtp
        self.reply: Reply | None = None

    def __repr__(self) -> str:
        return f"<SteppedMessage {self._steps!r}>"

    @property
    def accepted(self) -> list[str]:
        """Recipients that the server has accepted."""
        return self._steps.accepted

    @property
    def is_about_connection(self) -> bool:
        """MAIL was refused since the connection has had its share, or its time."""
        if self.reply is None or self.reply.is_success:
            return False
        if self.reply.code == 421:
            return True
        error = SenderRefusedError("", reply=self.reply, stage=Stage.MAIL, delivery=Delivery.REFUSED)
        return is_about_connection(error)

    async def begin(self) -> None:
        """Say MAIL; see :meth:`Steps.mail`."""
        self.reply = await self._steps.mail()

    async def rcpt(self, recipient: str, params: Mapping[str, str | None]) -> Reply:
        """Say RCPT; see :meth:`Steps.rcpt`. What the server does not know of DSN is left out."""
        assert self._loan.connection is not None
        return await self._steps.rcpt(recipient, given_params(params, self._loan.connection.client))

    async def send(self, chunks: AsyncIterable[bytes]) -> SendResult:
        """Send the text; see :meth:`Steps.send`."""
        error: Exception | None = None
        try:
            result = await self._steps.send(chunks)
        except Exception as exc:
            error = exc
            self._tell(exc, fate_by(exc, self._steps.transaction))
            raise
        except BaseException as exc:
            self._tell(exc, fate_by(exc, self._steps.transaction))
            raise
        finally:
            self._count(error)
        self._tell(None, (None, result.reply.code))
        return result

    def _tell(self, error: BaseException | None, fate: Fate) -> None:
        """Tell of the try, and of the whole message, which has no other."""
        assert self._loan.connection is not None
        failure = None if fate[0] is Delivery.REFUSED else error
        connection, number = self._loan.connection.number, self._number
        self._tracer.tell("send", self._started, connection, detail="steps", error=failure, message=number, fate=fate)
        self._tracer.tell("message", self._started, error=failure, message=number, fate=fate)

    def close(self) -> None:
        """Give the connection back. A transaction that is open on it is given up."""
        self._steps.end()
        self._loan.give_back()
