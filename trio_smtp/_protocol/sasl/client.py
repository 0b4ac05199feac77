# The client's side of SASL: one object per exchange, challenges in, responses out.
#
# As on the server a mechanism is a generator: it yields the initial response (None where the server begins) and then a
# response for each challenge it is sent. It says itself when the server has shown all that it must: a 235 before that
# is no success, however friendly. SCRAM's key derivation takes long; it is handed to the caller as a work item, who
# may run it in a thread.
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
from typing import ClassVar, Final, TypeAlias

from ..errors import AuthenticationError, Stage
from ..replies import Reply
from .auth import External, OAuth, Password, XOAuth, check_bearer_token, decode_ready_token
from .cram import cram_md5_digest
from .scram import salted_password
from .wire import encode_challenge, quote_saslname

MAX_ROUNDS: Final = 10  # challenges after which a caller gives up; no mechanism here takes more than two
MAX_COMMAND: Final = 512  # octets with CRLF: an AUTH command is a command (RFC 4954 §4, RFC 5321 §4.5.3.1.4)


@dataclass(frozen=True, slots=True)
class DeriveKey:
    """Work to do before the next response: call it, in a thread if you like, and give the result to ``derived``."""

    hash_name: str
    password: bytes = field(repr=False)
    salt: bytes
    iterations: int

    def __call__(self) -> bytes:
        """The salted password. It touches nothing else."""
        return salted_password(self.hash_name, self.password, self.salt, self.iterations)


# Yields the initial response, then responses and work; is sent challenges, and results of work.
Dialogue: TypeAlias = Generator[bytes | DeriveKey | None, bytes, None]


def failure(message: str) -> AuthenticationError:
    """The error for a server that does not keep to the mechanism."""
    return AuthenticationError(message, stage=Stage.AUTH)


class ClientMechanism(ABC):
    """One exchange of one mechanism, used once.

    Attributes:
        name: the mechanism's name.
        initial_response: what AUTH carries; ``None`` where the server begins, ``b""`` for an empty one.
        error_detail: what the server said about a refused token, if it did (JSON, for people to read).
    """

    name: ClassVar[str]

    def __init__(self) -> None:
        self.error_detail: str | None = None
        self._complete = False  # the server has shown all that it must; 235 may come
        self._held_back = False
        self._dialogue = self._run()
        first = next(self._dialogue)
        assert not isinstance(first, DeriveKey)
        self.initial_response: bytes | None = first

    @abstractmethod
    def _run(self) -> Dialogue:
        """Yield the initial response, then take a challenge and yield a response, and so on."""

    def command(self) -> bytes:
        """The AUTH command without CRLF.

        An initial response for which the line has no room is held back until the server asks for it with an empty
        challenge (RFC 4954 section 4).
        """
        command = b"AUTH " + self.name.encode("ascii")
        if self.initial_response is None:
            return command
        whole = command + b" " + (encode_challenge(self.initial_response) or b"=")  # RFC 4954 §4: "=" for empty
        self._held_back = len(whole) + 2 > MAX_COMMAND
        return command if self._held_back else whole

    def respond(self, challenge: bytes) -> bytes | DeriveKey:
        """Answer a decoded challenge, or ask for work that the answer needs.

        Raises:
            AuthenticationError: the server does not keep to the mechanism, or is not who it should be.
        """
        if self._held_back and self.initial_response is not None:
            self._held_back = False
            if challenge:
                raise failure(f"the server began {self.name}, in which the client begins")
            return self.initial_response
        return self._advance(challenge)

    def derived(self, key: bytes) -> bytes | DeriveKey:
        """Go on with the result of a :class:`DeriveKey`."""
        return self._advance(key)

    def _advance(self, sent: bytes) -> bytes | DeriveKey:
        try:
            response = self._dialogue.send(sent)
        except StopIteration:
            self._complete = False
            raise failure(f"the server goes on with {self.name} after its end") from None
        except AuthenticationError:
            self._complete = False
            raise
        assert response is not None
        return response

    def finish(self) -> None:
        """Say whether a 235 means what it says.

        Raises:
            AuthenticationError: it came before the exchange was complete; with SCRAM, before the server has proved
                that it knows the password. Nothing may be believed of such a server: close the connection.
        """
        if not self._complete or self._held_back:
            raise failure(f"the server answered 235 before {self.name} was complete")

    def refused(self, reply: Reply) -> AuthenticationError:
        """The error for a reply other than 334 and 235, with what the server said about a token."""
        detail = f" ({self.error_detail})" if self.error_detail else ""
        return AuthenticationError(f"{self.name} was refused: {reply}{detail}", reply=reply, stage=Stage.AUTH)


class PlainClient(ClientMechanism):
    """PLAIN (RFC 4616). The server prepares the strings, so they go out as they are."""

    name = "PLAIN"

    def __init__(self, auth: Password) -> None:
        self._auth = auth
        super().__init__()

    def _run(self) -> Dialogue:
        self._complete = True
        yield f"\0{self._auth.username}\0{self._auth.password}".encode()


class LoginClient(ClientMechanism):
    """LOGIN: user name, then password, whatever the prompts say (they are seen in many spellings)."""

    name = "LOGIN"

    def __init__(self, auth: Password) -> None:
        self._auth = auth
        super().__init__()

    def _run(self) -> Dialogue:
        yield None
        yield self._auth.username.encode()
        self._complete = True
        yield self._auth.password.encode()


class CramMD5Client(ClientMechanism):
    """CRAM-MD5 (RFC 2195)."""

    name = "CRAM-MD5"

    def __init__(self, auth: Password) -> None:
        self._auth = auth
        super().__init__()

    def _run(self) -> Dialogue:
        challenge = yield None
        self._complete = True
        yield self._auth.username.encode() + b" " + cram_md5_digest(self._auth.password, challenge)


class ExternalClient(ClientMechanism):
    """EXTERNAL (RFC 4422 appendix A)."""

    name = "EXTERNAL"

    def __init__(self, auth: External) -> None:
        self._auth = auth
        super().__init__()

    def _run(self) -> Dialogue:
        self._complete = True
        yield self._auth.authorization_id.encode()


class _TokenClient(ClientMechanism):
    """A token at once; if it is refused, a challenge that says why and wants an acknowledgement."""

    acknowledgement: ClassVar[bytes] = b""

    @abstractmethod
    def _first(self) -> bytes: ...

    def _run(self) -> Dialogue:
        self._complete = True
        challenge = yield self._first()
        self._complete = False
        self.error_detail = challenge.decode("utf-8", "backslashreplace")
        yield self.acknowledgement


class XOAuth2Client(_TokenClient):
    """XOAUTH2: the acknowledgement is an empty line."""

    name = "XOAUTH2"

    def __init__(self, auth: OAuth, token: str) -> None:
        self._auth = auth
        self._token = check_bearer_token(token)
        super().__init__()

    def _first(self) -> bytes:
        return f"user={self._auth.username}\x01auth=Bearer {self._token}\x01\x01".encode()


class OAuthBearerClient(_TokenClient):
    """OAUTHBEARER (RFC 7628): the acknowledgement is a single 0x01 (section 3.2.3)."""

    name = "OAUTHBEARER"
    acknowledgement = b"\x01"

    def __init__(self, auth: OAuth, token: str, *, host: str | None = None, port: int | None = None) -> None:
        self._auth = auth
        self._token = check_bearer_token(token)
        self._host = host if host and host.isascii() and host.isprintable() else None
        self._port = port
        super().__init__()

    def _first(self) -> bytes:
        pairs = [b"n,a=%b," % quote_saslname(self._auth.username)]
        if self._host is not None:
            pairs.append(b"host=" + self._host.encode("ascii"))
        if self._port is not None:
            pairs.append(b"port=%d" % self._port)
        pairs.append(b"auth=Bearer " + self._token.encode("ascii"))
        return b"\x01".join(pairs) + b"\x01\x01"


class XOAuthClient(_TokenClient):
    """XOAUTH: the caller brought the whole initial response."""

    name = "XOAUTH"

    def __init__(self, auth: XOAuth, token: str) -> None:
        self._ready = decode_ready_token(token)
        super().__init__()

    def _first(self) -> bytes:
        return self._ready
