# SCRAM (RFC 5802; with SHA-256 RFC 7677): the mathematics and the limits that both ends share.
#
# Pure functions on octets. The order of messages is in scram_server.py and scram_client.py.
from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from typing import Final

MIN_ITERATIONS: Final = 4096  # RFC 7677 §4: a server must not announce less, so a client has no reason to take it
MAX_ITERATIONS: Final = 1_000_000  # about 0.25 s; bounds the CPU time that a hostile server can take

# Mechanism to hashlib's name of its hash.
SCRAM_HASHES: Final = {"SCRAM-SHA-1": "sha1", "SCRAM-SHA-256": "sha256"}

_NONCE = re.compile(rb"[\x21-\x2b\x2d-\x7e]+")  # RFC 5802 §7: printable, no comma


@dataclass(frozen=True, slots=True, repr=False)
class ScramKeys:
    """The keys derived from a salted password (RFC 5802 section 3)."""

    hash_name: str
    client_key: bytes
    stored_key: bytes
    server_key: bytes

    @classmethod
    def derive(cls, hash_name: str, salted_password: bytes) -> ScramKeys:
        """Derive the three keys. Cheap, unlike :func:`salted_password`."""
        client_key = hmac.digest(salted_password, b"Client Key", hash_name)
        stored_key = hashlib.new(hash_name, client_key).digest()
        return cls(hash_name, client_key, stored_key, hmac.digest(salted_password, b"Server Key", hash_name))

    def client_proof(self, auth_message: bytes) -> bytes:
        """What a client sends instead of its password."""
        return xor(self.client_key, hmac.digest(self.stored_key, auth_message, self.hash_name))

    def is_proof(self, proof: bytes, auth_message: bytes) -> bool:
        """Whether the proof was made with the same password, in constant time. It must be as long as the hash."""
        client_key = xor(proof, hmac.digest(self.stored_key, auth_message, self.hash_name))
        return hmac.compare_digest(hashlib.new(self.hash_name, client_key).digest(), self.stored_key)

    def server_signature(self, auth_message: bytes) -> bytes:
        """What a server sends to prove that it knows the password."""
        return hmac.digest(self.server_key, auth_message, self.hash_name)


def salted_password(hash_name: str, password: bytes, salt: bytes, iterations: int) -> bytes:
    """RFC 5802's ``Hi``, the expensive step: about 1 ms for 4096 iterations. Releases the GIL."""
    return hashlib.pbkdf2_hmac(hash_name, password, salt, iterations)


def xor(left: bytes, right: bytes) -> bytes:
    """Exclusive or of two strings of the same length."""
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


def new_nonce() -> bytes:
    """A fresh nonce of 144 bits, without a comma."""
    return secrets.token_urlsafe(18).encode("ascii")


def is_nonce(raw: bytes) -> bool:
    """Whether it has the form of a nonce."""
    return _NONCE.fullmatch(raw) is not None


def attribute(part: bytes, letter: bytes) -> bytes | None:
    """The value of ``x=value`` if the part is that attribute, else ``None``."""
    return part[2:] if part[:2] == letter + b"=" else None
