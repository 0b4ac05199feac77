# The figures of rounds, and their medians and ratios.
from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Sample:
    """The figures of one contender in one round.

    Attributes:
        figure: the main figure; microseconds of CPU time per message, unless the row's unit says otherwise.
        wall: microseconds of wall time per message.
    """

    figure: float
    wall: float | None = None


@dataclass
class Row:
    """The rounds of one contender in one workload.

    Attributes:
        unit: of the figures: ``"µs CPU"``, ``"KiB"``, ``"MiB"``, ``"ms"``, ``"round trips"``.
        failure: why there are no figures.
    """

    work: str
    contender: str
    unit: str = "µs CPU"
    samples: list[Sample] = field(default_factory=list)
    failure: str = ""

    @property
    def median(self) -> float:
        """The median of the main figures."""
        return statistics.median(sample.figure for sample in self.samples)

    @property
    def range(self) -> tuple[float, float]:
        """The minimum and the maximum."""
        figures = [sample.figure for sample in self.samples]
        return min(figures), max(figures)

    @property
    def wall(self) -> float | None:
        """The median of the wall times."""
        walls = [sample.wall for sample in self.samples if sample.wall is not None]
        return statistics.median(walls) if walls else None


def ours_among(rows: Sequence[Row]) -> Row | None:
    """The first row of ours; the others are compared with it."""
    return next((row for row in rows if row.contender.startswith("trio_smtp")), None)


def ratio(one: Row | None, other: Row | None) -> float | None:
    """The median of the rounds' ratios. The two of one round ran shortly after each other, so drift cancels out."""
    if one is None or other is None or not one.samples or not other.samples:
        return None
    pairs = [(mine.figure, yours.figure) for mine, yours in zip(one.samples, other.samples, strict=False)]
    return statistics.median(mine / yours if yours else float("inf") for mine, yours in pairs)


def short(figure: float) -> str:
    """A figure with a sensible number of digits."""
    return f"{figure:,.0f}" if figure >= 100 else f"{figure:.1f}" if figure >= 1 else f"{figure:.2f}"
