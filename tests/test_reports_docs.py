"""docs/reports.md, held against the code: its examples run, its tables have every field, its numbers are the limits."""

from __future__ import annotations

import dataclasses
import re
from functools import partial
from typing import Any

import pytest
import trio
from pages import blocks, read_page, run

import trio_smtp
from trio_smtp.reports import Action, Report, ReportedRecipient, _fields, _making, _reading
from trio_smtp.testing import open_server, open_sink

TEXT = read_page("reports.md")
NAMES = set(re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```$", "", TEXT, flags=re.M | re.S)))


async def test_the_examples_run(capsys: pytest.CaptureFixture[str]) -> None:
    """The first sends a report on a refused recipient to the second."""
    making, reading = blocks(TEXT)
    names = run(reading, run(making))
    async with open_sink() as target, open_server(names["Bounces"]()) as bounces:
        target.refuse("rcpt", 550, "no such user", "5.1.1", address="you@y.test")

        async def route() -> list[tuple[str, int | None]]:
            return [(target.host, target.port)] if not routes.pop() else [(bounces.host, bounces.port)]

        routes = [True, False]
        config = trio_smtp.PoolConfig(max_messages=1)
        async with (
            trio_smtp.open_pool(route, tls="none", config=config) as pool,
            open_server(names["Relay"](pool), config=trio_smtp.ServerConfig(enabled_extensions=("DSN",))) as relay,
            trio_smtp.open_client(relay.host, relay.port, **relay.client_options) as client,
        ):
            send = partial(client.send, mail_params={"ENVID": "order-4711"})
            with trio.fail_after(20):
                await send("me@x.test", ["you@y.test"], b"Subject: hi\r\n\r\nhi\r\n")
    assert capsys.readouterr().out == "order-4711 you@y.test failed 5.1.1 550 5.1.1 no such user\n"


@pytest.mark.parametrize("cls", [Report, ReportedRecipient])
def test_every_field_is_named(cls: Any) -> None:
    table = TEXT.partition(f"| `{cls.__name__}` |")[2].partition("\n\n")[0]
    assert re.findall(r"`(\w+)`", "".join(row.split("|")[1] for row in table.splitlines()[2:])) != []
    named = set(re.findall(r"`(\w+)`", "".join(row.split("|")[1] for row in table.splitlines()[2:])))
    assert named == {field.name for field in dataclasses.fields(cls)}


def test_actions_and_limits() -> None:
    assert {action.value for action in Action} <= NAMES
    assert (_fields.MAX_HEADER, _reading.MAX_STATUS, _reading.MAX_RECIPIENTS) == (256 << 10, 4 << 20, 10_000)
    assert (_reading.MAX_DEPTH, _reading.MAX_PARTS, _reading.MAX_TEXT) == (5, 100, 64 << 10)
    assert (_fields.MAX_FIELD, _fields.MAX_LINES, _making.RETURNED) == (8 << 10, 200, 50_000)
    for words in ("256 KiB", "4 MiB", "10,000 recipients", "8 Ki characters and 200 lines", "64 KiB", "50,000 octets"):
        assert words in TEXT.replace("\n", " ")
