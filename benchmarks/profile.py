# ``python -m benchmarks.profile WORK`` profiles our server, pool or client under one workload.
#
# cProfile slows each Python call down, so the figures say which functions to look at, not what they cost.
from __future__ import annotations

import argparse
import cProfile
import pstats
import signal
import sys
from pathlib import Path

from .client_work import CLIENT_WORK, ClientWork, measure, serving
from .clients import CLIENTS, Client
from .environment import ROOT, Environment, cache
from .process import Process, free_port, lift_file_limit
from .server_work import LIMIT, SERVER_WORK, ServerWork


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


def send(target: str) -> None:
    """Run our client in this process, under the profiler while the measured messages are sent."""
    from .programs import send_trio_smtp
    from .programs.sending import done, ready

    profiler = cProfile.Profile()

    def begin() -> float:
        began = ready()
        profiler.enable()
        return began

    def end(began: float) -> None:
        profiler.disable()
        profiler.dump_stats(target)
        done(began)

    send_trio_smtp.main(begin, end)


def profile_server(environment: Environment, work: ServerWork, target: Path) -> None:
    """Profile the server."""
    port = free_port()
    options = ["--tls", work.tls, "--certificate", str(environment.certificate)]
    argv = [environment.python, "-m", "benchmarks.profile", "serve", str(target), str(port), *options]
    with Process(argv, environment=environment.variables(), cwd=ROOT) as server:
        server.wait_for_port(port)
        with Process(work.load(environment, port, work.messages), environment=environment.variables()) as load:
            load.wait(LIMIT)


class Profiled(Client):
    """One of our contenders, under the profiler."""

    def command(self, environment: Environment, port: int, options: dict[str, int]) -> list[str]:
        """The command line, run through this module."""
        python, _, program, *words = super().command(environment, port, options)
        assert program.endswith("send_trio_smtp")
        return [python, "-m", "benchmarks.profile", "send", str(cache() / "profile"), *words]


def profile_client(environment: Environment, work: ClientWork) -> None:
    """Profile the first of our clients."""
    ours = next(client for client in CLIENTS if client.program == "send_trio_smtp")
    with serving(work.peer, environment) as port:
        measure(environment, Profiled(ours.name, ours.program, ours.variant), port, work.options(work.messages))


def main() -> None:
    """Profile, and print the functions that took longest."""
    if sys.argv[1:2] in (["serve"], ["send"]):  # this module's own processes
        run = serve if sys.argv.pop(1) == "serve" else send
        run(sys.argv.pop(1))
        return
    works = {work.key: work for work in (*SERVER_WORK, *CLIENT_WORK)}
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.profile", description="Profile our server, pool or client under one workload."
    )
    parser.add_argument("work", metavar="WORK", choices=works, help=f"one of {', '.join(works)}")
    work = works[parser.parse_args().work]
    lift_file_limit()
    environment = Environment()
    target = cache() / "profile"
    if isinstance(work, ServerWork):
        profile_server(environment, work, target)
    else:
        profile_client(environment, work)
    statistics = pstats.Stats(str(target))
    statistics.strip_dirs().sort_stats("tottime").print_stats(45)
    print(f"{statistics.total_calls / work.messages:.1f} calls per message")  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
