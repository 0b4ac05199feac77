# Whether a message is tried again, and when: only if nothing can have been accepted, unless `on_unknown` allows it.
from __future__ import annotations

import random
import socket
import ssl
from typing import Final

from .._client.report import DeliveryReport
from .._protocol.errors import (
    AuthenticationError,
    ConnectError,
    ConnectionLostError,
    Delivery,
    RemoteProtocolError,
    SMTPError,
    SMTPTimeoutError,
    Stage,
    TLSError,
    UnsupportedAuthError,
)
from .config import PoolConfig

DEAD: Final = (ConnectionLostError, SMTPTimeoutError, RemoteProtocolError)  # what a dead connection may raise
_OF_THE_WIRE: Final = (ConnectError, ConnectionLostError, SMTPTimeoutError)


class Retry:
    """The tries of one message."""

    __slots__ = ("_config", "_refusals", "_tries")

    def __init__(self, config: PoolConfig) -> None:
        self._config: PoolConfig = config
        self._tries: int = 0  # after an error
        self._refusals: int = 0  # tries after a refusal

    def __repr__(self) -> str:
        return f"<Retry: {self._tries} after errors, {self._refusals} after refusals>"

    def after_error(self, error: Exception, report: DeliveryReport) -> float | None:
        """Seconds to wait before the next try after this error; ``None``: there is none."""
        if not isinstance(error, SMTPError) or report.is_caller_error(error):
            return None
        if report.is_spent or self._tries >= self._config.connect_retries:
            return None
        if error.delivery is Delivery.UNKNOWN:
            if self._config.on_unknown != "retry":
                return None
        elif not is_passing(error):
            return None
        self._tries += 1
        return self._delay(self._tries)

    def after_refusal(self, report: DeliveryReport) -> float | None:
        """The same after a 4xx to recipients or to the whole message."""
        if self._refusals >= self._config.retry_temporary or report.is_spent or not report.has_temporary:
            return None
        self._refusals += 1
        return self._delay(self._refusals)

    def _delay(self, tries: int) -> float:
        # Jitter, so that messages that failed together do not come back together.
        return self._config.retry_delay * 2.0 ** (tries - 1) * random.uniform(0.5, 1)


def is_of_the_wire(error: SMTPError) -> bool:
    """Whether the server could not be reached, refused the connection or went away: no fault of the message."""
    if not isinstance(error, TLSError):
        return isinstance(error, _OF_THE_WIRE)
    if error.reply is not None:
        return error.reply.is_temporary  # RFC 3207 §4: 454, for now
    cause = error.__cause__  # none: STARTTLS was not offered, or worse
    return cause is not None and (isinstance(cause, ssl.SSLEOFError) or not isinstance(cause, ssl.SSLError))


def is_passing(error: SMTPError) -> bool:
    """Whether nothing was sent, and another try may succeed."""
    if error.delivery is not Delivery.NOT_SENT:
        return False
    if isinstance(error, AuthenticationError) and not isinstance(error, UnsupportedAuthError):
        return error.reply is not None and error.reply.is_temporary
    if not is_of_the_wire(error):
        return False
    cause = error.__cause__
    if isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_NONAME:
        return False  # there is no such host
    return error.reply is None or not error.reply.is_permanent


def farewell_at(report: DeliveryReport) -> Stage | None:
    """Where the message was when the server ended the session with a 421; ``None``: it did not."""
    transaction = report.transaction
    return None if transaction is None or transaction.farewell is None else transaction.stage
