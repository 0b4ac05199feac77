# How an outbox behaves, as one frozen object.
from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from ._trace import OutboxEvent

_ADDRESS: Final = re.compile(r"[^\s@<>()\[\],;:\"\\]+@[A-Za-z0-9._:\[\]-]{1,255}").fullmatch


@dataclass(frozen=True, kw_only=True)
class OutboxConfig:
    """How an outbox behaves. Times are seconds.

    Attributes:
        retry_delays: between tries; the last repeats.
        give_up_after: from ``put``, or from its ``not_before``; then what is still queued expires (RFC 5321 section
            4.5.4.1: at least four or five days).
        lease: how long a worker that is not heard of keeps what it is sending.
        on_doubt: what may have been delivered is held for a person (``"hold"``), or sent again (``"retry"``).
        keep_done: how long settled entries are kept, and their keys.
        max_size: octets of one message.
        rate_limit: ``(messages, seconds)``: never more starts in any window of that length, over all workers.
        domain_rate_limit: the same for the recipients' domains, each by itself.
        report_from: the address in From of delivery reports (RFC 3464); its domain is the name of the reporting server.
            A worker with one tells the sender of an entry, by a report in the same outbox, which of its recipients were
            refused, or have expired. ``None``: no reports.
        trace: called with each :class:`OutboxEvent`; synchronous. What it raises is logged, once, and goes no further.

    Raises:
        TypeError, ValueError: a value of the wrong kind, or out of range.
    """

    retry_delays: tuple[float, ...] = (60, 300, 900, 3600, 14400)
    give_up_after: float = 432000
    lease: float = 60
    on_doubt: Literal["hold", "retry"] = "hold"
    keep_done: float = 86400
    max_size: int = 64 * 1024 * 1024
    rate_limit: tuple[int, float] | None = None
    domain_rate_limit: tuple[int, float] | None = None
    report_from: str | None = None
    trace: Callable[[OutboxEvent], None] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "retry_delays", tuple(self.retry_delays))
        if not self.retry_delays:
            raise ValueError("retry_delays must have at least one delay")
        for delay in self.retry_delays:
            _check("retry_delays", delay, zero=True)
        _check("give_up_after", self.give_up_after, zero=True)
        _check("lease", self.lease)
        _check("keep_done", self.keep_done, zero=True)
        if isinstance(self.max_size, bool) or not isinstance(self.max_size, int):
            raise TypeError(f"max_size is a number of octets, not {self.max_size!r}")
        _check("max_size", self.max_size)
        if self.on_doubt not in ("hold", "retry"):
            raise ValueError(f"on_doubt is 'hold' or 'retry', not {self.on_doubt!r}")
        for name in ("rate_limit", "domain_rate_limit"):
            limit = getattr(self, name)
            if limit is not None:
                messages, seconds = limit
                if isinstance(messages, bool) or not isinstance(messages, int) or messages < 1:
                    raise ValueError(f"{name} is (messages, seconds) with at least one message, not {limit!r}")
                _check(name, seconds)
        if self.report_from is not None and not _ADDRESS(self.report_from):
            raise ValueError(f"report_from is an address such as postmaster@example.com, not {self.report_from!r}")
        if self.trace is not None and not callable(self.trace):
            raise TypeError(f"trace is a function, not {self.trace!r}")


def _check(name: str, value: float, *, zero: bool = False) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} is a number, not {value!r}")
    if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
        raise ValueError(f"{name} must be {'at least 0' if zero else 'more than 0'} and finite, not {value!r}")
