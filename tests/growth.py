"""Whether work grows with the length of what it is about, and not with its square. In processor time."""

from __future__ import annotations

import time
from collections.abc import Callable

FACTOR = 8  # of the length
ALLOWED = 24.0  # of the time; a square makes 64 of it
NOISE = 0.02  # seconds of processor time


def seconds_of(work: Callable[[], object]) -> float:
    """Of processor time, at best."""
    best = float("inf")
    for _ in range(3):
        began = time.process_time()
        work()
        best = min(best, time.process_time() - began)
        if best < NOISE:
            break
    return best


def assert_no_square(work: Callable[[int], object], size: int) -> None:
    """Work for `size`, and for `FACTOR` times that, takes times that are in no square's relation."""
    short, long = seconds_of(lambda: work(size)), seconds_of(lambda: work(size * FACTOR))
    assert long < ALLOWED * max(short, NOISE), f"{short:.3f} s for {size}, {long:.3f} s for {FACTOR} times that"
