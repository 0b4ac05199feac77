# Delivery reports: what an entry's sender is told of recipients that were refused, or have expired.
#
# A report is an entry itself, from the null sender. It comes into the outbox by the same change that settles the
# recipients it is about, so there is one for each of them, whatever crashes (Record.companions). No report is made of a
# message from the null sender, so that none is ever answered by another (RFC 5321 §4.5.5, RFC 3464 §2).
#
# What is in doubt is reported of when that is over, and what a person has discarded is not.
from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from trio_smtp import Envelope, LocalProtocolError, PreparedMessage, Reply, SendResult, SMTPError, prepare_message
from trio_smtp.reports import make_report

from ._config import OutboxConfig
from ._hop_parameters import envelope
from ._records import new_record
from ._states import Fate, Record, State

_EXPIRED: Final = "4.4.7"  # RFC 3463 §3.5: delivery time expired
_AROUND: Final = 1 << 18  # octets of a report beside the message that it returns


def with_reports(
    before: Record,
    after: Record,
    now: float,
    config: OutboxConfig,
    *,
    error: Exception | None = None,
    is_relayed: bool = False,
) -> Record:
    """The record `after` a change, with the reports that this change calls for.

    Args:
        before: the record.
        after: the same, as the change leaves it.
        now: by the store's clock.
        config: says whether there are reports at all.
        error: what ended the try, if the change is the end of one.
        is_relayed: the next server was not told what the sender asked for by DSN, so that it will report nothing.
    """
    if config.report_from is None or not before.sender:
        return after
    told = (State.REFUSED, State.EXPIRED, State.SENT) if is_relayed else (State.REFUSED, State.EXPIRED)
    fates = {
        address: fate
        for address, fate in after.recipients.items()
        if fate.state in told and fate.state is not before.recipients[address].state
    }
    return after._replace(companions=Reports(after, fates, now, config, error)) if fates else after


class Reports:
    """The reports that a change calls for: one, unless there are different reasons.

    Args:
        record: as the change leaves it.
        fates: of those that it is about.
        now: by the store's clock.
        config: with a `report_from`.
        error: what ended the try.

    Attributes:
        made: the entries of those that were made.
    """

    def __init__(
        self, record: Record, fates: dict[str, Fate], now: float, config: OutboxConfig, error: Exception | None
    ) -> None:
        self._record: Final = record
        self._fates: Final = fates
        self._now: Final = now
        self._config: Final = config
        self._error: Final = error
        self.made: list[Record] = []

    def __call__(self, content: bytes) -> list[tuple[Record, bytes]]:
        """Make them, of the content of the message that they are about: entries with their contents."""
        entries = _make(self._record, self._fates, self._now, self._config, self._error, content)
        self.made = [entry for entry, _ in entries]
        return entries


def _make(
    record: Record, fates: dict[str, Fate], now: float, config: OutboxConfig, error: Exception | None, content: bytes
) -> list[tuple[Record, bytes]]:
    entries = []
    for addresses, outcome, status in _outcomes(fates, error):
        about = envelope(record.sender, addresses, record.mail_params, record.rcpt_params)
        if len(content) + _AROUND > config.max_size:
            about.sender.ret = "HDRS"
        try:
            message = _write(record, about, outcome, status, config, content)
        except (LocalProtocolError, MemoryError):  # what came from elsewhere cannot always be put into another message
            message = _write(record, about, outcome, status, config, b"")
        if message is not None:
            entry = new_record(message, now, due=now, patience=config.give_up_after, priority=record.priority)
            entries.append((entry, message.content))
    return entries


def _write(
    record: Record,
    about: Envelope,
    outcome: SendResult | SMTPError,
    status: str | None,
    config: OutboxConfig,
    content: bytes,
) -> PreparedMessage | None:
    """One report; ``None``: nobody is to be told."""
    assert config.report_from is not None
    report = make_report(
        outcome,
        about,
        reporting_mta=config.report_from.rpartition("@")[2],
        content=content,
        author=config.report_from,
        arrived=datetime.fromtimestamp(record.created, UTC),
        status=status,
    )
    if report is None:
        return None
    mail_params = {"REQUIRETLS": None} if about.sender.requiretls else None  # RFC 8689 §5
    return prepare_message("", [record.sender], report, mail_params=mail_params)


def _outcomes(
    fates: dict[str, Fate], error: Exception | None
) -> list[tuple[list[str], SendResult | SMTPError, str | None]]:
    """What `make_report` is to be told: of those with a reply at once, of the others by the reason."""
    replied = {address: fate.reply for address, fate in fates.items() if fate.reply is not None}
    outcomes: list[tuple[list[str], SendResult | SMTPError, str | None]] = []
    taken = [address for address, fate in fates.items() if fate.state is State.SENT]
    if replied or taken:
        refused = {address: reply for address, reply in replied.items() if address not in taken}
        result = SendResult(Reply(250, "OK"), taken, refused, replied)
        outcomes.append((list(dict.fromkeys([*replied, *taken])), result, None))
    reasons: dict[tuple[State, str], list[str]] = {}
    for address, fate in fates.items():
        if address not in replied and fate.state is not State.SENT:
            reasons.setdefault((fate.state, fate.error), []).append(address)
    for (state, words), addresses in reasons.items():
        if state is State.EXPIRED:
            said = f"its time is over; at the last try: {words}" if words else "its time is over"
            outcomes.append((addresses, SMTPError(said), _EXPIRED))
        else:
            kind = type(error) if isinstance(error, SMTPError) else SMTPError
            outcomes.append((addresses, kind(words), None))
    return outcomes
