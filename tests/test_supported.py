"""docs/supported.md says what the code does: its tables are compared with the code's."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from trio_smtp import ClientConfig, ServerConfig, ServerExtension
from trio_smtp._client.body import BLOCK
from trio_smtp._protocol.extensions import EXTENSIONS, KNOWN_EXTENSIONS
from trio_smtp._protocol.parameter_text import required_extensions
from trio_smtp._protocol.parameters import PARAMETERS
from trio_smtp._protocol.sasl import CLIENT_MECHANISMS, SERVER_MECHANISMS
from trio_smtp._protocol.server.commands import COMMANDS, UNIMPLEMENTED
from trio_smtp._protocol.server.reply_queue import MAX_REPLIES
from trio_smtp._server.stress import FEW_SLOTS, NEWCOMER, PATIENCE, SHORTER_WAITS

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "supported.md").read_text(encoding="utf-8")


# What defines each: the registries of IANA, SMTP Service Extensions and SASL Mechanisms, and Postfix's own.
RFCS = {
    "PIPELINING": "2920",
    "SIZE": "1870",
    "8BITMIME": "6152",
    "SMTPUTF8": "6531",
    "ENHANCEDSTATUSCODES": "2034, 3463",
    "STARTTLS": "3207",
    "AUTH": "4954",
    "CHUNKING": "3030",
    "BDAT": "3030",
    "BINARYMIME": "3030",
    "LIMITS": "9422",
    "DSN": "3461",
    "REQUIRETLS": "8689",
    "MT-PRIORITY": "6710",
    "DELIVERBY": "2852",
    "FUTURERELEASE": "4865",
    "LHLO": "2033",
    "XCLIENT": "Postfix",
    "XFORWARD": "Postfix",
    **dict.fromkeys(("EHLO", "HELO", "MAIL", "RCPT", "DATA", "RSET", "NOOP", "QUIT", "HELP", "VRFY", "EXPN"), "5321"),
    "SCRAM-SHA-256": "5802, 7677",
    "SCRAM-SHA-1": "5802",
    "OAUTHBEARER": "7628",
    "XOAUTH2": "Google",
    "XOAUTH": "Google",
    "EXTERNAL": "4422",
    "CRAM-MD5": "2195",
    "PLAIN": "4616",
    "LOGIN": "–",
}


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


def test_what_the_client_looks_for_in_an_offer() -> None:
    """`auto` is what its code asks the server's offer for; nothing else is decided by that, but for `asked`."""
    text = "".join(path.read_text("utf-8") for folder in ("_client", "_pool") for path in package(folder))
    looked_for = set(re.findall(r'"([A-Z0-9-]+)" (?:not )?in (?:[a-z_]+\.)*extensions\b', text))
    looked_for |= {name.upper() for name in re.findall(r"\bextensions\.(size|auth|limits)\b", text)}
    assert {row[0] for row in table("Extensions") if row[3] == "auto"} == looked_for
    assert {row[3] for row in table("Extensions")} == {"auto", "always", "asked", "–"}


def package(folder: str) -> list[Path]:
    return sorted((ROOT / "trio_smtp" / folder).glob("*.py"))


@pytest.mark.parametrize("heading", ["Extensions", "Commands of the server", "Mechanisms of AUTH"])
def test_sources(heading: str) -> None:
    assert {row[0]: row[1] for row in table(heading)} == {row[0]: RFCS[row[0]] for row in table(heading)}


def test_parameters() -> None:
    assert table("Parameters") == [[row.keyword, row.command, row.extension] for row in PARAMETERS]


def test_commands() -> None:
    rows = [row[0] for row in table("Commands of the server")]
    assert len(rows) == len(set(rows))
    assert set(rows) == {row.verb for row in COMMANDS}


def test_mechanisms() -> None:
    rows = table("Mechanisms of AUTH")
    assert len(rows) == len({row[0] for row in rows})
    assert {cell for row in rows for cell in row[2:]} == {"yes", "–"}
    assert {row[0] for row in rows if row[2] == "yes"} == SERVER_MECHANISMS.keys()
    assert {row[0] for row in rows if row[3] == "yes"} == CLIENT_MECHANISMS


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


def test_limits_that_are_fixed() -> None:
    assert f"when {MAX_REPLIES} of them have gathered" in PAGE


def test_waits_that_become_shorter() -> None:
    rows = table("When slots run short")
    assert rows[1:] == [[f"{share:.0%}".replace("%", " %"), f"{seconds:g} seconds"] for share, seconds in SHORTER_WAITS]
    text = PAGE.replace("\n", " ")
    for words in (f"fewer than {FEW_SLOTS} slots", f"first {NEWCOMER} seconds", f"more than {PATIENCE:g} seconds"):
        assert words in text


def test_limits_of_the_client() -> None:
    config = ClientConfig()
    rows = table("Limits of the client")
    assert [(name, value) for name, value, _ in rows] == [
        (field.name, str(getattr(config, field.name)))
        for field in fields(config)
        if isinstance(getattr(config, field.name), int | float) and not isinstance(getattr(config, field.name), bool)
    ]
    assert f"each block of {BLOCK} octets" in rows[5][2]


def test_what_is_not_there() -> None:
    rows = table("What is not supported, and why")
    words = {word for row in rows for word in re.findall(r"[A-Z]{3,}", row[0])}
    assert not words & (KNOWN_EXTENSIONS | {row.verb for row in COMMANDS})
    refused = {word for row in rows if row[2].endswith("502.") for word in row[0].split(", ")}
    assert refused | {"EXPN"} == {verb.decode() for verb in UNIMPLEMENTED}
    assert ServerExtension("RRVS", rcpt_parameters=["RRVS"]).rcpt_parameters == ("RRVS",)


def test_every_name_in_the_text_exists() -> None:
    names = set(re.findall(r"`([a-z]+_[a-z_]+)(?:=[^`]*)?`", PAGE))
    known = {field.name for config in (ServerConfig, ClientConfig) for field in fields(config)}
    known |= {"implicit_tls", "proxy_header", "mail_params", "rcpt_params", "on_auth", "on_vrfy", "on_expn"}
    known |= {"on_data", "on_hello", "ssl_context"}
    assert names <= known
