# What trio_smtp has to reach: ratios of medians within one run, and what has become of them.
from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from .results import Row

Rows = Mapping[tuple[str, str], Row]  # by workload and contender

OURS = "trio_smtp"
FLOOR = "floor: SocketStream"


@dataclass(frozen=True)
class Target:
    """Our figure may be at most `limit` times the other's."""

    work: str
    other: str
    limit: float


@dataclass(frozen=True)
class Verdict:
    """A target and what was measured; the ratio is ``None`` where one of the two has no figure."""

    target: Target
    ratio: float | None

    @property
    def word(self) -> str:
        """In one word."""
        if self.ratio is None:
            return "not measured"
        return "ok" if self.ratio <= self.target.limit else "missed"


TARGETS = (
    Target("kept-20", "aiosmtpd", 0.25),
    Target("kept-20", "smtp-server", 1.0),
    Target("kept-20", FLOOR, 1.25),
    Target("each", "aiosmtpd", 0.5),
    Target("each", "smtp-server", 1.0),
    Target("each", FLOOR, 1.3),
    Target("1mib", "aiosmtpd", 0.06),
    Target("1mib", "smtp-server", 0.75),
    Target("1mib", FLOOR, 3.0),
    Target("tls-kept-20", "aiosmtpd", 0.6),
    Target("tls-kept-20", FLOOR, 1.2),
    Target("tls-1mib", "aiosmtpd", 0.12),
    Target("tls-1mib", FLOOR, 1.2),
)


def ratio(ours: Row | None, other: Row | None) -> float | None:
    """The middle of the rounds' ratios: the two of one round ran one after the other, so what drifts cancels out."""
    if ours is None or other is None or not ours.samples or not other.samples:
        return None
    pairs = zip(ours.samples, other.samples, strict=False)
    return statistics.median(one.figure / two.figure for one, two in pairs)


def verdicts(rows: Rows) -> list[Verdict]:
    """Every target whose workload was run."""
    worked = {work for work, _ in rows}
    return [
        Verdict(target, ratio(rows.get((target.work, OURS)), rows.get((target.work, target.other))))
        for target in TARGETS
        if target.work in worked
    ]
