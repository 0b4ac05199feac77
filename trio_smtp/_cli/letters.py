# The messages that `trio-smtp send` sends: where they come from, and whose they are if their header is to say.
#
# As `sendmail -t`: the recipients are those of To, Cc and Bcc, and Bcc is not sent. All else in a header is sent
# unchanged. Addresses are taken from the header's source: what an encoded word inside one would decode to is for no
# program to guess (RFC 2047 section 5).
from __future__ import annotations

import mimetypes
import os
import re
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from email.message import EmailMessage
from email.parser import BytesHeaderParser
from email.policy import SMTP
from email.utils import formatdate, make_msgid
from pathlib import Path
from typing import Any, Final

import trio

from .errors import CommandError, Status
from .output import say

MAX_HEADER: Final = 1024 * 1024  # octets of a file in which its header must end, where it is to name the addresses

_END_OF_HEADER = re.compile(rb"\r?\n\r?\n")
_BCC = re.compile(rb"^(?:Resent-)?Bcc[ \t]*:.*\n?(?:^[ \t].*\n?)*", re.IGNORECASE | re.MULTILINE)
_BLANKS = re.compile(rb"^([!-9;-~]+)[ \t]+:", re.MULTILINE)  # RFC 5322 §4.5.3; Python's parser ends the header there
_ENCODED_WORD = re.compile(r"=\?(?:[^?\s]*\?[A-Za-z]\?[^?\s]*\?=)?")
_MASK: Final = "\ue000"  # a character for private use, in place of an encoded word


@dataclass(frozen=True, kw_only=True)
class Letter:
    """A message to be sent.

    Attributes:
        name: what the user calls it.
        content: the message, or the file that it is in.
        sender: of the envelope; ``None`` if the header is to say.
        recipients: of the envelope; empty if the header is to say.
    """

    name: str
    content: bytes | Path | EmailMessage
    sender: str | None
    recipients: Sequence[str]


async def from_files(names: Sequence[str], *, sender: str | None, recipients: Sequence[str]) -> list[Letter]:
    """The messages in files; ``-`` is standard input. What the envelope lacks is taken from their headers.

    Raises:
        CommandError: a file cannot be read, or its header does not name what is asked for.
    """
    letters = []
    for name in names:
        letter = Letter(name=name, content=await _content(name), sender=sender, recipients=recipients)
        if sender is None or not recipients:
            letter = await trio.to_thread.run_sync(_address, letter)
        letters.append(letter)
    return letters


async def quick(
    *, sender: str, recipients: Sequence[str], subject: str, body: str | None, attachments: Sequence[str]
) -> Letter:
    """A message made of a subject, a text and files.

    Args:
        sender: of the envelope and the header.
        recipients: of the envelope and the header.
        subject: its subject.
        body: its text; ``None`` reads it from standard input.
        attachments: names of files.

    Raises:
        CommandError: a file cannot be read, or an address cannot be in a header.
    """
    if body is None:
        body = (await read_standard_input()).decode("utf-8", "replace")
    message = EmailMessage(policy=SMTP)
    try:
        message["From"] = sender
        message["To"] = ", ".join(recipients)
        message["Subject"] = subject
    except ValueError as exc:  # line ends, for example
        raise CommandError(f"a header field cannot be made: {exc}", Status.DATA) from exc
    message["Date"] = formatdate(localtime=True)
    message["Message-ID"] = make_msgid(domain=sender.rpartition("@")[2] or "localhost")
    message.set_content(body)
    for name in attachments:
        kind, encoding = mimetypes.guess_type(name)
        maintype, _, subtype = (kind if kind and not encoding else "application/octet-stream").partition("/")
        try:
            data = await trio.Path(name).read_bytes()
        except OSError as exc:
            raise CommandError(f"cannot read {name}: {exc.strerror}", Status.NO_INPUT) from exc
        message.add_attachment(data, maintype=maintype, subtype=subtype, filename=os.path.basename(name))
    return Letter(name="the message", content=message, sender=sender, recipients=recipients)


async def _content(name: str) -> bytes | Path:
    """The path of a regular file, or the content of standard input or a pipe, which can be read only once."""
    if name == "-":
        return await read_standard_input()
    try:
        return await trio.to_thread.run_sync(_path_or_octets, name, abandon_on_cancel=True)
    except OSError as exc:
        hint = " (with -i, as for sendmail, arguments are recipients)" if "@" in name else ""
        raise CommandError(f"cannot read {name}: {exc.strerror}{hint}", Status.NO_INPUT) from exc


async def read_standard_input() -> bytes:
    """All of it."""
    if sys.stdin.isatty():
        say("trio-smtp: reading from the terminal; Ctrl-D ends it", err=True)
    return await trio.to_thread.run_sync(sys.stdin.buffer.read, abandon_on_cancel=True)


def _path_or_octets(name: str) -> bytes | Path:
    with open(name, "rb") as file:
        # A pipe must be read whole here: an octet read as a test would be missing from the message.
        return Path(name) if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else file.read()


def _address(letter: Letter) -> Letter:
    """Fill the envelope in from the header, and leave Bcc out of what is sent."""
    name = "standard input" if letter.name == "-" else letter.name
    content = letter.content
    assert not isinstance(content, EmailMessage)
    try:
        head = content[:MAX_HEADER] if isinstance(content, bytes) else _beginning(content)
        end = _END_OF_HEADER.search(head)
        header = head if end is None else head[: end.end()]
        fields = fields_of(header)
        if letter.sender is None:
            letter = replace(letter, sender=_sender(fields, name))
        if not letter.recipients:
            letter = replace(letter, recipients=_recipients(fields, name))
            if _BCC.search(header):
                octets = content if isinstance(content, bytes) else content.read_bytes()
                letter = replace(letter, content=without_bcc(header) + octets[len(header) :])
    except OSError as exc:
        raise CommandError(f"cannot read {name}: {exc.strerror}", Status.NO_INPUT) from exc
    return letter


def fields_of(header: bytes) -> list[tuple[str, str]]:
    """The fields of a header: names in lower case, and what is written behind them."""
    message = BytesHeaderParser().parsebytes(_BLANKS.sub(rb"\1:", header))
    return [(key.lower(), str(value)) for key, value in message.raw_items()]


def without_bcc(header: bytes) -> bytes:
    """A header without the fields that are not sent."""
    return _BCC.sub(b"", header)


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_HEADER)


def _sender(fields: Sequence[tuple[str, str]], name: str) -> str:
    for field in ("sender", "from"):
        for address in addresses_in(fields, (field,), name):
            return address
    raise CommandError(f"{name} has no From: give the sender with --from", Status.DATA)


def _recipients(fields: Sequence[tuple[str, str]], name: str) -> list[str]:
    found = list(dict.fromkeys(addresses_in(fields, ("to", "cc", "bcc"), name)))
    if not found:
        raise CommandError(f"{name} has no To, Cc or Bcc: give recipients with --to", Status.DATA)
    return found


def addresses_in(fields: Sequence[tuple[str, str]], wanted: Sequence[str], name: str) -> Iterator[str]:
    """The addresses in some fields.

    Args:
        fields: of a header.
        wanted: names, in lower case.
        name: what the user calls the message.

    Raises:
        CommandError: it is open to guesses which addresses they are.
    """
    for field, value in fields:
        if field not in wanted:
            continue
        source = value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        source = _ENCODED_WORD.sub(_MASK, re.sub(r"\r?\n(?=[ \t])", "", source))
        parsed: Any = SMTP.header_factory(field, source)
        for address in parsed.addresses:
            if _MASK in address.addr_spec:
                words = f"{name}: an address in the field {field.title()} has an encoded word in it"
                raise CommandError(f"{words}: give --from and --to", Status.DATA)
            yield address.addr_spec
