# The README's examples, really run: its server gets mail from its client and its pool.
from __future__ import annotations

import re
from functools import partial

import pytest
import trio
from pages import ROOT, blocks, run, started_by

README = ROOT / "README.md"
TEXT = README.read_text(encoding="utf-8")
SERVER, CLIENT, POOL, TESTING = blocks(TEXT)


@pytest.fixture
async def port(nursery, monkeypatch):
    """The README's server, on a free port instead of 2525."""
    serve, (handler, port) = started_by(SERVER, monkeypatch)
    assert port == 2525
    listeners = await nursery.start(partial(serve, handler, 0, host="127.0.0.1"))
    return listeners[0].socket.getsockname()[1]


def with_port(code, port):
    """The same program, with the server of this test, in clear and without a login."""
    code, count = re.subn(
        r'"localhost", 2525|"mail\.example\.com", 587, auth=\("me", "secret"\)', f'"127.0.0.1", {port}', code
    )
    assert count == 1
    return code


async def test_the_client_sends_to_the_server(port, monkeypatch, capsys):
    main, args = started_by(with_port(CLIENT, port), monkeypatch)
    with trio.fail_after(20):
        await main(*args)
    received, result = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"\d+ octets from me@example\.com", received)
    assert result == "250 2.0.0 OK: queued as 42 {}"


async def test_the_pool_sends_to_the_server(port, monkeypatch, capsys):
    main, args = started_by(with_port(POOL, port), monkeypatch)
    with trio.fail_after(20):
        await main(*args)
    lines = capsys.readouterr().out.splitlines()
    assert lines.count("250 2.0.0 OK: queued as 42") == 100
    assert len([line for line in lines if line.endswith("octets from me@example.com")]) == 100


@pytest.mark.parametrize("name", ["test_welcome", "test_welcome_nobody"])
async def test_the_tests_of_an_application(name):
    names = run(TESTING)
    assert [each for each in names if each.startswith("test_")] == ["test_welcome", "test_welcome_nobody"]
    with trio.fail_after(20):
        await names[name]()


def test_the_fixtures_are_those_of_the_plugin():
    plugin = vars(pytest.importorskip("trio_smtp.testing.pytest_plugin"))
    fixtures = {name for name in plugin if name.startswith("smtp_")}
    assert fixtures == set(re.findall(r"`(smtp_\w+)`", TEXT))


@pytest.mark.parametrize(("code", "most"), [(SERVER, 11), (CLIENT, 8 + 5), (POOL, 5 + 4)])
def test_the_examples_are_short(code, most):
    # Few lines inside the four or five that every Trio program has.
    assert len([line for line in code.splitlines() if line.strip()]) <= most


def test_the_two_commands_are_one_line_each():
    demo, test = blocks(TEXT, "sh")
    assert demo.endswith("trio-smtp demo\n")
    assert "coverage run -m pytest -n auto" in test
    for command in (demo, test):
        assert command.count("\n") == 1
        assert command.startswith("python3 -m venv .venv && .venv/bin/pip install ")


def test_the_exit_statuses_are_those_of_the_command_line():
    errors = pytest.importorskip("trio_smtp._cli.errors")
    page = (README.parent / "docs" / "command-line.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| (\d+) \| (.*) \|$", page.partition("## Exit statuses")[2], re.M)
    assert table == [(str(int(status)), status.meaning) for status in errors.Status]
