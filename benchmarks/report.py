# The results as a page of Markdown and as JSON.
from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from .results import Row, ours_among, ratio
from .targets import verdicts

RESULTS = Path(__file__).parent / "results"


def line_of(row: Row, ours: Row | None) -> str:
    """The line of one contender on the terminal."""
    if not row.samples:
        return f"  {row.contender:22} {row.failure or 'no figure'}"
    low, high = row.range
    wall = "" if row.wall is None else f"  wall {row.wall:9.1f}"
    times = ratio(row, ours)
    beside = "" if times is None or row is ours else f"  {times:6.2f} × ours"
    return f"  {row.contender:22} {row.median:9.1f} {row.unit} ({low:.1f} to {high:.1f}){wall}{beside}"


def markdown(facts: Mapping[str, str], titles: Mapping[str, str], rows: Sequence[Row]) -> str:
    """The page as Markdown."""
    out = ["# Measured", ""]
    out += [f"* {name}: {value}" for name, value in facts.items()]
    out += ["", "## Targets", "", "| work | | at most | measured | |", "|---|---|--:|--:|---|"]
    for verdict in verdicts(rows):
        target = verdict.target
        measured = "–" if verdict.measured is None else f"{verdict.measured:.2f}"
        limit = f"{target.limit:g} {verdict.unit}"
        out.append(f"| {titles[target.work]} | {verdict.beside} | {limit} | {measured} | {verdict.word} |")
    for work, title in titles.items():
        chosen = [row for row in rows if row.work == work]
        if not chosen:
            continue
        unit = chosen[0].unit
        out += ["", f"## {title}", "", f"| | {unit} | range | wall, µs | × ours |", "|---|--:|--:|--:|--:|"]
        out += [_table_line(row, ours_among(chosen)) for row in chosen]
    return "\n".join([*out, ""])


def _table_line(row: Row, ours: Row | None) -> str:
    if not row.samples:
        return f"| {row.contender} | – | {row.failure} | | |"
    low, high = row.range
    wall = "" if row.wall is None else f"{row.wall:.0f}"
    times = ratio(row, ours)
    beside = "" if times is None else f"{times:.2f}"
    return f"| {row.contender} | {row.median:.1f} | {low:.1f} to {high:.1f} | {wall} | {beside} |"


def save(name: str, facts: Mapping[str, str], titles: Mapping[str, str], rows: Sequence[Row]) -> Path:
    """Write both files. Return the path of the Markdown one."""
    RESULTS.mkdir(exist_ok=True)
    page = RESULTS / f"{name}.md"
    page.write_text(markdown(facts, titles, rows), encoding="utf-8")
    data = {
        "facts": dict(facts),
        "titles": dict(titles),
        "rows": [
            {
                "work": row.work,
                "contender": row.contender,
                "unit": row.unit,
                "figures": [round(sample.figure, 3) for sample in row.samples],
                "wall": [None if sample.wall is None else round(sample.wall, 1) for sample in row.samples],
                "failure": row.failure,
            }
            for row in rows
        ],
    }
    (RESULTS / f"{name}.json").write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return page
