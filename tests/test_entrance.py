# Functions whose result is for ``async with``, and what is said where it is used in another way.
from __future__ import annotations

import asyncio
import threading

import pytest
import trio

from trio_smtp._wire.entrance import check_trio, entrance


@entrance("thing")
async def open_thing(value, *, fails=False):
    """A thing."""
    await trio.lowlevel.checkpoint()
    try:
        yield value
    finally:
        if fails:
            raise ValueError("at the end")


async def test_it_is_a_context_manager():
    async with open_thing(1) as value:
        assert value == 1
    with pytest.raises(ValueError, match="at the end"):
        async with open_thing(2, fails=True):
            pass
    with pytest.raises(KeyError) as caught:
        async with open_thing(3):
            raise KeyError("in the block")
    assert isinstance(caught.value, KeyError)
    assert (open_thing.__name__, open_thing.__doc__) == ("open_thing", "A thing.")


async def test_other_uses_say_how_it_is_used():
    usage = r"open_thing\(\) is used as 'async with open_thing\(...\) as thing'"
    with pytest.raises(AttributeError, match=usage + ": what it returns has no 'send'"):
        open_thing(1).send  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(TypeError, match=usage + ", not with 'await'"):
        await open_thing(1)  # type: ignore[misc]
    with pytest.raises(TypeError, match=usage + ", not with 'with'"), open_thing(1):  # type: ignore[attr-defined]
        pass


def test_it_is_for_trio():
    async def main():
        async with open_thing(1):
            pass

    with pytest.raises(RuntimeError, match=r"open_thing\(\) needs Trio"):
        asyncio.run(main())
    with pytest.raises(RuntimeError, match="this needs Trio"):
        check_trio("this")


async def test_a_thread_without_trio_is_told_so():
    errors = []

    def work():
        try:
            check_trio("this")
        except RuntimeError as exc:
            errors.append(str(exc))

    thread = threading.Thread(target=work)
    thread.start()
    await trio.to_thread.run_sync(thread.join)
    assert len(errors) == 1
    check_trio("this")
