# Where it is decided who sends what: messages on one side, connections' tasks on the other, and all that is counted.
#
# A message finds its connection in one synchronous step: an idle connection (the one used last, so that the others may
# grow old), or a new one if the limiter has a token, or else its caller waits in a memory channel of capacity 0, first
# come, first served, and the next task to be free takes it from there. Nothing is queued that nobody waits for, and
# a caller who goes away takes his message with him. A token is held on behalf of each connection's task and given
# back at its end; whenever there is a token and somebody waits, a task is started.
#
# Rule: every change of who is idle, who waits and how many there may be happens here, between two checkpoints.
from __future__ import annotations

import trio

from .._client.log import logger
from .._client.opening import Opening
from .._protocol.errors import Delivery, PoolClosedError, PoolFullError, SMTPError
from .._wire.opening import open_wire
from .._wire.timekeeper import Timekeeper
from .._wire.wire import Wire
from .config import PoolConfig
from .errand import Errand
from .feedback import Feedback
from .hosts import Hosts, Route
from .ratelimit import RateLimit
from .retry import is_of_the_wire
from .slot import Slot
from .trace import TraceEvent, TraceName


class Desk:
    """The pool's inside: callers hand errands over, slots take them.

    Attributes:
        idle: slots whose connection has nothing to do; the one used last is at the end.
        is_closing: no further message is taken.
        closed: set when that begins.
        opened: connections opened or tried.
    """

    def __init__(self, hosts: Hosts, opening: Opening, config: PoolConfig, nursery: trio.Nursery) -> None:
        self.config = config
        self.hosts = hosts
        self.opening = opening
        self.rate_limit = RateLimit(*config.rate_limit) if config.rate_limit is not None else None
        self.timekeeper = Timekeeper()
        self.idle: list[Slot] = []
        self.is_closing = False
        self.closed = trio.Event()
        self.opened = 0
        self._nursery = nursery
        self._slots: set[Slot] = set()
        self._limiter = trio.CapacityLimiter(config.max_connections)
        self._feedback = Feedback(config.max_connections)
        self._callers, self._errands = trio.open_memory_channel[Errand](0)
        self._shortage = trio.Event()  # there are fewer connections than min_idle
        self._warming_delay = 0.0

    # -- callers

    async def hand_over(self, errand: Errand, *, patient: bool = False) -> None:
        """Give a message to a connection's task, waiting for one if need be.

        Args:
            errand: the message.
            patient: wait even beyond ``max_waiting``.

        Raises:
            PoolFullError, PoolClosedError: nothing was sent.
        """
        if self.is_closing:
            raise closed_error()
        if errand.fresh and self._grow(errand):
            return
        if self.idle:
            self.idle.pop().assign(errand)
        elif not self._grow(errand):
            most = self.config.max_waiting
            if most is not None and self.waiting >= most and not patient:
                raise PoolFullError(
                    f"{self.waiting} messages wait for a connection already", delivery=Delivery.NOT_SENT
                )
            started = trio.current_time()
            try:
                await self._callers.send(errand)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                raise closed_error() from None
            self.trace("wait", started)

    # -- slots

    def take(self) -> Errand | None:
        """The message that has waited longest, if there may be as many connections as there are."""
        if not self.has_too_many:
            try:
                return self._errands.receive_nowait()
            except (trio.WouldBlock, trio.ClosedResourceError):
                pass
        return None

    @property
    def waiting(self) -> int:
        """Callers waiting for a connection; not one whose message was taken and who has yet to run."""
        return self._callers.statistics().tasks_waiting_send

    @property
    def connections(self) -> int:
        """Connections open or being opened."""
        return len(self._slots)

    @property
    def limit(self) -> int:
        """How many there may be now."""
        return self._feedback.limit

    @property
    def has_too_many(self) -> bool:
        """There are more than that."""
        return len(self._slots) > self._feedback.limit

    @property
    def keeps_warm(self) -> bool:
        """None of the connections can be spared."""
        return len(self._slots) <= self.config.min_idle

    def slot_ended(self, slot: Slot) -> None:
        """Take a connection's token back, and see who needs it."""
        self._slots.discard(slot)
        self._limiter.release_on_behalf_of(slot)
        self._rebalance()

    def wrap(self, stream: trio.abc.Stream) -> Wire:
        """A transport whose waits the timekeeper ends."""
        transport = open_wire(stream, self.timekeeper.timer(lambda: transport.expire()))
        return transport

    def count_connection(self) -> int:
        """A number for the next connection."""
        self.opened += 1
        return self.opened

    # -- what slots learn about the server

    def message_done(self) -> None:
        """A transaction came to its end, whatever the answer: the server bears this number of connections."""
        self._warming_delay = 0.0
        if self._feedback.succeeded():
            self._set_limit()

    def connection_failed(self, route: Route | None = None, error: SMTPError | None = None) -> None:
        """A connection was refused, could not be made, or was ended by a 421."""
        if route is not None and not any(slot.connection is not None and slot.route == route for slot in self._slots):
            self.hosts.failed(route)
        if (error is None or is_of_the_wire(error)) and self._feedback.failed(len(self._slots)):
            self._set_limit()

    def warming_failed(self, lived: float = 0.0) -> None:
        """A connection that nobody waits for could not be made, or has lived so long and served nobody: try later.

        The delays grow, unless it has lived for longer than that.
        """
        delay = min(max(self._warming_delay * 2, self.config.retry_delay, 0.1), 60.0)
        self._warming_delay = delay if lived < delay else 0.0

    def _set_limit(self) -> None:
        logger.debug("pool: at most %d connections", self.limit)
        self._limiter.total_tokens = self.limit
        self._rebalance()

    # -- connections

    def _grow(self, errand: Errand | None) -> bool:
        """Start a connection's task, if there may be one more."""
        slot = Slot(self)
        try:
            self._limiter.acquire_on_behalf_of_nowait(slot)
        except trio.WouldBlock:
            return False
        self._slots.add(slot)
        self._nursery.start_soon(slot.run, errand)
        return True

    def _rebalance(self) -> None:
        """Start tasks for those who wait, and see to min_idle."""
        if self.is_closing:
            return
        while self.waiting and self._limiter.available_tokens > 0 and (errand := self.take()) is not None:
            self._grow(errand)
        if len(self._slots) < self.config.min_idle:
            self._shortage.set()

    async def keep_warm(self) -> None:
        """Open connections while there are fewer than ``min_idle``, until cancelled."""
        while True:
            if self._warming_delay:
                await trio.sleep(self._warming_delay)
            while not self.is_closing and len(self._slots) < self.config.min_idle and self._grow(None):
                pass
            self._shortage = trio.Event()
            await self._shortage.wait()

    def close(self) -> None:
        """Take no further message, send those away who wait, and let idle connections end."""
        self.is_closing = True
        self.closed.set()
        self._errands.close()
        idle, self.idle = self.idle, []
        for slot in idle:
            slot.assign(None)
        for slot in self._slots:
            slot.warming.cancel(reason="the pool is closing")

    def trace(
        self,
        name: TraceName,
        started: float,
        connection: int = 0,
        *,
        detail: str = "",
        error: BaseException | None = None,
    ) -> None:
        """Tell whoever looks on."""
        if self.config.trace is not None:
            seconds = trio.current_time() - started
            self.config.trace(TraceEvent(name=name, seconds=seconds, connection=connection, detail=detail, error=error))


def closed_error() -> PoolClosedError:
    """The error for messages that come too late."""
    return PoolClosedError("the pool is closed", delivery=Delivery.NOT_SENT)
