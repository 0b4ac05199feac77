"""docs/supported.md says what the code does: its tables are compared with the code's."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from trio_smtp import Password, ServerConfig
from trio_smtp._protocol.extensions import EXTENSIONS
from trio_smtp._protocol.parameter_text import required_extensions
from trio_smtp._protocol.parameters import PARAMETERS
from trio_smtp._protocol.sasl import SERVER_MECHANISMS, External, OAuth, choose_mechanism
from trio_smtp._protocol.server import _TAKE

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "supported.md").read_text(encoding="utf-8")


def table(heading: str) -> list[list[str]]:
    """The rows of the first table under a heading, without its own heading."""
    section = PAGE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line.strip().strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def test_extensions() -> None:
    rows = table("Extensions")
    assert [row[0] for row in rows] == [row.keyword for row in EXTENSIONS]
    assert {row[0]: row[2] for row in rows} == {row.keyword: "opt-in" if row.opt_in else "on" for row in EXTENSIONS}


def test_what_the_client_wants_to_be_asked_for() -> None:
    """An extension whose parameters the caller gives is an error where it is not offered."""
    asked = {row[0] for row in table("Extensions") if row[3] == "asked"}
    given = {row.extension for row in PARAMETERS} - {"SIZE", "8BITMIME", "SMTPUTF8", "AUTH"}
    assert asked == given | {"BINARYMIME"}
    for row in PARAMETERS:
        assert required_extensions(row.command, {row.keyword: None}) == {row.extension}


def test_parameters() -> None:
    assert table("Parameters") == [[row.keyword, row.command, row.extension] for row in PARAMETERS]


def test_commands() -> None:
    rows = [row[0] for row in table("Commands of the server")]
    assert len(rows) == len(set(rows))
    assert set(rows) == {verb.decode() for verb in _TAKE}


def test_mechanisms() -> None:
    rows = table("Mechanisms of AUTH")
    assert {row[0] for row in rows if row[2] == "yes"} == SERVER_MECHANISMS.keys()
    for row in rows:
        assert client_speaks(row[0]) is (row[3] == "yes")


def client_speaks(mechanism: str) -> bool:
    for auth in (Password("me", "secret"), OAuth("me", "token"), External()):
        try:
            return choose_mechanism(auth, [mechanism], secure=True, allow_insecure=False) == mechanism
        except Exception:
            continue
    return False


def test_limits() -> None:
    config = ServerConfig()
    rows = table("Limits of the server")
    assert {name: value for name, value, _ in rows} == {name: str(getattr(config, name)) for name, _, _ in rows}
    numbers = {
        field.name
        for field in fields(config)
        if re.match(r"max_|min_|soft_|error_", field.name) or field.name.endswith("_timeout")
    }
    assert {row[0] for row in rows} == numbers


def test_every_name_in_the_text_exists() -> None:
    names = set(re.findall(r"`([a-z]+_[a-z_]+)(?:=[^`]*)?`", PAGE))
    known = {field.name for field in fields(ServerConfig)}
    known |= {"implicit_tls", "proxy_header", "mail_params", "rcpt_params", "on_auth", "on_vrfy", "on_expn"}
    known |= {"on_data", "on_hello"}
    assert names <= known


# ---- each rule for hostile input has a test of its name

NOT_THERE = {"s25"}  # the list has no such number


@pytest.fixture(scope="module")
def named_rules() -> set[str]:
    names = set()
    for path in (ROOT / "tests").glob("test_*.py"):
        for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE):
            names |= set(re.findall(r"_([sc]\d+)(?=_|$)", name))
    return names


def test_rules_of_the_server(named_rules: set[str]) -> None:
    together = {f"s{n}" for n in range(2, 14)}  # test_s1_to_s14
    rules = {f"s{n}" for n in range(1, 43)}
    assert rules - named_rules - together - NOT_THERE == set()


def test_rules_of_the_client(named_rules: set[str]) -> None:
    assert {f"c{n}" for n in range(1, 17)} - named_rules == set()
