# The dialogue of one SMTP connection, and the part of it in which a message came.
#
# A message's part is the beginning, up to the first MAIL, and its own transaction, up to the reply to its end. What
# comes here has its secrets masked already.
from __future__ import annotations

from collections.abc import Callable
from typing import Final

MAX_LINES: Final = 1000  # of the beginning, and of a transaction
MAX_LINE: Final = 2000  # characters
_OPENING: Final = frozenset({"EHLO", "HELO", "LHLO", "STARTTLS", "AUTH"})


class Dialogue:
    """Lines with ``C:`` or ``S:`` before them."""

    __slots__ = ("_finish", "_opening", "_transaction", "_writes_opening")

    def __init__(self) -> None:
        self._opening: list[str] = []
        self._transaction: list[str] = []
        self._writes_opening: bool = True
        self._finish: Callable[[str], None] | None = None  # a message has come, and its reply is to come

    def note(self, side: str, line: str) -> None:
        """Note a line of a command (``"C"``) or of a reply (``"S"``)."""
        if side == "C":
            self._finish = None
            verb = line[:8].upper().split(" ")[0]
            if verb == "MAIL":
                self._writes_opening = False
                self._transaction = []
            elif verb in _OPENING:
                self._writes_opening = True
        lines = self._opening if self._writes_opening else self._transaction
        text = line[:MAX_LINE]
        if not text.isprintable():
            text = "".join(char if char.isprintable() else "?" for char in text)
        if len(lines) < MAX_LINES:
            lines.append(f"{side}: {text}")
        elif side == "S" and self._finish is not None:
            lines[-2:] = ["…", f"{side}: {text}"]
        if side == "S" and self._finish is not None:
            self._finish(self.text)

    def keep(self, octets: int, finish: Callable[[str], None]) -> None:
        """A message of so many octets has come; `finish` is called with the text once its reply is in it."""
        self._transaction.append(f"C: ({octets} octets of content)")
        self._finish = finish

    @property
    def text(self) -> str:
        """The beginning and the transaction."""
        return "".join(f"{line}\n" for line in (*self._opening, *self._transaction))
