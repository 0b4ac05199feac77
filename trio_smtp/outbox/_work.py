# A worker: it takes what is due, sends it through a pool, and writes down what became of it.
#
# One task takes entries, as many as there is room for, and starts one task for each. Another renews the leases. What
# happens to an entry, and what is true if the worker, the machine or the store dies there:
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
from dataclasses import replace
from typing import Any, Final

import trio

from trio_smtp import (
    Delivery,
    ExtensionNotSupportedError,
    LocalProtocolError,
    MessageRefusedError,
    MessageTooLargeError,
    Pool,
    PoolClosedError,
    RecipientsRefusedError,
    Reply,
    SenderRefusedError,
    SendResult,
    SMTPError,
)

from .._nursery import open_bare_nursery
from .._observer import Observer
from ._config import OutboxConfig
from ._dialogue import Dialogue
from ._errors import LeaseLostError, StoreError
from ._hop_parameters import has_any, optional, without
from ._rates import Limit
from ._reports import with_reports
from ._room import Room
from ._states import Outcome, Record, State, Transition, Turn, begin, mark, postpone, settle, stamp
from ._store import Store, domains
from ._trace import EventName, OutboxEvent, event_about

_LOOK: Final = 0.25  # seconds between looks for what has become due
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0  # seconds before an absent store is asked again; doubling
_LAST_WORDS: Final = 5.0  # seconds for writing down what is known, when cancelled
_HOPELESS: Final = (LocalProtocolError, ExtensionNotSupportedError, MessageTooLargeError)  # the same would come again
_REFUSALS: Final = (SenderRefusedError, RecipientsRefusedError, MessageRefusedError)
_WORDS: Final = {
    Turn.ACCEPT: "accepted",
    Turn.REFUSE: "refused",
    Turn.AGAIN: "not sent, to be tried again",
    Turn.DOUBT: "in doubt",
}


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
        self._active: dict[tuple[str, int], Record] = {}  # by id and claim: what this worker has leased
        self._room: Final[Room[Attempt, tuple[Record, bytes]]] = Room(concurrency)
        self._pool_closed: PoolClosedError | None = None

    async def run(self) -> None:
        """Work until cancelled.

        Raises:
            PoolClosedError: the pool was closed.
        """
        async with open_bare_nursery(_stop) as keepers, open_bare_nursery(_finish) as tasks:
            keepers.start_soon(self._keep_leases)
            try:
                while self._pool_closed is None:
                    for record, content in await self._take():
                        self._active[record.id, record.claim] = record
                        if self._room.take((record, content)):
                            tasks.start_soon(self._send, record, content, tasks)
                    while self._room.free() <= 0 and self._pool_closed is None:
                        await self._room.wait()
            finally:
                with trio.move_on_after(_LAST_WORDS, shield=True):
                    await self._give_back()
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
        pause = _FIRST_PAUSE
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
                await trio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
        for record, _ in taken:
            name: EventName = "begin" if record.sending else "doubt" if record.state is State.IN_DOUBT else "settle"
            self._tell(name, record, before=found.get(record.id))
            self._tell_companions(record)
        return [(_alone(record), content) for record, content in taken if record.sending]

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
                await self._give_back()

    async def _give_back(self) -> None:
        """Queue again what was taken ahead."""
        async with trio.open_nursery() as nursery:
            for record, _ in self._room.clear_ahead():
                nursery.start_soon(self._postpone, record, 0.0)

    # -- one entry

    async def _send(self, record: Record, content: bytes, tasks: trio.Nursery) -> None:
        """Send an entry, and then what was taken ahead, until there is no more of it."""
        while True:
            attempt = Attempt(record, self._config)
            delay = await self._try_to_send(attempt, content)
            self._room.answer(attempt)
            tasks.start_soon(self._write_down, attempt, delay)
            if (following := self._room.next()) is None:
                return
            record, content = following

    async def _write_down(self, attempt: Attempt, delay: float) -> None:
        """What became of an attempt. If the rate limits do not let it begin, it is queued for so many seconds."""
        if delay:
            await self._postpone(attempt.record, delay)
        else:
            await self._settle(attempt)
            self._release(attempt.record)

    async def _postpone(self, record: Record, delay: float) -> None:
        claim = record.claim
        await self._write(record, lambda record, now: postpone(record, claim, delay, now))
        self._release(record)

    def _release(self, record: Record) -> None:
        del self._active[record.id, record.claim]
        self._room.release()

    async def _try_to_send(self, attempt: Attempt, content: bytes) -> float:
        """Send an entry, unless the rate limits say how many seconds to wait first; the outcomes are the attempt's."""
        try:
            if delay := await self._admit(attempt.record):
                return delay
            try:
                result = await self._pool_send(attempt, content)
            except ExtensionNotSupportedError as exc:
                attempt.leave_out_optional(exc)
                result = await self._pool_send(attempt, content)
            attempt.take_result(result)
        except trio.Cancelled:
            attempt.take_cancellation()
            with trio.move_on_after(_LAST_WORDS, shield=True):
                await self._settle(attempt)
            raise
        except Exception as exc:
            attempt.take_error(exc)
            if isinstance(exc, PoolClosedError):
                self._pool_closed = exc
        return 0.0

    async def _pool_send(self, attempt: Attempt, content: bytes) -> SendResult:
        record = attempt.record

        async def before_end() -> None:
            """Write down durably that the end is about to be handed over."""
            self._room.end(attempt)
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
        return await self._store.admit(limits) if limits else 0.0

    async def _settle(self, attempt: Attempt) -> None:
        outcomes = attempt.outcomes
        if not outcomes:
            return

        def transition(record: Record, now: float) -> Record:
            settled = settle(record, attempt.claim, outcomes, now, attempt.log(now, seconds))
            return with_reports(
                record, settled, now, self._config, error=attempt.error, is_relayed=attempt.goes_without
            )

        seconds = trio.current_time() - attempt.started
        after = await self._write(attempt.record, transition)
        if after is not None:
            about = attempt.record
            self._tell("settle", after, error=attempt.error, seconds=seconds, recipients=len(outcomes), before=about)
            self._tell_companions(after)

    async def _write(self, record: Record, transition: Transition) -> Record | None:
        """Make a change, however long the store is away; when cancelled, for a few seconds more."""
        try:
            return await self._persist(record, transition)
        except trio.Cancelled:
            with trio.move_on_after(_LAST_WORDS, shield=True):
                await self._persist(record, transition)
            raise

    async def _persist(self, record: Record, transition: Transition) -> Record | None:
        pause = _FIRST_PAUSE
        while True:
            try:
                return await self._store.change(record, transition)
            except (LeaseLostError, LookupError) as exc:
                self._tell("lost", record, error=exc)
                return None
            except StoreError as exc:
                self._tell("store", error=exc)
                await trio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)

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


class Attempt:
    """One try of an entry, and what it says about each recipient.

    Attributes:
        record: as it is in the store.
        claim: the fencing token.
        recipients: those that it is about.
        outcomes: what is known of them at the end; empty while there is nothing to write down.
        is_handed_over: the end of the message may have left.
        error: what ended it, or ``None``.
        started: by Trio's clock.
        mail_params: of MAIL.
        rcpt_params: of RCPT, for those that it is about.
        dialogue: what is said.
        goes_without: parameters that may be left out were left out.
    """

    def __init__(self, record: Record, config: OutboxConfig) -> None:
        self.record = record
        self.claim: Final = record.claim
        self.recipients: Final = record.sending
        self.outcomes: dict[str, Outcome] = {}
        self.is_handed_over = False
        self.started: Final = trio.current_time()
        self.error: Exception | None = None
        self._config: Final = config
        self._words = ""
        self.dialogue: Final = Dialogue()
        self.goes_without = False
        self._optional: Final = optional(record.sender)
        self.mail_params: dict[str, Any] | None = record.mail_params
        params = record.rcpt_params or {}
        self.rcpt_params: dict[str, Any] = {each: params[each] for each in self.recipients if each in params}

    def leave_out_optional(self, error: ExtensionNotSupportedError) -> None:
        """Nothing was sent, since the next server does not offer what is asked for: go without, where that may be.

        Raises:
            ExtensionNotSupportedError: the same, where that would not help.
        """
        if not self._asks_too_much or error.accepted or error.refused or error.unknown:
            raise error
        self.goes_without = True
        self.mail_params = without(self._optional, self.mail_params)
        self.rcpt_params = {address: without(self._optional, each) or {} for address, each in self.rcpt_params.items()}

    @property
    def _asks_too_much(self) -> bool:
        return has_any(self._optional, self.mail_params, *self.rcpt_params.values())

    def take_result(self, result: SendResult) -> None:
        """The server took the message for at least one recipient."""
        for address in self.recipients:
            if address in result.refused:
                self.outcomes[address] = self._refused(address, result.refused[address])
            elif address in result.accepted:
                self.outcomes[address] = Outcome(Turn.ACCEPT, result.replies.get(address, result.reply))
            else:
                self.outcomes[address] = self._in_doubt(address, "the server said nothing about this recipient")

    def take_error(self, error: Exception) -> None:
        """The try ended in an error."""
        if isinstance(error, LeaseLostError | LookupError):  # by another worker, or by hand: there is nothing to say
            return
        self.error = error
        self._words = str(error) or type(error).__name__
        for address in self.recipients:
            self.outcomes[address] = self._after_error(address, error)

    def take_cancellation(self) -> None:
        """The worker was told to end."""
        self._words = "the worker was ended"
        for address in self.recipients:
            if self.is_handed_over:
                self.outcomes[address] = self._in_doubt(address, "the worker was ended before the reply came")
            else:
                self.outcomes[address] = Outcome(Turn.AGAIN)

    def log(self, now: float, seconds: float) -> list[str]:
        """The dialogue, and the end of the try, which took so many seconds, in lines of text."""
        lines = [f"<{address}>: {_in_words(outcome)}" for address, outcome in self.outcomes.items()]
        took = f"{stamp(now)} ended after {seconds:.3f} s"
        return [*self.dialogue.lines(), f"{took}: {self._words}" if self._words else took, *lines]

    def _after_error(self, address: str, error: Exception) -> Outcome:
        words = str(error) or type(error).__name__
        if isinstance(error, StoreError):  # of the mark: nothing that ends the message was sent
            return Outcome(Turn.AGAIN, error=words)
        if not isinstance(error, SMTPError):
            return self._in_doubt(address, words) if self.is_handed_over else self._again(address, error=words)
        if address in error.accepted:
            return Outcome(Turn.ACCEPT, error.reply if error.reply and error.reply.is_success else None)
        if address in error.unknown or (error.delivery is Delivery.UNKNOWN and not error.unknown):
            return self._in_doubt(address, words)
        if address in error.refused:
            return self._refused(address, error.refused[address])
        if isinstance(error, ExtensionNotSupportedError) and self._asks_too_much:  # of a list that was split
            return Outcome(Turn.AGAIN, error=words)
        if isinstance(error, _HOPELESS):
            return Outcome(Turn.REFUSE, error.reply, words)
        if isinstance(error, PoolClosedError):
            return Outcome(Turn.AGAIN, error=words)
        if error.delivery is Delivery.REFUSED and isinstance(error, _REFUSALS) and error.reply is not None:
            return self._refused(address, error.reply)
        return self._again(address, error.reply, words)

    def _refused(self, address: str, reply: Reply) -> Outcome:
        return self._again(address, reply) if reply.is_temporary else Outcome(Turn.REFUSE, reply)

    def _again(self, address: str, reply: Reply | None = None, error: str = "") -> Outcome:
        delays = self._config.retry_delays
        tried = self.record.recipients[address].attempts
        return Outcome(Turn.AGAIN, reply, error, delays[min(tried, len(delays)) - 1])

    def _in_doubt(self, address: str, words: str) -> Outcome:
        if self._config.on_doubt == "retry":
            return self._again(address, error=words)
        return Outcome(Turn.DOUBT, error=words)


def _in_words(outcome: Outcome) -> str:
    said = str(outcome.reply) if outcome.reply is not None else outcome.error
    return f"{_WORDS[outcome.turn]}{': ' if said else ''}{said}"


def _stop(nursery: trio.Nursery, failure: BaseException | None) -> None:
    nursery.cancel_scope.cancel(reason="the worker has ended")


def _finish(nursery: trio.Nursery, failure: BaseException | None) -> None:
    if not isinstance(failure, PoolClosedError):  # then each of the others ends by itself
        nursery.cancel_scope.cancel(reason="the worker is ending")


def _alone(record: Record) -> Record:
    """Without the companions that came in with its latest change: the next one does not bring them again."""
    return record if record.companions is None else replace(record, companions=None)
