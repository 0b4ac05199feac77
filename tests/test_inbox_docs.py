# docs/inbox.md: its programs run, its rules and options are the code's, its pictures are there and small.
from __future__ import annotations

import json
import re
import unittest
from pathlib import Path
from typing import Any

import click
import pytest
from starlette.routing import Route

from trio_smtp._cli.commands import cli
from trio_smtp.inbox import _mailpit, _rules, open_inbox

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "inbox.md").read_text("utf-8")
ASYNC, NOT_ASYNC = re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S)


async def test_the_async_program():
    namespace: dict[str, Any] = {}
    exec(ASYNC, namespace)
    await namespace["test_sign_up"]()


def test_the_program_that_is_not_async():
    namespace: dict[str, Any] = {}
    exec(NOT_ASYNC, namespace)
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(namespace["SignUpTest"]).run(result)
    assert result.testsRun == 1
    assert result.errors + result.failures == []


async def test_the_rules():
    [text] = re.findall(r"^```json\n(.*?)^```$", PAGE, re.M | re.S)
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
