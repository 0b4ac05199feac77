"""The documentation as tests see it: a page's text, its code, and what a program on it starts."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

ROOT = Path(__file__).parent.parent


def read_page(name: str) -> str:
    """The text of a page in docs/."""
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def blocks(text: str, language: str = "python") -> list[str]:
    """The code blocks of a page that are in this language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


def run(code: str, names: dict[str, Any] | None = None) -> dict[str, Any]:
    """Execute a block, as a module of its own or after others; returns its names."""
    names = {} if names is None else names
    exec(compile(code, "page", "exec"), names)
    return names


def started_by(code: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Execute a program up to its ``trio.run``, and return what it would have run there, and with which arguments."""
    calls: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
    with monkeypatch.context() as patch:
        patch.setattr(trio, "run", lambda function, *args: calls.append((function, args)))
        run(code, {"__name__": "__main__"})
    [call] = calls
    return call
