# What is said on one connection, written down: commands without secrets and replies, never a message's text.
#
# They go to the logger "trio_smtp" at level DEBUG, and to the connection's witness. Nothing here changes what is said.
from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from .._protocol.client.commands import Command
from .._protocol.replies import Reply
from .._wire.tls import TLSInfo
from .log import logger
from .trace import ClientWitness


class Dialogue:
    """The dialogue of one connection.

    Args:
        name: what log records call the connection.
        number: which of the pool it is, from 1 on.
        peer: the server's host and port, if it has any.
        witness: told of what happens, if anything is.

    Attributes:
        is_noted: whether anything is written down; looked up for each group of commands.
    """

    __slots__ = ("_is_logged", "_name", "_number", "_peer", "_witness", "is_noted")

    def __init__(self, name: str, number: int, peer: tuple[str, int] | None, witness: ClientWitness | None) -> None:
        self._name: Final = name
        self._number: Final = number
        self._peer: Final = peer
        self._witness: Final = witness
        self._is_logged = logger.isEnabledFor(logging.DEBUG)
        self.is_noted = self._is_logged or witness is not None

    def __repr__(self) -> str:
        return f"<Dialogue of {self._name}, {'noted' if self.is_noted else 'not noted'}>"

    def facts(self, command: Command | None = None, reply: Reply | None = None) -> dict[str, object]:
        """A log record's ``extra``: which connection it is about, which command, and which reply."""
        return {
            "smtp_connection": self._number,
            "smtp_peer": self._peer,
            "smtp_verb": "" if command is None else command.keyword,
            "smtp_code": 0 if reply is None else reply.code,
        }

    def note_commands(self, commands: Sequence[Command]) -> None:
        """A group of commands is about to leave."""
        witness = self._witness
        self._is_logged = logger.isEnabledFor(logging.DEBUG)
        self.is_noted = self._is_logged or witness is not None
        if self._is_logged:
            for command in commands:
                logger.debug("%s C: %s", self._name, command, extra=self.facts(command))
        if witness is not None:
            witness.note_sent(commands)

    def note_reply(self, command: Command, reply: Reply) -> None:
        """A reply has come."""
        if self._is_logged:  # challenges belong to the secrets of AUTH
            words = "334 ***" if reply.code == 334 else reply
            logger.debug("%s S: %s", self._name, words, extra=self.facts(command, reply))
        if self._witness is not None:
            self._witness.note_reply(command, reply)

    def note_tls(self, began: float, tls: TLSInfo | None, error: BaseException | None = None) -> None:
        """A handshake that began then is over."""
        if self._witness is not None:
            self._witness.note_tls(began, tls, error)

    def note_reason(self, reason: BaseException) -> None:
        """What may end the connection."""
        if self._witness is not None:
            self._witness.note_reason(reason)

    def close(self) -> None:
        """The connection is closed."""
        if self._witness is not None:
            self._witness.close()
