# The targets of trio_smtp: ratios of two contenders' figures within one run, or limits; and whether they are met.
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .clients import OUR_CLIENT, OUR_DEPTH, OUR_POOL, PIPELINED
from .results import Row, ratio
from .servers import FLOOR, OURS

TRIP = 1.08  # measured for one round trip: the relay sleeps whole milliseconds, and the work takes time too


@dataclass(frozen=True)
class Target:
    """Our figure may be at most `limit` times the other's.

    Attributes:
        work: the workload.
        other: the contender to compare with; if ``""``, `limit` is a limit of the figure itself.
        limit: the maximum.
        ours: our contender.
        base: another workload: compare the growth of the figures from that workload to this one.
    """

    work: str
    other: str
    limit: float
    ours: str = OURS
    base: str = ""


@dataclass(frozen=True)
class Verdict:
    """A target and the measured value, or ``None`` if a figure is missing."""

    target: Target
    measured: float | None
    unit: str = "×"

    @property
    def word(self) -> str:
        """The verdict in a word."""
        if self.measured is None:
            return "not measured"
        return "ok" if self.measured <= self.target.limit else "missed"

    @property
    def beside(self) -> str:
        """The two contenders that are compared."""
        target = self.target
        if not target.other:
            return target.ours
        return f"{target.ours} : {target.other}" + (", growth" if target.base else "")

    def __str__(self) -> str:
        measured = "–" if self.measured is None else f"{self.measured:.3f}"
        return f"{self.beside}: {measured} {self.unit}, at most {self.target.limit:g}: {self.word}"


TARGETS = (
    Target("kept-20", "aiosmtpd", 0.25),
    Target("kept-20", "smtp-server", 1.0),
    Target("kept-20", FLOOR, 1.25),
    Target("kept-1000", FLOOR, 1.3, base="kept-20"),
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
    Target("pool-20", "aiosmtplib", 0.28, OUR_POOL),
    Target("pool-20", "nodemailer pool", 0.25, OUR_POOL),
    Target("pool-20", "smtplib", 0.6, OUR_POOL),
    Target("pool-20", PIPELINED, 1.6, OUR_POOL),
    Target("client-1mib", "aiosmtplib", 0.13, OUR_CLIENT),
    Target("client-1mib", "nodemailer pool", 0.33, OUR_CLIENT),
    Target("client-1mib", PIPELINED, 2.8, OUR_CLIENT),
    Target("client-1mib-streamed", "aiosmtplib", 0.15, OUR_CLIENT),
    Target("client-1mib-streamed", "nodemailer pool", 0.33, OUR_CLIENT),
    Target("client-1mib-streamed", PIPELINED, 2.8, OUR_CLIENT),
    Target("trips-pipelining", "", 2 * TRIP, OUR_POOL),
    Target("trips-pipelining", "", 1 * TRIP, OUR_DEPTH),
    Target("trips-chunking", "", 1 * TRIP, OUR_POOL),
    Target("trips-chunking", "", 0.5, OUR_DEPTH),
    Target("idle", "aiosmtpd", 0.65),
    Target("idle", "", 8),
    Target("idle-tls", FLOOR, 1.1),
    Target("1gib-in", "", 8),
    Target("1gib-out", "", 8, OUR_CLIENT),
    Target("noop-p99", FLOOR, 3),
)


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """Every target whose workload was run."""
    found = {(row.work, row.contender): row for row in rows}
    worked = {work for work, _ in found}
    return [_verdict(target, found) for target in TARGETS if target.work in worked]


def _verdict(target: Target, found: dict[tuple[str, str], Row]) -> Verdict:
    ours = found.get((target.work, target.ours))
    if not target.other:
        if ours is None or not ours.samples:
            return Verdict(target, None)
        return Verdict(target, ours.median, ours.unit)
    measured = ratio(ours, found.get((target.work, target.other)))
    if target.base:
        before = ratio(found.get((target.base, target.ours)), found.get((target.base, target.other)))
        measured = None if measured is None or before is None else measured / before
    return Verdict(target, measured)
