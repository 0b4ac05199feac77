# What a worker has to write down about its entries. What comes while others are being written goes with the next group.
#
# Nothing that was noted is forgotten while the worker runs: what the store cannot take now is said again, however long
# it is away; once the worker was told to end, for a few seconds more. To say a change twice is to make it once.
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

import trio

from ._errors import LeaseLostError, StoreError
from ._pauses import Pauses
from ._states import Record, Transition
from ._store import Store
from ._trace import EventName

_LAST_WORDS: Final = 5.0  # seconds for writing down what is known, when cancelled


class Note(NamedTuple):
    """A change to be made. `written` is called with the record afterwards; ``None``: it is another's by now."""

    record: Record
    transition: Transition
    written: Callable[[Record | None], None]


class Tell(Protocol):
    """Told of a store that is away, and of an entry that was lost."""

    def __call__(self, name: EventName, record: Record | None = None, *, error: Exception | None = None) -> None: ...


class Ledger:
    """The changes that one worker makes when a try is over.

    Args:
        store: takes them.
        tell: told of what goes wrong.
    """

    def __init__(self, store: Store, tell: Tell) -> None:
        self._store: Final = store
        self._tell: Final = tell
        self._new: list[Note] = []
        self._failed: list[Note] = []
        self._again_at = math.inf  # when the failed ones are said again
        self._pauses: Final = Pauses()
        self._came = trio.Event()
        self._finishing = trio.Event()
        self._ended = trio.Event()

    def note(self, record: Record, transition: Transition, written: Callable[[Record | None], None]) -> None:
        """Have a change made soon."""
        self._new.append(Note(record, transition, written))
        self._came.set()

    async def finish(self) -> None:
        """Take no more notes, and return once all are written down, or, in a worker that was cancelled, given up."""
        self._finishing.set()
        self._came.set()
        await self._ended.wait()

    async def run(self) -> None:
        """Write down what is noted, until :meth:`finish` is called; when cancelled, still that, within bounds."""
        try:
            await self._write_notes()
        except trio.Cancelled:
            with trio.CancelScope(shield=True):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._give_up, nursery.cancel_scope)
                    await self._write_notes()
                    nursery.cancel_scope.cancel()
            raise
        finally:
            self._ended.set()

    async def _give_up(self, writing: trio.CancelScope) -> None:
        """End what is being written, some time after it was to finish."""
        await self._finishing.wait()
        await trio.sleep(_LAST_WORDS)
        writing.cancel()

    async def _write_notes(self) -> None:
        while True:
            if self._failed and trio.current_time() >= self._again_at:
                self._new, self._failed = self._failed + self._new, []
            if self._new:
                await self._write()
            elif self._finishing.is_set() and not self._failed:
                return
            else:
                self._came = trio.Event()
                with trio.move_on_at(self._again_at if self._failed else math.inf):
                    await self._came.wait()

    async def _write(self) -> None:
        """Write the new ones down; they stay noted if this is cancelled."""
        notes = list(self._new)
        answers: Sequence[Record | Exception]
        try:
            answers = await self._store.change_all([(note.record, note.transition) for note in notes])
        except StoreError as exc:
            answers = [exc] * len(notes)
        del self._new[: len(notes)]
        error: StoreError | None = None
        for note, answer in zip(notes, answers, strict=True):
            if isinstance(answer, Record):
                note.written(answer)
            elif isinstance(answer, LeaseLostError | LookupError):
                self._tell("lost", note.record, error=answer)
                note.written(None)
            elif isinstance(answer, StoreError):
                error = answer
                self._failed.append(note)
            else:
                raise answer
        if error is None and not self._failed:
            self._pauses.reset()
        elif error is not None:
            self._tell("store", error=error)
            self._again_at = trio.current_time() + self._pauses.next()
