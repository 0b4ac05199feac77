# What happens in the inbox, told to those who listen: pages and programs, each at its own pace.
#
# Guarantee: a listener that does not keep up costs a limited amount of memory, and learns that it has missed something.
from __future__ import annotations

import json
from collections import deque
from types import TracebackType
from typing import Any, Final, Self

import trio

MAX_WAITING: Final = 256  # events of one listener that were not taken yet; then one that says "load anew" replaces them
MAX_LISTENERS: Final = 100
MAX_SINGLE: Final = 200  # messages that change at once and are told one by one


class TooManyError(Exception):
    """There are as many listeners as there may be."""


class Events:
    """The events of one inbox."""

    def __init__(self) -> None:
        self._listeners: set[Listener] = set()

    def __repr__(self) -> str:
        return f"<Events: {len(self._listeners)} listeners>"

    def publish(self, kind: str, data: object) -> None:
        """Tell all that listen now."""
        if self._listeners:
            text = json.dumps({"Type": kind, "Data": data}, ensure_ascii=False)
            for listener in self._listeners:
                listener._put(text)

    def publish_each(self, kind: str, ids: list[str], **data: Any) -> None:
        """Tell of each message by itself, or, of very many, that lists are to be loaded anew."""
        if len(ids) > MAX_SINGLE:
            self.publish("prune", None)
        else:
            for name in ids:
                self.publish(kind, {"ID": name, **data})

    def listen(self) -> Listener:
        """A new listener, for a ``with`` block.

        Raises:
            TooManyError: there are enough.
        """
        if len(self._listeners) >= MAX_LISTENERS:
            raise TooManyError
        return Listener(self._listeners)


class Listener:
    """Listens as long as its ``with`` block lasts."""

    def __init__(self, listeners: set[Listener]) -> None:
        self._listeners = listeners
        self._waiting: deque[str] = deque()
        self._news: trio.Event = trio.Event()

    def __enter__(self) -> Self:
        self._listeners.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._listeners.discard(self)

    def _put(self, text: str) -> None:
        if len(self._waiting) >= MAX_WAITING:
            self._waiting.clear()
            text = json.dumps({"Type": "prune", "Data": None})
        self._waiting.append(text)
        self._news.set()

    async def next(self) -> str:
        """The next event, as JSON. A checkpoint; cancelled, nothing is lost."""
        await trio.lowlevel.checkpoint()
        while not self._waiting:
            self._news = trio.Event()
            await self._news.wait()
        return self._waiting.popleft()
