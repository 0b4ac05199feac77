# Delivery reports (RFC 3464, with RFC 6533 for addresses that are not ASCII): made from an outcome, and read.
#
# A report is made of octets of ours around the returned message, which is not touched. It is read by a walk of our own
# over parts and fields, and not by the email package, which recurses as deep as a peer likes: every number is bounded,
# each octet is looked at a bounded number of times, and what comes out is printable text.
"""Delivery status notifications: ``make_report`` and ``parse_report``. Nothing to be installed."""

from __future__ import annotations

import binascii
import quopri
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from email import message_from_bytes
from email.message import EmailMessage, Message
from email.policy import SMTP
from email.utils import format_datetime, make_msgid, parsedate_to_datetime
from enum import StrEnum
from typing import Any, Final, Literal, NamedTuple

import trio_smtp
from trio_smtp import Envelope, Recipient, Reply, SendResult, SMTPError

__all__ = ["Action", "Report", "ReportError", "ReportedRecipient", "make_report", "parse_report"]

MAX_HEADER: Final = 256 << 10  # octets of one header section
MAX_FIELD: Final = 8 << 10  # characters of one field's value; the rest is cut
MAX_LINES: Final = 200  # of one reply; the rest is left out
MAX_STATUS: Final = 4 << 20  # octets of a delivery-status part
MAX_RECIPIENTS: Final = 10_000  # of one report
MAX_TEXT: Final = 64 << 10  # octets of the text for people; the rest is cut
MAX_DEPTH: Final = 5  # multiparts inside each other
MAX_PARTS: Final = 100  # of one multipart
RETURNED: Final = 50_000  # octets of a message that is returned whole where its sender did not say (RET)


class Action(StrEnum):
    """What was done for a recipient (RFC 3464 section 2.3.3)."""

    FAILED = "failed"
    DELAYED = "delayed"
    DELIVERED = "delivered"
    RELAYED = "relayed"
    EXPANDED = "expanded"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedRecipient:
    """What a report says of one recipient.

    Attributes:
        address: the recipient as the reporting server knows it (Final-Recipient), decoded; where that is missing, the
            original one, and ``""`` where both are.
        action: what was done; ``None`` if the report does not say it in a word that is defined.
        status: the enhanced status code (RFC 3463), such as ``"5.1.1"``; ``None`` if there is none.
        orcpt: the type, in lower case, and the address of the original recipient, as in :attr:`Recipient.orcpt`.
        diagnostic: the Diagnostic-Code without its type.
        reply: the SMTP reply in it, if its type is smtp.
        remote_mta: the server that said so.
        last_attempt: when that was.
        retry_until: until when the reporting server tries.
    """

    address: str
    action: Action | None = None
    status: str | None = None
    orcpt: tuple[str, str] | None = None
    diagnostic: str | None = None
    reply: Reply | None = None
    remote_mta: str | None = None
    last_attempt: datetime | None = None
    retry_until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A delivery report, as read by :func:`parse_report`.

    Attributes:
        recipients: what it says of each recipient.
        envelope_id: the ENVID of the message that is reported on, decoded; ``None`` if it had none.
        reporting_mta: the server that reports.
        received_from: the server that it had the message from.
        arrived: when that was.
        text: the part for people to read.
        returned: the returned header or message, as octets; ``b""`` if nothing was returned.
        message_id: the Message-ID of that, with its angle brackets.
    """

    recipients: tuple[ReportedRecipient, ...]
    envelope_id: str | None = None
    reporting_mta: str | None = None
    received_from: str | None = None
    arrived: datetime | None = None
    text: str = ""
    returned: bytes = b""
    message_id: str | None = None


class ReportError(ValueError):
    """What was to be read is no delivery report, or one beyond the limits of :mod:`trio_smtp.reports`."""


# -- making one

_PERMANENT: Final[tuple[tuple[type[SMTPError], str], ...]] = (  # where there is no reply to say it; the first that fits
    (trio_smtp.MessageTooLargeError, "5.3.4"),
    (trio_smtp.ExtensionNotSupportedError, "5.3.3"),
    (trio_smtp.LocalProtocolError, "5.6.0"),
    (trio_smtp.RemoteProtocolError, "5.5.0"),
    (trio_smtp.AuthenticationError, "4.7.8"),
    (trio_smtp.TLSError, "4.7.5"),
    (trio_smtp.ConnectionLostError, "4.4.2"),
    (trio_smtp.ConnectError, "4.4.1"),
    (trio_smtp.SMTPTimeoutError, "4.4.1"),
)
_OTHER: Final = "4.0.0"
_IN_DOUBT: Final = "4.4.2"
_SUBJECTS: Final = {
    Action.FAILED: "Your message could not be delivered",
    Action.DELAYED: "Your message is delayed",
    Action.RELAYED: "Your message was handed on",
    Action.DELIVERED: "Your message was delivered",
}
_HEADINGS: Final = {
    Action.FAILED: "It could not be delivered to:",
    Action.DELAYED: "It could not be delivered yet, and is tried again, to:",
    Action.RELAYED: "It was handed on, to a server that sends no reports of its own, for:",
    Action.DELIVERED: "It was delivered to:",
}
_WANTED: Final = {
    Action.FAILED: "FAILURE",
    Action.DELAYED: "DELAY",
    Action.RELAYED: "SUCCESS",
    Action.DELIVERED: "SUCCESS",
}
_HOST: Final = re.compile(r"[A-Za-z0-9._:\[\]-]{1,255}").fullmatch
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
_MESSAGE_ID: Final = re.compile(r"<[!-;=?-~]{1,900}>").fullmatch
_WORD: Final = 950  # characters after which a word is cut, since a line has 998 at most
_LINE: Final = 76  # characters in a line of ours, where there is a blank to fold at
# A policy that writes what was parsed as it came.
_POLICY: Final = SMTP.clone(refold_source="none")


class _Fate(NamedTuple):
    """What became of a recipient."""

    recipient: Recipient
    action: Action
    status: str
    reply: Reply | None
    reason: str


def make_report(
    outcome: SendResult | SMTPError,
    envelope: Envelope,
    *,
    reporting_mta: str,
    content: bytes | EmailMessage | None = None,
    author: str | None = None,
    remote_mta: str | None = None,
    received_from: str | None = None,
    arrived: datetime | None = None,
    retry_until: datetime | None = None,
    accepted: Literal["relayed", "delivered"] | None = "relayed",
) -> EmailMessage | None:
    """Make the report on a message, for its sender: ``await pool.send("", [envelope.sender.address], report)``.

    Each recipient is in it whose fate its NOTIFY asks to be told (RFC 3461 section 4.1): failures and delays where it
    has none. ORCPT, ENVID and RET are observed; RET as far as RFC 3461 section 4.3 does: the message is returned with a
    failure only, and whole if the sender asked for that (FULL), or did not say and it has at most 50,000 octets.

    Args:
        outcome: what :meth:`Client.send` or :meth:`Pool.send` returned or raised for the message.
        envelope: the message's, as ``on_data`` gets it; or ``Envelope(Sender("me@x.test"), [Recipient("you@y.test")])``.
            Its addresses are those in the outcome.
        reporting_mta: our own name.
        content: the message, to be returned; ``None``: nothing is.
        author: the address in From; by default ``MAILER-DAEMON`` at `reporting_mta`.
        remote_mta: the name of the server whose replies are in the outcome.
        received_from: the name of the server that we had the message from.
        arrived: when that was, with a time zone.
        retry_until: temporary failures are delays, and the message is tried until then (with a time zone); ``None``:
            they are final.
        accepted: what it means that a server took the message, for a recipient with ``NOTIFY=SUCCESS``; ``None``:
            nothing to report, since that server, which offers DSN, does so itself.

    Returns:
        The report, with Date and Message-ID; ``None`` if there is none to be sent: of a message from the null sender
        (RFC 5321 section 6.1), or where no recipient's NOTIFY asks for it.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind.
    """
    if not _HOST(reporting_mta):
        raise ValueError(f"reporting_mta is a host's name, not {reporting_mta!r}")
    for name, moment in (("arrived", arrived), ("retry_until", retry_until)):
        if moment is not None and moment.tzinfo is None:
            raise ValueError(f"{name} has a time zone")
    if not isinstance(outcome, SendResult | SMTPError):
        raise TypeError(f"the outcome is a SendResult or an SMTPError, not {type(outcome).__name__}")
    sender = envelope.sender
    if not sender.address:
        return None
    fates = [
        fate
        for recipient in envelope.recipients
        if (fate := _fate(outcome, recipient, retry_until is not None, accepted)) is not None
        and _is_wanted(recipient, fate.action)
    ]
    if not fates:
        return None
    utf8 = sender.smtputf8
    about = {
        "Original-Envelope-Id": sender.envid,
        "Reporting-MTA": f"dns; {reporting_mta}",
        "Received-From-MTA": f"dns; {received_from}" if received_from else None,
        "Arrival-Date": _date(arrived),
    }
    now = datetime.now(timezone.utc).astimezone()
    groups = [_fields(about, utf8)]
    groups += [_fields(_recipient_fields(fate, remote_mta, now, retry_until), utf8) for fate in fates]
    kinds = [action for action in _SUBJECTS if any(fate.action is action for fate in fates)]
    returned, original_id = _returned(content, sender.ret, is_failure=Action.FAILED in kinds, utf8=utf8)
    status = b"\r\n".join(groups)
    parts = [
        _text_part(_explain(kinds, fates, reporting_mta, retry_until)),
        _part("message/global-delivery-status" if utf8 else "message/delivery-status", status),
        *returned,
    ]
    boundary = _boundary(parts)
    header = {
        "From": f"Mail Delivery System <{author or f'MAILER-DAEMON@{reporting_mta}'}>",
        "To": f"<{sender.address}>",
        "Subject": _SUBJECTS[kinds[0]],
        "Date": _date(now),
        "Message-ID": make_msgid(domain=reporting_mta.strip("[]").replace(":", ".")),
        "In-Reply-To": original_id,
        "References": original_id,
        "Auto-Submitted": "auto-replied",  # RFC 3834 §5
        "MIME-Version": "1.0",
        "Content-Type": f'multipart/report; report-type=delivery-status; boundary="{boundary}"',
        "Content-Transfer-Encoding": None if all(map(bytes.isascii, parts)) else "8bit",
    }
    octets = _fields(header, True) + b"".join(b"\r\n--%s\r\n%s" % (boundary.encode(), part) for part in parts)
    octets += b"\r\n--%s--\r\n" % boundary.encode()
    return message_from_bytes(octets, policy=_POLICY)  # type: ignore[return-value]


def _fate(
    outcome: SendResult | SMTPError, recipient: Recipient, is_tried: bool, accepted: Literal["relayed", "delivered"] | None
) -> _Fate | None:
    address = recipient.address
    if address in outcome.accepted:
        if accepted is None:
            return None
        reply = outcome.replies.get(address, outcome.reply) if isinstance(outcome, SendResult) else None
        return _Fate(recipient, Action(accepted), _status(reply, "2.0.0"), reply, "")
    reply = outcome.refused.get(address)
    if isinstance(outcome, SendResult):
        if reply is None:
            return None  # it was not about this recipient
        status, reason = _status(reply, _OTHER), ""
    elif address in outcome.unknown:
        reason = f"{_plain(outcome)}; it may have been delivered all the same"
        return _Fate(recipient, Action.FAILED, _IN_DOUBT, None, reason)
    else:
        reply = outcome.reply if reply is None else reply
        default = next((status for kind, status in _PERMANENT if isinstance(outcome, kind)), _OTHER)
        status, reason = _status(reply, default), "" if reply is not None else _plain(outcome)
    is_delay = is_tried and status.startswith("4")
    return _Fate(recipient, Action.DELAYED if is_delay else Action.FAILED, status, reply, reason)


def _status(reply: Reply | None, default: str) -> str:
    if reply is None:
        return default
    return reply.enhanced or f"{reply.code // 100}.0.0"


def _is_wanted(recipient: Recipient, action: Action) -> bool:
    if recipient.notify is None:
        return action in (Action.FAILED, Action.DELAYED)
    return _WANTED[action] in recipient.notify


def _recipient_fields(
    fate: _Fate, remote_mta: str | None, now: datetime, retry_until: datetime | None
) -> dict[str, str | None]:
    orcpt, reply = fate.recipient.orcpt, fate.reply
    diagnostic = f"smtp; {_said(reply)}" if reply is not None else f"X-trio-smtp; {fate.reason}"
    return {
        "Original-Recipient": f"{orcpt[0]};{_typed(*orcpt)}" if orcpt is not None else None,
        "Final-Recipient": _address(fate.recipient.address),
        "Action": fate.action,
        "Status": fate.status,
        "Remote-MTA": f"dns; {remote_mta}" if remote_mta and reply is not None else None,
        "Diagnostic-Code": diagnostic,
        "Last-Attempt-Date": _date(now),
        "Will-Retry-Until": _date(retry_until) if fate.action is Action.DELAYED else None,
    }


def _said(reply: Reply) -> str:
    enhanced = f"{reply.enhanced} " if reply.enhanced else ""
    return f"{reply.code} {enhanced}{' '.join(reply.lines)}".rstrip()


def _address(address: str) -> str:
    kind = "rfc822" if address.isascii() else "utf-8"
    return f"{kind};{_typed(kind, address)}"


def _typed(kind: str, address: str) -> str:
    """An address for a field of its type; a backslash is special in utf-8 only (RFC 6533 section 3)."""
    return address.replace("\\", r"\x{5C}") if kind == "utf-8" else address


def _plain(error: SMTPError) -> str:
    return _CONTROL.sub(" ", str(error) or type(error).__name__)


def _date(moment: datetime | None) -> str | None:
    return None if moment is None else format_datetime(moment)


def _fields(fields: Mapping[str, str | None], utf8: bool) -> bytes:
    """Header fields, without those that are ``None``: folded at blanks, and ASCII unless `utf8`."""
    lines: list[str] = []
    for name, value in fields.items():
        if value is None:
            continue
        line, value = f"{name}:", _CONTROL.sub(" ", value)[:MAX_FIELD]
        if not utf8:  # RFC 6533 §3, utf-8-addr-xtext
            value = re.sub(r"[^\x00-\x7f]", lambda found: f"\\x{{{ord(found[0]):02X}}}", value)
        for word in _words(value):
            if len(line) + len(word) >= _LINE and line.strip() and word:
                lines.append(line)
                line = ""
            line += f" {word}"
        lines.append(line)
    return "\r\n".join([*lines, ""]).encode()


def _words(text: str) -> Iterator[str]:
    for word in text.split(" "):
        yield word[:_WORD]
        yield from (word[at : at + _WORD] for at in range(_WORD, len(word), _WORD))


def _part(kind: str, body: bytes, encoding: str = "") -> bytes:
    if not encoding and not body.isascii():
        encoding = "8bit"
    header = f"Content-Type: {kind}\r\n" + (f"Content-Transfer-Encoding: {encoding}\r\n" if encoding else "")
    return header.encode() + b"\r\n" + body


def _text_part(text: str) -> bytes:
    body = text.replace("\n", "\r\n").encode()
    if body.isascii() and all(len(line) <= 900 for line in body.split(b"\r\n")):
        return _part("text/plain; charset=us-ascii", body)
    encoded = quopri.encodestring(text.encode()).replace(b"\n", b"\r\n")
    return _part("text/plain; charset=utf-8", encoded, "quoted-printable")


def _explain(kinds: list[Action], fates: list[_Fate], reporting_mta: str, retry_until: datetime | None) -> str:
    paragraphs = [f"This is the mail server {reporting_mta}, about a message of yours."]
    for action in kinds:
        lines = [_HEADINGS[action], ""]
        for fate in fates:
            if fate.action is action:
                said = _said(fate.reply) if fate.reply is not None else fate.reason
                lines.append(_CONTROL.sub(" ", f"<{fate.recipient.address}>: {said}"))
        paragraphs.append("\n".join(lines))
    if Action.DELAYED in kinds:
        paragraphs.append(f"You need not send it again. It is tried until {_date(retry_until)}.")
    return "\n\n".join(paragraphs) + "\n"


def _returned(
    content: bytes | EmailMessage | None, ret: str | None, *, is_failure: bool, utf8: bool
) -> tuple[list[bytes], str | None]:
    """The part that returns the message, or its header; and its Message-ID."""
    if content is None:
        return [], None
    octets = content if isinstance(content, bytes) else content.as_bytes(policy=content.policy.clone(linesep="\r\n"))
    end = _header_end(octets)
    header = octets[:end]
    if header and not header.endswith(b"\n"):
        header += b"\r\n"
    fields = dict(_read_fields(header[:MAX_HEADER]))
    message_id = fields.get("message-id", "")
    known = message_id if _MESSAGE_ID(message_id) else None
    is_global = utf8 and not header.isascii()
    if is_failure and (ret == "FULL" or (ret is None and len(octets) <= RETURNED)):
        return [_part("message/global" if is_global else "message/rfc822", octets)], known
    return [_part("message/global-headers" if is_global else "text/rfc822-headers", header)], known


def _boundary(parts: list[bytes]) -> str:
    while True:
        boundary = f"=_{secrets.token_hex(16)}"
        if not any(boundary.encode() in part for part in parts):
            return boundary


# -- reading one

_STATUS_TYPES: Final = ("message/delivery-status", "message/global-delivery-status")
_RETURNED_TYPES: Final = ("message/rfc822", "message/global", "text/rfc822-headers", "message/global-headers")
_BLANK_LINE: Final = re.compile(rb"^[ \t]*\r?\n", re.MULTILINE).search
_STATUS: Final = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}(?![0-9.])").match
_REPLY_LINE: Final = re.compile(r"([2-5][0-5][0-9])(?:[ -]|$)(?:([245]\.[0-9]{1,3}\.[0-9]{1,3})(?:[ -]|$))?(.*)").fullmatch
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
        What is in it. A report is what its author says: to be believed no more than any message from it.

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
        raise TypeError(f"a report is bytes or a message object, not {type(message).__name__}")
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
    ids = dict(_read_fields(back[: min(_header_end(back), MAX_HEADER)]))
    return Report(
        recipients=recipients,
        envelope_id=about.get("original-envelope-id") or None,
        reporting_mta=_name(about.get("reporting-mta")),
        received_from=_name(about.get("received-from-mta")),
        arrived=_moment(about.get("arrival-date")),
        text=_text(text) if text is not None else "",
        returned=back,
        message_id=ids.get("message-id") if _MESSAGE_ID(ids.get("message-id", "")) else None,
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
    end = _header_end(octets)
    if end > MAX_HEADER:
        raise ReportError(f"a header section has more than {MAX_HEADER} octets")
    fields: dict[str, str] = {}
    for name, value in _read_fields(octets[:end]):
        fields.setdefault(name, value)
    blank = _BLANK_LINE(octets, end)
    body = octets[blank.end() :] if blank is not None else b""
    return _Part(fields, body, _content_type(fields))


def _header_end(octets: bytes) -> int:
    """Where the blank line begins that ends a header section."""
    if octets.startswith((b"\n", b"\r\n")):
        return 0
    found = [at + 1 for at in (octets.find(b"\n\n"), octets.find(b"\n\r\n")) if at >= 0]
    return min(found, default=len(octets))


def _read_fields(section: bytes) -> Iterator[tuple[str, str]]:
    """The fields of a header section, or of a group of a status part: names in lower case, values unfolded."""
    for name, lines in _read_lines(section):
        yield name, " ".join(lines)[:MAX_FIELD].strip()


def _read_lines(section: bytes) -> Iterator[tuple[str, list[str]]]:
    """The same, with the lines of a value one by one, and what is not printable replaced."""
    name = ""
    lines: list[str] = []
    for raw in section.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"):
        line = raw[: MAX_FIELD + 100].decode("utf-8", "replace")
        if line[:1] in (" ", "\t"):
            lines.append(_CONTROL.sub("\ufffd", line.replace("\t", " ").strip()))
            continue
        if name:
            yield name, lines
        name, colon, value = line.partition(":")
        name = name.strip().lower() if colon else ""
        lines = [_CONTROL.sub("\ufffd", value.replace("\t", " ").strip())]
    if name:
        yield name, lines


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
    return "\n".join(_CONTROL.sub("\ufffd", line.replace("\t", "    ")) for line in text.split("\n"))


def _read_status(part: _Part) -> tuple[dict[str, str], tuple[ReportedRecipient, ...]]:
    """The fields about the message, and what is said of each recipient (RFC 3464 section 2.1)."""
    octets = _decoded(part)
    if len(octets) > MAX_STATUS:
        raise ReportError(f"the status part has more than {MAX_STATUS} octets")
    about: dict[str, str] = {}
    recipients: list[ReportedRecipient] = []
    for group in re.split(rb"\n(?:[ \t]*\n)+", octets.replace(b"\r\n", b"\n").replace(b"\r", b"\n").strip(b"\n")):
        fields: dict[str, list[str]] = {}
        for name, lines in _read_lines(group):
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
        address = _CONTROL.sub("\ufffd", _EMBEDDED.sub(_character, address))
    return (kind or "rfc822", address) if address else None


def _character(found: re.Match[str]) -> str:
    number = int(found[1], 16)
    return chr(number) if number <= 0x10FFFF else found[0]


def _read_reply(lines: list[str]) -> Reply | None:
    """The reply in a Diagnostic-Code: folded where its lines begin, as Exim has it, or anywhere, as Postfix has it."""
    said = " ".join(line for line in (lines[0].partition(";")[2].strip(), *lines[1:MAX_LINES]) if line)[:MAX_FIELD]
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
    return moment.replace(tzinfo=timezone.utc) if moment.tzinfo is None else moment


for _each in (Action, Report, ReportError, ReportedRecipient, make_report, parse_report):
    _each.__module__ = "trio_smtp.reports"
