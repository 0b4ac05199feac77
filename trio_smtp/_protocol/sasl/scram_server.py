# SCRAM-SHA-1 and SCRAM-SHA-256, the server's side (RFC 5802, RFC 7677), without channel binding.
#
# There is no user database here: the application is asked for a password only after the client has sent its proof. So
# the salt cannot come from the user's record. It is a keyed hash of the user name: stable, and made in the same way for
# users that do not exist (RFC 5802 section 9: a random salt for them would tell them apart).
from __future__ import annotations

import binascii
import hashlib
import hmac

from .credentials import Credentials, ScramProof
from .scram import SCRAM_HASHES, attribute, is_nonce, new_nonce
from .server import Exchange, MechanismContext, ServerMechanism
from .wire import (
    MAX_NAME,
    REFUSED,
    SASLError,
    encode_challenge,
    malformed,
    split_gs2_header,
    unquote_saslname,
    username_field,
)


class ScramServer(ServerMechanism):
    """One of the mechanisms in SCRAM_HASHES, which differ in the hash only.

    Args:
        name: which.
        context: of the server.
        nonce: instead of a fresh one.
    """

    def __init__(self, name: str, context: MechanismContext, *, nonce: bytes | None = None) -> None:
        super().__init__(context)
        self.name = name
        self._hash_name = SCRAM_HASHES[name]
        self._nonce = nonce or new_nonce()
        self._proof: ScramProof | None = None

    def _salt(self, username: str) -> bytes:
        message = f"{self.name}\0{username}".encode("utf-8", "surrogatepass")
        return hmac.digest(self.context.secret, message, "sha256")[:16]

    def _exchange(self, initial_response: bytes | None) -> Exchange:
        client_first = (yield b"") if initial_response is None else initial_response
        gs2_header, authorization_id, client_first_bare = split_gs2_header(client_first)
        username, client_nonce = _parse_client_first(client_first_bare)
        nonce = client_nonce + self._nonce
        salt, iterations = self._salt(username), self.context.scram_iterations
        server_first = b"r=%b,s=%b,i=%d" % (nonce, encode_challenge(salt), iterations)

        client_final = yield server_first
        without_proof, binding, final_nonce, proof = _parse_client_final(client_final)
        # Neither check depends on the user, so refusing without the usual work reveals nothing about users.
        if binding != gs2_header or not hmac.compare_digest(final_nonce, nonce):
            raise SASLError(REFUSED)
        auth_message = b",".join((client_first_bare, server_first, without_proof))
        self._proof = ScramProof(self._hash_name, salt, iterations, auth_message, self._decode_proof(proof))
        return Credentials._create(self.name, username, self._proof, authorization_id=authorization_id)

    def _decode_proof(self, raw: bytes) -> bytes | None:
        """The proof, or ``None`` if it is malformed. That is treated as a wrong password, after the same work."""
        try:
            proof = binascii.a2b_base64(raw, strict_mode=True)
        except binascii.Error:
            return None
        return proof if len(proof) == hashlib.new(self._hash_name).digest_size else None

    def _last_challenge(self, accepted: bool) -> bytes | None:
        # A 235 cannot carry data, so it is sent in a 334, which the client answers with an empty line (RFC 4954 §4).
        if not accepted or self._proof is None or self._proof.server_signature is None:
            return None
        return b"v=" + encode_challenge(self._proof.server_signature)


def _parse_client_first(bare: bytes) -> tuple[str, bytes]:
    """User name and nonce of client-first-message-bare (RFC 5802 section 7)."""
    parts = bare.split(b",")
    name = attribute(parts[0], b"n")  # a leading "m=" must not be ignored; it is not "n=", so it is refused
    nonce = attribute(parts[1], b"r") if len(parts) > 1 else None
    if name is None or nonce is None or len(nonce) > MAX_NAME or not is_nonce(nonce):
        raise malformed("bad SCRAM message")
    return username_field(unquote_saslname(name)), nonce


def _parse_client_final(message: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    """The message without its proof, the repeated GS2 header, the nonce and the proof (RFC 5802 section 7)."""
    without_proof, comma_p, proof = message.rpartition(b",p=")
    parts = without_proof.split(b",")
    binding = attribute(parts[0], b"c")
    nonce = attribute(parts[1], b"r") if len(parts) > 1 else None
    if not comma_p or binding is None or nonce is None:
        raise malformed("bad SCRAM message")
    try:
        return without_proof, binascii.a2b_base64(binding, strict_mode=True), nonce, proof
    except binascii.Error:
        raise malformed("bad SCRAM message") from None
