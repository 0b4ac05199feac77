# `trio-smtp send` in sendmail's place: the options that programs give it, and what they leave to it.
#
# Programs know sendmail by its options: cron's `-FCronDaemon -i -oem`, PHP's `-t -i`, `-i -f me you` of Git and mail.
# One of them says that a program has called: arguments are recipients then, not files; the message is standard input;
# and nothing is written where all is well, since standard output may be a web page. As Postfix's sendmail(1) and msmtp
# do, this adds the recipients of `-t` to those of the arguments, ignores what only a mail server could obey, and never
# sends Bcc. It writes the fields that mail must have, and that mail programs leave to sendmail (RFC 6409 section 8).
from __future__ import annotations

import getpass
import re
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from email.utils import formataddr, formatdate, make_msgid
from typing import Any, Final, TypeVar

import click

from .errors import CommandError, Status
from .letters import Letter, addresses_in, fields_of, read_standard_input, without_bcc

_Command = TypeVar("_Command", bound=Callable[..., Any])
_NAME: Final = "standard input"
_HEADER = re.compile(rb"(?:>?From .*(?:\n|\Z))?((?:[!-9;-~]+[ \t]*:.*(?:\n|\Z)(?:[ \t].*(?:\n|\Z))*)*)(?:\r?\n)?")


@dataclass(frozen=True, kw_only=True)
class Submission:
    """What a program says that takes this command for sendmail.

    Attributes:
        arguments: recipients, as it writes them.
        extract: those of the header are recipients, too.
        full_name: the sender's, where the header lacks From.
        domain: of addresses without one; ``None`` stands for this machine's name.
    """

    arguments: Sequence[str]
    extract: bool
    full_name: str
    domain: str | None


def sendmail_options(command: _Command) -> _Command:
    """Sendmail's options; :func:`submission` takes their values."""
    for decorate in reversed(_OPTIONS):
        command = decorate(command)
    return command


_OPTIONS: Final[tuple[Callable[[Any], Any], ...]] = (
    click.option("-t", "extract", is_flag=True, help="As sendmail: the recipients in the header, too."),
    click.option(
        "-i",
        "-m",
        "-n",
        "-G",
        "-U",
        "is_called",
        is_flag=True,
        help="As sendmail: read standard input to its end; arguments are recipients, not files.",
    ),
    click.option("-F", "full_name", metavar="NAME", help="As sendmail: the sender's name, if there is no From."),
    click.option(
        "-o", "-O", "-A", "-B", "ignored", multiple=True, metavar="X", help="As sendmail, as in -oi and -oem: ignored."
    ),
    click.option("-b", "mode", metavar="m", type=click.Choice(["m"]), help="As sendmail: -bm is ignored."),
)


_VALUES: Final = ("extract", "is_called", "ignored", "mode", "full_name")


def submission(arguments: Sequence[str], options: dict[str, Any]) -> Submission | None:
    """What the values of :func:`sendmail_options` ask for; ``None`` if there are none.

    Args:
        arguments: of the command.
        options: their values, which are taken out, among those of other options.
    """
    values = {name: options.pop(name) for name in _VALUES}
    if all(value in (None, False, ()) for value in values.values()):
        return None
    return Submission(
        arguments=arguments,
        extract=values["extract"],
        full_name=values["full_name"] or "",
        domain=options["hostname"],
    )


async def from_program(given: Submission, *, sender: str | None, recipients: Sequence[str]) -> list[Letter]:
    """The message that a program writes to standard input.

    Args:
        given: by the program.
        sender: of the envelope; ``None`` if the header is to say, or else the user's name.
        recipients: of the envelope; if there are any, nobody else gets the message.

    Raises:
        CommandError: there is no recipient or no sender, or an address cannot be read.
    """
    content = await read_standard_input()
    match = _HEADER.match(content)
    assert match is not None
    header, text = match[1], content[match.end() :]
    fields = fields_of(header)
    domain = given.domain or socket.getfqdn()

    def whole(address: str) -> str:
        return address if "@" in address or not address else f"{address}@{domain}"

    if sender is None:
        sender = next(addresses_in(fields, ("sender", "from"), _NAME), None) or _user()
    sender = whole(sender.removeprefix("<").removesuffix(">"))
    found = list(recipients) or _recipients(given, fields)
    if not found:
        raise CommandError(
            "there is no recipient: give some as arguments, or -t and a header that has them", Status.DATA
        )
    author = sender or whole(_user())
    names = {name for name, _ in fields}
    missing = {
        "From": f"{_phrase(given.full_name)} <{author}>" if given.full_name else author,
        "Date": formatdate(localtime=True),
        "Message-ID": make_msgid(domain=author.rpartition("@")[2]),
    }
    lines = [f"{name}: {value}\n" for name, value in missing.items() if name.lower() not in names]
    header = without_bcc(header)
    if header and not header.endswith(b"\n"):
        header += b"\n"
    whole_content = b"".join((header, "".join(lines).encode("utf-8"), b"\n", text))
    return [Letter(name="-", content=whole_content, sender=sender, recipients=[whole(address) for address in found])]


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError) as exc:  # in a container, maybe
        raise CommandError("the user has no name here: give the sender with --from", Status.DATA) from exc


def _phrase(name: str) -> str:
    """A name as it stands before an address."""
    return formataddr((name, "@")).removesuffix(" <@>")


def _recipients(given: Submission, fields: Sequence[tuple[str, str]]) -> list[str]:
    """Those of the arguments, and those of the header if that is asked for or there are no arguments."""
    found = list(addresses_in([("to", argument) for argument in given.arguments], ("to",), "an argument"))
    if given.extract or not given.arguments:
        found += addresses_in(fields, ("to", "cc", "bcc"), _NAME)
    return list(dict.fromkeys(found))
