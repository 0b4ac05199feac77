"""Requests that share the work of one: who leads, and what becomes of those that are cancelled."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from trio_smtp.outbox._combine import Combiner, Request


class Named(Request):
    __slots__ = ("name",)

    def __init__(self, name):
        super().__init__()
        self.name = name


class Work:
    """Does groups, each once it is let."""

    def __init__(self):
        self.groups: list[list[str]] = []
        self.gate = trio.Event()

    async def __call__(self, group):
        self.groups.append([request.name for request in group])
        await self.gate.wait()


@pytest.fixture
def work():
    return Work()


@pytest.fixture
def combiner(work):
    return Combiner(work, 10, 1000)


@pytest.fixture
def done():
    return []


async def ask(combiner, done, name):
    await combiner.ask(Named(name))
    done.append(name)


async def test_who_is_cancelled_after_it_is_begun_waits_for_its_answer(combiner, work, done):
    async with trio.open_nursery() as nursery, trio.open_nursery() as inner:
        inner.start_soon(ask, combiner, done, "a")
        await trio.testing.wait_all_tasks_blocked()
        inner.cancel_scope.cancel()
        nursery.start_soon(ask, combiner, done, "b")
        with trio.CancelScope(shield=True):
            await trio.testing.wait_all_tasks_blocked()
        assert (work.groups, done) == ([["a"]], [])
        work.gate.set()
    assert (work.groups, done) == ([["a"], ["b"]], ["a", "b"])


async def test_where_a_task_of_its_own_leads_who_is_cancelled_leaves_at_once(combiner, work, done, nursery):
    await nursery.start(combiner.serve)
    async with trio.open_nursery() as inner:
        inner.start_soon(ask, combiner, done, "begun")
        await trio.testing.wait_all_tasks_blocked()
        inner.start_soon(ask, combiner, done, "withdrawn")
        await trio.testing.wait_all_tasks_blocked()
        inner.cancel_scope.cancel()
    assert (work.groups, done) == ([["begun"]], [])
    nursery.start_soon(ask, combiner, done, "a")
    await trio.testing.wait_all_tasks_blocked()
    work.gate.set()
    await ask(combiner, done, "b")
    await trio.testing.wait_all_tasks_blocked()
    assert work.groups == [["begun"], ["a", "b"]]
    assert sorted(done) == ["a", "b"]


async def test_a_group_that_was_withdrawn_as_a_whole_is_none(combiner, work, done, nursery):
    await nursery.start(combiner.serve)
    async with trio.open_nursery() as inner:
        inner.start_soon(ask, combiner, done, "a")
        await trio.lowlevel.cancel_shielded_checkpoint()
        inner.cancel_scope.cancel()
    await trio.testing.wait_all_tasks_blocked()
    work.gate.set()
    await ask(combiner, done, "b")
    assert work.groups == [["b"]]


@pytest.mark.parametrize("is_begun", [True, False])
async def test_when_that_task_ends_those_who_wait_lead(is_begun, combiner, work, done):
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def serve(task_status):
            with scope:
                await combiner.serve(task_status=task_status)

        await nursery.start(serve)
        if is_begun:
            nursery.start_soon(ask, combiner, done, "a")
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(ask, combiner, done, "b")
            await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        work.gate.set()
        await ask(combiner, done, "c")
    assert sorted(done) == (["a", "b", "c"] if is_begun else ["c"])
