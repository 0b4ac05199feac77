# Where our server's time goes: ``python -m benchmarks.profile WORK`` profiles it under one of the workloads.
#
# cProfile makes each Python call dearer, so the figures say which functions to look at, not what they cost.
from __future__ import annotations

import cProfile
import pstats
import signal
import sys
from pathlib import Path

from .environment import ROOT, Environment, cache
from .process import Process, free_port, lift_file_limit
from .server_work import LIMIT, SERVER_WORK


def serve(target: str) -> None:
    """Run our server in this process under the profiler, until SIGTERM."""
    from .programs import serve_trio_smtp

    profiler = cProfile.Profile()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        profiler.runcall(serve_trio_smtp.main)
    except SystemExit:
        pass
    finally:
        profiler.disable()
        profiler.dump_stats(target)


def main() -> None:
    """Profile, and print what took longest."""
    if sys.argv[1] == "serve":
        target = sys.argv.pop(2)
        sys.argv.pop(1)
        serve(target)
        return
    work = next(work for work in SERVER_WORK if work.key == sys.argv[1])
    lift_file_limit()
    environment = Environment()
    port, target = free_port(), cache() / "profile"
    options = ["--tls", work.tls, "--certificate", str(environment.certificate)]
    argv = [environment.python, "-m", "benchmarks.profile", "serve", str(target), str(port), *options]
    with Process(argv, environment=environment.variables(), cwd=ROOT) as server:
        server.wait_for_port(port)
        with Process(work.load(environment, port, work.messages), environment=environment.variables()) as load:
            load.wait(LIMIT)
    statistics = pstats.Stats(str(Path(target)))
    statistics.strip_dirs().sort_stats("tottime").print_stats(45)
    print(f"{statistics.total_calls / work.messages:.1f} calls per message")  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
