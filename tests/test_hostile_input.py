"""docs/hostile-input.md and the tests agree: each rule has its tests, and each test of hostile input has its rule."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from trio_smtp import ClientConfig, ServerConfig

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "hostile-input.md").read_text(encoding="utf-8")
RULES = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("|") and not line.startswith(("| Rule |", "|---"))
]


def names_in(pattern: str) -> set[str]:
    names: set[str] = set()
    for path in (ROOT / "tests").glob(pattern):
        names.update(re.findall(r"^(?:async )?def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE))
    return names


def test_each_rule_has_a_source_and_tests_that_exist() -> None:
    existing = names_in("test_*.py")
    assert len(RULES) >= 40
    for rule, source, tests in RULES:
        assert rule.endswith("."), rule
        assert re.search(r"RFC \d|CVE-\d|CWE-\d|PROXY protocol|ALPACA", source), rule
        names = re.findall(r"`(\w+)`", tests)
        assert names, rule
        assert set(names) <= existing, (rule, set(names) - existing)


def test_each_test_of_hostile_input_is_named() -> None:
    named = {name for _, _, tests in RULES for name in re.findall(r"`(\w+)`", tests)}
    assert names_in("test_hostile_server.py") | names_in("test_hostile_client.py") <= named


def test_no_rule_is_there_twice() -> None:
    assert len({rule for rule, _, _ in RULES}) == len(RULES)


def test_every_option_in_the_rules_exists() -> None:
    names = {name for rule, _, _ in RULES for name in re.findall(r"`([a-z]+_[a-z_]+)(?:=[^`]*)?`", rule)}
    assert names
    assert names <= {field.name for config in (ServerConfig, ClientConfig) for field in fields(config)}
