# Checks shared by the configuration classes. Each raises an error that names the field.
from __future__ import annotations

import math
import re
from collections.abc import Iterable

from .errors import LocalProtocolError

_PRINTABLE = re.compile(r"[\x20-\x7e]*")
_ATOM = re.compile(r"[\x21-\x7e]+")


def check_seconds(name: str, value: float | None, *, zero: bool = False) -> None:
    """Check a time limit: a positive number of seconds, or ``None`` for no limit."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number of seconds or None, not {value!r}")
    if math.isnan(value) or value < 0 or (value == 0 and not zero):
        raise ValueError(f"{name} must be more than 0 seconds, not {value!r}")


def check_count(name: str, value: int | None, *, least: int = 1, optional: bool = True) -> None:
    """Check a limit on a count: at least `least`, or ``None`` for no limit."""
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int{' or None' if optional else ''}, not {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {value!r}")


def check_flag(name: str, value: object) -> None:
    """Check a bool. Other types are refused, since ``"no"`` is true."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {value!r}")


def check_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """Check that the value is one of a few words."""
    allowed = tuple(choices)
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, not {value!r}")


def check_text(name: str, value: object, *, word: bool = False) -> None:
    """Check text for a line of the protocol: printable ASCII; with `word`, also no spaces and not empty.

    Raises:
        TypeError: it is not a str.
        LocalProtocolError: it cannot be sent.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {value!r}")
    if (_ATOM if word else _PRINTABLE).fullmatch(value) is None:
        raise LocalProtocolError(f"{name} must be printable ASCII{' without spaces' if word else ''}, not {value!r}")


def check_names(name: str, values: object, known: Iterable[str]) -> tuple[str, ...]:
    """Check a collection of known words; return it in upper case. A str is refused: it is a collection of letters."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise TypeError(f"{name} must be a sequence of names, not {values!r}")
    allowed = set(known)
    names = tuple(str(value).upper() for value in values)
    for item in names:
        if item not in allowed:
            raise ValueError(f"{name}: {item!r} is not one of {', '.join(sorted(allowed))}")
    return names
