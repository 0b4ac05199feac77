# The way in: functions whose result is for ``async with``, under Trio. What is made of it by mistake says so, instead
# of speaking of objects inside it.
from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import wraps
from types import TracebackType
from typing import Generic, NoReturn, ParamSpec, TypeVar

import trio

P = ParamSpec("P")
T = TypeVar("T")


def check_trio(name: str) -> None:
    """Raise a RuntimeError unless this is a task of Trio's.

    Args:
        name: what was called.
    """
    if not trio.lowlevel.in_trio_task():
        raise RuntimeError(
            f"{name} needs Trio: start the program with trio.run(main); asyncio, and a thread without Trio, will not do"
        )


def entrance(word: str) -> Callable[[Callable[P, AsyncIterator[T]]], Callable[P, AbstractAsyncContextManager[T]]]:
    """As ``contextlib.asynccontextmanager``, for a public function.

    Args:
        word: what its block is given, for messages.
    """

    def decorate(function: Callable[P, AsyncIterator[T]]) -> Callable[P, AbstractAsyncContextManager[T]]:
        manage = asynccontextmanager(function)

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> AbstractAsyncContextManager[T]:
            return _Entrance(function.__name__, word, manage(*args, **kwargs))

        return call

    return decorate


class _Entrance(AbstractAsyncContextManager[T], Generic[T]):
    """What such a function returns."""

    def __init__(self, name: str, word: str, manager: AbstractAsyncContextManager[T]) -> None:
        self._name, self._word, self._manager = name, word, manager

    async def __aenter__(self) -> T:
        check_trio(f"{self._name}()")
        return await self._manager.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._manager.__aexit__(kind, error, trace)  # noqa: ASYNC102 - what it awaits is the function's

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{self._usage()}: what it returns has no {name!r}")

    def __await__(self) -> Generator[None, None, NoReturn]:
        raise TypeError(f"{self._usage()}, not with 'await'")

    def __aiter__(self) -> NoReturn:
        raise TypeError(f"{self._usage()}, not with 'async for'")

    def __enter__(self) -> NoReturn:
        raise TypeError(f"{self._usage()}, not with 'with'")

    def __exit__(self, *exc_info: object) -> None: ...

    def _usage(self) -> str:
        return f"{self._name}() is used as 'async with {self._name}(...) as {self._word}'"
