# docs/inbox.md: its programs run, its rules and options are the code's, its pictures are there and small.
from __future__ import annotations

import json
import re
import unittest

import click
import pytest
from pages import ROOT, blocks, read_page, run
from starlette.routing import Route

from trio_smtp._cli.commands import cli
from trio_smtp.inbox import _mailpit, _rules, open_inbox

PAGE = read_page("inbox.md")
ASYNC, NOT_ASYNC = blocks(PAGE)


async def test_the_async_program():
    await run(ASYNC)["test_sign_up"]()


def test_the_program_that_is_not_async():
    namespace = run(NOT_ASYNC)
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(namespace["SignUpTest"]).run(result)
    assert result.testsRun == 1
    assert result.errors + result.failures == []


async def test_the_rules():
    [text] = blocks(PAGE, "json")
    rules = json.loads(text)["rules"]
    async with open_inbox() as inbox:
        inbox.faults = rules
        assert inbox.faults == rules
    section = PAGE.split("\n## Faults\n")[1]
    named = {key for line in re.findall(r"^\| (`.*?) \|", section, re.M) for key in re.findall(r"`(\w+)`", line)}
    assert named == _rules._KEYS


def test_the_options():
    command = cli.commands["inbox"]
    named = set(re.findall(r"`(--[a-z-]+)", PAGE.split("\n## ")[0]))
    options = {each for parameter in command.params if isinstance(parameter, click.Option) for each in parameter.opts}
    assert named == {each for each in options if each.startswith("--")} - {"--verbose", "--password-file"}


def test_the_routes():
    table = PAGE.split("\n## By HTTP\n")[1].split("\n\n")[1]
    api = _mailpit.MailpitAPI.__new__(_mailpit.MailpitAPI)
    for route in api.routes():
        assert isinstance(route, Route)
        path = route.path
        if path.startswith("/api/v1/message/{id}/"):
            assert f"…/{path.removeprefix('/api/v1/message/{id}/')}" in table
        elif path not in {"/api/v1/webui", "/api/v1/tags", "/api/v1/chaos", "/livez", "/readyz", "/view/{id}.txt"}:
            assert path in table


@pytest.mark.parametrize("path", re.findall(r"!\[[^]]+\]\(([^)]+)\)", PAGE))
def test_the_pictures(path):
    assert (ROOT / "docs" / path).stat().st_size < 150_000
