# What happens in a pool, as values: for logs, metrics and tests. Nothing is made where nobody looks.
from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

TraceName: TypeAlias = Literal["wait", "tls", "auth", "connect", "send", "retry", "retire"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceEvent:
    """One thing that happened in a pool.

    Attributes:
        name: ``"wait"`` (a message was given to a connection after waiting for one), ``"tls"`` and
            ``"auth"`` (this part of connecting is over), ``"connect"`` (connecting as a whole is), ``"send"`` (a
            message's transaction is over), ``"retry"`` (a message will be tried again after `seconds`), ``"retire"`` (a
            connection is closed; `seconds` is its age).
        seconds: how long it took.
        connection: which connection, counted from 1; 0 for none.
        detail: the host, or why a connection was retired.
        error: what went wrong, or ``None``.
    """

    name: TraceName
    seconds: float
    connection: int = 0
    detail: str = ""
    error: BaseException | None = None
