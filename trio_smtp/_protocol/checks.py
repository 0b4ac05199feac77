# Checks of the fields of configurations and of arguments. Each raises an error that names the field or argument.
from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable
from typing import Final

from .errors import LocalProtocolError

_PRINTABLE = re.compile(r"[\x20-\x7e]*")
_ATOM = re.compile(r"[\x21-\x7e]+")
_MAX_SECONDS: Final = 10**12


def check_seconds(name: str, value: float | None, *, zero: bool = False, optional: bool = True) -> None:
    """Check a time limit: a positive number of seconds, or ``None`` for no limit."""
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number of seconds{' or None' if optional else ''}, not {value!r}")
    if isinstance(value, int) and value > _MAX_SECONDS:  # no float: the clock could not count it
        raise ValueError(f"{name} must be at most {_MAX_SECONDS} seconds, or math.inf")
    if math.isnan(value) or value < 0 or (value == 0 and not zero):
        raise ValueError(f"{name} must be {'at least' if zero else 'more than'} 0 seconds, not {value!r}")


def check_count(
    name: str, value: int | None, *, least: int = 1, most: int | None = None, optional: bool = True
) -> None:
    """Check a limit on a count: at least `least`, at most `most`, or ``None`` for no limit."""
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int{' or None' if optional else ''}, not {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {value!r}")
    if most is not None and value > most:
        raise ValueError(f"{name} must be at most {most}")


def check_kind(name: str, value: object, kind: type, *, optional: bool = False) -> None:
    """Check that a value is an object of a class."""
    if not isinstance(value, kind) and not (optional and value is None):
        words = f"{kind.__module__}.{kind.__name__}".removeprefix("builtins.")
        raise TypeError(f"{name} must be of type {words}{' or None' if optional else ''}, not {value!r:.80}")


def check_function(name: str, value: object, words: str = "a function") -> None:
    """Check that a value can be called, or is ``None``."""
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be {words} or None, not {value!r:.80}")


def check_flag(name: str, value: object) -> None:
    """Check a bool. Other types are refused, since ``"no"`` is true."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {value!r}")


def check_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """Check that the value is one of a few words."""
    allowed = tuple(choices)
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, not {value!r}")


def check_path(name: str, value: object) -> str:
    """Check the path of a file; return it as a str."""
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name} must be a path, as a str or os.PathLike, not {value!r:.80}")
    path = os.fsdecode(value)
    if not path or "\0" in path:
        raise ValueError(f"{name} cannot be a path: {path!r:.80}")
    return path


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
