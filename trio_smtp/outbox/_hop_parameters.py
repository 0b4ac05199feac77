# The parameters of MAIL and RCPT that an entry keeps for the next server, and those that it may go without.
#
# What describes the message or says how it is to be treated goes along. SIZE and BODY=8BITMIME are found out again from
# the content; AUTH is for a server that trusts this one (RFC 4954 §5). A hold is this queue's to observe.
from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from trio_smtp import Envelope, Params, Recipient, Reject, Sender

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


def optional(sender: str) -> frozenset[str]:
    """The keywords of parameters that a message of this sender may go without.

    A message from the null sender is not given up for REQUIRETLS (RFC 8689 section 5).
    """
    return _OPTIONAL if sender else _OPTIONAL | {"REQUIRETLS"}


def has_any(keywords: frozenset[str], *params: Params | None) -> bool:
    """Whether some of these parameters have such a keyword."""
    return any(keyword.upper() in keywords for each in params if each for keyword in each)


def without(keywords: frozenset[str], params: Params | None) -> dict[str, Any] | None:
    """The parameters without those; ``None`` for none."""
    return {keyword: value for keyword, value in (params or {}).items() if keyword.upper() not in keywords} or None


def envelope(
    sender: str, recipients: Iterable[str], of_mail: Params | None, of_rcpt: Mapping[str, Params] | None
) -> Envelope:
    """The envelope of an entry, with what its sender asked for by DSN, decoded."""
    mail = _by_keyword(of_mail)
    author = Sender(sender)
    author.ret = "HDRS" if "REQUIRETLS" in mail else (mail.get("RET") or "").upper() or None  # RFC 8689 §5
    author.envid = _decoded(mail["ENVID"]) if mail.get("ENVID") else None
    author.requiretls = "REQUIRETLS" in mail
    author.smtputf8 = "SMTPUTF8" in mail or not sender.isascii()
    parties = []
    for address in recipients:
        rcpt = _by_keyword((of_rcpt or {}).get(address))
        party = Recipient(address)
        party.notify = frozenset(rcpt["NOTIFY"].upper().split(",")) if rcpt.get("NOTIFY") else None
        kind, semicolon, original = rcpt.get("ORCPT", "").partition(";")
        if semicolon:
            party.orcpt = kind.lower(), _decoded(original)
        parties.append(party)
    return Envelope(author, parties)


def _by_keyword(params: Params | None) -> dict[str, str]:
    return {keyword.upper(): "" if value is None else str(value) for keyword, value in (params or {}).items()}


def _decoded(value: str) -> str:
    """xtext (RFC 3461 section 4), and utf-8-addr-xtext (RFC 6533 section 3); what is neither stays as it is."""
    octets = re.sub(rb"\+([0-9A-F]{2})", lambda found: bytes.fromhex(found[1].decode()), value.encode())
    text = octets.decode("utf-8", "replace")
    return re.sub(r"\\x\{(10[0-9A-F]{4}|[0-9A-F]{2,5})\}", lambda found: chr(int(found[1], 16)), text)
