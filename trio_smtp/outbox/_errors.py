# The errors of the outbox, beside those of sending.
from __future__ import annotations

from trio_smtp import SMTPError


class StoreError(SMTPError, OSError):
    """The store cannot be used: it is away, full, damaged, or of another version.

    What was being written may or may not be there: repeat a ``put`` with the same key. ``__cause__`` is the store's
    own error.
    """


class LeaseLostError(SMTPError):
    """A worker was too slow, and another has taken the entry over. Nothing was sent by the one that gets this."""
