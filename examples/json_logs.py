"""The library's log as JSON, one document a line, with the fields of each record.

The command line does the same: ``trio-smtp --log-json serve``.
"""

import json
import logging

import trio

import trio_smtp


class JSON(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        document = {
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        document |= {
            name: str(value)
            for name, value in vars(record).items()
            if name.startswith("smtp_")
        }
        return json.dumps(document)


if __name__ == "__main__":
    handler = logging.StreamHandler()
    handler.setFormatter(JSON())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    # Every command and reply, with secrets masked:
    logging.getLogger("trio_smtp").setLevel(logging.DEBUG)
    trio.run(trio_smtp.serve, trio_smtp.Discard(), 2525)
