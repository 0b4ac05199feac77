"""docs/topics/time-limits.md: its limits are fields of the configurations, and the seconds are the defaults."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any

import pytest
from pages import read_page

import trio_smtp

PAGE = read_page("topics/time-limits.md")


@pytest.mark.parametrize(
    ("heading", "config"),
    [("## Limits of a client", trio_smtp.ClientConfig()), ("## Limits of a server", trio_smtp.ServerConfig())],
)
def test_the_table(heading: str, config: Any):
    table = dict(re.findall(r"^\| `(\w+)` \| (\d+) \|", PAGE.split(heading)[1].split("\n## ")[0], re.M))
    assert {name: float(seconds) for name, seconds in table.items()} == {name: getattr(config, name) for name in table}
    timeouts = {each.name for each in fields(config) if each.name.endswith("_timeout")}
    assert timeouts - set(table) == set()
