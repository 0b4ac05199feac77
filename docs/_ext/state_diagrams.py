"""Draws the ``mermaid`` state diagrams of Markdown pages with Graphviz, so that the site needs no script.

GitHub draws such blocks by itself. Only what ``docs/draw_states.py`` writes is understood: lines of the form
``A --> B`` or ``A --> B: label``, with ``[*]`` for the start.
"""

from __future__ import annotations

import html
import re
from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx
from sphinx.ext.graphviz import graphviz

ARROW = re.compile(r"(\[\*\]|\w+) --> (\[\*\]|\w+)(?:: (.+))?")
STYLE = """
    rankdir=TB; bgcolor="transparent";
    node [shape=box, style="rounded,filled", fillcolor="#eef2ff", color="#64748b", fontname="sans-serif", fontsize=11];
    edge [color="#64748b", fontcolor="#64748b", fontname="sans-serif", fontsize=10];
    start [shape=circle, label="", width=0.15, style=filled, fillcolor="#64748b"];
"""


def to_dot(lines: list[str]) -> str:
    """The same diagram in Graphviz's language.

    Raises:
        ValueError: a line is not an arrow.
    """
    arrows: list[str] = []
    for line in lines:
        if line.strip() in ("", "stateDiagram-v2"):
            continue
        match = ARROW.fullmatch(line.strip())
        if match is None:
            raise ValueError(f"not an arrow: {line!r}")
        tail, head, label = match.groups()
        ends = " -> ".join('"start"' if end == "[*]" else f'"{end}"' for end in (tail, head))
        broken = "<br/>".join(f"&#160;{html.escape(part)}&#160;" for part in _broken(label or ""))
        arrows.append(f"    {ends} [label=<{broken}>];" if label else f"    {ends};")
    space = "nodesep=0.6;\n" if len(arrows) < 8 else ""  # so that labels of a small diagram do not touch
    return "digraph {" + STYLE + space + "\n".join(arrows) + "\n}\n"


def _broken(label: str, width: int = 24) -> list[str]:
    """A long list of commands on several lines."""
    lines = [""]
    for word in label.split(" "):
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


class Mermaid(Directive):  # type: ignore[misc]
    has_content = True
    option_spec: ClassVar[dict[str, object]] = {}

    def run(self) -> list[nodes.Node]:
        node = graphviz()
        node["code"] = to_dot(list(self.content))
        node["options"] = {}
        node["alt"] = "state diagram: " + "; ".join(line.strip() for line in self.content if "-->" in line)
        return [node]


def setup(app: Sphinx) -> dict[str, bool]:
    app.setup_extension("sphinx.ext.graphviz")
    app.add_directive("mermaid", Mermaid)
    return {"parallel_read_safe": True}
