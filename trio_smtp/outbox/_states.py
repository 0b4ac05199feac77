# The life of an entry: every change of a state happens in this file, as a function from one record to the next.
#
# A record is a value: it knows neither clocks nor stores. A store keeps it with a version, and replaces it only if the
# version is still the one that was read (compare and swap). So both stores share this file, and a change is atomic in
# both. What may follow what is the table _NEXT; a missing key is a change that does not happen.
#
# The two changes that nearly every entry goes through before it is settled, a claim and its mark, are steps. A store
# may keep what they were, beside the record before them, instead of the record that follows from that (retrace()).
#
# Fencing: begin() gives the entry to a worker under a new claim number. Whatever the worker writes later names its
# claim, and is refused with LeaseLostError once there is a newer one. The one late word that still counts is that of a
# claim that lapsed into doubt: nothing has been begun since, so its owner may say what became of the message.
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from enum import Enum, StrEnum
from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple, Protocol, TypeAlias

from trio_smtp import Reply

from ._entry import Entry, RecipientState
from ._entry import State as State
from ._errors import LeaseLostError, StoreError


class Turn(Enum):
    """What happens to a recipient."""

    BEGIN = "a worker begins to send"
    ACCEPT = "the server took the message, or a person says so"
    REFUSE = "the server refused it for good"
    AGAIN = "certainly not sent: to be tried again"
    DOUBT = "it may have been delivered"
    EXPIRE = "its time is over"
    DISCARD = "a person gives it up"


_NEXT: Final[dict[State, dict[Turn, State]]] = {
    State.QUEUED: {
        Turn.BEGIN: State.SENDING,
        Turn.EXPIRE: State.EXPIRED,
        Turn.DISCARD: State.DISCARDED,
    },
    State.SENDING: {
        Turn.ACCEPT: State.SENT,
        Turn.REFUSE: State.REFUSED,
        Turn.AGAIN: State.QUEUED,
        Turn.DOUBT: State.IN_DOUBT,
        Turn.EXPIRE: State.EXPIRED,
    },
    State.IN_DOUBT: {
        Turn.ACCEPT: State.SENT,
        Turn.REFUSE: State.REFUSED,
        Turn.AGAIN: State.QUEUED,
        Turn.EXPIRE: State.EXPIRED,
        Turn.DISCARD: State.DISCARDED,
    },
    State.SENT: {},
    State.REFUSED: {},
    State.EXPIRED: {},
    State.DISCARDED: {},
}
_OPEN: Final = (State.QUEUED, State.SENDING, State.IN_DOUBT)
# The state of an entry is the first of these that one of its recipients is in.
LEAST_SETTLED: Final = (
    State.IN_DOUBT,
    State.SENDING,
    State.QUEUED,
    State.EXPIRED,
    State.REFUSED,
    State.DISCARDED,
    State.SENT,
)
Action: TypeAlias = Literal["sent", "retry", "discard"]
"""What :meth:`Outbox.resolve` does with a message in doubt."""
_RESOLVED: Final[dict[str, Turn]] = {"sent": Turn.ACCEPT, "retry": Turn.AGAIN, "discard": Turn.DISCARD}


class Shelf(StrEnum):
    """Where a store keeps an entry, so that it finds what there is to do without looking at the rest."""

    WAITING = "waiting"  # queued until a time
    LEASED = "leased"  # a worker has it, until the lease ends
    HELD = "held"  # in doubt, until a person decides
    DONE = "done"  # settled, kept for a while


class Aside(Enum):
    """An entry that was damaged when a worker took it, and stands on no shelf: what is the matter with it now."""

    READABLE = "it was damaged, and can be read again"
    NO_CONTENT = "it has no content"


class Fate(NamedTuple):
    """One recipient, as it is kept: times are seconds since the epoch."""

    state: State = State.QUEUED
    attempts: int = 0
    due: float = 0.0  # while queued
    reply: Reply | None = None
    error: str = ""


class Outcome(NamedTuple):
    """What a try says about one recipient. `delay`: seconds until the next try, for ``Turn.AGAIN``."""

    turn: Turn
    reply: Reply | None = None
    error: str = ""
    delay: float | None = None


class Companions(Protocol):
    """Messages that come into the outbox by a change: called by the store, in the middle of it, with the content of the
    entry that is changed. `made` has their records then."""

    @property
    def made(self) -> list[Record]: ...
    def __call__(self, content: bytes) -> list[tuple[Record, bytes]]: ...


class Begun(NamedTuple):
    """A claim of an entry, all of whose recipients it found queued, and of whom none expired by it: it is sending."""

    now: float
    worker: str


class Marked(NamedTuple):
    """The mark of a claim, with what had been said until then."""

    log: tuple[str, ...]


Step: TypeAlias = Begun | Marked


class Record(NamedTuple):
    """An entry, as it is kept.

    Attributes:
        expires: the give-up time.
        claim: number of the latest claim, the fencing token.
        marked: under that claim, the end of the message was about to be handed over.
        aside: the store has set it aside; by :meth:`Store.load` and :meth:`Store.page` only, and not kept in it.
        version: the store's; 0 before it is stored.
        step: what the latest change was, if that says as much as the record, and it is not stored yet.
        companions: what comes into the outbox by the change that has made this record: in the same transaction, or not
            at all. It is not kept.
    """

    id: str
    key: str | None
    sender: str
    recipients: dict[str, Fate]
    size: int
    created: float
    expires: float
    priority: int = 0
    mail_params: dict[str, Any] | None = None
    rcpt_params: dict[str, Any] | None = None
    settled: float | None = None
    claim: int = 0
    marked: bool = False
    log: tuple[str, ...] = ()
    aside: Aside | None = None
    version: int = 0
    step: Step | None = None
    companions: Companions | None = None

    @property
    def state(self) -> State:
        """The least settled of the recipients' states."""
        if len(self.recipients) == 1:
            (fate,) = self.recipients.values()
            return fate.state
        found = {fate.state for fate in self.recipients.values()}
        return next(state for state in LEAST_SETTLED if state in found)

    @property
    def sending(self) -> list[str]:
        """The recipients of the current claim."""
        return [address for address, fate in self.recipients.items() if fate.state is State.SENDING]

    @property
    def is_sending(self) -> bool:
        """Whether there are any."""
        for fate in self.recipients.values():  # noqa: SIM110 - it is asked for every message
            if fate.state is State.SENDING:
                return True
        return False

    def shelf(self) -> tuple[Shelf, float]:
        """Where it belongs, with the time that counts there: when it is due, or when it was settled."""
        states = {fate.state for fate in self.recipients.values()}
        if State.SENDING in states:
            return Shelf.LEASED, 0.0
        if State.QUEUED in states:
            return Shelf.WAITING, min(fate.due for fate in self.recipients.values() if fate.state is State.QUEUED)
        if State.IN_DOUBT in states:
            return Shelf.HELD, 0.0
        return Shelf.DONE, self.settled or 0.0

    def entry(self) -> Entry:
        """What the public sees."""
        return Entry(
            id=self.id,
            key=self.key,
            state=self.state,
            sender=self.sender,
            recipients={
                address: RecipientState(
                    fate.state,
                    fate.reply,
                    fate.attempts,
                    _datetime(fate.due) if fate.state is State.QUEUED else None,
                    fate.error,
                )
                for address, fate in self.recipients.items()
            },
            size=self.size,
            created=_datetime(self.created),
            settled=None if self.settled is None else _datetime(self.settled),
            priority=self.priority,
            last_attempt=list(self.log),
            set_aside="" if self.aside is None else self.aside.value,
        )


# -- the changes


def begin(record: Record, now: float, worker: str, *, retry_doubt: bool = False) -> Record:
    """Claim an entry that is due, or whose lease has ended: what its recipients are to a worker that takes it up.

    A claim that was not marked is void: its recipients are begun again. Of a marked one they are in doubt, and nothing
    is begun for them, unless `retry_doubt`. What has reached its give-up time expires. If no recipient is sending
    in the result, there is nothing to send.
    """
    recipients = dict(record.recipients)
    is_step = True
    for address, fate in record.recipients.items():
        if fate.state is not State.QUEUED:
            is_step = False
        if fate.state is State.SENDING:
            recipients[address] = _lapsed(record, fate, now, retry_doubt=retry_doubt)
    queued = [address for address, fate in recipients.items() if fate.state is State.QUEUED]
    # The store says that something is due. If nothing is, by this clock, then the clock was set back meanwhile.
    horizon = max(now, min((recipients[address].due for address in queued), default=now))
    is_over = now >= record.expires
    for address in queued:
        fate = recipients[address]
        if is_over:
            recipients[address] = _turned(fate, Turn.EXPIRE)
        elif fate.due <= horizon:
            recipients[address] = _turned(fate, Turn.BEGIN)
    begun = any(fate.state is State.SENDING for fate in recipients.values())
    if not begun:
        return _settled(record, now, recipients=recipients)
    log = (f"{stamp(now)} {worker}: begun",)
    step = Begun(now, worker) if is_step else None
    return record._replace(
        recipients=recipients, claim=record.claim + 1, marked=False, log=log, step=step, companions=None
    )


def mark(record: Record, claim: int, log: Iterable[str] = ()) -> Record:
    """The end of the message is about to be handed over, after what the log says.

    Raises:
        LeaseLostError: another worker has the entry, or it is in doubt already. Nothing may be sent.
    """
    if record.claim != claim or not record.is_sending:
        raise LeaseLostError(f"entry {record.id} was taken over by another worker: nothing was sent by this one")
    if record.marked:
        return record
    log = tuple(log)
    return record._replace(marked=True, log=record.log[:1] + log, step=Marked(log), companions=None)


def settle(record: Record, claim: int, outcomes: Mapping[str, Outcome], now: float, log: Iterable[str] = ()) -> Record:
    """What has become of the recipients of a claim. Said twice, it counts once. The log begins behind its first line.

    Raises:
        LeaseLostError: there is a newer claim.
    """
    if record.claim != claim:
        raise LeaseLostError(f"entry {record.id} was taken over by another worker")
    recipients = dict(record.recipients)
    for address, outcome in outcomes.items():
        fate = recipients[address]
        if fate.state not in (State.SENDING, State.IN_DOUBT):
            continue
        turn, due = outcome.turn, now
        if turn is Turn.DOUBT and fate.state is State.IN_DOUBT:
            continue
        if turn is Turn.AGAIN:
            due = min(now + (outcome.delay or 0.0), record.expires)
            if outcome.delay is not None and now >= record.expires:
                turn = Turn.EXPIRE
        recipients[address] = _turned(fate, turn, due=due, reply=outcome.reply, error=outcome.error)
    return _settled(record, now, recipients=recipients, marked=False, log=(*record.log[:1], *log))


def postpone(record: Record, claim: int, delay: float, now: float) -> Record:
    """Put a claim back that was never begun: it was not a try."""
    recipients = {
        address: fate._replace(state=State.QUEUED, due=now + delay, attempts=fate.attempts - 1)
        if fate.state is State.SENDING and record.claim == claim
        else fate
        for address, fate in record.recipients.items()
    }
    return record._replace(recipients=recipients, step=None, companions=None)


def resolve(record: Record, action: Action, recipients: Iterable[str] | None, now: float) -> Record:
    """Settle by hand what is in doubt; ``"discard"`` also gives up what is queued.

    An entry that was set aside has no worker: what was being sent is queued, or in doubt if it was marked. With
    ``"retry"``, or if something is settled, it comes back to its shelf.

    Raises:
        LookupError: one of `recipients` is none of the entry's.
        StoreError: ``"retry"`` of an entry that has no content.
    """
    if record.aside is None:
        return _resolved(record, action, recipients, now)
    if action != "retry":
        free = _freed(record, now)
        resolved = _resolved(free, action, recipients, now)
        return record if resolved is free else resolved._replace(aside=None)
    back = _freed(_resolved(record, action, recipients, now), now)  # what is in doubt by that only stays so
    if record.aside is Aside.NO_CONTENT and any(fate.state is State.QUEUED for fate in back.recipients.values()):
        raise StoreError(f"entry {record.id} has no content: it can be discarded, not sent")
    return back._replace(aside=None, expires=_extended(back, now))


def _resolved(record: Record, action: Action, recipients: Iterable[str] | None, now: float) -> Record:
    chosen = list(record.recipients) if recipients is None else list(recipients)
    fates = dict(record.recipients)
    for address in chosen:
        if address not in fates:
            raise LookupError(f"entry {record.id} has no recipient {address!r}")
        fate = fates[address]
        if fate.state is State.IN_DOUBT or (action == "discard" and fate.state is State.QUEUED):
            fates[address] = _turned(fate, _RESOLVED[action], due=now)
    if fates == record.recipients:
        return record
    claim = record.claim if record.is_sending else record.claim + 1  # from now on, a late word comes too late
    expires = _extended(record, now) if action == "retry" else record.expires
    return _settled(record, now, recipients=fates, claim=claim, expires=expires)


def _extended(record: Record, now: float) -> float:
    """The give-up time, if a person wants another try: that is what there will be."""
    return record.expires if now < record.expires else now + (record.expires - record.created)


def _freed(record: Record, now: float) -> Record:
    """The record without its worker, which is gone."""
    recipients = {
        address: _lapsed(record, fate, now) if fate.state is State.SENDING else fate
        for address, fate in record.recipients.items()
    }
    return _settled(record, now, recipients=recipients)


def _lapsed(record: Record, fate: Fate, now: float, *, retry_doubt: bool = False) -> Fate:
    """A recipient that was being sent to by a worker that is gone, or too slow."""
    if not record.marked:
        return _turned(fate, Turn.AGAIN, due=now, error=fate.error)
    words = "the worker ended before the server's reply was written down"
    return _turned(fate, Turn.AGAIN if retry_doubt else Turn.DOUBT, due=now, error=words)


def _turned(fate: Fate, turn: Turn, *, due: float = 0.0, reply: Reply | None = None, error: str = "") -> Fate:
    state = _NEXT[fate.state][turn]
    if turn is Turn.BEGIN:
        return Fate(state, fate.attempts + 1, fate.due, fate.reply, fate.error)
    if reply is None and not error and turn is not Turn.ACCEPT:  # nothing new was said
        reply, error = fate.reply, fate.error
    return Fate(state, fate.attempts, due if state is State.QUEUED else 0.0, reply, error)


def _settled(record: Record, now: float, *, recipients: dict[str, Fate], **changes: Any) -> Record:
    """The record with these recipients, settled if all of them are."""
    is_open = any(fate.state in _OPEN for fate in recipients.values())
    settled = None if is_open else record.settled or now
    return record._replace(recipients=recipients, settled=settled, step=None, companions=None, **changes)


def retrace(record: Record, *steps: Step | None) -> Record:
    """The record that these steps have led to from this one, which was kept before them.

    Raises:
        LeaseLostError: they cannot have been made.
    """
    for step in steps:
        if isinstance(step, Begun):
            record = begin(record, step.now, step.worker)
        elif step is not None:
            record = mark(record, record.claim, step.log)
    return record._replace(step=None)


_VERSION: Final = Record._fields.index("version")
_new: Final = tuple.__new__  # of a Record: it is made for every step of every message


def stored(record: Record) -> Record:
    """The record, as it is once a store has written it."""
    return _new(Record, (*record[:_VERSION], record.version + 1, None, record.companions))


def _datetime(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


@lru_cache(maxsize=4)  # those that are claimed together are at the same time
def stamp(seconds: float) -> str:
    """A time in words."""
    return _datetime(seconds).isoformat(timespec="milliseconds")


Transition: TypeAlias = Callable[[Record, float], Record]
