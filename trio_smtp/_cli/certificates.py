# Throw-away certificates, for tests on one machine.
#
# `ssl` loads keys from files only, so the private key is for a moment in a file, encrypted with a random password and
# readable by its owner only. The certificate is self-signed: a client that trusts it can verify it.
#
# `cryptography` is imported by the functions that make one: it would slow down the start of every command.
from __future__ import annotations

import ipaddress
import os
import secrets
import ssl
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec


@dataclass(frozen=True, kw_only=True, slots=True)
class ThrowAwayCertificate:
    """A self-signed certificate and a server context with its key.

    Attributes:
        pem: the certificate without the key; a client trusts it.
        server_context: for the server.
    """

    pem: str
    server_context: ssl.SSLContext

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate, as pairs of hexadecimal digits."""
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes

        certificate = x509.load_pem_x509_certificate(self.pem.encode())
        return certificate.fingerprint(hashes.SHA256()).hex(":").upper()

    def client_context(self) -> ssl.SSLContext:
        """A context that verifies certificates and host names, and trusts only this certificate."""
        return ssl.create_default_context(cadata=self.pem)


def make_certificate(names: Iterable[str] = (), *, days: int = 7) -> ThrowAwayCertificate:
    """Make a certificate for ``localhost``, the loopback addresses and `names`.

    Args:
        names: further host names and IP addresses.
        days: how long it is valid.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "trio_smtp throw-away certificate")])
    now = datetime.now(UTC)
    public = key.public_key()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(issuer)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))  # the clocks of containers and hosts differ
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName(_general_names(names)), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    return ThrowAwayCertificate(pem=pem.decode("ascii"), server_context=_server_context(pem, key))


def _general_names(names: Iterable[str]) -> list[x509.GeneralName]:
    from cryptography import x509

    result: list[x509.GeneralName] = []
    for name in dict.fromkeys(["localhost", "127.0.0.1", "::1", *names]):
        try:
            result.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            if name.isascii():  # other names would need encoding, and are not used here
                result.append(x509.DNSName(name))
    return result


def _server_context(certificate: bytes, key: ec.EllipticCurvePrivateKey) -> ssl.SSLContext:
    from cryptography.hazmat.primitives import serialization

    password = secrets.token_urlsafe(24)
    encrypted = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(password.encode()),
    )
    descriptor, path = tempfile.mkstemp(suffix=".pem")  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(certificate + encrypted)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(path, password=password)
    finally:
        os.unlink(path)
    return context


def load_certificate(certificate: str, key: str | None) -> ssl.SSLContext:
    """A server context from PEM files. The key may be in the certificate's file.

    Raises:
        OSError: a file cannot be read.
        ValueError: the files do not hold a certificate and its key.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except ssl.SSLError as exc:
        # OpenSSL gives a reason for a key of another certificate, and "PEM lib" for any other error.
        words = exc.reason.replace("_", " ").lower() if exc.reason else "no certificate and private key in PEM form"
        raise ValueError(words) from exc
    return context


def load_again(context: ssl.SSLContext, certificate: str, key: str | None) -> None:
    """Load the files into a context that has a certificate, which it keeps if they cannot be loaded.

    Raises:
        OSError, ValueError: as :func:`load_certificate`.
    """
    load_certificate(certificate, key)  # a context that failed to load has neither the old nor the new
    context.load_cert_chain(certificate, key, password=_no_password)


def _no_password() -> str:
    # Without this OpenSSL would ask for a password at the terminal.
    raise ValueError("the key is protected by a password; a server needs a key without one")
