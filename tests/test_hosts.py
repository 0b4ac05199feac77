"""Which hosts to connect to, in which order."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from trio_smtp._pool.hosts import Hosts, HostsLike


@pytest.mark.parametrize(
    ("given", "routes"),
    [
        ("a.test", [("a.test", 25)]),
        (("a.test", 26), [("a.test", 26)]),
        (("a.test", "b.test"), [("a.test", 25), ("b.test", 25)]),
        (["a.test", ("b.test", 26), ("c.test", None)], [("a.test", 25), ("b.test", 26), ("c.test", 25)]),
        (["a.test", "b.test", ("a.test", 25)], [("a.test", 25), ("b.test", 25)]),
    ],
)
async def test_what_may_be_given(given: HostsLike, routes: list[tuple[str, int]]) -> None:
    assert await Hosts(given, 25, 60).routes() == routes


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ([], ValueError),
        ("", TypeError),
        ([42], TypeError),
        ([("a.test", "25")], TypeError),
        ([("a.test", True)], TypeError),
        ([("a.test", 0)], ValueError),
        ([("a.test", 65536)], ValueError),
    ],
)
def test_what_may_not(given: HostsLike, error: type[Exception]) -> None:
    with pytest.raises(error):
        Hosts(given, None, 60)


async def test_failed_hosts_come_last_in_their_order(autojump_clock: MockClock) -> None:
    hosts = Hosts(["a.test", "b.test", "c.test"], None, 60)
    a, b, c = await hosts.routes()
    hosts.failed(b)
    hosts.failed(a)
    assert await hosts.routes() == [c, a, b]
    hosts.succeeded(a)
    assert await hosts.routes() == [a, c, b]
    await trio.sleep(60)
    assert await hosts.routes() == [a, b, c]


async def test_a_function_is_asked_each_time(autojump_clock: MockClock) -> None:
    answers: list[list[str]] = [["a.test"], ["b.test", "a.test"], []]

    async def ask() -> list[str]:
        await trio.lowlevel.checkpoint()
        return answers.pop(0)

    hosts = Hosts(ask, 25, 60)
    assert str(hosts) == "hosts to be asked for"
    assert await hosts.routes() == [("a.test", 25)]
    assert str(hosts) == "a.test"
    hosts.failed(("b.test", 25))
    assert await hosts.routes() == [("a.test", 25), ("b.test", 25)]
    with pytest.raises(ValueError, match="no host"):
        await hosts.routes()
