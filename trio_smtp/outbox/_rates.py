# Never more than n starts in any window of s seconds, over all workers: the pool's rule, kept in the store.
#
# The latest n starts of each scope ("" for all, else a domain) are kept as one value that every worker reads and writes
# atomically. Who may not start yet is told how long to wait; those waits are spread at the permitted rate, so that a
# long queue does not come back all at once, only to be sent away again.
from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_MARGIN: Final = 1e-3  # seconds; times are rounded, and "never" means never


@dataclass(frozen=True, slots=True)
class Limit:
    """So many starts in any window of that many seconds."""

    starts: int
    seconds: float


# Scope to the latest starts, and the latest turn that was given to one that had to wait.
Starts = dict[str, tuple[list[float], float]]


def admit(known: Starts, limits: Mapping[str, Limit], now: float) -> tuple[Starts, float]:
    """Count a start in all of these scopes, or in none.

    Returns:
        What is known afterwards, and how many seconds to wait; 0 if the start was counted.
    """
    after = {scope: value for scope, value in known.items() if scope in limits or _is_recent(value, limits, now)}
    turn = now
    for scope, limit in limits.items():
        starts, _ = known.get(scope, ([], 0.0))
        starts = [min(start, now) for start in starts]  # the clock was set back
        if len(starts) >= limit.starts and (free := starts[-limit.starts] + limit.seconds + _MARGIN) > now:
            turn = max(turn, free)
    is_free = turn <= now
    for scope, limit in limits.items():
        starts, given = known.get(scope, ([], 0.0))
        if is_free:
            after[scope] = ([*starts, now][-limit.starts :], given)
        else:
            step = (limit.seconds + 2 * _MARGIN) / limit.starts
            if not now - limit.seconds < given < now + 1_000_000 * limit.seconds:
                given = 0.0  # long ago, or by another clock
            turn = max(turn, given + step)
    if not is_free:
        for scope in limits:
            after[scope] = (known.get(scope, ([], 0.0))[0], turn)
    return after, turn - now


def _is_recent(value: tuple[list[float], float], limits: Mapping[str, Limit], now: float) -> bool:
    longest = max((limit.seconds for limit in limits.values()), default=0.0)
    starts, given = value
    return max([given, *starts]) > now - 2 * longest


def to_json(starts: Starts) -> str:
    """As text to keep."""
    return json.dumps(starts, separators=(",", ":"))


def from_json(text: str | bytes | None) -> Starts:
    """What :func:`to_json` wrote; ``None`` for nothing yet."""
    return {} if text is None else {scope: (starts, given) for scope, (starts, given) in json.loads(text).items()}
