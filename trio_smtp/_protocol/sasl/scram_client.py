# SCRAM-SHA-1 and SCRAM-SHA-256, the client's side (RFC 5802, RFC 7677), without channel binding.
#
# The server must prove that it knows the password too; until then nothing it says is believed. A hostile server chooses
# the salt and the iteration count; the limits in scram.py bound the cost.
from __future__ import annotations

import binascii
import hmac

from ..errors import LocalProtocolError
from .auth import Password
from .client import ClientMechanism, DeriveKey, Exchange, Response, failure
from .saslprep import SASLprepError, saslprep
from .scram import MAX_ITERATIONS, MIN_ITERATIONS, SCRAM_HASHES, ScramKeys, attribute, is_nonce, new_nonce
from .wire import encode_challenge, prepare_username, quote_saslname


class ScramClient(ClientMechanism):
    """One of the mechanisms in SCRAM_HASHES, which differ in the hash only.

    Args:
        name: which.
        auth: the credentials.
        nonce: instead of a fresh one.

    Raises:
        LocalProtocolError: SASLprep does not allow the user name or the password.
    """

    def __init__(self, name: str, auth: Password, *, nonce: bytes | None = None) -> None:
        self.name = name
        self._hash_name = SCRAM_HASHES[name]
        self._auth = auth
        self._username, self._password = prepare(auth)
        self._nonce = nonce or new_nonce()
        super().__init__()

    def _run(self) -> Exchange:
        gs2_header = b"n,,"  # no channel binding; the server cannot have offered it either (RFC 5802 §6)
        client_first_bare = b"n=%b,r=%b" % (quote_saslname(self._username), self._nonce)

        server_first = yield Response(gs2_header + client_first_bare)
        nonce, salt, iterations = self._parse_server_first(server_first)
        cached = self._auth._cached_key(self._hash_name, salt, iterations)
        key = cached or (yield DeriveKey(self._hash_name, self._password, salt, iterations))
        keys = ScramKeys.derive(self._hash_name, key)
        without_proof = b"c=%b,r=%b" % (encode_challenge(gs2_header), nonce)
        auth_message = b",".join((client_first_bare, server_first, without_proof))

        server_final = yield Response(without_proof + b",p=" + encode_challenge(keys.client_proof(auth_message)))
        error = attribute(server_final, b"e")  # RFC 5802 §7: the reason for a refusal
        if error is not None:
            yield Response(b"", error_detail=error.decode("utf-8", "backslashreplace"))
            return
        signature = attribute(server_final.split(b",")[0], b"v")
        expected = encode_challenge(keys.server_signature(auth_message))
        if signature is None or not hmac.compare_digest(signature, expected):
            raise failure("the server does not know the password: its signature is wrong")
        self._auth._cache_key(self._hash_name, salt, iterations, key)
        yield Response(b"", complete=True)  # RFC 4954 §4: data with a success arrives in a 334, which needs an answer

    def _parse_server_first(self, message: bytes) -> tuple[bytes, bytes, int]:
        """Nonce, salt and iteration count (RFC 5802 section 7). Each may be hostile."""
        parts = message.split(b",")
        values = [attribute(part, letter) for part, letter in zip(parts, (b"r", b"s", b"i"), strict=False)]
        # A leading "m=" is an extension that must not be ignored. It is not "r=", so it is refused here.
        if len(values) < 3 or None in values:
            raise failure("cannot parse the server's SCRAM message")
        nonce, encoded_salt, count = (value or b"" for value in values)
        if not (nonce.startswith(self._nonce) and len(nonce) > len(self._nonce) and is_nonce(nonce)):
            raise failure("the server's SCRAM nonce does not extend ours")  # RFC 5802 §5.1
        try:
            salt = binascii.a2b_base64(encoded_salt, strict_mode=True)
        except binascii.Error:
            salt = b""
        if not salt or not (count.isdigit() and len(count) < 10):
            raise failure("cannot parse the server's SCRAM message")
        iterations = int(count)
        if not MIN_ITERATIONS <= iterations <= MAX_ITERATIONS:
            raise failure(f"the server asks for {iterations} iterations, not {MIN_ITERATIONS} to {MAX_ITERATIONS}")
        return nonce, salt, iterations


def prepare(auth: Password) -> tuple[str, bytes]:
    """User name and password as SCRAM uses them (RFC 5802 sections 2.2 and 5.1)."""
    try:
        return prepare_username(auth.username), saslprep(auth.password, stored=True).encode()
    except SASLprepError as exc:
        raise LocalProtocolError(f"SCRAM cannot use a user name or a password {exc} (RFC 4013)") from None
