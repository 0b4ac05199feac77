# The parameters of MAIL and RCPT that an entry keeps for the next server, and those that it may go without.
#
# What describes the message or says how it is to be treated goes along. SIZE and BODY=8BITMIME are found out again from
# the content; AUTH is for a server that trusts this one (RFC 4954 §5). A hold is this queue's to observe.
from __future__ import annotations

from typing import Any, Final

from trio_smtp import Params, Recipient, Reject, Sender

_ALONG: Final[tuple[str, ...]] = ("SMTPUTF8", "REQUIRETLS", "RET", "ENVID", "MT-PRIORITY")
# Left out where the next server does not offer them: that loses reports or haste, and no mail (RFC 3461 §5.2.2; RFC
# 6710 §5).
_OPTIONAL: Final = frozenset({"RET", "ENVID", "NOTIFY", "ORCPT", "MT-PRIORITY"})


def mail_params(sender: Sender) -> dict[str, str | None] | None:
    """Of what a client said with MAIL, what the next server must be told; ``None`` for nothing.

    Raises:
        Reject: it asks for what a queue cannot keep.
    """
    if sender.deliver_by is not None:
        raise Reject(555, "BY cannot be kept here", "5.5.4")
    kept: dict[str, str | None] = {keyword: sender.params[keyword] for keyword in _ALONG if keyword in sender.params}
    if sender.smtputf8:
        kept["SMTPUTF8"] = None
    if sender.body == "BINARYMIME":  # the text is not made of lines, and goes as it is or not at all
        kept["BODY"] = sender.body
    return kept or None


def rcpt_params(recipients: list[Recipient]) -> dict[str, dict[str, str | None]] | None:
    """The same of RCPT, by recipient; of one that was named twice, what was said first."""
    kept = {recipient.address: dict(recipient.params) for recipient in reversed(recipients)}
    return {address: params for address, params in kept.items() if params} or None


def has_optional(*params: Params | None) -> bool:
    """Whether some of these parameters may be left out."""
    return any(keyword.upper() in _OPTIONAL for each in params if each for keyword in each)


def without_optional(params: Params | None) -> dict[str, Any] | None:
    """The parameters without those that may be left out."""
    if params is None:
        return None
    return {keyword: value for keyword, value in params.items() if keyword.upper() not in _OPTIONAL} or None
