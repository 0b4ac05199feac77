# ``python -m benchmarks.table results/NAME.json …`` prints the README's table.
from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .clients import OUR_CLIENT, OUR_POOL, PIPELINED
from .results import short
from .servers import FLOOR, OURS

SERVERS = (OURS, "aiosmtpd", "smtp-server", FLOOR)
POOLS = (OUR_POOL, "aiosmtplib", "nodemailer pool", PIPELINED)
CLIENTS = (OUR_CLIENT, "aiosmtplib", "nodemailer pool", PIPELINED)
LINES: Sequence[tuple[str, str, Sequence[str]]] = (
    ("kept-20", "server: 1 KiB, 20 kept connections (µs CPU)", SERVERS),
    ("each", "server: a connection per message (µs CPU)", SERVERS),
    ("1mib", "server: 1 MiB (µs CPU)", SERVERS),
    ("1mib-prose", "server: 1 MiB of prose, a dot in each line (µs CPU)", SERVERS),
    ("tls-kept-20", "server: 1 KiB over TLS, kept (µs CPU)", SERVERS),
    ("tls-1mib", "server: 1 MiB over TLS (µs CPU)", SERVERS),
    ("idle", "server: an idle session (KiB)", SERVERS),
    ("noop-p99", "server: NOOP during 8 uploads, 99th percentile (ms)", SERVERS),
    ("pool-20", "pool: 1 KiB, 20 connections (µs CPU)", POOLS),
    ("client-1mib", "client: 1 MiB (µs CPU)", CLIENTS),
    ("client-1mib-prose", "client: 1 MiB of prose (µs CPU)", CLIENTS),
    ("client-recipients", "client: 1 KiB to 100 recipients (µs CPU)", CLIENTS),
    ("trips-chunking", "pool: round trips per message, with CHUNKING and `early_text`", POOLS),
)


def table(runs: Sequence[Mapping[str, Any]]) -> str:
    """The table as Markdown."""
    found = {(row["work"], row["contender"]): row["figures"] for data in runs for row in data["rows"]}
    out = ["| per message | trio_smtp | aiosmtpd, aiosmtplib | smtp-server, nodemailer | bare Trio |"]
    out.append("|---|--:|--:|--:|--:|")
    for work, title, contenders in LINES:
        figures = [found.get((work, name)) or [] for name in contenders]
        if not figures[0]:
            continue
        cells = [short(statistics.median(values)) if values else "–" for values in figures]
        out.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(out)


if __name__ == "__main__":
    print(table([json.loads(Path(name).read_text(encoding="utf-8")) for name in sys.argv[1:]]))
