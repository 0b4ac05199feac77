# Errors of the command line: one line and one exit status each.
#
# The statuses follow sysexits.h where possible, for scripts and mail programs that know it. `Status` is the list of
# them: the help text prints it, and a test compares the README with it.
from __future__ import annotations

import os
import re
import socket
import ssl
import sys
import traceback
from collections.abc import Awaitable, Callable, Iterator, Sequence
from enum import IntEnum
from typing import Any

import click
import trio

import trio_smtp

from .output import say


class Status(IntEnum):
    """Exit statuses."""

    OK = 0
    PARTIAL = 1
    USAGE = 2
    DATA = 65
    NO_INPUT = 66
    NO_HOST = 68
    REFUSED = 69
    INTERNAL = 70
    SYSTEM = 71
    UNKNOWN = 74
    TRY_LATER = 75
    PROTOCOL = 76
    NO_PERMISSION = 77
    INTERRUPTED = 130

    @property
    def meaning(self) -> str:
        """The line for the help text."""
        return _MEANINGS[self]


_MEANINGS = {
    Status.OK: "every message was accepted for every recipient; the server ended normally",
    Status.PARTIAL: "accepted for some recipients or messages, not for others",
    Status.USAGE: "wrong option or argument",
    Status.DATA: "an address or a message that SMTP cannot carry; demo: what arrived differs from what was sent",
    Status.NO_INPUT: "a file cannot be read",
    Status.NO_HOST: "the server could not be reached; nothing was sent",
    Status.REFUSED: "refused permanently: the same will fail again",
    Status.INTERNAL: "an error in trio-smtp itself",
    Status.SYSTEM: "a system error: port in use, directory not writable",
    Status.UNKNOWN: "no reply to the end of a message: it may have been delivered, do not blindly send it again",
    Status.TRY_LATER: "refused temporarily, or the connection broke before the end of a message: safe to try again",
    Status.PROTOCOL: "the server violated the protocol",
    Status.NO_PERMISSION: "required TLS is missing, the certificate is not accepted, or the login failed",
    Status.INTERRUPTED: "interrupted by Ctrl-C: a message that was being sent may have been delivered",
}


class CommandError(Exception):
    """Ends the command with one line on standard error and an exit status."""

    def __init__(self, message: str, status: Status) -> None:
        super().__init__(one_line(message))
        self.status = status


class Commands(click.Group):
    """A group whose commands may raise :class:`CommandError`, and whose help ends with the exit statuses."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except CommandError as exc:
            say(f"trio-smtp: {exc}", err=True)
            ctx.exit(int(exc.status))
        except (KeyboardInterrupt, click.Abort):
            say("trio-smtp: interrupted", err=True)
            ctx.exit(int(Status.INTERRUPTED))

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the exit statuses, wrapped to the terminal's width."""
        with formatter.section("Exit statuses"):
            formatter.write_dl([(str(int(status)), status.meaning) for status in Status])


def one_line(text: str) -> str:
    """The text without control characters, since some of it comes from a peer."""
    return "".join(char if char.isprintable() else " " for char in text).strip()


def reason(error: BaseException) -> str:
    """The reason for an error: the system's message if the exception wraps a system error."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, BaseExceptionGroup):  # all addresses of a host failed; report the last
            cause = cause.exceptions[-1]
        elif (words := _system_words(cause)) is not None:
            return words
        else:
            cause = cause.__cause__
    return str(error) or type(error).__name__


def _system_words(error: BaseException) -> str | None:
    if isinstance(error, trio_smtp.SMTPError) or not isinstance(error, OSError):
        return None
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, ssl.SSLError):
        return error.reason.replace("_", " ").lower() if error.reason else None
    if isinstance(error, socket.gaierror):
        return error.strerror
    return os.strerror(error.errno) if error.errno else None


def status_of(error: trio_smtp.SMTPError) -> Status:
    """The exit status for an error of the library."""
    if error.delivery == trio_smtp.Delivery.UNKNOWN or error.unknown:  # first: this must not be sent again
        return Status.UNKNOWN
    if error.accepted:
        return Status.PARTIAL
    if isinstance(error, trio_smtp.SMTPTimeoutError) and error.stage is trio_smtp.Stage.CONNECT:
        return Status.NO_HOST
    if isinstance(error, trio_smtp.TLSError | trio_smtp.AuthenticationError):
        if error.reply is not None and error.reply.is_temporary:
            return Status.TRY_LATER
        return Status.NO_PERMISSION
    replies = [error.reply] if error.reply is not None else list(error.refused.values())
    if replies and all(reply.is_permanent for reply in replies):
        return Status.REFUSED
    if replies:
        return Status.TRY_LATER
    for kind, status in _BY_KIND:
        if isinstance(error, kind):
            return status
    return Status.TRY_LATER


_BY_KIND: Sequence[tuple[type[trio_smtp.SMTPError], Status]] = (
    (trio_smtp.LocalProtocolError, Status.DATA),
    (trio_smtp.MessageTooLargeError, Status.REFUSED),
    (trio_smtp.ExtensionNotSupportedError, Status.REFUSED),
    (trio_smtp.ConnectError, Status.NO_HOST),
    (trio_smtp.RemoteProtocolError, Status.PROTOCOL),
)


_OPTIONS = (  # what the library calls its arguments, and the options that stand for them
    ("allow_insecure_auth=True", "--allow-insecure-auth"),
    ("see the arguments auth and tls", "see --auth and --tls"),
    ("local_hostname is", "--hostname is"),
)
_OWN_WORDS = re.compile(r"cannot connect to \S+: ")  # of a ConnectError that no system error explains
_TLS_ARGUMENT = re.compile(r"tls='(\w+)'")  # an option by its Python name, in a message of the library


def describe(error: trio_smtp.SMTPError, server: str) -> str:
    """One line about an error of the library, with a hint if there is one.

    Args:
        error: the error.
        server: host and port, as the user wrote them.
    """
    if isinstance(error.__cause__, BaseException) and _certificate_error(error) is not None:
        return (
            f"the certificate of {server} is not accepted: {reason(error)}"
            " (--ca FILE trusts the certificates in FILE; --tls opportunistic encrypts without checking)"
        )
    if isinstance(error, trio_smtp.ConnectError) and error.reply is None:
        return f"cannot connect to {server}: {_OWN_WORDS.sub('', reason(error))}"
    words = _TLS_ARGUMENT.sub(r"--tls \1", str(error))
    for argument, option in _OPTIONS:
        words = words.replace(argument, option)
    if not isinstance(error, trio_smtp.LocalProtocolError) and server not in words:
        words = f"{server}: {words}"
    if error.delivery == trio_smtp.Delivery.UNKNOWN:
        words += "; the message may have been delivered"
    return words


def _certificate_error(error: BaseException) -> ssl.SSLCertVerificationError | None:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return cause
        cause = cause.__cause__
    return None


def run(function: Callable[..., Awaitable[Status]], *args: object) -> None:
    """Run an async command to its end and exit with its status.

    :class:`CommandError` and KeyboardInterrupt are raised bare, also from inside nurseries. Any other exception is a
    bug and is printed with its traceback.
    """
    try:
        status = trio.run(function, *args)
    except (Exception, KeyboardInterrupt, BaseExceptionGroup) as exc:
        errors = list(_leaves(exc))
        for error in errors:
            if isinstance(error, CommandError):
                raise error from None
        if any(isinstance(error, KeyboardInterrupt) for error in errors):
            raise KeyboardInterrupt from None
        traceback.print_exception(exc)
        say("trio-smtp: this is an error in trio-smtp itself, please report it", err=True)
        status = Status.INTERNAL
    sys.exit(int(status))


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions:
            yield from _leaves(member)
    else:
        yield error
