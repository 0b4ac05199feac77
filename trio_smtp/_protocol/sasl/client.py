# The client's side of SASL: one object per exchange, challenges in, responses out.
#
# A mechanism is a generator. It yields the initial response (None if the server sends first), then one response for
# each challenge that is sent to it. Each response says whether the exchange is complete with it, that is, whether the
# server has proved all that the mechanism asks for. A 235 before that is an error.
#
# SCRAM's key derivation is slow. The mechanism yields it as a work item, and the caller may run it in a thread.
#
#   mechanism = client_mechanism(name, auth, token=token)
#   write mechanism.command()
#   334:  step = mechanism.respond(decode_challenge(reply))
#         while isinstance(step, DeriveKey):  step = mechanism.derived(await to_thread(step))
#         write encode_challenge(step)
#   235:  mechanism.finish()
#   else: raise mechanism.refused(reply)
#
# After an AuthenticationError from decode_challenge() or respond() the client writes "*" and reads the 501.
from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import ClassVar, Final, NamedTuple, TypeAlias

from ..errors import AuthenticationError, Stage
from ..replies import Reply
from .auth import External, OAuth, Password, XOAuth, check_bearer_token, decode_ready_token
from .cram import cram_md5_digest
from .scram import salted_password
from .wire import encode_challenge, quote_saslname

MAX_ROUNDS: Final = 10  # challenges after which a caller gives up; no mechanism here takes more than two
MAX_COMMAND: Final = 512  # octets with CRLF: an AUTH command is a command (RFC 4954 §4, RFC 5321 §4.5.3.1.4)


class Response(NamedTuple):
    """What a mechanism sends next.

    Attributes:
        data: the octets; ``None`` only in place of an initial response, if the server sends first.
        complete: the server has proved all that it must, so a 235 may follow.
        error_detail: what the server said about a failure, if this response acknowledges one.
    """

    data: bytes | None
    complete: bool = False
    error_detail: str | None = None

    def __repr__(self) -> str:  # the octets may be a password
        return f"<Response{' complete' if self.complete else ''}>"


@dataclass(frozen=True, slots=True)
class DeriveKey:
    """Work to do before the next response: call it, in a thread if you like, and pass the result to ``derived``."""

    hash_name: str
    password: bytes = field(repr=False)
    salt: bytes
    iterations: int

    def __call__(self) -> bytes:
        """Compute the salted password. Pure, so any thread may do it."""
        return salted_password(self.hash_name, self.password, self.salt, self.iterations)


# Yields the initial response, then responses and work; is sent challenges, and results of work.
Exchange: TypeAlias = Generator[Response | DeriveKey, bytes, None]


def failure(message: str) -> AuthenticationError:
    """The error for a server that violates the mechanism."""
    return AuthenticationError(message, stage=Stage.AUTH)


class ClientMechanism(ABC):
    """One exchange of one mechanism, used once.

    Attributes:
        name: the mechanism's name.
        reads_challenges: what the server says matters.
        initial_response: the argument of AUTH; ``None`` if the server sends first, ``b""`` for an empty one.
        error_detail: what the server said about a refused token (usually JSON), or ``None``.
    """

    name: str
    reads_challenges: ClassVar[bool] = True
    error_detail: str | None
    initial_response: bytes | None

    def __init__(self) -> None:
        self._held_back = False
        self._exchange = self._run()
        first = next(self._exchange)
        assert isinstance(first, Response)
        self.initial_response = first.data
        self._complete = first.complete
        self.error_detail = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {'complete' if self._complete else 'in progress'}>"

    @abstractmethod
    def _run(self) -> Exchange:
        """Yield the initial response, then take a challenge and yield a response, and so on."""

    def command(self) -> bytes:
        """The AUTH command without CRLF.

        An initial response that does not fit into a command line is held back until the server asks for it with an
        empty challenge (RFC 4954 section 4).
        """
        command = b"AUTH " + self.name.encode("ascii")
        if self.initial_response is None:
            return command
        whole = command + b" " + (encode_challenge(self.initial_response) or b"=")  # RFC 4954 §4: "=" for empty
        self._held_back = len(whole) + 2 > MAX_COMMAND
        return command if self._held_back else whole

    def respond(self, challenge: bytes) -> bytes | DeriveKey:
        """Answer a decoded challenge, or ask for the work that the answer needs.

        Raises:
            AuthenticationError: the server violates the mechanism, or cannot prove its identity.
        """
        if self._held_back and self.initial_response is not None:
            self._held_back = False
            if challenge:
                raise failure(f"the server sent the first message of {self.name}, which the client must send")
            return self.initial_response
        return self._advance(challenge)

    def derived(self, key: bytes) -> bytes | DeriveKey:
        """Continue with the result of a :class:`DeriveKey`."""
        return self._advance(key)

    def _advance(self, sent: bytes) -> bytes | DeriveKey:
        self._complete = False
        try:
            step = self._exchange.send(sent)
        except StopIteration:
            raise failure(f"the server continues {self.name} after its end") from None
        if isinstance(step, DeriveKey):
            return step
        self._complete = step.complete
        if step.error_detail is not None:
            self.error_detail = step.error_detail
        assert step.data is not None
        return step.data

    def finish(self) -> None:
        """Check that a 235 may be believed.

        Raises:
            AuthenticationError: it came before the exchange was complete (with SCRAM, before the server proved that it
                knows the password). Nothing such a server says may be believed: close the connection.
        """
        if not self._complete or self._held_back:
            raise failure(f"the server answered 235 before {self.name} was complete")

    def refused(self, reply: Reply) -> AuthenticationError:
        """The error for a reply other than 334 and 235, with what the server said about a token."""
        detail = f" ({self.error_detail})" if self.error_detail else ""
        return AuthenticationError(f"{self.name} was refused: {reply}{detail}", reply=reply, stage=Stage.AUTH)


class PlainClient(ClientMechanism):
    """PLAIN (RFC 4616). The server prepares the strings, so they are sent unchanged."""

    name = "PLAIN"

    def __init__(self, auth: Password) -> None:
        self._auth = auth
        super().__init__()

    def _run(self) -> Exchange:
        yield Response(f"\0{self._auth.username}\0{self._auth.password}".encode(), complete=True)


class LoginClient(ClientMechanism):
    """LOGIN: user name, then password. The prompts are ignored, since servers spell them in many ways."""

    name = "LOGIN"
    reads_challenges = False  # nor need they be base64

    def __init__(self, auth: Password) -> None:
        self._auth = auth
        super().__init__()

    def _run(self) -> Exchange:
        yield Response(None)
        yield Response(self._auth.username.encode())
        yield Response(self._auth.password.encode(), complete=True)


class CramMD5Client(ClientMechanism):
    """CRAM-MD5 (RFC 2195)."""

    name = "CRAM-MD5"

    def __init__(self, auth: Password) -> None:
        self._auth = auth
        super().__init__()

    def _run(self) -> Exchange:
        challenge = yield Response(None)
        digest = cram_md5_digest(self._auth.password, challenge)
        yield Response(self._auth.username.encode() + b" " + digest, complete=True)


class ExternalClient(ClientMechanism):
    """EXTERNAL (RFC 4422 appendix A)."""

    name = "EXTERNAL"

    def __init__(self, auth: External) -> None:
        self._auth = auth
        super().__init__()

    def _run(self) -> Exchange:
        yield Response(self._auth.authorization_id.encode(), complete=True)


def _token_exchange(message: bytes, acknowledgement: bytes = b"") -> Exchange:
    """Send the token at once. A server that refuses it says why in a challenge, which must be acknowledged."""
    challenge = yield Response(message, complete=True)
    yield Response(acknowledgement, error_detail=challenge.decode("utf-8", "backslashreplace"))


class XOAuth2Client(ClientMechanism):
    """XOAUTH2: the acknowledgement is an empty line."""

    name = "XOAUTH2"

    def __init__(self, auth: OAuth, token: str) -> None:
        self._auth = auth
        self._token = check_bearer_token(token)
        super().__init__()

    def _run(self) -> Exchange:
        return _token_exchange(f"user={self._auth.username}\x01auth=Bearer {self._token}\x01\x01".encode())


class OAuthBearerClient(ClientMechanism):
    """OAUTHBEARER (RFC 7628): the acknowledgement is a single 0x01 (section 3.2.3)."""

    name = "OAUTHBEARER"

    def __init__(self, auth: OAuth, token: str, *, host: str | None = None, port: int | None = None) -> None:
        self._auth = auth
        self._token = check_bearer_token(token)
        self._host = host if host and host.isascii() and host.isprintable() else None
        self._port = port
        super().__init__()

    def _run(self) -> Exchange:
        pairs = [b"n,a=%b," % quote_saslname(self._auth.username)]
        if self._host is not None:
            pairs.append(b"host=" + self._host.encode("ascii"))
        if self._port is not None:
            pairs.append(b"port=%d" % self._port)
        pairs.append(b"auth=Bearer " + self._token.encode("ascii"))
        return _token_exchange(b"\x01".join(pairs) + b"\x01\x01", acknowledgement=b"\x01")


class XOAuthClient(ClientMechanism):
    """XOAUTH: the caller provides the whole initial response."""

    name = "XOAUTH"

    def __init__(self, auth: XOAuth, token: str) -> None:
        self._ready = decode_ready_token(token)
        super().__init__()

    def _run(self) -> Exchange:
        return _token_exchange(self._ready)
