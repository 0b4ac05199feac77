# The records of the logger "trio_smtp", and what each of them carries for programs that read logs.
#
# Guarantee: each record of this logger has all of FIELDS, whatever it is about, so a format string may name them.
# docs/observing.md lists them.
from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

FIELDS: Final[Mapping[str, object]] = {
    "smtp_session": "",
    "smtp_connection": 0,
    "smtp_peer": None,
    "smtp_verb": "",
    "smtp_code": 0,
}  # with what they are where a record is about nothing of the kind

logger: Final = logging.getLogger("trio_smtp")


def complete(record: logging.LogRecord) -> bool:
    """Give a record the fields that it lacks."""
    for name, nothing in FIELDS.items():
        if not hasattr(record, name):
            setattr(record, name, nothing)
    return True


logger.addFilter(complete)
