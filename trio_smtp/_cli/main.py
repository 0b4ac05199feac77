# The `trio-smtp` script: checks that the libraries of the command line are installed, then runs it.
#
# This module must not import click or rich. The script is installed with the package, they only with its `cli` extra.
from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and exit with its status."""
    try:
        from .commands import cli
    except ModuleNotFoundError as exc:
        missing = (exc.name or "").partition(".")[0]
        if missing not in {"click", "rich", "cryptography"}:
            raise
        print(
            f"trio-smtp: the command line needs {missing}; install it with: pip install 'trio-smtp[cli]'",
            file=sys.stderr,
        )
        sys.exit(2)
    cli(prog_name="trio-smtp")
