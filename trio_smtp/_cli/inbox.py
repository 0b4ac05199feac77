# `trio-smtp inbox`: an inbox for developers, until a signal ends it.
from __future__ import annotations

import json
import signal
import webbrowser
from typing import Any

import click
import trio

from .errors import CommandError, Status, reason, run
from .options import auth_options, credentials, host_words, verbose_option
from .output import say


@click.command(short_help="Catch all mail and show it on a page.")
@click.option(
    "--host",
    metavar="HOST",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on, for SMTP and the page.",
)
@click.option(
    "--smtp-port",
    metavar="PORT",
    type=click.IntRange(0, 65535),
    default=1025,
    show_default=True,
    help="Port for mail; 0 picks a free one.",
)
@click.option(
    "--http-port",
    metavar="PORT",
    type=click.IntRange(0, 65535),
    default=8025,
    show_default=True,
    help="Port for the page; 0 picks a free one.",
)
@click.option(
    "--keep",
    metavar="N",
    type=click.IntRange(1, 1_000_000),
    default=500,
    show_default=True,
    help="Keep so many messages; the oldest go first.",
)
@click.option("--store", metavar="FILE", help="Keep them in FILE, a SQLite database, instead of in memory.")
@click.option("--tls-self-signed", is_flag=True, help="Offer STARTTLS with a throw-away certificate.")
@auth_options("Refuse mail from clients that have not logged in as this user.")
@click.option("--auth-any", is_flag=True, help="Let every login succeed, in clear too; none is needed.")
@click.option(
    "--allow-host",
    metavar="NAME",
    multiple=True,
    help="Let the page be asked for by this name, beside loopback addresses; may be repeated.",
)
@click.option("--open", "open_page", is_flag=True, help="Open the page in a browser.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document per line instead of text.")
@verbose_option
def inbox(
    *,
    auth: str | None,
    password_file: str | None,
    auth_any: bool,
    open_page: bool,
    as_json: bool,
    tls_self_signed: bool,
    allow_host: tuple[str, ...],
    **options: Any,
) -> None:
    """Catch all mail of the programs that you work on, and show it on a page, until Ctrl-C or SIGTERM.

    Every sender and recipient is accepted, and nothing leaves this machine. The page has no login, so by default only
    loopback addresses are listened on. Programs can ask for messages, wait for them, and play faults by HTTP: the
    interface is Mailpit's, with more.
    """
    user = credentials(auth, password_file)
    if user is not None and auth_any:
        raise click.UsageError("--auth and --auth-any exclude each other.")
    options |= {
        "auth": "any" if auth_any else user,
        "tls": "starttls" if tls_self_signed else "none",
        "allow_hosts": allow_host,
    }
    run(_run, options, open_page, as_json)


async def _run(options: dict[str, Any], open_page: bool, as_json: bool) -> Status:
    from trio_smtp.inbox import open_inbox

    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        try:
            async with open_inbox(**options) as inbox:
                _tell(inbox.host, inbox.smtp_port, inbox.url, options, as_json)
                if open_page:
                    await trio.to_thread.run_sync(webbrowser.open, inbox.url, abandon_on_cancel=True)
                await anext(signals)
        except ModuleNotFoundError as exc:
            raise CommandError(str(exc), Status.USAGE) from exc
        except OSError as exc:
            where = f"{options['host']}, ports {options['smtp_port']} and {options['http_port']}"
            words = str(exc) if exc.errno is None else f"cannot listen on {where}: {reason(exc)}"
            raise CommandError(words, Status.SYSTEM) from exc
    if not as_json:
        say("ended")
    return Status.OK


def _tell(host: str, smtp_port: int, url: str, options: dict[str, Any], as_json: bool) -> None:
    if as_json:
        say(json.dumps({"event": "listening", "host": host, "smtp_port": smtp_port, "url": url}))
        return
    login = {None: "", "any": ", any login"}.get(options["auth"], ", AUTH required")
    tls = ", STARTTLS" if options["tls"] == "starttls" else ""
    place = options["store"] or "in memory"
    say(f"send mail to {host_words(host, smtp_port)} (SMTP{tls}{login})")
    say(f"read it at   {url} (the last {options['keep']} messages, {place})")
