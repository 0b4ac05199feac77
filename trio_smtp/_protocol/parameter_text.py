# Parameters as a client writes them: " SIZE=1234 BODY=8BITMIME", from the values of an application.
#
# Strict out: for any input, the result of format_params() cannot end a line or a parameter early.
from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from .errors import Delivery, LocalProtocolError
from .parameters import PARAMETERS

_KEYWORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*").fullmatch  # RFC 5321 §4.1.2, esmtp-keyword
_VALUE = re.compile(r"[!-<>-~]+").fullmatch  # RFC 5321 §4.1.2, esmtp-value
_VALUE_UTF8 = re.compile(r"[!-<>-~\xa0-\u2027\u202a-\ud7ff\ue000-\U0010ffff]+").fullmatch  # RFC 6531 §3.3
_NUMBER = re.compile(r"\+?[0-9]{1,9}").fullmatch
_EXTENSION = {(row.command, row.keyword): row.extension for row in PARAMETERS}


def format_params(params: Mapping[str, str | int | None], *, smtputf8: bool = False) -> str:
    """The text of the parameters of MAIL or RCPT, with a space before each; ``""`` for none.

    Args:
        params: keyword to value; ``None`` for a keyword without one. Values are sent unchanged: the caller encodes
            xtext.
        smtputf8: the transaction has SMTPUTF8, so values may be UTF-8.

    Raises:
        TypeError: a keyword is not a str, or a value is no str, int or ``None``.
        LocalProtocolError: a keyword or a value is malformed (spaces, ``=``, control characters, non-ASCII without
            SMTPUTF8), or a keyword occurs twice in different case.
    """
    seen: set[str] = set()
    parts: list[str] = []
    for name, value in params.items():
        # A bool is an int: True would go out as "True".
        if not isinstance(name, str) or not isinstance(value, str | int | None) or isinstance(value, bool):
            raise TypeError(f"a parameter must be a str with a str, an int or None, not {name!r} with {value!r:.80}")
        keyword = name.upper()
        if not _KEYWORD(name):
            raise _illegal(f"{name!r} is not a parameter keyword")
        if keyword in seen:
            raise _illegal(f"the parameter {keyword} is given twice")
        seen.add(keyword)
        if value is None:
            parts.append(f" {keyword}")
            continue
        text = str(value)
        if not (_VALUE_UTF8(text) if smtputf8 else _VALUE(text)):
            raise _illegal(f"{text!r} cannot be the value of {keyword}")
        parts.append(f" {keyword}={text}")
    return "".join(parts)


def required_extensions(command: Literal["MAIL", "RCPT"], params: Mapping[str, str | int | None]) -> frozenset[str]:
    """The EHLO keywords that a server must offer for these parameters of ``"MAIL"`` or ``"RCPT"``.

    An unknown keyword requires nothing; the caller checks for its extension.
    """
    wanted = {extension for keyword in params if (extension := _EXTENSION.get((command, keyword.upper()))) is not None}
    if any(keyword.upper() == "BODY" and str(value).upper() == "BINARYMIME" for keyword, value in params.items()):
        wanted |= {"BINARYMIME", "CHUNKING"}  # RFC 3030 §3
    return frozenset(wanted)


def beyond_offer(params: Mapping[str, str | int | None], offered: Mapping[str, str]) -> str:
    """Describe what these parameters of MAIL ask for beyond the limits in the server's EHLO; ``""`` for nothing.

    A malformed limit or value is left to the server.

    Args:
        params: keyword in upper case to value.
        offered: EHLO keyword to the text after it.
    """
    given = {keyword: str(value) for keyword, value in params.items()}
    interval, _, moment = offered.get("FUTURERELEASE", "").partition(" ")  # RFC 4865
    if _is_over(given.get("HOLDFOR", ""), interval):
        return f"HOLDFOR={given['HOLDFOR']}, but the server holds a message for at most {interval} seconds"
    latest, wanted = _moment(moment), _moment(given.get("HOLDUNTIL", ""))
    if latest is not None and wanted is not None and wanted > latest:
        return f"HOLDUNTIL={given['HOLDUNTIL']}, but the server holds a message until {moment} at most"
    seconds, _, mode = given.get("BY", "").partition(";")
    least = offered.get("DELIVERBY", "").partition(",")[0]  # RFC 2852 §2: the first of a list
    if mode.upper().startswith("R") and _is_over(least, seconds):  # §4: with mode N there is no minimum
        return f"BY={given['BY']}, but the server needs at least {least} seconds"
    return ""


def _is_over(text: str, limit: str) -> bool:
    return _NUMBER(text) is not None and _NUMBER(limit) is not None and int(text) > int(limit)


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text.strip().upper())
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None


def _illegal(message: str) -> LocalProtocolError:
    return LocalProtocolError(message, delivery=Delivery.NOT_SENT)
