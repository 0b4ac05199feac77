# A report made of an outcome: what is said of whom, and the octets of that.
#
# The octets are ours; the returned message is among them as it is.
from __future__ import annotations

import quopri
import re
import secrets
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTPUTF8
from email.utils import format_datetime, make_msgid
from typing import Final, Literal, NamedTuple

import trio_smtp
from trio_smtp import Envelope, Recipient, Reply, SendResult, SMTPError

from ._fields import CONTROL, MAX_HEADER, header_end, is_message_id, read_fields, write_fields
from ._values import Action

RETURNED: Final = 50_000  # octets of a message that is returned whole where its sender did not say (RET)
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
# A policy that writes what was parsed as it came: Python 3.13.0 would encode what is not ASCII without `utf8`.
_POLICY: Final = SMTPUTF8.clone(refold_source="none")


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
    status: str | None = None,
) -> EmailMessage | None:
    """Make the report on a message, for its sender: ``await pool.send("", [envelope.sender.address], report)``.

    Each recipient is in it whose fate its NOTIFY asks to be told (RFC 3461 section 4.1): failures and delays where it
    has none. ORCPT, ENVID and RET are observed; RET as far as RFC 3461 section 4.3 does: the message is returned with a
    failure only, and whole if the sender asked for that (FULL), or did not say and it has at most 50,000 octets.

    Args:
        outcome: what :meth:`Client.send` or :meth:`Pool.send` returned or raised for the message.
        envelope: the message's, as ``on_data`` gets it; or ``Envelope(Sender(me), [Recipient(you)])``.
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
        status: the enhanced code (RFC 3463) of failures without a reply, such as ``"4.4.7"`` where a message's time is
            over; by default that of the error's kind.

    Returns:
        The report, with Date and Message-ID; ``None`` if there is none to be sent, as for a message from the null
        sender (RFC 5321 section 6.1), or where no recipient's NOTIFY asks for it.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind.
    """
    if not isinstance(reporting_mta, str) or not _HOST(reporting_mta):
        raise ValueError(f"reporting_mta must be a host's name, not {reporting_mta!r}")
    for name, moment in (("arrived", arrived), ("retry_until", retry_until)):
        if moment is not None and not isinstance(moment, datetime):
            raise TypeError(f"{name} must be a datetime or None, not {moment!r:.80}")
        if moment is not None and moment.utcoffset() is None:
            raise ValueError(f"{name} has a time zone")
    if not isinstance(outcome, SendResult | SMTPError):
        raise TypeError(f"the outcome must be a SendResult or an SMTPError, not {type(outcome).__name__}")
    if not isinstance(envelope, Envelope):
        raise TypeError(f"the envelope must be an Envelope, not {type(envelope).__name__}")
    if content is not None and not isinstance(content, bytes | EmailMessage):
        raise TypeError(f"the content must be bytes, an EmailMessage or None, not {type(content).__name__}")
    sender = envelope.sender
    if not sender.address:
        return None
    fates = [
        fate
        for recipient in envelope.recipients
        if (fate := _fate(outcome, recipient, retry_until is not None, accepted, status)) is not None
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
    now = datetime.now(UTC).astimezone()
    groups = [write_fields(about, utf8)]
    groups += [write_fields(_recipient_fields(fate, remote_mta, now, retry_until), utf8) for fate in fates]
    kinds = [action for action in _SUBJECTS if any(fate.action is action for fate in fates)]
    returned, original_id = _returned(content, sender.ret, is_failure=Action.FAILED in kinds, utf8=utf8)
    body = b"\r\n".join(groups)
    parts = [
        _text_part(_explain(kinds, fates, reporting_mta, retry_until)),
        _part("message/global-delivery-status" if utf8 else "message/delivery-status", body),
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
    octets = write_fields(header, True) + b"".join(b"\r\n--%s\r\n%s" % (boundary.encode(), part) for part in parts)
    octets += b"\r\n--%s--\r\n" % boundary.encode()
    return message_from_bytes(octets, policy=_POLICY)


def _fate(
    outcome: SendResult | SMTPError,
    recipient: Recipient,
    is_tried: bool,
    accepted: Literal["relayed", "delivered"] | None,
    given: str | None,
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
        default = given or next((status for kind, status in _PERMANENT if isinstance(outcome, kind)), _OTHER)
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
    return CONTROL.sub(" ", str(error) or type(error).__name__)


def _date(moment: datetime | None) -> str | None:
    return None if moment is None else format_datetime(moment)


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
                lines.append(CONTROL.sub(" ", f"<{fate.recipient.address}>: {said}"))
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
    end = header_end(octets)
    header = octets[:end]
    if header and not header.endswith(b"\n"):
        header += b"\r\n"
    fields = dict(read_fields(header[:MAX_HEADER]))
    message_id = fields.get("message-id", "")
    known = message_id if is_message_id(message_id) else None
    is_global = utf8 and not header.isascii()
    if is_failure and (ret == "FULL" or (ret is None and len(octets) <= RETURNED)):
        return [_part("message/global" if is_global else "message/rfc822", octets)], known
    return [_part("message/global-headers" if is_global else "text/rfc822-headers", header)], known


def _boundary(parts: list[bytes]) -> str:
    while True:
        boundary = f"=_{secrets.token_hex(16)}"
        if not any(boundary.encode() in part for part in parts):
            return boundary
