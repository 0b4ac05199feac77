# The group of commands: what `trio-smtp --help` shows.
from __future__ import annotations

import click

from trio_smtp import __version__

from .demo import demo
from .errors import Commands
from .inbox import inbox
from .load import load
from .outbox import outbox
from .records import log_as_json
from .relay import relay
from .send import send
from .serve import serve


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="trio-smtp")
@click.option("--log-json", is_flag=True, help="Write the log (see -v of each command) as JSON, one document a line.")
def cli(*, log_json: bool) -> None:
    """SMTP from the command line: try it, receive mail, send mail.

    Start with "trio-smtp demo": it needs no set-up, and writes to a directory of its own only.
    """
    if log_json:
        log_as_json()


cli.add_command(demo)
cli.add_command(serve)
cli.add_command(inbox)
cli.add_command(send)
cli.add_command(load)
cli.add_command(relay)
cli.add_command(outbox)
