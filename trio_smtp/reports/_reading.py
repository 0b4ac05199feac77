# A report read, whatever server made it.
#
# The walk over parts and fields is our own, and not the email package's, which recurses as deep as a peer likes: every
# number is bounded, each octet is looked at a bounded number of times, and what comes out is printable text.
from __future__ import annotations

import binascii
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from email.message import Message
from email.utils import parsedate_to_datetime
from typing import Any, Final, NamedTuple

from trio_smtp import Reply

from ._fields import CONTROL, MAX_FIELD, MAX_HEADER, header_end, is_message_id, read_fields, read_lines
from ._values import Action, Report, ReportedRecipient, ReportError

MAX_STATUS: Final = 4 << 20  # octets of a delivery-status part
MAX_RECIPIENTS: Final = 10_000  # of one report
MAX_TEXT: Final = 64 << 10  # octets of the text for people; the rest is cut
MAX_DEPTH: Final = 5  # multiparts inside each other
MAX_PARTS: Final = 100  # of one multipart
_STATUS_TYPES: Final = ("message/delivery-status", "message/global-delivery-status")
_RETURNED_TYPES: Final = ("message/rfc822", "message/global", "text/rfc822-headers", "message/global-headers")
_BLANK_LINE: Final = re.compile(rb"^[ \t]*\r?\n", re.MULTILINE).search
_STATUS: Final = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}(?![0-9.])").match
_REPLY_LINE: Final = re.compile(
    r"([2-5][0-5][0-9])(?:[ -]|$)(?:([245]\.[0-9]{1,3}\.[0-9]{1,3})(?:[ -]|$))?(.*)"
).fullmatch
_EMBEDDED: Final = re.compile(r"\\x\{([0-9A-Fa-f]{2,6})\}")


class _Part(NamedTuple):
    """A part of a message: its header's fields, and its body."""

    fields: dict[str, str]
    body: bytes
    kind: str


def parse_report(message: bytes | Message[Any, Any]) -> Report:
    """Read a delivery report, whatever server it comes from.

    It may stand in further multiparts, such as a mailing list's or a virus scanner's.

    Args:
        message: octets, as received; or a message object, which is written out first.

    Returns:
        What is in it. A report is what its author says, to be believed no more than any message from it.

    Raises:
        ReportError: it has no part of type ``message/delivery-status``; or it exceeds a limit: 256 KiB for a header
            section, 4 MiB for the status part, 10,000 recipients, 5 multiparts inside each other, 100 parts of one.
        TypeError: `message` is neither.
    """
    if isinstance(message, Message):
        try:
            message = message.as_bytes()
        except Exception as exc:  # of many kinds: the email package does not write all that it reads
            raise ReportError(f"the message object cannot be written: {exc}") from exc
    if not isinstance(message, bytes | bytearray):
        raise TypeError(f"a report must be bytes or a message object, not {type(message).__name__}")
    octets = bytes(message)
    if b"\n" not in octets:
        octets = octets.replace(b"\r", b"\n")  # as a store of an old Macintosh has it
    status: _Part | None = None
    text: _Part | None = None
    returned: _Part | None = None
    for part in _leaves(_split(octets), 0):
        if part.kind in _STATUS_TYPES:
            status = status or part
        elif status is not None and part.kind in _RETURNED_TYPES:
            returned = returned or part
        elif status is None and part.kind == "text/plain":
            text = text or part
    if status is None:
        raise ReportError("the message is no delivery report: it has no part of type message/delivery-status")
    about, recipients = _read_status(status)
    back = _decoded(returned) if returned is not None else b""
    ids = dict(read_fields(back[: min(header_end(back), MAX_HEADER)]))
    return Report(
        recipients=recipients,
        envelope_id=about.get("original-envelope-id") or None,
        reporting_mta=_name(about.get("reporting-mta")),
        received_from=_name(about.get("received-from-mta")),
        arrived=_moment(about.get("arrival-date")),
        text=_text(text) if text is not None else "",
        returned=back,
        message_id=ids.get("message-id") if is_message_id(ids.get("message-id", "")) else None,
    )


def _leaves(part: _Part, depth: int) -> Iterator[_Part]:
    """The parts of a message that are no multiparts, in order. A message that is returned is one of them."""
    if not part.kind.startswith("multipart/"):
        yield part
        return
    if depth >= MAX_DEPTH:
        raise ReportError(f"more than {MAX_DEPTH} multiparts are inside each other")
    boundary = _parameter(part.fields, "boundary")
    if not boundary:
        return
    wanted = re.compile(rb"^--" + re.escape(boundary.encode("ascii", "replace")) + rb"(--)?[ \t]*\r?$", re.MULTILINE)
    begin: int | None = None
    count = 0
    for found in wanted.finditer(part.body):
        if begin is not None:
            count += 1
            if count > MAX_PARTS:
                raise ReportError(f"a multipart has more than {MAX_PARTS} parts")
            yield from _leaves(_split(_without_line_end(part.body[begin : found.start()])), depth + 1)
        begin = found.end() + 1
        if found[1]:
            return
    if begin is not None:  # cut off, or not ended by its author
        yield from _leaves(_split(part.body[begin:]), depth + 1)


def _without_line_end(octets: bytes) -> bytes:
    """A part: the line end before a boundary belongs to that (RFC 2046 section 5.1.1)."""
    return octets[:-2] if octets.endswith(b"\r\n") else octets.removesuffix(b"\n")


def _split(octets: bytes) -> _Part:
    end = header_end(octets)
    if end > MAX_HEADER:
        raise ReportError(f"a header section has more than {MAX_HEADER} octets")
    fields: dict[str, str] = {}
    for name, value in read_fields(octets[:end]):
        fields.setdefault(name, value)
    blank = _BLANK_LINE(octets, end)
    body = octets[blank.end() :] if blank is not None else b""
    return _Part(fields, body, _content_type(fields))


def _content_type(fields: dict[str, str]) -> str:
    return fields.get("content-type", "text/plain").partition(";")[0].strip().lower()


def _parameter(fields: dict[str, str], name: str) -> str | None:
    """A parameter of Content-Type, by the email package, whose errors are of many kinds."""
    holder: Message[Any, Any] = Message()
    try:
        holder["Content-Type"] = fields.get("content-type", "")
        value = holder.get_boundary() if name == "boundary" else holder.get_content_charset()
    except Exception:
        return None
    return value if isinstance(value, str) else None


def _decoded(part: _Part) -> bytes:
    """A part's body without its transfer encoding; what cannot be decoded is left out, or as it is."""
    encoding = part.fields.get("content-transfer-encoding", "").lower()
    try:
        if encoding == "base64":
            return binascii.a2b_base64(part.body)
        if encoding == "quoted-printable":
            return binascii.a2b_qp(part.body)
    except binascii.Error:
        return b""
    return part.body


def _text(part: _Part) -> str:
    octets = _decoded(part)[:MAX_TEXT]
    try:
        text = octets.decode(_parameter(part.fields, "charset") or "utf-8", "replace")
    except (LookupError, ValueError):
        text = octets.decode("utf-8", "replace")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return "\n".join(CONTROL.sub("\ufffd", line.replace("\t", "    ")) for line in text.split("\n"))


def _read_status(part: _Part) -> tuple[dict[str, str], tuple[ReportedRecipient, ...]]:
    """The fields about the message, and what is said of each recipient (RFC 3464 section 2.1)."""
    octets = _decoded(part)
    if len(octets) > MAX_STATUS:
        raise ReportError(f"the status part has more than {MAX_STATUS} octets")
    about: dict[str, str] = {}
    recipients: list[ReportedRecipient] = []
    for group in re.split(rb"\n(?:[ \t]*\n)+", octets.replace(b"\r\n", b"\n").replace(b"\r", b"\n").strip(b"\n")):
        fields: dict[str, list[str]] = {}
        for name, lines in read_lines(group):
            fields.setdefault(name, lines)
        if "final-recipient" in fields or "original-recipient" in fields or "action" in fields:
            if len(recipients) >= MAX_RECIPIENTS:
                raise ReportError(f"the report has more than {MAX_RECIPIENTS} recipients")
            recipients.append(_read_recipient(fields))
        if len(recipients) < 2:  # some servers write all in one group
            about = {name: " ".join(lines)[:MAX_FIELD].strip() for name, lines in fields.items()} | about
    return about, tuple(recipients)


def _read_recipient(fields: dict[str, list[str]]) -> ReportedRecipient:
    def value(name: str) -> str:
        return " ".join(fields.get(name, ()))[:MAX_FIELD].strip()

    action = value("action").partition(" ")[0].lower()
    status = _STATUS(value("status"))
    final, original = _read_address(value("final-recipient")), _read_address(value("original-recipient"))
    kind, diagnostic = _typed_value(value("diagnostic-code"))
    return ReportedRecipient(
        address=(final or original or ("", ""))[1],
        action=Action(action) if action in list(Action) else None,
        status=status[0] if status is not None else None,
        orcpt=original,
        diagnostic=diagnostic or None,
        reply=_read_reply(fields["diagnostic-code"]) if kind == "smtp" else None,
        remote_mta=_name(value("remote-mta")),
        last_attempt=_moment(value("last-attempt-date")),
        retry_until=_moment(value("will-retry-until")),
    )


def _typed_value(value: str) -> tuple[str, str]:
    """The type, in lower case, and the rest of a value such as ``rfc822; me@x.test``."""
    kind, semicolon, rest = value.partition(";")
    if not semicolon:
        return "", value.strip()
    return kind.strip().lower(), rest.strip()


def _read_address(value: str) -> tuple[str, str] | None:
    kind, address = _typed_value(value)
    address = address.removeprefix("<").removesuffix(">") if address.startswith("<") else address
    if kind == "utf-8":
        address = CONTROL.sub("\ufffd", _EMBEDDED.sub(_character, address))
    return (kind or "rfc822", address) if address else None


def _character(found: re.Match[str]) -> str:
    number = int(found[1], 16)
    return chr(number) if number <= 0x10FFFF else found[0]


def _read_reply(lines: list[str]) -> Reply | None:
    """The reply in a Diagnostic-Code: folded where its lines begin, as Exim has it, or anywhere, as Postfix has it."""
    said = " ".join(line for line in (lines[0].partition(";")[2].strip(), *lines[1:]) if line)[:MAX_FIELD]
    begun = _REPLY_LINE(said)
    if begun is None:
        return None
    code, enhanced = begun[1], begun[2]
    rows = re.split(rf" (?={code}[ -])", said) if said[3:4] == "-" else [said]
    found = [_REPLY_LINE(row) for row in rows]
    texts = [line[3].strip() for line in found if line is not None]
    try:
        return Reply(int(code), texts, enhanced)
    except ValueError:  # an enhanced code of another class, for example
        return Reply(int(code), texts)


def _name(value: str | None) -> str | None:
    return _typed_value(value)[1] or None if value else None


def _moment(value: str | None) -> datetime | None:
    if not value:
        return None
    try:
        moment = parsedate_to_datetime(value[:100])
    except Exception:  # of several kinds, by version
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
