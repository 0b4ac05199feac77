# The coverage-guided run of a fuzz target: libFuzzer through atheris, with a seed corpus, for a given time.
#
# The modules are imported again with instrumentation, so the branches of trio_smtp guide the search. Inputs that reach
# something new go to the directory of --corpus, crashing inputs to the working directory.
from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
from pathlib import Path

SEEDS = Path(__file__).with_name("corpus")


def load_seeds(target: str) -> list[bytes]:
    """The seed corpus of a target, ``"server"`` or ``"client"``."""
    return [path.read_bytes() for path in sorted((SEEDS / target).iterdir())]


def main(target: str) -> None:
    """Run a target from the command line."""
    parser = argparse.ArgumentParser(prog=f"python -m fuzz.{target}")
    parser.add_argument("--seconds", type=int, default=60, help="how long (default: %(default)s)")
    parser.add_argument("--corpus", type=Path, help="where to keep inputs that reach something new")
    parser.add_argument("inputs", nargs="*", type=Path, help="only run these inputs, for example to repeat a crash")
    options = parser.parse_args()
    if options.inputs:
        check = importlib.import_module(f"fuzz.{target}").check
        for path in options.inputs:
            check(path.read_bytes())
        return
    try:
        import atheris
    except ImportError:
        sys.exit("the coverage-guided run needs atheris: pip install -e '.[fuzz]'")
    for name in [name for name in sys.modules if name.startswith("trio_smtp")]:
        del sys.modules[name]  # imported without instrumentation
    with atheris.instrument_imports(include=["trio_smtp._protocol"]):
        check = importlib.import_module(f"fuzz.{target}").check
    with tempfile.TemporaryDirectory() as scratch:
        found = options.corpus or Path(scratch)
        found.mkdir(parents=True, exist_ok=True)
        limits = [f"-max_total_time={options.seconds}", "-max_len=4096", "-timeout=10", "-print_final_stats=1"]
        atheris.Setup([sys.argv[0], *limits, str(found), str(SEEDS / target)], check)
        atheris.Fuzz()
