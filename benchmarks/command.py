# The command line: what to run, how often, and where the results go.
from __future__ import annotations

import argparse
import datetime as dt
import os
from collections.abc import Callable

from .environment import Environment, machine
from .process import BenchmarkError, lift_file_limit
from .report import line_of, save
from .results import Row, Sample
from .server_work import SERVER_WORK, ServerWork
from .server_work import measure as measure_server
from .servers import SERVERS
from .targets import OURS, verdicts

QUICK_SHARE = 0.05  # of the messages
QUICK_WORK = ("kept-20", "each", "1mib", "tls-kept-20")


def main() -> None:
    """Run the benchmarks that are asked for."""
    options = _arguments()
    files = lift_file_limit()
    environment = Environment()
    for name, why in environment.missing.items():
        print(f"left out: {name} ({why})")
    facts = {
        "machine": machine(),
        "versions": ", ".join(f"{name} {version}" for name, version in environment.versions().items()),
        "when": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "rounds": f"{options.rounds}, every contender in turn; medians, and the range of the rounds",
        "processors": _pin(options.cpus),
        "limits lifted": f"connections in all and per host, messages per connection, message size; {files} open files",
    }
    works = [work for work in SERVER_WORK if _wanted(work.key, options.work)]
    titles = {work.key: work.title for work in works}
    rows: list[Row] = []
    for work in works:
        rows += _compare_servers(environment, work, options)
    print("\ntargets")
    for verdict in verdicts({(row.work, row.contender): row for row in rows}):
        target = verdict.target
        measured = "   –" if verdict.ratio is None else f"{verdict.ratio:.3f}"
        print(f"  {target.work:14} {measured} × {target.other:20} at most {target.limit:g}  {verdict.word}")
    if options.save:
        print("\nwritten:", save(options.save, facts, titles, rows))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure trio_smtp beside the others.")
    keys = ", ".join(work.key for work in SERVER_WORK)
    parser.add_argument("--work", nargs="+", default=[], metavar="KEY", help=f"workloads, of: {keys} (default: all)")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="contenders (default: all)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one round of few messages: does it run at all?")
    parser.add_argument(
        "--cpus",
        choices=["together", "apart"],
        default="together",
        help="a server and its load share one processor (default), or the system places them",
    )
    parser.add_argument("--save", metavar="NAME", help="write results/NAME.md and results/NAME.json")
    options = parser.parse_args()
    if options.quick:
        options.rounds = 1
        options.work = options.work or list(QUICK_WORK)
    return options


def _pin(cpus: str) -> str:
    """Put this process, and so all that it starts, on one processor.

    On two, most of what a reply costs a fast server is to wake the processor on which the load sleeps, which on a
    virtual machine takes longer than the rest of the system call and depends on everything else that runs there.
    """
    if cpus == "together" and hasattr(os, "sched_setaffinity"):
        chosen = max(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {chosen})
        return "the process under test and its load on one, so that no figure has the price of waking another one in it"
    return "placed by the system"


def _wanted(name: str, chosen: list[str]) -> bool:
    return not chosen or name in chosen


def _compare_servers(environment: Environment, work: ServerWork, options: argparse.Namespace) -> list[Row]:
    messages = max(work.connections, int(work.messages * QUICK_SHARE)) if options.quick else work.messages
    contenders: dict[str, Callable[[], Sample]] = {}
    for server in SERVERS:
        if not _wanted(server.name, options.only) or (work.only and server.name not in work.only):
            continue
        if server.why_not(environment, work.tls) is None:
            contenders[server.name] = lambda server=server: measure_server(environment, server, work, messages)
    print(f"\n{work.key}: {work.title}; {messages} messages", flush=True)
    return compare(work.key, contenders, options.rounds)


def compare(key: str, contenders: dict[str, Callable[[], Sample]], rounds: int) -> list[Row]:
    """Let every contender have its turn, as many times as there are rounds."""
    rows = {name: Row(key, name) for name in contenders}
    for _ in range(rounds):
        for name, measure in contenders.items():
            row = rows[name]
            if row.failure:
                continue
            try:
                row.samples.append(measure())
            except BenchmarkError as exc:
                row.failure = str(exc)
                row.samples.clear()
    for row in rows.values():
        print(line_of(row, rows.get(OURS)), flush=True)
    return list(rows.values())
