# What it costs a server to be watched: `python -m benchmarks.telemetry [--rounds N] [--messages N]`.
#
# The same server takes the same messages without a trace function, with one that does nothing, with Prometheus and with
# OpenTelemetry, in turns, so that a busy machine is unfair to each alike. Reported is the CPU time of a message, the
# least and the median of the rounds, and how much more that is than without. What else runs on the machine can only add
# to it, so the least is what the code costs. Needs Postfix's smtp-source, and the extra `telemetry`; OpenTelemetry's
# part also its SDK.
from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import subprocess
import sys
import time

from .environment import ROOT, tool
from .process import Process, free_port

NONE = "none"
VARIANTS = (NONE, "trace", "prometheus", "opentelemetry")
LIMIT = 120.0  # seconds that one load may take
SETTLE = 0.05  # seconds until the server is idle


def measure(variant: str, source: str, messages: int, connections: int) -> float:
    """Microseconds of the server's CPU time for each message."""
    port = free_port()
    program = [sys.executable, "-m", "benchmarks.programs.serve_trio_smtp", str(port)]
    variables = os.environ | {"PYTHONPATH": str(ROOT)}
    with Process([*program, "--variant", "" if variant == NONE else variant], environment=variables) as process:
        process.wait_for_port(port)
        load = [source, "-d", "-l", "1024", "-s", str(connections), "-f", "a@test.example", "-t", "b@test.example"]
        _send([*load, "-m", str(messages // 3)], port)
        before = process.cpu()
        _send([*load, "-m", str(messages)], port)
        time.sleep(SETTLE)
        return (process.cpu() - before) / messages * 1e6


def _send(load: list[str], port: int) -> None:
    subprocess.run([*load, f"127.0.0.1:{port}"], check=True, timeout=LIMIT, capture_output=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="The cost of watching a server.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--messages", type=int, default=4000)
    parser.add_argument("--connections", type=int, default=20)
    parser.add_argument("--only", choices=VARIANTS[1:], action="append", help="one variant; may be repeated")
    options = parser.parse_args()
    source = tool("smtp-source")
    if source is None:
        sys.exit("Postfix's smtp-source is not installed")
    variants = [NONE, *(options.only or VARIANTS[1:])]
    if "opentelemetry" in variants and importlib.util.find_spec("opentelemetry.sdk") is None:
        variants.remove("opentelemetry")
        print("opentelemetry-sdk is not installed: left out")
    rounds = [
        {variant: measure(variant, source, options.messages, options.connections) for variant in variants}
        for _ in range(options.rounds)
    ]
    for kind, of in (("least", min), ("median", statistics.median)):
        base = of(each[NONE] for each in rounds)
        for variant in variants:
            cost = of(each[variant] for each in rounds)
            print(f"{kind:8}{variant:15}{cost:8.1f} µs CPU for a message{cost / base - 1:+8.1%}")


if __name__ == "__main__":
    main()
