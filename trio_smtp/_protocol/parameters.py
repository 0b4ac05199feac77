# The parameters of MAIL and RCPT as a table: the command, the extension, the parser of the value.
#
# To add a parameter, add a row, here or, for an application's own keyword, in ParameterContext(extra=...). parse_mail()
# and parse_rcpt() read the whole argument of their command, with the path, and return the value object or raise Reject;
# the session only writes the reply. parameter_text.py is the client's side.
#
# An advisory parameter (ENVID, ORCPT, AUTH) says something of the message, and asks for nothing. It is read when all of
# the command is known, since SMTPUTF8 may follow it; where its value cannot be read, it costs itself and not the mail.
from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from .addresses import parse_forward_path, parse_reverse_path
from .envelope import DeliverBy, Recipient, Sender
from .replies import Reject
from .xtext import decode_utf8_addr, decode_xtext

MAX_ENVID: Final = 100  # characters, RFC 3461 §4.4

_KEYWORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*").fullmatch  # RFC 5321 §4.1.2, esmtp-keyword


class ParameterContext:
    """The facts that the parsers of a session's parameters need. Made once per state (clear, TLS), not per command.

    Args:
        extensions: upper-case keywords of the extensions in force. Includes ``REQUIRETLS`` if configured, although it
            is offered inside TLS only, and ``AUTH`` if offered.
        max_message_size: octets, or ``None``.
        tls: the session is inside TLS.
        lenient: accept addresses that break the grammar (``ServerConfig.lenient_addresses``).
        max_hold: seconds that HOLDFOR may ask for, or ``None``.
        max_hold_until: the latest time (with a time zone) that HOLDUNTIL may ask for, or ``None``.
        min_deliver_by: the fewest seconds that BY with mode R may ask for, or ``None``.
        extra: an application's own parameters.
    """

    __slots__ = (
        "extensions",
        "lenient",
        "mail",
        "max_hold",
        "max_hold_until",
        "max_message_size",
        "min_deliver_by",
        "rcpt",
        "tls",
    )

    def __init__(
        self,
        extensions: Collection[str],
        *,
        max_message_size: int | None = None,
        tls: bool = False,
        lenient: bool = False,
        max_hold: int | None = None,
        max_hold_until: datetime | None = None,
        min_deliver_by: int | None = None,
        extra: Iterable[Parameter] = (),
    ) -> None:
        self.extensions: Final = frozenset(name.upper() for name in extensions)
        self.max_message_size: Final = max_message_size
        self.tls: Final = tls
        self.lenient: Final = lenient
        self.max_hold: Final = max_hold
        self.max_hold_until: Final = max_hold_until
        self.min_deliver_by: Final = min_deliver_by
        rows = [row for row in (*PARAMETERS, *extra) if row.extension.upper() in self.extensions]
        self.mail: Final = {row.keyword.upper(): row for row in rows if row.command == "MAIL"}
        self.rcpt: Final = {row.keyword.upper(): row for row in rows if row.command == "RCPT"}


ParameterParser: TypeAlias = Callable[[str | None, Any, ParameterContext], None]


Reader: TypeAlias = Callable[[str, Any, bool], None]


class Parameter(NamedTuple):
    """A row of the table.

    Attributes:
        keyword: as in the command.
        command: ``"MAIL"`` or ``"RCPT"``.
        extension: the EHLO keyword that must be in force; otherwise the parameter is unknown (555).
        parse: called with the value (``None`` for a bare keyword), the :class:`Sender` or :class:`Recipient`, and the
            context; stores the result there, or raises :class:`Reject`.
        utf8: the value may be UTF-8 in a transaction with SMTPUTF8.
        read: of an advisory parameter, instead of `parse`: called with the value, the object, and whether the
            transaction has SMTPUTF8; raises ValueError for what it cannot read.
    """

    keyword: str
    command: Literal["MAIL", "RCPT"]
    extension: str
    parse: ParameterParser | None
    utf8: bool = False
    read: Reader | None = None


def parse_mail(argument: bytes | bytearray, context: ParameterContext) -> Sender:
    """Read the argument of MAIL: ``FROM:<address>`` and parameters.

    Args:
        argument: the line without the verb and without CRLF.
        context: of the session.

    Raises:
        Reject: 501 (syntax), 552 (too large), 553 (UTF-8 without SMTPUTF8), 555 (unknown parameter), 530 (no TLS).
    """
    address, local_part, domain, rest = parse_reverse_path(argument, lenient=context.lenient)
    sender = Sender(address, local_part, domain, {})
    if rest:
        advisory = _take(rest, sender, context.mail, context)
        if advisory is not None:
            _read(advisory, sender, context.mail, sender.smtputf8)
    if not sender.smtputf8:
        # Checked here, since SMTPUTF8 follows the address that it allows.
        if not address.isascii():
            raise Reject(553, "a non-ASCII sender address needs SMTPUTF8", "5.6.7")  # RFC 6531 §3.5
        if rest and not rest.isascii() and _has_utf8(sender):
            raise Reject(501, "a non-ASCII parameter needs SMTPUTF8", "5.5.4")
    return sender


def parse_rcpt(argument: bytes | bytearray, context: ParameterContext, *, smtputf8: bool = False) -> Recipient:
    """Read the argument of RCPT: ``TO:<address>`` and parameters.

    Args:
        argument: the line without the verb and without CRLF.
        context: of the session.
        smtputf8: whether this transaction's MAIL had SMTPUTF8.

    Raises:
        Reject: 501 (syntax), 550 (UTF-8 without SMTPUTF8), 555 (unknown parameter).
    """
    address, local_part, domain, rest = parse_forward_path(argument, lenient=context.lenient)
    if not smtputf8 and not address.isascii():
        raise Reject(550, "a non-ASCII recipient address needs SMTPUTF8 with MAIL", "5.6.7")  # RFC 6531 §3.5
    recipient = Recipient(address, local_part, domain, {})
    if rest:
        advisory = _take(rest, recipient, context.rcpt, context)
        if advisory is not None:
            _read(advisory, recipient, context.rcpt, smtputf8)
        if not smtputf8 and not rest.isascii() and _has_utf8(recipient):
            raise Reject(501, "a non-ASCII parameter needs SMTPUTF8 with MAIL", "5.5.4")
    return recipient


def _take(
    rest: str, target: Sender | Recipient, rows: dict[str, Parameter], context: ParameterContext
) -> list[str] | None:
    """Take the parameters; returns the keywords of those that are advisory, which are not read yet."""
    advisory: list[str] | None = None
    params = target.params
    for item in rest.split(" "):
        if not item:
            continue  # careful in: allow several spaces between parameters
        name, equals, value = item.partition("=")
        keyword = name.upper()
        row = rows.get(keyword)
        # isascii: "ſize".upper() is "SIZE".
        if row is None or not name.isascii():
            if not _KEYWORD(name):
                raise Reject(501, "bad parameter syntax", "5.5.4")
            raise Reject(555, f"parameter {keyword} is not supported", "5.5.4")  # RFC 5321 §4.1.1.11
        if keyword in params:
            raise Reject(501, f"{keyword} is given twice", "5.5.4")
        if row.parse is None:
            advisory = [*(advisory or ()), keyword]
            params[keyword] = value
            continue
        if (equals and (not value or "=" in value)) or not (row.utf8 or value.isascii()):  # RFC 5321 §4.1.2
            raise Reject(501, f"bad {keyword} value", "5.5.4")
        checked = value if equals else None
        params[keyword] = checked
        row.parse(checked, target, context)
    return advisory


def _read(keywords: list[str], target: Sender | Recipient, rows: dict[str, Parameter], smtputf8: bool) -> None:
    """Read advisory parameters; those that cannot be read are dropped, and noted in `target.unreadable`."""
    for keyword in keywords:
        value, read = target.params[keyword], rows[keyword].read
        assert value is not None
        assert read is not None
        try:
            read(value, target, smtputf8)
        except ValueError:
            del target.params[keyword]
            target.unreadable = {**target.unreadable, keyword: value}


def _has_utf8(target: Sender | Recipient) -> bool:
    return not all(value is None or value.isascii() for value in target.params.values())


def _bad(keyword: str, wanted: str) -> Reject:
    return Reject(501, f"bad {keyword} parameter; syntax: {wanted}", "5.5.4")


_DIGITS = re.compile(r"[0-9]{1,20}").fullmatch  # RFC 1870 §6


def _size(value: str | None, sender: Sender, context: ParameterContext) -> None:
    if value is None or not _DIGITS(value):
        raise _bad("SIZE", "SIZE=octets")
    sender.size = int(value)
    limit = context.max_message_size
    if limit is not None and sender.size > limit:
        raise Reject(552, f"the message is larger than {limit} octets", "5.3.4")  # RFC 1870 §6.1


def _body(value: str | None, sender: Sender, context: ParameterContext) -> None:
    body = (value or "").upper()
    binary = body == "BINARYMIME" and "BINARYMIME" in context.extensions  # RFC 3030 §3
    if not binary and body not in ("7BIT", "8BITMIME"):  # RFC 6152 §2
        raise _bad("BODY", "BODY=7BIT or BODY=8BITMIME")
    sender.body = body


def _smtputf8(value: str | None, sender: Sender, context: ParameterContext) -> None:
    if value is not None:  # RFC 6531 §3.4
        raise _bad("SMTPUTF8", "SMTPUTF8, without a value")
    sender.smtputf8 = True


def _ret(value: str | None, sender: Sender, context: ParameterContext) -> None:
    ret = (value or "").upper()
    if ret not in ("FULL", "HDRS"):  # RFC 3461 §4.3
        raise _bad("RET", "RET=FULL or RET=HDRS")
    sender.ret = ret


def _envid(value: str, sender: Sender, smtputf8: bool) -> None:
    envid = decode_xtext(value, utf8=smtputf8)
    if len(envid) > MAX_ENVID:
        raise ValueError(f"more than {MAX_ENVID} characters")
    sender.envid = envid


def _auth(value: str, sender: Sender, smtputf8: bool) -> None:
    identity = decode_xtext(value, utf8=smtputf8)
    sender.auth = "" if identity == "<>" else identity  # RFC 4954 §5


def _requiretls(value: str | None, sender: Sender, context: ParameterContext) -> None:
    if value is not None:
        raise _bad("REQUIRETLS", "REQUIRETLS, without a value")
    if not context.tls:
        raise Reject(530, "REQUIRETLS needs TLS here too", "5.7.10")  # RFC 8689 §4.1
    sender.requiretls = True


_PRIORITY = re.compile(r"0|-?[1-9]").fullmatch  # RFC 6710


def _mt_priority(value: str | None, sender: Sender, context: ParameterContext) -> None:
    if value is None or not _PRIORITY(value):
        raise _bad("MT-PRIORITY", "MT-PRIORITY=-9 to 9")
    sender.mt_priority = int(value)


_BY = re.compile(r"([+-]?[0-9]{1,9});([NR])(T?)", re.IGNORECASE | re.ASCII).fullmatch  # RFC 2852 §4


def _by(value: str | None, sender: Sender, context: ParameterContext) -> None:
    match = _BY(value or "")
    if match is None:
        raise _bad("BY", "BY=seconds;mode")
    seconds, mode, trace = int(match[1]), match[2].upper(), bool(match[3])
    if mode == "R" and seconds < 1:  # RFC 2852 §4: with mode R the time must be positive
        raise Reject(501, "BY with mode R needs at least one second", "5.5.4")
    if mode == "R" and context.min_deliver_by is not None and seconds < context.min_deliver_by:
        raise Reject(550, f"BY with mode R needs at least {context.min_deliver_by} seconds", "5.5.4")  # RFC 2852 §4
    sender.deliver_by = DeliverBy(seconds, mode, trace)


_INTERVAL = re.compile(r"[1-9][0-9]{0,8}").fullmatch  # RFC 4865: 1 to 9 digits


def _holdfor(value: str | None, sender: Sender, context: ParameterContext) -> None:
    if value is None or not _INTERVAL(value):
        raise _bad("HOLDFOR", "HOLDFOR=seconds")
    seconds = int(value)
    if sender.hold_until is not None:
        raise Reject(501, "HOLDFOR and HOLDUNTIL exclude each other", "5.5.4")  # RFC 4865
    if context.max_hold is not None and seconds > context.max_hold:
        raise Reject(501, f"HOLDFOR is limited to {context.max_hold} seconds", "5.5.4")
    sender.hold_for = seconds


# RFC 3339 §5.6, in UTC only (RFC 4865). datetime alone accepts more: week dates, other zones, no time.
_DATE_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?Z").fullmatch


def _holduntil(value: str | None, sender: Sender, context: ParameterContext) -> None:
    text = (value or "").upper()
    try:
        if not _DATE_TIME(text):
            raise ValueError
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise _bad("HOLDUNTIL", "HOLDUNTIL=YYYY-MM-DDThh:mm:ssZ") from None
    if sender.hold_for is not None:
        raise Reject(501, "HOLDFOR and HOLDUNTIL exclude each other", "5.5.4")
    if context.max_hold_until is not None and moment > context.max_hold_until:
        raise Reject(501, f"HOLDUNTIL is limited to {context.max_hold_until.isoformat()}", "5.5.4")
    sender.hold_until = moment


_NOTIFY = frozenset(("SUCCESS", "FAILURE", "DELAY"))


def _notify(value: str | None, recipient: Recipient, context: ParameterContext) -> None:
    words = (value or "").upper().split(",")
    notify = frozenset(words)
    # RFC 3461 §4.1: NEVER only by itself, the others at most once each.
    if len(notify) != len(words) or not (notify <= _NOTIFY or notify == {"NEVER"}):
        raise _bad("NOTIFY", "NOTIFY=NEVER or NOTIFY=SUCCESS,FAILURE,DELAY")
    recipient.notify = notify


_ADDRESS_TYPE = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+").fullmatch  # RFC 3461 §4.2: an atom


def _orcpt(value: str, recipient: Recipient, smtputf8: bool) -> None:
    kind, semicolon, encoded = value.partition(";")
    kind = kind.lower()
    if not semicolon or not _ADDRESS_TYPE(kind):
        raise ValueError("no address type")
    decode = decode_utf8_addr if kind == "utf-8" else _decode_xtext
    recipient.orcpt = kind, decode(encoded, smtputf8=smtputf8)


def _decode_xtext(text: str, *, smtputf8: bool) -> str:
    return decode_xtext(text, utf8=smtputf8)


PARAMETERS: Final = (
    Parameter("SIZE", "MAIL", "SIZE", _size),
    Parameter("BODY", "MAIL", "8BITMIME", _body),
    Parameter("SMTPUTF8", "MAIL", "SMTPUTF8", _smtputf8),
    Parameter("AUTH", "MAIL", "AUTH", None, read=_auth),
    Parameter("RET", "MAIL", "DSN", _ret),
    Parameter("ENVID", "MAIL", "DSN", None, read=_envid),
    Parameter("REQUIRETLS", "MAIL", "REQUIRETLS", _requiretls),
    Parameter("MT-PRIORITY", "MAIL", "MT-PRIORITY", _mt_priority),
    Parameter("BY", "MAIL", "DELIVERBY", _by),
    Parameter("HOLDFOR", "MAIL", "FUTURERELEASE", _holdfor),
    Parameter("HOLDUNTIL", "MAIL", "FUTURERELEASE", _holduntil),
    Parameter("NOTIFY", "RCPT", "DSN", _notify),
    Parameter("ORCPT", "RCPT", "DSN", None, utf8=True, read=_orcpt),
)
