# What the outbox asks of a store: the whole of it. Two stores keep to this, one in SQLite, one in Redis.
#
# A store keeps records and their contents on shelves, finds what is due, and replaces a record only if it is the one
# that was read. What a change is, is not its business: that comes as a function (_states.py).
#
# Every method raises StoreError when the store cannot be used. A change may then have been made or not; changes are
# made so that saying them again is right.
from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import trio

from .._public import needs_extra
from ._config import OutboxConfig
from ._damage import Page
from ._rates import Limit
from ._states import Record, State, Transition


class Store(Protocol):
    """Records of an outbox, kept durably and shared with other processes."""

    async def add(self, record: Record, content: bytes) -> tuple[str, bool]:
        """Keep a new record; durable on return. If its key is known: the old one's id, and ``False``."""
        ...

    async def take(self, worker: str, limit: int, transition: Transition) -> list[tuple[Record, bytes]]:
        """Apply `transition` to at most `limit` records that are due, or whose lease has ended, and lease them.

        Each comes with its content, if it is to be sent. Those with the highest priority first, then in the order in
        which they were put.

        An entry that is damaged is set aside: the StoreError that names it comes from this call, or from the next.
        """
        ...

    async def change(self, record: Record, transition: Transition) -> Record:
        """Apply `transition` to the record as it now is; durable on return. `record` saves a look if it is current.

        Raises:
            LookupError: it is gone.
            Exception: what `transition` raises; then nothing was changed.
        """
        ...

    async def change_all(self, changes: Sequence[tuple[Record, Transition]]) -> list[Record | Exception]:
        """The same of several, with less to do: for each its record, or what :meth:`change` would raise."""
        ...

    async def renew(self, records: Sequence[Record], worker: str) -> None:
        """Let the leases of these claims begin anew, where they are still these claims."""
        ...

    async def load(self, entry_id: str) -> Record:
        """One record.

        Raises:
            LookupError: there is none.
            StoreError: it is damaged; the error has all that is there.
        """
        ...

    async def page(self, state: State | None, after: int, limit: int) -> Page:
        """Entries in the order in which they were put: at most `limit` of those with a higher place than `after`."""
        ...

    async def forget(self, entry_id: str) -> None:
        """Delete an entry whose record cannot be read, with its key and its content.

        Raises:
            LookupError: there is none.
            ValueError: it can be read.
        """
        ...

    async def counts(self) -> Mapping[State, int]:
        """How many there are in each state."""
        ...

    async def admit(self, limits: Mapping[str, Limit]) -> float:
        """Count a start in these scopes, or say how many seconds to wait."""
        ...

    async def prune(self) -> None:
        """Forget what has been settled for ``keep_done``, and put right what a clock that was set back has left."""
        ...

    def bell(self) -> trio.Event:
        """An event that is set, in :meth:`wait`, when something may have changed since, in any process."""
        ...

    async def wait(self, bell: trio.Event, seconds: float) -> None:
        """Wait for the bell, or so many seconds."""
        ...

    async def time(self) -> float:
        """Now, by the clock that all workers share: seconds since the epoch."""
        ...


def open_store(url: str, config: OutboxConfig) -> AbstractAsyncContextManager[Store]:
    """Open the store that the address names.

    Raises:
        ValueError: it names none.
        ModuleNotFoundError: coredis is not installed.
    """
    scheme, colon, rest = url.partition(":")
    if not colon or not rest:
        raise ValueError(f"{url!r} names no store: it is sqlite:FILE or redis://HOST:PORT/DB")
    if scheme == "sqlite":
        from ._sqlite import open_sqlite

        return open_sqlite(sqlite_path(rest), config)
    if scheme in ("redis", "rediss", "unix"):
        with needs_extra("an outbox in Redis", "redis"):
            from ._redis import open_redis
        return open_redis(url, config)
    raise ValueError(f"there is no store for {scheme!r}: it is sqlite:FILE or redis://HOST:PORT/DB")


def sqlite_path(rest: str) -> str:
    """The file of ``sqlite:FILE``, which may also be written ``sqlite:///FILE``."""
    return rest[2:] if rest.startswith("//") else rest


def domains(recipients: Iterable[str]) -> set[str]:
    """The recipients' domains, for limits."""
    return {address.rpartition("@")[2].lower() for address in recipients}
