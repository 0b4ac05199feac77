# What a session writes to the log, and under which name.
from __future__ import annotations

from typing import TYPE_CHECKING

from .._logging import logger as logger

if TYPE_CHECKING:
    from .session import Session


def facts(session: Session) -> dict[str, object]:
    """A record's ``extra``: which session it is about."""
    return {"smtp_session": session.id, "smtp_peer": session.peer}


def log_line(session: Session, direction: str, line: bytes) -> None:
    """A command or a reply, for debugging."""
    text = line.decode("ascii", "backslashreplace").rstrip()
    more: dict[str, object] = {}
    if direction == ">":
        more["smtp_code"] = int(line[:3])
    elif not text.startswith("*"):  # which is a secret
        more["smtp_verb"] = text.partition(" ")[0].upper()
    logger.debug("session %s %s %s", session.id, direction, text, extra=facts(session) | more)


def log_notice(session: Session, what: str) -> None:
    """Something about a client that an operator may want to know, and that needs no one to do anything."""
    logger.info("session %s: %s", session.id, what, extra=facts(session))


def log_error(session: Session, what: str, exc: BaseException | None = None) -> None:
    """Something that the operator should look at, with the traceback of `exc`."""
    logger.error("session %s: %s", session.id, what, exc_info=exc, extra=facts(session))
