# The outbox's public face: messages in, entries out, and a worker that sends them.
#
# It checks what it is given, makes a record of it, and hands it to the store; every change of a state is a function of
# states.py that the store applies. What a worker does is in work.py.
from __future__ import annotations

import email.message
import os
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, get_args

import trio

from trio_smtp import (
    ContentLike,
    Handler,
    Params,
    Pool,
    PreparedMessage,
    prepare_message,
)

from .._observer import Observer
from .._public import NoPublicConstructor
from ._config import OutboxConfig
from ._damage import Damages
from ._entry import Entry, State
from ._handler import QueueHandler
from ._records import check_size, make_record
from ._states import Action, Record, resolve
from ._store import Store, open_store
from ._trace import EventName, OutboxEvent, event_about
from ._work import Worker

_PAGE: Final = 100  # entries that are read at once
_LONGEST_WAIT: Final = 5.0  # seconds between looks, should a bell be missed


@dataclass(frozen=True, slots=True)
class Ticket:
    """What :meth:`Outbox.put` gives for a message.

    Attributes:
        id: the entry's.
        is_new: it was put now; else its key was known, and this is the entry that was put then.
    """

    id: str
    is_new: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxStatistics:
    """How many entries are in each state."""

    queued: int = 0
    sending: int = 0
    sent: int = 0
    refused: int = 0
    in_doubt: int = 0
    expired: int = 0
    discarded: int = 0


@asynccontextmanager
async def open_outbox(url: str, *, config: OutboxConfig | None = None) -> AsyncIterator[Outbox]:
    """Open an outbox, for any number of tasks to put messages in, ask about them, and send them.

    Args:
        url: ``sqlite:FILE`` (made if it is missing), ``redis://HOST:PORT/DB``, ``rediss://`` with TLS, or
            ``unix:///SOCKET?db=DB``; each Redis database holds one outbox.
        config: delays, limits and the like.

    Raises:
        ValueError: the address names no store.
        ModuleNotFoundError: the store is Redis, and coredis is not installed.
        StoreError: the store cannot be used: it is away, damaged, or of another version.

    A Redis that would forget (no append-only file, or one that is not synced at each write) is a ``RuntimeWarning``,
    once for each opening. Leaving the block waits for what is being written, and closes the store. Cancellation: the
    same.
    """
    settings = OutboxConfig() if config is None else config
    async with open_store(url, settings) as store:
        yield Outbox._create(store, settings)


class Outbox(metaclass=NoPublicConstructor):
    """Messages on their way, kept in a store; made by :func:`open_outbox`."""

    __slots__ = ("_config", "_observer", "_store")

    _config: OutboxConfig
    _observer: Observer[OutboxEvent] | None
    _store: Store

    @classmethod
    def _create(cls, store: Store, config: OutboxConfig) -> Outbox:
        self = cls.__new__(cls)
        self._store = store
        self._config = config
        self._observer = None if config.trace is None else Observer(config.trace, "outbox")
        return self

    def __repr__(self) -> str:
        return f"<trio_smtp.outbox.Outbox in {self._store!r}>"

    # -- in

    async def put(
        self,
        sender: str,
        recipients: Iterable[str],
        content: ContentLike,
        *,
        key: str | None = None,
        not_before: datetime | None = None,
        give_up_after: float | None = None,
        priority: int = 0,
        mail_params: Params | None = None,
        rcpt_params: Mapping[str, Params] | None = None,
    ) -> Ticket:
        """Put a message into the outbox. On return it is durable: a worker will send it, whatever happens here.

        Args:
            sender: the reverse path, ``""`` for none.
            recipients: addresses; each has a state of its own.
            content: all that :meth:`Client.send` takes. It is read whole.
            key: makes it idempotent: while an entry with this key is kept, putting another does nothing.
            not_before: it is not sent earlier; with a time zone.
            give_up_after: seconds, instead of the configuration's.
            priority: higher goes first.
            mail_params: as in :meth:`Client.send`.
            rcpt_params: as in :meth:`Client.send`.

        Raises:
            TypeError, ValueError: an argument of the wrong kind; a `not_before` without a time zone.
            LocalProtocolError: an address, a parameter or a message that cannot be sent.
            MessageTooLargeError: larger than ``max_size``.
            OSError: the content file could not be read.
            StoreError: the store could not be used. The message may be in it: put it again, with the same key.

        Cancellation: the message may be in the outbox, or not.
        """
        at_hand = await self._at_hand(content)
        prepared = prepare_message(sender, recipients, at_hand, mail_params=mail_params, rcpt_params=rcpt_params)
        return await self._put(prepared, key, not_before, give_up_after, priority)

    async def put_message(
        self,
        message: email.message.Message[Any, Any],
        *,
        sender: str | None = None,
        recipients: Iterable[str] | None = None,
        key: str | None = None,
        not_before: datetime | None = None,
        give_up_after: float | None = None,
        priority: int = 0,
        mail_params: Params | None = None,
        rcpt_params: Mapping[str, Params] | None = None,
    ) -> Ticket:
        """Put an ``EmailMessage``, to the recipients that its header names; what is sent has no Bcc.

        Args:
            message: written out now, so that any server can take it.
            sender: instead of the header's.
            recipients: instead of the header's.
            key, not_before, give_up_after, priority, mail_params, rcpt_params: as in :meth:`put`.

        Raises and cancellation: as :meth:`put`.
        """
        if not isinstance(message, email.message.Message):
            raise TypeError(f"put_message() takes an EmailMessage, not {type(message).__name__}")
        prepared = prepare_message(sender, recipients, message, mail_params=mail_params, rcpt_params=rcpt_params)
        return await self._put(prepared, key, not_before, give_up_after, priority)

    async def _put(
        self,
        prepared: PreparedMessage,
        key: str | None,
        not_before: datetime | None,
        give_up_after: float | None,
        priority: int,
    ) -> Ticket:
        now = await self._store.time()
        record = make_record(
            prepared,
            now,
            self._config,
            key=key,
            not_before=not_before,
            give_up_after=give_up_after,
            priority=priority,
        )
        ticket = Ticket(*await self._store.add(record, prepared.content))
        while not ticket.is_new and await self._is_forgotten(ticket.id):
            await self._store.prune()
            ticket = Ticket(*await self._store.add(record, prepared.content))
        if ticket.is_new:
            self._tell("put", None, record, len(record.recipients))
        return ticket

    async def _at_hand(self, content: ContentLike) -> Any:
        """What is to be read is read."""
        limit = self._config.max_size
        if isinstance(content, os.PathLike):
            octets: Any = await trio.to_thread.run_sync(_read, Path(content), limit, abandon_on_cancel=True)
        elif isinstance(content, AsyncIterable):
            octets = bytearray()
            chunks: Any = aiter(content)
            async with aclosing(chunks) if hasattr(chunks, "aclose") else nullcontext():
                async for chunk in chunks:
                    octets += chunk
                    check_size(len(octets), limit)
        else:
            await trio.lowlevel.checkpoint_if_cancelled()
            octets = content
        return octets

    # -- out

    async def work(self, pool: Pool, *, concurrency: int | None = None) -> None:
        """Send what is due through `pool`, until cancelled.

        Any number of workers may do so, in any number of tasks, processes and, with Redis, machines. When the store
        is away, it is asked again until it is back.

        Args:
            pool: its ``connect_retries`` count as one attempt here. Let its ``on_unknown`` be ``"raise"``.
            concurrency: messages at a time; if not given, as many as the pool may have connections. As many more may be
                claimed ahead, while the server answers soon.

        Raises:
            ValueError: `concurrency` is less than 1.
            PoolClosedError: the pool was closed.

        Cancellation: messages whose end has been handed over get the pool's ``end_grace`` for their reply; the others
        are given back. Nothing stays leased, if the store can be reached.
        """
        number = pool.statistics().limit if concurrency is None else concurrency
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise ValueError(f"concurrency is the number of messages at a time, at least 1, not {concurrency!r}")
        await Worker(self._store, self._config, pool, number, self._observer).run()

    def handler(self, *, received_by: str | None = None) -> Handler:
        """A handler for a server that puts what it receives here, and answers 250 with the entry's id once it is
        durable.

        Args:
            received_by: this server's name, for a ``Received`` line above each message (RFC 5321 section 4.4), which a
                relay must add, and which ends loops; ``None``: the content is kept as it comes.

        While the store cannot be used, messages are answered 451.
        """
        return QueueHandler(self.put, received_by)

    # -- what is there

    async def get(self, id: str) -> Entry:  # noqa: A002 - as in the reply to a client, and in every table
        """An entry, as it is now.

        Raises:
            LookupError: there is none, or it was settled so long ago that it is forgotten.
            StoreError: the store could not be used, or the entry is damaged: then the error's ``damaged`` has what is
                there.

        Cancellation changes nothing.
        """
        record = await self._store.load(id)
        if self._is_old(record, await self._store.time()):
            raise LookupError(f"the outbox has no entry {id!r}")
        return record.entry()

    async def wait(self, id: str) -> Entry:  # noqa: A002
        """Wait until nothing of an entry is queued or sending; then it is settled or in doubt.

        Raises: as :meth:`get`. Cancellation changes nothing.
        """
        while True:
            bell = self._store.bell()
            entry = await self.get(id)
            states = {recipient.state for recipient in entry.recipients.values()}
            if not states & {State.QUEUED, State.SENDING}:
                return entry
            await self._store.wait(bell, _LONGEST_WAIT)

    def entries(self, state: State | str | None = None) -> AbstractAsyncContextManager[trio.abc.ReceiveChannel[Entry]]:
        """The entries, in the order in which they were put: ``async with outbox.entries() as entries``.

        Args:
            state: only those in this state.

        Raises:
            ValueError: there is no such state.
            StoreError: the store could not be used; out of the iteration. Where entries are damaged, at its end, after
                all others: the error names the first few, and has them as ``damaged``.

        The block's value is a channel. It is read in pages, as you iterate, so that memory stays bounded; what is put
        meanwhile may be among them. Leaving the block ends the reading.
        """
        return self._pages(None if state is None else State(state))

    @trio.as_safe_channel
    async def _pages(self, state: State | None) -> AsyncGenerator[Entry, None]:
        await self._store.prune()
        damages = Damages()
        after: int | None = 0
        while after is not None:
            page = await self._store.page(state, after, _PAGE)
            for record in page.records:
                yield record.entry()
            damages.add(page.damaged)
            after = page.after
        if (error := damages.error()) is not None:
            raise error

    async def statistics(self) -> OutboxStatistics:
        """How many entries are in each state.

        Raises:
            StoreError: the store could not be used.

        Cancellation changes nothing.
        """
        await self._store.prune()
        return OutboxStatistics(**{state.value: number for state, number in (await self._store.counts()).items()})

    async def resolve(self, id: str, action: Action, *, recipients: Iterable[str] | None = None) -> Entry:  # noqa: A002
        """Say what is to become of recipients in doubt.

        Args:
            id: the entry's.
            action: ``"sent"``: they have it. ``"retry"``: they have not, send it again; this also brings an entry back
                that was set aside. ``"discard"``: leave it; this also ends what is queued.
            recipients: only these; by default all. Those in any other state stay as they are.

        Returns:
            The entry, as it is afterwards. To say the same again changes nothing.

        Raises:
            LookupError: there is no such entry, or no such recipient.
            ValueError: there is no such action.
            StoreError: the store could not be used. The entry is damaged, as for :meth:`get`. It has no content, and
                cannot be sent again.

        Cancellation: it may have been done, or not; say it again.
        """
        if action not in get_args(Action):
            raise ValueError(f"action is 'sent', 'retry' or 'discard', not {action!r}")
        if isinstance(recipients, str):
            raise TypeError("recipients is an iterable of addresses, not one address")
        chosen = None if recipients is None else list(recipients)
        before = await self._store.load(id)
        if self._is_old(before, await self._store.time()):
            raise LookupError(f"the outbox has no entry {id!r}")
        after = await self._store.change(before, lambda record, now: resolve(record, action, chosen, now))
        self._tell("resolve", before, after, len(chosen or after.recipients))
        return after.entry()

    async def forget(self, id: str) -> None:  # noqa: A002
        """Delete an entry that is damaged, so that it cannot be read: what is kept of it, its key and its content.

        It is not sent, and nobody is told. What can be read is settled by :meth:`resolve` instead.

        Raises:
            LookupError: there is none.
            ValueError: it can be read.
            StoreError: the store could not be used.

        Cancellation: it may have been done, or not.
        """
        await self._store.forget(id)

    async def _is_forgotten(self, entry_id: str) -> bool:
        """Whether an entry has been settled for ``keep_done``: it may be there still, but no longer counts."""
        try:
            record = await self._store.load(entry_id)
        except LookupError:
            return True
        return self._is_old(record, await self._store.time())

    def _is_old(self, record: Record, now: float) -> bool:
        return record.settled is not None and record.settled + self._config.keep_done <= now

    def _tell(self, name: EventName, before: Record | None, after: Record, recipients: int) -> None:
        if self._observer is not None:
            self._observer.tell(event_about(name, before, after, recipients))


def _read(path: Path, limit: int) -> bytes:
    with path.open("rb") as file:
        octets = file.read(limit + 1)
    check_size(len(octets), limit)
    return octets
