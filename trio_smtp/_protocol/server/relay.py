# XCLIENT and XFORWARD: a trusted relay says whose mail it hands on.
#
# XCLIENT makes the session that of the client it names, and starts it over, as if that client had just connected.
# XFORWARD only notes, for logging, where the next message came from. Both are unknown where no network is trusted, and
# refused from peers outside those networks; the caller decides, since this file does not know addresses.
from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from ..relay_attributes import XCLIENT, XFORWARD, parse_attributes
from ..replies import Reply
from .events import XClient
from .fixed_replies import NOT_TRUSTED, OK
from .rows import Taken

if TYPE_CHECKING:
    from .protocol import ServerProtocol

_SAID: Final = ("HELO", "PROTO", "LOGIN")  # by the client itself, the other attributes say who it is
_NOTHING: Final[Mapping[str, str | None]] = MappingProxyType({})  # for all sessions: few have a relay


class Relay:
    """What a relay has said in one session.

    Attributes:
        trusted: the peer may use XCLIENT and XFORWARD.
        xclient: what XCLIENT has said of the client, attribute to value or ``None``.
        forwarded: what XFORWARD has said of the next message, likewise.
    """

    __slots__ = ("forwarded", "trusted", "xclient")

    def __init__(self) -> None:
        self.trusted: bool = False
        self.xclient: Mapping[str, str | None] = _NOTHING
        self.forwarded: Mapping[str, str | None] = _NOTHING

    def trust(self, trusted: bool) -> None:
        """Decide whether the peer is one of the relays."""
        self.trusted = trusted

    def introduce(self, attributes: Mapping[str, str | None]) -> None:
        """Take what XCLIENT says; what it does not mention stays."""
        self.xclient = {**self.xclient, **attributes}

    def forward(self, attributes: Mapping[str, str | None]) -> None:
        """Take what XFORWARD says, likewise."""
        self.forwarded = {**self.forwarded, **attributes}

    def forget_forwarded(self) -> None:
        """The transaction is over, or was given up before it began (XFORWARD_README: for one transaction)."""
        self.forwarded = _NOTHING

    def restart(self) -> None:
        """The session starts over: who the client is stays, as with PROXY; what it said does not."""
        self.forwarded = _NOTHING
        if self.xclient:
            self.xclient = {name: value for name, value in self.xclient.items() if name not in _SAID}


NO_RELAY: Final = Relay()  # of all sessions whose peer is not trusted; it is never changed


def take_xclient(protocol: ServerProtocol, argument: bytes) -> Taken:
    """``XCLIENT NAME=value ...``"""
    if not protocol.relay.trusted:
        return NOT_TRUSTED
    return XClient(parse_attributes(argument, XCLIENT))


def take_xforward(protocol: ServerProtocol, argument: bytes) -> Taken:
    """``XFORWARD NAME=value ...``"""
    if not protocol.relay.trusted:
        return NOT_TRUSTED
    protocol.relay.forward(parse_attributes(argument, XFORWARD))
    return OK


def start_over(protocol: ServerProtocol, event: XClient, reply: Reply) -> None:
    """Begin the session again, as that of the client that was named; the caller greets it."""
    protocol.restart()
    protocol.relay.introduce(event.attributes)
    protocol.auth.vouch(bool(protocol.relay.xclient.get("LOGIN")))
