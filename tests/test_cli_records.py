# The log in JSON.
from __future__ import annotations

import json
import logging
import smtplib
import sys
from datetime import datetime

from cli_process import LIMIT, Process

from trio_smtp._cli.records import JSONFormatter


def test_a_record_is_one_line_with_our_fields_and_a_traceback():
    try:
        raise ValueError("a bug")
    except ValueError:
        record = logging.LogRecord("trio_smtp", logging.ERROR, "", 0, "session %s:\nfailed", (7,), sys.exc_info())
    record.smtp_session, record.smtp_peer = 7, ("192.0.2.9", 5555)
    line = JSONFormatter().format(record)
    assert "\n" not in line
    found = json.loads(line)
    assert datetime.fromisoformat(found.pop("time")).utcoffset() is not None
    assert found.pop("traceback").endswith("ValueError: a bug")
    assert found == {
        "level": "ERROR",
        "logger": "trio_smtp",
        "message": "session 7:\nfailed",
        "session": 7,
        "peer": ["192.0.2.9", 5555],
    }


def test_the_dialogue_of_serve_in_json():
    process = Process("--log-json", "serve", "-v", "--port", "0", "--discard")
    try:
        port = int(process.line().split()[2].rpartition(":")[2])
        with smtplib.SMTP("127.0.0.1", port, timeout=LIMIT) as server:
            server.noop()
        process.signal()
        assert process.wait()[0] == 0
        records = [json.loads(line) for line in process.errors().splitlines()]
    finally:
        process.close()
    assert any("noop" in record["message"].lower() for record in records)
    assert {record["peer"][0] for record in records if "peer" in record} == {"127.0.0.1"}
