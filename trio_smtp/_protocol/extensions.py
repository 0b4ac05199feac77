# Extensions: the EHLO reply, as a client reads it and as a server writes it.
#
# Extensions is a client's read-only view. Reading never fails: a malformed line offers nothing. On the server,
# EXTENSIONS is a table: the conditions under which a keyword is offered, the text after it, and the keywords that it
# requires. An application offers its own extensions by passing rows of the same kind.
from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, NamedTuple

_KEYWORD_LINE = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:[ \t]+(.*))?")  # RFC 5321 §4.1.1.1, ehlo-line
_OLD_AUTH = re.compile(r"AUTH=(.*)", re.IGNORECASE)
_DIGITS = re.compile(r"[0-9]{1,20}")  # RFC 1870 §4
# RFC 9422 §3: names and values; the three known values have 1 to 6 digits and are not 0.
_LIMIT = re.compile(r"([A-Za-z0-9_-]+)(?:=([!-:<-~]+))?")
_LIMIT_VALUE = re.compile(r"[1-9][0-9]{0,5}")
_MAX_LIMIT: Final = 999_999
MAX_SIZE: Final = 10**20 - 1  # octets: twenty digits (RFC 1870 §4)
MAX_INTERVAL: Final = 999_999_999  # seconds: nine digits (RFC 4865 §3, RFC 2852 §4)


class Limits(NamedTuple):
    """The limits that the server states (RFC 9422); ``None`` for each one that it does not.

    Attributes:
        mailmax: MAIL commands in one connection.
        rcptmax: RCPT commands in one transaction.
        rcptdomainmax: different recipient domains in one connection.
    """

    mailmax: int | None = None
    rcptmax: int | None = None
    rcptdomainmax: int | None = None


class Extensions(Mapping[str, str]):
    """The extensions that a server offers: keyword in upper case to the text after it, or ``""``. Read-only.

    Look-ups ignore case: ``"pipelining" in extensions``.

    Attributes:
        size: the largest message in octets; ``None`` if the server states none, or no fixed maximum (``SIZE 0``).
        auth: the SASL mechanisms, in upper case, in the server's order.
        limits: the limits that the server states (RFC 9422).

    Raises:
        TypeError: `offered` is no mapping of str to str.
    """

    __slots__ = ("_offered", "auth", "limits", "size")

    size: int | None
    auth: tuple[str, ...]
    limits: Limits

    def __init__(self, offered: Mapping[str, str] | None = None) -> None:
        if offered is None:
            offered = {}
        if not isinstance(offered, Mapping):
            raise TypeError(f"offered must be a mapping or None, not {offered!r:.80}")
        self._offered: dict[str, str] = {}
        for keyword, text in offered.items():
            if not isinstance(keyword, str) or not isinstance(text, str):
                raise TypeError(f"offered must be a mapping of str to str, not {keyword!r:.80} to {text!r:.80}")
            self._offered[keyword.upper()] = text
        self.size = _parse_size(self._offered.get("SIZE", ""))
        self.auth = tuple(dict.fromkeys(self._offered.get("AUTH", "").upper().split()))
        self.limits = _parse_limits(self._offered.get("LIMITS", ""))

    @classmethod
    def from_lines(cls, lines: Sequence[str]) -> Extensions:
        """Read the lines of a reply to EHLO or LHLO. The first is the greeting, without a keyword."""
        offered: dict[str, str] = {}
        for line in map(
            str.strip, lines[1:]
        ):  # others bear white space around: not to see STARTTLS is to go on in clear
            old = _OLD_AUTH.fullmatch(line)  # "AUTH=PLAIN LOGIN", older than RFC 2554: with or instead of "AUTH "
            if old is not None:
                keyword, text = "AUTH", old[1]
            else:
                match = _KEYWORD_LINE.fullmatch(line)
                if match is None:
                    continue  # smtp-sink ends its list with an empty line, Exchange sends "X-EXPS=LOGIN"
                keyword, text = match[1].upper(), (match[2] or "").strip()
            if keyword == "AUTH":
                text = " ".join(dict.fromkeys(f"{offered.get(keyword, '')} {text}".split()))
            offered[keyword] = text
        return cls(offered)

    def __getitem__(self, keyword: str) -> str:
        return self._offered[keyword.upper()]

    def __contains__(self, keyword: object) -> bool:
        return isinstance(keyword, str) and keyword.upper() in self._offered

    def __iter__(self) -> Iterator[str]:
        return iter(self._offered)

    def __len__(self) -> int:
        return len(self._offered)

    def __repr__(self) -> str:
        return f"Extensions({self._offered!r})"


def _parse_size(text: str) -> int | None:
    # RFC 1870 §4: SIZE without a number states nothing; 0 is no fixed maximum.
    return int(text) or None if _DIGITS.fullmatch(text) else None


def _parse_limits(text: str) -> Limits:
    values: dict[str, str] = {}
    for item in text.split():
        match = _LIMIT.fullmatch(item)
        if match is None:
            return Limits()  # RFC 9422 §3: a syntax error invalidates the whole keyword
        values[match[1].upper()] = match[2] or ""

    def value(name: str) -> int | None:  # a bad value invalidates only itself
        return int(values[name]) if _LIMIT_VALUE.fullmatch(values.get(name, "")) else None

    return Limits(value("MAILMAX"), value("RCPTMAX"), value("RCPTDOMAINMAX"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Offer:
    """The facts that decide what one EHLO reply offers.

    Attributes:
        tls: the session is inside TLS.
        auth: the mechanisms that are allowed now; AUTH is not offered if there are none.
        max_message_size: octets, or ``None`` for no maximum.
        max_recipients: RCPT per transaction, or ``None``.
        max_messages: MAIL per connection, or ``None``.
        max_hold: seconds a message may be held (FUTURERELEASE), or ``None``.
        max_hold_until: the latest time to hold it until, with a time zone, or ``None``.
        min_deliver_by: the fewest seconds that ``BY=`` may ask for (DELIVERBY), or ``None``.
        xclient: attributes that this peer may set by XCLIENT.
        xforward: the same for XFORWARD.
    """

    tls: bool = False
    auth: Sequence[str] = ()
    max_message_size: int | None = None
    max_recipients: int | None = None
    max_messages: int | None = None
    max_hold: int | None = None
    max_hold_until: datetime | None = None
    min_deliver_by: int | None = None
    xclient: Sequence[str] = ()
    xforward: Sequence[str] = ()


class Extension(NamedTuple):
    """A row of the table.

    Attributes:
        keyword: in upper case.
        text: called with an :class:`Offer`; returns the text after the keyword (may be ``""``), or ``None`` for no
            offer.
        opt_in: off by default, since the application must do something for it.
        requires: keywords that must be on as well.
    """

    keyword: str
    text: Callable[[Offer], str | None]
    opt_in: bool = False
    requires: tuple[str, ...] = ()


def always(offer: Offer) -> str | None:
    """The text of an extension that is always offered, without parameters."""
    return ""


def _when(condition: bool) -> str | None:
    return "" if condition else None


def _limits(offer: Offer) -> str | None:
    named = (("MAILMAX", offer.max_messages), ("RCPTMAX", offer.max_recipients))
    # RFC 9422 §4: at most six digits. A larger limit cannot be stated, and no client reaches it.
    return " ".join(f"{name}={n}" for name, n in named if n is not None and 0 < n <= _MAX_LIMIT) or None


def _futurerelease(offer: Offer) -> str | None:
    # RFC 4865: both are mandatory, so "no maximum" is the largest value that the grammar allows.
    interval = MAX_INTERVAL if offer.max_hold is None else offer.max_hold
    latest = offer.max_hold_until
    moment = "9999-12-31T23:59:59Z" if latest is None else f"{latest.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    return f"{interval} {moment}"


EXTENSIONS: Final = (
    Extension("PIPELINING", always),
    Extension("SIZE", lambda offer: str(offer.max_message_size or 0)),  # RFC 1870 §4: 0 is no fixed maximum
    Extension("8BITMIME", always),
    Extension("SMTPUTF8", always, requires=("8BITMIME",)),  # RFC 6531 §3.1
    Extension("ENHANCEDSTATUSCODES", always),
    Extension("STARTTLS", lambda offer: _when(not offer.tls)),  # RFC 3207 §4.2: not inside TLS
    Extension("AUTH", lambda offer: " ".join(offer.auth) or None),
    Extension("CHUNKING", always),
    Extension("BINARYMIME", always, requires=("CHUNKING", "8BITMIME")),  # RFC 3030 §3
    Extension("LIMITS", _limits),
    Extension("DSN", always, opt_in=True),
    Extension("REQUIRETLS", lambda offer: _when(offer.tls), opt_in=True),  # RFC 8689 §2: inside TLS only
    Extension("MT-PRIORITY", always, opt_in=True),
    Extension("DELIVERBY", lambda offer: str(offer.min_deliver_by or ""), opt_in=True),
    Extension("FUTURERELEASE", _futurerelease, opt_in=True),
    Extension("XCLIENT", lambda offer: " ".join(offer.xclient) or None),
    Extension("XFORWARD", lambda offer: " ".join(offer.xforward) or None),
    Extension("VRFY", always),  # RFC 5321 §3.5.2: these two if the application answers them; VRFY may be listed,
    Extension("EXPN", always),  # EXPN must be
)
KNOWN_EXTENSIONS: Final = frozenset(row.keyword for row in EXTENSIONS)
OPT_IN_EXTENSIONS: Final = frozenset(row.keyword for row in EXTENSIONS if row.opt_in)


def resolve_extensions(
    *, enabled: Iterable[str] = (), disabled: Iterable[str] = (), extra: Iterable[Extension] = ()
) -> frozenset[str]:
    """The keywords in force for a configuration: the defaults and ``enabled``, without ``disabled``.

    An extension that requires one that is off is off as well: without 8BITMIME there is no SMTPUTF8.

    Args:
        enabled: names of opt-in extensions, in any case.
        disabled: names of extensions, in any case.
        extra: an application's own extensions.

    Raises:
        ValueError: a name is not that of an extension.
    """
    rows = (*EXTENSIONS, *extra)
    wanted, unwanted = ({name.upper() for name in names} for names in (enabled, disabled))
    unknown = (wanted | unwanted) - {row.keyword for row in rows}
    if unknown:
        raise ValueError(f"unknown extensions: {', '.join(sorted(unknown))}")
    in_force = {row.keyword for row in rows if row.keyword in wanted or not row.opt_in} - unwanted
    while True:
        orphans = {row.keyword for row in rows if row.keyword in in_force and not in_force.issuperset(row.requires)}
        if not orphans:
            return frozenset(in_force)
        in_force -= orphans


def server_keywords(in_force: Iterable[str], offer: Offer, extra: Iterable[Extension] = ()) -> list[str]:
    """The lines of an EHLO reply after the first: each keyword with its text.

    Args:
        in_force: the result of :func:`resolve_extensions`.
        offer: the facts that decide what is offered.
        extra: an application's own extensions.
    """
    names = frozenset(in_force)
    lines: list[str] = []
    for row in (*EXTENSIONS, *extra):
        if row.keyword in names:
            text = row.text(offer)
            if text is not None:
                lines.append(f"{row.keyword} {text}".rstrip())
    return lines
