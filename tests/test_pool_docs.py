# docs/pool.md, held against the code: its example is run, its tables have every field and every default.
from __future__ import annotations

import dataclasses
import re
import typing
from functools import partial

import pytest
import trio
import trio.testing
from fault_server import Manner
from faults import Scenario, playing
from pages import blocks, read_page, started_by
from pool_server import network, pool_of

import trio_smtp
from trio_smtp._client.log import logger
from trio_smtp._pool.trace import TraceName

TEXT = read_page("pool.md")
NAMES = re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```$", "", TEXT, flags=re.M | re.S))


def table(heading: str) -> list[list[str]]:
    """The rows under a heading cell."""
    _, _, rest = TEXT.partition(f"\n| {heading} |")
    rows = rest.partition("\n\n")[0].splitlines()[2:]
    assert rows, heading
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]


async def test_the_example_runs(capsys, monkeypatch, nursery):
    [code, bulk] = blocks(TEXT)
    [listener] = await nursery.start(partial(trio_smtp.serve, trio_smtp.Discard(), 0, host="127.0.0.1"))
    port = listener.socket.getsockname()[1]
    assert code.count('"localhost", 2525') == 1
    main, _ = started_by(code.replace('"localhost", 2525', f'"127.0.0.1", {port}'), monkeypatch)
    with trio.fail_after(20):
        await main()
    assert capsys.readouterr().out == "['you@example.com'] {} 1\n"
    main, _ = started_by(bulk.replace('"localhost", 2525', f'"127.0.0.1", {port}'), monkeypatch)
    with trio.fail_after(20):
        await main()
    assert set(capsys.readouterr().out.splitlines()) == {f"member{n}@example.com sent" for n in range(1, 101)}
    nursery.cancel_scope.cancel()


def test_configuration_has_every_field_with_its_default():
    fields = {f"`{field.name}`": field.default for field in dataclasses.fields(trio_smtp.PoolConfig)}
    shown = {name: default.strip("`") for name, default, _ in table("`PoolConfig` | Default |")}
    assert list(shown) == list(fields)
    assert shown == {name: repr(default).replace("'", '"') for name, default in fields.items()}


def test_statistics_have_every_field():
    fields = [f"`{field.name}`" for field in dataclasses.fields(trio_smtp.PoolStatistics)]
    assert [row[0] for row in table("`PoolStatistics` |")] == fields


def test_trace_has_every_event():
    assert [row[0].strip("`") for row in table("`TraceEvent.name` | `seconds` | `detail`")] == list(
        typing.get_args(TraceName)
    )


def test_deliveries_are_the_words_of_the_code():
    shown = {row[1].strip("` ") for row in table("What happened | `delivery` | Tried again")} - {"–"}
    assert shown == set(trio_smtp.Delivery)
    assert f"`{logger.name}`" in TEXT


@pytest.mark.parametrize(
    "name", sorted({name for name in NAMES if re.fullmatch(r"[a-z]+_[a-z_]+", name)} - {"trio_smtp"})
)
def test_names_exist(name):
    owners = (
        *(trio_smtp.PoolConfig, trio_smtp.ClientConfig, trio_smtp.PoolStatistics, trio_smtp.SendResult),
        *(trio_smtp.Pool, trio_smtp.TraceEvent),
    )
    known = {field.name for owner in owners if dataclasses.is_dataclass(owner) for field in dataclasses.fields(owner)}
    assert name in known | {*trio_smtp.Delivery, *trio_smtp.__all__} | {n for owner in owners for n in vars(owner)}


# -- what the table of retries says, where no other test says it


async def test_temporary_refusal_of_starttls_is_tried_again_and_a_permanent_one_is_not(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    for words, connections in (("454 4.7.0 not now", 3), ("554 5.7.0 never", 1)):
        async with network(monkeypatch) as net:

            async def script(peer, number, words=words):
                await peer.greet("STARTTLS")
                await peer.hear("STARTTLS")
                await peer.say(words)
                await peer.drain()

            net.script = script
            async with pool_of(trio_smtp.PoolConfig(connect_retries=2)) as pool:
                with pytest.raises(trio_smtp.TLSError) as caught:
                    await pool.send("a@x.test", ["b@y.test"], b"x")
            assert caught.value.delivery == "not_sent"
            assert net.connections == connections


async def test_trace_tells_how_long_tls_and_auth_took(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    events: list[trio_smtp.TraceEvent] = []
    manner = Manner(tls="starttls", auth="PLAIN")
    async with playing(Scenario("", manner, config={"trace": events.append}, close=True), monkeypatch) as run:
        await run.once()
    assert [(event.name, event.connection) for event in events] == [
        ("tls", 1),
        ("auth", 1),
        ("connect", 1),
        ("send", 1),
        ("message", 0),
        ("retire", 1),
    ]
