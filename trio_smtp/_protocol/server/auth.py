# AUTH at a server (RFC 4954): when it may be used, which mechanisms there are, and one exchange of base64 lines
# around a SASL mechanism.
#
# Guarantee: nothing but the application's consent, to credentials that it has checked where there is something to
# check, authenticates a session. This file does not know lines or states; ServerProtocol moves.
from __future__ import annotations

from typing import TYPE_CHECKING

from ..replies import Reply
from ..sasl import (
    SERVER_MECHANISMS,
    Challenge,
    Credentials,
    MechanismContext,
    SASLError,
    ServerMechanism,
    UnverifiedError,
    decode_response,
    encode_challenge,
)
from .events import Authenticate
from .fixed_replies import AUTH_BAD_ENDING, AUTH_CANCELLED, AUTH_SUCCESS, HELLO_FIRST, TLS_FIRST, TOO_MANY_FAILURES
from .offences import Offences
from .rows import Taken
from .states import Occurrence

if TYPE_CHECKING:
    from .config import ServerConfig
    from .profile import ServerProfile
    from .protocol import ServerProtocol


class AuthExchange:
    """One AUTH command, from its argument to the last reply.

    Each step returns the reply to send, a 334 of which asks for another line, or the credentials to ask the
    application about.
    """

    __slots__ = ("_final", "_mechanism")

    def __init__(self, mechanism: ServerMechanism) -> None:
        self._mechanism = mechanism
        self._final: Reply | None = None  # waits until the client has answered the mechanism's last challenge

    def begin(self, argument: bytes | None) -> Reply | Credentials:
        """Take the initial response as it stood in the command, or ``None``."""
        try:
            initial = None if argument is None else decode_response(argument, initial=True)
            step = self._mechanism.start(initial)
        except SASLError as exc:
            return exc.reply
        return _challenge(step.data) if isinstance(step, Challenge) else step.credentials

    def receive_line(self, line: bytes) -> Reply | Credentials:
        """Take a line that answers a 334."""
        if self._final is not None:
            return self._end(line, self._final)
        if line == b"*":
            return AUTH_CANCELLED
        try:
            step = self._mechanism.respond(decode_response(line))
        except SASLError as exc:
            return exc.reply
        return _challenge(step.data) if isinstance(step, Challenge) else step.credentials

    def _end(self, line: bytes, final: Reply) -> Reply:
        try:
            ended_well = self._mechanism.closing_response(decode_response(line))
        except SASLError:
            ended_well = False
        return final if ended_well or not final.is_success else AUTH_BAD_ENDING

    def verdict(self, reply: Reply) -> Reply:
        """Take what the application says.

        Raises:
            UnverifiedError: it accepted what it cannot have verified.
        """
        last = self._mechanism.verdict(reply.is_success)
        if last is None:
            return reply
        self._final = reply
        return _challenge(last)


class Authentication:
    """AUTH in one session: what is offered, the exchange in progress, and whether one has succeeded.

    Args:
        offences: where failures are counted.
        external_identity: who the client's TLS certificate says it is, for EXTERNAL.

    Attributes:
        authenticated: an AUTH command has succeeded, or a trusted relay says that one has.
        external_identity: as above.
    """

    __slots__ = ("_exchange", "_offences", "authenticated", "external_identity")

    def __init__(self, offences: Offences, external_identity: str | None = None) -> None:
        self._offences = offences
        self._exchange: AuthExchange | None = None
        self.authenticated: bool = False
        self.external_identity: str | None = external_identity

    @property
    def in_progress(self) -> bool:
        """Whether an exchange has begun and not ended."""
        return self._exchange is not None

    def mechanisms(self, profile: ServerProfile, *, tls: bool) -> tuple[str, ...]:
        """What EHLO offers."""
        if "AUTH" not in profile.extensions or not (tls or profile.auth_in_clear):
            return ()
        if self.external_identity is None and "EXTERNAL" in profile.mechanisms:
            return tuple(name for name in profile.mechanisms if name != "EXTERNAL")
        return profile.mechanisms

    def begin(self, config: ServerConfig, mechanism: str, argument: bytes | None) -> Reply | Authenticate:
        """Start an exchange; the reply to give, or what to ask the application."""
        context = MechanismContext(
            hostname=config.hostname,
            secret=config.scram_secret,
            scram_iterations=config.scram_iterations,
            external_identity=self.external_identity,
        )
        self._exchange = AuthExchange(SERVER_MECHANISMS[mechanism](context))
        return self._step(self._exchange.begin(argument))

    def receive_line(self, line: bytes) -> Reply | Authenticate:
        """Go on with the exchange; likewise."""
        assert self._exchange is not None
        return self._step(self._exchange.receive_line(line))

    def _step(self, step: Reply | Credentials) -> Reply | Authenticate:
        if isinstance(step, Credentials):
            return Authenticate(step)
        return step if step.code == 334 else self.end(step)

    def verdict(self, reply: Reply) -> Reply:
        """Take what the application says of the credentials; the reply to give.

        Raises:
            UnverifiedError: it accepted what it cannot have verified; :meth:`end` with that error's reply.
        """
        assert self._exchange is not None
        if reply.is_success and reply.code != AUTH_SUCCESS.code:  # RFC 4954 §6: no other success ends the exchange
            reply = Reply(AUTH_SUCCESS.code, reply.lines, reply.enhanced or AUTH_SUCCESS.enhanced, close=reply.close)
        final = self._exchange.verdict(reply)
        return final if final.code == 334 else self.end(final)

    def end(self, reply: Reply) -> Reply:
        """End the exchange; the reply to give, which is another one after too many failures."""
        self._exchange = None
        if reply.is_success:
            self.authenticated = True
            return reply
        return TOO_MANY_FAILURES if self._offences.count_auth_failure() else reply

    def give_up(self) -> None:
        """End the exchange because of a line that cannot belong to it; no failure is counted."""
        self._exchange = None

    def forget(self, external_identity: str | None = None) -> None:
        """The session starts over, with a client certificate or without."""
        self.authenticated = False
        self.external_identity = external_identity

    def vouch(self, authenticated: bool) -> None:
        """A trusted relay says whether the client has authenticated itself to it."""
        self.authenticated = authenticated


def take_auth(protocol: ServerProtocol, argument: bytes) -> Taken:
    """``AUTH mechanism [initial-response]``"""
    auth, profile = protocol.auth, protocol.profile
    if auth.authenticated:
        return Reply(503, "already authenticated", "5.5.1")  # RFC 4954 §4
    if not protocol.esmtp:
        return HELLO_FIRST
    if not (protocol.tls or profile.auth_in_clear):
        if profile.config.allow_insecure_auth:
            return TLS_FIRST  # it is TLS that is required, not by AUTH
        return Reply(538, "encryption is required for authentication", "5.7.11")  # RFC 4954 §6
    words = argument.split()
    if not 1 <= len(words) <= 2:
        return Reply(501, "syntax: AUTH mechanism [initial-response]", "5.5.4")
    name = words[0].upper().decode("ascii", "replace")
    if name not in auth.mechanisms(profile, tls=protocol.tls):
        return Reply(504, "unrecognized authentication type", "5.5.4")
    return auth.begin(profile.config, name, words[1] if len(words) == 2 else None)


def answer_auth(protocol: ServerProtocol, event: Authenticate, reply: Reply) -> None:
    """Tell the exchange what the application says of the credentials.

    Raises:
        UnverifiedError: it accepted what it cannot have verified; the client has been refused.
    """
    try:
        say(protocol, protocol.auth.verdict(reply))
    except UnverifiedError as exc:
        say(protocol, protocol.auth.end(exc.reply))
        raise


def say(protocol: ServerProtocol, reply: Reply) -> None:
    """Give a reply of the exchange: a 334, after which a line of it is read, or its last one."""
    if protocol.auth.in_progress:
        protocol.move(Occurrence.CHALLENGE)
        protocol.queue.demand_flush()
    else:
        protocol.move(Occurrence.EXCHANGE_END)
    protocol.reply(reply)


def _challenge(data: bytes) -> Reply:
    return Reply(334, encode_challenge(data).decode("ascii"))
