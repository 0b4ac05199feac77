# A worker: it takes what is due, sends it through a pool, and writes down what became of it.
#
# One task takes entries, as many as there is room for, and starts tasks that send them (_tries.py: what a try says).
# Another writes down what became of them, in groups (_ledger.py), and another renews the leases. What happens to an
# entry, and what is true if the worker, the machine or the store dies there:
#
#     taken         sending, a lease, no mark       the lease ends: queued again; nothing was sent
#     before_end    the mark, durable               the lease ends: in doubt, since the end may have left
#     answered      settled, durable                nothing
#
# The mark is fenced: a worker whose entry was taken over gets LeaseLostError from it, and the pool sends nothing that
# ends the message. Nothing is settled on a guess: what the pool does not know is in doubt.
from __future__ import annotations

import os
import secrets
import socket
from typing import Final, NoReturn

import trio

from trio_smtp import ExtensionNotSupportedError, Pool, PoolClosedError, SendResult

from .._nursery import open_bare_nursery
from .._observer import Observer
from ._config import OutboxConfig
from ._errors import StoreError
from ._ledger import Ledger
from ._pauses import Pauses
from ._rates import Limit
from ._reports import with_reports
from ._room import Room
from ._states import Record, State, begin, mark, postpone, settle
from ._store import Store, domains
from ._trace import EventName, OutboxEvent, event_about
from ._tries import Attempt

_LOOK: Final = 0.25  # seconds between looks for what has become due


class Worker:
    """One call of :meth:`Outbox.work`."""

    def __init__(
        self,
        store: Store,
        config: OutboxConfig,
        pool: Pool,
        concurrency: int,
        observer: Observer[OutboxEvent] | None,
    ) -> None:
        self._store: Final = store
        self._config: Final = config
        self._pool: Final = pool
        self._observer: Final = observer
        self._concurrency: Final = concurrency
        self._name: Final = f"{socket.gethostname()}/{os.getpid()}/{secrets.token_hex(3)}"
        self._is_limited: Final = config.rate_limit is not None or config.domain_rate_limit is not None
        self._active: dict[tuple[str, int], Record] = {}  # by id and claim: what this worker has leased
        self._room: Final[Room[Attempt, tuple[Record, bytes]]] = Room(concurrency)
        self._ledger: Final = Ledger(store, self._tell)
        self._pool_closed: PoolClosedError | None = None

    async def run(self) -> None:
        """Work until cancelled.

        Raises:
            PoolClosedError: the pool was closed.
        """
        async with open_bare_nursery(_stop) as keepers:
            keepers.start_soon(self._keep_leases)
            keepers.start_soon(self._ledger.run)
            try:
                async with open_bare_nursery(_finish) as tasks:
                    try:
                        await self._take_and_send(tasks)
                    finally:
                        self._give_back()
            finally:
                with trio.CancelScope(shield=True):  # the ledger knows how long it may take
                    await self._ledger.finish()

    async def _take_and_send(self, tasks: trio.Nursery) -> NoReturn:
        """Start to send what there is, as long as the pool takes messages.

        Raises:
            PoolClosedError: it does not.
        """
        while self._pool_closed is None:
            for record, content in await self._take():
                self._active[record.id, record.claim] = record
                if self._room.take((record, content)):
                    tasks.start_soon(self._send, record, content)
            while self._room.free() <= 0 and self._pool_closed is None:
                await self._room.wait()
        raise self._pool_closed

    # -- taking

    async def _take(self) -> list[tuple[Record, bytes]]:
        """What there is to send, once there is something, or some time has passed."""
        bell = self._store.bell()
        retry_doubt = self._config.on_doubt == "retry"

        found: dict[str, Record] = {}  # as they were

        def claim(record: Record, now: float) -> Record:
            found[record.id] = record
            begun = begin(record, now, self._name, retry_doubt=retry_doubt)
            return with_reports(record, begun, now, self._config)

        taken: list[tuple[Record, bytes]] = []
        pauses = Pauses()
        while not taken:
            await trio.lowlevel.checkpoint_if_cancelled()  # while there is more to take, there is no other wait
            try:
                with trio.CancelScope(shield=True):  # what was leased and never heard of would wait for its lease's end
                    taken = await self._store.take(self._name, self._room.free(), claim)
                if not taken:
                    await self._store.wait(bell, _LOOK)
                    break
            except StoreError as exc:
                self._tell("store", error=exc)
                await trio.sleep(pauses.next())
        to_send = []
        for entry in taken:
            record = entry[0]
            name: EventName = "doubt" if record.state is State.IN_DOUBT else "settle"
            if record.is_sending:
                name = "begin"
                to_send.append(entry)
            self._tell(name, record, before=found.get(record.id))
            self._tell_companions(record)
        return to_send

    async def _keep_leases(self) -> None:
        """Renew what is leased, and tidy up, three times in a lease; what has got no further since is given back."""
        while True:
            ahead = self._room.first_ahead()
            try:
                if self._active:
                    await self._store.renew(list(self._active.values()), self._name)
                await self._store.prune()
            except StoreError as exc:
                self._tell("store", error=exc)
            await trio.sleep(self._config.lease / 3)
            if ahead is not None and ahead is self._room.first_ahead():
                self._give_back()

    def _give_back(self) -> None:
        """Queue again what was taken ahead."""
        for record, _ in self._room.clear_ahead():
            self._postpone(record, 0.0)

    # -- one entry

    async def _send(self, record: Record, content: bytes) -> None:
        """Send an entry, and then what was taken ahead, until there is no more of it."""
        while True:
            attempt = Attempt(record, self._config)
            try:
                delay = await self._try_to_send(attempt, content)
            except trio.Cancelled:
                attempt.take_cancellation()
                self._settle(attempt, trio.current_time())
                raise
            now = trio.current_time()
            self._room.answer(attempt, now)
            if delay:
                self._postpone(record, delay)
            else:
                self._settle(attempt, now)
            if (following := self._room.next()) is None:
                return
            record, content = following

    async def _try_to_send(self, attempt: Attempt, content: bytes) -> float:
        """Send an entry, unless the rate limits say how many seconds to wait first; the outcomes are the attempt's."""
        try:
            if self._is_limited and (delay := await self._admit(attempt.record)):
                return delay
            try:
                result = await self._pool_send(attempt, content)
            except ExtensionNotSupportedError as exc:
                attempt.leave_out_optional(exc)
                result = await self._pool_send(attempt, content)
            attempt.take_result(result)
        except Exception as exc:
            attempt.take_error(exc)
            if isinstance(exc, PoolClosedError):
                self._pool_closed = exc
        return 0.0

    async def _pool_send(self, attempt: Attempt, content: bytes) -> SendResult:
        record = attempt.record

        async def before_end() -> None:
            """Write down durably that the end is about to be handed over."""
            self._room.mark(attempt)
            said = attempt.dialogue.lines()
            attempt.record = await self._store.change(record, lambda record, now: mark(record, attempt.claim, said))
            attempt.is_handed_over = True
            self._room.end(attempt)
            self._tell("mark", attempt.record)

        return await self._pool.send(
            record.sender,
            attempt.recipients,
            content,
            mail_params=attempt.mail_params,
            rcpt_params=attempt.rcpt_params,
            before_end=before_end,
            transcript=attempt.dialogue.take,
        )

    async def _admit(self, record: Record) -> float:
        """Seconds until the rate limits let this entry start; 0 if it may, and is counted."""
        limits: dict[str, Limit] = {}
        if self._config.rate_limit is not None:
            limits[""] = Limit(*self._config.rate_limit)
        if self._config.domain_rate_limit is not None:
            limits |= dict.fromkeys(domains(record.sending), Limit(*self._config.domain_rate_limit))
        return await self._store.admit(limits)

    # -- what became of it

    def _settle(self, attempt: Attempt, ended: float) -> None:
        """Have it written down what became of a try, and that it was over then."""
        outcomes, about = attempt.outcomes, attempt.record
        if not outcomes:
            self._release(about)
            return
        seconds = ended - attempt.started

        def transition(record: Record, now: float) -> Record:
            settled = settle(record, attempt.claim, outcomes, now, attempt.log(now, seconds))
            return with_reports(
                record, settled, now, self._config, error=attempt.error, is_relayed=attempt.goes_without
            )

        def written(after: Record | None) -> None:
            if after is not None:
                number = len(outcomes)
                self._tell("settle", after, error=attempt.error, seconds=seconds, recipients=number, before=about)
                self._tell_companions(after)
            self._release(about)

        self._ledger.note(about, transition, written)

    def _postpone(self, record: Record, delay: float) -> None:
        """Have it queued again for so many seconds: it was no try."""
        claim = record.claim
        self._ledger.note(
            record, lambda record, now: postpone(record, claim, delay, now), lambda _: self._release(record)
        )

    def _release(self, record: Record) -> None:
        del self._active[record.id, record.claim]
        self._room.release()

    def _tell_companions(self, record: Record) -> None:
        if record.companions is not None and self._observer is not None:
            for report in record.companions.made:
                self._observer.tell(event_about("put", None, report, 1))

    def _tell(
        self,
        name: EventName,
        record: Record | None = None,
        *,
        error: Exception | None = None,
        seconds: float = 0.0,
        recipients: int | None = None,
        before: Record | None = None,
    ) -> None:
        if self._observer is None:
            return
        if record is None:
            event = OutboxEvent(name, "", "", recipients or 0, seconds, error)
        else:
            number = len(record.sending) if recipients is None else recipients
            event = event_about(name, before or record, record, number, error=error, seconds=seconds)
        self._observer.tell(event)


def _stop(nursery: trio.Nursery, failure: BaseException | None) -> None:
    nursery.cancel_scope.cancel(reason="the worker has ended")


def _finish(nursery: trio.Nursery, failure: BaseException | None) -> None:
    if not isinstance(failure, PoolClosedError):  # then each of the others ends by itself
        nursery.cancel_scope.cancel(reason="the worker is ending")
