# What a client claims about itself, in the one form that an application sees whatever the mechanism was.
#
# Guarantee: comparing takes the same work whether the user exists or not, whether the password is right or wrong, and
# how much of it is right. What reveals something is left to nobody's diligence: no repr shows a secret.
from __future__ import annotations

import hmac
import secrets
from typing import Final, Protocol

from ..replies import Reply
from .cram import cram_md5_digest
from .saslprep import SASLprepError, saslprep
from .scram import ScramKeys, salted_password

# Compared with when there is nothing to compare with. Nobody knows it, so nobody can send it.
_NOBODY: Final = secrets.token_urlsafe(18)
_COMPARE_KEY: Final = secrets.token_bytes(32)


class UnverifiedError(RuntimeError):
    """A hook accepted credentials whose secret it cannot have seen, without a check that matched.

    A programming error: the session answers with ``reply`` (454 4.7.0) and logs it.
    """

    def __init__(self, mechanism: str) -> None:
        super().__init__(
            f"on_auth accepted {mechanism} credentials although check_password() never returned True; "
            f"with {mechanism} it is the only way to verify them"
        )
        self.reply = Reply(454, "temporary authentication failure", "4.7.0")  # RFC 4954 §6


class PasswordVerifier(Protocol):
    """How one mechanism compares what its client sent with the password on file."""

    def matches(self, expected: str | None) -> bool:
        """Whether `expected` is the client's password; ``None`` costs as much and is not."""


class Credentials:
    """What a client presented with AUTH, given to ``on_auth``.

    Attributes:
        mechanism: the mechanism's name, in capitals.
        username: whom the client says it is (the authentication identity, after SASLprep). With EXTERNAL the name
            from its TLS certificate. ``""`` where an OAUTHBEARER client left it to the token to say.
        password: PLAIN and LOGIN, as sent; else ``None``.
        token: XOAUTH2 and OAUTHBEARER: the bearer token; else ``None``.
        authorization_id: as whom the client wants to act, where it said so; else ``None``. Whether `username` may
            is for the application to decide.
    """

    __slots__ = ("_verified", "_verifier", "authorization_id", "mechanism", "password", "token", "username")

    def __init__(
        self,
        mechanism: str,
        username: str,
        *,
        password: str | None = None,
        token: str | None = None,
        authorization_id: str | None = None,
        verifier: PasswordVerifier | None = None,
    ) -> None:
        self.mechanism = mechanism
        self.username = username
        self.password = password
        self.token = token
        self.authorization_id = authorization_id
        if verifier is None and password is not None:
            verifier = ComparedPassword(password)
        self._verifier = verifier
        self._verified = False

    def __repr__(self) -> str:
        acting = f", authorization_id={self.authorization_id!r}" if self.authorization_id is not None else ""
        return f"<Credentials {self.mechanism} username={self.username!r}{acting}>"

    def check_password(self, expected: str | None) -> bool:
        """Compare with the password on file, in constant time.

        It works for every password mechanism; with CRAM-MD5 and SCRAM, where the client never sends its password, it
        is the only way to verify it. Call it for unknown users too, with ``None``: the same work is done, so that
        nobody can tell by the clock which users exist. With SCRAM it is about a millisecond of pure computing.

        Args:
            expected: the password on file, in clear; ``None`` (or ``""``) where there is none.

        Returns:
            Whether the client knows that password. Always false with a token or a certificate.
        """
        if self._verifier is None:
            return False
        matched = self._verifier.matches(expected or None)
        self._verified = self._verified or matched
        return matched

    @property
    def verified(self) -> bool:
        """Whether a call of :meth:`check_password` has matched."""
        return self._verified

    @property
    def needs_check(self) -> bool:
        """Whether only :meth:`check_password` can verify them (CRAM-MD5, SCRAM), so that acceptance implies it."""
        return self._verifier is not None and self.password is None


class ComparedPassword:
    """The password itself was sent: PLAIN, LOGIN."""

    __slots__ = ("_presented",)

    def __init__(self, presented: str) -> None:
        self._presented = presented

    def matches(self, expected: str | None) -> bool:
        """Compare the prepared forms (RFC 4616 section 2)."""
        # The digests are of one length, so that the length of the password on file does not show either.
        presented = _digest(self._presented)
        return hmac.compare_digest(presented, _digest(expected or _NOBODY)) and expected is not None


def _digest(password: str) -> bytes:
    try:
        password = saslprep(password, stored=True)
    except SASLprepError:
        # A password without a prepared form (an emoji is enough) stands for itself: equal octets are equal.
        pass
    return hmac.digest(_COMPARE_KEY, password.encode("utf-8", "surrogatepass"), "sha256")


class CramDigest:
    """A keyed MD5 of the challenge was sent: CRAM-MD5 (RFC 2195)."""

    __slots__ = ("_challenge", "_digest")

    def __init__(self, challenge: bytes, digest: bytes) -> None:
        self._challenge = challenge
        self._digest = digest

    def matches(self, expected: str | None) -> bool:
        """Make the digest that the client should have made."""
        digest = cram_md5_digest(expected or _NOBODY, self._challenge)
        return hmac.compare_digest(self._digest, digest) and expected is not None


class ScramProof:
    """A proof was sent: SCRAM.

    Args:
        hash_name: hashlib's name of the hash.
        salt: what the server announced, and
        iterations: how many.
        auth_message: both ends' messages so far (RFC 5802 section 3).
        proof: what the client sent, or ``None`` where that was nonsense: then the same work is done in vain.
    """

    __slots__ = ("_auth_message", "_hash_name", "_iterations", "_proof", "_salt", "server_signature")

    def __init__(self, hash_name: str, salt: bytes, iterations: int, auth_message: bytes, proof: bytes | None) -> None:
        self._hash_name = hash_name
        self._salt = salt
        self._iterations = iterations
        self._auth_message = auth_message
        self._proof = proof
        self.server_signature: bytes | None = None  # known only once a password has matched

    def matches(self, expected: str | None) -> bool:
        """Derive the keys from the password on file, and see whether the proof was made with them."""
        prepared: str | None = None
        if expected is not None:
            try:
                prepared = saslprep(expected, stored=True)
            except SASLprepError:  # no client can have made a key of it
                pass
        password = (prepared or _NOBODY).encode()
        keys = ScramKeys.derive(
            self._hash_name, salted_password(self._hash_name, password, self._salt, self._iterations)
        )
        signature = keys.server_signature(self._auth_message)
        matched = keys.is_proof(self._proof or bytes(len(keys.stored_key)), self._auth_message)
        if not matched or prepared is None or self._proof is None:
            return False
        self.server_signature = signature
        return True
