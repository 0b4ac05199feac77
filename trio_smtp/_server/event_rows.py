# What each event of the protocol asks the application, and what the answer does: the one table of it.
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final

from .._protocol.envelope import Envelope
from .._protocol.errors import ConnectionLostError
from .._protocol.replies import Reply
from .._protocol.sasl import UnverifiedError
from .._protocol.server.events import (
    Authenticate,
    Command,
    Data,
    Expand,
    Extra,
    Hello,
    Mail,
    Rcpt,
    Verify,
)
from .._protocol.server.fixed_replies import AUTH_REFUSED, TOO_MANY_FAILURES_OF_HOST
from .._protocol.server.message import Verdict
from .handler_check import Hook, Hooks
from .hooks import HookCaller
from .log import log_error
from .outcomes import login_outcome, message_outcome, reply_or_none


@dataclass(frozen=True, slots=True)
class EventRow:
    """What to ask the application about one type of event.

    Attributes:
        name: of the hook.
        arguments: for the hook, after the session.
        convert: what the hook has returned, checked, as `conclude` takes it; an outcome that is none is an error.
        conclude: tells the protocol that, or the :class:`Reply` of a hook that has refused or failed.
        hook: the handler's own.
        refusal: the reply that makes asking needless, or ``None``.
        sends_first: no reply may be waiting while the hook runs.
    """

    name: str
    arguments: Callable[[HookCaller, Any], tuple[object, ...]]
    convert: Callable[[HookCaller, Any], Any]
    conclude: Callable[[HookCaller, Any, Any], None]
    hook: Hook | None = None
    refusal: Callable[[HookCaller], Reply | None] | None = None
    sends_first: bool = False


def rows_of(hooks: Hooks) -> Mapping[type, EventRow | None]:
    """EVENTS for one handler: each row with its hook, ``None`` where an event without a hook is accepted at once."""
    rows: dict[type, EventRow | None] = {}
    for event, row in EVENTS.items():
        hook = getattr(hooks, row.name)
        rows[event] = replace(row, hook=hook) if hook is not None else None
    return MappingProxyType(rows)


# ---- what a hook has returned


def command_outcome(caller: HookCaller, result: object) -> Reply | None:
    """``None`` accepts; a reply is sent."""
    return None if result is None else reply_or_none(result)


def _recipient_outcome(caller: HookCaller, result: object) -> Reply | None:
    """As of any command, if the envelope, which is the application's to change, can take the recipient."""
    envelope = caller.channel.protocol.transactions.envelope
    if envelope is not None and envelope.recipients.__class__ is not list:
        given: object = envelope.recipients
        if not isinstance(given, Iterable):
            raise TypeError(f"the recipients of the envelope must be a list, not {given!r:.80}")
        envelope.recipients = list(given)
    return None if result is None else reply_or_none(result)


def _verdict(caller: HookCaller, result: object) -> Verdict:
    """``None`` and a queue id accept the message; a mapping is an LMTP outcome for each address."""
    if caller.context.config.lmtp and isinstance(result, Mapping):  # RFC 2033 §4.2
        return {address: caller.convert(message_outcome, each) for address, each in list(result.items())}
    return message_outcome(result)


def _login(caller: HookCaller, result: object) -> object:
    """A reply, ``True`` or the client's identity; ``None`` refuses it."""
    if isinstance(result, Reply):
        return reply_or_none(result)
    return result if login_outcome(result) else None


# ---- how to conclude


def conclude_command(caller: HookCaller, event: Command, reply: Reply | None) -> None:
    """``None`` accepts; a reply is sent."""
    if reply is None:
        caller.channel.protocol.accept()
    else:
        caller.channel.protocol.answer(reply)


def conclude_mail(caller: HookCaller, event: Mail, reply: Reply | None) -> None:
    """As any command; a success that closes the connection both begins a transaction and ends it."""
    if reply is None:
        caller.channel.protocol.accept()
        return
    if reply.close and reply.is_success:
        caller.begin_transaction(Envelope(event.sender))
    caller.channel.protocol.answer(reply)


def conclude_message(caller: HookCaller, event: Data, verdict: Verdict) -> None:
    """The verdict is given if the message could be had whole.

    Raises:
        Exception: what has cut the message off, and ends the session.
    """
    assert caller.body is not None
    error = caller.body._detach()
    protocol = caller.channel.protocol
    if error is not None and isinstance(error, ConnectionLostError) and not protocol.is_closed:
        raise error.__cause__ or error
    protocol.conclude(verdict)


def conclude_auth(caller: HookCaller, event: Authenticate, outcome: object) -> None:
    """``True`` and a 2xx reply stand for the user name."""
    reply = outcome if isinstance(outcome, Reply) else None
    if reply is None:
        identity = event.credentials.username if outcome is True else outcome
    else:
        identity = event.credentials.username if reply.is_success else None
    protocol = caller.channel.protocol
    caller.session._authenticate(identity)
    try:
        if reply is not None:
            protocol.answer(reply)
        elif identity is not None:
            protocol.accept()
        else:
            protocol.answer(AUTH_REFUSED)
    except UnverifiedError as exc:
        log_error(caller.session, str(exc))
        return
    if identity is not None:
        caller.context.auth_failures.forget(caller.session.host)
    elif reply is None or reply.is_permanent:
        _count_auth_failure(caller)


def _count_auth_failure(caller: HookCaller) -> None:
    failures = caller.context.auth_failures.add(caller.session.host, caller.channel.now())
    if failures and not caller.channel.protocol.is_closed:
        caller.channel.protocol.offences.penalize(failures - 1)


# ---- what to ask


def _refuse_auth(caller: HookCaller) -> Reply | None:
    """A host that has failed too often is not asked about."""
    reached = caller.context.auth_failures.is_reached(caller.session.host, caller.channel.now())
    return TOO_MANY_FAILURES_OF_HOST if reached else None


EVENTS: Final[Mapping[type, EventRow]] = MappingProxyType(
    {
        Hello: EventRow("on_hello", lambda caller, event: (event.name,), command_outcome, conclude_command),
        Mail: EventRow("on_mail", lambda caller, event: (event.sender,), command_outcome, conclude_mail),
        Rcpt: EventRow("on_rcpt", lambda caller, event: (event.recipient,), _recipient_outcome, conclude_command),
        Verify: EventRow("on_vrfy", lambda caller, event: (event.argument,), command_outcome, conclude_command),
        Expand: EventRow("on_expn", lambda caller, event: (event.argument,), command_outcome, conclude_command),
        Extra: EventRow(
            "on_command", lambda caller, event: (event.verb, event.argument), command_outcome, conclude_command
        ),
        Authenticate: EventRow(
            "on_auth", lambda caller, event: (event.credentials,), _login, conclude_auth, refusal=_refuse_auth
        ),
        Data: EventRow(
            "on_data",
            HookCaller.announce_message,
            _verdict,
            conclude_message,
            sends_first=True,
        ),
    }
)
