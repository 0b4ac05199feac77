# The server's side of SASL: one object per exchange, octets in, a challenge or credentials out.
#
# A mechanism is a generator: it yields challenges, is sent responses, and returns the credentials that the application
# is to judge. So the order of messages is the order of lines, and an exchange cannot be asked for a step it does not
# have. Base64, "*" and line limits belong to the caller; nothing here knows sessions.
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

MIN_SECRET: Final = 16  # octets of the key of SCRAM's salts

Exchange: TypeAlias = Generator[bytes, bytes, Credentials]


@dataclass(frozen=True, slots=True)
class Challenge:
    """Send 334 with these octets (in base64), read a line, give it to ``respond``."""

    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Verify:
    """Ask the application, then call ``verdict``."""

    credentials: Credentials


Step: TypeAlias = Challenge | Verify


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerContext:
    """What mechanisms need to know about their server and connection.

    Args:
        hostname: the server's name, for CRAM-MD5's challenge.
        secret: the key of SCRAM's salts. It should outlive the connection, since clients cache what they derive
            from a salt; processes that serve the same name share it.
        scram_iterations: what SCRAM announces, and what each check costs both ends.
        external_identity: who the client's verified TLS certificate says it is; ``None`` without one.
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
    """One exchange of one mechanism, used once."""

    name: ClassVar[str]
    # Whether somebody who listens learns what is enough to log in as the client.
    reveals_secret: ClassVar[bool] = False

    def __init__(self, context: ServerContext) -> None:
        self.context = context
        self._running: Exchange | None = None
        self._credentials: Credentials | None = None

    @abstractmethod
    def _exchange(self, initial_response: bytes | None) -> Exchange:
        """Yield challenges, take responses, return credentials; raise SASLError to end it."""

    def start(self, initial_response: bytes | None) -> Step:
        """Begin, with the decoded argument of AUTH or ``None`` where it had none.

        Raises:
            SASLError: the exchange is over; answer with its ``reply``.
        """
        if self._running is not None:
            raise RuntimeError(f"this {self.name} exchange was started before")
        self._running = self._exchange(initial_response)
        return self._advance(None)

    def respond(self, response: bytes) -> Step:
        """Go on, with the client's decoded answer to the last challenge.

        Raises:
            SASLError: the exchange is over; answer with its ``reply``.
        """
        if self._running is None or self._credentials is not None:
            raise RuntimeError(f"this {self.name} exchange waits for no response")
        return self._advance(response)

    def _advance(self, response: bytes | None) -> Step:
        assert self._running is not None
        try:
            # send(None) is how a generator is started
            return Challenge(self._running.send(response))  # type: ignore[arg-type]
        except StopIteration as end:
            if end.value is None:  # a generator that an error ended long ago
                raise RuntimeError(f"this {self.name} exchange is over") from None
            self._credentials = end.value
            return Verify(end.value)

    def verdict(self, accepted: bool) -> bytes | None:
        """Take the application's verdict.

        Returns:
            A last challenge to send before 235 or 535 (the answer goes to :meth:`closing_response`), or ``None``.

        Raises:
            UnverifiedError: accepted without a check where there is no other way; answer with its ``reply``.
        """
        if self._credentials is None:
            raise RuntimeError(f"this {self.name} exchange is not ready for a verdict")
        if accepted and self._credentials.needs_check and not self._credentials.verified:
            raise UnverifiedError(self.name)
        return self._last_challenge(accepted)

    def _last_challenge(self, accepted: bool) -> bytes | None:
        return None

    def closing_response(self, response: bytes) -> bool:
        """Whether the client's answer to the last challenge is as it should be.

        If not, an accepted exchange ends with 501 and nobody is authenticated; a refused one with 535 as anyway.
        """
        return not response


class PlainServer(ServerMechanism):
    """PLAIN (RFC 4616): authorization identity, user name and password in one message."""

    name = "PLAIN"
    reveals_secret = True

    def _exchange(self, initial_response: bytes | None) -> Exchange:
        message = (yield b"") if initial_response is None else initial_response
        fields = message.split(b"\0")
        if len(fields) != 3:
            raise malformed("PLAIN wants three fields")
        return Credentials(
            self.name,
            username_field(fields[1]),
            password=password_field(fields[2]),
            authorization_id=identity_field(fields[0]) or None,
        )


class LoginServer(ServerMechanism):
    """LOGIN (draft-murchison-sasl-login): never standardised, never gone; two questions, two answers."""

    name = "LOGIN"
    reveals_secret = True

    def _exchange(self, initial_response: bytes | None) -> Exchange:
        # Clients recognise these very prompts (VXNlcm5hbWU6, UGFzc3dvcmQ6). Outlook and others send the user name
        # as initial response, although the draft has the server begin.
        username = username_field((yield b"Username:") if initial_response is None else initial_response)
        return Credentials(self.name, username, password=password_field((yield b"Password:")))


class CramMD5Server(ServerMechanism):
    """CRAM-MD5 (RFC 2195): a keyed digest of our challenge."""

    name = "CRAM-MD5"
    _digest: ClassVar = re.compile(rb"[0-9a-fA-F]{32}")

    def _exchange(self, initial_response: bytes | None) -> Exchange:
        if initial_response is not None:  # RFC 4954 §4: a mechanism in which the server begins
            raise SASLError(Reply(501, "CRAM-MD5 takes no initial response", "5.7.0"))
        # RFC 2195 §2 has a time stamp in it for the sake of uniqueness; 128 random bits are unique.
        challenge = f"<{secrets.token_hex(16)}@{self.context.hostname}>".encode()
        response = yield challenge
        username, _, digest = response.rpartition(b" ")  # a user name may have spaces, the digest has none
        if not self._digest.fullmatch(digest):
            raise malformed("CRAM-MD5 wants a user name and a digest")
        verifier = CramDigest(challenge, digest.lower())
        return Credentials(self.name, username_field(username), verifier=verifier)


class ExternalServer(ServerMechanism):
    """EXTERNAL (RFC 4422 appendix A): the client is who its TLS certificate says."""

    name = "EXTERNAL"

    def _exchange(self, initial_response: bytes | None) -> Exchange:
        message = (yield b"") if initial_response is None else initial_response
        authorization_id = identity_field(message) or None
        if self.context.external_identity is None:
            raise SASLError(REFUSED)
        return Credentials(self.name, self.context.external_identity, authorization_id=authorization_id)
