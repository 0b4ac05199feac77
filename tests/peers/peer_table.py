# Which cases are tested with which servers, and the page docs/peers.md that says so.
#
# Every cell is tested, unless it stands in ABSENT with the reason why there is nothing to test. What is expected to
# fail stands in BROKEN, and a test of it that passes is an error; so the page cannot claim what does not hold.
# This file, run as a program, writes the page with the versions that are installed.
from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "peers.md"

SERVERS = {
    "postfix": "Postfix",
    "exim": "Exim",
    "dovecot_lmtp": "Dovecot LMTP",
    "dovecot_submission": "Dovecot submission",
    "haraka": "Haraka",
    "haproxy_v1": "HAProxy, PROXY v1",
    "haproxy_v2": "HAProxy, PROXY v2",
}
CLIENTS = {
    "postfix": "Postfix",
    "exim": "Exim",
    "dovecot_submission": "Dovecot submission",
    "haraka": "Haraka",
}

_BOTH = {
    "plain": "a message to one recipient",
    "STARTTLS": "encrypted",
    "AUTH": "after a login",
    "8-bit": "UTF-8, and every octet from 128 to 255",
    "SMTPUTF8": "addresses and a header that are not ASCII",
    "dots": "at line starts, wherever blocks may end",
    "long lines": "up to 20000 octets",
    "10 MiB": "a message of that size",
    "100 recipients": "in one transaction",
    "partial refusal": "one recipient of three is refused",
    "reuse": "several messages on one connection",
}
TO = {
    **_BOTH,
    "depth 1": "a pool, one message at a time on a connection",
    "depth 4, BDAT": "a pool, up to four messages in flight on a connection, behind one another",
    "depth 4, DATA": "the same, each envelope behind the end of the message before",
}
FROM = {**_BOTH, "LMTP": "RFC 2033: a reply for each recipient"}

# (direction, server, case): why there is nothing to test
ABSENT = {
    ("to", "dovecot_lmtp", "AUTH"): "Dovecot's LMTP has no AUTH.",
    ("to", "dovecot_lmtp", "SMTPUTF8"): "Dovecot 2.3 does not offer SMTPUTF8.",
    ("to", "dovecot_submission", "SMTPUTF8"): "Dovecot 2.3 does not offer SMTPUTF8.",
    ("to", "haraka", "depth 4, BDAT"): "Haraka does not offer CHUNKING.",
    ("from", "dovecot_submission", "SMTPUTF8"): "Dovecot 2.3 does not offer SMTPUTF8.",
    ("from", "dovecot_submission", "LMTP"): "Dovecot submission relays by SMTP only.",
    ("from", "haraka", "reuse"): "Haraka opens a connection for each message.",
}

# (direction, server, case): what fails
BROKEN: dict[tuple[str, str, str], str] = {
    ("to", "dovecot_submission", "depth 4, DATA"): (
        "Dovecot's submission service fails an assertion and ends (signal 6) when RCPT follows the end of a message "
        "before its reply. The message is relayed, and its sender never hears of it."
    ),
}


TESTED: set[tuple[str, str]] = set()  # (direction, case) of the tests that were made


def cells(direction: str, *cases: str) -> list[Any]:
    """Parameters (server, case) of a test: all servers, with some of the cases."""
    TESTED.update((direction, case) for case in cases)
    return [
        pytest.param(server, case, id=f"{server}-{case}", marks=_marks((direction, server, case)))
        for server in (SERVERS if direction == "to" else CLIENTS)
        for case in cases
        if (direction, server, case) not in ABSENT
    ]


def fails(reason: str) -> pytest.MarkDecorator:
    """The mark of a test that is expected to fail; that a server is missing, or does not start, is no such failure."""
    return pytest.mark.xfail(strict=True, reason=reason, raises=(AssertionError, ExceptionGroup))


def _marks(cell: tuple[str, str, str]) -> list[pytest.MarkDecorator]:
    return [fails(BROKEN[cell])] if cell in BROKEN else []


def render(versions: dict[str, str]) -> str:
    """The page."""
    notes: list[str] = []
    with_notes = [
        *_table("to", SERVERS, TO, notes),
        "",
        "## From them to our server",
        "",
        *_table("from", CLIENTS, FROM, notes),
        "",
        *(f"{number}. {note}" for number, note in enumerate(notes, 1)),
    ]
    return "\n".join(
        [
            "# Which servers it was tried with",
            "",
            "`pytest -m peers` starts these servers, sends and receives, and compares every octet.",
            "`tests/peers/install.sh` installs them; `python tests/peers/peer_table.py` writes this page.",
            "",
            "| Server | Version |",
            "|---|---|",
            *(f"| {name} | {version} |" for name, version in versions.items()),
            "",
            "## From our client and pool to them",
            "",
            "Both with BDAT, where CHUNKING is offered, and with DATA. Behind HAProxy is our own server, which is told",
            "the client's address.",
            "",
            *with_notes,
            "",
        ]
    )


def _table(direction: str, servers: dict[str, str], cases: dict[str, str], notes: list[str]) -> list[str]:
    lines = [f"| | {' | '.join(servers.values())} |", f"|---|{'---|' * len(servers)}"]
    for case, text in cases.items():
        row = [f"**{case}**: {text}"]
        for server in servers:
            cell = (direction, server, case)
            note = ABSENT.get(cell) or BROKEN.get(cell)
            if note is None:
                row.append("yes")
                continue
            if note not in notes:
                notes.append(note)
            row.append(f"{'–' if cell in ABSENT else 'no'} ({notes.index(note) + 1})")
        lines.append(f"| {' | '.join(row)} |")
    return lines


def page_versions(page: str) -> dict[str, str]:
    """The versions that a page names."""
    table = page.split("| Server | Version |\n|---|---|\n", 1)[1].split("\n\n", 1)[0]
    return dict(re.findall(r"^\| (.+) \| (.+) \|$", table, re.MULTILINE))


def installed_versions() -> dict[str, str]:
    """The versions that are installed; the test is skipped where one is missing."""
    from peer_dovecot import dovecot_version
    from peer_exim import exim_version
    from peer_haproxy import haproxy_version
    from peer_haraka import haraka_version
    from peer_postfix import postfix_version

    return {
        "Postfix": postfix_version(),
        "Exim": exim_version(),
        "Dovecot": dovecot_version(),
        "Haraka": haraka_version(),
        "HAProxy": haproxy_version(),
    }


if __name__ == "__main__":
    PAGE.write_text(render(installed_versions()), encoding="utf-8")
