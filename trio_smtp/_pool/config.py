# How a pool behaves, as one frozen object. Pure data, checked when made.
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from .._protocol.checks import check_choice, check_count, check_function, check_seconds
from .trace import TraceEvent


@dataclass(frozen=True, kw_only=True)
class PoolConfig:
    """How a pool behaves. Every field is checked when the object is made. Times are in seconds.

    Attributes:
        max_connections: connections at one time.
        min_idle: connections that are kept open even if there is nothing to send.
        max_messages: messages on one connection, after which it is closed; ``None``: no limit.
        idle_timeout: how long a connection is kept open without work; ``None``: for ever.
        max_age: how long a connection is used, less up to a tenth at random, so that they do not all end at once;
            ``None``: for ever.
        max_waiting: callers that may wait in line, with no connection being opened for them; the next gets
            ``PoolFullError``. ``None``: no limit.
        rate_limit: ``(n, seconds)``: at most n messages start in any window of that length, over all connections.
        connect_retries: how often a message is tried again if nothing can have been accepted: the server could not be
            reached, or the connection was lost before the end of the message.
        retry_delay: before the first such try; doubled for each further one, and shortened by up to a half at random.
        retry_temporary: how often recipients that the server refuses with a 4xx are tried again.
        on_unknown: what to do when the connection is lost after the end of the message and before the reply:
            ``"raise"``, or ``"retry"`` and so perhaps deliver it twice (``SendResult.maybe_duplicate``).
        pipeline_depth: messages in flight on one connection, where the server offers PIPELINING; only one with
            ``rate_limit``.
        host_retry: how long a host that could not be reached is avoided while there are others.
        trace: called with a :class:`TraceEvent` for each event; must be synchronous and quick. What it
            raises is logged, the first time.

    Raises:
        ValueError, TypeError: naming the field.
    """

    max_connections: int = 5
    min_idle: int = 0
    max_messages: int | None = 100
    idle_timeout: float | None = 60
    max_age: float | None = None
    max_waiting: int | None = None
    rate_limit: tuple[int, float] | None = None
    connect_retries: int = 3
    retry_delay: float = 1
    retry_temporary: int = 0
    on_unknown: Literal["raise", "retry"] = "raise"
    pipeline_depth: int = 1
    host_retry: float = 60
    trace: Callable[[TraceEvent], None] | None = None

    def __post_init__(self) -> None:
        check_count("max_connections", self.max_connections, optional=False)
        check_count("min_idle", self.min_idle, least=0, optional=False)
        if self.min_idle > self.max_connections:
            raise ValueError(f"min_idle must be at most max_connections, not {self.min_idle}")
        check_count("max_messages", self.max_messages)
        check_seconds("idle_timeout", self.idle_timeout)
        check_seconds("max_age", self.max_age)
        check_count("max_waiting", self.max_waiting, least=0)
        if self.rate_limit is not None:
            if not isinstance(self.rate_limit, tuple) or len(self.rate_limit) != 2 or self.rate_limit[1] is None:
                raise TypeError(f"rate_limit is (messages, seconds) or None, not {self.rate_limit!r}")
            check_count("rate_limit", self.rate_limit[0], optional=False)
            check_seconds("rate_limit", self.rate_limit[1])
        check_count("connect_retries", self.connect_retries, least=0, optional=False)
        check_count("retry_temporary", self.retry_temporary, least=0, optional=False)
        for name in ("retry_delay", "host_retry"):
            check_seconds(name, getattr(self, name), zero=True, optional=False)
        check_choice("on_unknown", self.on_unknown, ("raise", "retry"))
        check_count("pipeline_depth", self.pipeline_depth, optional=False)
        check_function("trace", self.trace)
