# A message to be sent: sender, recipients, content and parameters, as the caller gave them and checked.
#
# Guarantee: it is checked when it is made, so that a caller's mistake costs no connection and no octet; and it never
# changes, so that it can be tried again on any connection. What has become of it is in report.py.
from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final, TypeAlias

from .._observer import Observer
from .._protocol.addresses import check_address, needs_smtputf8
from .._protocol.checks import check_kind
from .._protocol.errors import Delivery, LocalProtocolError
from .._protocol.parameter_text import format_params
from .content import Content, ContentLike, Octets, as_content
from .signing import Signing

Params: TypeAlias = Mapping[str, str | int | None]
"""Parameters of MAIL or RCPT, keyword to value; ``None`` for a keyword without a value."""
BeforeEnd: TypeAlias = Callable[[], Awaitable[object]]
Transcript: TypeAlias = Callable[[str], None]


class Message:
    """A message and its envelope; immutable.

    Attributes:
        sender: the reverse path, checked.
        recipients: address as the caller wrote it, which is the key of every result, to the checked address.
        content: the text, below its signature if there is one.
        mail_params: parameters of MAIL by keyword in upper case, ``None`` for none.
        rcpt_params: parameters of RCPT by recipient, ``None`` for none.
        is_ascii: every address is ASCII, and goes out as it is.
        needs_utf8: the server must offer SMTPUTF8.
        is_binary: the text goes out as it is, with ``BODY=BINARYMIME``.
        before_end: the caller's, to be awaited before the end of the message is sent, ``None`` for none.
        transcript: told of each line of what is said about the message, ``None`` if nobody wants to know.
        at_hand: sending it waits for nothing but the server.

    Raises:
        TypeError: `recipients` is a str, or an address is not; the parameters are no mapping; `content` cannot be
            sent, `before_end` or `transcript` cannot be called.
        LocalProtocolError: an address or a parameter cannot be sent, there is no recipient, or what is to be signed
            cannot be.
    """

    __slots__ = (
        "at_hand",
        "before_end",
        "content",
        "is_ascii",
        "is_binary",
        "mail_params",
        "needs_utf8",
        "rcpt_params",
        "recipients",
        "sender",
        "transcript",
    )

    def __init__(
        self,
        sender: str,
        recipients: Iterable[str],
        content: ContentLike,
        mail_params: Params | None = None,
        rcpt_params: Mapping[str, Params] | None = None,
        before_end: BeforeEnd | None = None,
        signing: Signing | None = None,
        transcript: Transcript | None = None,
    ) -> None:
        if isinstance(recipients, str | bytes):
            raise TypeError("recipients is an iterable of addresses, not one address")
        if before_end is not None and not callable(before_end):
            raise TypeError(f"before_end is an async function, not {before_end!r}")
        if transcript is not None and not callable(transcript):
            raise TypeError(f"transcript is a function, not {transcript!r}")
        try:
            self.sender: Final = check_address(sender, null=True)
            # A recipient given twice is sent once.
            self.recipients: Final = {written: check_address(written, postmaster=True) for written in recipients}
        except TypeError:
            _check_parties(sender, recipients)
            raise
        if not self.recipients:
            raise LocalProtocolError("there are no recipients", delivery=Delivery.NOT_SENT)
        if mail_params is not None:
            check_kind("mail_params", mail_params, Mapping)
            format_params(mail_params, smtputf8=True)  # what all of it needs is known below
        self.mail_params: Final = {name.upper(): value for name, value in mail_params.items()} if mail_params else None
        self.rcpt_params: Final = None if rcpt_params is None else _checked_params(self.recipients, rcpt_params)
        given: Content = Octets(content) if isinstance(content, bytes) else as_content(content)
        self.is_binary: Final = (
            self.mail_params is not None and str(self.mail_params.get("BODY")).upper() == "BINARYMIME"
        )
        self.content: Final[Content] = given if signing is None else signing.cover(given, is_binary=self.is_binary)
        self.before_end: Final = before_end
        self.transcript: Final = None if transcript is None else Observer(transcript, "client", "transcript function")
        self.at_hand: Final = self.content.at_hand and before_end is None
        self.is_ascii: Final = self.sender.isascii() and all(map(str.isascii, self.recipients.values()))
        self.needs_utf8: Final = (
            self.content.needs_utf8
            or (not self.is_ascii and any(map(needs_smtputf8, (self.sender, *self.recipients.values()))))
            or (self.mail_params is not None and "SMTPUTF8" in self.mail_params)
        )
        if mail_params:
            format_params(mail_params, smtputf8=self.needs_utf8)

    def __repr__(self) -> str:
        return f"<Message from {self.sender!r} to {len(self.recipients)}>"


def _check_parties(sender: object, recipients: object) -> None:
    """Raise the TypeError for the one of them that is of the wrong type, if it is not a single recipient."""
    check_kind("sender", sender, str)
    if not isinstance(recipients, Iterable):
        raise TypeError(f"recipients is an iterable of addresses, not {recipients!r:.80}")


def _checked_params(
    recipients: Mapping[str, str], params: Mapping[str, Params]
) -> dict[str, dict[str, str | int | None]] | None:
    check_kind("rcpt_params", params, Mapping)
    strangers = [written for written in params if written not in recipients]
    if strangers:
        raise LocalProtocolError(
            f"rcpt_params names {strangers[0]!r}, which is no recipient", delivery=Delivery.NOT_SENT
        )
    for written in params:
        check_kind(f"rcpt_params[{written!r}]", params[written], Mapping)
        format_params(params[written], smtputf8=True)
    return {written: dict(params[written]) for written in params} or None
