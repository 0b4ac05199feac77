# What a row of the table of commands holds, and what becomes of the table for one state: a step for each verb.
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from ..parameters import ParameterContext
from ..replies import Reply
from .events import Command, Signal
from .fixed_replies import HELLO_FIRST, LHLO_FIRST, TLS_FIRST
from .states import COMMAND_STATES, State

if TYPE_CHECKING:
    from .config import ServerConfig
    from .protocol import ServerProtocol

# What a command line comes to: an event to ask the application about, a reply to give at once, a signal, or (None)
# nothing more: the function has moved the session itself.
Taken: TypeAlias = Command | Signal | Reply | None
Take: TypeAlias = "Callable[[ServerProtocol, bytes], Taken]"
# What the application's answer does; it returns the reply to give, or None if there is none left to give.
Answer: TypeAlias = "Callable[[ServerProtocol, Any, Reply], Reply | None]"


class Junk(Enum):
    """When a command leads nowhere, so that a client may send only so many of it. One that is refused is an error."""

    NEVER = "it leads somewhere, or its argument decides"
    ALWAYS = "always"
    AGAIN = "once the client has introduced itself"


def _always(config: ServerConfig) -> bool:
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandRow:
    """A command.

    Attributes:
        verb: in upper case.
        keyword: the EHLO keyword that brings it, or ``None``; where that is not in force, the command is unknown.
        offered_if: the same for the configuration.
        needs_tls: refused before TLS where TLS is required (``ServerConfig.require_tls``).
        allowed_in: the states in which it is taken.
        misplaced: the replies in the other states.
        take: reads the argument. With `aborts_message` it changes nothing: it may be called twice.
        refuse: makes of the reply to a misplaced one what is done instead of `take`; without it, that reply is given.
        event: what the application is asked, or ``None``.
        next_state: where its success leads: a state, one for each in `allowed_in`, or ``None`` for the same state.
        default_reply: the reply where the application has none of its own; ``None`` gives none.
        success_enhanced: the reply to its success may have an enhanced status code (RFC 2034 section 4).
        on_success: what the application's consent does besides, or, where it is not asked, the command's success;
            without it, the reply is given.
        on_refusal: the same for the application's refusal.
        junk: when it leads nowhere.
        ends_group: its reply does not wait for those of the commands behind it (RFC 2920 section 3.1).
        aborts_message: its success between two chunks ends the message. The application hears of that first.
    """

    verb: str
    keyword: str | None = None
    offered_if: Callable[[ServerConfig], bool] = _always
    needs_tls: bool = False
    allowed_in: frozenset[State]
    misplaced: Mapping[State, Reply] = field(default_factory=dict)
    take: Take
    refuse: Callable[[Reply], Take] | None = None
    event: type[Command] | None = None
    next_state: State | Mapping[State, State] | None = None
    default_reply: Reply | None = None
    success_enhanced: bool = True
    on_success: Answer | None = None
    on_refusal: Answer | None = None
    junk: Junk = Junk.NEVER
    ends_group: bool = False
    aborts_message: bool = False

    def after(self, state: State) -> State:
        """The state to which its success in `state` leads."""
        if self.next_state is None:
            return state
        return self.next_state if isinstance(self.next_state, State) else self.next_state[state]

    def step(self, state: State, *, lmtp: bool, locked: bool) -> Step:
        """What it comes to in one state.

        Args:
            state: one of COMMAND_STATES.
            lmtp: the server speaks LMTP.
            locked: TLS is required and not active.
        """
        if locked and self.needs_tls:
            refusal = TLS_FIRST
        elif state in self.allowed_in:
            return Step(self, self.take, self.after(state))
        else:
            refusal = self.misplaced[state]
        if lmtp and refusal is HELLO_FIRST:
            refusal = LHLO_FIRST
        return Step(self, (self.refuse or _refuse)(refusal), state)


@dataclass(frozen=True, slots=True)
class Step:
    """A command in one state: the row, the function to call with the argument, and the state its success leads to."""

    row: CommandRow
    take: Take
    next_state: State


class Rules(NamedTuple):
    """What holds in a session as long as TLS is not started in it.

    Attributes:
        steps: for each state, what each verb comes to; one that is not there is unknown.
        parameters: of MAIL and RCPT.
    """

    steps: Mapping[State, Mapping[bytes, Step]]
    parameters: ParameterContext


def steps_of(rows: Mapping[bytes, CommandRow], *, lmtp: bool, locked: bool) -> dict[State, dict[bytes, Step]]:
    """The table of commands, looked at from each state."""
    return {
        state: {verb: row.step(state, lmtp=lmtp, locked=locked) for verb, row in rows.items()}
        for state in COMMAND_STATES
    }


def _refuse(reply: Reply) -> Take:
    def refuse(protocol: ServerProtocol, argument: bytes) -> Reply:
        return reply

    return refuse


NO_STEP: Final = Step(
    CommandRow(verb="", allowed_in=frozenset(), take=_refuse(HELLO_FIRST)), _refuse(HELLO_FIRST), State.CONNECTED
)
