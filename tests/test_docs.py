"""The documentation says what the code does: names exist, links lead somewhere, programs run, the site builds."""

from __future__ import annotations

import dataclasses
import html
import importlib
import inspect
import keyword
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import trio
import trio.testing
from pages import ROOT, blocks

import trio_smtp
from trio_smtp.testing import open_server, open_sink, run_sink

DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"])
BLOCK = re.compile(r"^```(.*?)\n(.*?)^```$", re.M | re.S)


def ids(value: object) -> str | None:
    return str(value.relative_to(ROOT)) if isinstance(value, Path) else None


def public_modules() -> list[str]:
    """trio_smtp and the public modules in it; those of an extra that is not installed are left out."""
    found = ["trio_smtp"]
    modules = [module.name for module in pkgutil.walk_packages(trio_smtp.__path__, "trio_smtp.")]
    return found + [name for name in modules if "._" not in name]


def importable(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        pytest.skip(f"{name}: {exc}")


@pytest.mark.parametrize("name", [name for name in public_modules() if not name.endswith(".pytest_plugin")])
def test_the_reference_has_every_public_name(name):
    module = importable(name)
    text = "\n".join(page.read_text(encoding="utf-8") for page in (DOCS / "reference").glob("*.md"))
    described: set[str] = set()
    current = ""
    for directive, value in re.findall(r"^\.\. (currentmodule|autoclass|autofunction|autodata):: (\S+)", text, re.M):
        if directive == "currentmodule":
            current = value
        else:
            described.add(f"{current}.{value}")
    public = {f"{name}.{each}" for each in module.__all__ if each != "__version__"}
    assert public - described == set()
    assert {each for each in described if each.rpartition(".")[0] == name} - public == set()


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_lead_somewhere(page):
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    missing = [
        target
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
        if not re.match(r"\w+:", target) and not (page.parent / target).exists()
    ]
    missing += [
        target
        for target in re.findall(r"^```\{literalinclude\} (\S+)", page.read_text(encoding="utf-8"), re.M)
        if not (page.parent / target).exists()
    ]
    assert missing == []


def in_background(command: str) -> bool:
    return command.partition(" #")[0].rstrip().endswith("&")


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_servers_in_the_background_are_up_before_clients_start_and_are_ended(page):
    """A block is pasted whole, so what starts a server is its last command; the page ends each server by its job."""
    text = page.read_text(encoding="utf-8")
    started = 0
    for block in blocks(text, "console"):
        commands = re.findall(r"^\$ (.*)$", block, re.M)
        servers = [command for command in commands if in_background(command)]
        assert not servers or commands[-len(servers) :] == servers
        started += len(servers)
    ended = {job for line in re.findall(r"^\$ kill (.*)$", text, re.M) for job in re.findall(r"%\d", line)}
    assert ended == {f"%{number}" for number in range(1, started + 1)}


def test_tests_that_pages_name_exist():
    sources = {path.name: path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("*.py")}
    tests = {name for source in sources.values() for name in re.findall(r"def (test_\w+)", source)}
    missing = {}
    for page in PAGES:
        text = BLOCK.sub("", page.read_text(encoding="utf-8"))
        named = {name for name in re.findall(r"`(test_\w+)`", text) if name not in tests}
        named |= {name for name in re.findall(r"`tests/(\w+\.py)`", text) if name not in sources}
        if named:
            missing[page.name] = named
    assert missing == {}


# --- the pages about other libraries ---


def known_names() -> set[str]:
    """Public names, their attributes, and the arguments of public functions."""
    names = set(trio_smtp.__all__)
    for name in public_modules():
        names |= set(getattr(sys.modules.get(name), "__all__", []))
    objects: list[Any] = [getattr(trio_smtp, name) for name in trio_smtp.__all__]
    for thing in objects:
        if inspect.isclass(thing):
            names |= set(dir(thing)) | set(getattr(thing, "__annotations__", {}))
            names |= {part for member in vars(thing).values() if callable(member) for part in arguments(member)}
            names |= set(re.findall(r"^    (?:    )?(\w+)(?: \(.*\))?: ", inspect.getdoc(thing) or "", re.M))
            names |= set(getattr(thing, "__slots__", ()))
        names |= set(arguments(thing))
    return names


def arguments(function: Any) -> list[str]:
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return []


@pytest.mark.parametrize("page", sorted((DOCS / "coming-from").glob("*.md")), ids=ids)
def test_names_of_ours_exist(page):
    known = known_names()
    unknown: dict[str, str] = {}
    for row in re.findall(r"^\| [^|]+ \| ([^|]+) \|", page.read_text(encoding="utf-8"), re.M):
        for code in re.findall(r"`([^`]+)`", row):
            if " serve -" in code:
                continue
            assert set(re.findall(r'getLogger\("(.*?)"\)', code)) <= {"trio_smtp"}  # the library has no other
            words = re.sub(r'"[^"]*"', "", code)
            for word in re.findall(r"[A-Za-z_]\w*", words):
                if word not in known | KNOWN_ELSEWHERE and not keyword.iskeyword(word):
                    unknown[word] = code
    assert unknown == {}


KNOWN_ELSEWHERE = {
    *("trio", "fail_after", "seconds", "nursery", "start", "trio_smtp", "logging", "getLogger", "setLevel"),
    *("user", "message", "pool", "client", "server", "jobs", "body", "chunk", "decode", "r", "error", "NOTIFY"),
    *("messages", "EmailMessage", "Stream", "abc", "sni_callback", "result", "session", "envelope"),
}


# --- programs on pages ---


def programs() -> list[Any]:
    """Each Python block of a page that starts something, or holds tests."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        if re.search(r"`tests/test_\w+_docs\.py`\s+runs the code on this page", text):
            continue
        whole = [code for code in blocks(text) if re.search(r"^(import|from) ", code, re.M)]  # others are parts of one
        for number, code in enumerate(whole, 1):
            found.append(pytest.param(code, id=f"{page.relative_to(ROOT)}-{number}"))
    return found


@pytest.mark.parametrize("code", programs())
def test_a_program_on_a_page_runs(code, monkeypatch, tmp_path):
    """What a block gives to ``trio.run`` is run, with a server at hand; tests in it are run as tests.

    Servers are left out: they are examples, with tests of their own (tests/test_examples.py), or the README's.
    """
    mains: list[Any] = []
    tests: list[Any] = []
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(trio, "run", lambda function, *args, **options: mains.append((function, args)))
        names: dict[str, Any] = {"__name__": "__main__"}
        exec(compile(code, "page", "exec"), names)
        tests = [value for name, value in names.items() if name.startswith("test_")]

    async def play(function: Any, *args: Any) -> None:
        with trio.fail_after(30):
            async with open_server(trio_smtp.Discard()) as server:
                send_to(monkeypatch, server.port)
                await function(*args)

    for function, args in mains:
        if function is not trio_smtp.serve:
            trio.run(play, function, *args)
    for test in tests:
        run_as_pytest_does(test)


def run_as_pytest_does(test: Any) -> None:
    """With the fixture that it asks for, as pytest-trio and our plugin make it."""

    async def with_a_sink() -> None:
        async with open_sink() as sink:
            await test(sink)

    match arguments(test):
        case []:
            trio.run(test)
        case ["autojump_clock"]:
            trio.run(test, None, clock=trio.testing.MockClock(autojump_threshold=0))
        case ["smtp_sink"]:
            trio.run(with_a_sink)
        case ["threaded_smtp_sink"]:
            with run_sink() as sink:
                test(sink)
        case others:
            raise AssertionError(others)


def send_to(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    """Let every client of a page reach the server of this test, in clear, whatever host and port it names."""
    for name in ("open_client", "open_pool"):
        original = getattr(trio_smtp, name)

        def opened(*_: Any, original: Any = original, **options: Any) -> Any:
            options = {key: value for key, value in options.items() if key not in ("auth", "tls")}
            return original("127.0.0.1", port, **options)

        monkeypatch.setattr(trio_smtp, name, opened)


# --- how to install ---


@pytest.mark.parametrize(
    "page", [page for page in PAGES if DOCS in page.parents and page.stem not in ("index", "install")], ids=ids
)
def test_pages_that_need_an_extra_say_how_to_install_it(page):
    """Where a page says `pip install trio-smtp`, it says that this is for later; other how-tos have a link at least."""
    text = page.read_text(encoding="utf-8")
    if re.search(r"^\$ .*pip install '?trio-smtp|`pip install '?trio-smtp", text, re.M):
        assert re.search(r"not on PyPI yet: see (\[Install\]\((\.\./)*install\.md\)|:doc:`/install`)", text, re.I)
    elif page.parent.name == "howto" and re.search(r"^\$ (.* \| )?trio-smtp ", text, re.M):
        assert "[Install](../install.md)" in text


# --- the site ---


def test_the_site_builds_without_a_warning(tmp_path):
    if "TRIO_SMTP_REQUIRE_TOOLS" not in os.environ:
        for package in ("sphinx", "furo", "myst_parser", "sphinxcontrib_trio"):
            pytest.importorskip(package)
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", str(DOCS), str(tmp_path / "site")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    for page in (tmp_path / "site" / "reference").glob("*.html"):
        text = re.sub("<[^>]+>", "", page.read_text(encoding="utf-8"))
        assert "async for ... in trio_smtp" not in text  # a context manager: the directive needs :async-with:
        assert "(*args: object, **kwargs: object)" not in text  # a class without a public constructor
        assert "&lt;factory&gt;" not in text  # what Sphinx cannot read it shows as it is
    for page in DOCS.rglob("*.md"):
        assert (tmp_path / "site" / page.relative_to(DOCS)).with_suffix(".html").exists()
    for page in (tmp_path / "site" / "reference").glob("*.html"):
        check_reference(page.read_text(encoding="utf-8"))
    check_index((tmp_path / "site" / "genindex.html").read_text(encoding="utf-8"))


def check_reference(page: str) -> None:
    """What autodoc does not do by itself; docs/_ext/reference.py does."""
    text = html.unescape(re.sub(r"<[^>]+>", "", page))
    assert "async for ... in" not in text  # these are context managers
    assert not re.search(r"async with [^→]*→\s*\S*Iterator", text)
    assert "*args: object, **kwargs: object" not in text  # there is no constructor to call
    assert not re.search(r"Bases: (\w+\.)*_", text)  # a private class
    for leftover in ("<factory>", "<lambda>", "~collections", "PEP 604", "Args:", "docs/"):
        assert leftover not in text
    assert not re.search(
        r'<dt class="field-\w+">(Type|Return type)<', page
    )  # Napoleon has torn text of the form "X: Y"


def check_index(page: str) -> None:
    for name in ("max_message_size", "hostname", "smtp_sink", "smtp_inbox"):
        assert f">{name} (" in page or f">{name}<" in page
    for config in (trio_smtp.ServerConfig, trio_smtp.ClientConfig, trio_smtp.PoolConfig):
        for field in dataclasses.fields(config):
            assert f"#trio_smtp.{config.__name__}.{field.name}" in page


def test_the_reference_has_every_fixture():
    for kit in ("testing", "inbox"):
        plugin = (ROOT / "trio_smtp" / kit / "pytest_plugin.py").read_text(encoding="utf-8")
        page = (DOCS / "reference" / f"{kit}.md").read_text(encoding="utf-8")
        fixtures = re.findall(r"^@pytest\.fixture.*\n(?:async )?def (\w+)", plugin, re.M)
        assert sorted(fixtures) == sorted(re.findall(r"^\.\. data:: (\w+)", page, re.M))
