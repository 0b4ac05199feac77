# The results as pictures: ``python -m benchmarks.plots results/NAME.json`` writes NAME-servers.png and the other
# pictures.
#
# A panel for each workload, a bar for each contender: ours in colour, the floors pale. Every axis starts at zero.
from __future__ import annotations

import json
import math
import statistics
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from .results import short

PICTURES = {
    "overview": ("kept-20", "each", "1mib", "pool-20", "client-1mib", "client-recipients"),
    "servers": ("kept-1", "kept-20", "kept-200", "kept-1000", "each", "1mib", "25mib", "recipients", "pipelined"),
    "tls": ("tls-kept-20", "tls-1mib", "tls-each", "tls-resumed", "starttls-each", "idle-tls"),
    "clients": ("client-kept-1", "pool-20", "client-1mib", "client-1mib-streamed", "client-recipients", "pool-20-ours"),
    "postfix": ("client-1-postfix", "pool-20-postfix", "client-1mib-postfix"),
    "waiting": ("trips-pipelining", "trips-chunking", "idle", "1gib-in", "1gib-out", "noop-p99"),
}
COLUMNS = 3
TITLE = 48  # letters in a line of a panel's title
OURS, FLOOR, OTHERS = "#2a6f97", "#d9d9d9", "#9aa5b1"
Rows = Sequence[Mapping[str, Any]]  # as in the JSON file


def draw(name: str, data: Mapping[str, Any], target: Path) -> bool:
    """Draw one picture. Return whether there was anything to draw."""
    drawn = {row["work"] for row in data["rows"] if row["figures"]}
    works = [work for work in PICTURES[name] if work in drawn]
    if not works:
        return False
    lines = math.ceil(len(works) / COLUMNS)
    columns = min(COLUMNS, len(works))
    figure, grid = plt.subplots(lines, columns, figsize=(5.2 * columns, 3.3 * lines), squeeze=False)
    for axes, work in zip(grid.flat, works, strict=False):
        panel(axes, data["titles"][work], [row for row in data["rows"] if row["work"] == work and row["figures"]])
    for axes in list(grid.flat)[len(works) :]:
        axes.set_axis_off()
    figure.text(0.01, 0.005, f"{data['facts']['machine']}; {data['facts']['when']}", fontsize=7, color="#555555")
    figure.tight_layout(rect=(0, 0.02, 1, 1))
    figure.savefig(target, dpi=110)
    plt.close(figure)
    return True


def panel(axes: Axes, title: str, rows: Rows) -> None:
    """Draw the panel of one workload."""
    names = [row["contender"] for row in rows]
    medians = [statistics.median(row["figures"]) for row in rows]
    spans = [
        [middle - min(row["figures"]) for row, middle in zip(rows, medians, strict=True)],
        [max(row["figures"]) - middle for row, middle in zip(rows, medians, strict=True)],
    ]
    colours = [colour(name) for name in names]
    axes.barh(range(len(rows)), medians, color=colours, xerr=spans, error_kw={"lw": 0.8, "ecolor": "#444444"})
    most = max(max(row["figures"]) for row in rows) or 1
    for place, (row, middle) in enumerate(zip(rows, medians, strict=True)):
        axes.text(max(row["figures"]) + most * 0.02, place, short(middle), va="center", fontsize=8)
    axes.set_yticks(range(len(rows)), names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, most * 1.18)
    axes.set_title(textwrap.fill(title, TITLE), fontsize=9, loc="left")
    axes.set_xlabel(rows[0]["unit"] + (" per message" if "CPU" in rows[0]["unit"] else ""), fontsize=8)
    axes.tick_params(axis="x", labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def colour(name: str) -> str:
    """The colour of a contender: ours, a floor, or another."""
    if name.startswith("trio_smtp"):
        return OURS
    return FLOOR if name.startswith("floor") else OTHERS


def main() -> None:
    """Draw all pictures that the results have figures for."""
    source = Path(sys.argv[1])
    data = json.loads(source.read_text(encoding="utf-8"))
    for name in PICTURES:
        target = source.with_name(f"{source.stem}-{name}.png")
        if draw(name, data, target):
            print("drawn:", target)


if __name__ == "__main__":
    main()
