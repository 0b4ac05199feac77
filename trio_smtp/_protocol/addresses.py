# Addresses: the paths of MAIL and RCPT, read from a peer; and an application's addresses, checked for the wire.
#
# A server reads with parse_reverse_path() and parse_forward_path(). One regular expression matches the common
# <local@domain>; anything else takes the slow path, which knows the whole grammar and every limit. A client passes each
# address through check_address() before a byte is sent; the result cannot end a line or a path. Both use one grammar,
# so a client can send every address that a server accepted. Not known here: DNS, which addresses exist, parameters
# (parameters.py).
from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final, NamedTuple, TypeAlias

from .domains import MAX_DOMAIN, canonical_domain
from .errors import Delivery, ExtensionNotSupportedError, LocalProtocolError
from .replies import Reject
from .xtext import CONTROL

# Octets. RFC 5321 §4.5.3.1.1 demands 64 for a local part, and asks for no limit where possible: the bounce addresses of
# SRS and of mailing lists have more.
MAX_LOCAL_PART: Final = 256
MAX_PATH: Final = len("<") + MAX_LOCAL_PART + len("@") + MAX_DOMAIN + len(">")

Path: TypeAlias = tuple[str, str, str, str]
"""Address, local part (unquoted), domain (canonical: A-labels in lower case), and the text after the path."""

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]"
_ATOM_UTF8 = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\U0010ffff-]"  # RFC 6531 §3.3
_DOT_STRING = rf"{_ATOM}++(?:\.{_ATOM}++)*+"
# Labels may have underscores. RFC 5321 §2.3.5 does not allow them, but hosts with such names send mail.
_LABELS = r"[A-Za-z0-9_]++(?:(?:\.|-++)[A-Za-z0-9_]++)*+"
_SHOWN: Final = 256  # characters of an address in an error
_SHORT: Final = 64  # octets: an address of this length cannot exceed any limit, not even that of a label (63)

_LABEL = r"[A-Za-z0-9_\x80-\U0010ffff](?:[A-Za-z0-9_\x80-\U0010ffff-]{0,61}[A-Za-z0-9_\x80-\U0010ffff])?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*+")
_QUOTED = r'"(?:[^"\\]|\\.)*+"'
# RFC 5321 §4.1.2; callers refuse control characters before.
_MAILBOX = re.compile(rf"({_ATOM_UTF8}++(?:\.{_ATOM_UTF8}++)*+|{_QUOTED})@(.+)")
_LITERAL = re.compile(r"\[(?:([A-Za-z0-9-]*[A-Za-z0-9]):)?([!-Z^-~]+)\]")  # RFC 5321 §4.1.3
_BRACKETED = re.compile(rf'<((?:[^"<> ]|{_QUOTED})*+)>')
_BARE = re.compile(rf'(?:[^"<> ]|{_QUOTED})++')
_PLAIN = re.compile(rf"{_DOT_STRING}@{_LABELS}").fullmatch

_FastMatch: TypeAlias = Callable[[str], re.Match[str] | None]


class _Side(NamedTuple):
    """The path of MAIL or the path of RCPT: how they differ."""

    fast: _FastMatch
    prefix: re.Pattern[str]
    syntax: str
    noun: str
    enhanced: str  # RFC 3463 §3.2: bad address syntax, of the sender or of the destination
    null: bool

    def parse(self, argument: bytes | bytearray, *, lenient: bool = False) -> Path:
        """Read the argument of MAIL (``FROM:<address>``) or RCPT (``TO:<address>``), then parameters if any.

        The address may be non-ASCII. The caller checks that the parameters allow it.

        Args:
            argument: the line without the verb and without CRLF.
            lenient: also accept bare words, missing angle brackets, several spaces before the address, stray dots (a
                final one of the domain is dropped) and local parts of any length; see docs/supported.md.

        Returns:
            The address (``""`` for the null path, which RCPT cannot have), its local part without quotes, its domain
            as A-labels in lower case (``""`` for postmaster alone; an address literal as received), and the
            parameters' text.

        Raises:
            Reject: 501 with 5.5.4 (no ``FROM:`` or ``TO:``), 5.1.7 or 5.1.3 (bad address), or 5.5.2 (control
                characters, not UTF-8).
        """
        try:
            match = self.fast(argument.decode("ascii"))
        except UnicodeDecodeError:
            match = None
        if match is not None:
            address, local_part, domain, rest = match.groups("")
            if len(address) <= _SHORT:
                return address, local_part, domain.lower(), rest
        return _parse_any_path(argument, self, lenient)


_REVERSE = _Side(
    re.compile(rf"(?i:FROM): ?<(?:(({_DOT_STRING})@({_LABELS})))?>(?: ([ -~]*))?").fullmatch,
    re.compile(r"FROM: ?", re.IGNORECASE | re.ASCII),  # Outlook sends one space
    "MAIL FROM:<address>",
    "sender",
    "5.1.7",
    null=True,
)
_FORWARD = _Side(
    re.compile(rf"(?i:TO): ?<(({_DOT_STRING})@({_LABELS}))>(?: ([ -~]*))?").fullmatch,
    re.compile(r"TO: ?", re.IGNORECASE | re.ASCII),
    "RCPT TO:<address>",
    "recipient",
    "5.1.3",
    null=False,
)
parse_reverse_path: Final = _REVERSE.parse
parse_forward_path: Final = _FORWARD.parse


def _parse_any_path(argument: bytes | bytearray, side: _Side, lenient: bool) -> Path:
    try:
        text = argument.rstrip(b" \t").decode("utf-8")  # RFC 5321 §4.1.1: ignore trailing white space
    except UnicodeDecodeError:
        raise Reject(501, "not UTF-8", "5.5.2") from None  # RFC 6531 §3.1, RFC 3629
    if CONTROL.search(text):
        raise Reject(501, "control characters are not allowed here", "5.5.2")
    prefix = side.prefix.match(text)
    if prefix is None:
        raise Reject(501, f"syntax: {side.syntax}", "5.5.4")
    text = text[prefix.end() :]
    if lenient:
        text = text.lstrip(" ")
    match = _BRACKETED.match(text)
    if match is not None:
        path = match[1]
    elif lenient and (match := _BARE.match(text)) is not None:
        path = match[0]
    else:
        raise Reject(501, f"bad {side.noun} address; syntax: {side.syntax}", side.enhanced)
    rest = text[match.end() :]
    if rest and not rest.startswith(" "):
        raise Reject(501, f"a space is missing after the {side.noun} address", "5.5.4")
    try:
        return *_parse_mailbox(path, side, lenient), rest[1:]
    except ValueError as exc:
        raise Reject(501, f"bad {side.noun} address: {exc}", side.enhanced) from None


def _parse_mailbox(path: str, side: _Side, lenient: bool) -> tuple[str, str, str]:
    if not path:
        if side.null:
            return "", "", ""  # RFC 5321 §4.5.5
        raise ValueError("a recipient cannot be null")
    if len(path.encode()) > MAX_PATH - len("<>"):
        raise ValueError(f"the path is longer than {MAX_PATH} octets")
    if path.startswith("@"):  # RFC 5321 appendix C: accept a source route and ignore it
        route, _, path = path.partition(":")
        if not lenient and not all(hop[:1] == "@" and _DOMAIN.fullmatch(hop[1:]) for hop in route.split(",")):
            raise ValueError("bad source route")
        if not path:
            raise ValueError("there is nothing after the source route")
    if path.lower() == "postmaster":  # RFC 5321 §4.1.1.3: without a domain, in any case
        return path, path, ""
    if lenient:
        if "@" in path:
            path = path.removesuffix(".")  # of the domain, as in the DNS
        local_part, domain = _split(path)
        return path, local_part, _parse_domain(domain) if "@" in path else ""
    return path, *_parse_address(path)


def _parse_address(address: str) -> tuple[str, str]:
    """Local part and domain of an address; ValueError unless it follows RFC 5321 §4.1.2."""
    match = _MAILBOX.fullmatch(address)
    if match is None:
        if "@" not in address:
            raise ValueError("there is no domain")
        hint = " (quote leading, trailing or repeated dots)" if "." in address.partition("@")[0] else ""
        raise ValueError(f"bad local part{hint}")
    local_part, domain = match.groups()
    if len(local_part.encode()) > MAX_LOCAL_PART:
        raise ValueError(f"the local part is longer than {MAX_LOCAL_PART} octets")
    return _unquote(local_part), _parse_domain(domain)


def _parse_domain(domain: str) -> str:
    """The canonical form of a domain or an address literal; ValueError unless it follows RFC 5321 §4.1.2."""
    if len(domain.encode()) > MAX_DOMAIN:
        raise ValueError(f"the domain is longer than {MAX_DOMAIN} octets")
    if domain.startswith("["):
        _check_literal(domain)
        return domain
    if _DOMAIN.fullmatch(domain) is None:
        raise ValueError("bad domain")
    return canonical_domain(domain)


def _check_literal(literal: str) -> None:
    match = _LITERAL.fullmatch(literal)
    if match is None:
        raise ValueError("bad address literal")
    tag, content = match.groups()
    try:
        if tag is None:
            IPv4Address(content)
        elif tag.lower() == "ipv6":
            if "%" in content:  # a scope: IPv6Address accepts one, RFC 5321 §4.1.3 does not
                raise AddressValueError
            IPv6Address(content)
        elif _is_ipv6(literal[1:-1]):
            # Without "IPv6:", [2001:db8::1] parses as a general-address-literal with the tag "2001".
            raise AddressValueError
    except AddressValueError:
        raise ValueError("bad address literal") from None


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except AddressValueError:
        return False
    return True


def _unquote(local_part: str) -> str:
    if not local_part.startswith('"'):
        return local_part
    return re.sub(r"\\(.)", r"\1", local_part[1:-1])


def split_address(address: str) -> tuple[str, str]:
    """Local part without quotes and domain, as A-labels in lower case where it has them, of any text, valid or not.

    The results for a quoted and an unquoted form of one mailbox (RFC 5321 section 4.1.2) are equal.
    """
    local_part, domain = _split(address)
    try:
        return local_part, domain if domain.startswith("[") else canonical_domain(domain)
    except ValueError:
        return local_part, domain.lower()


def _split(address: str) -> tuple[str, str]:
    match = _MAILBOX.fullmatch(address)
    if match is not None:
        local_part, domain = match.groups()
        if domain.startswith("["):
            return _unquote(local_part), domain
        if "@" not in domain:
            return _unquote(local_part), domain
    local_part, at, domain = address.rpartition("@")  # the last "@", as in every mailer that accepts such an address
    return (local_part, domain) if at else (address, "")


def check_address(address: str, *, null: bool = False, postmaster: bool = False) -> str:
    """Check an address before it is sent.

    Args:
        address: ``local@domain``, without angle brackets or display name.
        null: the empty address is allowed (``MAIL FROM:<>``).
        postmaster: ``postmaster`` without a domain is allowed (a recipient).

    Returns:
        The address, its local part in Unicode's NFC, ready for :func:`wire_address`.

    Raises:
        TypeError: the address is not a str.
        LocalProtocolError: the address breaks a rule or a limit of RFC 5321 section 4.1.2, or its domain is not an
            IDNA 2008 name.
    """
    if not isinstance(address, str):
        raise TypeError(f"an address must be a str, not {type(address).__name__}")
    if len(address) <= _SHORT and _PLAIN(address):
        return address
    if not address and null:
        return address
    try:
        return _check(address, postmaster)
    except ValueError as exc:
        shown = address if len(address) <= _SHOWN else address[:_SHOWN] + "…"
        words = f"{shown!r} is not an address: {_hint(address) or exc}"
        raise LocalProtocolError(words, delivery=Delivery.NOT_SENT) from None


def _hint(address: str) -> str:
    """What to do about a mistake that is often made; empty for others."""
    if "@" not in address or len(address) > 4 * MAX_PATH:
        return ""
    inner = address.rpartition("<")[2].removesuffix(">")
    if address.count("@") > 1 and ("," in address or ";" in address):
        return "it is a list; each address is an argument of its own"
    if address.endswith(">") and inner and inner != address:
        return f"leave names and angle brackets out, {inner!r} is enough"
    if address[:7].lower() == "mailto:":
        return "leave 'mailto:' out"
    return ""


def _check(address: str, postmaster: bool) -> str:
    if not address:
        raise ValueError("it is empty")
    if CONTROL.search(address):
        raise ValueError("it has control characters")
    if len(address) > 4 * MAX_PATH:  # first, since the checks below are slow for long text
        raise ValueError(f"with angle brackets it is longer than {MAX_PATH} octets")
    if not address.isascii():
        local_part, at, domain = address.rpartition("@")
        address = unicodedata.normalize("NFC", local_part) + at + domain  # RFC 6532 §3.1
    if postmaster and address.lower() == "postmaster":
        return address
    _parse_address(address)
    return address


def needs_smtputf8(address: str) -> bool:
    """Whether the address needs SMTPUTF8, that is, has a non-ASCII local part. A domain alone has an ASCII form."""
    return not address.isascii() and not address[: address.rfind("@")].isascii()


def to_ascii(address: str) -> str:
    """The address with its domain as A-labels (IDNA 2008) and its local part unchanged.

    Raises:
        LocalProtocolError: the domain has no such form.
    """
    if address.isascii():
        return address
    local_part, _, domain = address.rpartition("@")
    try:
        return f"{local_part}@{canonical_domain(domain)}"
    except ValueError as exc:
        raise LocalProtocolError(f"{address!r} is not an address: {exc}", delivery=Delivery.NOT_SENT) from None


def own_name(node: str) -> str:
    """What a machine may call itself in the protocol: its name if that is one, in ASCII; else ``localhost``."""
    try:
        name = canonical_domain(node)
    except ValueError:
        return "localhost"
    if len(name) > MAX_DOMAIN or _DOMAIN.fullmatch(name) is None:
        return "localhost"
    return node if node.isascii() else name  # in upper case, maybe, as the machine has it


def wire_address(address: str, *, smtputf8: bool) -> str:
    """The text to send between the angle brackets, for an address that :func:`check_address` returned.

    The domain is sent as A-labels if the local part is ASCII. Then the transaction does not need SMTPUTF8, which the
    next server may not offer. Otherwise it is sent in NFC.

    Args:
        address: the checked address.
        smtputf8: the server offers SMTPUTF8.

    Raises:
        ExtensionNotSupportedError: the local part is not ASCII and the server does not offer SMTPUTF8.
    """
    if not needs_smtputf8(address):
        return to_ascii(address)
    if not smtputf8:
        raise ExtensionNotSupportedError(
            f"{address!r} needs SMTPUTF8, which the server does not offer", delivery=Delivery.NOT_SENT
        )
    return unicodedata.normalize("NFC", address)
