"""Each fault of outbox_faults.py at a small size; by hand it runs with a thousand messages and twenty faults."""

from __future__ import annotations

import pytest
from cli_process import tool
from outbox_faults import FAULTS, play


@pytest.mark.parametrize(("store", "fault"), [(store, fault) for store in FAULTS for fault in FAULTS[store]])
def test_every_message_is_delivered_once_or_held_in_doubt(store: str, fault: str) -> None:
    if store == "redis":
        tool("redis-server")
        pytest.importorskip("coredis")
    report = play(store, fault, messages=30, workers=2, faults=1)
    assert report["wrong"] == []
    assert set(report["ended_with"]) <= {0, -15}  # told to end, it does so; -15: before it had begun
