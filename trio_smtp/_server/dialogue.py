# What is said in a session, told line by line to the log and to `ServerConfig.transcript`; secrets are masked before.
from __future__ import annotations

import logging
from typing import TypeAlias

from .._observer import Observer
from .log import log_line, logger
from .session import Session

Line: TypeAlias = tuple[Session, str, str]  # the side, "C" or "S", and the text


class Dialogue:
    """The lines of one session.

    Args:
        session: which it is.
        observer: calls the application's function, if there is one.
    """

    __slots__ = ("_observer", "_session")

    def __init__(self, session: Session, observer: Observer[Line] | None) -> None:
        self._session: Session = session
        self._observer: Observer[Line] | None = observer

    def note(self, direction: str, line: bytes) -> None:
        """A command (``"<"``), or a reply (``">"``) of one or more lines."""
        if logger.isEnabledFor(logging.DEBUG):
            log_line(self._session, direction, line)
        if self._observer is not None:
            side = "C" if direction == "<" else "S"
            for each in line.decode("utf-8", "backslashreplace").removesuffix("\r\n").split("\r\n"):
                self._observer.tell((self._session, side, each))
