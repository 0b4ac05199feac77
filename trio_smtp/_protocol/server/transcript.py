# What is written of a session's dialogue for logs.
#
# Guarantee: no password gets into it, neither a command's nor that of a client which did not wait for AUTH's answer.
from __future__ import annotations

from collections.abc import Callable, Container
from typing import Final, Protocol, TypeAlias

from ..replies import Reply
from ..sasl import SERVER_MECHANISMS

Write: TypeAlias = Callable[[str, bytes], None]  # "<" or ">", and a line without its CR LF or a reply with it

_MECHANISMS: Final = frozenset(name.encode() for name in SERVER_MECHANISMS)


class Notes(Protocol):
    """What is told of each command line and each reply."""

    def note_command(self, line: bytes, *, authenticated: bool) -> None:
        """A line has come, outside an AUTH exchange."""

    def note_response(self) -> None:
        """A line of an AUTH exchange has come."""

    def note_reply(self, reply: Reply, wire: bytes) -> None:
        """A reply was given, and these octets are what will be sent of it."""


class Transcript:
    """Command lines and replies, secrets masked.

    Args:
        write: called with each.
        verbs: the commands there are.
    """

    __slots__ = ("_distrusted", "_verbs", "_write")

    def __init__(self, write: Write, verbs: Container[bytes]) -> None:
        self._write = write
        self._verbs = verbs
        self._distrusted: bool = False  # AUTH was noted: a line that is no command may belong to it

    def note_command(self, line: bytes, *, authenticated: bool) -> None:
        """Note a line outside an AUTH exchange."""
        words = line.split(None, 2)  # also at a TAB, which is no blank: what follows it is as secret
        if words and words[0][:4].upper() == b"AUTH":
            self._distrusted = True
            mechanism = words[1] if len(words) > 1 and len(words[0]) == 4 else b""
            line = b"AUTH " + (mechanism + b" ***" if mechanism.upper() in _MECHANISMS else b"***")
        elif self._distrusted and not authenticated and line.partition(b" ")[0].upper() not in self._verbs:
            line = b"***"  # a client that did not wait for the answer to AUTH, or did not understand it: a password
        self._write("<", line)

    def note_response(self) -> None:
        """Note a line of an AUTH exchange."""
        self._write("<", b"***")

    def note_reply(self, reply: Reply, wire: bytes) -> None:
        """Note a reply; a 334 holds a challenge."""
        self._write(">", b"334 ***" if reply.code == 334 else wire)
