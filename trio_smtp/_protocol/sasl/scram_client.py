# SCRAM-SHA-1 and SCRAM-SHA-256, the client's side (RFC 5802, RFC 7677), without channel binding.
#
# The server must prove that it knows the password too, and until it has done so nothing it says is believed. A hostile
# server may choose the salt and the iteration count; the limits in scram.py bound what that costs.
from __future__ import annotations

import binascii
import hmac
from typing import ClassVar

from ..errors import LocalProtocolError
from .auth import Password
from .client import ClientMechanism, DeriveKey, Dialogue, failure
from .saslprep import SASLprepError, saslprep
from .scram import MAX_ITERATIONS, MIN_ITERATIONS, SCRAM_HASHES, ScramKeys, attribute, is_nonce, new_nonce
from .wire import encode_challenge, prepare_username, quote_saslname


class ScramClient(ClientMechanism):
    """What the two mechanisms have in common, which is everything but the hash.

    Raises:
        LocalProtocolError: the user name or the password has no form in which SCRAM could use it.
    """

    hash_name: ClassVar[str]

    def __init__(self, auth: Password, *, nonce: bytes | None = None) -> None:
        self._auth = auth
        self._username, self._password = prepare(auth)
        self._nonce = nonce or new_nonce()
        super().__init__()

    def _run(self) -> Dialogue:
        gs2_header = b"n,,"  # no channel binding, and none was on offer either (RFC 5802 §6)
        client_first_bare = b"n=%b,r=%b" % (quote_saslname(self._username), self._nonce)

        server_first = yield gs2_header + client_first_bare
        nonce, salt, iterations = self._parse_server_first(server_first)
        cached = self._auth.cached_key(self.hash_name, salt, iterations)
        key = cached or (yield DeriveKey(self.hash_name, self._password, salt, iterations))
        keys = ScramKeys.derive(self.hash_name, key)
        without_proof = b"c=%b,r=%b" % (encode_challenge(gs2_header), nonce)
        auth_message = b",".join((client_first_bare, server_first, without_proof))

        server_final = yield without_proof + b",p=" + encode_challenge(keys.client_proof(auth_message))
        # RFC 5802 §7: "e=" says why not. The server's reply comes after our answer; finish() would not believe a 235.
        error = attribute(server_final, b"e")
        if error is not None:
            self.error_detail = error.decode("utf-8", "backslashreplace")
            yield b""
            return
        signature = attribute(server_final.split(b",")[0], b"v")
        expected = encode_challenge(keys.server_signature(auth_message))
        if signature is None or not hmac.compare_digest(signature, expected):
            raise failure("the server does not know the password: its signature is wrong")
        self._auth.cache_key(self.hash_name, salt, iterations, key)
        self._complete = True
        yield b""  # RFC 4954 §4: data with the success travels in a 334, which wants an answer

    def _parse_server_first(self, message: bytes) -> tuple[bytes, bytes, int]:
        """Nonce, salt and iteration count (RFC 5802 section 7), each of which may be an attack."""
        parts = message.split(b",")
        values = [attribute(part, letter) for part, letter in zip(parts, (b"r", b"s", b"i"), strict=False)]
        # "m=" in the first place is an extension that must not be ignored: not an "r=", so refused here.
        if len(values) < 3 or None in values:
            raise failure("the server's SCRAM message is not understood")
        nonce, encoded_salt, count = (value or b"" for value in values)
        if not (nonce.startswith(self._nonce) and len(nonce) > len(self._nonce) and is_nonce(nonce)):
            raise failure("the server's SCRAM nonce does not extend ours")  # RFC 5802 §5.1
        try:
            salt = binascii.a2b_base64(encoded_salt, strict_mode=True)
        except binascii.Error:
            salt = b""
        if not salt or not (count.isdigit() and len(count) < 10):
            raise failure("the server's SCRAM message is not understood")
        iterations = int(count)
        if not MIN_ITERATIONS <= iterations <= MAX_ITERATIONS:
            raise failure(f"the server wants {iterations} iterations; {MIN_ITERATIONS} to {MAX_ITERATIONS} are taken")
        return nonce, salt, iterations


class ScramSHA1Client(ScramClient):
    """SCRAM-SHA-1 (RFC 5802)."""

    name = "SCRAM-SHA-1"
    hash_name = SCRAM_HASHES[name]


class ScramSHA256Client(ScramClient):
    """SCRAM-SHA-256 (RFC 7677)."""

    name = "SCRAM-SHA-256"
    hash_name = SCRAM_HASHES[name]


def prepare(auth: Password) -> tuple[str, bytes]:
    """User name and password in the forms that SCRAM uses (RFC 5802 sections 2.2 and 5.1)."""
    try:
        return prepare_username(auth.username), saslprep(auth.password, stored=True).encode()
    except SASLprepError as exc:
        raise LocalProtocolError(f"SCRAM cannot use a user name or a password {exc} (RFC 4013)") from None
