"""docs/architecture.md says what the code is: what is drawn is current, and what is named exists."""

from __future__ import annotations

import ast
import contextlib
import importlib
import re
import sys
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import trio
from test_layering import MAY
from trio.testing import memory_stream_pair

from trio_smtp import ConnectError, Pool, PoolConfig, open_pool
from trio_smtp._pool.attempt import Attempt
from trio_smtp._pool.worker import Worker
from trio_smtp._wire.opening import open_wire
from trio_smtp._wire.waits import Interrupted, Waits
from trio_smtp.testing import open_sink

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "docs"))
states: Any = importlib.import_module("draw_states")
PAGE = states.PAGE.read_text("utf-8")


def test_the_page_is_current() -> None:
    assert states.draw(PAGE) == PAGE, "run: python docs/draw_states.py --write"


def test_every_module_is_in_the_list() -> None:
    section = PAGE.split("<!-- drawn: rooms -->")[1].split("<!-- end: rooms -->")[0]
    listed, folder = set(), ""
    for line in section.splitlines():
        if match := re.match(r"\*\*(\S+)\*\* –", line):
            folder = match[1]
            listed.add(f"{folder}/__init__.py")
        elif match := re.match(r"\* `(\w+\.py)` – ", line):
            listed.add(f"{folder}/{match[1]}")
    package = {path.relative_to(ROOT).as_posix() for path in (ROOT / "trio_smtp").rglob("*.py")}
    assert listed == package - {"trio_smtp/_version.py"}


def test_the_layers_are_those_of_the_layering_test() -> None:
    section = PAGE.split("\n## Layers\n")[1].split("\n## ")[0]
    may: dict[str, set[str]] = {}
    for line in section.splitlines():
        if line.startswith("| `"):
            names, allowed, _ = line.removeprefix("| ").split(" | ", 2)
            words = set() if allowed.startswith("nothing") else set(re.findall(r"`(\w+)`", allowed))
            may |= {
                name: words | ({""} if "public API" in allowed else set()) for name in re.findall(r"`(\w+)`", names)
            }
    assert may == MAY


def defined(tree: ast.AST, prefix: str = "") -> Iterator[str]:
    """What a module defines: functions, classes, their methods, and names that are assigned."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + node.name
            if isinstance(node, ast.ClassDef):
                yield from defined(node, f"{node.name}.")
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (prefix + target.id for target in targets if isinstance(target, ast.Name))


HAND_WRITTEN = re.sub(r"<!-- drawn: (\w+) -->.*?<!-- end: \1 -->", "", PAGE, flags=re.DOTALL)


def test_the_files_that_the_page_names_exist() -> None:
    files = [f"/{path.relative_to(ROOT).as_posix()}" for path in states.modules()]
    files += [f"/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "tests").glob("**/*.py")]
    named = set(re.findall(r"`([\w/]+\.py)`", HAND_WRITTEN))
    assert len(named) > 30
    assert {name for name in named if not any(file.endswith(f"/{name}") for file in files)} == set()


def test_what_the_page_names_exists() -> None:
    known = {name for path in states.modules() for name in defined(ast.parse(path.read_text("utf-8")))}
    named = set(re.findall(r"`([A-Z]\w+\.\w+)`", HAND_WRITTEN))
    assert len(named) > 30
    assert named <= known


# ---- states that no table of the code holds


class Recorder:
    """An attribute that notes how it changes."""

    def __init__(self, slot: Any) -> None:
        self.slot = slot
        self.changes: set[tuple[Enum, Enum]] = set()

    def __get__(self, instance: Any, owner: Any) -> Any:
        return self.slot.__get__(instance, owner)

    def __set__(self, instance: Any, value: Enum) -> None:
        with contextlib.suppress(AttributeError):
            before = self.slot.__get__(instance, type(instance))
            if before is not value:
                self.changes.add((before, value))
        self.slot.__set__(instance, value)


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch) -> Callable[[type, str], Recorder]:
    def record(cls: type, name: str) -> Recorder:
        recorder = Recorder(cls.__dict__[name])
        monkeypatch.setattr(cls, name, recorder)
        return recorder

    return record


async def idle(pool: Pool) -> None:
    """Wait until its one worker reads from its connection."""
    while not pool.statistics().idle:
        await trio.testing.wait_all_tasks_blocked()
    await trio.testing.wait_all_tasks_blocked()


async def test_the_states_of_a_worker_and_of_an_attempt(record: Callable[[type, str], Recorder]) -> None:
    worker, attempt = record(Worker, "_state"), record(Attempt, "state")
    letter = ("a@example.com", ["b@example.com"], b"Subject: x\r\n\r\nx\r\n")
    config = PoolConfig(min_idle=1, connect_retries=0)
    async with open_sink() as sink, open_pool(sink.host, sink.port, tls="none", config=config) as pool:
        await idle(pool)
        for _ in range(2):  # the second time while the worker rests
            await pool.send(*letter)
        await idle(pool)
    async with open_pool(sink.host, sink.port, tls="none", config=config) as pool:  # nothing listens there now
        with pytest.raises(ConnectError):
            await pool.send(*letter)
    assert worker.changes == set(states.WORKER)
    assert attempt.changes == set(states.ATTEMPT)


async def test_the_states_of_a_wait(record: Callable[[type, str], Recorder]) -> None:
    waits = record(Waits, "waiting")
    near, far = memory_stream_pair()
    wire = open_wire(near)
    await wire.send(b"x")
    await far.send_all(b"y")
    assert await wire.receive() == b"y"
    wire.interrupt()
    with pytest.raises(Interrupted):
        await wire.receive()
    assert waits.changes == set(states.WAITS)
