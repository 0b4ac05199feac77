# Which part may import which: read from the source, so that an import inside a function counts as well.
from __future__ import annotations

import ast
import pathlib

import pytest

import trio_smtp

ROOT = pathlib.Path(trio_smtp.__file__).parent
# Each layer may import itself and what is named here.
MAY = {
    "_protocol": set(),
    "_version": set(),
    "_public": set(),
    "_nursery": set(),
    "_logging": set(),
    "_observer": {"_logging"},
    "_wire": {"_protocol", "_logging"},
    "_server": {"_logging", "_protocol", "_wire", "_public", "_observer"},
    "_message": {"_protocol"},
    "_client": {"_logging", "_protocol", "_wire", "_public", "_message", "_observer"},
    "_pool": {"_protocol", "_wire", "_public", "_nursery", "_observer", "_client"},
    "_relay": {"_protocol", "_server", "_pool"},
    # On top of all, beside each other: like any application they know the public face, which is "" here.
    "_cli": {"", "inbox", "outbox", "telemetry"},
    "outbox": {"", "reports", "_public", "_nursery", "_observer"},
    "testing": {"", "_public", "_nursery"},
    "telemetry": {"", "_public", "outbox"},
    "dkim": {"", "_public"},
    "reports": {"", "_public"},
    "socks": {"", "_public"},
    "oauth": {"", "_public"},
    "inbox": {"", "testing", "_public", "_nursery"},
}
CORE_NEVER = {"trio", "ssl", "socket", "logging", "asyncio", "select", "threading"}


def modules(layer):
    path = ROOT / layer
    return sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]


def imports(path):
    """Of one module: names of top-level packages, and of our own layers."""
    package = path.relative_to(ROOT).parts[:-1]
    foreign, ours = set(), set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1]
            target = [*base, *(node.module or "").split(".")]
            names = [".".join(["trio_smtp", *target])] if node.module or base else []
            if not node.module and not base:
                ours |= {alias.name for alias in node.names}
        else:
            continue
        for name in names:
            first, *rest = name.split(".")
            if first == "trio_smtp":
                ours.add(rest[0] if rest else "")
            else:
                foreign.add(first)
    return foreign, ours


@pytest.mark.parametrize(
    "path", [*modules("_protocol"), *modules("_message")], ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_the_core_knows_no_tasks_sockets_or_logs(path):
    foreign, _ = imports(path)
    assert not foreign & CORE_NEVER


@pytest.mark.parametrize("layer", [layer for layer in MAY if modules(layer) and modules(layer)[0].exists()])
def test_arrows_only_downwards(layer):
    for path in modules(layer):
        _, ours = imports(path)
        assert ours <= MAY[layer] | {layer}, path


def test_the_public_face_knows_nothing_on_top_of_it():
    _, ours = imports(ROOT / "__init__.py")
    on_top = {"_cli", "dkim", "inbox", "oauth", "outbox", "reports", "socks", "testing"}
    assert ours <= set(MAY) - on_top


def test_the_test_kit_needs_pytest_and_trustme_only_where_they_are_asked_for():
    for path in modules("testing"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        at_once = {
            alias.name.partition(".")[0] for node in tree.body if isinstance(node, ast.Import) for alias in node.names
        }
        assert not at_once & {"pytest", "pytest_trio", "trustme"} or path.stem == "pytest_plugin"


def test_every_module_belongs_to_a_layer():
    known = set(MAY) | {"__init__", "__main__", "__pycache__"}
    assert {path.stem for path in ROOT.iterdir() if path.suffix == ".py" or path.is_dir()} <= known


def test_the_core_can_be_imported_without_trio():
    import subprocess
    import sys

    code = (
        "import sys, types; package = types.ModuleType('trio_smtp'); package.__path__ = [sys.argv[1]];"
        "sys.modules['trio_smtp'] = package;"
        "import trio_smtp._protocol.server.protocol, trio_smtp._protocol.client.protocol;"
        "assert not {'trio', 'ssl', 'logging'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run(
        [
            sys.executable,
            "-S",
            "-c",
            code.replace("import sys,", "import sys; sys.path += sys.argv[2:]; import", 1),
            str(ROOT),
            *sys.path,
        ],
        check=True,
    )
