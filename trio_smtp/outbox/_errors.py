# The errors of the outbox, beside those of sending.
from __future__ import annotations

from dataclasses import dataclass, field

from trio_smtp import SMTPError


@dataclass(frozen=True, slots=True)
class DamagedEntry:
    """An entry in the store that cannot be read.

    Attributes:
        id: its name in the store.
        reason: what is wrong, in words.
        kept: what is kept in place of its record, by the store's names for the parts, as text; of
            :meth:`Outbox.get` and :meth:`Outbox.resolve` only.
        size: octets of its content; ``None``: there is none, or it was not looked for, as with `kept`.
    """

    id: str
    reason: str
    kept: dict[str, str] = field(default_factory=dict)
    size: int | None = None


class StoreError(SMTPError, OSError):
    """The store cannot be used: it is away, full, damaged, or of another version.

    What was being written may or may not be there: repeat a ``put`` with the same key. ``__cause__`` is the store's
    own error.

    Attributes:
        damaged: the entries that could not be read, if that is what is wrong; of many, the first few.
    """

    damaged: tuple[DamagedEntry, ...] = ()


class LeaseLostError(SMTPError):
    """A worker was too slow, and another has taken the entry over. Nothing was sent by the one that gets this."""
