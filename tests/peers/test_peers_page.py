# docs/peers.md says what these tests show.
from __future__ import annotations

import test_from_peers
import test_to_peers
from peer_daemons import STRICT
from peer_table import (
    ABSENT,
    BROKEN,
    CLIENTS,
    FROM,
    PAGE,
    SERVERS,
    TESTED,
    TO,
    installed_versions,
    page_versions,
    render,
)

REGENERATE = "python tests/peers/peer_table.py writes the page"


def test_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == render(page_versions(page)), REGENERATE


def test_versions() -> None:
    """Patch levels come with the distribution's updates; where no tool may be missing, the rest is as the page says."""
    said, found = page_versions(PAGE.read_text(encoding="utf-8")), installed_versions()
    assert said.keys() == found.keys(), REGENERATE
    if STRICT:
        assert {name: series(text) for name, text in said.items()} == {
            name: series(text) for name, text in found.items()
        }, REGENERATE


def series(version: str) -> list[str]:
    return version.split(".")[:2]


def test_every_case_is_tested() -> None:
    assert test_to_peers.__file__ != test_from_peers.__file__  # both are imported, and have made their tests
    assert {("to", case) for case in TO} | {("from", case) for case in FROM} == TESTED


def test_exceptions_are_cells() -> None:
    cells = {("to", server, case) for server in SERVERS for case in TO}
    cells |= {("from", server, case) for server in CLIENTS for case in FROM}
    assert ABSENT.keys() | BROKEN.keys() <= cells
    assert not ABSENT.keys() & BROKEN.keys()
