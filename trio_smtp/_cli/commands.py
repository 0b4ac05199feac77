# The group of commands: what `trio-smtp --help` shows.
from __future__ import annotations

import click

from trio_smtp import __version__

from .demo import demo
from .errors import Commands
from .load import load
from .relay import relay
from .send import send
from .serve import serve


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="trio-smtp")
def cli() -> None:
    """SMTP from the command line: try it, receive mail, send mail.

    Start with "trio-smtp demo": it needs no set-up, and writes to a directory of its own only.
    """


cli.add_command(demo)
cli.add_command(serve)
cli.add_command(send)
cli.add_command(load)
cli.add_command(relay)
