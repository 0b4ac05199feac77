# The credentials of a client, in one form for all mechanisms.
#
# Guarantees: a comparison takes the same work whether or not the user exists, and however much of the password is
# right. No repr shows a secret.
from __future__ import annotations

import hmac
import secrets
from typing import Final, Protocol

from ..replies import Reply
from .cram import cram_md5_digest
from .saslprep import SASLprepError, saslprep
from .scram import ScramKeys, salted_password

# Stands in for the password of an unknown user. It is random, so a client cannot send it.
_NO_PASSWORD: Final = secrets.token_urlsafe(18)
_COMPARE_KEY: Final = secrets.token_bytes(32)


class UnverifiedError(RuntimeError):
    """A hook accepted credentials that only ``check_password()`` can verify, without a check that matched.

    This is a programming error: the session answers with ``reply`` (454 4.7.0) and logs it.
    """

    def __init__(self, mechanism: str) -> None:
        super().__init__(
            f"on_auth accepted {mechanism} credentials although check_password() never returned True; "
            f"{mechanism} credentials cannot be verified in another way"
        )
        self.reply = Reply(454, "temporary authentication failure", "4.7.0")  # RFC 4954 §6


class PasswordVerifier(Protocol):
    """Compares what the client of one mechanism sent with the password on file."""

    def matches(self, expected: str | None) -> bool:
        """Whether `expected` is the client's password. ``None`` never is, and takes the same work."""


class Credentials:
    """The credentials that a client sent with AUTH, passed to ``on_auth``.

    Attributes:
        mechanism: the mechanism's name, in capitals.
        username: the authentication identity, after SASLprep. With EXTERNAL, the name in the client's TLS certificate.
            ``""`` if an OAUTHBEARER client left the name to the token.
        password: with PLAIN and LOGIN, the password as sent; else ``None``.
        token: with XOAUTH2 and OAUTHBEARER, the bearer token; else ``None``.
        authorization_id: the identity to act as, if the client asked for one; else ``None``. The application decides
            whether `username` may act as it.
    """

    __slots__ = ("_verified", "_verifier", "authorization_id", "mechanism", "password", "token", "username")

    mechanism: str
    username: str
    password: str | None
    token: str | None
    authorization_id: str | None

    def __init__(
        self,
        mechanism: str,
        username: str,
        *,
        password: str | None = None,
        token: str | None = None,
        authorization_id: str | None = None,
    ) -> None:
        self.mechanism = mechanism
        self.username = username
        self.password = password
        self.token = token
        self.authorization_id = authorization_id
        self._verifier: PasswordVerifier | None = None if password is None else ComparedPassword(password)
        self._verified = False

    @classmethod
    def _create(
        cls, mechanism: str, username: str, verifier: PasswordVerifier, *, authorization_id: str | None = None
    ) -> Credentials:
        """Make those of a mechanism in which the client does not send its password."""
        self = cls(mechanism, username, authorization_id=authorization_id)
        self._verifier = verifier
        return self

    def __repr__(self) -> str:
        acting = f", authorization_id={self.authorization_id!r}" if self.authorization_id is not None else ""
        return f"<Credentials {self.mechanism} username={self.username!r}{acting}>"

    def check_password(self, expected: str | None) -> bool:
        """Compare with the password on file, in constant time.

        Works for every password mechanism. With CRAM-MD5 and SCRAM the client does not send its password, so this is
        the only way to verify it. Call it for unknown users too, with ``None``: it does the same work, so timing does
        not reveal which users exist. With SCRAM it takes about a millisecond of CPU time.

        Args:
            expected: the password on file, in clear; ``None`` (or ``""``) if there is none.

        Returns:
            Whether the client knows that password. Always false for a token or a certificate.
        """
        if self._verifier is None:
            return False
        matched = self._verifier.matches(expected or None)
        self._verified = self._verified or matched
        return matched

    @property
    def verified(self) -> bool:
        """Whether a call of :meth:`check_password` returned true."""
        return self._verified

    @property
    def needs_check(self) -> bool:
        """Whether only :meth:`check_password` can verify these credentials (CRAM-MD5, SCRAM)."""
        return self._verifier is not None and self.password is None


class ComparedPassword:
    """Verifier of PLAIN and LOGIN, where the client sends the password."""

    __slots__ = ("_presented",)

    def __init__(self, presented: str) -> None:
        self._presented = presented

    def matches(self, expected: str | None) -> bool:
        """Compare the prepared forms (RFC 4616 section 2)."""
        # Digests have one length, so timing does not reveal the length of the password on file.
        presented = _digest(self._presented)
        return hmac.compare_digest(presented, _digest(expected or _NO_PASSWORD)) and expected is not None


def _digest(password: str) -> bytes:
    try:
        password = saslprep(password, stored=True)
    except SASLprepError:
        # A password without a prepared form (one with an emoji, say) is compared octet by octet.
        pass
    return hmac.digest(_COMPARE_KEY, password.encode("utf-8", "surrogatepass"), "sha256")


class CramDigest:
    """Verifier of CRAM-MD5 (RFC 2195), where the client sends a keyed digest of the challenge."""

    __slots__ = ("_challenge", "_digest")

    def __init__(self, challenge: bytes, digest: bytes) -> None:
        self._challenge = challenge
        self._digest = digest

    def matches(self, expected: str | None) -> bool:
        """Compare with the digest that this password gives."""
        digest = cram_md5_digest(expected or _NO_PASSWORD, self._challenge)
        return hmac.compare_digest(self._digest, digest) and expected is not None


class ScramProof:
    """Verifier of SCRAM, where the client sends a proof.

    Args:
        hash_name: hashlib's name of the hash.
        salt: the salt that the server announced.
        iterations: the count that the server announced.
        auth_message: both ends' messages so far (RFC 5802 section 3).
        proof: the client's proof, or ``None`` if it was malformed. That never matches, after the same work.

    Attributes:
        server_signature: the server's own proof; ``None`` until a password has matched.
    """

    __slots__ = ("_auth_message", "_hash_name", "_iterations", "_proof", "_salt", "server_signature")

    def __init__(self, hash_name: str, salt: bytes, iterations: int, auth_message: bytes, proof: bytes | None) -> None:
        self._hash_name = hash_name
        self._salt = salt
        self._iterations = iterations
        self._auth_message = auth_message
        self._proof = proof
        self.server_signature: bytes | None = None

    def matches(self, expected: str | None) -> bool:
        """Derive the keys from the password on file, and check that the proof was made with them."""
        prepared: str | None = None
        if expected is not None:
            try:
                prepared = saslprep(expected, stored=True)
            except SASLprepError:  # a client cannot derive a key from it
                pass
        password = (prepared or _NO_PASSWORD).encode()
        keys = ScramKeys.derive(
            self._hash_name, salted_password(self._hash_name, password, self._salt, self._iterations)
        )
        signature = keys.server_signature(self._auth_message)
        matched = keys.is_proof(self._proof or bytes(len(keys.stored_key)), self._auth_message)
        if not matched or prepared is None or self._proof is None:
            return False
        self.server_signature = signature
        return True
