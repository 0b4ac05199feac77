# What the log says of connections that get no session, or have to end theirs for others. A client can cause as many of
# these records as it likes, so each cause has so many in a time; what is left out is counted, and said with the next.
from __future__ import annotations

from collections import Counter
from enum import Enum
from typing import TYPE_CHECKING, Final

import trio

from .log import facts, logger

if TYPE_CHECKING:
    from .session import Session

PERIOD: Final = 60.0  # seconds
MAX_RECORDS: Final = 20  # of one cause in that time


class Cause(Enum):
    """Why a connection gets no session, or loses it."""

    FULL = "max_connections are open"
    FULL_FOR_HOST = "max_connections_per_host are open"
    MADE_ROOM = "it has been of no use for the longest time, and another one needs room"
    PROXY_HEADER = "it came without a valid PROXY header"
    DESCRIPTORS = (
        "the process is short of file descriptors, and what is left is for messages that are being received; raise the"
        " limit (ulimit -n) or lower max_connections"
    )


class Shortage(Enum):
    """What there is too little of for one connection more."""

    SLOTS = "max_connections are open"
    DESCRIPTORS = "the process is short of file descriptors"


class RefusalLog:
    """Writes a record for each refused connection, up to MAX_RECORDS of a cause in a PERIOD; DESCRIPTORS has one."""

    def __init__(self) -> None:
        self._since: dict[Cause, float] = {}
        self._counts: Counter[Cause] = Counter()

    def note(self, cause: Cause, session: Session, detail: str = "") -> None:
        """A connection was refused."""
        now = trio.current_time()
        if cause not in self._since or now - self._since[cause] >= PERIOD:
            self._begin(cause, now)
        self._counts[cause] += 1
        if self._counts[cause] > _limit_of(cause):
            return
        host = session.host or "a stream without an address"
        reason = f"{cause.value}: {detail}" if detail else cause.value
        what = "ended" if cause is Cause.MADE_ROOM else "refused"
        logger.warning("%s a connection from %s: %s", what, host, reason, extra=facts(session))

    def _begin(self, cause: Cause, now: float) -> None:
        left_out = self._counts.pop(cause, 0) - _limit_of(cause)
        if left_out > 0:
            what = "ended" if cause is Cause.MADE_ROOM else "refused"
            logger.warning("%s %s more connections than were logged: %s", what, left_out, cause.value)
        self._since[cause] = now


def _limit_of(cause: Cause) -> int:
    return 1 if cause is Cause.DESCRIPTORS else MAX_RECORDS
