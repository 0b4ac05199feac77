# XCLIENT and XFORWARD: a trusted relay says whose mail it hands on.
#
# XCLIENT makes the session that of the client it names, and starts it over, as if that client had just connected.
# XFORWARD only notes, for logging, where the next message came from. Both are unknown where nobody is trusted, and
# refused from those who are not; `trusted` is decided by whoever knows addresses.
from __future__ import annotations

from typing import Final

from ..relay_attributes import XCLIENT, XFORWARD, parse_attributes
from ..replies import Reply
from .core import ServerCore, Taken
from .events import Introduction, State
from .tables import OK

NOT_TRUSTED: Final = Reply(550, "insufficient authorization", "5.7.0")


class RelayCommands(ServerCore):
    """XCLIENT and XFORWARD."""

    __slots__ = ()

    def _take_xclient(self, argument: bytes) -> Taken:
        if not self.trusted:
            return NOT_TRUSTED
        return Introduction(parse_attributes(argument, XCLIENT))

    def _succeed_xclient(self, event: Introduction, reply: Reply) -> None:
        """Start over; the caller greets the client that was named."""
        self._forget()
        self.external_identity = None  # the certificate was the relay's
        self.introduced = {**self.introduced, **event.attributes}
        self.authenticated = bool(self.introduced.get("LOGIN"))
        self.state = State.CONNECTED
        self._flush = True

    def _take_xforward(self, argument: bytes) -> Taken:
        if not self.trusted:
            return NOT_TRUSTED
        self.forwarded = {**self.forwarded, **parse_attributes(argument, XFORWARD)}
        return OK
