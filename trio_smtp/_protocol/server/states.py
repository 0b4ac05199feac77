# Where a session is, and what moves it besides a command that succeeds (that is in the table of commands.py).
#
# The two tables together are the whole state machine: ServerProtocol looks its next state up and decides nothing. What
# is not in them cannot happen, so that a mistake of ours is a KeyError and not a session in the wrong state.
from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, IntEnum
from typing import Final


class State(IntEnum):
    """Where a session is. Commands are read in COMMAND_STATES only."""

    CONNECTED = 0  # before the greeting
    GREETED = 1  # before EHLO
    READY = 2  # between transactions
    AUTH = 3  # the next line answers a 334
    MAIL = 4  # MAIL was accepted
    RCPT = 5  # and a recipient as well
    BODY = 6  # the next octets belong to the message
    CHUNKING = 7  # between the chunks of a message
    DROPPING = 8  # the next octets belong to a BDAT chunk that was refused
    CLOSED = 9


COMMAND_STATES: Final = (State.GREETED, State.READY, State.MAIL, State.RCPT, State.CHUNKING)
MESSAGE_STATES: Final = frozenset((State.BODY, State.DROPPING))  # the next octets belong to no command


class Occurrence(IntEnum):
    """What moves a session besides a command that succeeds."""

    GREETING = 0  # the greeting was sent
    CHALLENGE = 1  # a 334 was sent, after the application's answer too
    EXCHANGE_END = 2  # of AUTH, whatever came of it
    CHUNK_END = 3  # of one that is not the last
    MESSAGE_END = 4  # whatever became of it
    CHUNK_BEGIN = 5  # of one that is not the first
    CHUNK_REFUSED = 6  # BDAT where it is not allowed
    CHUNK_DROPPED = 7  # all of one that was refused
    END = 8  # the last word has been said


PREVIOUS: Final = None  # back to the state before the chunk
MOVES: Final[Mapping[State, Mapping[Occurrence, State | None]]] = {
    State.CONNECTED: {Occurrence.GREETING: State.GREETED, Occurrence.END: State.CLOSED},
    State.GREETED: {Occurrence.CHUNK_REFUSED: State.DROPPING, Occurrence.END: State.CLOSED},
    State.READY: {
        Occurrence.CHALLENGE: State.AUTH,
        Occurrence.EXCHANGE_END: State.READY,  # of one that needs no line after AUTH's own
        Occurrence.CHUNK_REFUSED: State.DROPPING,
        Occurrence.END: State.CLOSED,
    },
    State.AUTH: {
        Occurrence.CHALLENGE: State.AUTH,
        Occurrence.EXCHANGE_END: State.READY,
        Occurrence.END: State.CLOSED,
    },
    State.MAIL: {Occurrence.CHUNK_REFUSED: State.DROPPING, Occurrence.END: State.CLOSED},
    State.RCPT: {Occurrence.MESSAGE_END: State.READY, Occurrence.END: State.CLOSED},  # DATA was refused
    State.BODY: {
        Occurrence.CHUNK_END: State.CHUNKING,
        Occurrence.MESSAGE_END: State.READY,
        Occurrence.END: State.CLOSED,
    },
    State.CHUNKING: {
        Occurrence.CHUNK_BEGIN: State.BODY,
        Occurrence.MESSAGE_END: State.READY,  # the client gave it up
        Occurrence.END: State.CLOSED,
    },
    State.DROPPING: {Occurrence.CHUNK_DROPPED: PREVIOUS, Occurrence.END: State.CLOSED},
    State.CLOSED: {Occurrence.END: State.CLOSED},
}


class Ending(Enum):
    """Why a session ended, as far as that decides how its connection is closed."""

    NONE = "it has not, or for another reason"
    QUIT = "the client has said QUIT"
    PEER_GONE = "the connection was lost"
