"""Keys for tests of signatures, and a verifier that knows them instead of asking the DNS."""

from __future__ import annotations

import base64
from functools import cache

import dkim
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from trio_smtp.dkim import Signer

DOMAIN = "x.test"
SELECTORS = ("rsa", "ed25519")


@cache
def private_key(selector: str) -> rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey:
    if selector == "rsa":
        return rsa.generate_private_key(65537, 2048)
    return ed25519.Ed25519PrivateKey.generate()


def pem(selector: str, form: PrivateFormat = PrivateFormat.PKCS8) -> bytes:
    return private_key(selector).private_bytes(Encoding.PEM, form, NoEncryption())


def record(selector: str) -> bytes:
    """What the DNS would say at <selector>._domainkey.<domain>."""
    key = private_key(selector).public_key()
    if isinstance(key, rsa.RSAPublicKey):
        return b"v=DKIM1; k=rsa; p=" + base64.b64encode(
            key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        )
    return b"v=DKIM1; k=ed25519; p=" + base64.b64encode(key.public_bytes_raw())


def make_signer(selector: str = "ed25519", domain: str = DOMAIN, **options: object) -> Signer:
    return Signer(domain, selector, pem(selector), **options)  # type: ignore[arg-type]


def is_valid(message: bytes, domain: str = DOMAIN) -> bool:
    """What dkimpy says of the topmost signature."""

    def look_up(name: bytes, timeout: float = 5) -> bytes | None:
        selector, _, rest = name.decode().partition("._domainkey.")
        return record(selector) if rest.rstrip(".") == domain else None

    return bool(dkim.verify(message, dnsfunc=look_up))


def tags(message: bytes) -> dict[str, str]:
    """The tags of the topmost signature, without white space."""
    name, _, rest = message.partition(b":")
    assert name == b"DKIM-Signature"
    lines = rest.split(b"\r\n")
    value = lines[0] + b"".join(lines[1 : next(n for n in range(1, len(lines)) if not lines[n].startswith(b" "))])
    pairs = ("".join(pair.split()).partition("=") for pair in value.decode().split(";"))
    return {tag: text for tag, _, text in pairs}
