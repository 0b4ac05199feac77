# The names that `trio_smtp` exports: that they say so themselves, and show what they are.
from __future__ import annotations

import ast
import inspect
import pathlib
import pickle
import traceback

import pytest

import trio_smtp
from trio_smtp import testing

MODULES = (trio_smtp, testing)
EXPORTED = {name: getattr(module, name) for module in MODULES for name in module.__all__ if not name.startswith("__")}
CLASSES = [thing for thing in EXPORTED.values() if inspect.isclass(thing)]
FUNCTIONS = [thing for thing in EXPORTED.values() if inspect.isfunction(thing)]
ROOT = pathlib.Path(trio_smtp.__file__).parent


def public_functions():
    """Public functions and the public methods and constructors of public classes, with the names they have in help."""
    found = {f"{thing.__module__}.{thing.__name__}": thing for thing in FUNCTIONS}
    for cls in CLASSES:
        for base in inspect.getmro(cls):
            if base.__module__.partition(".")[0] != "trio_smtp":
                continue
            for name, member in vars(base).items():
                member = inspect.unwrap(getattr(member, "__func__", None) or getattr(member, "fget", None) or member)
                if inspect.isfunction(member) and (not name.startswith("_") or name in ("__init__", "__anext__")):
                    found[f"{cls.__module__}.{cls.__name__}.{name}"] = member
    return found


PUBLIC_FUNCTIONS = public_functions()


@pytest.mark.parametrize("thing", [*CLASSES, *FUNCTIONS], ids=lambda thing: thing.__name__)
def test_names_its_public_module(thing):
    assert thing.__module__ == ("trio_smtp" if hasattr(trio_smtp, thing.__name__) else "trio_smtp.testing")


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_all_is_sorted_and_complete(module):
    exported = {
        name for name in vars(module) if not name.startswith("_") and not inspect.ismodule(getattr(module, name))
    }
    assert exported == {name for name in module.__all__ if name != "__version__"}
    assert len(set(module.__all__)) == len(module.__all__)


def own_names(path):
    """The names of a module that trio_smtp defines: in it, or in another of its modules."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("trio_smtp")):
            names |= {alias.asname or alias.name for alias in node.names if len(alias.name) > 1}
        elif isinstance(node, ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) == "TypeAlias":
            names.add(ast.unparse(node.target))
    return names


def annotations_of(path):
    """Public names of a module to the annotations that stand in them."""

    def visit(nodes, inside):
        for node in nodes:
            if isinstance(node, ast.ClassDef):
                if not node.name.startswith("_") or inside:
                    yield from visit(node.body, f"{inside}{node.name}.")
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                if not node.name.startswith("_") or (inside and node.name == "__init__"):
                    arguments = node.args
                    every = (*arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg)
                    yield f"{inside}{node.name}", [each.annotation for each in every if each] + [node.returns]
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                if ast.unparse(node.annotation) == "TypeAlias":
                    value = node.value
                    yield node.target.id, [ast.parse(str(value.value)) if isinstance(value, ast.Constant) else value]
                elif not node.target.id.startswith("_"):
                    yield f"{inside}{node.target.id}", [node.annotation]

    return dict(visit(ast.parse(path.read_text(encoding="utf-8")).body, ""))


def exported_from():
    """Where each public name is defined: pairs of module and name."""
    for package in (ROOT / "__init__.py", ROOT / "testing" / "__init__.py"):
        for node in ast.walk(ast.parse(package.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module:
                path = package.parent.joinpath(*node.module.split("."))
                path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
                for alias in node.names:
                    if alias.name in EXPORTED:
                        yield path, alias.name


def resolved(path, name):
    """Follow a re-export, as that of ``sasl/__init__.py``, to the module that defines the name."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.level == 1 and name in {alias.name for alias in node.names}:
            return path.parent / f"{node.module}.py"
    return path


@pytest.mark.parametrize(("path", "name"), sorted(exported_from()), ids=lambda each: getattr(each, "stem", each))
def test_types_in_public_signatures_are_exported(path, name):
    """A caller can name every type that it passes or gets."""
    path = resolved(path, name)
    own, hidden = own_names(path), {}
    for place, found in annotations_of(path).items():
        if place.partition(".")[0] == name:
            nodes = [node for annotation in found if annotation is not None for node in ast.walk(annotation)]
            words = {node.id for node in nodes if isinstance(node, ast.Name)}
            if unknown := (words & own) - EXPORTED.keys():
                hidden[place] = unknown
    assert not hidden


def test_traceback_names_the_public_module():
    [line] = traceback.format_exception_only(trio_smtp.ConnectError("no route"))
    assert line == "trio_smtp.ConnectError: no route\n"


def test_reply_can_be_pickled():
    reply = trio_smtp.Reply(250, "OK", "2.0.0")
    assert pickle.loads(pickle.dumps(reply)) == reply


@pytest.mark.parametrize("thing", CLASSES, ids=lambda thing: thing.__name__)
def test_has_a_docstring(thing):
    assert inspect.getdoc(thing)
