"""Draw the tables of the code into docs/architecture.md.

``python docs/draw_states.py`` prints what is to be there, ``--write`` puts it between the page's markers.
tests/test_architecture.py fails when the page and the code differ.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "architecture.md"
PACKAGE = ROOT / "trio_smtp"
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from trio_smtp._pool.attempt import AttemptState  # noqa: E402
from trio_smtp._pool.worker import WorkerState  # noqa: E402
from trio_smtp._protocol.client import protocol as client  # noqa: E402
from trio_smtp._protocol.client.transaction import Left  # noqa: E402
from trio_smtp._protocol.server.commands import COMMANDS  # noqa: E402
from trio_smtp._protocol.server.states import COMMAND_STATES, MOVES, Occurrence, State  # noqa: E402
from trio_smtp._server.shutdown import ACTIONS, Phase, Shutdown  # noqa: E402
from trio_smtp._wire.waits import Waiting  # noqa: E402

# These three are changed by methods and not looked up in a table of the code. tests/test_architecture.py records what
# happens while messages are sent, and compares it with this.
Edge = tuple[Enum, Enum]
WORKER: Mapping[Edge, str] = {
    (WorkerState.OPENING, WorkerState.BUSY): "connected",
    (WorkerState.BUSY, WorkerState.RESTING): "nothing to take",
    (WorkerState.RESTING, WorkerState.PARKED): "the caller has run",
    (WorkerState.RESTING, WorkerState.BUSY): "wake()",
    (WorkerState.PARKED, WorkerState.BUSY): "wake(), or the connection is over",
}
ATTEMPT: Mapping[Edge, str] = {
    (AttemptState.WAITING, AttemptState.BEGUN): "attach(), detach()",
    (AttemptState.BEGUN, AttemptState.DONE): "finish()",
    (AttemptState.WAITING, AttemptState.DONE): "finish(), never begun",
}
WAITS: Mapping[Edge, str] = {
    (Waiting.NOTHING, Waiting.RECEIVE): "receive(), a handshake",
    (Waiting.RECEIVE, Waiting.NOTHING): "octets, expire(), interrupt(), abandon()",
    (Waiting.NOTHING, Waiting.SEND): "send() that the socket does not take at once",
    (Waiting.SEND, Waiting.NOTHING): "sent, expire(), abandon()",
}


# ---- rooms


def modules() -> list[Path]:
    """Every module of the package but the version, the packages' own pages first."""
    paths = [path for path in PACKAGE.rglob("*.py") if path.stem != "_version"]
    return sorted(paths, key=lambda path: (path.parent, path.stem != "__init__", path.stem))


def first_sentence(path: Path) -> str:
    """What a module says of itself, by its opening comment or its docstring."""
    text = path.read_text(encoding="utf-8")
    match = re.match(r'(?:#[^\n]*\n)+|"""(.*?)"""', text, re.DOTALL)
    assert match is not None, f"{path} does not say what it is for"
    words = match[1] or "\n".join(line.removeprefix("#").strip() for line in match[0].splitlines())
    sentence, *_ = re.split(r"(?<=[.:])\s*\n\s*\n|(?<=\S\.)\s+(?=[A-Za-z`])", words, maxsplit=1)
    return " ".join(sentence.split()).rstrip(":.").replace("|", "\\|") + "."


def draw_rooms() -> str:
    """A list for each package, one line for each module."""
    lines: list[str] = []
    for path in modules():
        folder = path.parent.relative_to(ROOT).as_posix()
        if path.stem == "__init__":
            lines += ["", f"**{folder}** – {first_sentence(path)}", ""]
        else:
            lines.append(f"* `{path.name}` – {first_sentence(path)}")
    return "\n".join(lines).strip()


# ---- pictures


def picture(edges: Iterable[tuple[str, str, str]], *, start: str = "") -> str:
    """A mermaid diagram of (from, to, label); labels of the same way are joined."""
    ways: dict[tuple[str, str], list[str]] = defaultdict(list)
    for source, target, label in edges:
        if label not in ways[source, target]:
            ways[source, target].append(label)
    lines = [f"    [*] --> {start}"] if start else []
    lines += [f"    {source} --> {target}: {', '.join(labels)}" for (source, target), labels in ways.items()]
    return "\n".join(["```mermaid", "stateDiagram-v2", *lines, "```"])


def table(heading: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of Markdown."""
    lines = [f"| {' | '.join(cells)} |" for cells in (heading, *rows)]
    return "\n".join([lines[0], "|---" * lines[0].count(" | ") + "|---|", *lines[1:]])


def _words(member: Occurrence) -> str:
    return member.name.lower().replace("_", " ")


def draw_server() -> str:
    """The states of a server's session. What leads back to the same state is in the table of commands."""
    edges = []
    for state in State:
        rows = [row for row in COMMANDS if state in row.allowed_in and row.after(state) is not state]
        edges += [(state.name, row.after(state).name, row.verb) for row in rows]
        for occurrence, target in MOVES[state].items():
            if target is None:
                before = [each for each in COMMAND_STATES if (each.name, state.name) in {edge[:2] for edge in edges}]
                edges += [(state.name, each.name, _words(occurrence)) for each in before]
            elif target is not state:
                edges.append((state.name, target.name, _words(occurrence)))
    return picture(edges, start=State.CONNECTED.name)


def draw_commands() -> str:
    """The table of commands: where each is allowed and where its success leads, or the code of its refusal."""
    rows = []
    for row in COMMANDS:
        cells = []
        for state in COMMAND_STATES:
            if state not in row.allowed_in:
                cells.append(str(row.misplaced[state].code))
            else:
                cells.append("stays" if row.after(state) is state else f"→ {row.after(state).name}")
        rows.append([row.verb, row.keyword or "", *cells, row.event.__name__ if row.event else ""])
    return table(["command", "keyword", *(state.name for state in COMMAND_STATES), "event"], rows)


def draw_client() -> str:
    """The states of a client's session: commands, then what the replies say where a group ends."""
    edges = []
    for state, row in client._NEXT.items():
        edges += [(state.name, target.name, verb.name) for verb, target in row.items() if target is not state]
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for verb, outcomes in client._REPLIES.items():
        for target in dict.fromkeys(each for each in outcomes.values() if each is not None):
            digits = " or ".join(f"{digit}xx" for digit, each in outcomes.items() if each is target)
            groups[target.name, digits].append(verb.name)
    edges += [
        (client.State.WAIT.name, target, f"{digits} to {'/'.join(verbs)}") for (target, digits), verbs in groups.items()
    ]
    edges += [
        (source.name, target.name, occurrence.value)
        for occurrence, row in client._MOVES.items()
        for source, target in row.items()
        if row is not client._CLOSING and source is not target
    ]
    return picture(edges, start=client.State.WAIT.name)


def draw_refusals() -> str:
    """Where the refusal that ends a group leads, by what the refusals leave open at the server."""
    rows = [
        ["/".join(verb.name for verb, each in client._LEFT.items() if each is row), *(row[left].name for left in Left)]
        for row in {id(row): row for row in client._LEFT.values()}.values()
    ]
    return table(["refused last", *(left.value for left in Left)], rows)


def draw_shutdown() -> str:
    """What each step of a shutdown does in each phase of a connection."""
    steps = [step for step in Shutdown if step in ACTIONS]
    rows = [
        [phase.name, phase.value, *(ACTIONS[step][phase].name.lower().replace("_", " ") for step in steps)]
        for phase in Phase
    ]
    return table(["phase", "", *(step.name for step in steps)], rows)


def _draw(edges: Mapping[Edge, str], start: Enum) -> str:
    assert {state for edge in edges for state in edge} == set(type(start)), f"{type(start).__name__} has other members"
    return picture(((source.name, target.name, label) for (source, target), label in edges.items()), start=start.name)


DRAWINGS: Mapping[str, Callable[[], str]] = {
    "rooms": draw_rooms,
    "server": draw_server,
    "commands": draw_commands,
    "client": draw_client,
    "refusals": draw_refusals,
    "shutdown": draw_shutdown,
    "worker": lambda: _draw(WORKER, WorkerState.OPENING),
    "attempt": lambda: _draw(ATTEMPT, AttemptState.WAITING),
    "waits": lambda: _draw(WAITS, Waiting.NOTHING),
}


def draw(text: str) -> str:
    """The page with everything between its markers drawn anew."""
    for name, drawing in DRAWINGS.items():
        begin, end = f"<!-- drawn: {name} -->\n", f"\n<!-- end: {name} -->"
        before, found, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not (found and closed):
            raise ValueError(f"the page has no place for {name}")
        text = f"{before}{begin}{drawing()}{end}{after}"
    return text


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        PAGE.write_text(draw(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        for name, drawing in DRAWINGS.items():
            print(f"\n{name}\n\n{drawing()}")
