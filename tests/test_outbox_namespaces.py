"""The trial of outbox_namespaces.py at a small size: where this process may make network namespaces."""

from __future__ import annotations

import subprocess

import pytest
from cli_process import tool
from outbox_namespaces import play, two_hosts


@pytest.fixture(scope="module", autouse=True)
def can_have_hosts() -> None:
    tool("ip")
    try:
        with two_hosts():
            pass
    except OSError as exc:
        pytest.skip(f"no network namespaces: {exc}")


@pytest.mark.parametrize("store", ["sqlite", "redis"])
def test_each_message_comes_once(store: str) -> None:
    if store == "redis":
        tool("redis-server")
        pytest.importorskip("coredis")
    report = play(store, messages=30, workers=3)
    assert report["wrong"] == []
    assert report["states"] == {"sent": 30}


def test_nothing_is_left_of_them() -> None:
    with two_hosts() as hosts:
        process = hosts.start(hosts.servers, "receive")
        assert process.stdout is not None
        assert process.stdout.readline() == "listening\n"
    assert process.returncode == -9
    left = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    assert hosts.servers not in left
    assert hosts.clients not in left
