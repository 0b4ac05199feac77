# A connection of the pool that a caller has for itself for a while: for a message in steps.
#
#   an attempt with a loan ──→ a worker hands its connection over, and waits ──→ give_back(): the worker goes on
#
# Guarantees: the worker waits for nothing else, and does nothing with the connection meanwhile. If the pool is
# cancelled, it closes the connection all the same, and the borrower's next word on it is an error. A loan that its
# caller gives up before it was handed over comes back at once.
from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Final

import trio

from .._client.message import Message
from .._client.report import DeliveryReport
from .connector import PooledConnection


class Loan:
    """One loan.

    Args:
        ended: called once, when it is given back.

    Attributes:
        connection: what was lent; ``None`` before.
        may_be_stale: it was idle before, or had a message: it may have died without a sign.
    """

    __slots__ = ("_ended", "_is_back", "connection", "may_be_stale")

    def __init__(self, ended: Callable[[], None]) -> None:
        self._ended: Final = ended
        self._is_back: trio.Event = trio.Event()
        self.connection: PooledConnection | None = None
        self.may_be_stale: bool = False

    def __repr__(self) -> str:
        state = "given back" if self._is_back.is_set() else "lent" if self.connection is not None else "wanted"
        return f"<Loan {state}: {self.connection!r}>"

    # -- the worker's side

    def lend(self, connection: PooledConnection) -> None:
        """Hand a connection over; the caller hears of it by the attempt's outcome."""
        self.connection = connection
        self.may_be_stale = connection.count_message()

    async def come_back(self) -> None:
        """Wait until it is given back."""
        await self._is_back.wait()

    # -- the caller's side

    def give_back(self) -> None:
        """Let the worker go on with it, in whatever state it is. Doing so twice is doing so once."""
        if not self._is_back.is_set():
            self._is_back.set()
            self._ended()


class _Nothing:
    """Text that comes in another way."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        raise NotImplementedError("the text of a message in steps is not read from here")


def errand() -> DeliveryReport:
    """What an attempt with a loan has for a message: one that cannot be sent together with others."""
    return DeliveryReport(Message("", ["postmaster"], _Nothing()))
