# The commands of a server: the one table that says of each what it is called, where it is allowed, what it does and
# where it leads, and the functions of the simple ones. Those of messages, AUTH and relays are in files of their own.
#
# Adding a command is adding a row and its function. All else is made from the table: what each state allows, HELP, the
# verbs that a ServerExtension may not take, docs/supported.md (by its test) and the diagrams of docs/architecture.md.
from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable
from typing import TYPE_CHECKING, Final

from ..parameters import parse_mail, parse_rcpt
from ..replies import Reply
from . import fixed_replies as replies
from .auth import answer_auth, take_auth
from .events import Authenticate, Data, Expand, Extra, Hello, Mail, Rcpt, StartTLS, Verify, XClient
from .protocol import ServerProtocol
from .relay import start_over, take_xclient, take_xforward
from .rows import CommandRow, Junk, Taken
from .states import COMMAND_STATES, State
from .transactions import add_recipient, begin_transaction
from .transfer import refuse_bdat, refuse_message, take_bdat, take_data

if TYPE_CHECKING:
    from .config import ServerConfig

GREETED, READY, MAIL, RCPT, CHUNKING = COMMAND_STATES
_HELLO_NAME = re.compile(rb"[\x21-\x7e]{1,255}")


# ---- the session


def take_hello(protocol: ServerProtocol, argument: bytes) -> Taken:
    """``EHLO name``, ``HELO name`` or ``LHLO name``"""
    verb = protocol.step.row.verb
    name = argument.strip(b" ")
    if _HELLO_NAME.fullmatch(name) is None:
        return Reply(501, f"syntax: {verb} hostname", "5.5.4")
    if protocol.profile.judges_hello and protocol.transfer.is_being_read:
        # A refused EHLO changes nothing (RFC 5321 §4.1.4), but whether it is one cannot be asked while the
        # application is busy with the message, and once that is given up, it is too late.
        return replies.NESTED
    return Hello(verb, name.decode("ascii"))


def greet_client(protocol: ServerProtocol, event: Hello, reply: Reply) -> Reply:
    """EHLO was accepted: say what is on offer."""
    protocol.introduce(event.name, esmtp=event.verb != "HELO")
    lines = None if reply is replies.HELLO_ACCEPTED else reply.lines
    mechanisms = protocol.auth.mechanisms(protocol.profile, tls=protocol.tls)
    offer = protocol.profile.hello_reply(lines, protocol.esmtp, protocol.tls, mechanisms, protocol.relay.trusted)
    return Reply(offer.code, offer.lines, close=True) if reply.close else offer


def take_starttls(protocol: ServerProtocol, argument: bytes) -> Taken:
    """``STARTTLS``"""
    if argument.strip():
        return Reply(501, "STARTTLS takes no argument", "5.5.4")
    if protocol.tls:
        return Reply(503, "TLS is active already", "5.5.1")
    if protocol.input:  # CVE-2011-0411: what came before the handshake must not be read as if it came inside
        return Reply(554, "nothing may follow STARTTLS", "5.5.1", close=True)
    return StartTLS()


def forget_transaction(protocol: ServerProtocol, event: StartTLS | None, reply: Reply) -> Reply:
    """STARTTLS was accepted, or RSET was taken."""
    protocol.end_transaction(accepted=False)
    return reply


def take_quit(protocol: ServerProtocol, argument: bytes) -> Taken:
    """``QUIT``"""
    return protocol.profile.farewell


# ---- the envelope


def take_mail(protocol: ServerProtocol, argument: bytes) -> Taken:
    """``MAIL FROM:<address> [parameters]``"""
    config = protocol.profile.config
    if config.auth == "required" and not protocol.auth.authenticated:
        return replies.AUTH_FIRST
    if config.max_messages is not None and protocol.transactions.count >= config.max_messages:
        return replies.TOO_MANY_MESSAGES
    sender = parse_mail(argument, protocol.rules.parameters)
    if sender.unreadable:
        protocol.note_unreadable(sender.unreadable)
    return Mail(sender)


def take_rcpt(protocol: ServerProtocol, argument: bytes) -> Taken:
    """``RCPT TO:<address> [parameters]``"""
    transaction = protocol.transactions
    limit = protocol.profile.config.max_recipients
    if limit is not None and len(transaction.addressees) >= limit:
        return replies.TOO_MANY_RECIPIENTS
    recipient = parse_rcpt(argument, protocol.rules.parameters, smtputf8=transaction.utf8)
    if recipient.unreadable:
        protocol.note_unreadable(recipient.unreadable)
    return Rcpt(recipient)


def take_rset(protocol: ServerProtocol, argument: bytes) -> Taken:
    """``RSET``"""
    if argument.strip():
        return Reply(501, "RSET takes no argument", "5.5.4")
    return replies.OK


# ---- those that change nothing


def take_noop(protocol: ServerProtocol, argument: bytes) -> Taken:
    """``NOOP [anything]``"""
    return replies.OK


def take_help(protocol: ServerProtocol, argument: bytes) -> Taken:
    """``HELP [anything]``"""
    verbs = sorted(verb.decode() for verb in protocol.profile.commands)
    return Reply(214, "commands: " + " ".join(verbs), "2.0.0")


def take_lookup(protocol: ServerProtocol, argument: bytes) -> Taken:
    """``VRFY address [SMTPUTF8]`` or ``EXPN address [SMTPUTF8]``"""
    row = protocol.step.row
    address, _, parameter = argument.strip().rpartition(b" ")
    smtputf8 = bool(address) and parameter.upper() == b"SMTPUTF8" and "SMTPUTF8" in protocol.profile.extensions
    try:
        text = (address if smtputf8 else argument).decode("utf-8").strip()
    except UnicodeDecodeError:
        text = ""
    if not text:
        return Reply(501, f"syntax: {row.verb} address", "5.5.4")
    if not smtputf8 and not text.isascii():
        return replies.UTF8_LOOKUP
    if protocol.transfer.message is not None:  # between chunks the application is busy with the message
        return replies.CANNOT_VERIFY
    return Expand(text, smtputf8) if row.event is Expand else Verify(text, smtputf8)


def answer_lookup(protocol: ServerProtocol, event: Verify | Expand, reply: Reply) -> None:
    """Give the application's reply, which may be UTF-8 where the client has asked for that."""
    protocol.reply(reply, utf8=True if event.smtputf8 else None)


def take_extra(protocol: ServerProtocol, argument: bytes) -> Taken:
    """A command of a ServerExtension"""
    if protocol.transfer.message is not None:  # between chunks the application is busy with the message
        return replies.NOT_NOW
    try:
        return Extra(protocol.step.row.verb, argument.decode("utf-8").strip())
    except UnicodeDecodeError:
        return Reply(501, "the argument is not UTF-8", "5.5.2")


# ---- the table


def _speaks_ehlo(config: ServerConfig) -> bool:
    return config.enable_ehlo and not config.lmtp


def _speaks_smtp(config: ServerConfig) -> bool:
    return not config.lmtp


def _speaks_lmtp(config: ServerConfig) -> bool:
    return config.lmtp


_ANYWHERE: Final = frozenset(COMMAND_STATES)
_BETWEEN_TRANSACTIONS: Final = frozenset((GREETED, READY))
_NOT_IN_TRANSACTION: Final = dict.fromkeys((MAIL, RCPT, CHUNKING), replies.NOT_NOW)


def _hello(verb: str, offered_if: Callable[[ServerConfig], bool]) -> CommandRow:
    return CommandRow(
        verb=verb,
        offered_if=offered_if,
        allowed_in=_ANYWHERE,
        take=take_hello,
        event=Hello,
        on_success=greet_client,
        next_state=READY,
        default_reply=replies.HELLO_ACCEPTED,
        success_enhanced=False,  # RFC 2034 §4
        junk=Junk.AGAIN,
        ends_group=True,
        aborts_message=True,
    )


def extra_row(verb: str) -> CommandRow:
    """The row of a command that an application brings."""
    return CommandRow(
        verb=verb,
        needs_tls=True,
        allowed_in=_ANYWHERE,
        take=take_extra,
        event=Extra,
        default_reply=replies.OK,
        ends_group=True,
    )


COMMANDS: Final = (
    _hello("EHLO", _speaks_ehlo),
    _hello("HELO", _speaks_smtp),
    _hello("LHLO", _speaks_lmtp),
    CommandRow(
        verb="STARTTLS",
        keyword="STARTTLS",
        allowed_in=_ANYWHERE,
        take=take_starttls,
        event=StartTLS,
        on_success=forget_transaction,
        next_state=GREETED,
        default_reply=Reply(220, "ready to start TLS"),
        success_enhanced=False,  # RFC 2034 §4
        aborts_message=True,
    ),
    CommandRow(
        verb="AUTH",
        keyword="AUTH",
        allowed_in=frozenset((READY,)),
        misplaced={GREETED: replies.HELLO_FIRST, **_NOT_IN_TRANSACTION, CHUNKING: replies.NESTED},
        take=take_auth,
        event=Authenticate,
        on_success=answer_auth,
        on_refusal=answer_auth,
        next_state=State.AUTH,
        default_reply=replies.AUTH_SUCCESS,
        ends_group=True,  # the client's next line may answer a 334
    ),
    CommandRow(
        verb="MAIL",
        needs_tls=True,
        allowed_in=frozenset((READY,)),
        misplaced={GREETED: replies.HELLO_FIRST, **dict.fromkeys((MAIL, RCPT, CHUNKING), replies.NESTED)},
        take=take_mail,
        event=Mail,
        on_success=begin_transaction,
        next_state=MAIL,
        default_reply=Reply(250, "OK", "2.1.0"),
    ),
    CommandRow(
        verb="RCPT",
        needs_tls=True,
        allowed_in=frozenset((MAIL, RCPT)),
        misplaced={GREETED: replies.HELLO_FIRST, READY: replies.MAIL_FIRST, CHUNKING: replies.NESTED},
        take=take_rcpt,
        event=Rcpt,
        on_success=add_recipient,
        next_state=RCPT,
        default_reply=Reply(250, "OK", "2.1.5"),
    ),
    CommandRow(
        verb="DATA",
        needs_tls=True,
        allowed_in=frozenset((RCPT,)),
        misplaced={
            GREETED: replies.HELLO_FIRST,
            READY: replies.MAIL_FIRST,
            MAIL: replies.RCPT_FIRST,
            CHUNKING: replies.NESTED,
        },
        take=take_data,
        event=Data,
        on_refusal=refuse_message,
        next_state=State.BODY,
        default_reply=Reply(354, "end data with <CR><LF>.<CR><LF>"),
    ),
    CommandRow(
        verb="BDAT",
        keyword="CHUNKING",
        needs_tls=True,
        allowed_in=frozenset((RCPT, CHUNKING)),
        misplaced={GREETED: replies.HELLO_FIRST, READY: replies.MAIL_FIRST, MAIL: replies.RCPT_FIRST},
        take=take_bdat,
        refuse=refuse_bdat,
        event=Data,
        next_state=State.BODY,  # without a reply: each chunk gets one at its end
    ),
    CommandRow(
        verb="RSET",
        allowed_in=_ANYWHERE,
        take=take_rset,
        on_success=forget_transaction,
        next_state={**dict.fromkeys(COMMAND_STATES, READY), GREETED: GREETED},
        junk=Junk.ALWAYS,
        aborts_message=True,
    ),
    CommandRow(verb="NOOP", allowed_in=_ANYWHERE, take=take_noop, junk=Junk.ALWAYS, ends_group=True),
    CommandRow(
        verb="QUIT",
        allowed_in=_ANYWHERE,
        take=take_quit,
        on_success=ServerProtocol.say_goodbye,
        next_state=State.CLOSED,
        aborts_message=True,
    ),
    CommandRow(verb="HELP", allowed_in=_ANYWHERE, take=take_help, junk=Junk.ALWAYS),
    CommandRow(
        verb="VRFY",  # always there (RFC 5321 §4.5.1)
        needs_tls=True,
        allowed_in=_ANYWHERE,
        take=take_lookup,
        event=Verify,
        on_success=answer_lookup,
        on_refusal=answer_lookup,
        default_reply=replies.CANNOT_VERIFY,
        junk=Junk.ALWAYS,
        ends_group=True,
    ),
    CommandRow(
        verb="EXPN",
        keyword="EXPN",
        needs_tls=True,
        allowed_in=_ANYWHERE,
        take=take_lookup,
        event=Expand,
        on_success=answer_lookup,
        on_refusal=answer_lookup,
        default_reply=replies.CANNOT_EXPAND,
        junk=Junk.ALWAYS,
        ends_group=True,
    ),
    CommandRow(
        verb="XCLIENT",
        keyword="XCLIENT",
        allowed_in=_BETWEEN_TRANSACTIONS,
        misplaced=_NOT_IN_TRANSACTION,  # XCLIENT_README: 503 mail transaction in progress
        take=take_xclient,
        event=XClient,
        on_success=start_over,
        next_state=State.CONNECTED,
        default_reply=replies.OK,
        ends_group=True,
    ),
    CommandRow(
        verb="XFORWARD",
        keyword="XFORWARD",
        allowed_in=_BETWEEN_TRANSACTIONS,
        misplaced=_NOT_IN_TRANSACTION,
        take=take_xforward,
    ),
)
VERBS: Final = frozenset(row.verb for row in COMMANDS)

# ---- verbs that are not in it

UNIMPLEMENTED: Final = frozenset((b"EXPN", b"ETRN", b"ATRN", b"TURN", b"SEND", b"SOML", b"SAML", b"BURL"))
# Browsers and forged requests speak to SMTP servers (ALPACA): the first word gives them away, and the end is at once.
# So does a proxy that is not in proxy_protocol_from: nothing that follows its header can be believed.
FOREIGN: Final = frozenset(b"PROXY GET POST PUT HEAD CONNECT OPTIONS DELETE PATCH TRACE HOST: USER-AGENT:".split())


def refuse_unknown(verb: bytes, *, lmtp: bool) -> Reply:
    """The reply to a command that is not there, or not now."""
    if verb in FOREIGN:
        return replies.FOREIGN_PROTOCOL
    if verb[:1] == b"\x16":
        return replies.TLS_UNEXPECTED
    if verb in UNIMPLEMENTED or (verb == b"EHLO" and not lmtp):  # RFC 2033 §4.1: EHLO is 500
        return replies.NOT_IMPLEMENTED
    return replies.UNKNOWN


def commands_of(config: ServerConfig, extensions: Container[str], extra: Iterable[str]) -> dict[bytes, CommandRow]:
    """The commands that a server has at all; one that is switched off is unknown, not refused.

    Args:
        config: the server's.
        extensions: the EHLO keywords in force.
        extra: verbs of the application's own extensions.
    """
    rows = [row for row in COMMANDS if row.offered_if(config) and (row.keyword is None or row.keyword in extensions)]
    return {row.verb.encode(): row for row in (*map(extra_row, extra), *rows)}
