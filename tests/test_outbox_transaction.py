"""put() inside an application's own SQLite transaction, and the example that shows it."""

from __future__ import annotations

import runpy
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest
import trio
from test_outbox import TEXT, A, B, opened, working

import trio_smtp
from trio_smtp.outbox import OutboxStatistics, State, StoreError, open_outbox, put_in_transaction

EXAMPLE = Path(__file__).parent.parent / "examples" / "order_mail.py"


async def test_it_is_there_if_and_only_if_the_rest_is(tmp_path):
    path = f"{tmp_path}/shop.db"
    async with opened(f"sqlite:{path}") as (outbox, sink, pool):
        with closing(sqlite3.connect(path)) as mine:
            mine.execute("CREATE TABLE orders (number INTEGER PRIMARY KEY)")
            mine.commit()
            with pytest.raises(ZeroDivisionError), mine:  # noqa: PT012 - the transaction is the point
                mine.execute("INSERT INTO orders VALUES (1)")
                put_in_transaction(mine, A, [B], TEXT, key="order-1")
                raise ZeroDivisionError
            assert await outbox.statistics() == OutboxStatistics()
            with mine:
                mine.execute("INSERT INTO orders VALUES (1)")
                ticket = put_in_transaction(mine, A, [B], TEXT, key="order-1")
                again = put_in_transaction(mine, A, [B], TEXT, key="order-1")
            assert (ticket.is_new, again.is_new, again.id) == (True, False, ticket.id)
        async with working(outbox, pool):
            assert (await outbox.wait(ticket.id)).state is State.SENT
        assert (await outbox.put(A, [B], TEXT, key="order-1")).id == ticket.id
    assert len(sink.messages) == 1


async def test_what_it_refuses(tmp_path):
    with closing(sqlite3.connect(tmp_path / "shop.db")) as mine:
        with pytest.raises(ValueError, match="no transaction is open"):
            put_in_transaction(mine, A, [B], TEXT)
        mine.execute("BEGIN")
        with pytest.raises(StoreError, match="no outbox yet"):
            put_in_transaction(mine, A, [B], TEXT)
        mine.rollback()
        async with open_outbox(f"sqlite:{tmp_path}/shop.db"):
            pass
        mine.execute("BEGIN")
        for wrong, error in (((A, ["x\n@y"], TEXT), trio_smtp.LocalProtocolError), ((A, B, TEXT), TypeError)):
            with pytest.raises(error):
                put_in_transaction(mine, *wrong)
        with pytest.raises(TypeError, match="EmailMessage"):
            put_in_transaction(mine, None, None, TEXT)


async def test_the_example(tmp_path):
    path = f"{tmp_path}/shop.db"
    done = await trio.run_process([sys.executable, str(EXAMPLE), path, "you@example.com"], capture_stdout=True)
    assert done.stdout.startswith(b"order 1: mail m")
    assert done.stdout.endswith(b" to you@example.com is queued\n")
    place_order = runpy.run_path(str(EXAMPLE))["place_order"]
    with closing(sqlite3.connect(path)) as mine:
        with pytest.raises(trio_smtp.LocalProtocolError):
            place_order(mine, "not an address", "teapot")
        assert mine.execute("SELECT count(*) FROM orders").fetchone() == (1,)  # no order without its mail
