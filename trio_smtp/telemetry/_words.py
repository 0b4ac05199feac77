# The words that label metrics, of which there are only so many, whatever peers send and applications answer.
from __future__ import annotations

from typing import Final

OTHER: Final = "other"
NONE: Final = "none"
MAX_HOSTS: Final = 100  # of a pool; a function that names hosts may name any number

# RFC 5321 §4.2.3, RFC 4954 §6, RFC 7504, RFC 7505, RFC 5248; a code that is not among them is its class: "5xx".
_CODES: Final = {
    code: str(code)
    for code in (
        *(211, 214, 220, 221, 235, 250, 251, 252, 334, 354),
        *(421, 432, 450, 451, 452, 453, 454, 455, 458, 459),
        *(500, 501, 502, 503, 504, 521, 523, 524, 525, 530, 534, 535, 538, 541),
        *(550, 551, 552, 553, 554, 555, 556, 557, 571),
    )
}
_OUTCOMES: Final = {2: "accepted", 4: "deferred", 5: "refused"}


def code_word(code: int) -> str:
    """A reply's code."""
    return _CODES.get(code) or (NONE if not code else f"{code // 100}xx")


def outcome_word(code: int, given_up: str = "given up") -> str:
    """What a reply means for a message or a recipient."""
    return _OUTCOMES.get(code // 100, given_up)


class Hosts:
    """The hosts that have a label of their own: the first ones."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def word(self, host: str) -> str:
        """A host's label."""
        if host not in self._known:
            if len(self._known) >= MAX_HOSTS:
                return OTHER
            self._known.add(host)
        return host
