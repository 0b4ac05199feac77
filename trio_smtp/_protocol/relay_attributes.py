# The attributes of XCLIENT and XFORWARD (Postfix's XCLIENT_README and XFORWARD_README): two tables and a parser.
from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Final

from .replies import Reject
from .xtext import decode_xtext

MAX_VALUE: Final = 255  # characters of a value, XFORWARD_README
_NOTHING: Final = frozenset(("[UNAVAILABLE]", "[TEMPUNAVAIL]"))
_WORD = re.compile(r"[!-~]+").fullmatch

# Returns an attribute's value in its normal form, or raises ValueError.
_Reader = Callable[[str], str]


def _text(value: str) -> str:
    return value


def _word(value: str) -> str:
    if _WORD(value) is None:
        raise ValueError("not a word")
    return value


def _address(value: str) -> str:
    if value[:5].upper() == "IPV6:":
        return str(ipaddress.IPv6Address(value[5:].partition("%")[0]))
    return str(ipaddress.IPv4Address(value))


def _port(value: str) -> str:
    if not (value.isascii() and value.isdigit() and len(value) <= 5 and int(value) <= 65535):
        raise ValueError("not a port")
    return str(int(value))


def _one_of(*words: str) -> _Reader:
    def read(value: str) -> str:
        if value.upper() not in words:
            raise ValueError(f"not one of {words}")
        return value.upper()

    return read


XCLIENT: Final[dict[str, _Reader]] = {
    "NAME": _word,
    "ADDR": _address,
    "PORT": _port,
    "PROTO": _one_of("SMTP", "ESMTP"),
    "HELO": _word,
    "LOGIN": _text,
    "DESTADDR": _address,
    "DESTPORT": _port,
}
XFORWARD: Final[dict[str, _Reader]] = {
    "NAME": _word,
    "ADDR": _address,
    "PORT": _port,
    "PROTO": _word,
    "HELO": _word,
    "IDENT": _text,
    "SOURCE": _one_of("LOCAL", "REMOTE"),
}


def parse_attributes(argument: bytes, known: Mapping[str, _Reader]) -> dict[str, str | None]:
    """Read ``NAME=xtext NAME=xtext…``.

    Args:
        argument: the text after the verb.
        known: the table of attributes.

    Returns:
        Name in upper case to value; ``None`` for one that the relay does not know (``[UNAVAILABLE]``).

    Raises:
        Reject: 501: the attributes are malformed or unknown.
    """
    attributes: dict[str, str | None] = {}
    for item in argument.decode("latin-1").split(" "):
        if not item:
            continue
        name, _, value = item.partition("=")
        name = name.upper()
        read = known.get(name)
        if read is None:
            raise Reject(501, f"the attributes are {' '.join(known)}", "5.5.4")
        if value.upper() in _NOTHING:
            attributes[name] = None
            continue
        try:
            attributes[name] = read(decode_xtext(value)[: MAX_VALUE + 1])
        except ValueError:
            raise Reject(501, f"bad {name} value", "5.5.4") from None
        if len(value) > 3 * MAX_VALUE or len(attributes[name] or "") > MAX_VALUE:
            raise Reject(501, f"{name} has more than {MAX_VALUE} characters", "5.5.4")
    if not attributes:
        raise Reject(501, f"the attributes are {' '.join(known)}", "5.5.4")
    return attributes
