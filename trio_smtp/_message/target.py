# What octets may look like where a message goes: the server's extensions, and the limits of lines.
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Final, ParamSpec, TypeVar

from .._protocol.errors import Delivery, ExtensionNotSupportedError, LocalProtocolError, SMTPError

MAX_LINE: Final = 998  # octets without CR LF (RFC 5322 §2.1.1)
USUAL_LINE: Final = 78  # the same section: what a line should have
_SHORTEST_LINE: Final = 40  # a policy may ask for less, but an encoded word needs room


_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Target:
    """The server's side of a message.

    Attributes:
        eight_bit: it takes octets above 127 (8BITMIME).
        utf8: the transaction has SMTPUTF8: header fields may be UTF-8.
    """

    eight_bit: bool
    utf8: bool


class ServerLacksError(ExtensionNotSupportedError, LocalProtocolError):
    """The message cannot be written for this server: it needs an extension, and has no other form."""


def unwritable(text: str) -> LocalProtocolError:
    """The error for a message that cannot be written."""
    return LocalProtocolError(f"the message cannot be written: {text}")


def lacking(extension: str, text: str) -> ServerLacksError:
    """The error for a message that can be written, but not for this server."""
    return ServerLacksError(
        f"{text}: that needs {extension}, which the server does not offer", delivery=Delivery.NOT_SENT
    )


def refusing(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Make whatever a message object raises a LocalProtocolError.

    An application may put anything into a message, and the email package's parsers raise IndexError, ValueError and
    others, each version its own. For the sender all of them mean the same: this message cannot be written.
    """

    @wraps(function)
    def refuse(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return function(*args, **kwargs)
        except SMTPError:
            raise
        except Exception as exc:
            raise unwritable(f"{type(exc).__name__}: {exc}") from exc

    return refuse


def line_length(wanted: object) -> int:
    """How long lines of composed fields are, by a policy's ``max_line_length`` (0 and ``None``: as long as allowed)."""
    if not isinstance(wanted, int) or wanted <= 0:
        return MAX_LINE if wanted in (0, None) else USUAL_LINE
    return min(max(wanted, _SHORTEST_LINE), MAX_LINE)


def has_long_line(octets: bytes) -> bool:
    """Whether a line has more than :data:`MAX_LINE` octets. Lines end with LF or CR LF."""
    at, end = 0, len(octets)
    while end - at > MAX_LINE:
        newline = octets.rfind(b"\n", at, at + MAX_LINE + 2)  # with CR LF
        if newline < 0:
            return end - at > MAX_LINE + 1 or octets[-1:] != b"\r"
        if newline - at == MAX_LINE + 1 and octets[newline - 1] != 13:
            newline = octets.rfind(b"\n", at, newline)
            if newline < 0:
                return True
        at = newline + 1
    return False
