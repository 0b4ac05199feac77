"""What autodoc does not know about trio_smtp: its context managers, its type aliases, fields of its data classes.

A page of the reference names an object; its text is the docstring in the code. Here the text is turned into what a
reader of the site needs: anchors for fields, links for ``docs/page.md``, signatures that fit on a screen.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import sphinxcontrib_trio
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.typing import get_type_hints, stringify_annotation

import trio_smtp
from trio_smtp._public import NoPublicConstructor
from trio_smtp._wire.entrance import entrance

DOCS = Path(__file__).parent.parent
PACKAGE = Path(trio_smtp.__file__).parent

# What the block of a context manager is given; if nothing is said here, `open_thing` and `run_thing` give a thing.
GIVEN = {"entries": "entries", "send_many": "outcomes", "transaction": "message", "virtual_network": "network"}
GIVEN |= {"open_script": "server", "run_in_thread": "thread"}
MANAGER = re.compile(r"(?:collections\.abc\.|contextlib\.|~)*(?:Async)?(?:Iterator|Abstract\w*ContextManager)\[(.*)\]")
SHORT = 30  # characters that fit on one line of a telephone
TEXT = 60  # characters in the last column of a table that are more than a word or a number
PAGE = re.compile(r"docs/([\w/-]+)\.md")
# Objects of these are made by the library, or with keywords alone: the list of their fields says more.
FIELDS_ONLY = re.compile(r"\w*(?:Config|Statistics|Event|Entry|Outcome|ReceivedMessage)")


def note_manager(thing: Any, options: dict[str, Any]) -> None:
    """Mark what is for ``async with`` or ``with``, and name what its block is given."""
    note_others(thing, options)
    function = inspect.unwrap(getattr(thing, "__func__", thing))
    if re.search(r"\bAbstractAsyncContextManager\[", str(getattr(function, "__annotations__", {}).get("return", ""))):
        options["async-with"] = None
    for option in {"with", "async-with"} & options.keys():
        options[option] = options[option] or GIVEN.get(function.__name__, function.__name__.partition("_")[2])


note_others = sphinxcontrib_trio.update_with_sniffed_options


async def _nothing() -> Any:
    yield


def show_signature(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, signature: str | None, returned: str | None
) -> tuple[str | None, str | None] | None:
    """No constructor where there is none to call; what a context manager's block is given as its result."""
    if what == "class":
        listed = FIELDS_ONLY.fullmatch(thing.__name__) and "Attributes:" in (thing.__doc__ or "")
        if (
            listed
            or isinstance(thing, NoPublicConstructor)
            or getattr(thing, "_is_protocol", False)
            or hasattr(thing, "__members__")
        ):
            return "", None
    if signature:
        signature = signature.replace("<factory>", "...")  # of a field, made anew each time
    if options.keys() & {"with", "async-with"} and (match := MANAGER.fullmatch(returned or "")):
        returned = match[1]
    return signature, returned


def skip_twice(app: Sphinx, what: str, name: str, thing: Any, skip: bool, options: Any) -> bool | None:
    """The fields of a named tuple are among the attributes of its docstring."""
    return True if (getattr(thing, "__doc__", None) or "").startswith("Alias for field number") else None


def rewrite(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """The docstring, after Napoleon."""
    if what == "data":
        lines[:] = _alias_lines(name) or lines
    if what == "class":
        lines[:] = _with_types(thing, lines)
    lines[:] = [PAGE.sub(lambda match: f":doc:`{_title(match[1])} </{match[1]}>`", line) for line in lines]


def _title(page: str) -> str:
    """The title of a page, without its explanation."""
    first = (DOCS / f"{page}.md").read_text(encoding="utf-8").splitlines()[0]
    return first.removeprefix("# ").partition(":")[0]


def _with_types(cls: type, lines: list[str]) -> list[str]:
    """Types and defaults of attributes stand in their signatures, not in a field below the text."""
    hints = get_type_hints(cls)
    defaults = _defaults(cls)
    result: list[str] = []
    for line in lines:
        if re.fullmatch(r"   :type: .*", line):
            continue
        result.append(line)
        if match := re.fullmatch(r"\.\. attribute:: (\w+)", line):
            if match[1] in hints:
                result.append(f"   :type: {stringify_annotation(hints[match[1]], 'smart')}")
            if match[1] in defaults:
                result.append(f"   :value: {defaults[match[1]]}")
    return result


def _defaults(cls: type) -> dict[str, str]:
    """The fields that have a default which can be written."""
    if dataclasses.is_dataclass(cls):
        given = {field.name: field.default for field in dataclasses.fields(cls)}
    else:
        given = getattr(cls, "_field_defaults", {})
    return {name: repr(value) for name, value in given.items() if isinstance(value, int | float | str | tuple | None)}


def _alias_lines(name: str) -> list[str]:
    """What a type alias says of itself, and what it stands for."""
    known = _aliases().get(name.rpartition(".")[2])
    if known is None:
        return []
    value, text = known
    return [*text.splitlines(), "", *([f"Stands for ``{value}``.", ""] if value else [])]


@cache
def _aliases() -> dict[str, tuple[str, str]]:
    """Every alias or constant with a docstring below it: the value of an alias, and that."""
    return {
        name: (value, text)
        for path in PACKAGE.rglob("*.py")
        for name, value, text in _aliases_in(path.read_text("utf-8"))
    }


def _aliases_in(source: str) -> Iterator[tuple[str, str, str]]:
    body = ast.parse(source).body
    for statement, below in pairwise(body):
        match statement, below:
            case ast.AnnAssign(ast.Name(name), kind, value), ast.Expr(ast.Constant(str(text))) if value is not None:
                written = str(value.value) if isinstance(value, ast.Constant) else ast.unparse(value)
                yield name, written if ast.unparse(kind) == "TypeAlias" else "", inspect.cleandoc(text)


def mark_by_length(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Short code, which is not broken over two lines, and tables that hold text (``_static/site.css``)."""
    for node in doctree.findall(nodes.literal):
        if len(node.astext()) <= SHORT:
            node["classes"].append("short")
    for table in doctree.findall(nodes.table):
        if any(len(row[-1].astext()) > TEXT for row in table.findall(nodes.row)):
            table["classes"].append("text")


def setup(app: Sphinx) -> dict[str, bool]:
    app.setup_extension("sphinxcontrib_trio")
    sphinxcontrib_trio.ACM_CODES.add(entrance("")(_nothing).__code__)
    sphinxcontrib_trio.update_with_sniffed_options = note_manager
    app.connect("autodoc-process-signature", show_signature)
    app.connect("autodoc-skip-member", skip_twice)
    app.connect("autodoc-process-docstring", rewrite, priority=900)  # after Napoleon
    app.connect("doctree-resolved", mark_by_length)
    return {"parallel_read_safe": True}
