# The command line: what to run, how often, and where to save the results.
from __future__ import annotations

import argparse
import datetime as dt
import os
import signal
import subprocess
import sys

from .client_work import CLIENT_WORK
from .compare import Work, compare
from .environment import Environment, machine
from .idle_work import IDLE_WORK
from .large_work import LARGE_WORK
from .latency_work import LATENCY_WORK
from .outbox_work import OUTBOX_WORK
from .process import lift_file_limit
from .report import save
from .results import Row
from .server_work import SERVER_WORK
from .targets import verdicts
from .trips_work import TRIPS_WORK

PARTS: dict[str, tuple[Work, ...]] = {
    "servers": SERVER_WORK,
    "clients": CLIENT_WORK,
    "trips": TRIPS_WORK,
    "idle": IDLE_WORK,
    "large": LARGE_WORK,
    "latency": LATENCY_WORK,
    "outbox": OUTBOX_WORK,
}
ALL = [work for works in PARTS.values() for work in works]
PLOT_LIMIT = 120.0  # seconds
QUICK_SHARE = 0.05  # of the messages
QUICK_WORK = ("kept-20", "each", "1mib", "tls-kept-20", "pool-20", "client-1mib")
LIFTED = (
    "the server's connections in all and per host, messages and NOOPs per connection, message size; the pool's "
    "messages per connection; those of the others likewise; {files} open files"
)


def main() -> None:
    """Run the chosen benchmarks."""
    options = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # also stops the child processes
    files = lift_file_limit()
    environment = Environment()
    for name, why in environment.missing.items():
        print(f"left out: {name} ({why})")
    facts = {
        "command": " ".join(["python -m benchmarks", *sys.argv[1:]]),
        "machine": machine(),
        "versions": ", ".join(f"{name} {version}" for name, version in environment.versions().items()),
        "when": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "rounds": f"{options.rounds} (fewer for long workloads), every contender in turn; medians and ranges",
        "processors": _pin(options.cpus),
        "floors": "bare Trio, canned replies, nothing parsed or checked; over TLS, SSLStream on a SocketStream",
        "limits lifted": LIFTED.format(files=files),
    }
    works = [work for work in ALL if work.key in options.work]
    titles = {work.key: work.title for work in works}
    rows: list[Row] = []
    for work in works:
        rows += compare(work, environment, only=options.only, rounds=options.rounds, share=options.share)
        if options.save:
            save(options.save, facts, titles, rows)  # after each workload, so that an interrupted run keeps its results
    print("\ntargets")
    for verdict in verdicts(rows):
        print(f"  {titles[verdict.target.work]}: {verdict}")
    if options.save:
        page = save(options.save, facts, titles, rows)
        print("\nwritten:", page)
        argv = [environment.python, "-m", "benchmarks.plots", str(page.with_suffix(".json"))]
        subprocess.run(argv, env=environment.variables(), timeout=PLOT_LIMIT, check=False)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Compare trio_smtp with other libraries.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of: {', '.join(PARTS)} (default: all)")
    keys = ", ".join(work.key for work in ALL)
    parser.add_argument("--work", nargs="+", default=[], metavar="KEY", help=f"workloads, of: {keys}")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="contenders (default: all)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--share", type=float, default=1.0, help="fraction of the messages of each round")
    parser.add_argument("--quick", action="store_true", help="one round of few messages, to check that everything runs")
    parser.add_argument(
        "--cpus",
        choices=["together", "apart"],
        default="together",
        help="run a process and its peer on one processor (default), or let the system place them",
    )
    parser.add_argument("--save", metavar="NAME", help="write results/NAME.md, .json and the plots")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(unknown)}")
    if unknown := set(options.work) - {work.key for work in ALL}:
        parser.error(f"no such workload: {', '.join(unknown)}")
    if options.quick:
        options.rounds, options.share = 1, QUICK_SHARE
    if not options.work:
        parts = options.parts or PARTS
        quick = options.quick and not options.parts
        options.work = [work.key for part in parts for work in PARTS[part] if not quick or work.key in QUICK_WORK]
    return options


def _pin(cpus: str) -> str:
    """Put this process, and so its child processes, on one processor.

    With two, most of the cost of a reply is to wake the processor of the sleeping load. On a virtual machine that takes
    longer than the rest of the system call, and depends on everything else that runs there.
    """
    if cpus == "together" and hasattr(os, "sched_setaffinity"):
        chosen = max(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {chosen})
        return "the process under test and its peer on one, so that figures do not include waking another processor"
    return "placed by the system"
