# Workloads and their rounds, in which the contenders take turns.
from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from .environment import Environment
from .process import BenchmarkError
from .report import line_of
from .results import Row, Sample, ours_among

Contenders = dict[str, Callable[[], Sample]]  # each call is one round


class Work(Protocol):
    """A workload.

    Attributes:
        key: its name on the command line and in the results.
        title: a short description.
        unit: of its figures.
        most_rounds: the maximum of rounds.
    """

    @property
    def key(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def unit(self) -> str: ...
    @property
    def most_rounds(self) -> int: ...

    def why_not(self, environment: Environment) -> str | None:
        """Why it cannot run here; ``None`` if it can."""
        ...

    def contenders(self, environment: Environment, share: float) -> AbstractContextManager[Contenders]:
        """Set up the peer; the block's value is the contenders. `share` is the fraction of the messages to send."""
        ...


def compare(work: Work, environment: Environment, *, only: list[str], rounds: int, share: float) -> list[Row]:
    """Run all contenders in turn, once per round."""
    print(f"\n{work.key}: {work.title}", flush=True)
    began = time.monotonic()
    if (why := work.why_not(environment)) is not None:
        print(f"  left out: {why}")
        return []
    with work.contenders(environment, share) as available:
        chosen = {name: measure for name, measure in available.items() if not only or name in only}
        rows = {name: Row(work.key, name, work.unit) for name in chosen}
        for _ in range(min(rounds, work.most_rounds)):
            for name, measure in chosen.items():
                if not rows[name].failure:
                    _take(rows[name], measure)
    found = list(rows.values())
    for row in found:
        print(line_of(row, ours_among(found)))
    print(f"  ({time.monotonic() - began:.0f} s)", flush=True)
    return found


def _take(row: Row, measure: Callable[[], Sample]) -> None:
    try:
        row.samples.append(measure())
    except BenchmarkError as exc:
        row.failure = str(exc)
        row.samples.clear()
