"""Hosts in the order of preference, those that failed last for a while, and what is no host."""

from __future__ import annotations

from typing import Any

import pytest
from trio.testing import MockClock

from trio_smtp._pool.hosts import Hosts


async def test_the_order_is_that_of_preference_and_each_host_comes_once() -> None:
    hosts = Hosts(["a.test", ("b.test", 2525), ("c.test", None), "a.test"], 25, 60)
    assert await hosts.routes() == [("a.test", 25), ("b.test", 2525), ("c.test", 25)]
    assert str(hosts) == "a.test, b.test, c.test"
    pair: Any = ("a.test", 2525)
    assert await Hosts(pair, None, 60).routes() == [("a.test", 2525)]


async def test_a_host_that_failed_is_last_until_its_rest_is_over(autojump_clock: MockClock) -> None:
    hosts = Hosts(["a.test", "b.test", "c.test"], None, 60)
    hosts.failed(("a.test", None))
    assert [name for name, _ in await hosts.routes()] == ["b.test", "c.test", "a.test"]
    autojump_clock.jump(59)
    hosts.failed(("b.test", None))
    assert [name for name, _ in await hosts.routes()] == ["c.test", "a.test", "b.test"]
    autojump_clock.jump(1)
    assert [name for name, _ in await hosts.routes()] == ["a.test", "c.test", "b.test"]
    hosts.succeeded(("b.test", None))
    assert [name for name, _ in await hosts.routes()] == ["a.test", "b.test", "c.test"]


async def test_a_callable_is_asked_each_time_and_checked_each_time() -> None:
    answers: list[Any] = ["a.test", [("b.test", 26)], []]

    async def ask() -> Any:
        return answers.pop(0)

    hosts = Hosts(ask, 25, 60)
    assert str(hosts) == "hosts to be asked for"
    assert await hosts.routes() == [("a.test", 25)]
    assert await hosts.routes() == [("b.test", 26)]
    with pytest.raises(ValueError, match="no host"):
        await hosts.routes()


async def test_a_function_that_is_not_async_says_so() -> None:
    with pytest.raises(TypeError, match=r"host, where it is a function, must be async: it returned 'a\.test'"):
        await Hosts(lambda: "a.test", 25, 60).routes()  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize(
    ("hosts", "error"),
    [
        ([], ValueError),
        ("", TypeError),
        ([b"a.test"], TypeError),
        ([None], TypeError),
        ([42], TypeError),
        ([("a.test",)], TypeError),
        ([("a.test", 25, 26)], TypeError),
        ([("a.test", "25")], TypeError),
        ([("a.test", True)], TypeError),
        ([("a.test", 0)], ValueError),
        ([("a.test", 65536)], ValueError),
    ],
)
def test_what_is_no_host(hosts: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"a host is|a port is|no host"):
        Hosts(hosts, None, 60)
