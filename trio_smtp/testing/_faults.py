# A stream that fails where a test wants it to: at an octet, or behind certain octets.
#
# Each direction is a lane that knows how many octets have passed and what is still to happen. A fault happens between
# two octets: what comes before it has passed, whole, and nothing of what comes after.
from __future__ import annotations

import math
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

import trio


@dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """The connection ends.

    Attributes:
        after: how many octets still pass in this direction, or octets behind which it happens.
        reset: both sides get an error, where they can (TCP); else reading finds the end of the stream.
    """

    after: int | bytes = 0
    reset: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Stall:
    """Nothing moves in this direction any more, for a while or for ever.

    Attributes:
        after: how many octets still pass, or octets behind which it happens.
        seconds: for how long, by Trio's clock.
    """

    after: int | bytes = 0
    seconds: float = math.inf


@dataclass(frozen=True, slots=True)
class Split:
    """Octets pass in pieces of this size at most.

    Attributes:
        size: of a piece.
    """

    size: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.size, bool) or not isinstance(self.size, int):
            raise TypeError(f"size must be a number of octets, not {self.size!r:.80}")
        if self.size < 1:
            raise ValueError(f"size must be at least one octet, not {self.size}")


Fault: TypeAlias = Cut | Stall | Split
"""What goes wrong with a :class:`FaultyStream`."""


class FaultyStream(trio.abc.Stream):
    """A stream around another one, whose octets are cut off, held up or split.

    To its holder, a :class:`Cut` is a peer that went away: sending raises ``trio.BrokenResourceError``,
    receiving ends (or raises, too, with ``reset``). The stream below is closed, so that its other end notices.
    A :class:`Stall` waits until it is over, and can be cancelled like any wait for a peer; what of `data` had not
    passed then never will. Faults of a kind may be given more than once.

    Args:
        stream: owned from now on.
        send: what happens to octets that are sent.
        receive: what happens to octets that are received.
    """

    def __init__(
        self, stream: trio.abc.Stream, *, send: Fault | Iterable[Fault] = (), receive: Fault | Iterable[Fault] = ()
    ) -> None:
        self._stream = stream
        self._out = _Lane(send)
        self._in = _Lane(receive)
        self._held = b""  # received and not handed out yet
        self._cut: Cut | None = None
        self._closed = trio.Event()

    def __repr__(self) -> str:
        state = "closed" if self._closed.is_set() else "open" if self._cut is None else "cut off"
        return f"<trio_smtp.testing.FaultyStream around {self._stream!r}: {state}>"

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send what may pass, then let happen what is to happen.

        Raises:
            trio.BrokenResourceError: it was cut off, before or behind a part of `data`.
            trio.ClosedResourceError: this side has closed it.
        """
        rest = bytes(data)
        while True:
            self._check_sending()
            count, fault = self._out.look(rest)
            size = self._out.size or max(count, 1)
            try:
                for at in range(0, max(count, 1), size):
                    await self._stream.send_all(rest[at : min(at + size, count)])
            except trio.ClosedResourceError:
                self._check_sending()
                raise
            self._out.passed(rest[:count])
            rest = rest[count:]
            if fault is None:
                return
            await self._let_happen(self._out, fault)

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Receive what may pass; ``b""`` at the end, also after a :class:`Cut`.

        Raises:
            trio.BrokenResourceError: it was reset.
            trio.ClosedResourceError: this side has closed it.
        """
        while True:
            if self._closed.is_set():
                raise trio.ClosedResourceError
            if self._cut is not None:
                await trio.lowlevel.checkpoint()
                if self._cut.reset:
                    raise trio.BrokenResourceError("the connection was reset, as the test wanted")
                return b""
            most = min((limit for limit in (max_bytes, self._in.size) if limit is not None), default=None)
            count, fault = self._in.look(self._held)
            if count:
                count = count if most is None else min(count, most)
                data, self._held = self._held[:count], self._held[count:]
                self._in.passed(data)
                return data
            if fault is not None:
                await self._let_happen(self._in, fault)
                continue
            try:
                data = bytes(await self._stream.receive_some(most))
            except trio.ClosedResourceError:
                if self._cut is None:
                    raise
                continue  # it was cut while this waited
            if not data:
                return data
            self._held = data

    def _check_sending(self) -> None:
        if self._closed.is_set():
            raise trio.ClosedResourceError
        if self._cut is not None:
            raise trio.BrokenResourceError("the connection was cut off, as the test wanted")

    async def _let_happen(self, lane: _Lane, fault: Cut | Stall) -> None:
        if isinstance(fault, Cut):
            lane.over(fault)
            self._cut = fault
            await cut_off(self._stream, reset=fault.reset)
            return
        with trio.move_on_after(fault.seconds):
            await self._closed.wait()
        lane.over(fault)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait for the stream below.

        Raises:
            trio.BrokenResourceError: it was cut off.
            trio.ClosedResourceError: this side has closed it.
        """
        self._check_sending()
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close the stream below, also when cancelled. A task that waits on it gets ``trio.ClosedResourceError``."""
        self._closed.set()
        await self._stream.aclose()


async def cut_off(stream: trio.abc.Stream, *, reset: bool = False) -> None:
    """Close a stream without a word."""
    if reset and isinstance(stream, trio.SocketStream):
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await trio.aclose_forcefully(stream)


class _Lane:
    """One direction."""

    def __init__(self, faults: Fault | Iterable[Fault]) -> None:
        faults = (faults,) if isinstance(faults, Cut | Stall | Split) else tuple(faults)
        self.size = min((fault.size for fault in faults if isinstance(fault, Split)), default=None)
        self._pending = [fault for fault in faults if not isinstance(fault, Split)]
        self._octets = 0
        patterns = [len(fault.after) for fault in self._pending if isinstance(fault.after, bytes)]
        self._keep = max(patterns, default=0)
        self._tail = b""  # the last octets that have passed, in which a pattern may have begun

    def look(self, data: bytes) -> tuple[int, Cut | Stall | None]:
        """How many of these octets may pass, and what happens then."""
        count, first = len(data), None
        for fault in self._pending:
            point = self._point_of(fault.after, data)
            if point is not None and (point < count or (first is None and point == count)):
                count, first = point, fault
        return count, first

    def _point_of(self, after: int | bytes, data: bytes) -> int | None:
        if isinstance(after, int):
            point = max(after - self._octets, 0)
            return point if point <= len(data) else None
        tail = self._tail[-len(after) :] if after else b""  # the octets may have begun there, or be all there
        at = (tail + data).find(after)
        return at + len(after) - len(tail) if at >= 0 else None

    def passed(self, data: bytes) -> None:
        self._octets += len(data)
        if self._keep:
            self._tail = (self._tail + data)[-self._keep :]

    def over(self, fault: Cut | Stall) -> None:
        self._pending.remove(fault)
