# What a shutdown does to a connection, as a table: pure values, applied by connection.py.
#
# A shutdown has two steps. DRAIN: a session that is idle ends, one in a transaction may finish it. END, after the
# grace: whatever is in progress ends. Where a phase lets a step pass (NOTHING), the session looks at the shutdown by
# itself before it next waits for the peer.
from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, IntEnum
from typing import Final


class Phase(Enum):
    """Where a connection is, whenever another task runs."""

    OPENING = "before the greeting"
    HANDSHAKE = "from STARTTLS's 220, or from an implicit handshake's beginning, to the handshake's end"
    IDLE = "in the session, no hook runs: it waits for a command, drops octets, or sends"
    HOOK = "a hook runs"
    BODY = "a hook runs, and waits for octets of the message"
    HELD_BACK = "a reply is kept back from a client that makes many mistakes"
    CLOSING = "the session is over"


class Shutdown(IntEnum):
    """How far a shutdown has come; it only goes up."""

    NO = 0
    DRAIN = 1  # 421 as soon as no transaction is in progress
    END = 2  # 421 as soon as no hook runs by itself
    CUT_OFF = 3  # what was in progress has been cancelled


class Action(Enum):
    """What a step of the shutdown does at once."""

    NOTHING = "the session looks at the shutdown before it next waits"
    INTERRUPT = "end the wait for the peer, or the next one"
    INTERRUPT_BETWEEN_TRANSACTIONS = "the same, unless a transaction is in progress"
    INTERRUPT_OR_CANCEL = "end the wait for the peer; if there is none, cancel what is in progress"
    CANCEL = "cancel what is in progress"


ACTIONS: Final[Mapping[Shutdown, Mapping[Phase, Action]]] = {
    Shutdown.DRAIN: {
        Phase.OPENING: Action.NOTHING,
        Phase.HANDSHAKE: Action.INTERRUPT,  # nothing may be said in clear, so there is nothing to wait for
        Phase.IDLE: Action.INTERRUPT_BETWEEN_TRANSACTIONS,
        Phase.HOOK: Action.NOTHING,
        Phase.BODY: Action.NOTHING,
        Phase.HELD_BACK: Action.NOTHING,  # any step of a shutdown ends the delay (channel.py)
        Phase.CLOSING: Action.NOTHING,
    },
    Shutdown.END: {
        Phase.OPENING: Action.INTERRUPT_OR_CANCEL,
        Phase.HANDSHAKE: Action.INTERRUPT_OR_CANCEL,
        Phase.IDLE: Action.INTERRUPT_OR_CANCEL,  # it may be sending
        Phase.HOOK: Action.CANCEL,
        Phase.BODY: Action.INTERRUPT_OR_CANCEL,  # interrupted, the hook still learns why, and may clean up
        Phase.HELD_BACK: Action.CANCEL,
        Phase.CLOSING: Action.INTERRUPT_OR_CANCEL,  # the wait is a courtesy; all else is shielded and bounded
    },
}
