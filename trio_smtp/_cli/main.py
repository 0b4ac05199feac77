# The `trio-smtp` script: checks that the libraries of the command line are installed, then runs it.
#
# This module must not import them. The script is installed with the package, they only with its `cli` extra. rich and
# cryptography are imported where they are needed: they take a tenth of a second, which every command would pay.
from __future__ import annotations

import sys
from importlib.util import find_spec

_NEEDED = ("click", "rich", "cryptography")


def main() -> None:
    """Run the command line and exit with its status."""
    for name in _NEEDED:
        if find_spec(name) is None:
            print(
                f"trio-smtp: the command line needs {name}; install it with: pip install 'trio-smtp[cli]'",
                file=sys.stderr,
            )
            sys.exit(2)
    from .commands import cli

    cli(prog_name="trio-smtp")
