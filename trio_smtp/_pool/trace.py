# What happens in a pool, as values: for logs, metrics and tests. No event is made unless a function was given for it.
# What the function raises is logged, and is never taken for something that happened to a message or a connection.
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import trio

from .._client.log import logger

TraceName: TypeAlias = Literal["wait", "tls", "auth", "connect", "send", "retry", "retire", "alone"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceEvent:
    """One thing that happened in a pool.

    Attributes:
        name: ``"wait"`` (a message was given to a connection after waiting for one), ``"tls"`` and
            ``"auth"`` (this part of connecting is over), ``"connect"`` (connecting as a whole is), ``"send"`` (a
            message's transaction is over), ``"retry"`` (a message will be tried again after `seconds`), ``"retire"`` (a
            connection is closed; `seconds` is its age), ``"alone"`` (a host does not bear envelopes behind the end of
            a message, and has one message at a time from now on).
        seconds: how long it took.
        connection: which connection, counted from 1; 0 for none.
        detail: the host, or why a connection was retired.
        error: what went wrong, or ``None``; a refusal is an answer, and no error here.
    """

    name: TraceName
    seconds: float
    connection: int = 0
    detail: str = ""
    error: BaseException | None = None


class Tracer:
    """Makes events for ``PoolConfig.trace``.

    Args:
        function: gets them; ``None``: none is made.

    Attributes:
        is_on: there is a function.
    """

    __slots__ = ("_function", "_has_failed", "is_on")

    def __init__(self, function: Callable[[TraceEvent], None] | None) -> None:
        self._function: Callable[[TraceEvent], None] | None = function
        self._has_failed: bool = False
        self.is_on: bool = function is not None

    def tell(
        self,
        name: TraceName,
        started: float,
        connection: int = 0,
        *,
        detail: str = "",
        error: BaseException | None = None,
    ) -> None:
        """Tell of something that began at `started` and is over."""
        if self._function is not None:
            self.note(name, trio.current_time() - started, connection, detail=detail, error=error)

    def note(
        self,
        name: TraceName,
        seconds: float = 0.0,
        connection: int = 0,
        *,
        detail: str = "",
        error: BaseException | None = None,
    ) -> None:
        """Tell of something that takes so long, or no time."""
        if self._function is None:
            return
        try:
            self._function(TraceEvent(name=name, seconds=seconds, connection=connection, detail=detail, error=error))
        except Exception:
            if not self._has_failed:  # it may well fail for each message
                logger.exception("pool: the trace function failed; further failures are not logged")
            self._has_failed = True
