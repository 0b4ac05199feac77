# The server's side of SASL: one object per exchange, octets in, a challenge or credentials out.
#
# A mechanism is a generator: it yields challenges, is sent responses, and returns the credentials for the application
# to check. The order of its lines is the order of messages. The caller does base64, "*" and line limits; nothing here
# knows sessions.
#
#   step = mechanism.start(initial_response)
#   while isinstance(step, Challenge):  334, read a line;  step = mechanism.respond(response)
#   accepted = on_auth(step.credentials)
#   last = mechanism.verdict(accepted)
#   if last is not None:                334, read a line;  mechanism.closing_response(response)
#   235 or 535
from __future__ import annotations

import re
import secrets
from abc import ABC, abstractmethod
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import ClassVar, Final, TypeAlias

from ..replies import Reply
from .credentials import CramDigest, Credentials, UnverifiedError
from .scram import MAX_ITERATIONS, MIN_ITERATIONS
from .wire import REFUSED, SASLError, identity_field, malformed, password_field, username_field

MIN_SECRET: Final = 16  # octets, of the key for SCRAM's salts

Exchange: TypeAlias = Generator[bytes, bytes, Credentials]


@dataclass(frozen=True, slots=True)
class Challenge:
    """Send 334 with these octets (in base64), read a line, pass it to ``respond``."""

    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class CredentialsReady:
    """The client has sent all that it must: ask the application, then call ``verdict``."""

    credentials: Credentials


Step: TypeAlias = Challenge | CredentialsReady


@dataclass(frozen=True, slots=True, kw_only=True)
class MechanismContext:
    """What mechanisms need to know about their server and connection.

    Args:
        hostname: the server's name, for CRAM-MD5's challenge.
        secret: the key for SCRAM's salts. It should outlive the connection, since clients cache what they derive from
            a salt. Processes that serve the same name should share it.
        scram_iterations: the count that SCRAM announces. Each check costs both ends this many iterations.
        external_identity: the identity in the client's verified TLS certificate; ``None`` without one.
    """

    hostname: str = "localhost"
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)
    scram_iterations: int = MIN_ITERATIONS
    external_identity: str | None = None

    def __post_init__(self) -> None:
        if not MIN_ITERATIONS <= self.scram_iterations <= MAX_ITERATIONS:
            raise ValueError(f"scram_iterations must be {MIN_ITERATIONS} to {MAX_ITERATIONS}")
        if len(self.secret) < MIN_SECRET:
            raise ValueError(f"the secret must have at least {MIN_SECRET} octets")


class ServerMechanism(ABC):
    """One exchange of one mechanism, used once.

    Attributes:
        name: the mechanism's name.
        context: as given.
    """

    name: str
    context: MechanismContext

    def __init__(self, context: MechanismContext) -> None:
        self.context = context
        self._running: Exchange | None = None
        self._credentials: Credentials | None = None

    def __repr__(self) -> str:
        state = "new" if self._running is None else "in progress" if self._credentials is None else "credentials ready"
        return f"<{type(self).__name__} {state}>"

    @abstractmethod
    def _exchange(self, initial_response: bytes | None) -> Exchange:
        """Yield challenges, take responses, return credentials. SASLError ends the exchange."""

    def start(self, initial_response: bytes | None) -> Step:
        """Start the exchange.

        Args:
            initial_response: the decoded argument of AUTH, or ``None`` if it had none.

        Raises:
            SASLError: the exchange is over; answer with its ``reply``.
        """
        if self._running is not None:
            raise RuntimeError(f"this {self.name} exchange has already started")
        self._running = self._exchange(initial_response)
        return self._advance(None)

    def respond(self, response: bytes) -> Step:
        """Continue with the client's decoded answer to the last challenge.

        Raises:
            SASLError: the exchange is over; answer with its ``reply``.
        """
        if self._running is None or self._credentials is not None:
            raise RuntimeError(f"this {self.name} exchange does not expect a response")
        return self._advance(response)

    def _advance(self, response: bytes | None) -> Step:
        assert self._running is not None
        try:
            # send(None) starts a generator
            return Challenge(self._running.send(response))  # type: ignore[arg-type]
        except StopIteration as end:
            if end.value is None:  # an error ended the generator before
                raise RuntimeError(f"this {self.name} exchange is over") from None
            self._credentials = end.value
            return CredentialsReady(end.value)

    def verdict(self, accepted: bool) -> bytes | None:
        """Take the application's verdict.

        Returns:
            A last challenge to send before 235 or 535, or ``None``. Pass its answer to :meth:`closing_response`.

        Raises:
            UnverifiedError: accepted without the check that this mechanism needs; answer with its ``reply``.
        """
        if self._credentials is None:
            raise RuntimeError(f"this {self.name} exchange is not ready for a verdict")
        if accepted and self._credentials.needs_check and not self._credentials.verified:
            raise UnverifiedError(self.name)
        return self._last_challenge(accepted)

    def _last_challenge(self, accepted: bool) -> bytes | None:
        return None

    def closing_response(self, response: bytes) -> bool:
        """Whether the client's answer to the last challenge is correct.

        If not, an accepted exchange ends with 501 and the client is not authenticated. A refused one ends with 535 in
        either case.
        """
        return not response


class PlainServer(ServerMechanism):
    """PLAIN (RFC 4616): authorization identity, user name and password in one message."""

    name = "PLAIN"

    def _exchange(self, initial_response: bytes | None) -> Exchange:
        message = (yield b"") if initial_response is None else initial_response
        fields = message.split(b"\0")
        if len(fields) != 3:
            raise malformed("PLAIN needs three fields")
        return Credentials(
            self.name,
            username_field(fields[1]),
            password=password_field(fields[2]),
            authorization_id=identity_field(fields[0]) or None,
        )


class LoginServer(ServerMechanism):
    """LOGIN (draft-murchison-sasl-login, never standardised): two prompts, two answers."""

    name = "LOGIN"

    def _exchange(self, initial_response: bytes | None) -> Exchange:
        # Clients recognise exactly these prompts (VXNlcm5hbWU6, UGFzc3dvcmQ6). Outlook and others send the user name
        # as initial response, although in the draft the server sends first.
        username = username_field((yield b"Username:") if initial_response is None else initial_response)
        return Credentials(self.name, username, password=password_field((yield b"Password:")))


class CramMD5Server(ServerMechanism):
    """CRAM-MD5 (RFC 2195): the client sends a keyed digest of the challenge."""

    name = "CRAM-MD5"
    _digest: ClassVar = re.compile(rb"[0-9a-fA-F]{32}")

    def _exchange(self, initial_response: bytes | None) -> Exchange:
        if initial_response is not None:  # RFC 4954 §4: the server sends first
            raise SASLError(Reply(501, "CRAM-MD5 takes no initial response", "5.7.0"))
        # RFC 2195 §2 adds a time stamp for uniqueness; 128 random bits are unique without it.
        challenge = f"<{secrets.token_hex(16)}@{self.context.hostname}>".encode()
        response = yield challenge
        username, _, digest = response.rpartition(b" ")  # a user name may contain spaces, the digest may not
        if not self._digest.fullmatch(digest):
            raise malformed("CRAM-MD5 needs a user name and a digest")
        verifier = CramDigest(challenge, digest.lower())
        return Credentials._create(self.name, username_field(username), verifier)


class ExternalServer(ServerMechanism):
    """EXTERNAL (RFC 4422 appendix A): the identity comes from the client's TLS certificate."""

    name = "EXTERNAL"

    def _exchange(self, initial_response: bytes | None) -> Exchange:
        message = (yield b"") if initial_response is None else initial_response
        authorization_id = identity_field(message) or None
        if self.context.external_identity is None:
            raise SASLError(REFUSED)
        return Credentials(self.name, self.context.external_identity, authorization_id=authorization_id)
