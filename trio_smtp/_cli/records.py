# Log records as JSON, one document a line: for `trio-smtp --log-json`.
from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any, Final

_OURS: Final = "smtp_"  # what the library's records have beside the usual; docs/observing.md lists them


class JSONFormatter(logging.Formatter):
    """A record's time, level, logger and message, the library's own fields, and a traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """The record on one line."""
        document: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name, value in vars(record).items():
            if name.startswith(_OURS) and value:  # what says nothing is left out
                document[name.removeprefix(_OURS)] = value
        if record.exc_info:
            document["traceback"] = self.formatException(record.exc_info)
        return json.dumps(document, default=str)


def log_as_json() -> None:
    """Let the log go to standard error in this form."""
    handler = logging.StreamHandler()
    handler.setFormatter(JSONFormatter())
    logging.basicConfig(handlers=[handler])  # what comes after it changes nothing
